"""What only the transport over ``broadcaster`` has: a Broadcast of the user's, and a backend that fails."""

import asyncio
import logging
import re
import time
from contextlib import asynccontextmanager
from functools import partial

import pytest
from broadcaster import Broadcast, Event
from fastapi import FastAPI

from fastapi_consumers import BrokerUnavailable, GroupConsumer, ImproperlyConfigured, action, add_consumers, path
from fastapi_consumers.testing import CallError, WebsocketCommunicator, lifespan
from fastapi_consumers.transports import broadcaster, broadcaster_link, broker
from fastapi_consumers.transports.broadcaster import BroadcasterTransport
from fastapi_consumers.transports.channel_names import channel_name
from tests.transports.tools import Received


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


async def test_the_users_own_channels_and_foreign_messages_on_ours_do_no_harm(caplog):
    broadcast, app = Watched(), FastAPI()
    add_consumers(app, [path("/ws", Room)], broadcast=broadcast)
    async with WebsocketCommunicator(app, "/ws") as client:
        await broadcast.publish("own", "x")
        await broadcast.publish("fc-3Agroup-3Aroom", "no base64!")
        await broadcast.publish("fc-3Agroup-3Aroom", "bm8gcGFja2V0")
        await broadcast.publish("fc-3Agroup-3Aroom", None)
        await client.call("say", {"text": "hi"})
        await client.assert_event("said", "hi")
    dropped = [record for record in caplog.records if "dropped" in record.getMessage()]
    assert [record.levelno for record in dropped] == [logging.WARNING] * 3
    found = app.state.consumers.health()
    # Two are no base64, the third one is no packet.
    assert (found["transport"]["foreign_messages"], found["bad_packets"]) == (2, 1)


class Backend:
    """A backend of ``broadcaster`` that fails on command."""

    def __init__(self):
        self.failing = set()
        self.subscribed = set()
        #: While it is set, subscribing to and leaving these channels waits.
        self.held, self.held_channels = None, ()
        #: Whether what is published vanishes; and never ends.
        self.is_deaf = self.hangs = False
        self.log = []
        self._queue = None

    def _check(self, what):
        if what in self.failing:
            raise OSError(f"{what} failed")

    async def _hold(self, channel):
        if self.held is not None and channel in self.held_channels:
            await self.held.wait()

    async def connect(self):
        self._check("connect")
        self.log.append("connect")
        self.subscribed.clear()
        self._queue = asyncio.Queue()

    async def disconnect(self):
        self.log.append("disconnect")

    async def subscribe(self, channel):
        self._check("subscribe")
        await self._hold(channel)
        self.subscribed.add(channel)

    async def unsubscribe(self, channel):
        await self._hold(channel)
        self.subscribed.discard(channel)

    async def publish(self, channel, message):
        self._check("publish")
        if self.hangs:
            await asyncio.Event().wait()
        if channel in self.subscribed and not self.is_deaf:
            self._queue.put_nowait(Event(channel, message))

    async def next_published(self):
        event = await self._queue.get()
        if isinstance(event, Exception):
            raise event
        return event

    def break_listener(self, error):
        """What broadcaster's listener finds next."""
        self._queue.put_nowait(error)

    @property
    def topics(self):
        """What is subscribed, but for the channel of the process itself."""
        return {name for name in self.subscribed if not name.startswith("fc-3A-21")}


@pytest.fixture
def backend():
    return Backend()


@pytest.fixture
async def transport(backend):
    transport = BroadcasterTransport(Broadcast(backend=backend), broker_timeout=0.5)
    yield transport
    await transport.close()


async def nothing(topic, packet):
    raise AssertionError


async def until(holds, timeout=30.0):
    """Wait until it holds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < timeout, "it never came to this"
        await asyncio.sleep(0.002)


def watch(transport):
    """What the transport tells of losses."""
    told = []

    async def on_gap(topics):
        told.append(sorted(topics))

    transport.on_gap = on_gap
    transport.on_lost = lambda: told.append("lost")
    return told


# A backend that fails


async def test_what_the_backend_cannot_do_is_broker_unavailable_and_can_be_tried_again(backend, transport):
    await transport.open(nothing)
    backend.failing = {"subscribe"}
    with pytest.raises(BrokerUnavailable) as caught:
        await transport.subscribe("t")
    assert "subscribe failed" in str(caught.value.__cause__)
    backend.failing = {"publish"}
    with pytest.raises(BrokerUnavailable) as caught:
        await transport.publish("t", b"x")
    assert "publish failed" in str(caught.value.__cause__)
    backend.failing = set()
    await until(lambda: transport.is_healthy)
    await transport.publish("t", b"x")
    await transport.subscribe("t")
    assert backend.topics == {"fc-3At"}
    await transport.close()
    assert backend.subscribed == set()


async def test_a_connect_that_fails_leaves_nothing_to_close(backend, transport):
    backend.failing = {"connect"}
    with pytest.raises(BrokerUnavailable) as caught:
        await transport.open(nothing)
    assert "found:    connect failed" in caught.value.__notes__
    await transport.close()
    with pytest.raises(BrokerUnavailable):
        await transport.subscribe("t")
    with pytest.raises(BrokerUnavailable):
        await transport.publish("t", b"x")
    backend.failing = set()
    await transport.open(nothing)
    assert transport.is_healthy


async def test_a_backend_that_hangs_is_given_up_within_the_timeout(backend, transport):
    await transport.open(nothing)
    backend.hangs = True
    async with asyncio.timeout(20):
        with pytest.raises(BrokerUnavailable):
            await transport.publish("t", b"x")
    backend.hangs = False
    await until(lambda: transport.is_healthy)


async def test_a_client_library_that_cancels_what_it_waits_for_does_not_cancel_the_caller(backend, transport):
    def cancelled():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        return future

    await transport.open(nothing)
    backend.publish = lambda channel, message: cancelled()
    backend.disconnect = cancelled
    with pytest.raises(BrokerUnavailable):
        await transport.publish("t", b"x")
    await until(lambda: not transport.is_healthy)
    del backend.publish, backend.disconnect
    await until(lambda: transport.is_healthy)


@pytest.mark.parametrize("error", [OSError("gone"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "not UTF-8"), None])
async def test_a_listener_that_dies_is_started_again_and_the_gap_is_told_before_anything_later(
    backend, transport, error, caplog
):
    received, told = Received(), watch(transport)
    await transport.open(received.deliver)
    for topic in ("t", "u"):
        await transport.subscribe(topic)
    transport.on_lost = lambda: told.append(f"lost, healthy: {transport.is_healthy}")
    backend.break_listener(error)
    await until(lambda: len(told) == 2)
    assert told == ["lost, healthy: False", ["t", "u"]]
    assert transport.is_healthy
    assert (transport.lost_connections, transport.reconnects) == (1, 1)
    assert backend.log == ["connect", "disconnect", "connect"]
    assert backend.topics == {"fc-3At", "fc-3Au"}
    await transport.publish("u", b"x")
    assert await received.next() == ("u", b"x")
    assert "lost the connection of the Broadcast" in caplog.text


async def test_a_backend_that_goes_silent_without_a_word_is_noticed(backend, transport, monkeypatch):
    monkeypatch.setattr(broadcaster_link, "BEAT_INTERVAL", 0.05)
    told = watch(transport)
    await transport.open(nothing)
    await transport.subscribe("t")
    backend.is_deaf = True
    await until(lambda: told == ["lost"])
    assert not transport.is_healthy
    backend.is_deaf = False
    await until(lambda: told == ["lost", ["t"]])


async def test_it_goes_on_trying_while_it_cannot_connect_or_subscribe(backend, transport, monkeypatch, caplog):
    monkeypatch.setattr(broker, "MAX_BACKOFF", 0.02)
    caplog.set_level(logging.INFO)
    told = watch(transport)
    await transport.open(nothing)
    await transport.subscribe("t")
    for step in ("connect", "subscribe"):
        backend.failing = {step}
        backend.break_listener(OSError("gone"))
        await until(lambda: caplog.text.count(f"{step} failed") > 2)  # noqa: B023 -- it is called before the loop goes on
        assert not transport.is_healthy
        backend.failing = set()
        await until(lambda: transport.is_healthy)
    await until(lambda: told == ["lost", ["t"], "lost", ["t"]])
    backend.failing = {"subscribe"}
    await transport.close()


async def test_it_goes_on_trying_however_long_it_takes(backend, transport, monkeypatch, caplog):
    monkeypatch.setattr(broker, "MAX_BACKOFF", 0.0)
    await transport.open(nothing)
    await transport.subscribe("t")
    caplog.set_level(logging.INFO)
    backend.failing = {"connect"}
    backend.break_listener(OSError("gone"))
    await until(lambda: len(caplog.records) > 1200)  # A float cannot be doubled as often.
    backend.failing = set()
    await until(lambda: transport.is_healthy)


async def test_hooks_that_fail_are_logged_and_harm_nothing(backend, transport, caplog):
    async def failing(topics):
        raise LookupError("no gap")

    def failing_too():
        raise LookupError("no loss")

    transport.on_gap, transport.on_lost = failing, failing_too
    await transport.open(nothing)
    backend.break_listener(OSError("gone"))
    await until(lambda: transport.is_healthy and "on_gap failed" in caplog.text)
    assert "on_lost failed" in caplog.text


async def test_a_broadcast_that_somebody_else_disconnects_is_told_at_once_and_not_connected_for_them(
    backend, transport, caplog
):
    told = watch(transport)
    broadcast = transport._broadcast
    await transport.open(nothing)
    await transport.subscribe("t")
    await broadcast.disconnect()
    await until(lambda: told == [["t"], "lost"])
    assert not transport.is_healthy
    assert "whoever connected it has to connect it again" in caplog.text
    assert backend.log == ["connect", "disconnect"]
    await broadcast.connect()
    await until(lambda: transport.is_healthy)
    await until(lambda: told == [["t"], "lost", ["t"]])
    await transport.close()
    assert backend.log == ["connect", "disconnect", "connect"]
    await broadcast.disconnect()


async def test_a_broadcast_of_the_users_is_lost_until_the_user_has_connected_it_again(backend):
    app, broadcast, told = FastAPI(), Broadcast(backend=backend), []
    consumers = add_consumers(app, [path("/ws", Room)], broadcast=broadcast)
    for event in ("lost", "back"):
        consumers.on_broker(event)(partial(told.append, event))
    await broadcast.connect()
    async with WebsocketCommunicator(app, "/ws") as client:
        await broadcast.disconnect()
        assert await client.receive_json_from() == {"type": "gap", "group": "room"}
        await until(lambda: told)
        assert told == ["lost"]
        assert consumers.health()["broker_lost_for"] >= 0
        await broadcast.connect()
        await until(lambda: len(told) > 1)
        assert told == ["lost", "back"]
        assert consumers.health()["broker_lost_for"] is None
    await broadcast.disconnect()


async def test_a_delivery_that_fails_is_logged_and_the_next_one_is_made(caplog):
    received = Received()

    async def failing(topic, packet):
        if packet == b"bad":
            raise LookupError("a bug in the hub")
        await received.deliver(topic, packet)

    transport = BroadcasterTransport(Broadcast("memory://"))
    await transport.open(failing)
    await transport.subscribe("t")
    for packet in (b"bad", b"good"):
        await transport.publish("t", packet)
    assert await received.next() == ("t", b"good")
    await transport.close()
    assert transport.failed_deliveries == 1
    assert "a packet for 't' could not be delivered" in caplog.text
    assert "a bug in the hub" in caplog.text


# Subscribing


async def test_a_subscription_that_was_cancelled_half_way_is_none(backend, transport, caplog):
    await transport.open(nothing)
    backend.held, backend.held_channels = asyncio.Event(), ("fc-3At",)
    task = asyncio.create_task(transport.subscribe("t"))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await transport.subscribe("other")
    assert backend.topics == {"fc-3Aother"}
    backend.held.set()
    await transport.subscribe("t")
    assert backend.topics == {"fc-3Aother", "fc-3At"}
    await transport.close()
    assert not caplog.records


async def test_a_slow_subscribe_holds_up_nobody_else_and_is_given_up_within_the_timeout(backend, transport):
    await transport.open(nothing)
    backend.held, backend.held_channels = asyncio.Event(), ("fc-3At",)
    slow = asyncio.create_task(transport.subscribe("t"))
    await asyncio.sleep(0)
    for number in range(10):
        await transport.subscribe(f"t{number}")
    assert not slow.done()
    with pytest.raises(BrokerUnavailable):
        await slow
    assert "fc-3At" not in backend.topics
    assert transport.is_healthy


async def test_who_subscribes_while_the_last_one_unsubscribes_is_subscribed(backend, transport):
    received = Received()
    await transport.open(received.deliver)
    await transport.subscribe("t")
    held = backend.held = asyncio.Event()
    backend.held_channels = ("fc-3At",)
    await transport.unsubscribe("t")
    await asyncio.sleep(0.02)
    joining = asyncio.create_task(transport.subscribe("t"))
    await asyncio.sleep(0.02)
    held.set()
    await joining
    assert backend.topics == {"fc-3At"}
    await transport.publish("t", b"x")
    assert await received.next() == ("t", b"x")


async def test_an_unsubscribe_that_is_cancelled_has_unsubscribed(backend, transport):
    await transport.open(nothing)
    await transport.subscribe("t")
    backend.held, backend.held_channels = asyncio.Event(), ("fc-3At",)
    task = asyncio.create_task(transport.unsubscribe("t"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await transport.publish("t", b"x")  # `nothing` fails if it is delivered
    backend.held.set()
    await until(lambda: not backend.topics)
    assert transport.failed_deliveries == 0


async def test_leaving_fails_quietly_and_the_connection_is_tried(backend, transport):
    await transport.open(nothing)
    await transport.subscribe("t")

    async def failing(channel):
        raise OSError("unsubscribe failed")

    backend.unsubscribe = failing
    await transport.unsubscribe("t")
    await transport.subscribe("u")
    assert transport.is_healthy


# Bounds


async def test_what_cannot_be_delivered_in_time_is_dropped_and_told(backend, transport, monkeypatch, caplog):
    monkeypatch.setattr(broadcaster, "MAX_PACKETS", 10)
    go_on, log = asyncio.Event(), []

    async def slow(topic, packet):
        await go_on.wait()
        log.append((topic, packet))

    async def on_gap(topics):
        log.append(sorted(topics))

    transport.on_gap = on_gap
    await transport.open(slow)
    for topic in ("t", "u", "v"):
        await transport.subscribe(topic)
    for number in range(1000):
        await transport.publish("t" if number < 20 else "u", str(number).encode())
    await until(lambda: transport.packets_in == 1000)
    assert transport.dropped_packets == 990
    assert len(transport._arrivals) <= 11  # ten packets and the gap
    go_on.set()
    await until(lambda: log and log[-1] == ["t", "u"])
    assert log[:-1] == [("t", str(number).encode()) for number in range(10)]
    await transport.publish("v", b"later")
    await until(lambda: log[-1] == ("v", b"later"))
    assert caplog.text.count("packets are dropped") == 1


# Backends with peculiarities


class KafkaBackend(Backend):
    """Leaves all channels when one is left, as broadcaster's own does."""

    async def unsubscribe(self, channel):
        self.log.append("unsubscribe")
        self.subscribed.clear()


async def test_over_kafka_no_channel_is_left_since_that_would_leave_all():
    backend, received = KafkaBackend(), Received()
    transport = BroadcasterTransport(Broadcast(backend=backend))
    await transport.open(received.deliver)
    assert backend.subscribed == set()  # no message to oneself: they would be kept
    for topic in ("t", "u"):
        await transport.subscribe(topic)
    await transport.unsubscribe("t")
    await transport.publish("t", b"not wanted")
    await transport.publish("u", b"1")
    assert await received.next() == ("u", b"1")
    await transport.subscribe("t")
    await transport.publish("t", b"2")
    assert await received.next() == ("t", b"2")
    assert backend.log == ["connect"]
    backend.failing = {"publish"}
    with pytest.raises(BrokerUnavailable):
        await transport.publish("t", b"3")
    backend.failing = set()
    await transport.publish("t", b"4")
    assert await received.next() == ("t", b"4")
    await transport.close()


@pytest.mark.parametrize("url", ["redis://localhost", "rediss://localhost", "redis-stream://localhost"])
def test_redis_through_broadcaster_is_refused_in_favour_of_our_own(url):
    with pytest.raises(ImproperlyConfigured, match='url="redis://') as caught:
        add_consumers(FastAPI(), [path("/ws", Room)], broadcast=Broadcast(url))
    assert [problem.code for problem in caught.value.problems] == ["broadcast-redis"]


def test_names_of_channels_are_such_as_every_broker_takes_and_no_two_are_the_same():
    topics = ["a.b", "a_b", "a-b", "a:b", "a-3Ab", "A.b", "ä", "a" * 63, "a" * 64, "a" * 65, ":" * 21, ":" * 22]
    names = [channel_name(topic) for topic in topics]
    assert len(set(names)) == len(topics)
    assert all(re.fullmatch(r"[A-Za-z0-9.-]{1,63}", name) for name in names)


# Apps


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
