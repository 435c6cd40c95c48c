"""What is written to the tables, each in one transaction: a batch of appends, and a sweep."""

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from ...messages import Position
from ..base import REMEMBERED_FOR, Appended, History
from .schema import Tables

#: A stream is trimmed to its size when it has grown beyond it by a quarter, and by so many events at least.
SLACK = 64
#: Seconds after which a stream whose events have a ttl, and are gone, is forgotten unless it was used: 30 days.
UNUSED = 30 * 86400.0
#: Seconds for which the use of a stream need not be written again.
USED_ANEW = 86400.0
#: Streams that one sweep trims.
STREAMS_PER_SWEEP = 200


class Append(NamedTuple):
    """One append; without a packet, only the stream is begun, or its settings and use are noted."""

    group: str
    packet: bytes | None
    history: History
    key: str | None = None


class _Stream:
    """A row of the streams, while a transaction holds it."""

    __slots__ = ("at", "bottom", "epoch", "id", "oldest_at", "size", "top", "ttl")

    def __init__(self, row: Any) -> None:
        self.id: int = row.id
        self.epoch: str = row.epoch
        self.top: int = row.top
        self.bottom: int = row.bottom
        self.at: float = row.at
        self.oldest_at: float | None = row.oldest_at
        self.size: int = row.size
        self.ttl: float | None = row.ttl


async def append_all(
    connection: AsyncConnection, tables: Tables, batch: Sequence[Append], now: float
) -> list[Appended]:
    """Carry out the batch in its order. Streams are locked in the order of their names, so that batches of several
    processes do not wait for each other in a circle.
    """
    streams = await _locked(connection, tables, batch, now)
    known = await _known(connection, tables, batch, streams, now)
    events: list[dict[str, Any]] = []
    results: list[Appended] = []
    for group, packet, history, key in batch:
        stream = streams[group]
        seq = known.get((stream.id, key)) if key is not None else None
        if seq is not None:
            results.append(Appended(Position(stream.epoch, seq), False))
            continue
        stream.size, stream.ttl = history.size, history.seconds
        if packet is None:
            results.append(Appended(Position(stream.epoch, stream.top), False))
            continue
        stream.top = seq = stream.top + 1
        stream.at = max(now, stream.at)
        if stream.oldest_at is None:
            stream.oldest_at = stream.at
        events.append({"stream_id": stream.id, "seq": seq, "at": stream.at, "packet": packet})
        if key is not None:
            known[stream.id, key] = seq
        results.append(Appended(Position(stream.epoch, seq)))
    if events:
        await connection.execute(insert(tables.events), events)
    await _remember(connection, tables, batch, results, streams, now)
    await _trim(connection, tables, streams.values())
    await _save(connection, tables, streams.values(), now)
    return results


async def sweep(connection: AsyncConnection, tables: Tables, now: float) -> int:
    """Delete what is too old, of some streams. Returns how many streams it found; if any, there may be more."""
    streams, events, keys = tables.streams, tables.events, tables.keys
    await connection.execute(delete(keys).where(keys.c.at < now - REMEMBERED_FOR))
    unused = select(streams.c.id).where(
        streams.c.oldest_at.is_(None), streams.c.ttl.is_not(None), streams.c.used_at < now - UNUSED
    )
    expired = select(streams).where(streams.c.oldest_at < now - streams.c.ttl)
    order = streams.c.group_name
    for number in (await connection.scalars(unused.order_by(order).limit(STREAMS_PER_SWEEP).with_for_update())).all():
        await _forget(connection, tables, number)
    rows = (await connection.execute(expired.order_by(order).limit(STREAMS_PER_SWEEP).with_for_update())).all()
    for row in rows:
        kept = select(events.c.seq, events.c.at).where(events.c.stream_id == row.id, events.c.at >= now - row.ttl)
        first = (await connection.execute(kept.order_by(events.c.seq).limit(1))).first()
        gone = delete(events).where(events.c.stream_id == row.id)
        await connection.execute(gone if first is None else gone.where(events.c.seq < first.seq))
        values = {"oldest_at": None, "bottom": row.top} if first is None else {"oldest_at": first.at}
        await connection.execute(update(streams).where(streams.c.id == row.id).values(values))
    return len(rows)


async def remove(connection: AsyncConnection, tables: Tables, group: str) -> None:
    """Delete a group's stream."""
    streams = tables.streams
    found = select(streams.c.id).where(streams.c.group_name == group).with_for_update()
    number = await connection.scalar(found)
    if number is not None:
        await _forget(connection, tables, number)


async def _forget(connection: AsyncConnection, tables: Tables, number: int) -> None:
    await connection.execute(delete(tables.events).where(tables.events.c.stream_id == number))
    await connection.execute(delete(tables.keys).where(tables.keys.c.stream_id == number))
    await connection.execute(delete(tables.streams).where(tables.streams.c.id == number))


def insert_or(table: Any, connection: AsyncConnection) -> Any:
    """An ``INSERT`` that can say what to do about a row that is there already."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


async def _locked(
    connection: AsyncConnection, tables: Tables, batch: Sequence[Append], now: float
) -> dict[str, _Stream]:
    streams = tables.streams
    settings = {item.group: item.history for item in batch}

    async def lock(names: list[str]) -> None:
        query = select(streams).where(streams.c.group_name.in_(names)).order_by(streams.c.group_name)
        for row in await connection.execute(query.with_for_update()):
            found[row.group_name] = _Stream(row)

    found: dict[str, _Stream] = {}
    await lock(sorted(settings))
    new = sorted(settings.keys() - found.keys())
    if new:
        rows = [
            {
                "group_name": name,
                "epoch": secrets.token_urlsafe(6),
                "top": 0,
                "bottom": 0,
                "at": now,
                "used_at": now,
                "size": settings[name].size,
                "ttl": settings[name].seconds,
            }
            for name in new
        ]
        await connection.execute(insert_or(streams, connection).on_conflict_do_nothing(), rows)
        await lock(new)
    return found


async def _known(
    connection: AsyncConnection, tables: Tables, batch: Sequence[Append], streams: dict[str, _Stream], now: float
) -> dict[tuple[int, str], int]:
    """The events of those idempotency keys that are remembered."""
    keys = tables.keys.c
    wanted = {(streams[item.group].id, item.key) for item in batch if item.key is not None}
    if not wanted:
        return {}
    query = select(keys.stream_id, keys.key, keys.seq).where(
        tuple_(keys.stream_id, keys.key).in_(sorted(wanted)), keys.at >= now - REMEMBERED_FOR
    )
    return {(row.stream_id, row.key): row.seq for row in await connection.execute(query)}


async def _remember(
    connection: AsyncConnection,
    tables: Tables,
    batch: Sequence[Append],
    results: Sequence[Appended],
    streams: dict[str, _Stream],
    now: float,
) -> None:
    rows = [
        {"stream_id": streams[item.group].id, "key": item.key, "seq": result.position.offset, "at": now}
        for item, result in zip(batch, results, strict=True)
        if item.key is not None and result.is_new
    ]
    if rows:
        statement = insert_or(tables.keys, connection)
        # One that is too old to be remembered may still be there.
        renewed = {"seq": statement.excluded.seq, "at": statement.excluded.at}
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["stream_id", "key"], set_=renewed), rows
        )


async def _trim(connection: AsyncConnection, tables: Tables, streams: Iterable[_Stream]) -> None:
    rows = []
    for stream in streams:
        if stream.top - stream.bottom > stream.size + max(stream.size // 4, SLACK):
            stream.bottom = stream.top - stream.size
            rows.append({"of": stream.id, "up_to": stream.bottom})
    if rows:
        events = tables.events.c
        too_many = delete(tables.events).where(events.stream_id == bindparam("of"), events.seq <= bindparam("up_to"))
        await connection.execute(too_many, rows)


async def _save(connection: AsyncConnection, tables: Tables, streams: Iterable[_Stream], now: float) -> None:
    names = ("top", "bottom", "at", "oldest_at", "size", "ttl")
    rows = [
        {"of": stream.id, "used": now, **{f"new_{name}": getattr(stream, name) for name in names}} for stream in streams
    ]
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names}
    statement = update(tables.streams).where(tables.streams.c.id == bindparam("of"))
    await connection.execute(statement.values(values | {"used_at": bindparam("used")}), rows)
