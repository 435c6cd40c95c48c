"""The runs of one process: each is held by a lease that is renewed while it goes on, and ends with what became of it.

What can be held no longer is cancelled here before others may begin it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from .exceptions import BrokerUnavailable
from .redaction import without_input
from .schedule_stores import Answer, Claim, Held, Outcome, Result, ScheduleStore
from .scheduled import Scheduled, ScheduledRun
from .timings import Timing

logger = logging.getLogger(__name__)

#: Seconds that a run is held for, of which a third passes before it is said again that it goes on.
LEASE = 15.0
#: The same in a store that no other process has: it ends with this one.
OWN_LEASE = 366 * 86400.0
#: Seconds after which the store is asked again that could not be reached.
RETRY = 1.0
#: Leases in one renewal.
CHUNK = 100
#: Seconds that runs get to end when the application stops, and then to be cancelled.
STOP_TIMEOUT, CANCEL_TIMEOUT = 5.0, 2.0
#: Seconds for which it is tried to say that a run has ended.
FINISH_TIMEOUT = 300.0
#: Moments that are counted as missed at a time.
MAX_MISSED = 100_000


class _Hold:
    """A run that this process holds. ``until``: when its lease ends at the latest, by this process's own clock."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.task: asyncio.Task[None] | None = None
        self.is_lost = False
        #: Whether the function has returned, so that there is nothing to cancel any more.
        self.is_done = False

    def lose(self) -> None:
        self.is_lost = True
        if not self.is_done and self.task is not None:
            self.task.cancel()


class Runs:
    """What one process runs of what a store granted it.

    Args:
        consumers: what functions are given that ask for it.
        lost_store, found_store: told of each call that the store answered, or could not be reached for.
        monotonic, sleep: for leases.
    """

    def __init__(
        self,
        store: ScheduleStore,
        consumers: Any,
        lost_store: Callable[[BrokerUnavailable], None],
        found_store: Callable[[], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.store = store
        self.lease = LEASE if store.is_distributed else OWN_LEASE
        #: By schedule, the tasks of what runs.
        self.of: dict[str, set[asyncio.Task[None]]] = {}
        self._consumers = consumers
        self._lost_store, self._found_store = lost_store, found_store
        self._monotonic, self._sleep = monotonic, sleep
        self._held: dict[Held, _Hold] = {}
        self._renewing: asyncio.Task[None] | None = None
        #: Whether what is granted from now on is given back.
        self.is_stopping = False

    async def begin(self, scheduled: Scheduled, claim: Claim, group: str, answer: Answer, asked: float) -> None:
        """Run what was granted; give it back if this process stops. ``asked``: when, by the monotonic clock."""
        held = Held(claim.name, group, claim.token)
        if held in self._held:
            return  # Granted before, and the answer was lost.
        if self.is_stopping:
            await self._finish(held, Result("cancelled", give_back=scheduled.take_over))
            return
        hold = self._held[held] = _Hold(asked + self.lease)
        is_first = not (group or claim.manual) and answer.attempt == 1 and answer.previous
        missed = await _count(scheduled.timing, answer.previous, claim.tick) if is_first else 0
        run = ScheduledRun(
            claim.name,
            datetime.fromtimestamp(claim.tick / 1000, UTC),
            group or None,
            answer.attempt,
            missed,
            bool(claim.manual),
        )
        hold.task = asyncio.create_task(self._run(scheduled, held, hold, run), name=f"schedule {claim.name}")
        tasks = self.of.setdefault(claim.name, set())
        tasks.add(hold.task)
        hold.task.add_done_callback(lambda task: self._ended(claim.name, task))
        if self.store.is_distributed and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.create_task(self._renew(), name="fastapi_consumers: leases of schedules")

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self.of[name].discard(task)
        if not self.of[name]:
            del self.of[name]

    async def _run(self, scheduled: Scheduled, held: Held, hold: _Hold, run: ScheduledRun) -> None:
        try:
            if run.missed:
                await self._tell_missed(run)
            began = self._monotonic()
            outcome, error = await self._call(scheduled, run)
            hold.is_done = True
            if hold.is_lost:
                text = "a run of the schedule %s was given up: its lease could not be renewed"
                logger.warning(text, _named(run), extra=_extra(run))
                return
            give_back = outcome == "cancelled" and scheduled.take_over
            result = Result(outcome, error, self._monotonic() - began, give_back)
            if not await self._finish(held, result, hold):
                text = "a run of the schedule %s ended after others had taken over"
                logger.warning(text, _named(run), extra=_extra(run))
        finally:
            self._held.pop(held, None)

    async def _call(self, scheduled: Scheduled, run: ScheduledRun) -> tuple[Outcome, str]:
        try:
            async with asyncio.timeout(scheduled.timeout) as scope:
                await scheduled.call(self._consumers, run)
        except asyncio.CancelledError:  # By us: nobody else knows of this task.
            return "cancelled", ""
        except Exception as error:
            if isinstance(error, TimeoutError) and scope.expired():
                text = "the schedule %s was cancelled after %g s"
                logger.error(text, _named(run), scheduled.timeout, extra=_extra(run))
                return "timeout", f"cancelled after {scheduled.timeout:g} s"
            logger.error("the schedule %s failed", _named(run), exc_info=without_input(error), extra=_extra(run))
            return "error", type(error).__name__
        return "ok", ""

    async def _tell_missed(self, run: ScheduledRun) -> None:
        logger.info("the schedule %s missed %d runs before this one", _named(run), run.missed, extra=_extra(run))
        try:
            await self.store.add_missed(run.name, run.missed)
        except BrokerUnavailable as error:
            self._lost_store(error)

    async def _finish(self, held: Held, result: Result, hold: _Hold | None = None) -> bool:
        ends = self._monotonic() + FINISH_TIMEOUT
        while True:
            try:
                return await self.store.finish(held, result)
            except BrokerUnavailable as error:
                self._lost_store(error)
                if self.is_stopping or self._monotonic() > ends or (hold is not None and hold.is_lost):
                    return False
                await self._sleep(RETRY)

    async def _renew(self) -> None:
        """While something is held: nobody else runs it. What cannot be held any more is cancelled here first."""
        wait = LEASE / 3
        while self._held:
            await self._sleep(wait)
            held, asked, wait = list(self._held), self._monotonic(), LEASE / 3
            for start in range(0, len(held), CHUNK):
                some = held[start : start + CHUNK]
                try:
                    answers = await self.store.renew(some, LEASE)
                except BrokerUnavailable as error:
                    self._lost_store(error)
                    wait = RETRY
                    answers = [False] * len(some)
                    is_certain = False
                else:
                    self._found_store()
                    is_certain = True
                for each, is_held in zip(some, answers, strict=True):
                    hold = self._held.get(each)
                    if hold is None:
                        continue
                    if is_held:
                        hold.until = asked + LEASE
                    elif is_certain or (not hold.is_done and self._monotonic() + RETRY >= hold.until):
                        hold.lose()

    async def stop(self) -> None:
        """Give what runs some time to end, then cancel it. Others may run again what did not end."""
        self.is_stopping = True
        for timeout in (STOP_TIMEOUT, CANCEL_TIMEOUT):
            if runs := [task for tasks in self.of.values() for task in tasks]:
                _, pending = await asyncio.wait(runs, timeout=timeout)
                for task in pending:
                    task.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait((self._renewing,), timeout=CANCEL_TIMEOUT)


def _named(run: ScheduledRun) -> str:
    return f"{run.name!r}" if run.group is None else f"{run.name!r} for the group {run.group!r}"


def _extra(run: ScheduledRun) -> dict[str, Any]:
    """The ``extra`` of a log record about a run."""
    extra = {"schedule": run.name, "due_at": run.at.timestamp(), "attempt": run.attempt}
    return extra if run.group is None else {**extra, "group": run.group}


async def _count(timing: Timing, since: int, until: int) -> int:
    total = 0
    for part in timing.between(since, until):
        total += part
        if total >= MAX_MISSED:
            break
        await asyncio.sleep(0)
    return total
