"""What waits in an outbox, bounded in messages and bytes, and what goes when there is no room. Owned by its outbox."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from itertools import count
from typing import Literal, NamedTuple

from .messages import Frame

#: What happens when a client does not keep up.
Overflow = Literal["disconnect", "drop_oldest", "drop_newest", "coalesce"]
OVERFLOWS: tuple[Overflow, ...] = ("disconnect", "drop_oldest", "drop_newest", "coalesce")


class Droppable(NamedTuple):
    """Says of a frame that it may be dropped. Only events are; what has no such note is never dropped.

    ``key``: it replaces one of the same group and key that waits, under ``coalesce``. ``gap``: makes the frame that
    tells of events that were dropped from this group, where the client has a use for that.
    """

    group: str | None
    key: str | None = None
    gap: Callable[[], Frame] | None = None
    #: Neither counts against the bounds nor is dropped: for what has been bounded already.
    uncounted: bool = False


class Full(Exception):
    """There is no room, and nothing that may be dropped for it."""


class _Waiting(NamedTuple):
    frame: Frame
    droppable: Droppable | None = None


class Backlog:
    """Frames in the order in which they leave, and marks between them.

    - ``disconnect``: a frame too many raises ``Full``.
    - ``drop_oldest``: events go, the oldest first, until the new frame has room.
    - ``drop_newest``: an event that has no room is dropped itself.
    - ``coalesce``: an event takes the place of the waiting one of its key, at the end; beyond that as ``drop_oldest``.

    In all of the last three a frame that is no event makes room as under ``drop_oldest``, and raises ``Full`` if
    nothing but such frames wait. What is left is always in the order in which it came.
    """

    __slots__ = (
        "_bytes",
        "_frames",
        "_items",
        "_max_bytes",
        "_max_messages",
        "_numbers",
        "coalesced",
        "dropped",
        "policy",
    )

    def __init__(self, policy: Overflow, max_messages: int, max_bytes: int) -> None:
        self.policy = policy
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._items: OrderedDict[Hashable, _Waiting | asyncio.Future[None]] = OrderedDict()
        self._numbers = count()
        self._frames = 0
        self._bytes = 0
        #: Events dropped for want of room, and events replaced by a newer one of their key.
        self.dropped = 0
        self.coalesced = 0

    def __len__(self) -> int:
        return self._frames

    def put(self, frame: Frame, droppable: Droppable | None) -> None:
        """Add a frame at the end. Raises ``Full``; then it is not added."""
        key: Hashable = next(self._numbers)
        if droppable is not None and droppable.uncounted:
            self._items[key] = _Waiting(frame, droppable)
            return
        if droppable is not None and droppable.key is not None and self.policy == "coalesce":
            key = "key", droppable.group, droppable.key
            if self._take(key):
                self.coalesced += 1
        if not self._fits(frame):
            if self.policy == "disconnect":
                raise Full
            if self.policy == "drop_newest" and droppable is not None:
                self._drop(droppable, at_end=True)
                return
            while not self._fits(frame) and (oldest := self._oldest_droppable()) is not None:
                self._drop(oldest[1], at_end=False, key=oldest[0])
            if not self._fits(frame):
                if droppable is None:
                    raise Full
                self._drop(droppable, at_end=True)
                return
        self._add(key, _Waiting(frame, droppable))

    def mark(self, reached: "asyncio.Future[None]") -> None:
        """Add a mark: ``next`` resolves it when all before it has been taken out."""
        self._items[next(self._numbers)] = reached

    def next(self) -> Frame | None:
        """Take out the first frame; ``None`` if there is none."""
        while self._items:
            _, item = self._items.popitem(last=False)
            if isinstance(item, _Waiting):
                if item.droppable is None or not item.droppable.uncounted:
                    self._frames -= 1
                    self._bytes -= item.frame.size
                return item.frame
            _resolve(item)
        return None

    def clear(self) -> int:
        """Drop everything and resolve all marks. How many frames there were."""
        items = tuple(self._items.values())
        frames = sum(isinstance(item, _Waiting) for item in items)
        self._items.clear()
        self._frames = self._bytes = 0
        for item in items:
            if not isinstance(item, _Waiting):
                _resolve(item)
        return frames

    def _fits(self, frame: Frame) -> bool:
        return self._frames < self._max_messages and self._bytes + frame.size <= self._max_bytes

    def _add(self, key: Hashable, waiting: _Waiting) -> None:
        self._items[key] = waiting
        self._frames += 1
        self._bytes += waiting.frame.size

    def _take(self, key: Hashable) -> bool:
        found = self._items.pop(key, None)
        if not isinstance(found, _Waiting):
            return False
        self._frames -= 1
        self._bytes -= found.frame.size
        return True

    def _oldest_droppable(self) -> tuple[Hashable, Droppable] | None:
        for key, item in self._items.items():
            if isinstance(item, _Waiting) and item.droppable is not None and not item.droppable.uncounted:
                return key, item.droppable
        return None

    def _drop(self, droppable: Droppable, *, at_end: bool, key: Hashable = None) -> None:
        """Count an event as dropped, take it out if it waits, and see to it that the client is told where it was.

        The notices come on top of the bounds: there is one for a group at the front, and behind that at most one
        between two events.
        """
        self.dropped += 1
        if key is not None:
            self._take(key)
        if droppable.gap is None:
            return
        if at_end:
            last = next(reversed(self._items), None)
            if not (isinstance(last, tuple) and last[:2] == ("gap", droppable.group)):
                self._add(("gap", droppable.group, next(self._numbers)), _Waiting(droppable.gap()))
        elif ("gap", droppable.group) not in self._items:
            self._add(("gap", droppable.group), _Waiting(droppable.gap()))
            self._items.move_to_end(("gap", droppable.group), last=False)


def _resolve(reached: "asyncio.Future[None]") -> None:
    if not reached.done():
        reached.set_result(None)
