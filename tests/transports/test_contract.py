"""What every transport promises, on each of them."""

import asyncio
import contextlib

import pytest
from broadcaster import Broadcast

from fastapi_consumers.exceptions import BrokerUnavailable
from fastapi_consumers.transports import MemoryTransport
from fastapi_consumers.transports.broadcaster import BroadcasterTransport

TRANSPORTS = {
    "memory": MemoryTransport,
    "broadcaster": lambda: BroadcasterTransport(Broadcast("memory://")),
}


class Received:
    """Takes what a transport delivers; ``await received.next()`` waits for it."""

    def __init__(self):
        self._queue = asyncio.Queue()

    async def deliver(self, topic, packet):
        self._queue.put_nowait((topic, packet))

    async def next(self):
        return await asyncio.wait_for(self._queue.get(), 5)

    @property
    def is_empty(self):
        return self._queue.empty()


@pytest.fixture(params=TRANSPORTS)
def make_transport(request):
    return TRANSPORTS[request.param]


@pytest.fixture
def received():
    return Received()


@pytest.fixture
async def transport(make_transport, received):
    transport = make_transport()
    await transport.open(received.deliver)
    await transport.subscribe("end")
    yield transport
    await transport.close()


async def until_end(transport, received):
    """All that is delivered up to a last packet, which no other can overtake."""
    await transport.publish("end", b"")
    found = []
    while (item := await received.next()) != ("end", b""):
        found.append(item)
    return found


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
    await transport.subscribe("end")
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
        await transport.subscribe("end")
    await one.publish("t", b"x")
    assert await until_end(one, in_one) == [("t", b"x")]
    assert await until_end(two, in_two) == []
    await one.close()
    await two.close()
