"""What keeps the newest events of each group, so that a client can read them, or have what it missed."""

from .base import Appended, History, HistoryStore, Slice, Stored
from .memory import MemoryHistoryStore
from .redis import RedisHistoryStore
from .urls import store_of

__all__ = [
    "Appended",
    "History",
    "HistoryStore",
    "MemoryHistoryStore",
    "RedisHistoryStore",
    "Slice",
    "Stored",
    "store_of",
]
