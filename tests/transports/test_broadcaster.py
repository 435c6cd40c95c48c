"""What only the transport over ``broadcaster`` has: a Broadcast of the user's, and a backend that fails."""

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest
from broadcaster import Broadcast
from fastapi import FastAPI

from fastapi_consumers import BrokerUnavailable, GroupConsumer, ImproperlyConfigured, action, add_consumers, path
from fastapi_consumers.testing import CallError, WebsocketCommunicator, lifespan
from fastapi_consumers.transports.broadcaster import BroadcasterTransport


class Room(GroupConsumer):
    groups = ["room"]

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)


class Watched(Broadcast):
    """Counts how often it was connected and disconnected."""

    def __init__(self):
        super().__init__("memory://")
        self.log = []

    async def connect(self):
        self.log.append("connect")
        await super().connect()

    async def disconnect(self):
        self.log.append("disconnect")
        await super().disconnect()


async def chat(app):
    async with WebsocketCommunicator(app, "/ws") as one, WebsocketCommunicator(app, "/ws") as two:
        await one.call("say", {"text": "hi"})
        for client in (one, two):
            await client.assert_event("said", "hi", "room")


async def test_a_broadcast_that_nobody_connected_is_connected_and_disconnected_with_the_app():
    broadcast, app = Watched(), FastAPI()
    add_consumers(app, [path("/ws", Room)], broadcast=broadcast)
    async with lifespan(app):
        assert broadcast.log == ["connect"]
        await chat(app)
    assert broadcast.log == ["connect", "disconnect"]


async def test_a_broadcast_that_the_user_connected_is_the_users_to_disconnect():
    broadcast, app = Watched(), FastAPI()
    add_consumers(app, [path("/ws", Room)], broadcast=broadcast)
    async with broadcast:
        async with lifespan(app):
            await chat(app)
        assert broadcast.log == ["connect"]
        async with broadcast.subscribe("own") as subscriber:
            await broadcast.publish("own", "still works")
            assert (await subscriber.get()).message == "still works"


async def test_a_broadcast_that_was_connected_once_and_is_not_any_more_is_connected():
    broadcast, app = Watched(), FastAPI()
    add_consumers(app, [path("/ws", Room)], broadcast=broadcast)
    async with broadcast:
        pass
    async with lifespan(app):
        await chat(app)
    assert broadcast.log == ["connect", "disconnect"] * 2


async def test_a_lifespan_that_connects_it_a_second_time_is_told_so_at_startup():
    broadcast = Watched()

    @asynccontextmanager
    async def own(app):
        async with broadcast:
            yield

    app = FastAPI(lifespan=own)
    add_consumers(app, [path("/ws", Room)], broadcast=broadcast)
    with pytest.raises(ImproperlyConfigured, match="do not connect and disconnect it in the lifespan"):
        async with lifespan(app):
            pass


async def test_a_lifespan_that_disconnects_it_before_we_do_lets_the_app_stop(caplog):
    broadcast = Watched()

    @asynccontextmanager
    async def own(app):
        yield
        await broadcast.disconnect()

    app = FastAPI(lifespan=own)
    add_consumers(app, [path("/ws", Room)], broadcast=broadcast)
    async with lifespan(app):
        await chat(app)
    assert broadcast.log == ["connect", "disconnect"]


async def test_a_listener_that_died_is_logged_when_the_app_stops(backend, transport, caplog):
    await transport.open(nothing)
    backend._queue.put_nowait(None)  # broadcaster's listener fails on what is no event
    await asyncio.wait([transport._listener], timeout=5)
    await transport.close()
    assert "the listener of the Broadcast had ended" in caplog.text


async def test_the_users_own_channels_and_foreign_messages_on_ours_do_no_harm(caplog):
    broadcast, app = Watched(), FastAPI()
    add_consumers(app, [path("/ws", Room)], broadcast=broadcast)
    async with WebsocketCommunicator(app, "/ws") as client:
        await broadcast.publish("own", "x")
        await broadcast.publish("group:room", "no base64!")
        await broadcast.publish("group:room", "bm8gcGFja2V0")
        await broadcast.publish("group:room", None)
        await client.call("say", {"text": "hi"})
        await client.assert_event("said", "hi")
    dropped = [record for record in caplog.records if "dropped" in record.getMessage()]
    assert [record.levelno for record in dropped] == [logging.WARNING] * 3


class Backend:
    """A backend of ``broadcaster`` that fails on command."""

    def __init__(self):
        self.failing = set()
        self.subscribed = set()
        self.held = None
        self._queue = None

    def _check(self, what):
        if what in self.failing:
            raise OSError(f"{what} failed")

    async def connect(self):
        self._check("connect")
        self._queue = asyncio.Queue()

    async def disconnect(self):
        pass

    async def subscribe(self, channel):
        self._check("subscribe")
        if self.held is not None:
            await self.held.wait()
        self.subscribed.add(channel)

    async def unsubscribe(self, channel):
        if self.held is not None:
            await self.held.wait()
        self.subscribed.discard(channel)

    async def publish(self, channel, message):
        self._check("publish")

    async def next_published(self):
        return await self._queue.get()


@pytest.fixture
def backend():
    return Backend()


@pytest.fixture
def transport(backend):
    return BroadcasterTransport(Broadcast(backend=backend))


async def nothing(topic, packet):
    raise AssertionError


async def test_what_the_backend_cannot_do_is_broker_unavailable_and_can_be_tried_again(backend, transport):
    await transport.open(nothing)
    backend.failing = {"publish", "subscribe"}
    with pytest.raises(BrokerUnavailable) as caught:
        await transport.publish("t", b"x")
    assert "publish failed" in str(caught.value.__cause__)
    backend.failing = set()
    await transport.publish("t", b"x")
    await transport.subscribe("t")
    assert backend.subscribed == {"t"}
    await transport.close()
    assert backend.subscribed == set()


async def test_a_connect_that_fails_leaves_nothing_to_close(backend, transport):
    backend.failing = {"connect"}
    with pytest.raises(OSError, match="connect failed"):
        await transport.open(nothing)
    await transport.close()


async def test_a_subscription_that_ends_by_itself_is_logged(caplog):
    ended = asyncio.Event()

    async def failing(topic, packet):
        ended.set()
        raise LookupError("a bug in the hub")

    transport = BroadcasterTransport(Broadcast("memory://"))
    await transport.open(failing)
    await transport.subscribe("t")
    await transport.publish("t", b"x")
    await ended.wait()
    await transport.unsubscribe("t")
    await transport.close()
    assert "the subscription to 't' ended" in caplog.text
    assert "a bug in the hub" in caplog.text


async def test_a_subscription_that_was_cancelled_half_way_is_none(backend, transport, caplog):
    await transport.open(nothing)
    held = backend.held = asyncio.Event()
    task = asyncio.create_task(transport.subscribe("t"))
    await asyncio.wait([task], timeout=0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    backend.held = None
    held.set()
    await transport.subscribe("other")
    assert backend.subscribed == {"other"}
    await transport.subscribe("t")
    assert backend.subscribed == {"other", "t"}
    await transport.close()
    assert not caplog.records


async def test_who_subscribes_while_the_last_one_unsubscribes_is_subscribed(backend, transport):
    await transport.open(nothing)
    await transport.subscribe("t")
    held = backend.held = asyncio.Event()
    leaving = asyncio.create_task(transport.unsubscribe("t"))
    await asyncio.wait([leaving], timeout=0)
    joining = asyncio.create_task(transport.subscribe("t"))
    await asyncio.wait([joining], timeout=0)
    held.set()
    await asyncio.gather(leaving, joining)
    assert backend.subscribed == {"t"}
    await transport.close()


async def test_a_broker_that_fails_is_told_to_the_client_and_the_socket_stays(backend):
    app = FastAPI()
    add_consumers(app, [path("/ws", Room)], broadcast=Broadcast(backend=backend))
    async with WebsocketCommunicator(app, "/ws") as client:
        backend.failing = {"publish"}
        with pytest.raises(CallError) as caught:
            await client.call("say", {"text": "hi"})
        assert caught.value.code == "broker_unavailable"
        backend.failing = set()
        await client.call("say", {"text": "hi"})
