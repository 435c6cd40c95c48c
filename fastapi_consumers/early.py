"""What happens to a connection that is known already and not let in yet: what comes for its user waits, what closes it
refuses the handshake."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .authentication import expired, invalid
from .backlog import Entries
from .connection import Connection
from .exceptions import ConsumerError
from .texts import gettext_lazy as _
from .types import CloseCode

#: Closes after which another handshake may be let in, with the same credential.
_PASSING = frozenset({CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER})


class Early:
    """Keeps what comes for a connection, but for closes, until it is released: it may never be let in."""

    __slots__ = ("_connection", "_kept", "_takers")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._kept: list[Callable[[], None]] = []
        member = connection.member
        self._takers = member.push, member.push_all, member.receive
        member.push, member.receive = partial(self._keep, member.push), partial(self._keep, member.receive)
        member.push_all = self._keep_all

    def _keep(self, take: Callable[..., None], *arguments: Any) -> None:
        self._kept.append(partial(take, *arguments))
        if len(self._kept) > self._connection.plan.limits.max_outbox:
            self._connection.shut(CloseCode.TRY_AGAIN_LATER, "slow_consumer")

    def _keep_all(self, entries: Entries, wire: bytes) -> None:
        for entry in entries:
            self._keep(self._takers[0], *entry)

    def release(self) -> None:
        """Have the connection take what came, and what comes from now on."""
        member, kept = self._connection.member, self._kept
        member.push, member.push_all, member.receive = self._takers
        for take in kept:
            take()


async def refuse_as_shut(connection: Connection) -> None:
    """Refuse the handshake for what shut the connection, unless the client has its answer or has gone."""
    if not (connection.is_accepted or connection.is_over):
        code, reason = connection.close_code, connection.close_reason
        await connection.refuse(_refusal(CloseCode.NORMAL if code is None else code, reason))


def _refusal(code: int, reason: str) -> ConsumerError:
    if code == CloseCode.NOT_AUTHENTICATED:
        error: ConsumerError = expired() if reason == "expired" else invalid()
        error.code = reason or error.code
        return error
    error = ConsumerError(reason or "closed", _("The socket was closed."), close_code=code, retryable=code in _PASSING)
    error.http_status = 503 if code in _PASSING else 403
    return error
