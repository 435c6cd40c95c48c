"""The short way to a socket: ready frames written to the server's transport. The only module that knows a server.

An ASGI ``send`` makes a frame anew for every recipient, in a coroutine of its own. Where the server is uvicorn, and the
connection is not compressed, the same bytes are written to its transport instead, once they are framed. Everything
else stays the server's: handshake, pings, the close, and waiting for a socket that takes no more.

What is relied upon are attributes of uvicorn's protocol classes, checked one by one: where one is missing, or is not
what it was, frames go through ``send`` as on any other server.
"""

import asyncio
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, NamedTuple, Protocol

from .types import Send

try:
    from starlette._exception_handler import wrap_app_handling_exceptions
except ImportError:  # It is not Starlette's word to keep; without it there are no lanes, and frames go through send.
    wrap_app_handling_exceptions = None  # type: ignore[assignment]  # of a function, which is only looked at


def _inner(code: CodeType | None, *names: str) -> CodeType | None:
    """The code of a function that is written within another; ``None`` if there is none of that name."""
    for name in names:
        if code is None:
            return None
        code = next((each for each in code.co_consts if isinstance(each, CodeType) and each.co_name == name), None)
    return code


#: Where our own class for uvicorn is. It puts an object before the transport, of which there is no need here.
_OURS = "fastapi_consumers.contrib.uvicorn.protocol"
#: The ``send`` of uvicorn's classes, and of ours: module and name. By name, since importing them would load what the
#: server may not even use. A subclass that overrides ``send`` is another matter.
_KNOWN = frozenset(
    {
        ("uvicorn.protocols.websockets.websockets_sansio_impl", "WebSocketsSansIOProtocol.send"),
        ("uvicorn.protocols.websockets.wsproto_impl", "WSProtocol.send"),
        (_OURS, "WebSocketProtocol.send"),
    }
)
#: The function in which Starlette wraps ``send`` for each of its layers that handles exceptions. It changes nothing.
_WRAPPER = _inner(getattr(wrap_app_handling_exceptions, "__code__", None), "wrapped_app", "sender")
#: Where it has what it wraps.
_CELL = _WRAPPER.co_freevars.index("send") if _WRAPPER is not None and "send" in _WRAPPER.co_freevars else None
#: What a protocol has that does not look whether its transport's buffer is full.
_UNHEARD = asyncio.BaseProtocol.pause_writing
#: Seconds that a client which is cut off has to see why.
PARTING = 1.0
#: How many of them may lie over each other: one for each mounted application, and a few.
_MAX_WRAPPERS = 16


class Transport(Protocol):
    """What asyncio's transports have, as far as it is used."""

    def is_closing(self) -> bool: ...

    def write(self, data: bytes, /) -> object: ...


class Writable(Protocol):
    """An ``asyncio.Event``, as far as it is used."""

    def is_set(self) -> bool: ...


class _Never:
    @staticmethod
    def is_set() -> bool:
        return False


NEVER: Writable = _Never()


class Lane(NamedTuple):
    """Bytes may be written to ``transport`` while ``writable`` is set and it is not closing.

    Two objects that are there anyway, and not their methods: those would be objects of their own for each connection.
    """

    writable: Writable
    transport: Transport
    #: ``Gathering.takes`` of a server that knows better when its turn ends.
    gathers: Callable[[Any, bool], bool] | None = None


def find_lane(send: Send) -> tuple[Lane | None, str]:
    """The lane behind an unwrapped ``send``, and what it is called; or ``None`` and the reason why there is none.

    Asked once the handshake is done, since it has decided on compression.
    """
    protocol = getattr(send, "__self__", None)
    function = getattr(send, "__func__", None)
    if not isinstance(function, FunctionType) or _origin(function) not in _KNOWN:
        return None, "the server is none that is known, or a middleware stands before its send"
    if _compresses(protocol):
        return None, "the connection is compressed"
    transport: Any = getattr(protocol, "transport", None)
    writable = getattr(protocol, "writable", None)
    gathers = None
    if _origin(function)[0] == _OURS and hasattr(transport, "through"):
        transport, gathers = transport.through()
    write, is_closing = getattr(transport, "write", None), getattr(transport, "is_closing", None)
    if getattr(type(protocol), "pause_writing", _UNHEARD) is _UNHEARD:
        # As before uvicorn 0.52.4: nothing would ever clear `writable`.
        return None, f"{type(protocol).__name__} does not hear when its socket takes no more"
    if not isinstance(writable, asyncio.Event) or not callable(write) or not callable(is_closing):
        return None, f"{type(protocol).__name__} is not as it was in the versions that are known"
    return Lane(writable, transport, gathers), f"the transport of {type(protocol).__name__}"


def stop_reading(send: Send) -> None:
    """Read nothing more from the socket of this unwrapped ``send``, which was sent a close frame, and drop it soon.

    Uvicorn goes on reading until the peer has closed, for up to ten seconds, and one that floods does not. Nothing
    happens on other servers.
    """
    function = getattr(send, "__func__", None)
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if not isinstance(function, FunctionType) or _origin(function) not in _KNOWN:
        return
    is_closing, pause_reading = getattr(transport, "is_closing", None), getattr(transport, "pause_reading", None)
    abort = getattr(transport, "abort", None)
    if callable(is_closing) and callable(pause_reading) and callable(abort) and not is_closing():
        pause_reading()
        asyncio.get_running_loop().call_later(PARTING, abort)


def unwrapped(send: Any) -> Any:
    """The ``send`` below Starlette's wrappers, which do nothing for a WebSocket, and cost a coroutine for each message.

    Any other wrapper may mean something, and stays.
    """
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(send, FunctionType) or send.__code__ is not _WRAPPER:
            break
        if send.__closure__ is None or _CELL is None:
            break
        send = send.__closure__[_CELL].cell_contents
    return send


def _origin(function: FunctionType) -> tuple[Any, str]:
    """The module and the name under which the function was written.

    Not what ``__module__`` and ``__qualname__`` say: ``functools.wraps`` gives a wrapper those of what it wraps.
    """
    return function.__globals__.get("__name__"), function.__code__.co_qualname


def _compresses(protocol: Any) -> bool:
    """Whether frames may have to be compressed; ``True`` where that cannot be known."""
    extensions = getattr(getattr(protocol, "conn", None), "extensions", None)
    if isinstance(extensions, list):
        return bool(extensions)
    return getattr(getattr(protocol, "config", None), "ws_per_message_deflate", True) is not False
