"""What is due in one process, and when: it asks the store for each moment, and runs what it is granted.

There is no leader. Every process that has a schedule wakes for each of its moments, a little later than others, and
claims it. Who is refused looks again when the lease of who runs it is over. Nothing wakes while nothing is scheduled.
"""

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from itertools import count
from typing import Any

from .deadlines import Deadlines
from .exceptions import BrokerUnavailable
from .schedule_stores import Answer, Claim, Definition, ScheduleStore, encode_timing
from .scheduled import Scheduled
from .scheduled_runs import CANCEL_TIMEOUT, LEASE, RETRY, Runs

logger = logging.getLogger(__name__)

#: Seconds that others wait beyond the end of a lease, so that who could not reach the store can come first.
SLACK = 3.0
#: Seconds after which a moment whose run could not begin is passed over.
LATE = 60.0
#: Seconds by which processes that share a store differ, at most.
JITTER = 0.25
#: Runs of one schedule at a time, in one process.
CONCURRENT_RUNS = 64


class Entry:
    """A schedule in this process."""

    def __init__(self, scheduled: Scheduled, definition: Definition) -> None:
        self.scheduled = scheduled
        self.definition = definition
        #: The moment that is waited for, and the last one that came.
        self.next = 0
        self.last = 0


def entry_of(scheduled: Scheduled) -> Entry:
    """The entry for something in the code."""
    timing = encode_timing(scheduled.timing.to_dict())
    return Entry(scheduled, Definition(scheduled.name, scheduled.kind, timing))


class Scheduler:
    """Schedules of one process over one store, from ``start`` to ``stop``.

    Args:
        consumers: what functions are given that ask for it.
        groups_of: the groups that have members of a class here.
        token: unique over all processes.
        on_back: called when the store is reached again.
        clock: seconds since 1970. A test may turn it, and call ``deadlines.look()``.
        monotonic, sleep: for leases.
    """

    def __init__(
        self,
        store: ScheduleStore,
        consumers: Any,
        groups_of: Callable[[type[Any]], list[str]],
        token: str,
        *,
        on_back: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.store = store
        self.entries: dict[str, Entry] = {}
        self.deadlines = Deadlines(clock)
        self.process = f"{socket.gethostname()}/{os.getpid()}"
        self.runs = Runs(store, consumers, self._lost_store, self._found_store, monotonic=monotonic, sleep=sleep)
        self._groups_of = groups_of
        self._token = token
        self._on_back = on_back
        self._monotonic = monotonic
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_stopping = False
        self._is_away = False
        #: Until when nothing is taken over, since its holder may have been kept from the store as we were.
        self._takes_over_after = 0.0

    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self.deadlines.clock() * 1000)

    # -- what there is ---------------------------------------------------------------------------------------------

    async def register(self, entry: Entry, *, replace: bool = True) -> bool:
        """Keep a schedule, and run it from now on; ``False`` if there is one of its name that is not replaced.

        Raises ``BrokerUnavailable``.
        """
        if not await self.store.save(entry.definition, self.now(), replace=replace):
            return False
        await self.adopt(entry)
        return True

    async def adopt(self, entry: Entry) -> None:
        """Run one that is kept already. Raises ``BrokerUnavailable``."""
        name = entry.scheduled.name
        kept = await self.store.load(name)
        self.entries[name] = entry
        self._plan(entry)
        if kept and kept[0].unfinished and entry.scheduled.take_over:
            # Whoever ran it may not live any more: all processes may have been started anew.
            wait = kept[0].left + SLACK if kept[0].left else 0.0
            self._look_again(entry, kept[0].unfinished, [""], wait)

    def forget(self, name: str) -> None:
        """Run it no more. A run goes on."""
        self.entries.pop(name, None)
        self.deadlines.discard(("tick", name))

    def run_now(self, name: str, group: str | None, request: str) -> None:
        """Somebody asked for a run, of all processes that can run it."""
        entry = self.entries.get(name)
        if entry is None or self._is_stopping:
            return
        groups = None if group is None or entry.scheduled.kind != "group" else [group]
        self._spawn(self._attempt(entry, self.now(), self._new_token(), groups, manual=request))

    # -- moments ---------------------------------------------------------------------------------------------------

    def _plan(self, entry: Entry) -> None:
        entry.next = entry.scheduled.timing.after(max(self.now(), entry.last))
        self._at(("tick", entry.scheduled.name), entry.next / 1000 + self._jitter(), partial(self._due, entry))

    def _jitter(self) -> float:
        return JITTER * random.random() if self.store.is_distributed else 0.0

    def _at(self, owner: tuple[Any, ...], when: float, call: Callable[[], object]) -> None:
        if not self._is_stopping:
            self.deadlines.set(owner, when, call)

    def _due(self, entry: Entry) -> None:
        now = self.now()
        # What is older is passed over, and counted when the next one is granted.
        tick = entry.scheduled.timing.latest(max(entry.next - 1, now - int(LATE * 1000)), now)
        entry.last = max(entry.next, tick or 0)
        self._plan(entry)
        if tick is not None:
            self._spawn(self._attempt(entry, tick, self._new_token()))

    def _new_token(self) -> str:
        return f"{self._token}.{next(self._numbers)}"

    async def _attempt(
        self,
        entry: Entry,
        tick: int,
        token: str,
        groups: list[str] | None = None,
        *,
        only_lost: bool = False,
        manual: str = "",
    ) -> None:
        scheduled = entry.scheduled
        here = self._groups_here(entry, groups)
        random.shuffle(here)
        claim = Claim(
            scheduled.name,
            tick,
            self.process,
            token,
            self.runs.lease,
            keep=(scheduled.timing.after(tick) - tick) / 1000 + LATE,
            only_lost=only_lost,
            take_over=scheduled.take_over,
            manual=manual,
        )
        while here and not self._is_stopping:
            while len(running := self.runs.of.get(claim.name, ())) >= CONCURRENT_RUNS:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            some = here[: CONCURRENT_RUNS - len(running)]
            asked = self._monotonic()
            try:
                answers = await self.store.claim(claim, some)
            except BrokerUnavailable as error:
                self._lost_store(error)
                self._try_again(entry, claim, here)
                return
            self._found_store()
            here = here[len(some) :]
            for group, answer in zip(some, answers, strict=True):
                if answer.state == "granted":
                    await self.runs.begin(scheduled, claim, group, answer, asked)
            self._watch(entry, claim, some, answers)
            if answers[0].state == "unknown":
                await self._unknown(entry)
                return

    def _groups_here(self, entry: Entry, groups: list[str] | None) -> list[str]:
        if entry.scheduled.kind != "group" or entry.scheduled.cls is None:
            return [""]
        here = self._groups_of(entry.scheduled.cls)
        return here if groups is None else [group for group in groups if group in set(here)]

    def _try_again(self, entry: Entry, claim: Claim, groups: list[str]) -> None:
        if claim.only_lost:
            self._look_again(entry, claim.tick, groups, LEASE + SLACK)
            return
        now = self.deadlines.clock()
        if claim.manual == "" and entry.last > claim.tick:
            return  # A later moment has come, and is tried instead.
        if now - claim.tick / 1000 >= LATE:
            text = "the schedule %r is passed over once: its store cannot be reached"
            logger.warning(text, claim.name, extra={"schedule": claim.name})
            return
        call = partial(self._attempt, entry, claim.tick, claim.token, groups, manual=claim.manual)
        self._at(("again", claim.token), now + RETRY * (1 + random.random()), lambda: self._spawn(call()))

    def _watch(self, entry: Entry, claim: Claim, groups: Sequence[str], answers: Sequence[Answer]) -> None:
        """Look again at what others run when their leases have run out, unless the next moment comes first."""
        if claim.manual or not (entry.scheduled.take_over and self.store.is_distributed):
            return
        pairs = zip(groups, answers, strict=True)
        held = [(group, answer.left) for group, answer in pairs if answer.state in ("running", "overlap")]
        if held:
            wait = max(left for _, left in held) + SLACK + self._jitter()
            self._look_again(entry, claim.tick, [group for group, _ in held], wait)

    def _look_again(self, entry: Entry, tick: int, groups: list[str], wait: float) -> None:
        wait = max(wait, self._takes_over_after - self._monotonic())
        when = self.deadlines.clock() + wait
        if when * 1000 < entry.next:
            self._at(("look", self._new_token()), when, lambda: self._look(entry, tick, groups))

    def _look(self, entry: Entry, tick: int, groups: list[str]) -> None:
        if self.entries.get(entry.scheduled.name) is not entry:
            return
        if self._monotonic() < self._takes_over_after:
            self._look_again(entry, tick, groups, 0.0)
        else:
            self._spawn(self._attempt(entry, tick, self._new_token(), groups, only_lost=True))

    async def _unknown(self, entry: Entry) -> None:
        """The store has forgotten it, or somebody deleted it."""
        name = entry.scheduled.name
        if self.entries.get(name) is not entry:
            return
        if entry.definition.is_created:
            self.forget(name)
            return
        try:
            await self.store.save(entry.definition, self.now())
        except BrokerUnavailable as error:
            self._lost_store(error)

    def _lost_store(self, error: BrokerUnavailable) -> None:
        self._takes_over_after = self._monotonic() + LEASE + SLACK
        if not self._is_away:
            logger.warning("the store of schedules cannot be reached: %r", error.__cause__ or error)
        self._is_away = True

    def _found_store(self) -> None:
        if self._is_away:
            self._is_away = False
            logger.info("the store of schedules is reached again")
            if self._on_back is not None:
                self._spawn(self._on_back())

    # -- the end ---------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Begin nothing more, and end what runs, as ``Runs.stop`` does."""
        self._is_stopping = self.runs.is_stopping = True
        self.deadlines.close()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=CANCEL_TIMEOUT)
        await self.runs.stop()
        for task in tuple(self._tasks):
            task.cancel()
            await asyncio.wait((task,), timeout=CANCEL_TIMEOUT)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it in a task of its own, which ends when this stops. What it raises is logged."""
        self._spawn(work)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("schedules failed", exc_info=error)
