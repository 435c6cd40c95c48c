"""The same limits for HTTP endpoints, as a FastAPI dependency."""

import inspect
import math
from collections.abc import Callable, Hashable
from typing import Any, cast

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from ..exceptions import BrokerUnavailable, ImproperlyConfigured, Problem
from ..identity import CLIENT_KEY, client_address, user_id
from .rates import checked_cost, is_too_much, parse_rate


class RateLimit:
    """A dependency that answers 429 with ``Retry-After`` to whoever comes too often.

    ::

        @app.get("/search", dependencies=[Depends(RateLimit("2/5 seconds"))])

    It counts where the throttles of the app's consumers do, by the same rules. By default each endpoint counts by
    itself, by the user that Starlette's ``AuthenticationMiddleware`` found, else by address.

    Args:
        rate: as for a throttle.
        key: a function of the request that says whom to count; ``None`` is not counted. Not async.
        cost: tokens that one request takes.
        scope: names what is counted. Limits and throttles of one scope share their counts.
    """

    def __init__(
        self,
        rate: str,
        *,
        key: Callable[[Any], Hashable | None] | None = None,
        cost: float = 1,
        scope: str | None = None,
    ) -> None:
        if key is not None and (not callable(cast(object, key)) or inspect.iscoroutinefunction(key)):
            raise TypeError(f"key is {key!r}; expected a plain function of the request")
        self.rate = rate
        self.rates = parse_rate(rate)
        self.key = key
        self.cost = checked_cost(cost, self)
        self.scope = scope
        if is_too_much(cost, self.rates):
            raise ValueError(f"{self!r} costs {cost}, more than its rate allows at once: no request would ever pass.")

    def __repr__(self) -> str:
        return f"RateLimit({self.rate!r})"

    async def __call__(self, connection: HTTPConnection) -> None:
        """Raises ``HTTPException``: 429, or 503 while the server is away and ``throttle_failure`` is ``closed``."""
        consumers = getattr(connection.app.state, "consumers", None)
        if consumers is None:
            fix = "call add_consumers(app), with no routes if there are none"
            problem = Problem("no-consumers", "app.state.consumers", "nothing", "where requests are counted", fix)
            raise ImproperlyConfigured(repr(self), [problem])
        if not consumers.is_open:
            await consumers.open()
        if (proxies := consumers.defaults.trusted_proxies) is not None:
            connection.scope[CLIENT_KEY] = proxies.address_of(connection.scope)
        ident = self._ident(connection)
        if ident is None or not self.cost:
            return
        scope = self.scope or self._scope(connection)
        consumers.http_limits.add((scope, self.rates))
        try:
            wait: Any = consumers.buckets.hit((scope, ident), self.rates, self.cost)
            if inspect.isawaitable(wait):
                wait = await wait
        except BrokerUnavailable as error:
            raise HTTPException(503, str(error), headers={"Retry-After": "1"}) from error
        if wait > 0:
            raise HTTPException(429, "Too many requests.", headers={"Retry-After": str(math.ceil(wait))})

    def _ident(self, connection: HTTPConnection) -> Hashable | None:
        if self.key is not None:
            ident = self.key(connection)
            return None if ident is None else ("key", ident)
        user = user_id(connection.scope.get("user"))
        return ("user", user) if user is not None else ("address", client_address(connection.scope))

    def _scope(self, connection: HTTPConnection) -> str:
        endpoint = connection.scope.get("endpoint")
        # Without a name of its own, as a partial is, by the template of its route: a client chooses the path.
        name = getattr(endpoint, "__qualname__", None) or getattr(connection.scope.get("route"), "path", "")
        return f"http:{getattr(endpoint, '__module__', '')}.{name}:{self.rate}"
