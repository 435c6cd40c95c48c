"""Test tools: a websocket client for any ASGI app, the app's lifespan around it; faults, and time, on command."""

from .clock import Clock
from .communicator import WebsocketCommunicator
from .errors import CallError, Denial, HandshakeRefused, LifespanFailed, SocketClosed
from .faults import FaultyTransport
from .lifespans import lifespan

__all__ = [
    "CallError",
    "Clock",
    "Denial",
    "FaultyTransport",
    "HandshakeRefused",
    "LifespanFailed",
    "SocketClosed",
    "WebsocketCommunicator",
    "lifespan",
]
