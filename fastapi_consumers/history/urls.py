"""Which store a URL means."""

from typing import Any
from urllib.parse import urlsplit

from ..exceptions import ImproperlyConfigured, Problem
from ..redis_client import SCHEMES, RedisClient, safe_url
from .base import HistoryStore
from .memory import MemoryHistoryStore
from .redis import RedisHistoryStore

_EXPECTED = "memory://, redis://host:6379/0 (or another URL of Redis), sqlite:///chat.db, or postgresql://host/database"
_SQL = ("sqlite", "postgresql", "postgres")
#: Packages without which there is no history in a database, and the extras that bring them.
_EXTRAS = {"sqlalchemy": "sql", "greenlet": "sql", "aiosqlite": "sql", "asyncpg": "postgres"}


def store_of(url: str | RedisClient, *, timeout: float | None = None) -> HistoryStore:
    """The store for ``memory://``, for the URLs of :mod:`fastapi_consumers.redis_client`, or for those of
    :class:`~fastapi_consumers.history.sql.SQLHistoryStore`; or the one that shares this client.

    Args:
        timeout: seconds that each call may take; by default the store's own.

    Raises:
        ImproperlyConfigured: there is no store for it, or a package is missing.
    """
    options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
    scheme = _scheme_of(url)
    if scheme == "memory":
        return MemoryHistoryStore()
    if isinstance(url, RedisClient) or scheme in SCHEMES:
        return RedisHistoryStore(url, **options)
    if scheme.partition("+")[0] not in _SQL:
        fix = "mend the scheme, or make a HistoryStore yourself"
        problem = Problem("bad-url", safe_url(url), "a URL of another kind", _EXPECTED, fix)
        raise ImproperlyConfigured("The history", [problem])
    try:
        from .sql import SQLHistoryStore

        return SQLHistoryStore(url, **options)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        fix = f"pip install 'fastapi-consumers[{extra}]'"
        problem = Problem("missing-extra", safe_url(url), f"{error.name} is not installed", f"the extra {extra}", fix)
        raise ImproperlyConfigured("The history", [problem]) from error


def _scheme_of(url: object) -> str:
    try:
        return urlsplit(url).scheme if isinstance(url, str) else ""
    except ValueError:
        return ""
