"""Who is let in at all: how fast connections may come to a process, and how many of a user or an address it holds."""

import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from .exceptions import Throttled
from .identity import client_address, is_authenticated, user_id
from .plan import Plan
from .texts import gettext_lazy as _
from .throttling import Rate, TokenBuckets


class Admission:
    """The admission of one application to one process. For one event loop.

    A limit that a class sets counts that class's connections. One given to ``add_consumers`` counts the connections of
    all classes that set none.

    Args:
        rates: how fast connections may come; nothing for as fast as they like.
    """

    def __init__(self, rates: tuple[Rate, ...] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = rates
        self._buckets = TokenBuckets(clock)
        self._counts: Counter[Hashable] = Counter()
        #: What each connection is counted under.
        self._held: dict[Any, list[Hashable]] = {}

    def knock(self) -> None:
        """A connection has come. Raises ``Throttled`` with the code ``too_many_connections`` if that was too fast."""
        if self._rates and (wait := self._buckets.hit("", self._rates)) > 0:
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
        self._counts[key] += 1
        self._held.setdefault(connection, []).append(key)

    def leave(self, connection: Any) -> None:
        """The connection has ended, whatever it was counted under."""
        for key in self._held.pop(connection, ()):
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]


def _too_many(wait: float | None) -> Throttled:
    return Throttled(wait, _("Too many connections."), code="too_many_connections")
