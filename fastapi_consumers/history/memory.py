"""History of one process, in memory."""

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from itertools import islice

from ..messages import Position
from .base import (
    REMEMBERED_FOR,
    REMEMBERED_KEYS,
    Appended,
    Bounds,
    History,
    HistoryStore,
    Slice,
    Stored,
    check_idempotency_key,
)

logger = logging.getLogger(__name__)

#: How many streams are kept by default.
MAX_STREAMS = 10_000
#: Seconds after which a stream that has a ttl, and nothing left, is forgotten unless it was used.
UNUSED = 3600.0


class _Stream:
    __slots__ = ("entries", "epoch", "keys", "last_at", "seconds", "size", "top")

    def __init__(self, history: History, now: float) -> None:
        self.epoch = secrets.token_urlsafe(6)
        self.top = 0
        self.size = history.size
        self.seconds = history.seconds
        #: (offset, packet, at), oldest first.
        self.entries: deque[tuple[int, bytes, float]] = deque()
        #: When it was last used; entries do not get older than those before them.
        self.last_at = now
        #: Idempotency keys, oldest first: offset and time.
        self.keys: dict[str, tuple[int, float]] | None = None

    def trim(self, now: float) -> None:
        entries = self.entries
        while len(entries) > self.size:
            entries.popleft()
        if self.seconds is not None:
            oldest = now - self.seconds
            while entries and entries[0][2] < oldest:
                entries.popleft()

    def find(self, key: str, now: float) -> int | None:
        """The offset of a key that is remembered; forgets what is too old."""
        keys = self.keys
        if keys is None:
            return None
        oldest = now - REMEMBERED_FOR
        while keys and keys[first := next(iter(keys))][1] < oldest:
            del keys[first]
        found = keys.get(key)
        return None if found is None else found[0]

    def remember(self, key: str, offset: int, now: float) -> None:
        if self.keys is None:
            self.keys = {}
        elif len(self.keys) >= REMEMBERED_KEYS:
            del self.keys[next(iter(self.keys))]
        self.keys[key] = (offset, now)


class MemoryHistoryStore(HistoryStore):
    """Keeps the streams in memory; after ``close`` nothing is left. Nothing in it waits, or fails.

    It holds ``max_streams`` streams at most. Where there would be more, those without events that nobody used for an
    hour go first, if their events have a ttl; then, as far as that is needed to make room for a quarter, those that
    were used the longest ago. Who comes back to such a stream finds another epoch.

    Args:
        time: the time in seconds since 1970.
        max_streams: how many groups may have a stream at a time.
    """

    def __init__(self, *, time: Callable[[], float] = time.time, max_streams: int = MAX_STREAMS) -> None:
        if max_streams < 1:
            raise ValueError(f"max_streams is {max_streams}; expected at least 1.")
        self._time = time
        self._max_streams = max_streams
        self._streams: dict[str, _Stream] = {}
        self._templates: dict[str, History] = {}

    def __repr__(self) -> str:
        return "MemoryHistoryStore()"

    def __len__(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    async def open(self) -> None:
        return None

    async def close(self) -> None:
        self._streams.clear()
        self._templates.clear()

    async def append(
        self,
        group: str,
        packet: bytes,
        history: History,
        *,
        idempotency_key: str | None = None,
        channel: bytes | None = None,
    ) -> Appended:
        now = self._time()
        stream = self._streams.get(group)
        if stream is None:
            stream = self._begin(group, history, now)
        elif now > stream.last_at:
            stream.last_at = now
        else:
            now = stream.last_at
        if idempotency_key is not None:
            known = stream.find(check_idempotency_key(idempotency_key), now)
            if known is not None:
                return Appended(Position(stream.epoch, known), False)
            stream.remember(idempotency_key, stream.top + 1, now)
        stream.top = offset = stream.top + 1
        entries = stream.entries
        entries.append((offset, packet, now))
        stream.size = size = history.size
        stream.seconds = seconds = history.seconds
        if len(entries) > size or (seconds is not None and entries[0][2] < now - seconds):
            stream.trim(now)
        return Appended(Position(stream.epoch, offset))

    async def position(self, group: str, history: History) -> Position:
        now = self._time()
        stream = self._streams.get(group) or self._begin(group, history, now)
        stream.size, stream.seconds = history.size, history.seconds
        stream.last_at = max(now, stream.last_at)
        return Position(stream.epoch, stream.top)

    async def positions(self, groups: Collection[str]) -> Mapping[str, Position]:
        now = self._time()
        found: dict[str, Position] = {}
        for group in groups:
            stream = self._streams.get(group)
            if stream is not None:
                stream.last_at = max(now, stream.last_at)
                found[group] = Position(stream.epoch, stream.top)
        return found

    async def read_within(self, group: str, bounds: Bounds) -> Slice:
        lowest, highest, limit, newest_first = bounds
        stream = self._streams.get(group)
        if stream is None:
            return Slice("", 0, [])
        stream.last_at = max(self._time(), stream.last_at)
        stream.trim(stream.last_at)
        entries, count = stream.entries, len(stream.entries)
        # Offsets have no holes, so that an entry's place is known.
        first = stream.top - count + 1
        start, stop = max(lowest + 1 - first, 0), min(highest - first, count)
        if newest_first:
            start = max(start, stop - limit)
        else:
            stop = min(stop, start + limit)
        if start >= stop:
            return Slice(stream.epoch, stream.top, [])
        # A deque is walked from one of its ends.
        from_the_end = start > count - stop
        if from_the_end:
            chosen = [Stored(*entry) for entry in islice(reversed(entries), count - stop, count - start)]
        else:
            chosen = [Stored(*entry) for entry in islice(entries, start, stop)]
        if from_the_end is not newest_first:
            chosen.reverse()
        return Slice(stream.epoch, stream.top, chosen)

    async def remove(self, group: str) -> None:
        self._streams.pop(group, None)

    async def save_templates(self, templates: Mapping[str, History]) -> None:
        for template, history in templates.items():
            if self._templates.get(template, history) != history:
                logger.warning(
                    "the history of %r is %r from now on; it was %r", template, history, self._templates[template]
                )
            self._templates[template] = history

    async def load_templates(self) -> Mapping[str, History]:
        return dict(self._templates)

    def _begin(self, group: str, history: History, now: float) -> _Stream:
        if len(self._streams) >= self._max_streams:
            self._make_room(now)
        stream = self._streams[group] = _Stream(history, now)
        return stream

    def _make_room(self, now: float) -> None:
        for group, stream in list(self._streams.items()):
            stream.trim(now)
            if not stream.entries and stream.seconds is not None and stream.last_at < now - UNUSED:
                del self._streams[group]
        excess = len(self._streams) - self._max_streams * 3 // 4
        if excess > 0:
            for group in sorted(self._streams, key=lambda group: self._streams[group].last_at)[:excess]:
                del self._streams[group]
