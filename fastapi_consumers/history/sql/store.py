"""History in a database."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import and_, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...exceptions import HistoryUnavailable
from ...messages import Position
from ..base import Appended, Bounds, History, HistoryStore, Slice, Stored, check_idempotency_key
from .database import Database
from .schema import DEFAULT_PREFIX, Tables
from .writing import USED_ANEW, Append, append_all, insert_or, remove, sweep

logger = logging.getLogger(__name__)

#: Appends in one transaction; that may wait for theirs.
BATCH, MAX_WAITING = 512, 20_000
#: Seconds between two sweeps.
SWEEP_INTERVAL = 60.0
#: Groups in one query.
GROUPS_PER_QUERY = 500

_Waiting = tuple[Append, asyncio.Future[Appended]]


class SQLHistoryStore(HistoryStore):
    """Keeps the streams in SQLite (``sqlite:///chat.db``) or PostgreSQL (``postgresql://user:password@host/database``).

    Whatever was appended survives this program. Several processes may share one database; one SQLite file only if they
    run on one machine. Appends that come while others are being written are gathered, and committed together; each
    returns after its commit. A batch that fails, fails as a whole.

    ``at``, and with it the age of events, is the clock of the process that appends.

    Events without a ttl stay until newer ones push them out, or ``remove``. A stream whose events have a ttl, and are
    all gone, is forgotten when nobody has used it for 30 days.

    Args:
        url: ``sqlite+aiosqlite:`` and ``postgresql+asyncpg:`` are the same as ``sqlite:`` and ``postgresql:``.
        timeout: seconds that each call may take.
        table_prefix: what the tables' names begin with.
        create_tables: create what is missing when it is opened. Without it, :meth:`create_all` or a migration has to.
        pool_size: connections to the database, at most; one of them writes.
        time: the time in seconds since 1970.
    """

    is_distributed = True

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 5.0,
        table_prefix: str = DEFAULT_PREFIX,
        create_tables: bool = True,
        pool_size: int = 5,
        time: Callable[[], float] = time.time,
    ) -> None:
        self.tables = Tables(table_prefix)
        #: Where it is, with the password if there is one, for what is kept beside it.
        self.place = url, table_prefix
        self._database = Database(url, timeout=timeout, pool_size=pool_size)
        self._create_tables = create_tables
        self._time = time
        self._waiting: deque[_Waiting] = deque()
        #: Those that are being written.
        self._batch: list[_Waiting] = []
        self._has_waiting = asyncio.Event()
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def __repr__(self) -> str:
        return f"SQLHistoryStore({self._database.url!r})"

    async def open(self) -> None:
        """Raises ``ImproperlyConfigured`` if the database refuses us, ``HistoryUnavailable`` if it does not answer;
        the notes of the latter tell what was tried.
        """
        await self.close()
        self._has_waiting = asyncio.Event()
        await self._database.open(self.tables, self._create_tables)
        self._tasks = (
            asyncio.create_task(self._write(), name="fastapi_consumers: history"),
            asyncio.create_task(self._sweep_now_and_then(), name="fastapi_consumers: history sweep"),
        )

    async def create_all(self) -> None:
        """Create the tables that are missing, in a step of its own: the store is not open before, nor after it."""
        try:
            await self._database.open(self.tables, True)
        finally:
            await self._database.close()

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, ()  # Nothing more is taken from now on.
        if tasks and tasks[0].get_loop() is asyncio.get_running_loop():
            unfinished = [future for _, future in (*self._batch, *self._waiting) if not future.done()]
            if unfinished:
                await asyncio.wait(unfinished, timeout=self._database.timeout)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._fail(self._waiting, None)
        self._waiting.clear()
        self._batch = []
        await self._database.close()

    async def append(
        self,
        group: str,
        packet: bytes,
        history: History,
        *,
        idempotency_key: str | None = None,
        channel: bytes | None = None,
    ) -> Appended:
        if idempotency_key is not None:
            check_idempotency_key(idempotency_key)
        return await self._submit(Append(group, packet, history, idempotency_key))

    async def position(self, group: str, history: History) -> Position:
        streams = self.tables.streams.c
        query = select(streams.epoch, streams.top, streams.size, streams.ttl, streams.used_at)
        for row in await self._database.read(query.where(streams.group_name == group)):
            is_known = (row.size, row.ttl) == (history.size, history.seconds)
            if is_known and row.used_at >= self._time() - USED_ANEW:
                return Position(row.epoch, row.top)
        return (await self._submit(Append(group, None, history))).position

    async def positions(self, groups: Collection[str]) -> Mapping[str, Position]:
        streams, names = self.tables.streams, list(groups)
        found: dict[str, Position] = {}
        unused: list[int] = []
        now = self._time()
        for start in range(0, len(names), GROUPS_PER_QUERY):
            chunk = streams.c.group_name.in_(names[start : start + GROUPS_PER_QUERY])
            for row in await self._database.read(select(streams).where(chunk)):
                found[row.group_name] = Position(row.epoch, row.top)
                if row.used_at < now - USED_ANEW:
                    unused.append(row.id)
        for start in range(0, len(unused), GROUPS_PER_QUERY):
            chunk = streams.c.id.in_(unused[start : start + GROUPS_PER_QUERY])
            await self._database.write(partial(_execute, update(streams).where(chunk).values(used_at=now)))
        return found

    async def read_within(self, group: str, bounds: Bounds) -> Slice:
        rows = await self._database.read(self._query(group, bounds))
        if not rows:
            return Slice("", 0, [])
        # A stream without a fitting event is a row without one.
        entries = [Stored(row.seq, bytes(row.packet), row.at) for row in rows if row.seq is not None]
        return Slice(rows[0].epoch, rows[0].top, entries)

    def _query(self, group: str, bounds: Bounds) -> Any:
        after, before, limit, newest_first = bounds
        # One statement, so that the stream and its events are of one moment.
        streams, events = self.tables.streams.c, self.tables.events.c
        is_kept = (
            events.stream_id == streams.id,
            events.seq > after,
            events.seq < before,
            events.seq > streams.top - streams.size,
            or_(streams.ttl.is_(None), events.at >= self._time() - streams.ttl),
        )
        order: Any = events.seq.desc() if newest_first else events.seq
        if self._database.is_sqlite:
            joined = self.tables.streams.outerjoin(self.tables.events, and_(*is_kept))
            query = select(streams.epoch, streams.top, events.seq, events.packet, events.at)
            return query.select_from(joined).where(streams.group_name == group).order_by(order).limit(limit)
        # PostgreSQL would sort all events before it takes some; this way it follows the index.
        page = select(events.seq, events.packet, events.at).where(*is_kept).order_by(order).limit(limit).lateral("page")
        query = select(streams.epoch, streams.top, page.c.seq, page.c.packet, page.c.at)
        order = page.c.seq.desc() if newest_first else page.c.seq
        joined = self.tables.streams.outerjoin(page, true())
        return query.select_from(joined).where(streams.group_name == group).order_by(order)

    async def remove(self, group: str) -> None:
        await self._database.write(partial(self._remove, group))

    async def _remove(self, group: str, connection: AsyncConnection) -> None:
        await remove(connection, self.tables, group)

    async def save_templates(self, templates: Mapping[str, History]) -> None:
        if not templates:
            return
        before = await self.load_templates()
        for name, history in templates.items():
            if before.get(name, history) != history:
                logger.warning("the history of %r is %r from now on; it was %r", name, history, before[name])
        await self._database.write(partial(self._save, templates))

    async def _save(self, templates: Mapping[str, History], connection: AsyncConnection) -> None:
        statement = insert_or(self.tables.templates, connection)
        newer = {"size": statement.excluded.size, "ttl": statement.excluded.ttl}
        rows = [
            {"template": name, "size": history.size, "ttl": history.seconds}
            for name, history in sorted(templates.items())
        ]
        await connection.execute(statement.on_conflict_do_update(index_elements=["template"], set_=newer), rows)

    async def load_templates(self) -> Mapping[str, History]:
        rows = await self._database.read(select(self.tables.templates))
        return {row.template: History(row.size, row.ttl) for row in rows}

    async def sweep(self) -> None:
        """Delete what is too old. It runs by itself, once a minute."""
        while await self._database.write(self._sweep):
            pass

    async def _sweep(self, connection: AsyncConnection) -> int:
        return await sweep(connection, self.tables, self._time())

    async def _sweep_now_and_then(self) -> None:
        # Not all processes at once.
        await asyncio.sleep(SWEEP_INTERVAL * random.random())
        while True:
            try:
                await self.sweep()
            except Exception as error:
                unexpected = None if isinstance(error, HistoryUnavailable) else error
                logger.warning("could not delete old events: %s", error, exc_info=unexpected)
            await asyncio.sleep(SWEEP_INTERVAL)

    # The batches

    async def _submit(self, item: Append) -> Appended:
        if not self._tasks or len(self._waiting) >= MAX_WAITING:
            raise HistoryUnavailable
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._has_waiting.set()
        try:
            async with asyncio.timeout(self._database.timeout):
                return await future
        except TimeoutError:
            raise HistoryUnavailable from None

    async def _write(self) -> None:
        while True:
            await self._has_waiting.wait()
            self._has_waiting.clear()
            while batch := self._take():
                self._batch = batch
                await self._commit(batch)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < BATCH:
            waiting = self._waiting.popleft()
            if not waiting[1].done():  # Nobody waits for it any more.
                batch.append(waiting)
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        items = [item for item, _ in batch]
        try:
            results = await self._database.write(partial(self._append_all, items))
        except BaseException as error:
            self._fail(batch, error)
            if not isinstance(error, Exception):
                raise
            if not isinstance(error, HistoryUnavailable):
                logger.exception("could not append to the history")
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _append_all(self, items: list[Append], connection: AsyncConnection) -> list[Appended]:
        return await append_all(connection, self.tables, items, self._time())

    @staticmethod
    def _fail(batch: Iterable[_Waiting], error: BaseException | None) -> None:
        for _, future in batch:
            if not future.done():
                failure = HistoryUnavailable()
                failure.__cause__ = error
                future.set_exception(failure)


async def _execute(statement: Any, connection: AsyncConnection) -> None:
    await connection.execute(statement)
