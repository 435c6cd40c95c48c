"""Schedules of one process, kept while it lives."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .base import Answer, Claim, Definition, Held, Kept, Result, Running, ScheduleStore
from .deciding import Counted, Unit, close, decide

#: Units of groups after which those are looked for that need not be remembered.
TIDY = 1000


@dataclass(slots=True)
class _Schedule:
    kept: Kept
    units: dict[str, Unit] = field(default_factory=dict)
    #: Until when a group's unit is remembered, in milliseconds.
    forget_at: dict[str, int] = field(default_factory=dict)
    tidy_at: int = TIDY


class MemoryScheduleStore(ScheduleStore):
    """For one process. What it keeps outlives the event loop, and ends with the process.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._schedules: dict[str, _Schedule] = {}

    def __repr__(self) -> str:
        return "MemoryScheduleStore()"

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def _now(self) -> int:
        return int(self._clock() * 1000)

    async def save(self, definition: Definition, now: int, *, replace: bool = True) -> bool:
        found = self._schedules.get(definition.name)
        if found is None:
            self._schedules[definition.name] = _Schedule(Kept(definition, baseline=now))
            return True
        if not replace:
            return False
        is_new = found.kept.definition.timing != definition.timing
        found.kept = found.kept._replace(definition=definition, baseline=now if is_new else found.kept.baseline)
        return True

    async def load(self, name: str | None = None) -> list[Kept]:
        now = self._now()
        wanted = self._schedules.values() if name is None else filter(None, [self._schedules.get(name)])
        return [_seen(found, now) for found in wanted]

    async def delete(self, name: str) -> bool:
        return self._schedules.pop(name, None) is not None

    async def set_paused(self, name: str, paused: bool, now: int) -> bool:
        found = self._schedules.get(name)
        if found is None:
            return False
        if found.kept.paused != paused:
            found.kept = found.kept._replace(paused=paused, baseline=found.kept.baseline if paused else now)
        return True

    async def add_missed(self, name: str, count: int) -> None:
        found = self._schedules.get(name)
        if found is not None:
            found.kept = found.kept._replace(missed=found.kept.missed + count)

    async def claim(self, claim: Claim, groups: Sequence[str]) -> list[Answer]:
        found = self._schedules.get(claim.name)
        if found is None or (found.kept.paused and not claim.manual):
            return [Answer("unknown" if found is None else "paused")] * len(groups)
        now, counted = self._now(), Counted()
        answers: list[Answer] = []
        for group in groups:
            unit = found.units.setdefault(group, Unit())
            answers.append(decide(unit, found.kept.baseline, claim, now, counted))
            if group:
                found.forget_at[group] = now + round(claim.keep * 1000)
        kept = found.kept
        found.kept = kept._replace(missed=kept.missed + counted.missed, lost=kept.lost + counted.lost)
        if counted.lost:
            found.kept = found.kept._replace(last_outcome="lost", last_process=counted.lost_process)
        _tidy(found, now)
        return answers

    async def renew(self, held: Sequence[Held], lease: float) -> list[bool]:
        until = self._now() + round(lease * 1000)
        units = [self._held(each) for each in held]
        for unit in units:
            if unit is not None:
                unit.until = until
        return [unit is not None for unit in units]

    async def finish(self, held: Held, result: Result) -> bool:
        unit, now = self._held(held), self._now()
        if unit is None:
            return False
        close(unit, result)
        found = self._schedules[held.name]
        found.kept = with_result(found.kept, unit.process, result, now)
        return True

    def _held(self, held: Held) -> Unit | None:
        found = self._schedules.get(held.name)
        unit = found.units.get(held.group) if found is not None else None
        return unit if unit is not None and unit.token == held.token and unit.until else None


def with_result(kept: Kept, process: str, result: Result, now: int) -> Kept:
    """The counts after a run that ended now."""
    return kept._replace(
        runs=kept.runs + 1,
        errors=kept.errors + (result.outcome in ("error", "timeout")),
        last_run=now - round(result.seconds * 1000),
        last_seconds=result.seconds,
        last_outcome=result.outcome,
        last_error=result.error,
        last_process=process,
    )


def _seen(found: _Schedule, now: int) -> Kept:
    running = [Running(group, unit.process, unit.since) for group, unit in found.units.items() if unit.until > now]
    kept = found.kept._replace(running=tuple(running))
    single = found.units.get("")
    if single is not None and single.until and not single.is_manual:
        kept = kept._replace(unfinished=single.tick, left=max(0.0, (single.until - now) / 1000))
    return kept


def _tidy(found: _Schedule, now: int) -> None:
    if len(found.forget_at) < found.tidy_at:
        return
    for group in [group for group, when in found.forget_at.items() if when <= now and found.units[group].until <= now]:
        del found.units[group], found.forget_at[group]
    found.tidy_at = max(TIDY, 2 * len(found.forget_at))
