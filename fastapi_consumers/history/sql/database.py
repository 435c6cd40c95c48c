"""The database: its URL, its connections, its transactions, and what goes wrong with them."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine
from importlib import import_module
from importlib.util import find_spec
from threading import Thread
from typing import Any, TypeVar
from weakref import WeakSet

from sqlalchemy import URL, event, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from ...exceptions import HistoryUnavailable, ImproperlyConfigured, Problem
from ...redis_client import safe_url
from .schema import HasTables

T = TypeVar("T")

#: What a URL may begin with, and the driver that serves it.
DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
#: How many times a transaction is tried that the database, or a connection lost before, has undone.
ATTEMPTS = 3
#: SQLSTATE of a serialization failure and of a deadlock.
_UNDONE = {"40001", "40P01"}
#: Options of a connection whose transactions write.
_WRITES = {"fastapi_consumers_writes": True}
#: Any number will do that others are unlikely to lock.
_ADVISORY_LOCK = 0x66635F686973

_EXPECTED = "sqlite:///chat.db, or postgresql://user:password@host/database"


class Database:
    """One database, from ``open`` to ``close``. Everything that waits for it waits for at most ``timeout`` seconds."""

    def __init__(self, url: str, *, timeout: float, pool_size: int) -> None:
        self._url = _url_of(url)
        self.url = safe_url(url)
        self.timeout = timeout
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._pool_size = pool_size
        self._engine: AsyncEngine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Held by the one transaction of this process that writes: in SQLite there can be no other, and where there
        #: could, they would wait for each other's streams.
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        #: Each connection of SQLite has one. Some end by themselves, after a connection that could not be made.
        self._threads: WeakSet[Thread] = WeakSet()
        self._new_engine()  # Whatever is wrong with it shows now.

    async def open(self, tables: HasTables, create_tables: bool) -> None:
        """Raises ``ImproperlyConfigured`` if waiting would not help, else ``HistoryUnavailable``."""
        self._engine, self._loop = self._new_engine(), asyncio.get_running_loop()
        self._writing = asyncio.Lock()

        try:
            await self.bounded(self._begin(tables, create_tables))
        except HistoryUnavailable as error:
            await self.close()
            raise self._startup_error(error.__cause__) from error.__cause__

    async def close(self) -> None:
        """Ends what is under way. What is left of another event loop is forgotten."""
        engine, self._engine = self._engine, None
        if self._loop is not asyncio.get_running_loop():
            self._tasks.clear()
            return
        ending = tuple(self._tasks)
        for task in ending:
            task.cancel()
        if ending:
            # They give their connections back, or end them in another thread, which answers to this event loop.
            await asyncio.wait(ending, timeout=self.timeout)
        if engine is not None:
            try:
                await asyncio.wait_for(engine.dispose(), self.timeout)
            except FAILURES:
                pass  # It does not answer, and is not needed any more.
        await self._threads_end()

    async def _threads_end(self) -> None:
        """Wait for the threads of SQLite's connections: they answer to the event loop, which may be closed next."""
        ends = time.monotonic() + self.timeout
        for thread in filter(Thread.is_alive, tuple(self._threads)):
            if (left := ends - time.monotonic()) <= 0:
                return
            await asyncio.to_thread(thread.join, left)

    async def bounded(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result. Raises ``HistoryUnavailable`` for what goes wrong with the database, and after
        ``timeout`` seconds; who waits does not wait for what is then cancelled.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.wait((task,), timeout=self.timeout)
        finally:
            if not task.done():
                task.cancel()
                task.add_done_callback(_ignore)
        if not task.done():
            raise HistoryUnavailable
        try:
            return task.result()
        except FAILURES as error:
            raise HistoryUnavailable from error
        except asyncio.CancelledError:  # By close().
            raise HistoryUnavailable from None

    async def read(self, statement: Any) -> list[Any]:
        """The rows of one statement that only reads."""
        return await self.bounded(self.fetch(statement))

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What ``work`` returns, in one transaction, done as a whole or not at all. It may be called again."""
        return await self.bounded(self._transaction(work))

    async def fetch(self, statement: Any) -> list[Any]:
        attempt = 1
        while True:
            try:
                async with self._connected().connect() as connection:
                    return list((await connection.execute(statement)).all())
            except DBAPIError as error:
                # A connection of before the server was started again.
                if not error.connection_invalidated or attempt == ATTEMPTS:
                    raise
            attempt += 1

    async def _transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._writing:
            attempt = 1
            while True:
                is_committing = False
                try:
                    async with self._connected().connect() as connection:
                        await connection.execution_options(**_WRITES)
                        result = await work(connection)
                        is_committing = True
                        await connection.commit()
                        return result
                except DBAPIError as error:
                    # A commit whose answer is lost may have been done.
                    is_undone = _sqlstate(error) in _UNDONE or (error.connection_invalidated and not is_committing)
                    if not is_undone or attempt == ATTEMPTS:
                        raise
                attempt += 1

    def _connected(self) -> AsyncEngine:
        if self._engine is None:
            raise HistoryUnavailable
        return self._engine

    def _new_engine(self) -> AsyncEngine:
        arguments: dict[str, Any] = {"timeout": self.timeout}
        if not self.is_sqlite:
            arguments["command_timeout"] = self.timeout
        engine = create_async_engine(
            self._url,
            connect_args=arguments,
            poolclass=AsyncAdaptedQueuePool,
            pool_size=self._pool_size,
            max_overflow=0,
            pool_timeout=self.timeout,
            hide_parameters=True,
        )
        if self.is_sqlite:
            event.listen(engine.sync_engine, "do_connect", self._before_connecting)
            event.listen(engine.sync_engine, "connect", _on_connect)
            event.listen(engine.sync_engine, "begin", _on_begin)
        return engine

    def _before_connecting(self, dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        options["async_creator_fn"] = self._open_file

    def _open_file(self, *arguments: Any, **options: Any) -> Any:
        connection = import_module("aiosqlite").connect(*arguments, **options)
        # Up to 0.21 a connection is its thread.
        thread: Thread = getattr(connection, "_thread", connection)
        thread.daemon = True
        self._threads.add(thread)
        return connection

    async def _begin(self, tables: HasTables, create_tables: bool) -> None:
        while True:
            try:
                if create_tables:
                    await self._transaction(lambda connection: self._create(connection, tables))
                else:
                    await self.fetch(select(1))
                return
            except FAILURES as error:
                if not _is_locked(error):
                    raise
                # Not all that SQLite does at first waits for others by itself.
                await asyncio.sleep(0.01)

    async def _create(self, connection: AsyncConnection, tables: HasTables) -> None:
        if not self.is_sqlite:  # Two programs that start at once would both find the tables missing.
            await connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})
        await connection.run_sync(tables.metadata.create_all)

    def _startup_error(self, error: BaseException | None) -> Exception:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        found = str(cause) if cause is not None and str(cause) else f"no answer within {self.timeout:g} s"
        state = _sqlstate(error)
        is_refused = state[:2] == "28" or state in ("3D000", "42501")
        if is_refused or (self.is_sqlite and cause is not None and not _is_locked(cause)):
            fix = "check the URL, and that its user may create tables and write"
            if self.is_sqlite:
                fix = "name a file in a folder that exists and may be written to"
            problem = Problem("history-refused", self.url, found, "a database that lets this program in", fix)
            return ImproperlyConfigured("The history", [problem])
        unavailable = HistoryUnavailable()
        unavailable.add_note(f"tried:    {self.url}")
        unavailable.add_note(f"found:    {found}")
        unavailable.add_note(f"expected: a database that answers within {self.timeout:g} s")
        unavailable.add_note("fix:      start it, or mend the URL")
        return unavailable


def _is_locked(error: BaseException | None) -> bool:
    """Whether others hold the SQLite file."""
    return error is not None and "database is locked" in str(error)


def _url_of(url: object) -> URL:
    found, fix = "a URL that cannot be read", "percent-encode what has a meaning in URLs, and check host and port"
    try:
        parsed = make_url(url)  # type: ignore[arg-type]  # it says what is wrong with anything else
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is not None:
        driver = DRIVERS.get(parsed.drivername)
        is_sqlite = driver is not None and driver.startswith("sqlite")
        if driver is None:
            found, fix = "a URL of another kind", "mend the scheme"
        elif is_sqlite and ":memory:" in (parsed.database or ":memory:"):
            found, fix = "no file", "name a file, or write memory://, which is faster"
        else:
            return parsed.set(drivername=driver)
    raise ImproperlyConfigured("The history", [Problem("bad-url", safe_url(url), found, _EXPECTED, fix)])


def _failures() -> tuple[type[Exception], ...]:
    # Not everything that a driver raises comes wrapped. Whoever has no asyncpg sees none of its errors.
    kinds: tuple[type[Exception], ...] = (SQLAlchemyError, sqlite3.Error, OSError)
    if find_spec("asyncpg") is not None:
        asyncpg = import_module("asyncpg")
        kinds += (asyncpg.PostgresError, asyncpg.InterfaceError)
    return kinds


#: What goes wrong with a database. ``OSError`` includes ``TimeoutError``.
FAILURES = _failures()


def _sqlstate(error: BaseException | None) -> str:
    while error is not None:
        state = getattr(error, "sqlstate", None)
        if isinstance(state, str):
            return state
        error = getattr(error, "orig", None) or error.__cause__
    return ""


def _ignore(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _on_connect(connection: Any, record: Any) -> None:
    try:
        # Python's module would begin transactions by itself, and not the kind that is wanted.
        connection.isolation_level = None
        cursor = connection.cursor()
        # Readers and the one writer do not wait for each other then. It stays so for the file.
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()
    except BaseException:
        connection.close()  # It has a thread, and nobody else knows of it yet.
        raise


def _on_begin(connection: Any) -> None:
    # A transaction that begins by reading, and writes later, fails if somebody else has written in between.
    writes = connection.get_execution_options().get("fastapi_consumers_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
