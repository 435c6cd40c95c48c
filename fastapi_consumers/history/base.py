"""What keeps the newest events of each group. The comments here are the contract of every store."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from ..messages import Position

#: Bounds of :class:`History`: events, and seconds.
MAX_SIZE, MAX_TTL = 100_000, 3650 * 86400.0
#: Longest idempotency key, in characters.
MAX_IDEMPOTENCY_KEY = 255
#: How long a store remembers an idempotency key, in seconds, and how many of one group at most: the newest.
REMEMBERED_FOR, REMEMBERED_KEYS = 300.0, 10_000
#: Offsets stay below this, so that every language's numbers hold them exactly.
MAX_OFFSET = 2**53 - 1


@dataclass(frozen=True, slots=True)
class History:
    """How much of a group's past is kept: ``History(size=1000, ttl=timedelta(hours=24))``.

    Args:
        size: how many events at most, 1 to 100 000.
        ttl: for how long an event is kept, in seconds or as a ``timedelta``, up to ten years. ``None``: until newer
            ones push it out, or the store forgets the whole group (see each store).

    Raises:
        TypeError: one of them is no number.
        ValueError: one of them is out of its bounds.
    """

    size: int = 100
    ttl: float | timedelta | None = field(default=None, compare=False)
    #: ``ttl`` in seconds.
    seconds: float | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        size: Any = self.size
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"size is {size!r}; expected how many events to keep, as a whole number.")
        if not 1 <= size <= MAX_SIZE:
            raise ValueError(f"size is {size}; expected 1 to {MAX_SIZE} events. Leave history out to keep none.")
        object.__setattr__(self, "seconds", None if self.ttl is None else seconds_of(self.ttl, "ttl"))


def seconds_of(duration: Any, name: str) -> float:
    """A duration in seconds. Raises ``TypeError`` or ``ValueError``, whose text calls it ``name``."""
    if isinstance(duration, bool) or not isinstance(duration, int | float | timedelta):
        raise TypeError(f"{name} is {duration!r}; expected seconds or a timedelta.")
    try:
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    except OverflowError:
        seconds = math.inf
    if not 0.0 < seconds <= MAX_TTL:  # False for nan too.
        raise ValueError(f"{name} is {duration!r}; expected more than 0 seconds and at most ten years.")
    return seconds


class Stored(NamedTuple):
    """One event as it is kept. ``at``: when it was appended, in seconds since 1970; it never falls within an epoch."""

    offset: int
    packet: bytes
    at: float


class Slice(NamedTuple):
    """What a read found.

    ``epoch`` is empty if the group has no stream; then ``top`` is 0. ``top`` is the offset of the newest event ever
    appended in this epoch, kept or not, 0 if none. All three are of one moment.
    """

    epoch: str
    top: int
    entries: list[Stored]


class Appended(NamedTuple):
    """Where an event is. ``is_new`` is false if its idempotency key was known: then it is the earlier one's place."""

    position: Position
    is_new: bool = True


class Bounds(NamedTuple):
    """Which events to read: those with ``after < offset < before``, the first ``limit`` of them in the order asked for.

    All are numbers that every store can take: ``after`` from 0, ``before`` up to ``MAX_OFFSET``, ``limit`` from 1.
    """

    after: int
    before: int
    limit: int
    newest_first: bool = False


class HistoryStore(ABC):
    """Streams of opaque packets, one for each group.

    - Offsets begin at 1 and rise by 1 with each append, whichever process appends: no two events of one epoch share
      an offset, and none is left out.
    - An epoch is one life of a stream: URL-safe text without a colon. Whenever the stream begins anew, because it was
      removed, forgotten or lost, it gets another one.
    - What was appended is read by whoever reads after ``append`` has returned.
    - Events go oldest first, by size and age: what is kept has no holes. What is beyond ``size`` or older than ``ttl``
      is never returned, whether it is still stored or not. The settings are those that the group was last appended or
      positioned with. A reader sees that something is gone: the first entry's offset is greater than ``after + 1``,
      or there is no entry and ``top`` is greater than ``after``.
    - A group's name is one that :func:`~fastapi_consumers.groups.check_group` lets pass. Stores do not check it again.
    - Where the store cannot be reached, everything raises
      :class:`~fastapi_consumers.exceptions.BrokerUnavailable` within the store's timeout. What raised may have been
      carried out.
    """

    #: Whether several processes see the same streams.
    is_distributed: bool = False
    #: Whether ``append`` can publish in the same step. Known once the store is open.
    publishes: bool = False

    @abstractmethod
    async def open(self) -> None:
        """Connect. Called before anything else, and again after ``close`` to start anew, in another event loop too."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything. Safe if ``open`` failed, and twice. Appends that wait end first, or fail."""

    @abstractmethod
    async def append(
        self,
        group: str,
        packet: bytes,
        history: History,
        *,
        idempotency_key: str | None = None,
        channel: bytes | None = None,
    ) -> Appended:
        """Append one event. Appends that are awaited one after another get their offsets in that order.

        Args:
            idempotency_key: if the group has had an append with this key, nothing is appended, published or set. It is
                remembered for ``REMEMBERED_FOR`` seconds, but only among the newest ``REMEMBERED_KEYS`` of a group,
                and no longer than the stream.
            channel: only where ``publishes`` is true: where to publish it in the same step, once it can be read. What
                is published is ``@``, the epoch, ``:``, the offset in decimal, a line feed, the packet.

        Raises:
            ValueError: the idempotency key is empty, too long or not printable.
        """

    @abstractmethod
    async def position(self, group: str, history: History) -> Position:
        """The newest event's place. Begins a stream, at offset 0, if there is none."""

    @abstractmethod
    async def positions(self, groups: Collection[str]) -> Mapping[str, Position]:
        """The same for many groups at once. Begins none: a group without a stream is not in the answer."""

    async def read(
        self,
        group: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int,
        newest_first: bool = False,
    ) -> Slice:
        """The kept events with ``after < offset < before``: the first ``limit`` of them in the order asked for.

        Any whole number will do for ``after`` and ``before``. Begins no stream.

        Raises:
            ValueError: ``limit`` is below 1.
            TypeError: one of them is no whole number.
        """
        return await self.read_within(group, check_bounds(after, before, limit, newest_first))

    @abstractmethod
    async def read_within(self, group: str, bounds: Bounds) -> Slice:
        """What ``read`` returns for these."""

    @abstractmethod
    async def remove(self, group: str) -> None:
        """Forget all of the group's events, its idempotency keys and its epoch."""

    @abstractmethod
    async def save_templates(self, templates: Mapping[str, History]) -> None:
        """Keep the settings of group templates such as ``"chat.{room}"``, for publishers in other programs.

        Adds to what is kept. Where it kept others for the same template, the last one wins, and a warning is logged.
        """

    @abstractmethod
    async def load_templates(self) -> Mapping[str, History]:
        """All settings that were saved."""


def check_idempotency_key(key: Any) -> str:
    """The key, if it can be one. Raises ``ValueError``."""
    if isinstance(key, str) and 0 < len(key) <= MAX_IDEMPOTENCY_KEY and key.isprintable():
        return key
    found = f"{len(key)} characters, or one that is not printable" if isinstance(key, str) else type(key).__name__
    raise ValueError(f"An idempotency key is text of 1 to {MAX_IDEMPOTENCY_KEY} printable characters; found {found}.")


def check_bounds(after: Any, before: Any, limit: Any, newest_first: bool) -> Bounds:
    """The bounds as numbers that every store can take, and that mean the same.

    Raises ``ValueError`` for a limit below 1, ``TypeError`` for what is no whole number.
    """
    for name, value in (("after", after), ("before", before), ("limit", limit)):
        if isinstance(value, bool) or not isinstance(value, int | None) or (value is None and name == "limit"):
            raise TypeError(f"{name} is {value!r}; expected a whole number.")
    if limit < 1:
        raise ValueError(f"limit is {limit}; expected at least 1.")
    lowest = 0 if after is None else min(max(after, 0), MAX_OFFSET)
    highest = MAX_OFFSET if before is None else min(max(before, 0), MAX_OFFSET)
    return Bounds(lowest, highest, min(limit, MAX_SIZE), newest_first)
