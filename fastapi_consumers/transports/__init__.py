"""Bytes between processes."""

from .base import Deliver, Transport
from .memory import MemoryTransport
from .redis import RedisTransport

__all__ = ["Deliver", "MemoryTransport", "RedisTransport", "Transport"]
