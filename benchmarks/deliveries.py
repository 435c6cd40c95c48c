#!/usr/bin/env python3
"""What a permission about each event costs a fan-out, and what it costs those who have none.

python benchmarks/deliveries.py [--members 100,1000] [--rounds 15]

One group in memory, whose members have outboxes that only count, so that nothing but the hub and the permissions is
measured: a real outbox adds its own to each member. The variants take turns, and each figure is the median of its
rounds, in µs of CPU per broadcast and in ns per member.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from report import stamp

from fastapi_consumers.hub import Hub, Member
from fastapi_consumers.packets import Packet
from fastapi_consumers.protocols import JSON_FRAMER
from fastapi_consumers.transports import MemoryTransport

try:
    from fastapi_consumers.permissions import BasePermission, Delivery, is_delivered
except ImportError:  # A version without them: only the first line is of use, to compare with.
    BasePermission = object  # type: ignore[assignment, misc]
    Delivery = is_delivered = Any  # type: ignore[assignment, misc]

PACKET = Packet("event", b'{"level":1,"text":"%s"}' % (b"x" * 64), "said")
TOPIC = "group:room"


class ByName(BasePermission):
    def has_delivery_permission(self, consumer: Any, delivery: Delivery) -> bool:
        return delivery.event != "secret"


class ByData(BasePermission):
    def has_delivery_permission(self, consumer: Any, delivery: Delivery) -> bool:
        return bool(delivery.data["level"] <= 1)


class IsAdmin(BasePermission):
    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return False


class Room:
    """A group, of whose members every ``step``-th is asked for with these permissions."""

    def __init__(self, count: int, permissions: Callable[[], tuple[Any, ...]] | None, step: int = 1) -> None:
        self.hub = Hub(MemoryTransport())
        self.delivered = 0
        self.members: list[Member] = []
        for number in range(count):
            member = Member(self.hub.new_channel(), self._push, lambda *_: None, lambda *_: None, max_topics=1)
            member.framer = JSON_FRAMER
            if permissions is not None and number % step == 0:
                member.permits = partial(is_delivered, permissions(), None)
            self.members.append(member)

    def _push(self, *_: object) -> None:
        self.delivered += 1

    async def open(self) -> None:
        await self.hub.open()
        for member in self.members:
            await self.hub.join(TOPIC, member)

    async def run(self, publishes: int) -> float:
        before, began = self.delivered, time.process_time()
        for _ in range(publishes):
            await self.hub.publish(TOPIC, PACKET)
            while self.hub.turn.is_due:  # noqa: ASYNC110 - the turn is what is waited for
                await asyncio.sleep(0)  # Members are served when the turn of the event loop ends.
        used = time.process_time() - began
        if self.delivered - before != publishes * len(self.members):
            raise RuntimeError("deliveries are missing")
        return used / publishes


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", default="100,1000", help="numbers of members")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--deliveries", type=int, default=100_000, help="of one round")
    options = parser.parse_args()
    for members in map(int, options.members.split(",")):
        rooms = {"nobody is asked": Room(members, None)}
        if is_delivered is not Any:
            rooms |= {
                "one in a hundred is asked": Room(members, lambda: (ByName(),), 100),
                "all are asked, by name": Room(members, lambda: (ByName(),)),
                "all are asked, by data": Room(members, lambda: (ByData(),)),
                "all are asked, IsAdmin | ByName": Room(members, lambda: (IsAdmin | ByName,)),
            }
        for room in rooms.values():
            await room.open()
        used: dict[str, list[float]] = {name: [] for name in rooms}
        for _ in range(options.rounds):
            for name, room in rooms.items():
                used[name].append(await room.run(options.deliveries // members))
        print(f"{members} members{'µs':>30}{'ns/member':>12}{'more':>8}")
        first = statistics.median(used["nobody is asked"])
        for name, seconds in used.items():
            cost = statistics.median(seconds)
            per_member, more = cost / members * 1e9, (cost - first) / members * 1e9
            print(f"  {name:<32}{cost * 1e6:>8.1f}{per_member:>12.0f}{more:>8.0f}")
        for room in rooms.values():
            await room.hub.close()
    print(f"\n{stamp()}.")


if __name__ == "__main__":
    asyncio.run(main())
