"""The socket as dependencies and actions see it: to read from the handshake, to send to, not to take frames from."""

from collections.abc import Mapping
from typing import Any

from starlette.websockets import WebSocket

from .types import Message


class SocketView(WebSocket):
    """A Starlette ``WebSocket`` whose frames go to the consumer."""


async def no_receive() -> Message:
    raise RuntimeError(
        "This WebSocket belongs to a consumer, which receives its frames. Read them in receive(), receive_json() or an "
        "action; headers, cookies, the query and the state can be read here."
    )


def raw_headers(headers: Any) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them, of a mapping or of pairs, as text or bytes; ``None`` for none."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    return [(_bytes(name), _bytes(value)) for name, value in pairs]


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")
