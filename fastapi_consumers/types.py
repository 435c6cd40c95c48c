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

JSON = dict[str, Any] | list[Any] | str | int | float | bool | None
RequestId = int | str

#: A control frame holds 125 bytes, two of which are the close code (RFC 6455, section 5.5).
MAX_CLOSE_REASON_BYTES = 123


class CloseCode(IntEnum):
    """The codes that the framework closes sockets with. 4000 to 4999 are its own (RFC 6455, section 7.4.2)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    UNSUPPORTED_DATA = 1003
    ABNORMAL = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_FRAMES = 4400
    NOT_AUTHENTICATED = 4401
    FORBIDDEN = 4403
    TIMEOUT = 4408
    REPLACED = 4409
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
