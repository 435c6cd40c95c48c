"""Presence in the memory of one process."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .base import Change, Entry, Outcome, PresenceStore, Present, Roster


@dataclass(slots=True)
class _Record:
    """One connection that is seen. ``process`` is empty while it is away."""

    process: str
    present: Present


@dataclass(slots=True)
class _Key:
    """All connections of one key: how many, and which of them are away, the longest first."""

    count: int = 0
    away: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Group:
    records: dict[str, _Record] = field(default_factory=dict)
    keys: dict[str, _Key] = field(default_factory=dict)
    #: When the connections that are away will have left.
    away: dict[str, float] = field(default_factory=dict)
    #: When the leases of processes run out.
    leases: dict[str, float] = field(default_factory=dict)
    seats: dict[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.records or self.leases or self.seats)

    def remove(self, channel: str) -> Present:
        present = self.records.pop(channel).present
        self.away.pop(channel, None)
        key = self.keys[present.key]
        key.count -= 1
        key.away.pop(channel, None)
        if not key.count:
            del self.keys[present.key]
        return present

    def is_dead(self, process: str, now: float) -> bool:
        return bool(process) and self.leases.get(process, now) <= now

    def reap(self, now: float) -> list[Present]:
        dead = {process for process, until in self.leases.items() if until <= now}
        gone = [channel for channel, until in self.away.items() if until <= now]
        if dead:
            gone += [channel for channel, record in self.records.items() if record.process in dead]
            self.seats = {channel: process for channel, process in self.seats.items() if process not in dead}
            for process in dead:
                del self.leases[process]
        return [self.remove(channel) for channel in gone]

    def leave(self, channel: str, until: float) -> None:
        record = self.records[channel]
        if record.process:
            record.process = ""
            self.away[channel] = until
            self.keys[record.present.key].away[channel] = None

    def enter(self, process: str, entry: Entry) -> Present | None:
        """The connection, if it is new."""
        channel, name, info = entry
        key = self.keys.setdefault(name, _Key())
        former = channel if channel in self.records else next(iter(key.away), None)
        if former is None:
            key.count += 1
            self.records[channel] = _Record(process, Present(channel, name, info))
            return self.records[channel].present
        record = self.records.pop(former)
        self.away.pop(former, None)
        key.away.pop(former, None)
        self.records[channel] = _Record(process, record.present._replace(info=info))
        return None


class MemoryPresenceStore(PresenceStore):
    """Everything in this process's memory: nobody else sees it, and it ends with the process.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._groups: dict[str, _Group] = {}
        self._counts: dict[str, tuple[float, dict[str, int]]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    async def open(self) -> None:
        await self.close()

    async def close(self) -> None:
        self._groups.clear()
        self._counts.clear()

    async def update(self, group: str, process: str, change: Change, *, lease: float, grace: float) -> Outcome:
        now = self._clock()
        found = self._groups.setdefault(group, _Group())
        known = process in found.leases
        found.leases[process] = now + lease
        leaves = found.reap(now)
        joins: list[Present] = []
        for channel in change.leave:
            if channel in found.records and grace:
                found.leave(channel, now + grace)
            elif channel in found.records:
                leaves.append(found.remove(channel))
        for entry in change.enter:
            if entry.channel in found.records and found.records[entry.channel].present.key != entry.key:
                leaves.append(found.remove(entry.channel))
            if (joined := found.enter(process, entry)) is not None:
                joins.append(joined)
        for channel in change.free:
            found.seats.pop(channel, None)
        found.seats.update(dict.fromkeys(change.reseat, process))
        seated = True
        if change.seat is not None:
            seated = change.seat in found.seats or len(found.seats) < change.limit
            if seated:
                found.seats[change.seat] = process
        if change.done or not (seated or known):
            del found.leases[process]
        if found.is_empty:
            del self._groups[group]
        return Outcome(joins, leaves, len(found.keys), known, seated)

    async def read(self, group: str, *, count_only: bool = False) -> Roster:
        found = self._groups.get(group, _Group())
        now = self._clock()
        members = [each.present for each in found.records.values() if not found.is_dead(each.process, now)]
        return Roster(len({present.key for present in members}), [] if count_only else members)

    async def write_counts(self, process: str, counts: Mapping[str, int], *, lease: float) -> bool:
        now = self._clock()
        self._counts = {name: said for name, said in self._counts.items() if said[0] > now}
        known = process in self._counts
        merged = {**(self._counts[process][1] if known else {}), **counts}
        self._counts[process] = now + lease, {group: count for group, count in merged.items() if count}
        return known

    async def read_count(self, group: str, *, without: str) -> int:
        now = self._clock()
        return sum(
            counts.get(group, 0)
            for process, (until, counts) in self._counts.items()
            if process != without and until > now
        )

    async def forget_counts(self, process: str) -> None:
        self._counts.pop(process, None)
