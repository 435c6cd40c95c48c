"""How often a client may do this: rates, a store of token buckets in memory, and who is counted together.

::

    throttle_classes = ["20/second; 600/minute"]            # by user, otherwise by address
    throttle_classes = [ConnectionRateThrottle("5/second")]

A rate of ``N/unit`` is a bucket of N tokens that fills evenly within one unit: N requests may come at once, after
that one for each Nth of the unit. A refused request takes nothing.
"""

import copy
import inspect
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from .exceptions import Throttled
from .identity import client_address, user_id

_UNITS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400}
_UNITS |= {"seconds": 1, "minutes": 60, "hours": 3600, "day": 86400, "days": 86400}
_RATE = re.compile(r"([0-9]+)\s*/\s*(?:([0-9]+(?:\.[0-9]+)?)\s*)?([a-z]+)", re.IGNORECASE)

#: Seconds by which a request may come early. The times are floats, and adding up the tokens of a bucket rounds each
#: time: without it the last token, or a client that waits for exactly what it was told, could be refused.
_SLACK = 0.001


class Rate(NamedTuple):
    """``count`` requests in ``seconds``."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody asks of a rate
    seconds: float


def parse_rate(rate: str) -> tuple[Rate, ...]:
    """The windows of ``"N/unit"`` or ``"N/K unit"``, several joined by ``;``, all of which are to hold.

    Units are ``second``, ``sec``, ``s``; ``minute``, ``min``, ``m``; ``hour``, ``h``; ``day``, ``d``; the full words
    also in plural.

    >>> parse_rate("20/second; 2/1.5 hours")
    (Rate(count=20, seconds=1.0), Rate(count=2, seconds=5400.0))

    Raises:
        ValueError: the text is no rate.
    """
    return tuple([_window(part.strip(), rate) for part in rate.split(";")])


def _window(part: str, rate: str) -> Rate:
    match = _RATE.fullmatch(part)
    if match is None:
        problem = f"{part!r} is not N/unit" if part else "a part of it is empty"
    else:
        count, factor, unit = match.groups()
        seconds = float(factor or 1) * _UNITS.get(unit.lower(), 0)
        if unit.lower() not in _UNITS:
            problem = f"there is no unit {unit!r}"
        elif int(count) < 1:
            problem = f"{part!r} would allow nothing"
        elif not 0 < seconds < float("inf"):
            problem = f"{part!r} has no length of time"
        else:
            return Rate(int(count), seconds)
    raise ValueError(
        f"{rate!r} is no rate: {problem}. Expected N/unit or N/K unit, several joined by ';', with N at least 1 and "
        "second, minute, hour or day as unit, for example '20/second; 600/10 minutes'."
    )


class Buckets(Protocol):
    """Where requests are counted. :class:`TokenBuckets` does it in memory, others may do it for many processes."""

    def hit(self, key: Hashable, rates: tuple[Rate, ...]) -> float | Awaitable[float]:
        """Count one request under ``key``: 0.0 when all ``rates`` allow it, else the seconds until they do.

        All or nothing: a request that one of the rates refuses is counted by none.
        """


class TokenBuckets:
    """Token buckets of one process, in memory. For one thread: the event loop's.

    A bucket is one float, the time at which it will be full again (GCRA: ITU-T I.371, annex A), so a full one holds
    nothing that is worth keeping. Full buckets are dropped whenever their number has doubled since the last time.

    ``max_keys`` bounds the buckets, of which there is one for each key and rate. Where dropping the full ones leaves
    more than three quarters of that, those that would be full the soonest are dropped too, the oldest of equal ones
    first, so that each sweep makes room for many: these clients get their tokens back early, nobody else notices.

    Args:
        clock: the time in seconds; only differences matter.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_keys: int = 100_000) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys is {max_keys}; expected at least 1.")
        self._clock = clock
        self._max_keys = max_keys
        self._sweep_at = min(1024, max_keys)
        self._full_at: dict[Hashable, float] = {}

    def __len__(self) -> int:
        """How many buckets are in memory."""
        return len(self._full_at)

    def hit(self, key: Hashable, rates: tuple[Rate, ...]) -> float:
        """Count one request under ``key``: 0.0 when all ``rates`` allow it, else the seconds until they do."""
        now = self._clock()
        if len(rates) != 1:
            return self._hit_all(key, rates, now)
        # The same as _hit_all, without its lists: this is on the path of every message.
        count, seconds = rates[0]
        interval = seconds / count
        full_at = self._full_at.get(key)
        if full_at is None:
            self._add(key, now + interval, now)
            return 0.0
        full_at = (full_at if full_at > now else now) + interval
        wait = full_at - now - seconds
        if wait > 0.0 and (wait > _SLACK or wait > interval / 2):
            return wait if wait <= interval else self._emptied(key, interval, now + seconds)
        self._full_at[key] = full_at
        return 0.0

    def _hit_all(self, key: Hashable, rates: tuple[Rate, ...], now: float) -> float:
        longest = 0.0
        updates = []
        for index, (count, seconds) in enumerate(rates):
            bucket = (key, index)
            interval = seconds / count
            full_at = max(self._full_at.get(bucket, now), now) + interval
            wait = full_at - now - seconds
            if wait > 0.0 and (wait > _SLACK or wait > interval / 2):
                longest = max(longest, wait if wait <= interval else self._emptied(bucket, interval, now + seconds))
            updates.append((bucket, full_at))
        if not longest:
            for bucket, full_at in updates:
                self._add(bucket, full_at, now)
        return longest

    def _emptied(self, bucket: Hashable, interval: float, full_at: float) -> float:
        # Emptier than empty: it was counted at a slower rate before, or the clock was set back. The wait is for one
        # token, and must not be for what the other rate would have had it wait.
        self._full_at[bucket] = full_at
        return interval

    def _add(self, bucket: Hashable, full_at: float, now: float) -> None:
        if len(self._full_at) >= self._sweep_at and bucket not in self._full_at:
            self._sweep(now)
        self._full_at[bucket] = full_at

    def _sweep(self, now: float) -> None:
        buckets = {bucket: full_at for bucket, full_at in self._full_at.items() if full_at > now}
        excess = len(buckets) - self._max_keys * 3 // 4
        if excess > 0:
            for bucket in sorted(buckets, key=buckets.__getitem__)[:excess]:
                del buckets[bucket]
        self._full_at = buckets
        self._sweep_at = min(max(1024, 2 * len(buckets)), self._max_keys)


class BaseThrottle(ABC):
    """A rate, and who is counted together under it.

    Derive from it, or from a subclass, and define :meth:`get_ident`; or replace :meth:`allow` to count otherwise.
    An instance serves all connections. ``rate`` is read when the consumer is defined.

    ``scope`` names what is counted. Throttles of one scope share their counts; by default each has its own in each
    consumer or action that lists it.
    """

    rate: str | None = None
    scope: str | None = None
    rates: tuple[Rate, ...] = ()

    def __init__(self, rate: str | None = None) -> None:
        if rate is not None:
            self.rate = rate
        if self.rate is not None:
            self.rates = parse_rate(self.rate)

    @abstractmethod
    def get_ident(self, consumer: Any) -> Hashable | None:
        """Whom to count the request for: requests of equal identities share a bucket. ``None``: do not count it."""

    def allow(self, consumer: Any, action: Any, buckets: Buckets) -> float | Awaitable[float]:
        """Count this request: 0 when it may pass, else the seconds to wait. Sync or async.

        ``action`` is ``None`` for what is no action, such as a handshake.
        """
        ident = self.get_ident(consumer)
        if ident is None:
            return 0.0
        return buckets.hit((self.scope, ident), self.rates)

    def on_throttled(self, consumer: Any, action: Any, retry_after: float) -> Awaitable[None] | None:
        """Called for each refused request, before the client is told. Sync or async; does nothing by default.

        What it raises goes to the client in place of ``Throttled``, for example
        ``Throttled(retry_after, "Slow down.", close=True)``.
        """
        return None

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({'' if self.rate is None else repr(self.rate)})"


class UserRateThrottle(BaseThrottle):
    """Counts all connections of a user together; an anonymous client, or one without any id, by its address."""

    def get_ident(self, consumer: Any) -> Hashable | None:
        user = user_id(consumer.user)
        # Marked, so that a user called "10.0.0.1" has no part in that address's count.
        return ("user", user) if user is not None else ("address", client_address(consumer.scope))


class AddressRateThrottle(BaseThrottle):
    """Counts all connections of an address together, IPv6 by /64; all clients without an address are one."""

    def get_ident(self, consumer: Any) -> Hashable | None:
        return ("address", client_address(consumer.scope))


class ConnectionRateThrottle(BaseThrottle):
    """Counts each connection by itself. A client that reconnects starts afresh: limit handshakes as well."""

    def get_ident(self, consumer: Any) -> Hashable | None:
        return ("connection", consumer.channel_name)


class GroupRateThrottle(BaseThrottle):
    """Counts everybody in a group together, so that the group as a whole gets no more than the rate.

    The identity is the tuple of all the consumer's group names in order: only consumers that are in just the same
    groups count together, and a client that may join groups at will can leave the count. A consumer that is in no
    group is not throttled.
    """

    def get_ident(self, consumer: Any) -> Hashable | None:
        names = consumer.group_names
        return ("groups", tuple(names)) if names else None


def throttle_of(entry: Any) -> BaseThrottle:
    """The throttle that an entry of ``throttle_classes`` stands for: a rate, a class or an instance.

    A rate by itself counts by user if there is one, else by address.

    Raises:
        TypeError: it is none of these, or its ``get_ident`` is async.
        ValueError: the rate cannot be read, or there is none.
    """
    if isinstance(entry, str):
        return UserRateThrottle(entry)
    if isinstance(entry, BaseThrottle):
        throttle = entry
    elif isinstance(entry, type) and issubclass(entry, BaseThrottle):
        throttle = entry()
    else:
        raise TypeError(
            f"{entry!r} is no throttle; expected a rate such as '20/second; 600/minute', or a class that derives from "
            "BaseThrottle, or an instance of one. Derive it from fastapi_consumers.throttling.BaseThrottle."
        )
    name = type(throttle).__qualname__
    if inspect.iscoroutinefunction(throttle.get_ident):
        # Each coroutine would be an identity of its own, and nobody would ever be throttled.
        raise TypeError(f"{name}.get_ident() is async; expected a plain method. Override allow() to await something.")
    if throttle.rate is None and type(throttle).allow is BaseThrottle.allow:
        raise ValueError(f"{name} has no rate; expected one such as '5/second'. Write {name}('5/second') or set rate.")
    return throttle


def compile_throttles(entries: object, scope: str) -> tuple[BaseThrottle, ...]:
    """The throttles of a whole list, in its order, each ready to count.

    Those without a ``scope`` get one of their own, made of ``scope`` (``"ChatConsumer"``, ``"ChatConsumer.say"``)
    and their place in the list. All are copies, so that one instance may stand in many lists.

    Raises:
        TypeError: an entry is no throttle, or ``entries`` is no list.
        ValueError: an entry has no rate, or one that cannot be read.
    """
    if isinstance(entries, str | bytes | type | BaseThrottle) or not isinstance(entries, Iterable):
        raise TypeError(
            f"found {entries!r}; expected a list of throttles. Put it into a list: "
            f"[{entries.__qualname__ if isinstance(entries, type) else repr(entries)}]."
        )
    throttles = []
    for index, entry in enumerate(entries):
        throttle = copy.copy(throttle_of(entry))
        if throttle.scope is None:
            throttle.scope = f"{scope}#{index}"
        if throttle.rate is not None:
            # A subclass's own __init__ may not have called ours: without this its rate would limit nothing.
            throttle.rates = parse_rate(throttle.rate)
        throttles.append(throttle)
    return tuple(throttles)


async def check_throttles(throttles: Sequence[BaseThrottle], consumer: Any, action: Any, buckets: Buckets) -> None:
    """Count one request by every throttle in order, until one refuses. Awaits only what is async.

    The throttles before the one that refuses have counted the request; those after it have not. Put the strictest
    first where that matters.

    Raises:
        Throttled: one refused; ``retry_after`` is in seconds. Its ``on_throttled`` was called before.
    """
    for throttle in throttles:
        wait: Any = throttle.allow(consumer, action, buckets)
        if type(wait) is not float:
            while inspect.isawaitable(wait):
                wait = await wait
            if isinstance(wait, bool) or not isinstance(wait, int | float):
                raise TypeError(
                    f"{throttle!r}.allow() returned {wait!r}; expected the seconds to wait as a number, 0.0 to let "
                    "the request pass."
                )
        if wait > 0:
            hook = throttle.on_throttled(consumer, action, wait)
            if inspect.isawaitable(hook):
                await hook
            raise Throttled(wait)
