"""``Consumers``: all that one application keeps for its consumers. There is one for each app, found on its state."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any

from .actions import Action
from .addressing import GROUP
from .admission import Admission
from .asking import Asking
from .backends import HistoryBackend, ScheduleBackend, history_backend, presence_store, schedule_backend
from .builtin_actions import BUILTINS, PRESENCE_BUILTINS
from .deadlines import Deadlines
from .declared_events import DeclaredEvents
from .draining import DRAIN_TIMEOUT, Draining
from .exceptions import ImproperlyConfigured, Problem
from .health import Broker, BrokerEvent, F, Health
from .histories import Histories
from .history import History
from .hub import Hub
from .inbox import Watch
from .lanes import Lane, find_lane
from .layer import ChannelLayer
from .marks import ScheduleMark
from .membership import Membership
from .observed import ObservedHub
from .observing import Observing
from .options import ConsumerOptions
from .outreach import Outreach
from .plan import Defaults, Plan
from .presence import PresenceStore
from .printable import printable
from .redaction import QueryRedaction
from .reporting import answerers
from .schedules import F as Function
from .schedules import Schedules
from .throttling import Buckets, Rate, RedisBuckets, TokenBuckets
from .transports import MemoryTransport, Transport
from .types import CloseCode, Send

logger = logging.getLogger(__name__)

#: Seconds that open sockets get to end when the application stops.
SHUTDOWN_TIMEOUT = 5.0


class Consumers(Outreach):
    """The consumers of one application: its hub, its policies' defaults, and ways to reach its sockets.

    ``add_consumers`` makes it and puts it on ``app.state.consumers``. All methods may be called from HTTP endpoints and
    background tasks of the same event loop.
    """

    __consumer_parameter__ = "consumers"

    def __init__(
        self,
        transport: Transport | None = None,
        defaults: Defaults | None = None,
        *,
        history: HistoryBackend | None = None,
        presence: PresenceStore | None = None,
        direct_writes: bool = True,
        buckets: Buckets | None = None,
        connection_rates: tuple[Rate, ...] = (),
        observing: Observing | None = None,
        drain_timeout: float = DRAIN_TIMEOUT,
        max_connections: int | None = None,
        schedules: ScheduleBackend | None = None,
        counts: Callable[[], bool] | None = None,
    ) -> None:
        self.observing = observing if observing is not None else Observing()
        #: Asked when it opens, which is before its first connection: whether messages and bytes are to be counted.
        self._counts = counts
        self._direct_writes = direct_writes
        #: What ``add_consumers`` was told of the documentation: an ``AsyncAPI``, or nothing.
        self.asyncapi: Any = None
        #: The ways to a socket that the log has named; there are a handful.
        self._lanes_told: set[str] = set()
        self._origin_told = False
        self.defaults = defaults if defaults is not None else Defaults()
        #: Keeps tokens that are in queries out of the server's log while it is open.
        self._redaction = QueryRedaction(key) if (key := self.defaults.token_keys.query) is not None else None
        #: Scopes and rates that endpoints of HTTP have counted by here: one for each endpoint that has a limit.
        self.http_limits: set[tuple[str, tuple[Rate, ...]]] = set()
        self.buckets: Buckets = buckets if buckets is not None else TokenBuckets()
        #: What it opens and closes, also if a test puts others in the place of ``buckets``.
        self._shared_buckets = buckets if isinstance(buckets, RedisBuckets) else None
        self._new_admission = partial(Admission, connection_rates, max_connections=max_connections)
        self.admission = self._new_admission()
        self.watch = Watch()
        #: When credentials end, on the clock of the wall; and until when sockets may be nobody's.
        self.expiries, self.deadlines = Deadlines(time.time), Deadlines(time.monotonic)
        self.connections: set[Any] = set()
        #: Overflow policy to how many events it dropped in this process; ``disconnect``: how many sockets it closed.
        self.overflows: Counter[str] = Counter()
        #: What those connections had sent and dropped that have ended, so that sums over all never go down.
        self.past: Counter[str] = Counter()
        self._transport = transport if transport is not None else MemoryTransport()
        #: Which groups have a history, and where it is kept.
        self.histories = Histories()
        #: Which events its groups have.
        self.declared_events = DeclaredEvents()
        self._history = history if history is not None else history_backend(self._transport, None)
        self._saved: Mapping[str, History] = {}
        self._keeps_history = False
        self._presence = presence if presence is not None else presence_store(self._transport, None)
        self._broker = Broker(observing=self.observing)
        backend = schedules if schedules is not None else schedule_backend(self._transport, None, self._history.store)
        #: What runs by itself: to see, to pause, to create.
        self.schedules = Schedules(self, backend.store, is_asked_for=backend.is_asked_for)
        self._drain_timeout = drain_timeout
        self.draining = self._new_draining()
        self.hub = self._new_hub()
        self.membership = Membership(self.hub, self._presence)
        self.asking = self._new_asking()
        self.layer = ChannelLayer(self._ready_hub)
        self._plans: dict[type[Any], Plan] = {}
        #: The event loop that it is open in, and the one that it is being opened in with the task that does so.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None
        #: The event loop that it was closed in: there nothing but :meth:`open` opens it again.
        self._closed_in: asyncio.AbstractEventLoop | None = None
        for observer in self.observing.observers:
            observer.attached(self)

    def find_lane(self, send: Send) -> Lane | None:
        """The short way to the socket behind an ASGI ``send``, if there is one and it may be used."""
        lane, description = find_lane(send) if self._direct_writes else (None, "direct_writes=False")
        if description not in self._lanes_told:
            self._lanes_told.add(description)
            way = "written straight to" if lane is not None else "handed to the server's send():"
            logger.info("frames are %s %s", way, description)
        return lane

    @property
    def is_distributed(self) -> bool:
        """Whether what is broadcast here can reach the sockets of other processes."""
        return self._transport.is_distributed

    def tell_of_origin(self, origin: str) -> None:
        """Warn of the first page that may not connect: who wrote the application may have meant it to.

        The browser does not tell the page why. Later ones are in the access log, which hostile pages cannot fill up
        any more than others.
        """
        if not self._origin_told:
            self._origin_told = True
            logger.warning(
                "a page of %s was refused, because this application is served from elsewhere: if it is yours, add it "
                "to allowed_origins; later ones are in the access log only",
                printable(origin, 128),
            )

    @property
    def is_open(self) -> bool:
        """Whether its resources are open in the running event loop, or in any if none runs."""
        if self._loop is None:
            return False
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return not self._loop.is_closed()

    async def open(self) -> None:
        """Open the transport. Called by the app's lifespan; at first use where nobody runs that.

        Raises what the transport raises, and then is not open; ``RuntimeError`` while it is open in another event loop
        that runs, in another thread.
        """
        if self.is_open:
            return
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop.is_running():
            raise RuntimeError(
                "The consumers of this app are open in another event loop, in another thread; the sockets there cannot "
                "be reached from this one. With Starlette's TestClient use `with TestClient(app) as client`, so that "
                "all of its requests share one loop."
            )
        if self._opening is None or self._opening[0] is not loop:
            self._opening = loop, loop.create_task(self._open(loop))
        # Shielded: others may wait for the same, and opening half of it would help nobody.
        await asyncio.shield(self._opening[1])

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            # It was opened in an event loop that is gone, as in a test without lifespan: nothing of it is left.
            self._loop = None
            self.schedules.forget()
            self._renew()
        try:
            if self._counts is not None and self._counts():
                self.observing.counts = True
            await self.hub.open()
            await self.membership.open()
            await self.asking.open()
            await self.prepare_history()
            if self._shared_buckets is not None:
                await self._shared_buckets.open()
            await self.schedules.open()
        except BaseException:
            try:
                await self.membership.close()
            finally:
                await self.hub.close()
            raise
        else:
            self._loop, self._closed_in = loop, None
            self.draining.arm()
            if self._redaction is not None:
                self._redaction.install()
        finally:
            self._opening = None

    def _new_hub(self) -> Hub:
        history = self._history
        make = ObservedHub if self.observing.packets else Hub
        return make(
            self._transport,
            history.store,
            store_publishes=history.publishes,
            broker=self._broker,
            observing=self.observing,
        )

    def _new_asking(self) -> Asking:
        asking = Asking(self.hub)
        for question, answerer in answerers(self).items():
            asking.answer(question, answerer)
        return asking

    def _new_draining(self) -> Draining:
        spreads = self._transport.is_distributed
        return Draining(self.connections, self._drain_timeout, spreads=spreads, beside=self.schedules.stop)

    def _renew(self) -> None:
        self.draining.close()
        self.hub = self._new_hub()
        self.membership = Membership(self.hub, self._presence)
        self.asking = self._new_asking()
        self.watch, self.connections = Watch(), set()
        self.draining = self._new_draining()
        self.admission = self._new_admission()
        self.expiries, self.deadlines = Deadlines(time.time), Deadlines(time.monotonic)

    def add_history(self, options: ConsumerOptions) -> None:
        """Learn what a class says of its groups' history. Raises ``ImproperlyConfigured``."""
        if options.history is not None and self._history.store is None:
            problem = Problem(
                "history-store-missing",
                f"{options.name}.history",
                repr(options.history),
                "a place to keep it that all processes share",
                'name one in add_consumers(…, history_url="redis://…"), or sqlite+aiosqlite:/// or postgresql://',
            )
            raise ImproperlyConfigured(options.name, [problem])
        self._keeps_history |= options.history is not None
        self.histories.add(options)

    def check_presence(self, options: ConsumerOptions) -> None:
        """Raises ``ImproperlyConfigured`` for a class that needs what processes share, where they share nothing."""
        limit = options.limits.get("max_connections", self.defaults.limits.max_connections)
        needs = [name for name, value in (("presence", options.presence), ("max_connections", limit)) if value]
        if needs and (problems := self.membership.problems_of(options.name, needs=" and ".join(needs))):
            raise ImproperlyConfigured(options.name, problems)

    async def prepare_history(self) -> None:
        """Open the store once a class has a history, and tell it of which groups, for publishers in other programs."""
        streams, templates = self.hub.streams, self.histories.templates
        if streams is None or not self._keeps_history:
            return
        await streams.open()
        if templates != self._saved:
            await streams.store.save_templates(templates)
            self._saved = templates

    def schedule(self, when: ScheduleMark) -> Callable[[Function], Function]:
        """Have a coroutine function run by itself, once over all processes: ``@consumers.schedule(every("5m"))``.

        It is given what it names of ``consumers`` and ``run``, a ``ScheduledRun``. All processes that are to run it say
        so, at any time; the schedule's name is the function's, if ``when`` has none. Raises ``ImproperlyConfigured``.
        """
        return lambda function: self.schedules.add(when, function)

    def on_broker(self, event: BrokerEvent) -> Callable[[F], F]:
        """Register a function, sync or async, without arguments: ``"lost"`` is called when packets of other processes
        may be missed from now on, ``"back"`` when they are received again. Raises ``ValueError`` for another name.
        """

        handlers = self._broker.handlers(event)

        def decorate(function: F) -> F:
            handlers.append(function)
            return function

        return decorate

    def health(self) -> Health:
        """How this process is, for a health endpoint; it asks nobody, and takes no time."""
        streams = self.hub.streams
        return Health(
            healthy=self.is_open and self._transport.is_healthy,
            draining=self.draining.has_begun,
            broker_lost_for=self._broker.lost_for,
            broker_losses=self._broker.losses,
            connections=len(self.connections),
            groups=sum(topic.startswith(GROUP) for topic in self.hub.topics()),
            bad_packets=self.hub.bad_packets,
            overflows=dict(self.overflows),
            transport=dict(self._transport.counters),
            history=streams.counters if streams is not None else {},
            limiter=dict(self._shared_buckets.counters) if self._shared_buckets is not None else {},
        )

    async def _ready_hub(self) -> Hub:
        if not self.is_open:
            if self._closed_in is asyncio.get_running_loop():
                raise RuntimeError(
                    "The consumers of this app are closed, as its lifespan has ended: nobody would hear of this. End "
                    "what publishes, such as a background task, in the app's own lifespan, which ends before; or call "
                    "open() to go on."
                )
            await self.open()
        return self.hub

    def check(self) -> None:
        """Called when the app's own lifespan has started. Raises ``ImproperlyConfigured`` if it broke the transport."""
        self._transport.check()

    async def drain(self, timeout: float | timedelta | None = None) -> None:
        """Take this process out of service: let no new sockets in, and close those that there are, over a while.

        It begins by itself when the server is told to stop. New handshakes are refused with 503 and ``service_restart``
        from then on. Members are told ``closing``, actions that run come to their end, and sockets close with 1012.

        Args:
            timeout: seconds that it may take; by default what ``add_consumers`` was given as ``drain_timeout``. What
                still runs when nine tenths are over is cancelled.

        Returns when no connection is left, or the time is over. A second call waits for the end of the first. There is
        no way back but a restart. An action that waits for it is one that runs: it is cancelled in the end.
        """
        await self.draining.drain(timeout.total_seconds() if isinstance(timeout, timedelta) else timeout)

    async def close(self) -> None:
        """Close what is open: sockets with 1012, then the transport.

        What publishes, counts or reads in the same event loop raises ``RuntimeError`` from then on, until ``open``.
        """
        if not self.is_open:
            return
        await self.schedules.stop()
        await self.close_sockets()
        self._broker.close()
        self.watch.close()
        self.expiries.close()
        self.deadlines.close()
        if self._shared_buckets is not None:
            await self._shared_buckets.close()
        await self.asking.close()
        try:
            await self.membership.close()
        finally:
            try:
                await self.hub.close()
            finally:
                self._loop, self._closed_in = None, self._loop
                self._renew()
                if self._redaction is not None:
                    self._redaction.remove()

    async def close_sockets(self) -> None:
        """Close all sockets of this process with 1012, and wait for their consumers to be torn down."""
        for connection in tuple(self.connections):
            connection.shut(CloseCode.SERVICE_RESTART, "service_restart")
        ending = [connection.ended for connection in tuple(self.connections)]
        if ending:
            _, pending = await asyncio.wait(ending, timeout=SHUTDOWN_TIMEOUT)
            if pending:
                logger.warning("%d connections did not end within %s s", len(pending), SHUTDOWN_TIMEOUT)

    async def __aenter__(self) -> "Consumers":
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def presence_store(self) -> PresenceStore | None:
        """Where it is kept who is present; ``None`` if nothing that processes share can serve."""
        return self._presence

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Those that have been made so far."""
        return tuple(self._plans.values())

    def plan(self, cls: type[Any]) -> Plan:
        """Everything decided for one class. Raises ``ImproperlyConfigured`` for annotations that do not resolve."""
        plan = self._plans.get(cls)
        if plan is None or plan.options is not cls._meta:
            builtins: Mapping[str, Action] = BUILTINS if getattr(cls, "_has_actions", False) else {}
            if builtins and cls._meta.presence is not None:
                builtins = {**builtins, **PRESENCE_BUILTINS}
            plan = Plan(cls, self.defaults, builtins)
            self.declared_events.add(plan.options)
            self.add_history(plan.options)
            self.check_presence(plan.options)
            self.schedules.add_class(plan.options)
            self._plans[cls] = plan
        return plan
