"""What only the store in a database does: batches, sweeps, several processes, a database that is away."""

import asyncio
import inspect
import re
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import event

from fastapi_consumers.exceptions import BrokerUnavailable, HistoryUnavailable, ImproperlyConfigured
from fastapi_consumers.history import Bounds, History
from fastapi_consumers.history.sql import SQLHistoryStore, Tables
from fastapi_consumers.history.sql.store import BATCH
from fastapi_consumers.history.sql.writing import SLACK, UNUSED
from tests.conftest import Postgres
from tests.history.conftest import Clock, only
from tests.transports.tools import hurried

HISTORY = History(size=10)
DAY = 86400.0

sql = only("sqlite", "postgres")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "chat.db"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def sqlite(file, clock):
    store = SQLHistoryStore(f"sqlite:///{file}", timeout=30, time=clock)
    await store.open()
    yield store
    await store.close()


def rows(file, query):
    with sqlite3.connect(file) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def counted(store):
    """Counts the transactions of a store that is open."""
    times = []
    event.listen(store._database._engine.sync_engine, "commit", times.append)
    return times


def calls(store):
    yield store.append("chat", b"x", HISTORY)
    yield store.position("new", HISTORY)
    yield store.positions(["chat"])
    yield store.read("chat", limit=1)
    yield store.remove("chat")
    yield store.save_templates({"chat": HISTORY})
    yield store.load_templates()
    yield store.sweep()


@sql
async def test_appends_that_wait_are_committed_together(store):
    commits = counted(store)
    await asyncio.gather(*[store.append(f"chat.{number % 7}", b"x", HISTORY) for number in range(BATCH)])
    assert len(commits) <= 2
    await store.append("chat.0", b"x", HISTORY)
    assert len(commits) <= 3


@sql
async def test_a_batch_is_carried_out_in_the_order_of_its_appends(store):
    history = History(size=1000)
    results = await asyncio.gather(*[store.append("chat", b"%d" % number, history) for number in range(1000)])
    assert [result.position.offset for result in results] == list(range(1, 1001))
    found = await store.read("chat", limit=1000)
    assert [entry.packet for entry in found.entries] == [b"%d" % number for number in range(1000)]


@sql
async def test_a_batch_that_fails_fails_as_a_whole(store):
    await store.append("chat", b"x", HISTORY)
    appends = [store.append("chat", packet, HISTORY) for packet in (b"1", b"2", object(), b"3")]
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert [type(result) for result in results] == [HistoryUnavailable] * 4
    assert all(result.__cause__ is not None for result in results)
    assert (await store.append("chat", b"y", HISTORY)).position.offset == 2
    assert [entry.packet for entry in (await store.read("chat", limit=9)).entries] == [b"x", b"y"]


async def test_who_does_not_wait_any_more_appends_nothing(sqlite, file):
    blocker = sqlite3.connect(file, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    first = asyncio.create_task(sqlite.append("chat", b"1", HISTORY))
    await asyncio.sleep(0.02)  # It is on its way to the database.
    second = asyncio.create_task(sqlite.append("chat", b"2", HISTORY))
    third = asyncio.create_task(sqlite.append("chat", b"3", HISTORY))
    await asyncio.sleep(0)
    second.cancel()
    blocker.execute("ROLLBACK")
    blocker.close()
    await asyncio.wait([first, second, third])
    assert second.cancelled()
    assert (await first).position.offset == 1
    assert (await third).position.offset == 2
    assert [entry.packet for entry in (await sqlite.read("chat", limit=9)).entries] == [b"1", b"3"]


async def test_closing_waits_for_what_is_being_appended(sqlite):
    appends = [asyncio.create_task(sqlite.append("chat", b"x", HISTORY)) for _ in range(5)]
    await asyncio.sleep(0)
    await sqlite.close()
    assert [(await task).position.offset for task in appends] == [1, 2, 3, 4, 5]
    await sqlite.open()
    assert (await sqlite.position("chat", HISTORY)).offset == 5


async def test_closing_waits_for_what_is_being_written(sqlite):
    begun = asyncio.Event()
    event.listen(sqlite._database._engine.sync_engine, "begin", lambda connection: begun.set())
    first = asyncio.create_task(sqlite.append("chat", b"x", HISTORY))
    await begun.wait()
    assert not sqlite._waiting
    await sqlite.close()
    assert (await first).position.offset == 1


def test_an_event_loop_that_ended_without_closing_is_forgotten(file):
    store = SQLHistoryStore(f"sqlite:///{file}")

    async def use(close):
        await store.open()
        offset = (await store.append("chat", b"x", HISTORY)).position.offset
        if close:
            await store.close()
        else:  # As if the loop had just gone; its connections' threads have to end all the same.
            await store._database._engine.dispose()
        return offset

    assert asyncio.run(use(close=False)) == 1
    assert asyncio.run(use(close=True)) == 2


@pytest.mark.parametrize("size", [1, 10, 1000])
async def test_rows_are_deleted_in_numbers(sqlite, file, size):
    history = History(size=size)
    for _ in range(3 * size // BATCH + 2):
        await asyncio.gather(*[sqlite.append("chat", b"x", history) for _ in range(BATCH)])
    assert size <= rows(file, "SELECT count(*) FROM fc_events")[0][0] <= size + max(size // 4, SLACK) + BATCH
    assert len((await sqlite.read("chat", limit=10_000)).entries) == size


@sql
async def test_a_sweep_deletes_what_is_too_old_and_nothing_else(store, backend):
    short, long = History(1000, ttl=60), History(1000, ttl=600)
    for _ in range(3):
        await store.append("short", b"x", short)
        await store.append("long", b"x", long, idempotency_key=str(backend.clock.now))
        await store.append("unlimited", b"x", History(1000))
        backend.clock.now += 40
    await store.sweep()
    # The clock is turned back to see what is stored, and not just what is kept.
    backend.clock.now -= 120
    assert [e.offset for e in (await store.read("short", limit=9)).entries] == [3]
    assert [e.offset for e in (await store.read("long", limit=9)).entries] == [1, 2, 3]
    backend.clock.now += 1000
    await store.sweep()
    backend.clock.now -= 1000
    assert (await store.read("short", limit=9)).entries == (await store.read("long", limit=9)).entries == []
    assert [e.offset for e in (await store.read("unlimited", limit=9)).entries] == [1, 2, 3]
    # The streams go on.
    assert (await store.append("short", b"x", short)).position.offset == 4
    assert [e.offset for e in (await store.read("short", limit=9)).entries] == [4]


async def test_a_sweep_deletes_idempotency_keys(sqlite, file, clock):
    await sqlite.append("chat", b"x", HISTORY, idempotency_key="a")
    clock.now += 301
    await sqlite.append("chat", b"x", HISTORY, idempotency_key="b")
    await sqlite.sweep()
    assert rows(file, "SELECT key FROM fc_keys") == [("b",)]


@sql
async def test_streams_that_nobody_uses_are_forgotten_if_their_events_have_a_ttl(store, backend):
    short = History(ttl=60)
    await store.append("used", b"x", short)
    await store.append("watched", b"x", short)
    await store.append("unused", b"x", short, idempotency_key="a")
    await store.append("unlimited", b"x", HISTORY)
    everything = ("used", "watched", "unused", "unlimited")
    before = await store.positions(everything)
    for _ in range(2):
        backend.clock.now += UNUSED * 0.6
        await store.position("used", short)
        await store.positions(["watched", "never"])
        await store.sweep()
    assert await store.positions(everything) == {name: before[name] for name in everything if name != "unused"}
    after = await store.append("unused", b"x", short, idempotency_key="a")
    assert (after.position.offset, after.is_new) == (1, True)


async def test_a_position_that_is_asked_for_again_writes_nothing(sqlite, clock):
    await sqlite.position("chat", HISTORY)
    commits = counted(sqlite)
    await sqlite.position("chat", HISTORY)
    await sqlite.positions(["chat"])
    await sqlite.read("chat", limit=1)
    assert commits == []
    clock.now += DAY + 1
    await sqlite.position("chat", HISTORY)
    assert len(commits) == 1
    clock.now += DAY + 1
    await sqlite.positions(["chat"])
    assert len(commits) == 2


PROCESS = """
import asyncio, sys
from fastapi_consumers.history import History
from fastapi_consumers.history.sql import SQLHistoryStore

async def main(url, prefix, name):
    store = SQLHistoryStore(url, table_prefix=prefix, timeout=30)
    await store.open()

    async def appender(number):
        for turn in range(10):
            packet = f"{name}.{number}.{turn}".encode()
            appended = await store.append("chat", packet, History(size=10_000))
            print(appended.position.epoch, appended.position.offset, packet.decode())

    await asyncio.gather(*map(appender, range(30)))
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


@sql
async def test_several_processes_share_one_database(backend):
    command = [sys.executable, "-W", "error", "-c", inspect.cleandoc(PROCESS), backend.url, f"{backend.name}_"]

    def run(name):
        return subprocess.run([*command, name], stdout=subprocess.PIPE, text=True, timeout=250, check=True).stdout

    outputs = await asyncio.gather(asyncio.to_thread(run, "one"), asyncio.to_thread(run, "two"))
    told = {}
    for line in "".join(outputs).splitlines():
        epoch, offset, packet = line.split()
        assert (epoch, int(offset)) not in told
        told[epoch, int(offset)] = packet.encode()
    assert len(told) == 600
    store = backend.store()
    await store.open()
    found = await store.read("chat", limit=10_000)
    await store.close()
    assert {(found.epoch, entry.offset): entry.packet for entry in found.entries} == told
    assert {offset for _, offset in told} == set(range(1, 601))


async def test_a_locked_file_is_an_error_within_the_timeout_and_costs_nothing_later(sqlite, file):
    await sqlite.append("chat", b"x", HISTORY)
    blocker = sqlite3.connect(file, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    with hurried(sqlite):
        appends = [sqlite.append("chat", b"y", HISTORY) for _ in range(3)]
        results = await asyncio.gather(*appends, sqlite.remove("chat"), sqlite.sweep(), return_exceptions=True)
    assert [type(result) for result in results] == [HistoryUnavailable] * 5
    assert time.monotonic() - began < 20
    # In this mode of SQLite who reads does not wait for who writes.
    assert len((await sqlite.read("chat", limit=5)).entries) == 1
    blocker.execute("ROLLBACK")
    blocker.close()
    assert (await sqlite.append("chat", b"z", HISTORY)).position.offset == 2


async def test_no_more_appends_wait_than_there_is_room_for(sqlite, monkeypatch):
    monkeypatch.setattr("fastapi_consumers.history.sql.store.MAX_WAITING", 3)
    results = await asyncio.gather(*[sqlite.append("chat", b"x", HISTORY) for _ in range(5)], return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["Appended"] * 3 + ["HistoryUnavailable"] * 2


async def test_a_store_that_is_not_open_is_unavailable(file):
    for call in calls(SQLHistoryStore(f"sqlite:///{file}")):
        with pytest.raises(HistoryUnavailable) as caught:
            await call
        assert caught.value.code == "history_unavailable"
        assert isinstance(caught.value, BrokerUnavailable)


async def test_an_unusable_file_is_refused_at_the_start(tmp_path):
    (tmp_path / "text.db").write_text("this is no database, and long enough to be told from an empty one" * 20)
    for name in ("missing/chat.db", "text.db", "."):
        store = SQLHistoryStore(f"sqlite:///{tmp_path / name}", timeout=30)
        with pytest.raises(ImproperlyConfigured) as caught:
            await store.open()
        await store.close()
        assert [problem.code for problem in caught.value.problems] == ["history-refused"]


def test_no_thread_outlives_a_start_that_failed(tmp_path):
    """It would answer to an event loop that is closed, which pytest takes for a failure."""

    async def start():
        with pytest.raises(ImproperlyConfigured):
            await SQLHistoryStore(f"sqlite:///{tmp_path}/missing/chat.db").open()

    before = set(threading.enumerate())
    for _ in range(30):
        asyncio.run(start())
    assert set(threading.enumerate()) == before


async def test_tables_can_be_made_in_a_step_of_their_own(file):
    url = f"sqlite:///{file}"
    store = SQLHistoryStore(url, table_prefix="chat_", create_tables=False)
    await store.open()
    with pytest.raises(HistoryUnavailable):
        await store.append("chat", b"x", HISTORY)
    await store.close()
    await SQLHistoryStore(url, table_prefix="chat_").create_all()
    names = {name for (name,) in rows(file, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"chat_streams", "chat_events", "chat_keys", "chat_templates"}
    assert names == set(Tables("chat_").metadata.tables)
    await store.open()
    assert (await store.append("chat", b"x", HISTORY)).position.offset == 1
    await store.close()


@pytest.mark.parametrize("prefix", ["", "a-b", "Fc_", "x" * 33, '"', "1a"])
def test_a_prefix_is_a_plain_name(prefix):
    with pytest.raises(ValueError, match="cannot begin a table's name"):
        Tables(prefix)


@pytest.mark.parametrize("newest_first", [False, True])
async def test_reads_follow_the_index(sqlite, file, newest_first):
    query = sqlite._query("chat", Bounds(5, 100, 10, newest_first))
    text = str(query.compile(sqlite._database._engine.sync_engine, compile_kwargs={"literal_binds": True}))
    plan = [row[3] for row in rows(file, f"EXPLAIN QUERY PLAN {text}")]
    assert any("fc_events USING PRIMARY KEY (stream_id=? AND seq>? AND seq<?)" in step for step in plan), plan
    assert not any("TEMP B-TREE" in step or "SCAN" in step for step in plan), plan


async def test_the_file_is_readable_while_it_is_written(sqlite, file):
    assert rows(file, "PRAGMA journal_mode") == [("wal",)]


@only("postgres")
async def test_postgres_reads_follow_the_index(store, backend):
    await asyncio.gather(*[store.append("chat", b"x" * 200, History(size=1000)) for _ in range(1000)])
    for newest_first in (False, True):
        query = store._query("chat", Bounds(5, 1000, 10, newest_first))
        engine = store._database._engine
        text = str(query.compile(engine.sync_engine, compile_kwargs={"literal_binds": True}))
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"ANALYZE {backend.name}_events")
            plan = [row[0] for row in await connection.exec_driver_sql(f"EXPLAIN {text}")]
        assert any(f"{backend.name}_events_pkey" in step for step in plan), plan


@pytest.fixture
def own_postgres(postgres_binaries):
    """A server of the test's own, that it may kill."""
    server = Postgres(postgres_binaries)
    yield server
    server.remove()


async def test_postgres_that_is_away_is_an_error_within_the_timeout_and_comes_back(own_postgres):
    store = SQLHistoryStore(own_postgres.url, timeout=30)
    await store.open()
    before = await store.append("chat", b"x", HISTORY)
    own_postgres.kill()
    for call in calls(store):
        began = time.monotonic()
        with hurried(store), pytest.raises(HistoryUnavailable):
            await call
        assert time.monotonic() - began < 20
    own_postgres.start()
    after = await store.append("chat", b"x", HISTORY)
    assert after.position == before.position._replace(offset=2)
    assert len((await store.read("chat", limit=5)).entries) == 2
    await store.close()


async def test_postgres_that_was_restarted_between_two_calls_costs_none(own_postgres):
    store = SQLHistoryStore(own_postgres.url, timeout=30)
    await store.open()
    await store.append("chat", b"x", HISTORY)
    own_postgres.kill()
    own_postgres.start()
    assert (await store.append("chat", b"x", HISTORY)).position.offset == 2
    own_postgres.kill()
    own_postgres.start()
    assert len((await store.read("chat", limit=5)).entries) == 2
    await store.close()


@pytest.mark.parametrize(
    ("pattern", "new", "expected"),
    [
        (r"//fc:", "//nobody:", ImproperlyConfigured),
        (r"pa%3Ass", "wrong", ImproperlyConfigured),
        (r"/postgres$", "/nothing", ImproperlyConfigured),
        (r":\d+/", ":1/", HistoryUnavailable),
    ],
)
async def test_postgres_that_refuses_us_or_is_not_there_says_so_without_the_password(
    postgres_url, pattern, new, expected
):
    store = SQLHistoryStore(re.sub(pattern, new, postgres_url), timeout=30)
    with pytest.raises(expected) as caught:
        await store.open()
    await store.close()
    told = "\n".join([str(caught.value), repr(store), *getattr(caught.value, "__notes__", ())])
    assert "127.0.0.1" in told
    assert not re.search("pa%3Ass|pa:ss|wrong", told)
