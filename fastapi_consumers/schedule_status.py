"""What is known of a schedule over all processes, as people see it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json

from .schedule_stores import Definition, Kept
from .scheduled import Kind
from .timings import BadTiming, timing_of


@dataclass(frozen=True, slots=True)
class RunningNow:
    """A run that goes on. ``process``: the name of the host, a slash, the id of the process."""

    group: str | None
    process: str
    since: datetime


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """All that is known of a schedule, over all processes. FastAPI answers with it as it is. Moments are in UTC."""

    name: str
    #: ``group``, ``class``: a method of a consumer class. ``function``: one of the application. ``event``: an event for
    #: a group, created at run time.
    kind: Kind
    #: When it is due, for people.
    when: str
    paused: bool
    #: Whether this process has what it runs. If not, another may, or nobody has any more.
    is_here: bool
    #: ``None`` while it is paused.
    next_run: datetime | None
    last_run: datetime | None
    #: ``ok``, ``error``, ``timeout``, ``cancelled`` or ``lost``; ``None`` before the first run has ended.
    last_outcome: str | None
    #: The kind of error, without its text.
    last_error: str | None
    #: Seconds that the last run took.
    last_duration: float | None
    last_process: str | None
    running: tuple[RunningNow, ...]
    #: Runs that ended, and those of them that failed or took too long.
    runs: int
    errors: int
    #: Moments without a run: nobody was there, the store could not be reached, or the run before still went on.
    missed: int
    #: Runs that ended with their process.
    lost: int
    #: Of an event.
    group: str | None = None
    event: str | None = None
    data: Any = None


def status_of(kept: Kept, now: int, *, is_here: bool) -> ScheduleStatus:
    """``now``: milliseconds since 1970."""
    definition = kept.definition
    try:
        timing = timing_of(from_json(definition.timing))
        when = repr(timing)
        next_run = None if kept.paused else _moment(timing.after(now))
    except (BadTiming, KeyError):
        when, next_run = definition.timing.decode(), None
    has_ended = bool(kept.last_outcome)
    is_event = definition.is_created
    return ScheduleStatus(
        name=definition.name,
        kind=_kind_of(definition),
        when=when,
        paused=kept.paused,
        is_here=is_here,
        next_run=next_run,
        last_run=_moment(kept.last_run) if kept.last_run else None,
        last_outcome=kept.last_outcome or None,
        last_error=kept.last_error or None,
        last_duration=kept.last_seconds if has_ended else None,
        last_process=kept.last_process or None,
        running=tuple(RunningNow(run.group or None, run.process, _moment(run.since)) for run in kept.running),
        runs=kept.runs,
        errors=kept.errors,
        missed=kept.missed,
        lost=kept.lost,
        group=definition.group if is_event else None,
        event=definition.event if is_event else None,
        data=from_json(definition.data) if is_event else None,
    )


def _kind_of(definition: Definition) -> Kind:
    kinds: dict[str, Kind] = {"group": "group", "class": "class", "function": "function"}
    return kinds.get(definition.kind, "event")


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
