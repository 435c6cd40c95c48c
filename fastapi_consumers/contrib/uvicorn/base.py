"""What the protocol is built on, which is not there in every version of uvicorn."""

from types import FunctionType

try:
    import uvicorn
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    from websockets.protocol import State
except ImportError as error:
    raise ImportError(
        "fastapi_consumers.contrib.uvicorn needs uvicorn 0.53 or newer and websockets: pip install "
        f"'fastapi-consumers[server]' ({error})"
    ) from error

__all__ = ["State", "WebSocketsSansIOProtocol", "check_base"]

#: What is used of uvicorn's class, beside what :class:`asyncio.Protocol` promises.
_METHODS = (
    *("handle_cont", "handle_ping", "keepalive_timeout", "receive", "send", "send_keepalive_ping"),
    "send_receive_event_to_app",
)
_ATTRIBUTES = (
    *("config", "conn", "disconnected", "frames", "handshake_complete", "handshake_initiated", "logger", "loop"),
    *("pong_timer", "queue", "read_paused", "transport", "writable"),
)


def check_base(base: type, version: str) -> None:
    """Raise ``ImportError`` unless uvicorn's class is one that :class:`WebSocketProtocol` can be built on."""
    release = tuple(int(part) if part.isdecimal() else 0 for part in version.split(".")[:2])
    constructor = vars(base).get("__init__")
    names = constructor.__code__.co_names if isinstance(constructor, FunctionType) else ()
    missing = [name for name in _METHODS if not callable(getattr(base, name, None))]
    missing += [name for name in _ATTRIBUTES if name not in names]
    if release < (0, 53) or missing:
        what = f"whose {base.__name__} has no {', '.join(missing)}" if missing else "which is older"
        raise ImportError(
            "fastapi_consumers.contrib.uvicorn is built on the WebSocketsSansIOProtocol of uvicorn 0.53 and newer; "
            f"this is uvicorn {version}, {what}. Leave out --ws, and uvicorn uses a class of its own."
        )


check_base(WebSocketsSansIOProtocol, uvicorn.__version__)
