"""From a request to its answer: throttle, permission, validation, dependencies, action, reply."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, aclosing, nullcontext
from typing import Any

from .actions import Action
from .cancelling import Cancelling, stray
from .connection import Connection
from .exceptions import (
    ActionDeprecated,
    ActionDisabled,
    ActionTimeout,
    Cancelled,
    ConsumerError,
    InternalError,
    InvalidFrame,
    StopConsumer,
)
from .explaining import explain, log_failure
from .facts import log_extra
from .gate import Gate
from .identifying import refresh
from .localization import told_to
from .mailbox import Mailbox
from .messages import Frame, Notice, Reply, Request
from .permitting import acting
from .plan import ActionPlan
from .protocols import Framer, Reader
from .types import CloseCode, RequestId

logger = logging.getLogger(__name__)

#: Parts of a stream, or frames, that are dealt with before others get their turn even if nothing has to wait.
FAIR_SHARE = 64

#: Seconds that concurrent actions and event methods get to end once they are cancelled.
CANCEL_TIMEOUT = 5.0


class Dispatcher:
    """Runs the actions and event methods of one consumer.

    Requests are answered one after another, in the order in which they came; actions marked ``concurrent`` run beside
    them, each in a task of its own. Event methods take turns with the actions.
    """

    __slots__ = (
        "_bad_frames",
        "_connection",
        "_consumer",
        "_direct",
        "_frame_type",
        "_framer",
        "_gate",
        "_guarded",
        "_mailbox",
        "_outbox",
        "_plan",
        "_read",
        "_reader",
        "_reads_frames",
        "_running",
        "turn",
    )

    def __init__(self, consumer: Any, connection: Connection) -> None:
        self._consumer = consumer
        self._connection = connection
        self._plan = connection.plan
        self._outbox = connection.outbox
        self._reader: Reader
        self._framer: Framer
        self.start()
        #: Held by whoever runs the consumer's code; ``None`` where there are no event methods to take turns with.
        self.turn = asyncio.Lock() if self._plan.options.events else None
        #: Actions by name that need no injection; none while event methods take turns with them.
        self._direct: Mapping[str | None, Action] = self._plan.direct if self.turn is None else {}
        self._guarded = self._plan.guarded
        #: Whether frames come here as they are, and not through the consumer's own receive().
        self._reads_frames = not self._plan.reads_raw
        self._bad_frames = 0
        #: Made when somebody is asked for the first time.
        self._gate: Gate | None = None
        self._running = Cancelling(connection)
        self._mailbox: Mailbox | None = None

    def start(self) -> None:
        """Read and write what the connection's subprotocol means."""
        self._reader = self._plan.reader(self._connection.subprotocol)
        self._framer = self._plan.framer(self._connection.subprotocol)
        self._read = self._reader.read
        self._frame_type: type[str] | type[bytes] = str if self._reader.takes_text else bytes

    # -- requests --------------------------------------------------------------------------------------------------

    def handle(self, frame: str | bytes | Request) -> Coroutine[Any, Any, None]:
        """Run what one frame asks for, or a request that was read from one before."""
        if isinstance(frame, self._frame_type):
            return self._attend(self._read(frame), self.turn)
        if isinstance(frame, Request):
            return self._attend(frame, self.turn)
        return self._connection.close(CloseCode.UNSUPPORTED_DATA, "unsupported_data")

    def handle_content(self, content: Any) -> Coroutine[Any, Any, None]:
        """The same for a frame that is decoded already. The caller has the turn."""
        return self._attend(self._reader.read_content(content), None)

    async def reject(self, error: InvalidFrame) -> None:
        """Answer a frame that could not even be decoded."""
        await self._handle_error(Request(None, error=error), None)

    async def refuse(self, content: Any, error: Exception) -> None:
        """Answer a request, whatever it asks for, with an error. ``content`` is its decoded frame."""
        request = self._reader.read_content(content)
        await self._fail(request._replace(error=None), error)

    async def _attend(self, request: Request, turn: asyncio.Lock | None) -> None:
        """See to it that the request is answered exactly once, whatever becomes of it."""
        running = self._running
        action = self._direct.get(request.action)
        running.current = request.request_id
        try:
            if action is not None and request.error is None and not running.waiting:
                # Nothing but policies stands before it: called here, with no other question asked.
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
            else:
                await self._handle(request, turn)
        except asyncio.CancelledError as cancellation:
            await self._fail(request, Cancelled() if running.is_ours(cancellation) else stray(cancellation))
        except Exception as error:
            running.current = None
            await self._fail(request, error)
        finally:
            running.current = None
            if running.requested:
                running.end()

    async def _handle(self, request: Request, turn: asyncio.Lock | None) -> None:
        if self._running.waiting and self._running.take(request.request_id):
            raise Cancelled
        plan = self._plan.actions.get(request.action) if request.action is not None else None
        if request.error is not None or plan is None:
            async with turn or nullcontext():
                await self._handle_error(request, plan)
        elif plan.action.concurrent:
            self._bad_frames = 0
            await self._start_task(plan, request)
        else:
            self._bad_frames = 0
            async with turn or nullcontext():
                await self._run(plan, request)

    async def _handle_error(self, request: Request, plan: ActionPlan | None) -> None:
        """Answer a request that is wrong, but only to those who may have asked."""
        failure = request.error if request.error is not None else InternalError()
        # What is wrong has been read more than once: the others come first now.
        await asyncio.sleep(0)
        try:
            await self._check(plan)
        except Exception as error:
            self._running.current = None
            await self._fail(request, error)
        else:
            self._running.current = None
            await self._fail(request, failure)
        if isinstance(failure, InvalidFrame):
            self._bad_frames += 1
            if self._bad_frames > self._plan.limits.max_bad_frames:
                await self._connection.close(CloseCode.BAD_FRAMES, "bad_frames")

    async def _check(self, plan: ActionPlan | None) -> None:
        asked = (self._gate or self._new_gate()).ask(plan)
        if asked is not None:
            await asked

    async def count(self) -> None:
        """Count a frame by the consumer's throttles. Raises what they raise; the answer to one too many closes."""
        counting = (self._gate or self._new_gate()).count(self._plan.throttles, None)
        if counting is not None:
            await counting

    def _new_gate(self) -> Gate:
        gate = self._gate = Gate(self._consumer, self._plan, self._connection.consumers.buckets)
        return gate

    async def _run(self, plan: ActionPlan, request: Request) -> None:
        with acting(self._consumer, plan) if plan.acts else nullcontext():
            await self._run_action(plan, request)

    async def _run_action(self, plan: ActionPlan, request: Request) -> None:
        action = plan.action
        await self._check(plan)
        if not action.enabled:
            raise ActionDeprecated if action.deprecated else ActionDisabled
        if action.deprecated:
            extra = log_extra(self._connection, action=action.name, request_id=request.request_id)
            logger.warning("the deprecated action %r of %s was called", action.name, action.owner, extra=extra)
        if action.timeout is None:
            result = await self._call(action, request)
        else:
            limit = asyncio.timeout(action.timeout)
            try:
                async with limit:
                    result = await self._call(action, request)
            except TimeoutError:
                if limit.expired():
                    raise ActionTimeout from None
                raise
        await self._answer(action, request, result, final=action.stream)

    async def _call(self, action: Action, request: Request) -> Any:
        if not (action.stream or action.dependencies or action.injected):
            return await action.call(self._consumer, request.data)
        arguments = action.arguments(request.data)
        for name, source in action.injected:
            arguments[name] = self._consumer if source is None else getattr(self._consumer, source)
        async with AsyncExitStack() as stack:
            if action.dependencies is not None:
                connection = self._connection
                values = await action.dependencies.solve(connection.websocket, stack, connection.scope.get("app"))
                arguments.update(values)
            started = action.start(self._consumer, arguments)
            return await self._stream(action, request, started) if action.stream else await started
        raise RuntimeError(
            f"A dependency of the action {action.name!r} caught the action's exception and did not raise it again, so "
            "there is no result. Raise after `yield`, as in FastAPI."
        )

    async def _stream(self, action: Action, request: Request, items: Any) -> None:
        count = 0
        async with aclosing(items) as parts:
            async for part in parts:
                count += 1
                if not count % FAIR_SHARE:
                    await asyncio.sleep(0)
                value = action.returns.validate(part) if action.returns.validate is not None else part
                outbox = self._outbox
                outbox.push(
                    self._framer.reply(Reply(request.action, request.request_id, "partial", value), action.returns)
                )
                # The next one may take long to compute.
                outbox.release()
                if not outbox.is_idle:
                    await outbox.flush()

    async def _answer(self, action: Action, request: Request, result: Any, *, final: bool = False) -> None:
        self._running.forget(concurrent=action.concurrent)
        if result is None and request.request_id is None and not final:
            return
        returns = action.returns
        if result is not None and returns.validate is not None:
            result = returns.validate(result)
        outbox = self._outbox
        outbox.push(self._framer.ok(action.name, request.request_id, result, returns))
        if not outbox.is_idle:
            await outbox.flush()

    # -- errors ----------------------------------------------------------------------------------------------------

    async def _fail(self, request: Request, failure: Exception) -> ConsumerError | None:
        """Answer a request with an error, which is returned, and close if the error asks for it."""
        if isinstance(failure, StopConsumer):
            await self._connection.close(CloseCode.NORMAL)
            return None
        known = request.action in self._plan.actions
        error = await self.explain(failure, f"the action {request.action!r}" if known else "a request")
        if request.action is None and request.request_id is None:
            await self.tell(error)
        else:
            action, request_id = request.action, request.request_id
            await self._send_error(
                error, lambda framer, said: framer.reply(Reply(action, request_id, "error", None, said))
            )
        return error

    async def answer(self, request: Request, result: Any) -> ConsumerError | None:
        """Answer a request that was no action's: with data, or with what an exception means, which is returned."""
        if isinstance(result, Exception):
            return await self._fail(request, result)
        await self._connection.send_frame(self._framer.reply(Reply(request.action, request.request_id, "ok", result)))
        return None

    async def tell(self, error: ConsumerError) -> None:
        """Send an error that answers no request, and close if it asks for it."""
        await self._send_error(error, lambda framer, said: framer.notice(Notice("error", {"error": said.body()})))

    async def _send_error(self, error: ConsumerError, frame_of: Callable[[Framer, ConsumerError], Frame]) -> None:
        try:
            frame = frame_of(self._framer, told_to(self._connection, error))
        except Exception as failure:
            text, name = "the error %r could not be encoded by %s", self._plan.options.name
            log_failure(logger, failure, self._connection, text, error.code, name)
            frame = frame_of(self._plan.fallback, told_to(self._connection, InternalError()))
        await self._connection.send_frame(frame)
        if error.close:
            await self._connection.close(error.close_code, error.code)
        elif self._gate is not None and self._gate.is_flooded:
            await self._connection.close(CloseCode.TOO_MANY_REQUESTS, "too_many_requests")

    async def explain(self, failure: Exception, where: str) -> ConsumerError:
        """What the client is told of an exception. Never raises."""
        return await explain(failure, where, self._consumer, self._connection)

    # -- tasks and cancelling --------------------------------------------------------------------------------------

    async def _start_task(self, plan: ActionPlan, request: Request) -> None:
        running = self._running
        while len(running.tasks) >= self._plan.limits.max_concurrent_actions:
            await asyncio.wait(running.tasks, return_when=asyncio.FIRST_COMPLETED)
        running.start(asyncio.get_running_loop().create_task(self._run_task(plan, request)), request)

    async def _run_task(self, plan: ActionPlan, request: Request) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if self._running.tasks.get(task) is None:
                raise Cancelled  # Before it began.
            await self._run(plan, request)
        except asyncio.CancelledError as cancellation:
            # By its client, or because the socket is gone: then nobody waits for an answer.
            if self._connection.is_closing:
                raise
            self._running.forget(concurrent=True)
            await self._fail(request, Cancelled() if task.cancelling() else stray(cancellation))
        except Exception as error:
            self._running.forget(concurrent=True)
            await self._fail(request, error)

    async def refresh(self, token: str) -> dict[str, Any]:
        """Put a new credential of the same user in the place of the connection's own."""
        return await refresh(self._consumer, token)

    @property
    def is_running(self) -> bool:
        """Whether actions run beside what the connection itself does."""
        return bool(self._running.tasks)

    def cancel(self, request_id: RequestId) -> bool:
        """Cancel the concurrent request of this id, for a ``cancel`` whose turn has come: what waits was sent later."""
        return self._running.cancel(request_id, running_only=True)

    def peek(self, frame: str | bytes) -> Any:
        """Read a frame that comes while an action runs. A ``cancel`` that hits is dealt with ahead of what waits.

        What is to wait is returned: the request, or the frame where the consumer reads frames itself. A ``cancel`` of
        nothing waits too, so that it is counted like any other request.
        """
        if not self._reads_frames or not isinstance(frame, self._frame_type):
            return frame
        request = self._read(frame)
        if request.action != "cancel" or request.error is not None or not self._plan.has_cancel:
            return request
        cancelled = request.data["request_id"]
        if not self._running.cancel(cancelled):
            return request
        # Where the envelope is flat the two ids are one, and the one answer is that of the cancelled request.
        if request.request_id not in (None, cancelled):
            reply = Reply("cancel", request.request_id, "ok")
            try:
                frame_of_reply = self._framer.reply(reply)
            except Exception as error:
                text, name = "the answer to a cancel could not be encoded by %s", self._plan.options.name
                log_failure(logger, error, self._connection, text, name)
                frame_of_reply = self._plan.fallback.reply(reply)
            self._outbox.push(frame_of_reply)
        return None

    def receive_message(self, message: dict[str, Any], trace: str | None = None) -> None:
        """Have the event method for a channel layer message called, in turn with the actions."""
        if self._connection.is_closing or self.turn is None:
            return
        if self._mailbox is None:
            self._mailbox = self.new_mailbox(self.turn)
        self._mailbox.put(message, trace)

    def new_mailbox(self, turn: asyncio.Lock) -> Mailbox:
        return Mailbox(self._consumer, self._connection, turn)

    def running(self) -> set[asyncio.Task[None]]:
        """Concurrent actions and event methods, which run beside the connection's own task."""
        tasks = {*self._running.tasks}
        if self._mailbox is not None and self._mailbox.task is not None:
            tasks.add(self._mailbox.task)
        return tasks

    async def stop(self) -> None:
        """Cancel everything that still runs, and wait for it."""
        tasks = self.running()
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)
            if pending:
                name, extra = self._plan.options.name, log_extra(self._connection)
                logger.warning("%d actions of %s ignore their cancellation", len(pending), name, extra=extra)
