"""Schedules in SQLite or PostgreSQL, through SQLAlchemy. Needs the extra ``sql``."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from ..history.sql import Tables
from ..history.sql.database import Database
from ..history.sql.schema import DEFAULT_PREFIX
from ..history.sql.writing import insert_or
from .base import Answer, Claim, Definition, Held, Kept, Result, Running, ScheduleStore
from .deciding import Counted, Unit, close, decide

#: Units in one query.
CHUNK = 200
#: Longest text of an error that is kept, in characters.
MAX_ERROR = 1000


class ScheduleTables:
    """The tables of schedules, with names that begin with ``prefix``, on a ``MetaData`` of their own.

    Times are milliseconds since 1970. ``ScheduleTables().metadata`` is what a migration tool compares with.
    """

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        Tables(prefix)  # Raises for a prefix that cannot be one.
        self.metadata = MetaData()
        self.schedules = Table(
            f"{prefix}schedules",
            self.metadata,
            Column("name", String(255), primary_key=True),
            Column("kind", String(16), nullable=False),
            Column("timing", LargeBinary, nullable=False),
            Column("group_name", String(255), nullable=False),
            Column("event", Text, nullable=False),
            Column("data", LargeBinary, nullable=False),
            Column("paused", Boolean, nullable=False),
            Column("baseline", BigInteger, nullable=False),
            Column("runs", BigInteger, nullable=False),
            Column("errors", BigInteger, nullable=False),
            Column("missed", BigInteger, nullable=False),
            Column("lost", BigInteger, nullable=False),
            Column("last_run", BigInteger, nullable=False),
            Column("last_seconds", Double, nullable=False),
            Column("last_outcome", String(16), nullable=False),
            Column("last_error", Text, nullable=False),
            Column("last_process", String(255), nullable=False),
        )
        self.units = Table(
            f"{prefix}schedule_units",
            self.metadata,
            Column("schedule", String(255), primary_key=True),
            Column("group_name", String(255), primary_key=True),
            Column("tick", BigInteger, nullable=False),
            # When the lease runs out; see Unit.
            Column("held_until", BigInteger, nullable=False),
            Column("token", String(64), nullable=False),
            Column("process", String(255), nullable=False),
            Column("since", BigInteger, nullable=False),
            Column("attempt", Integer, nullable=False),
            Column("manual", String(64), nullable=False),
            Column("is_manual", Boolean, nullable=False),
            # When it need not be remembered any more; null for never.
            Column("forget_at", BigInteger),
        )


class SQLScheduleStore(ScheduleStore):
    """Keeps schedules in SQLite (``sqlite:///chat.db``) or PostgreSQL (``postgresql://user:password@host/database``).

    Several processes may share one database; one SQLite file only if they run on one machine. Leases are by the clock
    of a PostgreSQL server, or of the machine.

    Args:
        url: as :class:`~fastapi_consumers.history.sql.SQLHistoryStore` takes it.
        timeout: seconds that each call may take.
        table_prefix: what the tables' names begin with.
        create_tables: create what is missing when it is opened.
        clock: seconds since 1970; by default as above.
    """

    is_distributed = True

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 5.0,
        table_prefix: str = DEFAULT_PREFIX,
        create_tables: bool = True,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.tables = ScheduleTables(table_prefix)
        self._database = Database(url, timeout=timeout, pool_size=2)
        self._create_tables = create_tables
        self._clock = clock

    def __repr__(self) -> str:
        return f"SQLScheduleStore({self._database.url!r})"

    async def open(self) -> None:
        """Raises ``ImproperlyConfigured`` if the database refuses us, ``HistoryUnavailable`` if it does not answer."""
        await self.close()
        await self._database.open(self.tables, self._create_tables)

    async def close(self) -> None:
        await self._database.close()

    async def save(self, definition: Definition, now: int, *, replace: bool = True) -> bool:
        return await self._database.write(partial(self._save, definition, now, replace))

    async def _save(self, definition: Definition, now: int, replace: bool, connection: AsyncConnection) -> bool:
        table = self.tables.schedules
        values = definition._asdict()
        values["group_name"] = values.pop("group")
        new: dict[str, Any] = {"paused": False, "baseline": now, "last_seconds": 0.0}
        new |= dict.fromkeys(("runs", "errors", "missed", "lost", "last_run"), 0)
        new |= dict.fromkeys(("last_outcome", "last_error", "last_process"), "")
        added = await connection.execute(insert_or(table, connection).values(**values, **new).on_conflict_do_nothing())
        if added.rowcount or not replace:
            return bool(added.rowcount)
        former = await self._locked(connection, definition.name)
        if former is not None and former.timing != definition.timing:
            values["baseline"] = now
        await connection.execute(update(table).where(table.c.name == definition.name).values(**values))
        return True

    async def load(self, name: str | None = None) -> list[Kept]:
        return await self._database.write(partial(self._load, name))

    async def _load(self, name: str | None, connection: AsyncConnection) -> list[Kept]:
        schedules, units = self.tables.schedules, self.tables.units
        found, held = select(schedules), select(units).where(units.c.held_until != 0)
        if name is not None:
            found, held = found.where(schedules.c.name == name), held.where(units.c.schedule == name)
        now = await self._now(connection)
        rows = (await connection.execute(found)).all()
        of: dict[str, list[Any]] = {}
        for row in await connection.execute(held):
            of.setdefault(row.schedule, []).append(row)
        return [_kept(row, of.get(row.name, []), now) for row in rows]

    async def delete(self, name: str) -> bool:
        return await self._database.write(partial(self._delete, name))

    async def _delete(self, name: str, connection: AsyncConnection) -> bool:
        schedules, units = self.tables.schedules, self.tables.units
        gone = await connection.execute(delete(schedules).where(schedules.c.name == name))
        await connection.execute(delete(units).where(units.c.schedule == name))
        return bool(gone.rowcount)

    async def set_paused(self, name: str, paused: bool, now: int) -> bool:
        return await self._database.write(partial(self._set_paused, name, paused, now))

    async def _set_paused(self, name: str, paused: bool, now: int, connection: AsyncConnection) -> bool:
        table = self.tables.schedules
        found = await self._locked(connection, name)
        if found is not None and found.paused != paused:
            values = {"paused": True} if paused else {"paused": False, "baseline": now}
            await connection.execute(update(table).where(table.c.name == name).values(**values))
        return found is not None

    async def add_missed(self, name: str, count: int) -> None:
        await self._database.write(partial(self._count, name, {"missed": count}))

    async def _count(
        self, name: str, counts: dict[str, int], connection: AsyncConnection, values: dict[str, Any] | None = None
    ) -> None:
        table = self.tables.schedules
        added = {count: table.c[count] + number for count, number in counts.items() if number}
        if added or values:
            await connection.execute(update(table).where(table.c.name == name).values(**added, **(values or {})))

    async def claim(self, claim: Claim, groups: Sequence[str]) -> list[Answer]:
        answers: list[Answer] = []
        for start in range(0, len(groups), CHUNK):
            answers += await self._database.write(partial(self._claim, claim, groups[start : start + CHUNK]))
        return answers

    async def _claim(self, claim: Claim, groups: Sequence[str], connection: AsyncConnection) -> list[Answer]:
        # Whoever claims units of this schedule waits for the others here.
        schedule = await self._locked(connection, claim.name)
        if schedule is None or (schedule.paused and not claim.manual):
            return [Answer("unknown" if schedule is None else "paused")] * len(groups)
        now, counted = await self._now(connection), Counted()
        table = self.tables.units
        await connection.execute(
            delete(table).where(table.c.schedule == claim.name, table.c.forget_at < now, table.c.held_until <= now)
        )
        wanted = select(table).where(table.c.schedule == claim.name, table.c.group_name.in_(groups))
        known = {row.group_name: _unit(row) for row in await connection.execute(wanted)}
        answers, rows = [], []
        for group in groups:
            unit = known.get(group, Unit())
            answers.append(decide(unit, schedule.baseline, claim, now, counted))
            forget_at = now + round(claim.keep * 1000) if group else None
            rows.append({"schedule": claim.name, "group_name": group, "forget_at": forget_at, **_columns(unit)})
        statement = insert_or(table, connection)
        newer = {column: statement.excluded[column] for column in rows[0] if column not in ("schedule", "group_name")}
        keys = ["schedule", "group_name"]
        await connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=newer), rows)
        lost = {"last_outcome": "lost", "last_process": counted.lost_process} if counted.lost else None
        await self._count(claim.name, {"missed": counted.missed, "lost": counted.lost}, connection, lost)
        return answers

    async def renew(self, held: Sequence[Held], lease: float) -> list[bool]:
        return await self._database.write(partial(self._renew, held, lease))

    async def _renew(self, held: Sequence[Held], lease: float, connection: AsyncConnection) -> list[bool]:
        until = await self._now(connection) + round(lease * 1000)
        found: list[bool] = []
        for each in held:
            renewed = update(self.tables.units).where(*self._is_held(each)).values(held_until=until)
            found.append(bool((await connection.execute(renewed)).rowcount))
        return found

    async def finish(self, held: Held, result: Result) -> bool:
        return await self._database.write(partial(self._finish, held, result))

    async def _finish(self, held: Held, result: Result, connection: AsyncConnection) -> bool:
        table = self.tables.units
        await self._locked(connection, held.name)
        row = (await connection.execute(select(table).where(*self._is_held(held)))).first()
        if row is None:
            return False
        unit, now = _unit(row), await self._now(connection)
        close(unit, result)
        await connection.execute(update(table).where(*self._is_held(held)).values(**_columns(unit)))
        values = {
            "last_run": now - round(result.seconds * 1000),
            "last_seconds": result.seconds,
            "last_outcome": result.outcome,
            "last_error": result.error[:MAX_ERROR],
            "last_process": row.process,
        }
        counts = {"runs": 1, "errors": int(result.outcome in ("error", "timeout"))}
        await self._count(held.name, counts, connection, values)
        return True

    def _is_held(self, held: Held) -> tuple[Any, ...]:
        units = self.tables.units.c
        is_it = (units.schedule == held.name, units.group_name == held.group, units.token == held.token)
        return (*is_it, units.held_until != 0)

    async def _locked(self, connection: AsyncConnection, name: str) -> Any:
        table = self.tables.schedules
        return (await connection.execute(select(table).where(table.c.name == name).with_for_update())).first()

    async def _now(self, connection: AsyncConnection) -> int:
        if self._clock is None and not self._database.is_sqlite:
            seconds: Any = await connection.scalar(select(func.extract("epoch", func.clock_timestamp())))
            return int(float(seconds) * 1000)
        return int((self._clock or time.time)() * 1000)


def _unit(row: Any) -> Unit:
    return Unit(
        row.tick, row.held_until, row.token, row.process, row.since, row.attempt, row.manual, bool(row.is_manual)
    )


def _columns(unit: Unit) -> dict[str, Any]:
    return {
        "tick": unit.tick,
        "held_until": unit.until,
        "token": unit.token,
        "process": unit.process,
        "since": unit.since,
        "attempt": unit.attempt,
        "manual": unit.manual,
        "is_manual": unit.is_manual,
    }


def _kept(row: Any, units: Sequence[Any], now: int) -> Kept:
    single = next((unit for unit in units if unit.group_name == "" and not unit.is_manual), None)
    data, timing = bytes(row.data), bytes(row.timing)
    return Kept(
        Definition(row.name, row.kind, timing, row.group_name, row.event, data),
        bool(row.paused),
        row.baseline,
        row.runs,
        row.errors,
        row.missed,
        row.lost,
        row.last_run,
        row.last_seconds,
        row.last_outcome,
        row.last_error,
        row.last_process,
        tuple(Running(unit.group_name, unit.process, unit.since) for unit in units if unit.held_until > now),
        single.tick if single is not None else 0,
        max(0.0, (single.held_until - now) / 1000) if single is not None else 0.0,
    )
