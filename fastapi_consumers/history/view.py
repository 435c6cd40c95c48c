"""Reading one group's history: what consumers and HTTP handlers see of a store."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic_core import from_json

from ..messages import Position
from ..packets import BadPacket, decode_packet
from .base import History, HistoryStore, Stored

#: Events that one read returns at most.
MAX_READ = 1000


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One event of the past. ``at`` is when it was broadcast, in UTC; ``data`` is what JSON made of its data."""

    event: str
    data: Any
    offset: int
    at: datetime


class HistorySlice(NamedTuple):
    """Some events of one epoch. ``top`` is the offset of the newest event of all, 0 if there was none yet.

    ``epoch`` is empty for a group in which nothing was ever broadcast, or all has been forgotten.
    """

    epoch: str
    top: int
    events: list[HistoryEvent]


class GroupHistory:
    """The history of one group. Everything raises ``BrokerUnavailable`` where the store cannot be reached."""

    #: Pagination asks for no more at once.
    max_read = MAX_READ

    def __init__(self, group: str, history: History, ready: Callable[[], Awaitable[HistoryStore]]) -> None:
        self.group = group
        self.history = history
        self._ready = ready

    async def read(
        self, *, after: int | None = None, before: int | None = None, limit: int = 100, newest_first: bool = False
    ) -> HistorySlice:
        """The kept events with ``after < offset < before``: the first ``limit`` of them, 1000 at most, in that order.

        Raises ``ValueError`` for a limit below 1, ``TypeError`` for what is no whole number.
        """
        store = await self._ready()
        found = await store.read(
            self.group,
            after=after,
            before=before,
            limit=min(limit, MAX_READ) if type(limit) is int else limit,
            newest_first=newest_first,
        )
        events = [event for entry in found.entries if (event := _event_of(entry)) is not None]
        return HistorySlice(found.epoch, found.top, events)

    async def position(self) -> Position:
        """Where the newest event is; offset 0 if there is none yet."""
        return await (await self._ready()).position(self.group, self.history)

    async def purge(self) -> None:
        """Forget everything. Members are told that events are gone, within half a minute; the next epoch begins."""
        await (await self._ready()).remove(self.group)


def _event_of(entry: Stored) -> HistoryEvent | None:
    try:
        packet = decode_packet(entry.packet)
        data = from_json(packet.data)
    except (BadPacket, ValueError):
        return None  # Whoever wrote it was no version of this that is known.
    return HistoryEvent(packet.name, data, entry.offset, datetime.fromtimestamp(entry.at, UTC))
