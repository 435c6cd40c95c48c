"""What keeps the newest events of each group, so that a client can read them, or have what it missed."""

from .base import Appended, Bounds, History, HistoryStore, Slice, Stored
from .memory import MemoryHistoryStore
from .redis import RedisHistoryStore
from .urls import store_of
from .view import GroupHistory, HistoryEvent, HistorySlice

__all__ = [
    "Appended",
    "Bounds",
    "GroupHistory",
    "History",
    "HistoryEvent",
    "HistorySlice",
    "HistoryStore",
    "MemoryHistoryStore",
    "RedisHistoryStore",
    "Slice",
    "Stored",
    "store_of",
]
