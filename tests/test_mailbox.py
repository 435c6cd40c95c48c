"""Event methods: what one of them does is never in the way of the messages after it."""

import asyncio
import logging

import pytest
from fastapi import FastAPI

from fastapi_consumers import ConsumerError, GroupConsumer, StopConsumer, action, add_consumers, event, path
from fastapi_consumers.testing import WebsocketCommunicator


class Room(GroupConsumer):
    groups = ["room"]

    @event
    async def stray(self, message):
        for _ in range(message.get("turns", 0)):
            await asyncio.sleep(0)
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    @event
    async def raises(self, message):
        raise ConsumerError("no_way", "No way.")

    @event
    def plain(self, message):
        raise RuntimeError("secret")

    @event
    async def stops(self, message):
        raise StopConsumer

    @event
    async def note(self, message):
        await self.send_event("noted", message["number"])

    @action
    async def ping(self) -> str:
        return "pong"


@pytest.fixture
def app():
    app = FastAPI()
    add_consumers(app, [path("/", Room)])
    return app


async def send(app, kind, **message):
    await app.state.consumers.layer.group_send("room", {"type": kind, **message})


async def error_of(client):
    frame = await client.receive_json_from()
    assert frame["type"] == "error"
    return frame["error"]["code"]


@pytest.mark.parametrize("turns", [0, 1], ids=["at once", "after it has waited"])
async def test_an_event_method_that_awaits_something_cancelled_is_told_and_the_next_messages_are_handled(
    app, caplog, turns
):
    async with WebsocketCommunicator(app, "/") as client:
        # The first two are there together, the third comes when the mailbox had ended.
        await send(app, "stray", turns=turns)
        await send(app, "note", number=1)
        assert await error_of(client) == "internal_error"
        await client.assert_event("noted", 1)
        await send(app, "note", number=2)
        await client.assert_event("noted", 2)
        assert await client.call("ping") == "pong"
        assert await client.receive_nothing(0)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert isinstance(record.exc_info[1].__cause__, asyncio.CancelledError)


@pytest.mark.parametrize(("kind", "code"), [("raises", "no_way"), ("plain", "internal_error")])
async def test_an_event_method_that_raises_is_told_and_the_next_messages_are_handled(app, kind, code):
    async with WebsocketCommunicator(app, "/") as client:
        await send(app, kind)
        await send(app, "note", number=1)
        assert await error_of(client) == code
        await client.assert_event("noted", 1)


async def test_an_event_method_can_stop_the_consumer(app):
    async with WebsocketCommunicator(app, "/") as client:
        await send(app, "stops")
        await client.assert_closed(1000)
        await client.wait()
    assert not app.state.consumers.connections


async def test_a_client_that_goes_ends_an_event_method_that_waits(app):
    ended = asyncio.Event()

    class Waiting(Room):
        @event
        async def waits(self, message):
            await self.send_event("began")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.set()

    app = FastAPI()
    add_consumers(app, [path("/", Waiting)])
    async with WebsocketCommunicator(app, "/") as client:
        await send(app, "waits")
        await client.assert_event("began")
        assert not ended.is_set()
    assert ended.is_set()
    assert not app.state.consumers.connections
