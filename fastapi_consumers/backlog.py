"""What waits in an outbox, bounded in messages and bytes, and what goes when there is no room. Owned by its outbox."""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Literal, NamedTuple

from .messages import Frame

logger = logging.getLogger(__name__)

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


#: Says of a frame that it neither counts against the bounds nor is dropped, since it has been bounded already.
UNCOUNTED = Droppable(None)


#: Frames for one client, in the order in which they leave.
Entries = list[tuple[Frame, Droppable | None]]


class Full(Exception):
    """There is no room, and nothing that may be dropped for it."""


class _Waiting(NamedTuple):
    frame: Frame
    droppable: Droppable | None


class _Uncounted(NamedTuple):
    frame: Frame


class _Gap(NamedTuple):
    """The notice that events of this group were dropped here."""

    frame: Frame
    group: str | None


class Backlog:
    """Frames in the order in which they leave, and marks between them.

    - ``disconnect``: a frame too many raises ``Full``.
    - ``drop_oldest``: events go, the oldest first, until the new frame has room.
    - ``drop_newest``: an event that has no room is dropped itself.
    - ``coalesce``: an event takes the place of the waiting one of its key, at the end; beyond that as ``drop_oldest``.

    In all of the last three a frame that is no event makes room as under ``drop_oldest``, and raises ``Full`` if it
    would have none even without any event. What is left is always in the order in which it came.

    Where events of a group were dropped and its client can be told, one notice stands in their place: between the
    last event of the group before them and the first one after them. Notices come on top of the bounds; there are at
    most as many as frames and groups.
    """

    __slots__ = (
        "_bytes",
        "_events",
        "_frames",
        "_gaps",
        "_items",
        "_kept",
        "_kept_bytes",
        "_keyed",
        "_last_gaps",
        "_max_bytes",
        "_max_messages",
        "_numbers",
        "_uncounted",
        "coalesced",
        "dropped",
        "merged",
        "policy",
    )

    def __init__(self, policy: Overflow, max_messages: int, max_bytes: int) -> None:
        self.policy = policy
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._numbers = count()
        #: In the order of their numbers.
        self._items: OrderedDict[int, _Waiting | _Gap | _Uncounted | asyncio.Future[None]] = OrderedDict()
        #: What counts against the bounds, and how much of it is never dropped.
        self._frames = self._kept = 0
        self._bytes = self._kept_bytes = 0
        self._uncounted = 0
        #: How many notices wait, how many events of each group, and the notice behind the last event of each group.
        self._gaps = 0
        self._events: Counter[str | None] = Counter()
        self._last_gaps: dict[str | None, int] = {}
        #: Under ``coalesce``: group and key to the event that waits.
        self._keyed: dict[tuple[str | None, str], int] = {}
        #: Events dropped for want of room, and events replaced by a newer one of their key.
        self.dropped = 0
        self.coalesced = 0
        #: Notices that became one with another.
        self.merged = 0

    def __len__(self) -> int:
        return self._frames + self._gaps + self._uncounted

    def put(self, frame: Frame, droppable: Droppable | None) -> None:
        """Add a frame at the end. Raises ``Full``; then it is not added."""
        if droppable is UNCOUNTED:
            self._items[next(self._numbers)] = _Uncounted(frame)
            self._uncounted += 1
            return
        if self.policy == "disconnect":
            if not self._fits(frame):
                raise Full
        elif self._kept >= self._max_messages or self._kept_bytes + frame.size > self._max_bytes:
            if droppable is None:
                raise Full
            self._drop(droppable)
            return
        elif droppable is not None and self.policy == "drop_newest":
            if not self._fits(frame):
                self._drop(droppable)
                return
        else:
            if droppable is not None and droppable.key is not None and self.policy == "coalesce":
                self._replace(droppable.group, droppable.key)
            while not self._fits(frame):
                self._drop_oldest()
        self._add(_Waiting(frame, droppable))

    def mark(self, reached: "asyncio.Future[None]") -> None:
        """Add a mark: ``next`` resolves it when all before it has been taken out."""
        self._items[next(self._numbers)] = reached

    def next(self) -> Frame | None:
        """Take out the first frame; ``None`` if there is none."""
        while self._items:
            number, item = self._items.popitem(last=False)
            if isinstance(item, _Waiting):
                self._forget(item)
                return item.frame
            if isinstance(item, _Gap):
                self._gaps -= 1
                if self._last_gaps.get(item.group) == number:
                    del self._last_gaps[item.group]
                return item.frame
            if isinstance(item, _Uncounted):
                self._uncounted -= 1
                return item.frame
            _resolve(item)
        return None

    def clear(self) -> int:
        """Drop everything and resolve all marks. How many frames there were."""
        items, frames = tuple(self._items.values()), len(self)
        for forgotten in (self._items, self._events, self._last_gaps, self._keyed):
            forgotten.clear()
        self._frames = self._kept = self._bytes = self._kept_bytes = self._gaps = self._uncounted = 0
        for item in items:
            if isinstance(item, asyncio.Future):
                _resolve(item)
        return frames

    def _fits(self, frame: Frame) -> bool:
        return self._frames < self._max_messages and self._bytes + frame.size <= self._max_bytes

    def _add(self, waiting: _Waiting) -> None:
        frame, droppable = waiting
        number = next(self._numbers)
        self._items[number] = waiting
        self._frames += 1
        self._bytes += frame.size
        if droppable is None:
            self._kept += 1
            self._kept_bytes += frame.size
            return
        self._events[droppable.group] += 1
        self._last_gaps.pop(droppable.group, None)
        if droppable.key is not None and self.policy == "coalesce":
            self._keyed[droppable.group, droppable.key] = number

    def _forget(self, waiting: _Waiting) -> None:
        """It has been taken out."""
        frame, droppable = waiting
        self._frames -= 1
        self._bytes -= frame.size
        if droppable is None:
            self._kept -= 1
            self._kept_bytes -= frame.size
            return
        if self._events[droppable.group] > 1:
            self._events[droppable.group] -= 1
        else:
            del self._events[droppable.group]
        if droppable.key is not None:
            self._keyed.pop((droppable.group, droppable.key), None)

    def _replace(self, group: str | None, key: str) -> None:
        number = self._keyed.get((group, key))
        if number is not None:
            found = self._items.pop(number)
            assert isinstance(found, _Waiting)
            self._forget(found)
            self.coalesced += 1

    def _drop(self, droppable: Droppable) -> None:
        """Drop an event that has just come."""
        self.dropped += 1
        if droppable.group not in self._last_gaps and (gap := _gap_of(droppable)) is not None:
            number = next(self._numbers)
            self._items[number] = gap
            self._gaps += 1
            self._last_gaps[droppable.group] = number

    def _drop_oldest(self) -> None:
        """Drop the first event that waits. There must be one."""
        before: dict[str | None, int] = {}
        for number, item in self._items.items():
            if isinstance(item, _Gap):
                before[item.group] = number
            elif isinstance(item, _Waiting) and item.droppable is not None:
                break
        assert isinstance(item, _Waiting)
        assert item.droppable is not None
        self._forget(item)
        self.dropped += 1
        group = item.droppable.group
        # Notices before and behind it have become one.
        behind = self._gap_behind(number, group) if self._gaps > len(before) else None
        if group in before:
            del self._items[number]
            if behind is not None:
                del self._items[behind]
                self._gaps -= 1
                self.merged += 1
            number = before[group]
        elif behind is not None:
            del self._items[number]
            number = behind
        elif (gap := _gap_of(item.droppable)) is not None:
            self._items[number] = gap
            self._gaps += 1
        else:
            del self._items[number]
            return
        if group not in self._events:
            self._last_gaps[group] = number

    def _gap_behind(self, number: int, group: str | None) -> int | None:
        """The notice of the group that follows, if no event of the group is between."""
        for other, item in self._items.items():
            if other > number:
                if isinstance(item, _Gap) and item.group == group:
                    return other
                if isinstance(item, _Waiting) and item.droppable is not None and item.droppable.group == group:
                    return None
        return None


def _gap_of(droppable: Droppable) -> _Gap | None:
    if droppable.gap is None:
        return None
    try:
        return _Gap(droppable.gap(), droppable.group)
    except Exception:
        # An encoding of the user's own; whoever pushes can do nothing about it.
        logger.exception("the notice of dropped events could not be encoded; a client is not told of them")
        return None


def _resolve(reached: "asyncio.Future[None]") -> None:
    if not reached.done():
        reached.set_result(None)
