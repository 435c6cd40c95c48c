"""How often an address may bring wrong credentials: once these are too many none is looked up, so that a right guess is
not found out.

Counted by the rates of ``connection_throttle_classes``, in buckets of their own: whoever has been there with a good
credential, or without any, has no part in them.
"""

from collections.abc import Hashable, Sequence
from typing import Any

from .connection import Connection
from .dependencies import error_from_dependency
from .exceptions import ConsumerError
from .identity import client_address
from .stepping import settled
from .throttling import BaseThrottle
from .throttling.base import refuse


def guesses_of(address: str) -> Hashable:
    """What the wrong credentials of an address are counted under."""
    return ("guesses", address)


class Guesses:
    """The wrong credentials of the address that a connection comes from.

    An address that the server does not name is not counted: all clients behind it would be shut out for one of them.
    """

    __slots__ = ("_connection", "_ident", "_throttles")

    def __init__(self, connection: Connection) -> None:
        plan, address = connection.plan, client_address(connection.scope)
        self._connection = connection
        self._ident = guesses_of(address)
        self._throttles: Sequence[BaseThrottle] = ()
        if plan.authentications and address:
            self._throttles = [each for each in plan.connection_throttles if each.rates and each.cost]

    async def check(self) -> None:
        """Raises ``Throttled`` if there have been too many, or what the throttle's ``on_throttled`` raises."""
        for throttle in self._throttles:
            key = (throttle.scope, self._ident)
            wait = await settled(self._buckets(throttle).peek(key, throttle.rates, throttle.cost))
            if wait > 0:
                await refuse(throttle, self._connection.member.consumer, None, wait)

    async def add(self, failure: Exception) -> None:
        """Count a credential that was refused with this; one that was good once is no guess, nor is a failed lookup."""
        if self._throttles and _is_refusal(failure):
            for throttle in self._throttles:
                # Where strangers are not counted, their mistakes are not either.
                if throttle.get_ident(self._connection.member.consumer) is not None:
                    key = (throttle.scope, self._ident)
                    await settled(self._buckets(throttle).hit(key, throttle.rates, throttle.cost))

    def _buckets(self, throttle: BaseThrottle) -> Any:
        buckets = self._connection.consumers.buckets
        return getattr(buckets, "local", buckets) if throttle.local else buckets


def _is_refusal(failure: Exception) -> bool:
    error = failure if isinstance(failure, ConsumerError) else error_from_dependency(failure)
    return error is not None and error.http_status < 500 and not error.retryable and error.code != "expired"
