"""Who is let in at all: how fast connections may come to a process, and how many of a user or an address it holds."""

import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from .exceptions import ROOM_AFTER, ConsumerError, Throttled
from .identity import client_address, is_authenticated, user_id
from .plan import Plan
from .texts import gettext_lazy as _
from .throttling import Rate, TokenBuckets
from .types import CloseCode

#: What the connections of the whole process are counted under.
_ALL = "max_connections_per_process"


class Admission:
    """The admission of one application to one process. For one event loop.

    A limit that a class sets counts that class's connections. One given to ``add_consumers`` counts the connections of
    all classes that set none.

    Args:
        rates: how fast connections may come; nothing for as fast as they like.
        max_connections: how many there may be, of all classes; ``None`` for as many as come.
    """

    def __init__(
        self,
        rates: tuple[Rate, ...] = (),
        clock: Callable[[], float] = time.monotonic,
        *,
        max_connections: int | None = None,
    ) -> None:
        self.rates = rates
        self.max_connections = max_connections
        #: Whether anything bounds the process as a whole.
        self.is_bounded = bool(rates) or max_connections is not None
        self._buckets = TokenBuckets(clock)
        self._counts: Counter[Hashable] = Counter()
        #: What each connection is counted under.
        self._held: dict[Any, list[Hashable]] = {}
        #: The lookups of credentials that are under way, by what they may take from if they fail: see ``guessing``.
        self.lookups: dict[Hashable, Any] = {}

    def knock(self, connection: Any) -> None:
        """A connection has come; count it.

        Raises ``ConsumerError`` with the code ``too_many_connections``, whose close code is 1013, if the process has as
        many as it may; ``Throttled`` with the same code if it came too fast.
        """
        if self.max_connections is not None:
            if self._counts.get(_ALL, 0) >= self.max_connections:
                raise _full()
            self._count(connection, _ALL)
        if self.rates and (wait := self._buckets.hit("", self.rates)) > 0:
            raise _too_many(wait)

    def take_address(self, connection: Any) -> None:
        """Count a connection by its address; those whose address the server does not name are not counted.

        Raises as :meth:`knock` does, without a time, if the address has as many as it may.
        """
        plan: Plan = connection.plan
        limit = plan.limits.max_connections_per_address
        if limit is not None and (address := client_address(connection.scope)):
            self._take(connection, "max_connections_per_address", address, limit)

    def take_user(self, connection: Any) -> None:
        """Count a connection by its user, if that is known. Raises as :meth:`take_address` does."""
        plan: Plan = connection.plan
        limit = plan.limits.max_connections_per_user
        if limit is not None and is_authenticated(connection.user) and (user := user_id(connection.user)) is not None:
            self._take(connection, "max_connections_per_user", user, limit)

    def _take(self, connection: Any, name: str, ident: Hashable, limit: int) -> None:
        plan: Plan = connection.plan
        key = (name, plan.cls if name in plan.options.limits else None, ident)
        if self._counts.get(key, 0) >= limit:
            raise _too_many(None)
        self._count(connection, key)

    def _count(self, connection: Any, key: Hashable) -> None:
        self._counts[key] += 1
        self._held.setdefault(connection, []).append(key)

    def leave(self, connection: Any) -> None:
        """The connection has ended, whatever it was counted under."""
        for key in self._held.pop(connection, ()):
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]


def _full() -> ConsumerError:
    code = CloseCode.TRY_AGAIN_LATER
    error = ConsumerError("too_many_connections", _("Too many connections."), close_code=code, retryable=True)
    error.http_status = 503  # Not the client's doing: another process may have room.
    error.http_retry_after = ROOM_AFTER
    return error


def _too_many(wait: float | None) -> Throttled:
    return Throttled(wait, _("Too many connections."), code="too_many_connections")
