"""Who is in a group: :class:`Presence`, the class attribute, and the stores that keep it."""

from .base import Change, Entry, Outcome, Presence, PresenceStore, Present, Roster
from .memory import MemoryPresenceStore
from .redis import RedisPresenceStore

__all__ = [
    "Change",
    "Entry",
    "MemoryPresenceStore",
    "Outcome",
    "Presence",
    "PresenceStore",
    "Present",
    "RedisPresenceStore",
    "Roster",
]
