"""The socket as dependencies and actions see it: to read from the handshake, to send to, not to take frames from."""

from starlette.websockets import WebSocket

from .types import Message


class SocketView(WebSocket):
    """A Starlette ``WebSocket`` whose frames go to the consumer."""


async def no_receive() -> Message:
    raise RuntimeError(
        "This WebSocket belongs to a consumer, which receives its frames. Read them in receive(), receive_json() or an "
        "action; headers, cookies, the query and the state can be read here."
    )
