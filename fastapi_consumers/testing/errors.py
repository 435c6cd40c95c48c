"""What a communicator raises, besides the app's own exceptions and ``TimeoutError``.

::

    Exception
    ├── ConnectionError (OSError)
    │   ├── SocketClosed            a frame was sent or awaited, and the socket is closed
    │   └── HandshakeRefused        ``async with`` on a socket that the app did not accept
    ├── CallError                   call() or stream() was answered with an error
    └── RuntimeError
        └── LifespanFailed          the app said that its startup or shutdown failed
"""

from typing import Any, NamedTuple


class Denial(NamedTuple):
    """The HTTP response that a handshake was refused with (ASGI extension ``websocket.http.response``)."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class SocketClosed(ConnectionError):
    """The socket is closed: nothing more comes from it, and nothing can be sent.

    ``code`` and ``reason`` are those of the side that closed; 1006 where the app ended without closing.
    """

    def __init__(self, code: int, reason: str = "", *, explanation: str | None = None) -> None:
        self.code = code
        self.reason = reason
        super().__init__(_with_reason(explanation or f"the app closed the socket with code {code}", reason))


class HandshakeRefused(ConnectionRefusedError):
    """The app did not accept the socket.

    ``code`` is its close code, or the HTTP status if it answered with a ``denial`` (:class:`Denial`).
    """

    def __init__(self, path: str, code: int, reason: str = "", denial: Denial | None = None) -> None:
        self.code = code
        self.reason = reason
        self.denial = denial
        if denial is not None:
            text = f"the app refused {path} with HTTP status {denial.status}: {denial.body[:500]!r}"
        else:
            text = _with_reason(f"the app refused {path} with close code {code}", reason)
        super().__init__(text)


class CallError(Exception):
    """The app answered a request with an error.

    ``code``, ``message``, ``details`` and ``retry_after`` (seconds) are those of the error, ``None`` where it has none;
    ``retryable``: whether the same request may succeed later. ``reply`` is the whole frame.
    """

    def __init__(self, reply: dict[str, Any]) -> None:
        self.reply = reply
        error = reply.get("error")
        body: dict[str, Any] = error if isinstance(error, dict) else {}
        self.code: str | None = body.get("code")
        self.message: str | None = body.get("message")
        self.details: Any = body.get("details")
        self.retry_after: float | None = body.get("retry_after")
        self.retryable: bool = body.get("retryable") is True
        text = f"{reply.get('action')!r} failed with {self.code!r}: {self.message}"
        if self.details is not None:
            text += f" {self.details!r}"
        if self.retry_after is not None:
            text += f" (retry after {self.retry_after} s)"
        super().__init__(text)


class LifespanFailed(RuntimeError):
    """The app sent ``lifespan.startup.failed`` or ``lifespan.shutdown.failed`` and raised nothing."""


def _with_reason(text: str, reason: str) -> str:
    return f"{text}: {reason}" if reason else text
