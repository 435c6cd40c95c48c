"""Bytes between processes."""

from .base import Deliver, OnGap, OnLost, Transport
from .memory import MemoryTransport
from .redis import RedisTransport

__all__ = ["Deliver", "MemoryTransport", "OnGap", "OnLost", "RedisTransport", "Transport"]
