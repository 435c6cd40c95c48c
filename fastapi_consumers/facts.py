"""What a connection is at this moment, in plain values: for the log, for metrics, for a page that lists connections."""

import time
from typing import Any, Literal

from typing_extensions import TypedDict

from .addressing import GROUP
from .connection import Connection
from .identity import CLIENT_KEY, user_id
from .printable import printable
from .types import CloseCode, RequestId, Scope

ClosedBy = Literal["client", "server", "lost"]

#: Characters of a path that are shown.
MAX_PATH = 256


class ConnectionFacts(TypedDict):
    """The facts of a connection, all of them JSON. Strings that a client chose are short and printable.

    ``connection``: its channel name. ``consumer``: the name of its class. ``user``: the user's id as text, ``None`` for
    an anonymous one. ``address``: the client's, behind trusted proxies the one that they name. ``path``: without the
    query. ``opened_at``: when its handshake came, in Unix time. ``duration``: seconds since, or until it ended.
    ``last_seen``: when its last message came, in Unix time. ``messages_in``, ``bytes_in``, ``bytes_out`` and
    ``last_seen`` are ``None`` unless they are counted: ``add_consumers(statistics=True)``, an ``admin_router``, or an
    observer that needs them. Bytes are those of messages, without the frames around them. ``inbox``, ``outbox``:
    messages that wait.
    ``dropped``: messages that were to be sent, and were not. ``closed_by``: ``None`` while it is open, ``"server"`` if
    this side began to close, ``"client"`` if the other did, ``"lost"`` if neither said so.
    """

    connection: str
    consumer: str
    user: str | None
    address: str
    path: str
    opened_at: float
    duration: float
    last_seen: float | None
    messages_in: int | None
    bytes_in: int | None
    messages_out: int
    bytes_out: int | None
    inbox: int
    outbox: int
    dropped: int
    groups: list[str]
    close_code: int | None
    close_reason: str
    closed_by: ClosedBy | None


def facts_of(connection: Connection) -> ConnectionFacts:
    """The facts of this connection. It may be open, or have ended: then ``groups`` is empty."""
    inbox, outbox = connection.inbox, connection.outbox
    code, closed_by = end_of(connection)
    now = connection.closed_at if connection.closed_at is not None else time.time()
    return {
        "connection": connection.channel_name,
        "consumer": connection.plan.options.name,
        "user": user_of(connection),
        "address": address_of(connection.scope),
        "path": printable(connection.scope.get("path") or "", MAX_PATH),
        "opened_at": connection.opened_at,
        "duration": max(0.0, now - connection.opened_at),
        "last_seen": inbox.last_seen,
        "messages_in": inbox.received,
        "bytes_in": inbox.received_bytes,
        "messages_out": outbox.sent,
        "bytes_out": outbox.sent_bytes,
        "inbox": inbox.waiting,
        "outbox": outbox.waiting,
        "dropped": outbox.dropped,
        "groups": sorted(topic[len(GROUP) :] for topic in connection.member.topics if topic.startswith(GROUP)),
        "close_code": code,
        "close_reason": printable(connection.close_reason),
        "closed_by": closed_by,
    }


def user_of(connection: Connection) -> str | None:
    """The id of its user, short and printable; ``None`` for an anonymous one, and for one that has no way to tell."""
    try:
        found = user_id(connection.user)
    except Exception:
        return None
    return None if found is None else printable(found)


def address_of(scope: Scope) -> str:
    """The client's address, as the server or a trusted proxy names it; ``""`` if there is none."""
    client = scope.get("client")
    return printable(scope[CLIENT_KEY] if CLIENT_KEY in scope else client[0] if client else "")


def end_of(connection: Connection) -> tuple[int | None, ClosedBy | None]:
    """With what code it was closed, and by whom; ``(None, None)`` while nobody has."""
    gone = connection.inbox.gone
    if connection.close_code is not None and not connection.is_lost:
        return connection.close_code, "server"
    if gone is not None:
        # A server that stops closes its sockets by itself, and says so with this code.
        by: ClosedBy = "server" if gone == CloseCode.SERVICE_RESTART else "client"
        return gone, "lost" if gone == CloseCode.ABNORMAL else by
    return (CloseCode.ABNORMAL, "lost") if connection.is_lost else (None, None)


def log_extra(connection: Connection, *, request_id: RequestId | None = None, **more: Any) -> dict[str, Any]:
    """The ``extra`` of a log record: ``connection``, ``user``, ``address``, and what else is known.

    ``request_id`` is made short and printable; so must be what is given in ``more``.
    """
    extra = {
        "connection": connection.channel_name,
        "user": user_of(connection),
        "address": address_of(connection.scope),
        **more,
    }
    if request_id is not None:
        extra["request_id"] = printable(request_id)
    return extra
