"""What the tests of transports share."""

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest


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


def ends(transport):
    """Topics on each connection that packets come over."""
    client = getattr(transport, "client", None)
    if client is None or not client.is_sharded:
        return ["end"]
    by_node = {client.node_of(transport._channel(f"end{number}")): f"end{number}" for number in range(64)}
    return list(by_node.values())


async def subscribe_ends(transport):
    for end in ends(transport):
        await transport.subscribe(end)


async def until_end(transport, received):
    """All that is delivered up to a last packet, which no other over the same connection can overtake."""
    waiting, found = set(ends(transport)), []
    for end in waiting:
        await transport.publish(end, b"")
    while waiting:
        topic, packet = await received.next()
        if topic in waiting:
            waiting.remove(topic)
        else:
            found.append((topic, packet))
    return found


async def until(holds, timeout=10.0):
    """Wait until it holds; returns how long that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < timeout, "it never came to this"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


@asynccontextmanager
async def opened(*transports):
    """The transports, open, each with what it received."""
    async with AsyncExitStack() as stack:
        found = []
        for each in transports:
            found.append(Received())
            stack.push_async_callback(each.close)
            await each.open(found[-1].deliver)
        yield found


def own_tasks():
    return {task for task in asyncio.all_tasks() if "fastapi_consumers" in task.get_name()}


async def fails_to_open(transport, kind):
    with pytest.raises(kind) as caught:
        await transport.open(Received().deliver)
    await transport.close()
    assert not own_tasks()
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


async def works(transport):
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        await transport.publish("t", bytes(range(256)))
        assert await received.next() == ("t", bytes(range(256)))
