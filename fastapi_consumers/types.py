"""The ASGI contract, JSON values and close codes. Owned here, imported by everybody.

ASGI: https://asgi.readthedocs.io/en/stable/specs/www.html#websocket
"""

from collections.abc import Awaitable, Callable, MutableMapping
from enum import IntEnum
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Makes a named tuple of all its fields, in half the time that calling its class takes.
new_tuple = tuple.__new__

JSON = dict[str, Any] | list[Any] | str | int | float | bool | None
RequestId = int | str

#: A control frame holds 125 bytes, two of which are the close code (RFC 6455, section 5.5).
MAX_CLOSE_REASON_BYTES = 123


class CloseCode(IntEnum):
    """The codes that the framework closes sockets with. 4000 to 4999 are its own (RFC 6455, section 7.4.2)."""

    #: All is said.
    NORMAL = 1000
    #: The task that served the socket was cancelled. A browser says it when its page is left.
    GOING_AWAY = 1001
    #: A binary frame where text is expected, or the other way round.
    UNSUPPORTED_DATA = 1003
    #: Nobody said goodbye. It is never sent: a side that has lost the other finds it.
    ABNORMAL = 1006
    #: Text that is not UTF-8. Servers close with it by themselves.
    INVALID_PAYLOAD = 1007
    #: Refused by a rule that has no code of its own.
    POLICY_VIOLATION = 1008
    #: A message of more than ``max_message_size`` bytes.
    MESSAGE_TOO_BIG = 1009
    #: The server failed; its log says how.
    INTERNAL_ERROR = 1011
    #: The server stops. Come back, to another or to the next.
    SERVICE_RESTART = 1012
    #: Too much for now: a client that does not keep up, a group or a process that is full, a broker that is away.
    TRY_AGAIN_LATER = 1013
    #: Too many frames in a row that are no requests.
    BAD_FRAMES = 4400
    #: No credential, a wrong one, or one that has ended.
    NOT_AUTHENTICATED = 4401
    #: The client may not do this.
    FORBIDDEN = 4403
    #: The client, or an action, took too long.
    TIMEOUT = 4408
    #: The application closed it, as ``consumers.disconnect`` does.
    REPLACED = 4409
    #: The client sends more than it may.
    TOO_MANY_REQUESTS = 4429


#: Close reasons of codes that are given without one.
REASONS: dict[int, str] = {
    CloseCode.MESSAGE_TOO_BIG: "message_too_big",
    CloseCode.TOO_MANY_REQUESTS: "too_many_requests",
    CloseCode.BAD_FRAMES: "bad_frames",
}
#: Closes of clients that send more than they may, and may go on doing so.
FLOODS = frozenset({CloseCode.MESSAGE_TOO_BIG, CloseCode.BAD_FRAMES, CloseCode.TOO_MANY_REQUESTS})


def check_close_code(code: Any) -> int:
    """``code`` if a close frame may carry it: 1000 to 1014 but 1004, 1005 and 1006, or 3000 to 4999 (RFC 6455, 7.4).

    Raises ``ValueError`` for any other.
    """
    if isinstance(code, int) and ((1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999):
        return int(code)
    raise ValueError(
        f"{code!r} is no close code that may be sent; expected 1000 to 1014 but 1004, 1005 and 1006, or 3000 to 4999 "
        "(4000 to 4999 are for applications)"
    )


def close_reason(text: str) -> str:
    """``text`` cut to what a close frame holds, at a character's border.

    >>> len(close_reason("é" * 100).encode())
    122
    """
    return text.encode("utf-8", "replace")[:MAX_CLOSE_REASON_BYTES].decode("utf-8", "ignore")
