"""A connection that may still be refused: events for its user wait, and for its groups where a refusal goes out over
the open socket; what closes it refuses the handshake."""

from typing import Any

from .authentication import expired, invalid
from .backlog import Backlog, Droppable, Entries, Full
from .connection import Connection
from .exceptions import ConsumerError
from .fanning import push_together
from .messages import Frame
from .texts import gettext_lazy as _
from .types import CloseCode

#: Closes after which another handshake may be let in, with the same credential.
_PASSING = frozenset({CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER})


class Early:
    """Keeps what comes for a connection, but for closes, until it is released: it may never be let in.

    As much as its outbox and its mailbox would, by the same rules: more gives the handshake up, or drops events.
    """

    __slots__ = ("_backlog", "_connection", "_messages", "_takers")

    def __init__(self, connection: Connection) -> None:
        bounds, member = connection.plan.outbox_bounds, connection.member
        self._connection = connection
        self._backlog = Backlog(bounds.overflow, bounds.max_messages, bounds.max_bytes)
        self._messages: list[tuple[Any, ...]] = []
        self._takers = member.push, member.push_all, member.receive
        member.push, member.push_all, member.receive = self._keep, self._keep_all, self._keep_message

    def __len__(self) -> int:
        return len(self._backlog) + len(self._messages)

    def _keep(self, frame: Frame, droppable: Droppable | None = None) -> None:
        connection, backlog = self._connection, self._backlog
        if connection.is_closing:
            return
        dropped = backlog.dropped
        try:
            backlog.put(frame, droppable)
        except Full:
            backlog.clear()
            connection.on_overflow()
        else:
            for _dropped in range(backlog.dropped - dropped):
                connection.on_dropped()

    def _keep_all(self, entries: Entries, _wire: bytes) -> None:
        for frame, droppable in entries:
            self._keep(frame, droppable)

    def _keep_message(self, *message: Any) -> None:
        connection = self._connection
        if connection.is_closing:
            return
        if len(self._messages) < connection.plan.limits.max_inbox:
            self._messages.append(message)
        else:
            connection.shut(CloseCode.TRY_AGAIN_LATER, "slow_consumer")

    def release(self) -> None:
        """Have the connection take what came, and what comes from now on."""
        member = self._connection.member
        member.push, member.push_all, member.receive = self._takers
        # The bounds were kept here: what is left of it goes out whole.
        push_together(member, iter(self._backlog.next, None))
        for message in self._messages:
            member.receive(*message)


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
