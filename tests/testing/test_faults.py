"""The transport that goes wrong on command: what each command does, and a chat room over it."""

import asyncio
import inspect
import random

import pytest
from broadcaster import Broadcast
from fastapi import FastAPI

from fastapi_consumers import BrokerUnavailable, GroupConsumer, Publisher, action, add_consumers, path
from fastapi_consumers.testing import CallError, FaultyTransport, WebsocketCommunicator, lifespan
from fastapi_consumers.transports import MemoryTransport
from fastapi_consumers.transports.broadcaster import BroadcasterTransport
from tests.transports import test_contract

# The contract, on a transport without faults: all of its tests that need no server.
OWN = {"transport", "received", "make_transport", "packet"}
globals().update(
    {
        name: test
        for name, test in vars(test_contract).items()
        if name.startswith("test_") and set(inspect.signature(test).parameters) <= OWN
    }
)


@pytest.fixture
def make_transport():
    return lambda: FaultyTransport(MemoryTransport())


@pytest.fixture
def received():
    return test_contract.Received()


@pytest.fixture
async def transport(make_transport, received):
    transport = make_transport()
    await transport.open(received.deliver)
    await transport.subscribe("end")
    yield transport
    await transport.close()


def test_the_contract_is_there():
    assert "test_packets_of_a_topic_arrive_in_the_order_in_which_they_were_published" in globals()


class Log:
    """What a transport delivers and tells, in order."""

    def __init__(self, transport):
        self.transport = transport
        self.entries = []
        transport.on_lost = lambda: self.entries.append("lost")
        transport.on_gap = self.gap

    async def gap(self, topics):
        self.entries.append(("gap", *topics))

    async def deliver(self, topic, packet):
        self.entries.append(f"{topic}{packet.decode()}")

    def take(self):
        entries, self.entries = self.entries, []
        return " ".join(entry if isinstance(entry, str) else ":".join(entry) for entry in entries)


@pytest.fixture
async def log():
    log = Log(FaultyTransport(MemoryTransport()))
    await log.transport.open(log.deliver)
    for topic in "ab":
        await log.transport.subscribe(topic)
    yield log
    await log.transport.close()


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 -- what it waits for has no event
            await asyncio.sleep(0.001)


async def publish(transport, *items):
    for item in items:
        await transport.publish(item[0], item[1:].encode())


async def test_packets_are_dropped_and_duplicated(log):
    log.transport.drop()
    log.transport.duplicate(2, topic="b")
    await publish(log.transport, "a1", "a2", "b1", "b2", "b3")
    assert log.take() == "a2 b1 b1 b2 b2 b3"
    assert log.transport.counters == {
        "delivered": 6, "dropped": 1, "duplicated": 2, "delayed": 0, "reordered": 0, "refused": 0,
    }  # fmt: skip


async def test_delayed_packets_come_when_they_are_released(log):
    log.transport.delay(3)
    await publish(log.transport, "a1", "b1", "a2", "a3")
    assert log.take() == "a3"
    assert log.transport.held_back == [("a", b"1"), ("b", b"1"), ("a", b"2")]
    assert await log.transport.release(1) == 1
    assert log.take() == "a1"
    assert await log.transport.release() == 2
    assert log.take() == "b1 a2"
    assert await log.transport.release() == 0


async def test_what_is_released_may_be_shuffled_by_the_seed(log):
    orders = []
    for _ in range(2):
        log.transport.delay(8)
        await publish(log.transport, *[f"a{number}" for number in range(8)])
        await log.transport.release(shuffled=True)
        orders.append(log.take().split())
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == [f"a{number}" for number in range(8)]


async def test_a_reordered_packet_comes_after_the_next_one_of_its_topic(log):
    log.transport.reorder(topic="a")
    await publish(log.transport, "a1", "b1", "a2", "a3")
    assert log.take() == "b1 a2 a1 a3"
    log.transport.reorder(2)
    await publish(log.transport, "a4", "a5", "a6")
    assert log.take() == "a6 a4 a5"
    log.transport.reorder()
    await publish(log.transport, "a7")
    assert await log.transport.release() == 1
    assert log.take() == "a7"


async def test_what_is_held_back_of_a_topic_that_is_left_is_forgotten(log):
    log.transport.delay(2)
    log.transport.reorder()
    await publish(log.transport, "a1", "b1", "a2")
    await log.transport.unsubscribe("a")
    await log.transport.release()
    assert log.take() == "b1"


async def test_publishing_is_refused_whether_it_was_carried_out_or_not(log):
    log.transport.refuse_publishes()
    log.transport.refuse_publishes(carried_out=True)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await publish(log.transport, "a1")
    assert log.take() == "a1"
    await publish(log.transport, "a2")
    assert log.take() == "a2"
    assert log.transport.counters["refused"] == 2


async def test_subscribing_is_refused(log):
    log.transport.refuse_subscribes()
    with pytest.raises(BrokerUnavailable):
        await log.transport.subscribe("c")
    await publish(log.transport, "c1")
    await log.transport.subscribe("c")
    await publish(log.transport, "c2")
    assert log.take() == "c2"


async def test_while_it_is_dead_nothing_goes_through_and_afterwards_the_gap_is_told_first(log):
    transport = log.transport
    transport.delay()
    await publish(transport, "a1")
    transport.die()
    transport.die()
    assert not transport.is_healthy
    with pytest.raises(BrokerUnavailable):
        await publish(transport, "a2")
    with pytest.raises(BrokerUnavailable):
        await transport.subscribe("c")
    await publish(transport.inner, "a3")
    await transport.unsubscribe("b")
    assert await transport.release() == 0
    await transport.revive()
    await transport.revive()
    assert transport.is_healthy
    await publish(transport, "a4")
    assert log.take() == "lost gap:a a4"
    assert transport.counters["dropped"] == 2


async def test_what_arrives_while_the_gap_is_told_comes_after_it_and_in_order(log):
    transport = log.transport

    async def gap(topics):
        await publish(transport, "a1", "a2")
        await transport.subscribe("c")
        log.entries.append("told")

    transport.on_gap = gap
    transport.die()
    await transport.revive()
    await publish(transport, "a3", "c1")
    assert log.take() == "lost told a1 a2 a3 c1"


async def test_it_may_die_again_while_it_revives(log):
    transport = log.transport

    async def gap(topics):
        await publish(transport, "a1")
        transport.die()

    transport.on_gap = gap
    transport.die()
    await transport.revive()
    assert not transport.is_healthy
    transport.on_gap = log.gap
    await transport.revive()
    assert log.take() == "lost gap:a:b"


async def test_hooks_that_fail_do_not_keep_it_dead(log, caplog):
    async def gap(topics):
        raise RuntimeError("in on_gap")

    def lost():
        raise RuntimeError("in on_lost")

    log.transport.on_gap, log.transport.on_lost = gap, lost
    log.transport.die()
    await log.transport.revive()
    await publish(log.transport, "a1")
    assert log.take() == "a1"
    assert "on_gap failed" in caplog.text
    assert "on_lost failed" in caplog.text


async def test_losses_of_what_is_inside_are_passed_on(log):
    await log.transport.inner.on_gap(["a", "unknown"])
    log.transport.inner.on_lost()
    assert log.take() == "gap:a lost"
    log.transport.die()
    log.transport.inner.on_lost()
    await log.transport.inner.on_gap(["a"])
    assert log.take() == "lost"


async def test_the_same_seed_meets_the_same_faults():
    async def run(seed):
        log = Log(
            FaultyTransport(MemoryTransport(), seed=seed, drop=0.2, duplicate=0.1, delay=0.1, reorder=0.2, refuse=0.1)
        )
        await log.transport.open(log.deliver)
        await log.transport.subscribe("a")
        refused = []
        for number in range(300):
            try:
                await publish(log.transport, f"a{number}")
            except BrokerUnavailable:
                refused.append(number)
        await log.transport.release(shuffled=True)
        await log.transport.close()
        return log.take(), refused, dict(log.transport.counters)

    first, again, other = await run(1), await run(1), await run(2)
    assert first == again
    assert first != other
    counters = first[2]
    assert all(counters[name] > 10 for name in counters)
    # Nothing is lost but what was dropped and refused, nothing comes twice but what was duplicated.
    assert counters["delivered"] == 300 - counters["refused"] - counters["dropped"] + counters["duplicated"]
    assert len(first[1]) == counters["refused"]


async def test_calm_ends_all_faults(log):
    transport = FaultyTransport(MemoryTransport(), drop=1.0, refuse=1.0)
    transport.refuse_publishes(5)
    transport.refuse_subscribes(5)
    transport.drop(5)
    transport.calm()
    log = Log(transport)
    await transport.open(log.deliver)
    await transport.subscribe("a")
    await publish(transport, "a1")
    assert log.take() == "a1"
    await transport.close()


@pytest.mark.parametrize("rates", [{"drop": -0.1}, {"drop": 0.6, "delay": 0.6}, {"refuse": 1.5}])
def test_what_is_no_probability_is_refused(rates):
    with pytest.raises(ValueError, match="probabilities lie between 0 and 1"):
        FaultyTransport(MemoryTransport(), **rates)


# A chat room


class Chat(GroupConsumer):
    groups = ["chat.{room}"]

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)


def make_app(transport):
    app = FastAPI()
    add_consumers(app, [path("/chat/{room}", Chat)], transport=transport)
    return app


@pytest.fixture
async def rooms():
    """Two processes of one app, as it were: their transports, and a client in each."""
    broadcast = Broadcast("memory://")
    transports = [FaultyTransport(BroadcasterTransport(broadcast)) for _ in range(2)]
    apps = [make_app(transport) for transport in transports]
    async with lifespan(apps[0]), lifespan(apps[1]):
        async with WebsocketCommunicator(apps[0], "/chat/a") as ann, WebsocketCommunicator(apps[1], "/chat/a") as bob:
            yield transports, ann, bob


async def test_one_process_misses_what_the_other_hears(rooms):
    [_, there], ann, bob = rooms
    there.drop(topic="group:chat.a")
    await ann.call("say", {"text": "unheard"})
    await ann.assert_event("said", "unheard")
    await ann.call("say", {"text": "heard"})
    await ann.assert_event("said", "heard")
    await bob.assert_event("said", "heard")


async def test_a_process_that_loses_its_connection_refuses_and_takes_part_again(rooms):
    [_, there], ann, bob = rooms
    there.die()
    with pytest.raises(CallError) as caught:
        await bob.call("say", {"text": "from the dead"})
    assert caught.value.code == "broker_unavailable"
    await ann.call("say", {"text": "meanwhile"})
    await ann.assert_event("said", "meanwhile")
    await until(lambda: there.counters["dropped"] == 1)
    await there.revive()
    await bob.call("say", {"text": "back"})
    for client in (ann, bob):
        await client.assert_event("said", "back")


async def test_a_room_over_a_transport_with_random_faults_delivers_what_the_transport_does():
    transport = FaultyTransport(MemoryTransport(), seed=7, drop=0.1, duplicate=0.1, delay=0.1, reorder=0.1, refuse=0.1)
    arrived, texts, refused = [], random.Random(7), 0
    async with WebsocketCommunicator(make_app(transport), "/chat/a") as ann:
        for _ in range(200):
            try:
                await ann.call("say", {"text": str(texts.random())})
            except CallError:
                refused += 1
        await transport.release()
        while not await ann.receive_nothing(timeout=0.01):
            arrived.append((await ann.receive_json_from())["data"])
    counters = transport.counters
    assert refused == counters["refused"] > 5
    assert len(arrived) == counters["delivered"] == 200 - refused - counters["dropped"] + counters["duplicated"]
    assert len(set(arrived)) == 200 - refused - counters["dropped"]


async def test_a_publisher_over_it_is_refused_and_goes_on():
    broadcast = Broadcast("memory://")
    transport = FaultyTransport(BroadcasterTransport(broadcast))
    app = make_app(BroadcasterTransport(broadcast))
    async with lifespan(app), WebsocketCommunicator(app, "/chat/a") as ann, Publisher(transport=transport) as publish:
        transport.refuse_publishes()
        with pytest.raises(BrokerUnavailable):
            await publish.broadcast("chat.a", "said", 1)
        await publish.broadcast("chat.a", "said", 2)
        await ann.assert_event("said", 2)
