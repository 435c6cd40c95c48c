"""The handshake of ``connect``, and why it failed, in words that say what to do."""

import errno
import json
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import click
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidProxy, InvalidStatus, ProxyError
from websockets.typing import Origin, Subprotocol

from ...messages import Position
from .target import Target
from .text import visible

#: Largest message that is read, in bytes: a page of a history may be much larger than what clients send.
MAX_SIZE = 64 * 1024 * 1024
#: Seconds that the server has to answer a close.
CLOSE_TIMEOUT = 2.0
#: Statuses after which a client may come back (RFC 9110, section 15; RFC 6585).
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
_MEANINGS = {
    401: "The server wants to know who you are: --token, --header or --cookie.",
    403: "The server refuses this. Without a reason of its own it may also be that nothing answers at this path.",
    404: "Nothing answers at this path.",
    426: "It is no WebSocket endpoint, or wants another version of the protocol.",
    429: "Too many handshakes.",
    503: "The server takes nobody at the moment.",
}


class HandshakeFailed(click.ClickException):
    """There is no socket. ``retry``: whether there may be one later, ``after`` this many seconds at the earliest."""

    def __init__(
        self,
        message: str,
        *,
        retry: bool = False,
        after: float = 0.0,
        status: int | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.retry = retry
        self.after = after
        self.status = status
        self.error = error

    def as_dict(self) -> dict[str, Any]:
        """For programs: ``message``, and where the server answered its ``status`` and the ``error`` that it gave."""
        found = {"type": "refused", "message": self.message, "status": self.status, "error": self.error}
        return {name: value for name, value in found.items() if value is not None}


async def open_socket(target: Target, positions: Mapping[str, Position]) -> ClientConnection:
    """A socket on which the handshake is done, recovering from these positions. Raises ``HandshakeFailed``."""
    try:
        return await connect(
            target.url_from(positions),
            origin=Origin(target.origin) if target.origin is not None else None,
            subprotocols=[Subprotocol(name) for name in target.subprotocols],
            additional_headers=target.headers,
            user_agent_header="fastapi-consumers",
            open_timeout=target.timeout,
            close_timeout=CLOSE_TIMEOUT,
            max_size=MAX_SIZE,
            ssl=target.tls(),
        )
    except (OSError, InvalidHandshake, InvalidProxy, EOFError) as error:
        raise explain(error, target) from None


def explain(error: Exception, target: Target) -> HandshakeFailed:
    """What the library or the system raised, for people."""
    where = target.shown
    if isinstance(error, InvalidStatus):
        return _refused(error, where)
    if isinstance(error, InvalidProxy | ProxyError):
        return HandshakeFailed(f"{where} could not be reached through the proxy: {visible(str(error))}.")
    if isinstance(error, TimeoutError) or _is(error, errno.ETIMEDOUT):
        text = f"{where} did not answer within {target.timeout:g} s. Is the address right, and is nothing in between?"
        return HandshakeFailed(text, retry=True)
    if isinstance(error, InvalidHandshake | EOFError):
        if isinstance(error, InvalidMessage | EOFError):
            fix = "try wss://" if where.startswith("ws:") else "is the port right?"
            text = f"What answers at {where} does not speak HTTP: {fix}"
        else:
            text = f"{where} is no WebSocket endpoint: {visible(str(error))}."
        return HandshakeFailed(text, retry=isinstance(error, InvalidMessage))
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"The certificate of {where} is not trusted: {error.verify_message}. --insecure does without."
        return HandshakeFailed(text)
    if isinstance(error, ssl.SSLError):
        return HandshakeFailed(f"{where} does not speak TLS ({error.reason or 'no reason given'}): try ws://")
    if isinstance(error, socket.gaierror):
        return HandshakeFailed(f"There is no host of this name: {where} ({error.strerror}).", retry=True)
    if _is(error, errno.ECONNREFUSED):
        text = f"Nothing listens at {where}. Is the application running, and is the port right?"
        return HandshakeFailed(text, retry=True)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return HandshakeFailed(f"{where} could not be reached: {visible(reason)}.", retry=True)


def _is(error: Exception, number: int) -> bool:
    """Whether the system gave this number. Of several addresses asyncio has put all errors into one text."""
    return getattr(error, "errno", None) == number or f"[Errno {number}]" in str(error)


def _refused(error: InvalidStatus, where: str) -> HandshakeFailed:
    response = error.response
    status = response.status_code
    after = response.headers.get("Retry-After", "")
    seconds = float(after) if re.fullmatch(r"[0-9]{1,6}", after) else 0.0
    told = _error_of(response.body)
    answered = f"{status} {visible(response.reason_phrase or '')}".rstrip()
    if told is not None:
        reason = f"{visible(str(told.get('code')))}: {visible(str(told.get('message', '')))}"
        text = f"{where} refused: HTTP {answered}, {reason}"
        if told.get("details") is not None:
            text += f" Details: {visible(json.dumps(told['details'], ensure_ascii=False))}"
    elif status < 400:
        text = f"{where} is no WebSocket endpoint: it answered HTTP {answered}."
    else:
        text = f"{where} refused: HTTP {answered}. {_MEANINGS.get(status, '')}".rstrip()
        if response.body and (body := visible(response.body.decode(errors="replace").strip()[:200])):
            text += f" It said: {body}"
    if told is not None and status == 401:
        text += " Say who you are: --token, --header or --cookie."
    if seconds:
        text += f" Try again after {seconds:g} s."
    return HandshakeFailed(text, retry=status in _TEMPORARY, after=seconds, status=status, error=told)


def _error_of(body: bytes | bytearray | None) -> dict[str, Any] | None:
    """The ``error`` of an answer of this framework."""
    try:
        found = json.loads(body or b"")
    except ValueError:
        return None
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else None
