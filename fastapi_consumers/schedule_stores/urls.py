"""Which store of schedules a URL means, and which one goes with a store of history."""

from importlib.util import find_spec
from urllib.parse import urlsplit

from ..exceptions import ImproperlyConfigured, Problem
from ..history import HistoryStore, MemoryHistoryStore, RedisHistoryStore
from ..redis_client import SCHEMES, RedisClient, safe_url
from .base import ScheduleStore
from .memory import MemoryScheduleStore
from .redis import RedisScheduleStore

_EXPECTED = "memory://, redis://host:6379/0 (or another URL of Redis), sqlite:///chat.db, or postgresql://host/database"
_SQL = ("sqlite", "postgresql", "postgres")


def schedule_store_of(url: str | RedisClient, *, timeout: float = 1.0) -> ScheduleStore:
    """The store for a URL, or the one that shares this client.

    Args:
        timeout: seconds that each call may take at a Redis server of its own.

    Raises ``ImproperlyConfigured`` if there is none for it, or a package is missing.
    """
    try:
        scheme = urlsplit(url).scheme if isinstance(url, str) else ""
    except ValueError:  # Its text may quote the password.
        scheme = ""
    if scheme == "memory":
        return MemoryScheduleStore()
    if isinstance(url, RedisClient) or scheme in SCHEMES:
        return RedisScheduleStore(url, timeout=timeout)
    if scheme.partition("+")[0] not in _SQL:
        problem = Problem("bad-schedules-url", "schedules_url", repr(safe_url(url)), _EXPECTED, "write one of these")
        raise ImproperlyConfigured("The schedules", [problem])
    for package, extra in (("sqlalchemy", "sql"), ("greenlet", "sql"), *_drivers(scheme)):
        if find_spec(package) is None:
            fix = f"pip install 'fastapi-consumers[{extra}]'"
            found = f"{package} is not installed"
            problem = Problem("missing-extra", safe_url(url), found, f"the extra {extra}", fix)
            raise ImproperlyConfigured("The schedules", [problem])
    from .sql import SQLScheduleStore

    return SQLScheduleStore(url)


def _drivers(scheme: str) -> tuple[tuple[str, str], ...]:
    return (("aiosqlite", "sql"),) if scheme.startswith("sqlite") else (("asyncpg", "postgres"),)


def schedule_store_beside(history: HistoryStore) -> ScheduleStore | None:
    """The store that keeps schedules where this one keeps histories; ``None`` for one that nobody here knows."""
    if isinstance(history, RedisHistoryStore):
        return RedisScheduleStore(history.client)
    if isinstance(history, MemoryHistoryStore):
        return MemoryScheduleStore()
    try:
        from ..history.sql import SQLHistoryStore
        from .sql import SQLScheduleStore
    except ModuleNotFoundError:  # Then it is none of these.
        return None
    if not isinstance(history, SQLHistoryStore):
        return None
    url, prefix = history.place
    return SQLScheduleStore(url, table_prefix=prefix)
