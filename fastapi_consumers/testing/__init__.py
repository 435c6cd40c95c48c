"""Test tools: an in-process websocket client for any ASGI app, and the app's lifespan around it."""

from .communicator import WebsocketCommunicator
from .errors import CallError, Denial, HandshakeRefused, LifespanFailed, SocketClosed
from .lifespans import lifespan

__all__ = [
    "CallError",
    "Denial",
    "HandshakeRefused",
    "LifespanFailed",
    "SocketClosed",
    "WebsocketCommunicator",
    "lifespan",
]
