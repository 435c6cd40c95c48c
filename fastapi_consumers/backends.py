"""Which stores and limiters go with which transport. Asked by whoever sets up an application or a publisher."""

from typing import NamedTuple, cast
from urllib.parse import urlsplit

from .exceptions import ImproperlyConfigured, Problem
from .history import HistoryStore, MemoryHistoryStore, store_of
from .presence import MemoryPresenceStore, PresenceStore, RedisPresenceStore
from .redis_client import SCHEMES, RedisClient, safe_url
from .schedule_stores import (
    MemoryScheduleStore,
    RedisScheduleStore,
    ScheduleStore,
    schedule_store_beside,
    schedule_store_of,
)
from .throttling import Buckets, FailureMode, RedisBuckets, TokenBuckets
from .transports import RedisTransport, Transport


class HistoryBackend(NamedTuple):
    """Where histories are kept; ``None`` if there is no place that all processes share.

    ``publishes``: appending to it publishes over the transport's server, in one step.
    """

    store: HistoryStore | None
    publishes: bool = False


def history_backend(
    transport: Transport, history_url: str | HistoryStore | None, *, timeout: float | None = None
) -> HistoryBackend:
    """The store that ``history_url`` names or is; by default the transport's own server, where that can keep it.

    Args:
        timeout: seconds that each call of a store of its own may take; by default what is usual for its kind.

    Raises ``ImproperlyConfigured`` for a URL that cannot be meant, and for a store of one process beside a transport of
    many: each of them would count for itself.
    """
    client = transport.client if isinstance(transport, RedisTransport) else None
    if isinstance(history_url, HistoryStore):
        store = history_url
    elif history_url is None:
        if client is not None:
            store = store_of(client)
        elif not transport.is_distributed:
            store = MemoryHistoryStore()
        else:
            return HistoryBackend(None)
    else:
        store = store_of(history_url, timeout=timeout)
    if transport.is_distributed and not store.is_distributed:
        where = safe_url(history_url) if isinstance(history_url, str) else repr(store)
        problem = Problem(
            "history-not-shared",
            f"history_url={where!r}",
            "a store of one process, beside a transport that many share",
            "a store that all processes share",
            'write history_url="redis://…", "sqlite+aiosqlite:///chat.db" or "postgresql://…"',
        )
        raise ImproperlyConfigured("The history", [problem])
    shares = client is not None and getattr(store, "client", None) is client
    return HistoryBackend(store, shares and store.publishes)


def presence_store(
    transport: Transport, presence_url: str | PresenceStore | None, *, timeout: float = 1.0
) -> PresenceStore | None:
    """The store that ``presence_url`` names or is; by default the transport's own server, where that can keep it.

    ``None`` if nothing is named and there is no place that all processes share. A store of one process beside a
    transport of many is allowed, since it has to be asked for: each process knows its own connections then.

    Args:
        timeout: seconds that a server of its own may take to answer.

    Raises ``ImproperlyConfigured`` for a URL that cannot be meant.
    """
    if isinstance(presence_url, PresenceStore):
        return presence_url
    if presence_url is None:
        if isinstance(transport, RedisTransport):
            return RedisPresenceStore(transport.client)
        return None if transport.is_distributed else MemoryPresenceStore()
    try:
        scheme = urlsplit(presence_url).scheme if isinstance(cast(object, presence_url), str) else ""
    except ValueError:  # Its text may quote the password.
        scheme = ""
    if scheme == "memory":
        return MemoryPresenceStore()
    if scheme in SCHEMES:
        return RedisPresenceStore(RedisClient(presence_url, timeout=timeout))
    found, expected = f"presence_url={safe_url(presence_url)!r}", "redis://, rediss://, unix:// or memory://"
    problem = Problem("bad-presence-url", "presence_url", found, expected, "write one of these, or leave it out")
    raise ImproperlyConfigured("The presence", [problem])


class ScheduleBackend(NamedTuple):
    """Where schedules are kept; ``None`` if there is no place that all processes share.

    ``is_asked_for``: somebody said where, so that a process takes part also if its own code has no schedules.
    """

    store: ScheduleStore | None
    is_asked_for: bool = False


def schedule_backend(
    transport: Transport,
    schedules_url: str | ScheduleStore | None,
    history: HistoryStore | None = None,
    *,
    timeout: float = 1.0,
) -> ScheduleBackend:
    """The store that ``schedules_url`` names or is; by default where history is kept, or the transport's own server.

    A store of one process beside a transport of many is allowed, since it has to be asked for: each process then runs
    everything by itself.

    Raises ``ImproperlyConfigured`` for a URL that cannot be meant.
    """
    if isinstance(schedules_url, ScheduleStore):
        return ScheduleBackend(schedules_url, True)
    if schedules_url is not None:
        return ScheduleBackend(schedule_store_of(schedules_url, timeout=timeout), True)
    beside = schedule_store_beside(history) if history is not None else None
    if beside is not None and (beside.is_distributed or not transport.is_distributed):
        return ScheduleBackend(beside)
    if isinstance(transport, RedisTransport):
        return ScheduleBackend(RedisScheduleStore(transport.client))
    return ScheduleBackend(None if transport.is_distributed else MemoryScheduleStore())


def rate_buckets(
    transport: Transport, limiter_url: str | Buckets | None, *, failure: FailureMode = "memory", timeout: float = 1.0
) -> Buckets:
    """Where throttles count: what ``limiter_url`` names or is; by default the transport's own server, if that is Redis.

    Otherwise each process counts by itself.

    Args:
        failure: what happens while the server is away, see :data:`~.throttling.FailureMode`.
        timeout: seconds that a server of its own may take to answer, if that is less than throttles wait.

    Raises ``ImproperlyConfigured`` for a URL that cannot be meant.
    """
    if limiter_url is None:
        if isinstance(transport, RedisTransport):
            return RedisBuckets(transport.client, failure=failure)
        return TokenBuckets()
    expected, fix = "redis://, rediss://, unix:// or memory://", "write one of these, or leave it out"
    if not isinstance(limiter_url, str):
        missing = [name for name in ("hit", "hit_each", "peek") if not callable(getattr(limiter_url, name, None))]
        if not missing:
            return limiter_url
        expected += ", or an object with the methods hit, hit_each and peek"
        if len(missing) < 3:
            fix = f"give it {' and '.join(missing)} too"
        scheme = ""
    else:
        try:
            scheme = urlsplit(limiter_url).scheme
        except ValueError:  # Its text may quote the password.
            scheme = ""
    if scheme == "memory":
        return TokenBuckets()
    if scheme in SCHEMES:
        return RedisBuckets(RedisClient(str(limiter_url), timeout=timeout), failure=failure)
    found = f"limiter_url={safe_url(limiter_url)!r}"
    problem = Problem("bad-limiter-url", "limiter_url", found, expected, fix)
    raise ImproperlyConfigured("The rate limits", [problem])
