"""``fastapi-consumers publish`` and ``history``, to a real app over a real broker."""

import asyncio
import json
from functools import partial

import pytest

from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from tests.publishing.test_history import make as make_log


@pytest.fixture
def publish(command):
    return partial(command, "publish")


async def test_an_event_reaches_a_group_from_a_process_of_its_own(run, url, ann, connections):
    arguments = ("publish", "room.a", "said", '{"text": "hi ♥"}', "--timeout", "20")
    result = await asyncio.to_thread(run, "-m", "fastapi_consumers", *arguments, FASTAPI_CONSUMERS_URL=url)
    assert (result.returncode, result.stdout, result.stderr) == (0, "published said to group room.a\n", "")
    await ann.assert_event("said", {"text": "hi ♥"}, group="room.a")
    assert connections() == 0


async def test_data_may_be_left_out_or_come_from_the_standard_input(publish, ann):
    await publish("room.a", "said")
    await ann.assert_event("said", None)
    assert (await publish("room.a", "said", "-", input="[1,\n2]\n")).returncode == 0
    await ann.assert_event("said", [1, 2])


async def test_an_event_reaches_a_user_and_a_channel(publish, ann):
    assert (await publish("--user", "ann", "note", "1")).stdout == "published note to user ann\n"
    await ann.assert_event("note", 1)
    result = await publish("note", "2", "--channel", ann.channel, "--json")
    assert json.loads(result.stdout) == {"event": "note", "channel": ann.channel}
    await ann.assert_event("note", 2)


async def test_the_url_may_stand_on_the_command_line(publish, ann, url):
    result = await publish("room.a", "said", "--url", url, FASTAPI_CONSUMERS_URL="redis://127.0.0.1:1")
    assert result.returncode == 0
    await ann.assert_event("said", None)


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "text"),
    [
        (["a", "b"], {"FASTAPI_CONSUMERS_URL": ""}, 2, "FASTAPI_CONSUMERS_URL"),
        (["a", "b"], {"FASTAPI_CONSUMERS_URL": "redis://:secret@127.0.0.1:1"}, 1, "tried:    redis://***@127.0.0.1:1"),
        (["a", "b"], {"FASTAPI_CONSUMERS_URL": "memory://"}, 2, "publisher-reaches-nobody"),
        (["a", "b"], {"FASTAPI_CONSUMERS_URL": "http://:secret@x"}, 2, "bad-url"),
        (["a", "b"], {"FASTAPI_CONSUMERS_URL": "foo://"}, 2, "expected: redis://, rediss://"),
        (["a", "b", "--timeout", "0"], {}, 2, "'--timeout': 0.0 is not in the range x>0."),
        (["a", "b", "--timeout", "-1"], {}, 2, "'--timeout': -1.0 is not in the range x>0."),
        (["a", "b", "--timeout", "nan"], {}, 2, "'--timeout': nan is not a finite number of seconds."),
        (["a", "b", "--timeout", "inf"], {}, 2, "'--timeout': inf is not a finite number of seconds."),
        ([], {}, 2, "Missing argument"),
        (["a"], {}, 2, "Expected GROUP EVENT"),
        (["a", "b", "1", "2"], {}, 2, "Quote it"),
        (["a", "b", "hi"], {}, 2, "DATA is not JSON"),
        (["a", "b", "NaN"], {}, 2, "DATA is not JSON"),
        (["a", "b", "[1e400]"], {}, 2, "DATA is not JSON: a number is too large"),
        (["a", "b", "-"], {"input": ""}, 2, "DATA is not JSON"),
        (["", "b"], {}, 2, "empty name"),
        (["b", "--user", "x", "--channel", "y"], {}, 2, "Name one receiver"),
        (["b", "--channel", "y"], {}, 2, "cannot be a channel"),
    ],
)
async def test_what_cannot_be_done_is_told_with_an_exit_code(publish, arguments, environment, code, text):
    result = await publish(*arguments, **environment)
    assert (result.returncode, result.stdout) == (code, "")
    assert text in result.stderr
    assert "secret" not in result.stderr
    assert "Traceback" not in result.stderr


# Groups with history


@pytest.fixture(params=["its server", "sqlite"])
async def log(request, url, tmp_path):
    """A client in ``log.a``, which has a history; and what the program needs to know of it."""
    environment = {} if request.param == "its server" else {"HISTORY": f"sqlite:///{tmp_path / 'history.db'}"}
    app = make_log(url.partition("&")[0], environment.get("HISTORY"))
    async with lifespan(app), WebsocketCommunicator(app, "/log/a") as client:
        client.joined = await client.receive_json_from()
        client.environment = {"FASTAPI_CONSUMERS_HISTORY_URL": environment.get("HISTORY", "")}
        yield client


@pytest.fixture
def history(command):
    return partial(command, "history")


async def test_it_tells_the_position_takes_a_key_once_and_what_is_kept_can_be_read(publish, history, log):
    epoch = log.joined["epoch"]
    result = await publish("log.a", "said", '"hi"', "--idempotency-key", "k", **log.environment)
    assert (result.returncode, result.stdout) == (0, f"published said to group log.a at {epoch}:1\n")
    event = await log.receive_json_from()
    assert (event["data"], event["offset"]) == ("hi", 1)
    result = await publish("log.a", "said", "2", "--idempotency-key", "k", "--json", **log.environment)
    assert json.loads(result.stdout) == {"event": "said", "group": "log.a", "epoch": epoch, "offset": 1}
    await publish("log.a", "left", '{"text": "♥"}', **log.environment)
    assert (await log.receive_json_from())["offset"] == 2

    result = await history("log.a", **log.environment)
    assert (result.returncode, result.stderr) == (0, "")
    first, second = (line.split("  ") for line in result.stdout.splitlines())
    assert (first[0], first[2:]) == ("1", ["said", '"hi"'])
    assert (second[0], second[2], json.loads(second[3])) == ("2", "left", {"text": "♥"})
    found = json.loads((await history("log.a", "--json", "--limit", "1", **log.environment)).stdout)
    assert (found["epoch"], found["top"]) == (epoch, 2)
    [newest] = found["results"]
    assert (newest["event"], newest["data"], newest["offset"], newest["at"]) == (
        "left", {"text": "♥"}, 2, second[1])  # fmt: skip
    result = await history("log.nothing", **log.environment)
    assert (result.returncode, result.stdout) == (0, "")
    assert "no events" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "text"),
    [
        (["publish", "room.a", "b", "--idempotency-key", "k"], {}, 2, "has no history"),
        (["publish", "b", "--user", "x", "--idempotency-key", "k"], {}, 2, "Only groups have a history"),
        (["publish", "room.a", "b", "--idempotency-key", ""], {}, 2, "printable"),
        (["publish", "room.a", "b", "--history-url", "http://:secret@x"], {}, 2, "bad-url"),
        (["history", ""], {}, 2, "empty name"),
        (["history", "a", "--limit", "0"], {}, 2, "--limit"),
        (["history", "a", "--timeout", "-1"], {}, 2, "'--timeout': -1.0 is not in the range x>0."),
        (["history", "a"], {"FASTAPI_CONSUMERS_URL": "foo://"}, 2, "expected: redis://, rediss://"),
        (["history", "a"], {"FASTAPI_CONSUMERS_URL": "memory://"}, 2, "no-history-store"),
        (["history", "a"], {"FASTAPI_CONSUMERS_URL": "postgresql://:secret@127.0.0.1/x"}, 2, "no-history-store"),
        (["history", "a"], {"FASTAPI_CONSUMERS_URL": "redis://:secret@127.0.0.1:1"}, 1, "tried:"),
    ],
)
async def test_what_cannot_be_done_with_a_history_is_told(command, arguments, environment, code, text):
    result = await command(*arguments, **environment)
    assert (result.returncode, result.stdout) == (code, "")
    assert text in result.stderr
    assert "secret" not in result.stderr
    assert "Traceback" not in result.stderr
