"""``presence``, of an application over a real broker."""

import asyncio
import json
import uuid

import pytest
from fastapi import FastAPI

from fastapi_consumers import GroupConsumer, add_consumers, path
from fastapi_consumers.presence import Presence
from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from tests.transports.conftest import broker, make_broker

__all__ = ["broker", "make_broker"]


def query(name):
    return lambda room: room.websocket.query_params.get(name)


class Room(GroupConsumer):
    groups = ["room.{room}"]
    presence = Presence(key=query("name"), info=lambda room: {"device": query("device")(room)}, grace=0)


async def test_who_is_there_is_printed(broker, call):
    url = f"{broker.url}?prefix={uuid.uuid4().hex}:"
    app = FastAPI()
    add_consumers(app, [path("/{room}", Room)], url=url)

    async def presence(*arguments):
        return await asyncio.to_thread(call, "presence", "room.1", "--url", url, *arguments)

    async with lifespan(app):
        result = await presence()
        assert (result.code, result.out) == (0, "")
        assert "Nobody is in the group 'room.1'" in result.err
        async with (
            WebsocketCommunicator(app, "/1?name=bob&device=tv") as bob,
            WebsocketCommunicator(app, "/1?name=ann%0A&device=phone") as ann,
            WebsocketCommunicator(app, "/1?name=bob&device=phone") as again,
        ):
            for client in (bob, ann, again):
                await client.call("presence")
            result = await presence()
            assert (result.code, result.err) == (0, "")
            lines = sorted(tuple(line.split("  ", 1)) for line in result.out.splitlines())
            assert [(key, json.loads(meta)["device"]) for key, meta in lines] in (
                [('"ann\\n"', "phone"), ("bob", "phone"), ("bob", "tv")],
            )
            found = json.loads((await presence("--json")).out)
            assert (found["count"], set(found["members"])) == (2, {"bob", "ann\n"})
            assert {meta["device"] for meta in found["members"]["bob"]["metas"]} == {"tv", "phone"}
            assert (await presence("--count")).out == "2\n"
            assert json.loads((await presence("--count", "--json")).out) == {"count": 2}
            result = await asyncio.to_thread(
                call, "presence", "room.1", "--url", "postgresql://x", "--presence-url", url, "--count"
            )
            assert result.out == "2\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([""], 2, "empty name"),
        (["a"], 2, "FASTAPI_CONSUMERS_URL"),
        (["a", "--url", "memory://"], 2, "no-presence-store"),
        (["a", "--url", "foo://"], 2, "expected: redis://, rediss://"),
        (["a", "--url", "redis://127.0.0.1:1", "--timeout", "-1"], 2, "-1.0 is not in the range x>0"),
        (["a", "--url", "postgresql://:secret@127.0.0.1/x"], 2, "no-presence-store"),
        (["a", "--url", "redis://127.0.0.1:1", "--presence-url", "http://:secret@x"], 2, "bad-presence-url"),
        (["a", "--url", "redis://:secret@127.0.0.1:1"], 1, "tried:"),
    ],
)
def test_what_cannot_be_done_is_told(call, monkeypatch, arguments, code, text):
    monkeypatch.delenv("FASTAPI_CONSUMERS_URL", raising=False)
    if arguments == [""]:
        arguments = ["", "--url", "redis://127.0.0.1:1"]
    result = call("presence", *arguments)
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert "secret" not in result.err
