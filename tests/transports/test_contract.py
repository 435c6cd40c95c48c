"""What every transport promises, on each of them."""

import asyncio
import contextlib
import random
import time
import uuid

import pytest
from broadcaster import Broadcast

from fastapi_consumers.exceptions import BrokerUnavailable
from fastapi_consumers.transports import MemoryTransport, RedisTransport
from fastapi_consumers.transports.broadcaster import BroadcasterTransport
from tests.transports.tools import Received, ends, opened, subscribe_ends, until, until_end


class Backend:
    """What a transport runs over."""

    #: What has the subscriptions; ``None`` without a server.
    server = None

    def __init__(self, make):
        self.make = make
        self.prefix = ""

    def make_of_an_app_of_its_own(self):
        return self.make()


class ServerBackend(Backend):
    def __init__(self, server):
        self.server = server
        self.prefix = f"{uuid.uuid4().hex}:"

    def make(self, broker_timeout=20.0):
        return RedisTransport(self.server.url, prefix=self.prefix, broker_timeout=broker_timeout)

    def make_of_an_app_of_its_own(self):
        return RedisTransport(self.server.url, prefix=f"{uuid.uuid4().hex}:")

    def left_behind(self):
        """Names of the topics that anybody is subscribed to."""
        own = f"{self.prefix}!"
        return {name.removeprefix(self.prefix) for name in self.server.subscribed(self.prefix) if name != own}


BACKENDS = {
    "memory": lambda request: Backend(MemoryTransport),
    "broadcaster": lambda request: Backend(lambda: BroadcasterTransport(Broadcast("memory://"))),
    "redis": lambda request: ServerBackend(request.getfixturevalue("broker")),
    "sentinel": lambda request: ServerBackend(request.getfixturevalue("sentinels")),
    "cluster": lambda request: ServerBackend(request.getfixturevalue("cluster")),
}
SERVERS = ["redis", "sentinel", "cluster"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return BACKENDS[request.param](request)


@pytest.fixture
def make_transport(backend):
    return backend.make_of_an_app_of_its_own


@pytest.fixture
def received():
    return Received()


@pytest.fixture
async def transport(make_transport, received):
    transport = make_transport()
    await transport.open(received.deliver)
    await subscribe_ends(transport)
    yield transport
    await transport.close()


@pytest.mark.parametrize("packet", [b"", b"text", bytes(range(256)), b"x" * 1_000_000])
async def test_any_bytes_arrive_as_they_were_sent(transport, received, packet):
    await transport.subscribe("t")
    await transport.publish("t", packet)
    assert await until_end(transport, received) == [("t", packet)]


async def test_packets_of_a_topic_arrive_in_the_order_in_which_they_were_published(transport, received):
    await transport.subscribe("t")
    for number in range(200):
        await transport.publish("t", str(number).encode())
    assert await until_end(transport, received) == [("t", str(number).encode()) for number in range(200)]


async def test_only_subscribed_topics_are_delivered_and_under_their_exact_name(transport, received):
    names = ["group:a b", "group:ä.%2E", "group:A", "user:1"]
    for name in names:
        await transport.subscribe(name)
    for name in [*names, "group:a", "group", "other", "group:a *"]:
        await transport.publish(name, b"x")
    assert sorted(await until_end(transport, received)) == sorted((name, b"x") for name in names)


async def test_a_subscription_has_taken_effect_when_it_returns_and_ends_when_it_is_ended(transport, received):
    await transport.publish("t", b"before")
    await transport.subscribe("t")
    await transport.publish("t", b"during")
    assert await until_end(transport, received) == [("t", b"during")]
    await transport.unsubscribe("t")
    await transport.publish("t", b"after")
    assert await until_end(transport, received) == []
    await transport.subscribe("t")
    await transport.publish("t", b"again")
    assert await until_end(transport, received) == [("t", b"again")]


async def test_unsubscribing_from_what_is_not_subscribed_does_nothing(transport, received):
    await transport.unsubscribe("never")
    await transport.subscribe("t")
    await transport.unsubscribe("t")
    await transport.unsubscribe("t")
    await transport.publish("t", b"x")
    assert await until_end(transport, received) == []


async def test_many_topics_can_be_subscribed_and_left_at_the_same_time(transport, received):
    names = [f"t{number}" for number in range(50)]
    await asyncio.gather(*[transport.subscribe(name) for name in names])
    await asyncio.gather(*[transport.unsubscribe(name) for name in names[25:]])
    for name in names:
        await transport.publish(name, b"x")
    assert sorted(await until_end(transport, received)) == sorted((name, b"x") for name in names[:25])


async def test_after_close_nothing_is_delivered_and_closing_twice_is_no_error(transport, received):
    await transport.subscribe("t")
    await transport.close()
    await transport.close()
    with contextlib.suppress(BrokerUnavailable):
        await transport.publish("t", b"x")
    assert received.is_empty


async def test_close_is_safe_on_what_was_never_opened(make_transport):
    await make_transport().close()


async def test_it_can_be_opened_again_and_begins_without_subscriptions(transport, received):
    await transport.subscribe("t")
    await transport.close()
    await transport.open(received.deliver)
    await subscribe_ends(transport)
    await transport.publish("t", b"x")
    assert await until_end(transport, received) == []
    await transport.subscribe("t")
    await transport.publish("t", b"y")
    assert await until_end(transport, received) == [("t", b"y")]


async def test_a_delivery_may_publish_and_subscribe(make_transport):
    transport, received = make_transport(), Received()

    async def deliver(topic, packet):
        if topic == "t":
            await transport.subscribe("u")
            await transport.publish("u", packet + b"!")
        await received.deliver(topic, packet)

    await transport.open(deliver)
    await transport.subscribe("t")
    await transport.publish("t", b"x")
    assert sorted([await received.next(), await received.next()]) == [("t", b"x"), ("u", b"x!")]
    await transport.close()


async def test_each_transport_has_its_own_subscribers_and_none_gets_anothers_topics(make_transport):
    one, two, in_one, in_two = make_transport(), make_transport(), Received(), Received()
    await one.open(in_one.deliver)
    await two.open(in_two.deliver)
    for transport in (one, two):
        await transport.subscribe("t")
        await subscribe_ends(transport)
    await one.publish("t", b"x")
    assert await until_end(one, in_one) == [("t", b"x")]
    assert await until_end(two, in_two) == []
    await one.close()
    await two.close()


async def test_many_who_join_a_topic_first_at_the_same_time_share_one_subscription(backend):
    subscribing = {}

    async def subscribe(topic):
        """As the hub does it: the first one subscribes, the others wait for that."""
        if topic not in subscribing:
            subscribing[topic] = asyncio.create_task(transport.subscribe(topic))
        await subscribing[topic]

    async with opened(transport := backend.make()) as [received]:
        await asyncio.gather(*[subscribe(f"t{number}") for number in range(20) for _ in range(5)])
        for number in range(20):
            await transport.publish(f"t{number}", b"x")
        assert sorted([await received.next() for _ in range(20)]) == sorted((f"t{n}", b"x") for n in range(20))
        assert received.is_empty


async def test_a_storm_of_joining_and_leaving_ends_in_what_was_wanted_last(backend):
    chosen = random.Random(7)
    async with opened(transport := backend.make()) as [received]:
        names = [f"t{number}" for number in range(40)]
        wanted = dict.fromkeys(names, False)

        async def come_and_go(name):
            for _ in range(chosen.randint(10, 25)):
                if wanted[name]:
                    await transport.unsubscribe(name)
                else:
                    await transport.subscribe(name)
                wanted[name] = not wanted[name]

        await asyncio.gather(*[come_and_go(name) for name in names])
        assert 0 < sum(wanted.values()) < len(names)
        await transport.subscribe("end")
        for name in names:
            await transport.publish(name, name.encode())
        expected = {(name, name.encode()) for name in names if wanted[name]}
        found = {await received.next() for _ in expected}
        assert found == expected
        if backend.server is not None:
            await until(lambda: backend.left_behind() == {"end", *(name for name in names if wanted[name])})
    if backend.server is not None:
        await until(lambda: not backend.left_behind())


async def test_many_thousand_topics_are_joined_heard_and_left_in_bounded_time(backend):
    if backend.server is None:
        transport, names = backend.make(), [f"t{number}" for number in range(200)]  # Broadcaster has a task for each.
    else:
        transport, names = backend.make(broker_timeout=100), [f"t{number}" for number in range(5_000)]
    async with opened(transport) as [received]:
        async with asyncio.timeout(200):
            for at in range(0, len(names), 500):
                await asyncio.gather(*[transport.subscribe(name) for name in names[at : at + 500]])
            heard = names[::50]
            await asyncio.gather(*[transport.publish(name, b"x") for name in heard])
            assert {(await received.next())[0] for _ in heard} == set(heard)
            if backend.server is not None:
                assert backend.left_behind() == set(names)
            for name in names:
                await transport.unsubscribe(name)
            if backend.server is not None:
                await until(lambda: not backend.left_behind())
        assert received.is_empty


async def test_a_transport_says_how_it_is_and_what_it_counted(transport, received, caplog):
    assert transport.is_healthy is True
    if not transport.is_distributed:
        assert transport.counters == {}
        return
    before = dict(transport.counters)
    await transport.subscribe("t")
    await transport.publish("t", b"x")
    received.deliver_raises = True
    assert await until_end(transport, received) == [("t", b"x")]
    ends_ = len(ends(transport))
    expected = {"packets_out": 1 + ends_, "packets_in": 1 + ends_, "failed_deliveries": 1 + ends_}
    await until(lambda: {name: transport.counters[name] - before[name] for name in expected} == expected)
    assert transport.counters["lost_connections"] == transport.counters["reconnects"] == 0
    assert caplog.text.count("could not be delivered") == 1 + ends_


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
async def test_a_subscribed_connection_that_is_killed_is_replaced_and_its_topics_are_told_of(backend):
    transport, log, lost = backend.make(), [], []

    async def gap(topics):
        log.append(("gap", *sorted(topics)))

    async def deliver(topic, packet):
        log.append((topic, packet))

    transport.on_gap, transport.on_lost = gap, lambda: lost.append(transport.is_healthy)
    await transport.open(deliver)
    names = sorted(f"t{number}" for number in range(30))
    await asyncio.gather(*[transport.subscribe(name) for name in names])
    for round_ in range(3):
        log.clear()
        for name in names:
            await transport.publish(name, b"before")
        await until(lambda: len(log) == len(names))
        log.clear()
        backend.server.kill_subscribers()
        await until(lambda: sorted(t for each in log for t in each[1:]) == names)
        assert {kind for kind, *_ in log} == {"gap"}
        await until(lambda: transport.is_healthy)
        log.clear()
        for name in names:
            await transport.publish(name, b"after")
        await until(lambda: len(log) == len(names))
        assert sorted(log) == [(name, b"after") for name in names]
        assert lost == [False] * (round_ + 1)
    assert transport.counters["lost_connections"] == transport.counters["reconnects"] >= 3
    await transport.close()


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
async def test_a_transport_whose_connections_are_killed_over_and_over_is_well_in_the_end(backend):
    transport, gaps = backend.make(), set()

    async def gap(topics):
        gaps.update(topics)

    transport.on_gap = gap
    async with opened(transport) as [received]:
        names = {f"t{number}" for number in range(20)}
        await asyncio.gather(*[transport.subscribe(name) for name in names])
        ends = time.monotonic() + 1
        while time.monotonic() < ends:
            await asyncio.to_thread(backend.server.kill_subscribers)  # Whatever they are at.
        await until(lambda: transport.is_healthy and backend.left_behind() == names)
        await until(lambda: gaps == names)
        for name in names:
            await transport.publish(name, b"x")
        assert {await received.next() for _ in names} == {(name, b"x") for name in names}
        await until(lambda: transport.counters["lost_connections"] == transport.counters["reconnects"])
