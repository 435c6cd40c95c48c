"""What protocols, dispatch and hub say to each other: four immutable messages, and a stream's position.

They are named tuples because a request and its reply are made for every frame.
"""

from typing import Any, Literal, NamedTuple

from .exceptions import ConsumerError
from .types import RequestId


class Request(NamedTuple):
    """What a client asks. ``error`` says what is wrong with it; it is answered once throttles and permissions passed.

    ``data`` is the payload: validated for the action if ``error`` is ``None``.
    """

    action: str | None
    request_id: RequestId | None = None
    data: Any = None
    error: ConsumerError | None = None


class Reply(NamedTuple):
    """The answer to one request. ``status`` is ``"partial"`` for the parts of a streaming reply."""

    action: str | None
    request_id: RequestId | None
    status: Literal["ok", "partial", "error"]
    data: Any = None
    error: ConsumerError | None = None


class Event(NamedTuple):
    """What a server sends unasked. ``data`` is JSON text as bytes: it is serialised once, for all who receive it.

    ``group`` is ``None`` for an event sent to one connection. ``offset`` is there in groups with history.
    """

    event: str
    data: bytes
    group: str | None = None
    offset: int | None = None


class Notice(NamedTuple):
    """What the framework itself says: ``joined``, ``presence``, ``gap``, ``closing``, ``error``."""

    type: Literal["joined", "presence", "gap", "closing", "error"]
    fields: dict[str, Any]


class Position(NamedTuple):
    """A place in a group's history: ``offset`` counts events from 1, ``epoch`` names this life of the stream."""

    epoch: str
    offset: int


class Frame(NamedTuple):
    """An ASGI ``websocket.send`` message, ready to hand to the server, and its payload's size in bytes.

    One frame is shared by all members it is sent to: nobody may change its message.
    """

    message: dict[str, Any]
    size: int


def text_frame(text: str) -> Frame:
    """A text frame."""
    # Whether it is ASCII is known without a look at it, and then it need not be encoded to be measured.
    return Frame({"type": "websocket.send", "text": text}, len(text) if text.isascii() else _size(text))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def bytes_frame(data: bytes) -> Frame:
    """A binary frame."""
    return Frame({"type": "websocket.send", "bytes": data}, len(data))
