"""What keeps schedules, so that each run is one process's, and pauses outlive a restart."""

from .base import (
    ATTEMPTS,
    Answer,
    Claim,
    Definition,
    Held,
    Kept,
    Outcome,
    Result,
    Running,
    ScheduleStore,
    encode_timing,
)
from .memory import MemoryScheduleStore
from .redis import RedisScheduleStore
from .urls import schedule_store_beside, schedule_store_of

__all__ = [
    "ATTEMPTS",
    "Answer",
    "Claim",
    "Definition",
    "Held",
    "Kept",
    "MemoryScheduleStore",
    "Outcome",
    "RedisScheduleStore",
    "Result",
    "Running",
    "ScheduleStore",
    "encode_timing",
    "schedule_store_beside",
    "schedule_store_of",
]
