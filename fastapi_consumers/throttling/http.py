"""The same limits for HTTP endpoints, as a FastAPI dependency."""

import inspect
import math
from collections.abc import Callable, Hashable
from typing import Any, cast

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from ..exceptions import BrokerUnavailable, ConsumerError, ImproperlyConfigured, Problem, Throttled
from ..identity import CLIENT_KEY, client_address, user_id
from .rates import checked_cost, is_too_much, parse_rate


class RateLimit:
    """A dependency that answers 429 with ``Retry-After`` to whoever comes too often.

    ::

        @app.get("/search", dependencies=[Depends(RateLimit("2/5 seconds"))])

    Who is refused is told so in its language, as by an endpoint that raises ``Throttled``; where the application has no
    handler for that, in the ``detail`` of an ``HTTPException``.

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
        """Raises ``Throttled``; ``BrokerUnavailable`` while the server is away and ``throttle_failure`` is ``closed``.

        ``HTTPException`` in their place if the application has no handler for them.
        """
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
        refusal: ConsumerError | None = None
        try:
            wait: Any = consumers.buckets.hit((scope, ident), self.rates, self.cost)
            if inspect.isawaitable(wait):
                wait = await wait
            if wait > 0:
                refusal = Throttled(None if wait == math.inf else wait)
        except BrokerUnavailable as error:
            refusal = error
        if refusal is not None:
            raise _as_answered(connection, refusal)

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


def _as_answered(connection: HTTPConnection, error: ConsumerError) -> Exception:
    """The error itself if the application has a handler for it; else what FastAPI answers by itself."""
    kinds = [kind for kind in type(error).__mro__ if issubclass(kind, ConsumerError)]
    if any(kind in connection.app.exception_handlers for kind in kinds):
        return error
    told, headers = connection.app.state.consumers.defaults.localization.told_by_http(connection, error)
    return HTTPException(told.http_status, told.message, headers)
