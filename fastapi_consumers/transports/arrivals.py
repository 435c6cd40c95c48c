"""What has arrived and waits to be delivered: a queue that is bounded in number and bytes."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: Beyond this nothing more is taken from the socket.
MAX_ARRIVALS, MAX_ARRIVED_BYTES = 256, 4 << 20
#: How many times that it may be while something urgent is awaited, since that comes behind what there is.
OVERDRAFT = 8


class Arrivals(Generic[T]):
    """One task puts, one gets. ``put`` does not wait: who puts waits for room before it has anything.

    Args:
        is_urgent: whether something is awaited that a delivery may depend on.
        max_items: with this number there is no more room; ``MAX_ARRIVALS`` by default.
        max_bytes: nor with these; ``MAX_ARRIVED_BYTES`` by default.
    """

    def __init__(
        self, is_urgent: Callable[[], bool], max_items: int | None = None, max_bytes: int | None = None
    ) -> None:
        self._is_urgent = is_urgent
        self._max_items = MAX_ARRIVALS if max_items is None else max_items
        self._max_bytes = MAX_ARRIVED_BYTES if max_bytes is None else max_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._has_items = asyncio.Event()
        self._may_have_room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, size: int) -> None:
        self._items.append((item, size))
        self._bytes += size
        self._has_items.set()

    async def get(self) -> T:
        while not self._items:
            self._has_items.clear()
            await self._has_items.wait()
        item, size = self._items.popleft()
        self._bytes -= size
        self._may_have_room.set()
        return item

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more. Then nothing should be put, though it can be."""
        times = OVERDRAFT if self._is_urgent() else 1
        return len(self._items) >= self._max_items * times or self._bytes >= self._max_bytes * times

    async def room(self) -> None:
        """Wait until there is room for one more."""
        while self.is_full:
            self._may_have_room.clear()
            await self._may_have_room.wait()

    def look_again(self) -> None:
        """Something urgent is awaited from now on."""
        self._may_have_room.set()
