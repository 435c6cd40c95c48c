"""Frames to messages and back."""

from .base import Framer, Reader
from .native import (
    JSON_FRAMER,
    JSON_SUBPROTOCOL,
    MSGPACK_FRAMER,
    MSGPACK_SUBPROTOCOL,
    ContentFramer,
    NativeReader,
)

__all__ = [
    "JSON_FRAMER",
    "JSON_SUBPROTOCOL",
    "MSGPACK_FRAMER",
    "MSGPACK_SUBPROTOCOL",
    "ContentFramer",
    "Framer",
    "NativeReader",
    "Reader",
]
