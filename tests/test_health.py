import asyncio
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Response

from fastapi_consumers import Consumers, GroupConsumer, action, add_consumers, get_consumers, path
from fastapi_consumers.health import Broker, Health
from fastapi_consumers.testing import CallError, FaultyTransport, WebsocketCommunicator
from fastapi_consumers.transports import MemoryTransport


class Room(GroupConsumer):
    groups = ["room.{room}"]

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)


@pytest.fixture
def transport():
    return FaultyTransport(MemoryTransport())


@pytest.fixture
def app(transport):
    app = FastAPI()
    add_consumers(app, [path("/{room}", Room)], transport=transport)

    @app.get("/health")
    async def health(consumers: Annotated[Consumers, Depends(get_consumers)], response: Response) -> Health:
        found = consumers.health()
        response.status_code = 200 if found["healthy"] else 503
        return found

    return app


async def ask(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        response = await client.get("/health")
    return response.status_code, response.json()


async def test_a_broker_that_is_lost_and_comes_back_is_told_everywhere(app, transport):
    told = []
    app.state.consumers.on_broker("lost")(lambda: told.append("lost"))

    @app.state.consumers.on_broker("back")
    async def back() -> None:
        await asyncio.sleep(0)
        told.append("back")

    async with WebsocketCommunicator(app, "/a") as alice:
        status, found = await ask(app)
        assert (status, found["healthy"], found["broker_lost_for"], found["broker_losses"]) == (200, True, None, 0)
        assert (found["connections"], found["groups"]) == (1, 1)

        transport.die()
        status, found = await ask(app)
        assert (status, found["healthy"], found["broker_losses"]) == (503, False, 1)
        assert found["broker_lost_for"] >= 0
        # Nothing fails silently: who publishes is told.
        with pytest.raises(CallError, match="broker_unavailable"):
            await alice.call("say", {"text": "hi"})

        await transport.revive()
        # The room has no history, so its members are told that they may have missed something.
        assert await alice.receive_json_from() == {"type": "gap", "group": "room.a"}
        status, found = await ask(app)
        assert (status, found["healthy"], found["broker_lost_for"], found["broker_losses"]) == (200, True, None, 1)
        await alice.send_json_to({"action": "say", "data": {"text": "again"}})
        assert (await alice.receive_json_from())["data"] == "again"
    assert told == ["lost", "back"]


async def test_a_handler_that_fails_is_logged_and_harms_nobody(app, transport, caplog):
    told = asyncio.Event()

    @app.state.consumers.on_broker("lost")
    def fail() -> None:
        raise RuntimeError("mine")

    app.state.consumers.on_broker("lost")(told.set)
    async with WebsocketCommunicator(app, "/a"):
        transport.die()
        async with asyncio.timeout(20):
            await told.wait()
        await transport.revive()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "a handler of the broker's 'lost' failed"
    ]


def test_a_wrong_event_is_refused(app):
    with pytest.raises(ValueError, match=r'"lost" and "back"; found \'gone\''):
        app.state.consumers.on_broker("gone")


async def test_how_long_it_has_been_lost():
    now = 10.0
    broker = Broker(lambda: now)
    assert broker.lost_for is None
    broker.back()
    broker.lost()
    now = 12.5
    assert broker.lost_for == 2.5
    broker.back()
    assert (broker.lost_for, broker.losses) == (None, 1)
