"""The socket as dependencies and actions see it: to read from the handshake, to send to, not to take frames from."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.websockets import WebSocket, WebSocketState

from .messages import bytes_frame, text_frame
from .types import CloseCode, Message


class SocketView(WebSocket):
    """A Starlette ``WebSocket`` over a connection, whose frames go to the consumer.

    Args:
        connection: a ``Connection``, whose ``websocket.connect`` has been received.
    """

    def __init__(self, connection: Any) -> None:
        # Not a method: a view that refers to itself would keep the connection until the garbage collector comes.
        super().__init__(connection.scope, _no_receive, partial(_send_through, connection))
        self.client_state = WebSocketState.CONNECTED
        if connection.is_accepted:
            self.show_accepted()

    def show_accepted(self) -> None:
        """The socket is accepted, whoever did that."""
        self.application_state = WebSocketState.CONNECTED


async def _send_through(connection: Any, message: Message) -> None:
    kind = message["type"]
    if kind == "websocket.send":
        text = message.get("text")
        frame = text_frame(text) if text is not None else bytes_frame(message.get("bytes") or b"")
        await connection.send_frame(frame)
    elif kind == "websocket.accept":
        await connection.accept(message.get("subprotocol"), message.get("headers"))
    elif kind == "websocket.close":
        await connection.close(message.get("code", CloseCode.NORMAL), message.get("reason") or "")


async def _no_receive() -> Message:
    raise RuntimeError(
        "This WebSocket belongs to a consumer, which receives its frames. Read them in receive(), receive_json() or an "
        "action; headers, cookies, the query and the state can be read here."
    )


def raw_headers(headers: Any) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them, of a mapping or of pairs, as text or bytes; ``None`` for none."""
    if not headers:
        return []
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(_bytes(name), _bytes(value)) for name, value in pairs]


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")
