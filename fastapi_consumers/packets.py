"""What one process tells the others: versioned packets, opaque to the transport.

Format, version 1: the byte ``1``, a JSON list ``[kind, name, exclude, only, key]``, a line feed, the data. JSON text
has no raw line feed, so the first one ends the header. ``kind`` is one of :data:`KINDS`.

A sixth field, which is there only if somebody traces, is a ``traceparent`` (https://www.w3.org/TR/trace-context/). Who
reads a header passes over fields behind those that it knows, so that later ones can be added in the same way.

A packet of a group with history travels behind its position: ``@``, the epoch, ``:``, the offset in decimal, a line
feed. Stores that publish write it too.
"""

import re
from typing import Literal, NamedTuple, get_args

from pydantic_core import from_json

from .codecs import encode_json
from .messages import Position

VERSION = b"1"

#: event: an event for the members; notice: one of the framework's own, its fields as data; text, bytes: a frame relayed
#: as it is; message: a channel layer message for the members' event methods; close: close the members' sockets; ask and
#: answer: what processes want to know of each other, see :mod:`.asking`.
Kind = Literal["event", "notice", "text", "bytes", "message", "close", "ask", "answer"]
KINDS: frozenset[str] = frozenset(get_args(Kind))

#: Fields of a header that are always there, and those that are known.
FIELDS, KNOWN_FIELDS = 5, 6


class Packet(NamedTuple):
    """``name`` is the event's, or the notice's type.

    ``exclude`` is the channel that does not get it, ``only`` the one channel that does.

    ``key``: an event replaces one of the same group and key that still waits for a client that coalesces.

    ``trace``: the ``traceparent`` of whoever published it, where somebody traces.
    """

    kind: Kind
    data: bytes = b"null"
    name: str = ""
    exclude: str | None = None
    only: str | None = None
    key: str | None = None
    trace: str | None = None


class BadPacket(ValueError):
    """The packet is of an unknown version or damaged. Its text goes into logs, and quotes nothing of the packet."""


def encode_packet(packet: Packet) -> bytes:
    """The packet as bytes."""
    fields = [packet.kind, packet.name, packet.exclude, packet.only, packet.key]
    if packet.trace is not None:
        fields.append(packet.trace)
    return b"%b%b\n%b" % (VERSION, encode_json(fields), packet.data)


def decode_packet(data: bytes) -> Packet:
    """Raises ``BadPacket``."""
    if data[:1] != VERSION:
        found = f"version {data[:1].decode()}" if data[:1].isdigit() else "something else"
        raise BadPacket(f"expected a packet of version {VERSION.decode()}; found {found}, {len(data)} bytes long")
    header, separator, payload = data[1:].partition(b"\n")
    try:
        fields = from_json(header)
    except ValueError:
        fields = None
    if separator and isinstance(fields, list) and len(fields) >= FIELDS:
        kind, name, *optional = fields[:KNOWN_FIELDS]
        texts = isinstance(kind, str) and isinstance(name, str)
        if texts and kind in KINDS and all(isinstance(value, str | None) for value in optional):
            return Packet(kind, payload, name, *optional)
    raise BadPacket(f"the packet's header is damaged: {len(header)} bytes of {len(data)}")


_POSITION = re.compile(rb"@([A-Za-z0-9_-]{1,64}):([0-9]{1,19})\n")


def with_position(position: Position, packet: bytes) -> bytes:
    """An encoded packet behind its position."""
    return b"@%b:%d\n%b" % (position.epoch.encode(), position.offset, packet)


def split_position(data: bytes) -> tuple[Position | None, bytes]:
    """The position, if there is one, and the packet. Raises ``BadPacket`` for a damaged one."""
    if not data.startswith(b"@"):
        return None, data
    found = _POSITION.match(data)
    if found is None:
        raise BadPacket(f"the packet's position is damaged, {len(data)} bytes long")
    return Position(found[1].decode(), int(found[2])), data[found.end() :]
