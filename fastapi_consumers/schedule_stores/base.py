"""What a store of schedules keeps, and promises: the comments here are its contract.

A schedule has *units*: the groups that it runs for, or a single one, whose name is empty. A process that finds a unit
due claims it. Who is granted a claim holds the unit by a lease until it says that it has finished.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from ..codecs import encode_json

#: How many times one moment's run is begun, if the processes that run it die.
ATTEMPTS = 3

#: What became of a claim.
#:
#: ``granted``: the caller runs it. ``done``: it has been run, or may not be any more. ``running``: another process
#: does, for this moment. ``overlap``: one still runs it for an earlier moment; this one is counted as missed.
#: ``paused``: nobody runs it. ``unknown``: there is no such schedule.
State = Literal["granted", "done", "running", "overlap", "paused", "unknown"]

#: How a run ended. ``cancelled``: by its process, which was stopped. ``lost``: its process died, or could not reach the
#: store for so long that others may have taken over.
Outcome = Literal["ok", "error", "timeout", "cancelled", "lost"]


class Definition(NamedTuple):
    """A schedule as it is kept.

    ``timing`` is JSON, an object. Those that were created at run time have a group and an event, with data in JSON;
    others are in the code of the processes that run them, which say so.
    """

    name: str
    kind: str
    timing: bytes
    group: str = ""
    event: str = ""
    data: bytes = b"null"

    @property
    def is_created(self) -> bool:
        """Whether it was created at run time, so that nothing but the store knows of it."""
        return self.kind == "event"


class Claim(NamedTuple):
    """A process that wants to run a schedule's units. Times are milliseconds since 1970, durations are seconds."""

    name: str
    #: The moment that it is due at.
    tick: int
    #: Who asks, for people; and by which the caller knows its own claims: who asks again is granted again.
    process: str
    token: str
    lease: float
    #: How long it is to be remembered that a group's unit was run for this moment.
    keep: float
    #: Only if a process began to run it for this moment, and its lease has run out.
    only_lost: bool = False
    #: Whether a run that was lost is to be run again.
    take_over: bool = True
    #: For a run that somebody asked for, an id of the request: of one request a unit is granted once.
    manual: str = ""


class Answer(NamedTuple):
    """``previous``: the moment that the unit was run for, or passed over, before this one. ``left``: for how many
    seconds it is held by who runs it."""

    state: State
    attempt: int = 0
    previous: int = 0
    left: float = 0.0


class Held(NamedTuple):
    """A unit that a process runs."""

    name: str
    group: str
    token: str


class Result(NamedTuple):
    """How a run ended. ``error`` is for people, ``seconds`` is how long it took.

    ``give_back``: it has not been run, and another process may.
    """

    outcome: Outcome
    error: str = ""
    seconds: float = 0.0
    give_back: bool = False


class Running(NamedTuple):
    """A unit that is being run. ``since``: milliseconds since 1970."""

    group: str
    process: str
    since: int


class Kept(NamedTuple):
    """All that is known of a schedule. Times are milliseconds since 1970, 0 for never."""

    definition: Definition
    paused: bool = False
    #: The moment up to which nothing is due: when it was made, or resumed.
    baseline: int = 0
    runs: int = 0
    errors: int = 0
    missed: int = 0
    lost: int = 0
    last_run: int = 0
    last_seconds: float = 0.0
    last_outcome: str = ""
    last_error: str = ""
    last_process: str = ""
    running: tuple[Running, ...] = ()
    #: The moment whose run its single unit has not finished, or 0; and how long its lease lasts, in seconds.
    unfinished: int = 0
    left: float = 0.0


class ScheduleStore(ABC):
    """Keeps schedules, and grants each run to one process.

    - Of any number of processes that claim a unit for one moment, one is granted it, once; and no two hold a unit at a
      time. Who holds it renews its lease; when that has run out, the next claim for the same moment is granted to
      whoever makes it, as another attempt, up to ``ATTEMPTS``.
    - A claim is refused for a moment that is not later than the last one that the unit was claimed for, or the
      schedule's baseline.
    - Leases are by the store's own clock, so that no two machines need to agree.
    - Schedules, their pauses and their counts stay until they are deleted; what is remembered of a group's unit goes by
      itself.
    - Where the store cannot be reached, everything raises
      :class:`~fastapi_consumers.exceptions.BrokerUnavailable` within the store's timeout. What raised may have been
      carried out.
    """

    #: Whether several processes see the same.
    is_distributed: bool = False

    @abstractmethod
    async def open(self) -> None:
        """Connect. Called before anything else, and again after ``close`` to start anew, in another event loop too."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything. Safe if ``open`` failed, and twice."""

    @abstractmethod
    async def save(self, definition: Definition, now: int, *, replace: bool = True) -> bool:
        """Keep a schedule. If it is new, or its timing is, its baseline is ``now``; pause and counts stay.

        Args:
            replace: ``False``: do nothing if there is one of this name.

        Returns whether it is kept as it was given.
        """

    @abstractmethod
    async def load(self, name: str | None = None) -> list[Kept]:
        """All schedules, or the one of this name if there is one, in no certain order."""

    @abstractmethod
    async def delete(self, name: str) -> bool:
        """Forget a schedule, with all that is known of it; ``False`` if there is none. A run goes on."""

    @abstractmethod
    async def set_paused(self, name: str, paused: bool, now: int) -> bool:
        """Pause or resume it; ``False`` if there is none. What is resumed has ``now`` as its baseline."""

    @abstractmethod
    async def add_missed(self, name: str, count: int) -> None:
        """Count moments that had no run."""

    @abstractmethod
    async def claim(self, claim: Claim, groups: Sequence[str]) -> list[Answer]:
        """One answer for each unit, in their order. A unit that is lost is counted, whether it is granted or not."""

    @abstractmethod
    async def renew(self, held: Sequence[Held], lease: float) -> list[bool]:
        """Renew leases. Whether each is the caller's still: it is, also if it had run out and nobody took it."""

    @abstractmethod
    async def finish(self, held: Held, result: Result) -> bool:
        """Say that a run has ended; ``False`` if it was not the caller's any more, and then nothing is kept of it."""


def encode_timing(timing: dict[str, Any]) -> bytes:
    """As definitions have it: of two that are the same, the bytes are."""
    return encode_json(dict(sorted(timing.items())))
