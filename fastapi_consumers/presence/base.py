"""``Presence``, what a class says of who is there, and stores, which keep it: the comments here are their contract."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from ..codecs import encode_json
from ..stepping import settled

#: Longest key, in characters.
MAX_KEY = 255
#: Largest info of one connection, in bytes of JSON.
MAX_INFO = 4096
#: Bounds of ``ttl`` and ``grace``, in seconds.
MIN_TTL, MAX_SECONDS = 1.0, 86400.0


class Presence:
    """Shows who is in the groups of a consumer: ``presence = Presence(key=lambda consumer: consumer.user.id)``.

    Args:
        key: who a connection belongs to, asked once per group that it joins. What it returns becomes text of 1 to 255
            characters; several connections of one key are one member. ``None``: this connection is not tracked.
            May be ``async``.
        info: what else the others are told of a connection: a dict that has JSON, at most 4 KiB of it. Its ``ref`` is
            overwritten. May be ``async``.
        ttl: seconds, or a ``timedelta``, within which the members of a process that died have left. 1 s to a day.
        grace: seconds, or a ``timedelta``, for which a leave is held back: whose key comes back within it never left.
            Up to a day.
        count_only: tell only how many there are; for groups that are too large to be listed.

    Raises:
        TypeError: an argument of another type.
        ValueError: ``ttl`` or ``grace`` is out of its bounds.
    """

    __slots__ = ("_info", "_key", "count_only", "grace", "ttl")

    def __init__(
        self,
        key: Callable[[Any], Any],
        info: Callable[[Any], Any] | None = None,
        *,
        ttl: float | timedelta = 60.0,
        grace: float | timedelta = 10.0,
        count_only: bool = False,
    ) -> None:
        for name, function in (("key", key), ("info", info)):
            if not callable(function) and (name == "key" or function is not None):
                raise TypeError(f"{name} is {function!r}; expected a function of the consumer.")
        if not isinstance(count_only, bool):
            raise TypeError(f"count_only is {count_only!r}; expected True or False.")
        self._key = key
        self._info = info
        self.ttl = _seconds("ttl", ttl, MIN_TTL)
        self.grace = _seconds("grace", grace, 0.0)
        self.count_only = count_only

    def __repr__(self) -> str:
        return f"Presence(ttl={self.ttl:g}, grace={self.grace:g}{', count_only=True' if self.count_only else ''})"

    async def entry(self, consumer: Any, channel: str) -> "Entry | None":
        """The consumer as it is shown; ``None`` if it is not tracked.

        Raises ``TypeError`` and ``ValueError`` for a key or an info that cannot be, and what their functions raise.
        """
        found = await settled(self._key(consumer))
        if found is None:
            return None
        key = str(found)
        if not 0 < len(key) <= MAX_KEY:
            raise ValueError(f"a presence key has 1 to {MAX_KEY} characters; found {len(key)}: {key[:64]!r}")
        key.encode()  # Half of a surrogate pair cannot be sent; this raises a ValueError too.
        if self._info is None or self.count_only:
            return Entry(channel, key, b"{}")
        info = await settled(self._info(consumer))
        if not isinstance(info, Mapping):
            raise TypeError(f"a presence info is a dict; found a value of type {type(info).__name__}")
        encoded = encode_json(dict(info))
        if len(encoded) > MAX_INFO:
            raise ValueError(f"a presence info has at most {MAX_INFO} bytes of JSON; found {len(encoded)}")
        return Entry(channel, key, encoded)


def _seconds(name: str, value: Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise TypeError(f"{name} is {value!r}; expected seconds or a timedelta.")
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not least <= seconds <= MAX_SECONDS:  # False for nan too.
        raise ValueError(f"{name} is {value!r}; expected {least:g} to {MAX_SECONDS:g} seconds.")
    return float(seconds)


class Entry(NamedTuple):
    """One connection that is to be seen. ``info`` is JSON, as bytes: an object."""

    channel: str
    key: str
    info: bytes


class Present(NamedTuple):
    """One connection as others see it. ``ref`` tells it from others of its key, and stays while it is seen."""

    ref: str
    key: str
    info: bytes


class Change(NamedTuple):
    """What a process has to say about a group, done in this order.

    Saying anything twice, or what is so already, changes nothing.
    """

    #: Channels that left.
    leave: Sequence[str] = ()
    #: Connections that came, or are there.
    enter: Sequence[Entry] = ()
    #: Channels that give their seats back.
    free: Sequence[str] = ()
    #: Channels that have a seat, whatever the limit: they had it before the store forgot.
    reseat: Sequence[str] = ()
    #: The channel that asks for a seat, and how many seats there are.
    seat: str | None = None
    limit: int = 0
    #: The process has nothing in the group any more, and needs no lease there.
    done: bool = False


class Outcome(NamedTuple):
    """What came of a change. ``joins`` and ``leaves`` are for the caller to announce; nobody else is told of them."""

    joins: list[Present]
    leaves: list[Present]
    #: How many keys the group has now.
    size: int
    #: Whether the process had a lease. If it had not, but should have, all that it has in the group is forgotten.
    known: bool = True
    #: Whether the seat that was asked for is the channel's.
    seated: bool = True


class Roster(NamedTuple):
    """Who is seen in a group: how many keys, and, if they were asked for, the connections, in no certain order."""

    size: int
    members: list[Present]


class PresenceStore(ABC):
    """Who is in a group, who has a seat in it, and how many connections each process has in each group.

    - A process holds a lease in each group that it has something in; every change of the group by this process renews
      it, an empty one too. When it has run out, whatever that process had there goes: its seats are free, and its
      members have left at once, as the outcome of the next change by any process.
    - A connection that leaves is *away* for ``grace`` seconds: it is still seen. The next connection of its key takes
      its place, and its ``ref``, and nobody is told. If none comes, it has left, as the outcome of the next change
      after that.
    - A join or a leave is in the outcome of one change only, whoever makes how many at a time. Changes are atomic.
    - Seats: of any number of processes that ask at the same time, no more than ``limit`` channels get one.
    - What no process renews is forgotten by itself, not much later than the leases and graces have run out; what
      is empty, at once.
    - Where the store cannot be reached, everything raises
      :class:`~fastapi_consumers.exceptions.BrokerUnavailable` within the store's timeout. What raised may have been
      carried out.

    A group's name is one that :func:`~fastapi_consumers.groups.check_group` lets pass, a channel's is unique over all
    processes.
    """

    #: Whether several processes see the same.
    is_distributed: bool = False

    @abstractmethod
    async def open(self) -> None:
        """Connect. Called before anything else, and again after ``close`` to start anew, in another event loop too."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything. Safe if ``open`` failed, and twice."""

    @abstractmethod
    async def update(self, group: str, process: str, change: Change, *, lease: float, grace: float) -> Outcome:
        """Change what a process has in a group, and renew its lease there, in seconds from now.

        A store that is not distributed may be given a lease that is infinite.
        """

    @abstractmethod
    async def read(self, group: str, *, count_only: bool = False) -> Roster:
        """Who is seen in a group. Those whose process has lost its lease are left out; nothing is announced."""

    @abstractmethod
    async def write_counts(self, process: str, counts: Mapping[str, int], *, lease: float) -> bool:
        """Say how many connections this process has in these groups, and renew what it said of others.

        Returns whether the lease of its counts had not run out; if it had, all that it said before is forgotten.
        """

    @abstractmethod
    async def read_count(self, group: str, *, without: str) -> int:
        """How many connections all processes but one have in a group, as far as they said, and as their leases last."""

    @abstractmethod
    async def forget_counts(self, process: str) -> None:
        """Forget what the process said."""
