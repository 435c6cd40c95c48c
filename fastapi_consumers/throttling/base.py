"""Who is counted together, at what rate, and the check that refuses."""

import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Any, NoReturn, cast

from ..exceptions import Throttled
from ..identity import ANONYMOUS, client_address, user_id
from .rates import Buckets, Rate, checked_cost, is_too_much, parse_rate
from .refusals import Refusals


class BaseThrottle(ABC):
    """A rate, and who is counted together under it.

    Derive from it, or from a subclass, and define :meth:`get_ident`; or replace :meth:`allow` to count otherwise.
    An instance serves all connections. ``rate`` is read when the consumer is defined.

    Args:
        rate: such as ``"20/second; 600/minute"``: every window has to allow a request.
        cost: tokens that one request takes; :meth:`get_cost` may say otherwise for each.
        scope: names what is counted. Throttles of one scope share their counts; by default each has its own in each
            consumer or action that lists it.
        local: count in this process's memory even where the limits of others are shared, which saves a round trip.
    """

    rate: str | None = None
    cost: float = 1
    scope: str | None = None
    local: bool = False
    rates: tuple[Rate, ...] = ()
    #: Whether all that :meth:`allow` does is to take one token for an identity that is the same as long as the user is.
    #: Known once it is in a list.
    _is_steady: bool = False

    def __init__(
        self,
        rate: str | None = None,
        *,
        cost: float | None = None,
        scope: str | None = None,
        local: bool | None = None,
    ) -> None:
        for name, value in (("rate", rate), ("cost", cost), ("scope", scope), ("local", local)):
            if value is not None:
                setattr(self, name, value)
        if self.rate is not None:
            self.rates = parse_rate(self.rate)

    @abstractmethod
    def get_ident(self, consumer: Any) -> Hashable | None:
        """Whom to count the request for: requests of equal identities share a bucket. ``None``: do not count it.

        Text, numbers, bytes, ``None`` and tuples of these are the same in every process.
        """

    def get_cost(self, consumer: Any, action: Any) -> float:
        """How many tokens this request takes; 0 for none. Not async. ``cost`` by default."""
        return self.cost

    def allow(self, consumer: Any, action: Any, buckets: Buckets) -> float | Awaitable[float]:
        """Count this request: 0 when it may pass, else the seconds to wait. Sync or async.

        ``action`` is ``None`` for what is no action, such as a handshake. ``inf``: it never may, since it costs more
        than a window allows.
        """
        ident = self.get_ident(consumer)
        if ident is None:
            return 0.0
        if self.local:
            buckets = getattr(buckets, "local", buckets)
        cost = self.get_cost(consumer, action)
        if cost == 1:
            return buckets.hit((self.scope, ident), self.rates)
        return buckets.hit((self.scope, ident), self.rates, cost) if checked_cost(cost, self) else 0.0

    def on_throttled(self, consumer: Any, action: Any, retry_after: float) -> Awaitable[None] | None:
        """Called for each refused request, before the client is told. Sync or async; does nothing by default.

        What it raises goes to the client in place of ``Throttled``, for example
        ``Throttled(retry_after, "Slow down.", close=True)``.
        """
        return None

    def __repr__(self) -> str:
        shown = [] if self.rate is None else [repr(self.rate)]
        shown += [f"cost={self.cost!r}"] if self.cost != 1 else []
        return f"{type(self).__qualname__}({', '.join(shown)})"


class UserRateThrottle(BaseThrottle):
    """Counts all connections of a user together; an anonymous client, or one without any id, by its address.

    Of each object that is a connection's ``user`` it is asked once who that is.
    """

    def get_ident(self, consumer: Any) -> Hashable | None:
        user = consumer.user
        user = None if user is ANONYMOUS else user_id(user)
        # Marked, so that a user called "10.0.0.1" has no part in that address's count.
        return ("user", user) if user is not None else ("address", client_address(consumer.scope))


class AddressRateThrottle(BaseThrottle):
    """Counts all connections of an address together, IPv6 by /64; all clients without an address are one."""

    def get_ident(self, consumer: Any) -> Hashable | None:
        return ("address", client_address(consumer.scope))


class ConnectionRateThrottle(BaseThrottle):
    """Counts each connection by itself, which lives in one process, so it is never asked of Redis.

    A client that reconnects starts afresh: limit handshakes as well.
    """

    local = True

    def get_ident(self, consumer: Any) -> Hashable | None:
        return ("connection", consumer.channel_name)


class GroupRateThrottle(BaseThrottle):
    """Counts everybody in a group together, so that the group as a whole gets no more than the rate.

    A request of a consumer that is in several groups takes from the bucket of each, or from none if one of them is
    empty; the wait is the longest of theirs. A consumer that is in no group is not throttled.
    """

    def get_ident(self, consumer: Any) -> Hashable | None:
        """The tuple of the groups to count the request for, each of which has a bucket of its own."""
        return tuple(consumer.group_names) or None

    def allow(self, consumer: Any, action: Any, buckets: Buckets) -> float | Awaitable[float]:
        groups = self.get_ident(consumer)
        if not isinstance(groups, tuple):
            groups = () if groups is None else (groups,)
        if self.local:
            buckets = getattr(buckets, "local", buckets)
        cost = checked_cost(self.get_cost(consumer, action), self)
        if not groups or not cost:
            return 0.0
        return buckets.hit_each(self.scope, [("group", group) for group in dict.fromkeys(groups)], self.rates, cost)


class RateThrottle(BaseThrottle):
    """Counts by what a function says: ``RateThrottle("5/second", key=lambda consumer: consumer.path_params["room"])``.

    Args:
        key: called with the consumer; what it returns is :meth:`get_ident`'s. Not async.
    """

    def __init__(
        self,
        rate: str | None = None,
        *,
        key: Callable[[Any], Hashable | None],
        cost: float | None = None,
        scope: str | None = None,
        local: bool | None = None,
    ) -> None:
        if not callable(cast(object, key)) or inspect.iscoroutinefunction(key):
            raise TypeError(f"key is {key!r}; expected a plain function of the consumer")
        super().__init__(rate, cost=cost, scope=scope, local=local)
        self._key = key

    def get_ident(self, consumer: Any) -> Hashable | None:
        ident = self._key(consumer)
        return None if ident is None else ("key", ident)


def throttle_of(entry: Any) -> BaseThrottle:
    """The throttle that an entry of ``throttle_classes`` stands for: a rate, a class or an instance.

    A rate by itself counts by user if there is one, else by address.

    Raises:
        TypeError: it is none of these, or its ``get_ident`` or ``get_cost`` is async.
        ValueError: the rate cannot be read, or there is none; the cost is negative, or more than the rate ever allows.
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
    if inspect.iscoroutinefunction(throttle.get_cost):
        raise TypeError(f"{name}.get_cost() is async; expected a plain method. Override allow() to await something.")
    if inspect.iscoroutinefunction(throttle.get_ident):
        # Each coroutine would be an identity of its own, and nobody would ever be throttled.
        raise TypeError(f"{name}.get_ident() is async; expected a plain method. Override allow() to await something.")
    if throttle.rate is None and type(throttle).allow in (BaseThrottle.allow, GroupRateThrottle.allow):
        raise ValueError(f"{name} has no rate; expected one such as '5/second'. Write {name}('5/second') or set rate.")
    if throttle.rate is not None and is_too_much(checked_cost(throttle.cost, throttle), parse_rate(throttle.rate)):
        raise ValueError(f"{throttle!r} costs more than its rate allows at once, so no request would ever pass.")
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
        throttle._is_steady = _is_steady(throttle)
        throttles.append(throttle)
    return tuple(throttles)


def _is_steady(throttle: BaseThrottle) -> bool:
    kind = type(throttle)
    is_own = kind.allow is BaseThrottle.allow and kind.get_cost is BaseThrottle.get_cost and not throttle.local
    return (
        is_own and throttle.cost == 1 and kind.get_ident in (UserRateThrottle.get_ident, AddressRateThrottle.get_ident)
    )


async def check_throttles(throttles: Sequence[BaseThrottle], consumer: Any, action: Any, buckets: Buckets) -> None:
    """Count one request by every throttle in order, until one refuses. Awaits only what is async.

    The throttles before the one that refuses have counted the request; those after it have not. Put the strictest
    first where that matters.

    Raises:
        Throttled: one refused; ``retry_after`` is in seconds, ``None`` if waiting would not help. Its ``on_throttled``
            was called before.
    """
    waiting = ask_throttles(throttles, consumer, action, buckets)
    if waiting is not None:
        await waiting


def ask_throttles(
    throttles: Sequence[BaseThrottle],
    consumer: Any,
    action: Any,
    buckets: Buckets,
    refusals: Refusals | None = None,
    keys: dict[int, Hashable] | None = None,
) -> Awaitable[None] | None:
    """The same as far as it goes at once: ``None`` if all let it pass, otherwise the rest, to be awaited.

    Args:
        refusals: told if one refuses, whatever its ``on_throttled`` makes of that.
        keys: what this consumer is counted by, by ``id`` of the throttle; to be emptied when it has another user.
    """
    for index, throttle in enumerate(throttles, 1):
        try:
            if keys is None or not throttle._is_steady:
                wait: Any = throttle.allow(consumer, action, buckets)
            else:
                key = keys.get(id(throttle))
                if key is None:
                    key = keys[id(throttle)] = (throttle.scope, throttle.get_ident(consumer))
                wait = buckets.hit(key, throttle.rates)
        except Throttled:
            if refusals is not None:
                refusals.add()
            raise
        if type(wait) is not float or wait > 0.0:
            return _ask_on(throttle, wait, throttles[index:], consumer, action, buckets, refusals)
    return None


async def _ask_on(
    throttle: BaseThrottle,
    wait: Any,
    rest: Sequence[BaseThrottle],
    consumer: Any,
    action: Any,
    buckets: Buckets,
    refusals: Refusals | None,
) -> None:
    """Go on where a throttle has answered with ``wait``."""
    try:
        while inspect.isawaitable(wait):
            wait = await wait
        if isinstance(wait, bool) or not isinstance(wait, int | float):
            raise TypeError(
                f"{throttle!r}.allow() returned {wait!r}; expected the seconds to wait as a number, 0.0 to let "
                "the request pass."
            )
    except Throttled:
        if refusals is not None:
            refusals.add()
        raise
    if wait > 0:
        if refusals is not None:
            refusals.add()
        await refuse(throttle, consumer, action, wait)
    waiting = ask_throttles(rest, consumer, action, buckets, refusals)
    if waiting is not None:
        await waiting


async def refuse(throttle: BaseThrottle, consumer: Any, action: Any, wait: float) -> NoReturn:
    """Raises ``Throttled``, once the throttle's ``on_throttled`` was called; or what that raises."""
    hook = throttle.on_throttled(consumer, action, wait)
    if inspect.isawaitable(hook):
        await hook
    raise Throttled(None if wait == math.inf else wait)
