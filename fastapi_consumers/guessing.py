"""How often an address may bring wrong credentials: once these are too many none is looked up, so that a right guess is
not found out.

Counted by the rates of ``connection_throttle_classes``, in buckets of their own: whoever has been there with a good
credential, or without any, takes nothing from them. But whether a handshake holds a credential is for its
authentications to find out, so once they are empty it is refused without one too. No more lookups of an address are
under way in a process than could be wrong; others wait for their end.
"""

import asyncio
from collections.abc import Hashable, Sequence
from types import TracebackType
from typing import Any

from .connection import Connection
from .dependencies import error_from_dependency
from .exceptions import ConsumerError
from .identity import client_address
from .stepping import settled
from .throttling import BaseThrottle
from .throttling.base import refuse
from .types import CloseCode


def guesses_of(address: str) -> Hashable:
    """What the wrong credentials of an address are counted under."""
    return ("guesses", address)


class Line:
    """The lookups of one address in one process, in the order in which they came."""

    __slots__ = ("busy", "ended", "turn", "users")

    def __init__(self) -> None:
        #: How many are under way, and how many besides wait.
        self.busy = self.users = 0
        #: Held by the one whose turn is next.
        self.turn = asyncio.Lock()
        #: Set when one has ended.
        self.ended = asyncio.Event()


class Guesses:
    """The wrong credentials of the address that a connection comes from. For one lookup::

        await guesses.wait()
        async with guesses:
            ...

    An address that the server does not name is not counted: all clients behind it would be shut out for one of them.
    """

    __slots__ = ("_connection", "_ident", "_key", "_line", "_throttles")

    def __init__(self, connection: Connection) -> None:
        plan, address = connection.plan, client_address(connection.scope)
        self._connection = connection
        self._ident = guesses_of(address)
        self._throttles: Sequence[BaseThrottle] = plan.guess_throttles if address else ()
        self._line: Line | None = None
        #: Who waits for whom: those who take from the same buckets.
        self._key = (address, *[each.scope for each in self._throttles])

    async def wait(self) -> None:
        """Wait until a lookup may begin. It has begun then: enter at once, so that it ends.

        Raises as :meth:`check` does.
        """
        if not self._throttles:
            return
        lines = self._connection.consumers.admission.lookups
        line: Line | None = lines.get(self._key)
        if line is None:
            line = lines[self._key] = Line()
        self._line = line
        line.users += 1
        try:
            async with line.turn:
                refusal = await self._refusal_in(line)
        except BaseException:
            self._leave()
            raise
        if refusal is not None:
            self._leave()
            await self._refuse(*refusal)

    async def check(self) -> None:
        """Raises ``Throttled`` if there have been too many, or what the throttle's ``on_throttled`` raises."""
        refusal = await self._refusal(1)
        if refusal is not None:
            await self._refuse(*refusal)

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Count a credential that was refused; one that was good once is no guess, nor is a failed lookup."""
        line = self._line
        if line is None:
            return
        try:
            if failure is not None and self._is_guess(failure):
                for throttle in self._throttles:
                    # Where strangers are not counted, their mistakes are not either.
                    if throttle.get_ident(self._connection.member.consumer) is not None:
                        key = (throttle.scope, self._ident)
                        await settled(self._buckets(throttle).hit(key, throttle.rates, throttle.cost))
        finally:
            line.busy -= 1
            line.ended.set()
            self._leave()

    def _leave(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.users -= 1
            if not line.users:
                self._connection.consumers.admission.lookups.pop(self._key, None)

    async def _refusal_in(self, line: Line) -> tuple[BaseThrottle, float] | None:
        """``None`` once a lookup has begun, in the order of the line."""
        while True:
            line.ended.clear()
            busy = line.busy
            refusal = await self._refusal(busy + 1)
            if refusal is None:
                line.busy += 1
                return None
            # It is others that may take what is left: they are waited for, so that nobody is refused for good ones.
            if not busy or (refusal := await self._refusal(1)) is not None:
                return refusal
            await line.ended.wait()

    async def _refusal(self, lookups: int) -> tuple[BaseThrottle, float] | None:
        """The throttle that does not allow so many wrong ones, and for how many seconds; ``None`` if all do."""
        for throttle in self._throttles:
            key = (throttle.scope, self._ident)
            wait: float = await settled(self._buckets(throttle).peek(key, throttle.rates, throttle.cost * lookups))
            if wait > 0 and (lookups == 1 or self._may_count(throttle)):
                return throttle, wait
        return None

    async def _refuse(self, throttle: BaseThrottle, wait: float) -> None:
        await refuse(throttle, self._connection.member.consumer, None, wait)

    def _may_count(self, throttle: BaseThrottle) -> bool:
        try:
            return throttle.get_ident(self._connection.member.consumer) is not None
        except Exception:
            # Such as one that reads what only known users have. If this one is not known it is raised again.
            return True

    def _is_guess(self, failure: BaseException) -> bool:
        if isinstance(failure, asyncio.CancelledError):
            # Whoever goes before the answer may have seen that a good one takes another time. If nobody cancelled it,
            # it is a lookup that failed; and clients are not to blame for a restart.
            task = asyncio.current_task()
            is_cut_off = task is not None and task.cancelling() > 0
            return is_cut_off and self._connection.close_code != CloseCode.SERVICE_RESTART
        return isinstance(failure, Exception) and _is_refusal(failure)

    def _buckets(self, throttle: BaseThrottle) -> Any:
        buckets = self._connection.consumers.buckets
        return getattr(buckets, "local", buckets) if throttle.local else buckets


def _is_refusal(failure: Exception) -> bool:
    error = failure if isinstance(failure, ConsumerError) else error_from_dependency(failure)
    return error is not None and error.http_status < 500 and not error.retryable and error.code != "expired"
