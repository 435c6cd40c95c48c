"""``consumers.schedules``: what runs by itself, to see and to control, in whatever process it runs."""

import asyncio
import random
import secrets
from collections.abc import Callable
from typing import Any, TypeVar, cast

from pydantic_core import from_json

from .addressing import GROUP, SCHEDULES, event_for_group, message_packet
from .codecs import encode_json
from .exceptions import BrokerUnavailable, ImproperlyConfigured, NotFound, Problem
from .fanning import Member
from .hub import Hub
from .marks import ScheduleMark
from .options import ConsumerOptions
from .schedule_status import RunningNow, ScheduleStatus, status_of
from .schedule_stores import Definition, Kept, ScheduleStore, encode_timing
from .scheduled import Scheduled, ScheduledRun, compile_scheduled
from .scheduler import Entry, Scheduler, entry_of
from .timings import BadTiming, timing_of

__all__ = ["RunningNow", "ScheduleStatus", "ScheduledRun", "Schedules"]

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds after which it is looked up again what others created or deleted: the news of it may have been lost.
RELOAD = 60.0
#: Longest name of an event that is created, in characters, and most bytes of its data in JSON.
MAX_EVENT, MAX_DATA = 255, 64 * 1024


class Schedules:
    """What runs by itself in an application: of its classes, of its functions, and what was created at run time.

    All methods may be called in any process; they raise ``BrokerUnavailable`` while the store cannot be reached.

    Args:
        consumers: the application's.
        store: where schedules are kept; ``None`` if there is no place that all processes share.
        is_asked_for: whether the process takes part even if nothing in its code is on a schedule.
    """

    def __init__(self, consumers: Any, store: ScheduleStore | None, *, is_asked_for: bool = False) -> None:
        self.store = store
        self._consumers = consumers
        self._is_asked_for = is_asked_for
        self._code: dict[str, Scheduled] = {}
        self._scheduler: Scheduler | None = None
        self._starting: asyncio.Lock | None = None
        self._member: Member | None = None
        self._hub: Hub | None = None
        #: Whether the application's lifespan says when to start.
        self.waits = False

    # -- what is in the code ---------------------------------------------------------------------------------------

    def add_class(self, options: ConsumerOptions) -> None:
        """Learn what a class has on schedules. Raises ``ImproperlyConfigured``."""
        for scheduled in options.schedules.values():
            former = self._code.get(scheduled.name)
            if former is None or former.cls is not scheduled.cls:
                self._add(scheduled, options.name)

    def add(self, mark: ScheduleMark, function: F) -> F:
        """Put a function on a schedule. Raises ``ImproperlyConfigured``."""
        if not isinstance(cast(object, mark), ScheduleMark):
            problem = Problem("bad-schedule", "schedule()", repr(mark), "every(…) or cron(…)", 'write every("30s")')
            raise ImproperlyConfigured("schedule()", [problem])
        where = getattr(function, "__qualname__", repr(function))
        problems: list[Problem] = []
        scheduled = compile_scheduled(mark.name or where, mark, function, where, problems)
        if scheduled is None:
            raise ImproperlyConfigured(where, problems)
        self._add(scheduled, where)
        return function

    def _add(self, scheduled: Scheduled, where: str) -> None:
        former = self._code.get(scheduled.name)
        if former is not None:
            found = f"the name {scheduled.name!r}, which {former.function!r} has too"
            fix = 'give one of them another name: every("30s", name="…")'
            problem = Problem("schedule-name-taken", where, found, "one schedule of each name", fix)
            raise ImproperlyConfigured(where, [problem])
        if self.store is None:
            raise ImproperlyConfigured(where, [_no_store(where)])
        self._code[scheduled.name] = scheduled
        if self._scheduler is not None:
            self._scheduler.spawn(self._register_late(entry_of(scheduled)))

    async def _register_late(self, entry: Entry) -> None:
        scheduler = self._scheduler
        while scheduler is not None and scheduler is self._scheduler:
            try:
                await scheduler.register(entry)
                return
            except BrokerUnavailable:
                await asyncio.sleep(1.0)

    # -- the process's part ----------------------------------------------------------------------------------------

    @property
    def is_wanted(self) -> bool:
        """Whether this process takes part, so that there is something to open."""
        return self.store is not None and (bool(self._code) or self._is_asked_for)

    async def open(self) -> None:
        """Take part, if there is something to take part in. Raises what the store raises."""
        if self.is_wanted and not self.waits:
            await self._start()

    async def start(self) -> None:
        """The same, now that the application is up."""
        self.waits = False
        await self.open()

    async def _start(self) -> Scheduler:
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if self._scheduler is None:
                self._scheduler = await self._started()
            return self._scheduler

    async def _started(self) -> Scheduler:
        store, hub = self.store, self._consumers.hub
        if store is None:
            raise ImproperlyConfigured("The schedules", [_no_store("consumers.schedules")])
        await store.open()
        scheduler = Scheduler(store, self._consumers, self._groups_of, hub.process, on_back=self._reload)
        try:
            for scheduled in self._code.values():
                await scheduler.register(entry_of(scheduled))
            member = Member(hub.new_channel(), _nothing, self._receive, _nothing, 1)
            await hub.join(SCHEDULES, member)
            self._member, self._hub = member, hub
            await self._load(scheduler)
        except BaseException:
            await self._end(scheduler)
            raise
        self._plan_reload(scheduler)
        return scheduler

    async def stop(self) -> None:
        """Take no part any more: nothing begins, and what runs gets some time to end."""
        scheduler, self._scheduler, self._starting = self._scheduler, None, None
        if scheduler is not None:
            await self._end(scheduler)

    async def _end(self, scheduler: Scheduler) -> None:
        member, hub, self._member, self._hub = self._member, self._hub, None, None
        try:
            await scheduler.stop()
            if member is not None and hub is not None:
                await hub.leave_all(member)
        finally:
            await scheduler.store.close()

    def forget(self) -> None:
        """What was open was so in an event loop that is gone."""
        self._scheduler = self._starting = self._member = self._hub = None

    async def _ready(self) -> tuple[ScheduleStore, Scheduler]:
        self._is_asked_for = True
        await self._consumers.open()
        scheduler = await self._start()
        return scheduler.store, scheduler

    def _groups_of(self, cls: type[Any]) -> list[str]:
        """The groups that have members of a class in this process."""
        found: set[str] = set()
        for connection in self._consumers.connections:
            if connection.plan.cls is cls and connection.is_accepted and not connection.is_closing:
                found.update(topic for topic in connection.member.topics if topic.startswith(GROUP))
        return [topic[len(GROUP) :] for topic in found]

    # -- what others say -------------------------------------------------------------------------------------------

    def _receive(self, message: dict[str, Any]) -> None:
        scheduler = self._scheduler
        if scheduler is None:
            return
        if message["type"] == "changed":
            scheduler.spawn(self._reload())
        elif message["type"] == "run":
            scheduler.run_now(message["name"], message["group"], message["request"])

    async def _tell(self, **message: Any) -> None:
        await self._consumers.hub.publish(SCHEDULES, message_packet(message))

    async def _reload(self) -> None:
        scheduler = self._scheduler
        if scheduler is not None:
            self._plan_reload(scheduler)
            try:
                await self._load(scheduler)
            except BrokerUnavailable:
                pass  # It is tried again.

    def _plan_reload(self, scheduler: Scheduler) -> None:
        if scheduler.store.is_distributed:
            when = scheduler.deadlines.clock() + RELOAD * (0.75 + random.random() / 2)
            scheduler.deadlines.set("reload", when, lambda: scheduler.spawn(self._reload()))

    async def _load(self, scheduler: Scheduler) -> None:
        """Run what was created, and nothing that was deleted."""
        created = {kept.definition.name: kept.definition for kept in await scheduler.store.load()}
        created = {name: each for name, each in created.items() if each.is_created and name not in self._code}
        for name, entry in tuple(scheduler.entries.items()):
            if entry.definition.is_created and name not in created:
                scheduler.forget(name)
        for name, definition in created.items():
            known = scheduler.entries.get(name)
            if known is None or known.definition != definition:
                try:
                    entry = self._created(definition)
                except (BadTiming, KeyError):  # Of a version that knows more, or without the extra.
                    continue
                await scheduler.adopt(entry)

    def _created(self, definition: Definition) -> Entry:
        consumers, group, data = self._consumers, definition.group, from_json(definition.data)

        async def broadcast(run: ScheduledRun) -> None:
            # Where it can be known, it is sent once, also if the process died before it could say that it had.
            key = f"{definition.name}@{run.at.timestamp()}" if consumers.histories.of(group) is not None else None
            await consumers.broadcast(group, definition.event, data, idempotency_key=key)

        timing = timing_of(from_json(definition.timing))
        return Entry(Scheduled(definition.name, "event", timing, broadcast, frozenset({"run"})), definition)

    # -- the API ---------------------------------------------------------------------------------------------------

    async def list(self) -> "list[ScheduleStatus]":
        """All schedules, by name: those of the code of any process that ran, and those that were created."""
        store, scheduler = await self._ready()
        return [_status(kept, scheduler) for kept in sorted(await store.load(), key=_name_of)]

    async def get(self, name: str) -> ScheduleStatus:
        """One schedule. Raises ``NotFound``."""
        store, scheduler = await self._ready()
        for kept in await store.load(name):
            return _status(kept, scheduler)
        raise NotFound

    async def create(
        self, name: str, when: ScheduleMark, *, group: str, event: str, data: Any = None, replace: bool = False
    ) -> ScheduleStatus:
        """Broadcast an event to a group when ``when`` says, such as ``every("30s")`` or ``cron("0 9 * * *")``.

        It is kept until it is deleted, and one of the processes that are there does it each time.

        Args:
            data: anything that pydantic can serialise to JSON, up to 64 KiB of it.
            replace: put it in the place of one of this name that was created before; its pause and its counts stay.

        Raises ``ImproperlyConfigured`` for a name that is taken or cannot be one, and for a ``when`` that says nothing;
        otherwise as :meth:`Consumers.broadcast` does for what cannot be broadcast.
        """
        problems = [problem._replace(where="create()") for problem in getattr(when, "problems", ())]
        timing = getattr(when, "timing", None)
        expected, fix = "every(…) or cron(…) without a name, timeout or take_over", 'write every("30s")'
        is_plain = isinstance(cast(object, when), ScheduleMark) and (when.name, when.timeout) == (None, None)
        if not is_plain or not when.take_over:
            problems.append(Problem("bad-schedule", "create()", repr(when), expected, fix))
        if not isinstance(cast(object, name), str) or not 0 < len(name) <= 128 or not name.isprintable():
            expected = "text of 1 to 128 printable characters"
            problems.append(Problem("bad-schedule-name", "create()", repr(name)[:200], expected, "choose another name"))
        event_for_group(group, event, data)
        encoded = encode_json(data)
        if not event or len(event) > MAX_EVENT or len(encoded) > MAX_DATA:
            found = f"an event of {len(event)} characters with {len(encoded)} bytes of data"
            expected = f"1 to {MAX_EVENT} characters, and up to {MAX_DATA} bytes"
            problems.append(Problem("bad-schedule-event", "create()", found, expected, "send an id in place of data"))
        if problems or timing is None:
            raise ImproperlyConfigured("create()", problems)
        store, scheduler = await self._ready()
        known = await store.load(name)
        definition = Definition(name, "event", encode_timing(timing.to_dict()), group, event, encoded)
        is_taken = name in self._code or bool(known and not (replace and known[0].definition.is_created))
        if is_taken or not await scheduler.register(self._created(definition), replace=replace):
            fix = "choose another name, or write replace=True if that one was created too"
            problem = Problem("schedule-name-taken", "create()", repr(name), "a name of its own", fix)
            raise ImproperlyConfigured("create()", [problem])
        await self._tell(type="changed")
        return await self.get(name)

    async def pause(self, name: str) -> ScheduleStatus:
        """Begin no run until it is resumed, in any process, also after a restart. Raises ``NotFound``."""
        return await self._set_paused(name, True)

    async def resume(self, name: str) -> ScheduleStatus:
        """Go on with the next moment. Those in between are not missed. Raises ``NotFound``."""
        return await self._set_paused(name, False)

    async def _set_paused(self, name: str, paused: bool) -> ScheduleStatus:
        store, scheduler = await self._ready()
        if not await store.set_paused(name, paused, scheduler.now()):
            raise NotFound
        return await self.get(name)

    async def delete(self, name: str) -> None:
        """Forget one that was created, or that is in no code any more; a run goes on.

        Raises ``NotFound``, and ``ValueError`` for one that is in the code of this process: pause it instead.
        """
        store, scheduler = await self._ready()
        if name in self._code:
            raise ValueError(f"The schedule {name!r} is in the code. It can be paused, and deleted there.")
        if not await store.delete(name):
            raise NotFound
        scheduler.forget(name)
        await self._tell(type="changed")

    async def run_now(self, name: str, group: str | None = None) -> None:
        """Have it run once, besides its moments, also while it is paused. Returns before it has.

        Nothing happens where it is running already.

        Args:
            group: of a schedule that runs for each group, only this one.

        Raises ``NotFound``, and ``BrokerUnavailable`` if other processes cannot be told.
        """
        store, _ = await self._ready()
        if not await store.load(name):
            raise NotFound
        await self._tell(type="run", name=name, group=group, request=secrets.token_hex(8))


def _status(kept: Kept, scheduler: Scheduler) -> ScheduleStatus:
    return status_of(kept, scheduler.now(), is_here=kept.definition.name in scheduler.entries)


def _name_of(kept: Kept) -> str:
    return kept.definition.name


def _no_store(where: str) -> Problem:
    return Problem(
        "no-schedule-store",
        where,
        "schedules, over a transport that reaches several processes and keeps nothing",
        "a place where all processes see the same",
        'add_consumers(…, schedules_url="redis://…"), or "memory://" if each process may run them by itself',
    )


def _nothing(*_: object) -> None:
    return None
