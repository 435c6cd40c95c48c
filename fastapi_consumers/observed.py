"""The dispatcher, the mailbox and the hub of an application whose calls or packets somebody observes.

They do what the plain ones do, and tell. Who observes nothing has the plain ones.
"""

import asyncio
from collections.abc import Awaitable
from time import perf_counter
from typing import Any

from .addressing import GROUP
from .cancelling import stray
from .connection import Connection
from .dispatch import Dispatcher
from .exceptions import Cancelled, ConsumerError, StopConsumer
from .history import History
from .hub import Hub
from .mailbox import Mailbox
from .messages import Position, Request
from .observing import BATCH, INTERRUPTED, OK, UNKNOWN, Call, Observing
from .packets import Packet
from .plan import ActionPlan


class ObservedDispatcher(Dispatcher):
    """Tells of each action, from its turn to its answer, and of each error."""

    __slots__ = ("_current", "_observing", "_outcome", "_recorders", "task_calls")

    def __init__(self, consumer: Any, connection: Connection) -> None:
        super().__init__(consumer, connection)
        self._observing: Observing = connection.consumers.observing
        self._recorders = self._observing.recorders(connection.plan)
        #: Of the direct action that runs.
        self._outcome = OK
        if self._observing.wants("call_started", "call_ended"):
            # Somebody wants to know more than how long it took, and how it went.
            self._direct = {}
        #: What runs in the connection's own task; and concurrent actions and event methods, by theirs.
        self._current: Call | None = None
        self.task_calls: dict[asyncio.Task[Any] | None, Call] = {}

    async def _attend(self, request: Request, turn: asyncio.Lock | None) -> None:
        running = self._running
        action = self._direct.get(request.action)
        if action is None or request.error is not None or running.waiting:
            await self._attend_telling(request, turn)
            return
        # As the plain dispatcher does it, and measured: a call of that one would cost more than all else of it.
        running.current = request.request_id
        self._outcome = OK
        started = perf_counter()
        try:
            self._bad_frames = 0
            if self._guarded and (plan := self._guarded.get(action.name)) is not None:
                asked = (self._gate or self._new_gate()).ask(plan)
                if asked is not None:
                    await asked
            result = await action.call(self._consumer, request.data)
            running.current = None
            if result is not None or request.request_id is not None:
                returns = action.returns
                if returns.validate is not None and result is not None:
                    result = returns.validate(result)
                outbox = self._outbox
                outbox.push(self._framer.ok(action.name, request.request_id, result, returns))
                if not outbox.is_idle:
                    await outbox.flush()
        except asyncio.CancelledError as cancellation:
            self._outcome = INTERRUPTED
            await self._fail(request, Cancelled() if running.is_ours(cancellation) else stray(cancellation))
        except Exception as error:
            running.current = None
            await self._fail(request, error)
        finally:
            running.current = None
            duration = perf_counter() - started
            recorder, outcome = self._recorders[action.name], self._outcome
            if outcome is OK and len(recorder) < BATCH:
                recorder.append(duration)
            else:
                recorder.add(outcome, duration)
            if running.requested:
                running.end()

    async def _attend_telling(self, request: Request, turn: asyncio.Lock | None) -> None:
        plan = self._plan.actions.get(request.action) if request.action is not None else None
        if plan is not None and plan.action.concurrent and request.error is None:
            # It has a task of its own. What can go wrong before that begins is told to the client, and has no duration.
            await super()._attend(request, turn)
            return
        call = Call(self._connection, UNKNOWN if plan is None else plan.action.name, request.request_id, "action")
        before, self._current = self._current, call
        observing = self._observing
        observing.tell("call_started", call)
        try:
            await super()._attend(request, turn)
        except BaseException as error:
            call.outcome, call.failure = INTERRUPTED, error
            raise
        finally:
            self._current = before
            end(call, observing)

    async def _run_task(self, plan: ActionPlan, request: Request) -> None:
        call = Call(self._connection, plan.action.name, request.request_id, "action")
        task = asyncio.current_task()
        self.task_calls[task] = call
        self._observing.tell("call_started", call)
        try:
            await super()._run_task(plan, request)
        except BaseException as error:
            call.outcome, call.failure = INTERRUPTED, error
            raise
        finally:
            del self.task_calls[task]
            end(call, self._observing)

    async def _fail(self, request: Request, failure: Exception) -> ConsumerError | None:
        call = self.task_calls.get(asyncio.current_task(), self._current)
        if call is not None and not isinstance(failure, StopConsumer):
            call.failure = failure
        return await super()._fail(request, failure)

    async def _send_error(self, error: ConsumerError, frame_of: Any) -> None:
        call = self.task_calls.get(asyncio.current_task(), self._current)
        if call is not None:
            call.outcome = error.code
        else:
            self._outcome = error.code
        self._observing.tell("error_told", self._connection, error.code)
        await super()._send_error(error, frame_of)

    def new_mailbox(self, turn: asyncio.Lock) -> Mailbox:
        return ObservedMailbox(self._consumer, self._connection, turn)


def end(call: Call, observing: Observing) -> None:
    """It has ended: tell so."""
    call.duration = perf_counter() - call.started
    observing.tell("call_ended", call)
    key = call.name if call.kind == "action" else ("event", call.name)
    observing.recorders(call.connection.plan)[key].add(call.outcome, call.duration)


class ObservedMailbox(Mailbox):
    """Tells of each event method that is called."""

    __slots__ = ()

    async def _call(self, method: str, message: dict[str, Any], trace: str | None) -> None:
        connection, dispatcher = self._connection, self._connection.dispatcher
        call = Call(connection, message["type"], None, "event")
        call.trace = trace
        calls, task = dispatcher.task_calls, asyncio.current_task()
        calls[task] = call
        observing = connection.consumers.observing
        observing.tell("call_started", call)
        try:
            await super()._call(method, message, trace)
        except BaseException as error:
            call.outcome, call.failure = INTERRUPTED, error
            raise
        finally:
            del calls[task]
            end(call, observing)

    async def _tell(self, dispatcher: Any, failure: Exception, message: dict[str, Any]) -> None:
        dispatcher.task_calls[asyncio.current_task()].failure = failure
        await super()._tell(dispatcher, failure, message)


class ObservedHub(Hub):
    """Tells of what is published, and of what arrives."""

    def __init__(self, *arguments: Any, observing: Observing, **options: Any) -> None:
        super().__init__(*arguments, observing=observing, **options)
        self._publishes = observing.wants("publishing", "published")
        self._delivers = observing.wants("delivered")

    def put(self, topic: str, packet: Packet) -> Awaitable[None] | None:
        return self._put_telling(topic, packet) if self._publishes else super().put(topic, packet)

    async def _put_telling(self, topic: str, packet: Packet) -> None:
        with self.observing.publication(topic, packet) as publication:
            rest = super().put(topic, publication.packet)
            if rest is not None:
                await rest

    async def append(
        self, group: str, packet: Packet, history: History, idempotency_key: str | None = None
    ) -> Position:
        if not self._publishes:
            return await super().append(group, packet, history, idempotency_key)
        with self.observing.publication(GROUP + group, packet) as publication:
            return await super().append(group, publication.packet, history, idempotency_key)

    def _take(self, topic: str, packet: Packet, position: Position | None) -> None:
        if self._delivers:
            members = self.count(topic) if packet.only is None else int(self.find(packet.only) is not None)
            if members:
                self.observing.tell("delivered", topic, packet, members)
        super()._take(topic, packet, position)
