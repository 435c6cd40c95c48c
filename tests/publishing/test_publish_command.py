"""``fastapi-consumers publish``, as a program, to a real app over a real broker."""

import asyncio
import json

import pytest


@pytest.fixture
def publish(run, url):
    async def publish(*arguments, **options):
        options = {"FASTAPI_CONSUMERS_URL": url, **options}
        return await asyncio.to_thread(run, "-m", "fastapi_consumers", "publish", *arguments, **options)

    return publish


async def test_an_event_reaches_a_group(publish, ann, connections):
    result = await publish("room.a", "said", '{"text": "hi ♥"}')
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
        (["a", "b", "--timeout", "0"], {}, 2, "bad-broker-timeout"),
        ([], {}, 2, "Missing argument"),
        (["a"], {}, 2, "Expected GROUP EVENT"),
        (["a", "b", "1", "2"], {}, 2, "Quote it"),
        (["a", "b", "hi"], {}, 2, "DATA is not JSON"),
        (["a", "b", "NaN"], {}, 2, "DATA is not JSON"),
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
