"""Which stores go with which transport. Asked by whoever sets up an application or a publisher."""

from typing import NamedTuple

from .exceptions import ImproperlyConfigured, Problem
from .history import HistoryStore, MemoryHistoryStore, store_of
from .redis_client import safe_url
from .transports import RedisTransport, Transport


class HistoryBackend(NamedTuple):
    """Where histories are kept; ``None`` if there is no place that all processes share.

    ``publishes``: appending to it publishes over the transport's server, in one step.
    """

    store: HistoryStore | None
    publishes: bool = False


def history_backend(transport: Transport, history_url: str | HistoryStore | None) -> HistoryBackend:
    """The store that ``history_url`` names or is; by default the transport's own server, where that can keep it.

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
        store = store_of(history_url)
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
