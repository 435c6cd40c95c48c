"""One set of stores for all tests of histories, and a clock that the tests turn."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from fastapi_consumers.history import HistoryStore, MemoryHistoryStore, RedisHistoryStore
from fastapi_consumers.history.sql import SQLHistoryStore
from tests.transports.conftest import Broker, Cluster, broker, cluster, make_broker, own_broker

__all__ = ["broker", "cluster", "make_broker", "own_broker"]

ALL = ("memory", "redis", "cluster", "sqlite", "postgres")
#: Those that several store objects, and processes, can share.
SHARED = ("redis", "cluster", "sqlite", "postgres")


class Clock:
    """Turned by the tests."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Backend:
    """Where the stores of one test keep their streams."""

    def __init__(self, kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        self.kind = kind
        self.name = f"t{secrets.token_hex(6)}"
        self.clock = Clock()
        self.nodes: list[Broker] = []
        if kind == "redis":
            self.broker: Broker = request.getfixturevalue("broker")
            self.nodes = [self.broker]
            self.url = f"{self.broker.url}?prefix={self.name}:"
        elif kind == "cluster":
            nodes: Cluster = request.getfixturevalue("cluster")
            self.nodes = nodes.nodes
            self.url = f"{nodes.url}?prefix={self.name}:"
        elif kind == "sqlite":
            self.url = f"sqlite:///{tmp_path / 'history.db'}"
        elif kind == "postgres":
            self.url = request.getfixturevalue("postgres_url")

    def store(self, **options: Any) -> HistoryStore:
        """A new store object over the same streams; in memory, each has its own."""
        if self.kind == "memory":
            return MemoryHistoryStore(time=self.clock, **options)
        if self.nodes:
            return RedisHistoryStore(self.url, **{"timeout": 60.0, **options})
        options = {"table_prefix": f"{self.name}_", "time": self.clock, "timeout": 60.0, **options}
        return SQLHistoryStore(self.url, **options)

    def pass_time(self, seconds: float) -> None:
        """Make everything that is kept so much older."""
        if not self.nodes:
            self.clock.now += seconds
        # A server's clock cannot be turned, so what it wrote down is.
        for node in self.nodes:
            with Redis(port=node.port) as redis:
                for key in list(redis.scan_iter(f"{self.name}:*")):
                    self._make_older(redis, key, int(seconds * 1_000_000))

    @staticmethod
    def _make_older(redis: Redis, key: bytes, past: int) -> None:
        kind = key.rpartition(b":")[2]
        if kind == b"meta":
            redis.hincrby(key, "at", -past)
        elif kind == b"events":
            entries = redis.xrange(key)
            redis.delete(key)
            for entry_id, fields in entries:
                redis.xadd(key, fields, id=_shifted(entry_id, past))
        elif kind == b"keys":
            for field, value in redis.hgetall(key).items():
                redis.hset(key, field, _shifted(value, past))
        elif kind == b"times":
            for member in redis.zrange(key, 0, -1):
                redis.zincrby(key, -past, member)


def _shifted(entry_id: bytes, past: int) -> str:
    offset, _, at = entry_id.partition(b"-")
    return f"{offset.decode()}-{int(at) - past}"


@pytest.fixture(params=ALL)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return Backend(request.param, tmp_path, request)


@pytest.fixture
async def open_store(backend: Backend) -> AsyncIterator[Callable[..., Awaitable[HistoryStore]]]:
    """Opens a new store object over the test's streams."""
    async with AsyncExitStack() as stack:

        async def opened(**options: Any) -> HistoryStore:
            store = backend.store(**options)
            stack.push_async_callback(store.close)
            await store.open()
            return store

        yield opened


@pytest.fixture
async def store(open_store: Callable[..., Awaitable[HistoryStore]]) -> HistoryStore:
    return await open_store()


def only(*kinds: str) -> pytest.MarkDecorator:
    """Run the test on these alone."""
    return pytest.mark.parametrize("backend", kinds, indirect=True)


shared = only(*SHARED)
