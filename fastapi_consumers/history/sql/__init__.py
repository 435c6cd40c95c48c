"""History in SQLite or PostgreSQL, through SQLAlchemy. Needs the extra ``sql``."""

from .schema import Tables
from .store import SQLHistoryStore

__all__ = ["SQLHistoryStore", "Tables"]
