"""What protocols, dispatch and hub say to each other: four immutable messages, and a stream's position.

They are named tuples because a request and its reply are made for every frame.
"""

from struct import Struct
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
    """What the framework itself says: ``joined``, ``left``, ``presence``, ``gap``, ``closing``, ``error``."""

    type: Literal["joined", "left", "presence", "gap", "closing", "error"]
    fields: dict[str, Any]


class Position(NamedTuple):
    """A place in a group's history: ``offset`` counts events from 1, ``epoch`` names this life of the stream."""

    epoch: str
    offset: int


class Frame:
    """One message to a client, encoded. It is shared by all that it is sent to, and never changes.

    What a way to the client needs, it is asked for; each form is made once, at first use. Once there are the bytes on
    the wire, the payload is cut out of them where somebody asks for it: many frames may wait for a slow client.
    """

    __slots__ = ("is_text", "message", "payload", "size", "wire")

    #: The ASGI ``websocket.send`` message. Nobody may change it.
    message: dict[str, Any]
    #: The content.
    payload: bytes
    #: The bytes of the WebSocket frame: final, not masked, not compressed (RFC 6455, section 5.2).
    wire: bytes

    def __init__(self, payload: bytes, is_text: bool) -> None:
        self.payload = payload
        #: Bytes of the payload.
        self.size = len(payload)
        #: Whether the payload is text, in UTF-8.
        self.is_text = is_text

    def __getattr__(self, name: str) -> Any:
        # Called for what has not been set: from then on it is an attribute like any other, without a call per member.
        if name == "message":
            content = {"text": self.payload.decode()} if self.is_text else {"bytes": self.payload}
            self.message = {"type": "websocket.send", **content}
            return self.message
        if name == "wire":
            self.wire = frame_head(0x81 if self.is_text else 0x82, self.size) + self.payload
            del self.payload
            return self.wire
        if name == "payload":
            return self.wire[len(self.wire) - self.size :]
        raise AttributeError(f"a Frame has no {name!r}")

    def __repr__(self) -> str:
        return f"Frame({self.payload!r}, is_text={self.is_text})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and (self.payload, self.is_text) == (other.payload, other.is_text)

    def __hash__(self) -> int:
        return hash((self.payload, self.is_text))


_HEAD_16, _HEAD_64 = Struct("!BBH"), Struct("!BBQ")
_new_frame = Frame.__new__
#: What stands before texts of up to 125 bytes.
_SHORT_HEADS = tuple(bytes((0x81, size)) for size in range(126))


def frame_head(first: int, size: int) -> bytes:
    """What stands before the payload of an unmasked frame (RFC 6455, section 5.2). ``first`` is the first byte."""
    if size < 126:
        return bytes((first, size))
    return _HEAD_16.pack(first, 126, size) if size < 1 << 16 else _HEAD_64.pack(first, 127, size)


def ready_frame(payload: bytes) -> Frame:
    """A text frame whose bytes are made at once: to be asked for them later costs more than making them."""
    frame = _new_frame(Frame)
    frame.is_text = True
    frame.size = size = len(payload)
    frame.wire = _SHORT_HEADS[size] + payload if size < 126 else frame_head(0x81, size) + payload
    return frame


def text_frame(text: str) -> Frame:
    """A text frame. Raises ``UnicodeEncodeError`` for half of a surrogate pair, which UTF-8 cannot hold."""
    return Frame(text.encode(), True)


def bytes_frame(data: bytes) -> Frame:
    """A binary frame."""
    return Frame(data, False)
