"""Bytes between processes."""

from .base import Deliver, Transport
from .memory import MemoryTransport

__all__ = ["Deliver", "MemoryTransport", "Transport"]
