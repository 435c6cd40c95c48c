"""From a request to its answer: throttle, permission, validation, dependencies, action, reply."""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

from starlette.exceptions import WebSocketException

from .actions import ANYTHING, Action, compile_action
from .connection import Connection
from .dependencies import error_from_dependency
from .exceptions import (
    ActionDeprecated,
    ActionDisabled,
    ActionTimeout,
    Cancelled,
    ConsumerError,
    InternalError,
    InvalidFrame,
    NotFound,
    Problem,
    StopConsumer,
)
from .marks import ActionMark
from .messages import Notice, Reply, Request
from .permissions import check_permissions
from .plan import ActionPlan
from .protocols import Framer, Reader
from .throttling import check_throttles
from .types import CloseCode, RequestId

logger = logging.getLogger(__name__)

#: Seconds that concurrent actions and event methods get to end once they are cancelled.
CANCEL_TIMEOUT = 5.0


class Dispatcher:
    """Runs the actions and event methods of one consumer.

    Requests are answered one after another, in the order in which they came; actions marked ``concurrent`` run beside
    them, each in a task of its own. Event methods take turns with the actions.
    """

    __slots__ = (
        "_bad_frames",
        "_cancel_current",
        "_cancelled",
        "_connection",
        "_consumer",
        "_current",
        "_framer",
        "_messages",
        "_messenger",
        "_outbox",
        "_plan",
        "_reader",
        "_tasks",
        "turn",
    )

    def __init__(self, consumer: Any, connection: Connection) -> None:
        self._consumer = consumer
        self._connection = connection
        self._plan = connection.plan
        self._outbox = connection.outbox
        self._reader: Reader = self._plan.reader(connection.subprotocol)
        self._framer: Framer = self._plan.framer(connection.subprotocol)
        #: Held by whoever runs the consumer's code; ``None`` where there are no event methods to take turns with.
        self.turn = asyncio.Lock() if self._plan.options.events else None
        self._bad_frames = 0
        self._current: RequestId | None = None
        self._cancel_current = False
        self._cancelled: set[RequestId] = set()
        self._tasks: dict[asyncio.Task[None], RequestId | None] | None = None
        self._messages: deque[dict[str, Any]] | None = None
        self._messenger: asyncio.Task[None] | None = None

    def start(self) -> None:
        """The socket is accepted, so its subprotocol is final."""
        self._reader = self._plan.reader(self._connection.subprotocol)
        self._framer = self._plan.framer(self._connection.subprotocol)

    # -- requests --------------------------------------------------------------------------------------------------

    async def handle(self, frame: str | bytes) -> None:
        """Run what one frame asks for."""
        if isinstance(frame, str) != self._reader.takes_text:
            await self._connection.close(CloseCode.UNSUPPORTED_DATA, "unsupported_data")
            return
        request = self._reader.read(frame)
        if self.turn is None:
            await self._handle(request)
        else:
            async with self.turn:
                await self._handle(request)

    async def handle_content(self, content: Any) -> None:
        """The same for a frame that is decoded already. The caller has the turn."""
        await self._handle(self._reader.read_content(content))

    async def reject(self, error: InvalidFrame) -> None:
        """Answer a frame that could not even be decoded."""
        await self._handle_error(Request(None, error=error), None)

    async def _handle(self, request: Request) -> None:
        plan = self._plan.actions.get(request.action) if request.action is not None else None
        if request.error is not None:
            await self._handle_error(request, plan)
            return
        assert plan is not None
        self._bad_frames = 0
        if self._cancelled and self._is_cancelled(request.request_id):
            await self._fail(request, Cancelled())
        elif plan.action.concurrent:
            await self._start_task(plan, request)
        else:
            self._current = request.request_id
            try:
                if plan.direct:
                    result = await plan.action.call(self._consumer, request.data)
                    await self._answer(plan.action, request, result)
                else:
                    await self._run(plan, request)
            except asyncio.CancelledError:
                if not self._cancel_current:
                    raise
                self._end_cancel()
                await self._fail(request, Cancelled())
            except Exception as error:
                await self._fail(request, error)
            finally:
                self._current = None
                if self._cancel_current:
                    self._end_cancel()

    async def _handle_error(self, request: Request, plan: ActionPlan | None) -> None:
        """Answer a request that is wrong, but only to those who may have asked."""
        assert request.error is not None
        try:
            await self._check(plan, plan.action if plan is not None else None)
        except Exception as error:
            await self._fail(request, error)
        else:
            await self._fail(request, request.error)
        if isinstance(request.error, InvalidFrame):
            self._bad_frames += 1
            if self._bad_frames > self._plan.limits.max_bad_frames:
                await self._connection.close(CloseCode.BAD_FRAMES, "bad_frames")

    async def _check(self, plan: ActionPlan | None, action: Action | None) -> None:
        """Throttles, then permissions: the consumer's, then the action's."""
        if self._plan.throttles:
            await check_throttles(self._plan.throttles, self._consumer, action, self._connection.consumers.buckets)
        if plan is not None and plan.throttles:
            await check_throttles(plan.throttles, self._consumer, action, self._connection.consumers.buckets)
        permissions = plan.permissions if plan is not None else self._plan.permissions
        if permissions:
            await check_permissions(permissions, self._consumer, action)

    async def _run(self, plan: ActionPlan, request: Request) -> None:
        action = plan.action
        await self._check(plan, action)
        if not action.enabled:
            raise ActionDeprecated if action.deprecated else ActionDisabled
        if action.deprecated:
            logger.warning("the deprecated action %r of %s was called", action.name, action.owner)
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

    async def _stream(self, action: Action, request: Request, items: Any) -> None:
        async with aclosing(items) as parts:
            async for part in parts:
                value = action.returns.validate(part) if action.returns.validate is not None else part
                await self._push(Reply(request.action, request.request_id, "partial", value), action)

    async def _answer(self, action: Action, request: Request, result: Any, *, final: bool = False) -> None:
        if result is None and request.request_id is None and not final:
            return
        returns = action.returns
        if result is not None and returns.validate is not None:
            result = returns.validate(result)
        outbox = self._outbox
        outbox.push(self._framer.reply(Reply(request.action, request.request_id, "ok", result), returns))
        if not outbox.is_idle:
            await outbox.flush()

    async def _push(self, reply: Reply, action: Action | None = None) -> None:
        outbox = self._outbox
        outbox.push(self._framer.reply(reply, action.returns if action is not None else ANYTHING))
        if not outbox.is_idle:
            await outbox.flush()

    # -- errors ----------------------------------------------------------------------------------------------------

    async def _fail(self, request: Request, failure: Exception) -> None:
        """Answer a request with an error, and close if the error asks for it."""
        if isinstance(failure, StopConsumer):
            await self._connection.close(CloseCode.NORMAL)
            return
        error = await self.explain(failure, f"the action {request.action!r}")
        if request.action is None and request.request_id is None:
            await self.tell(error)
            return
        await self._push(Reply(request.action, request.request_id, "error", error=error))
        if error.close:
            await self._connection.close(error.close_code, error.code)

    async def tell(self, error: ConsumerError) -> None:
        """Send an error that answers no request, and close if it asks for it."""
        await self._connection.send_frame(self._framer.notice(Notice("error", {"error": error.body()})))
        if error.close:
            await self._connection.close(error.close_code, error.code)

    async def explain(self, failure: Exception, where: str) -> ConsumerError:
        """What the client is told of an exception. Never raises; what nobody expected is logged with its traceback."""
        try:
            error = await self._ask_handlers(failure)
        except ConsumerError as raised:
            return raised
        except Exception:
            logger.exception("an exception handler failed on %r", failure)
            return InternalError()
        if error is not None:
            return error
        if isinstance(failure, ConsumerError):
            return failure
        if isinstance(failure, WebSocketException):
            return ConsumerError("closed", failure.reason or "The socket was closed.", close_code=failure.code)
        if (known := error_from_dependency(failure)) is not None:
            return known
        logger.error(
            "%s of %s failed",
            where,
            self._plan.options.name,
            exc_info=failure,
            extra={"channel": self._connection.channel_name},
        )
        return InternalError()

    async def _ask_handlers(self, failure: Exception) -> ConsumerError | None:
        """The first answer of the handlers for this exception: the class's, the application's, FastAPI's."""
        for handlers in self._plan.exception_handlers:
            for kind in type(failure).__mro__ if handlers else ():
                handler = handlers.get(kind)
                if handler is not None:
                    error = await _maybe(handler(self._consumer, failure))
                    if error is not None:
                        return _checked(error, handler)
                    break
        if isinstance(failure, ConsumerError):
            handlers = getattr(self._connection.scope.get("app"), "exception_handlers", None) or {}
            for kind in type(failure).__mro__:
                handler = handlers.get(kind)
                if handler is not None and not getattr(handler, "is_default", False):
                    error = await _maybe(handler(self._connection.websocket, failure))
                    return error if isinstance(error, ConsumerError) else None
                if kind is ConsumerError:
                    break
        return None

    # -- tasks and cancelling --------------------------------------------------------------------------------------

    async def _start_task(self, plan: ActionPlan, request: Request) -> None:
        tasks = self._tasks = {} if self._tasks is None else self._tasks
        while len(tasks) >= self._plan.limits.max_concurrent_actions:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.get_running_loop().create_task(self._run_task(plan, request))
        tasks[task] = request.request_id
        task.add_done_callback(tasks.pop)

    async def _run_task(self, plan: ActionPlan, request: Request) -> None:
        try:
            await self._run(plan, request)
        except asyncio.CancelledError:
            if not self._connection.is_closing:
                await self._fail(request, Cancelled())
        except Exception as error:
            await self._fail(request, error)

    def cancel(self, request_id: RequestId) -> bool:
        """Cancel the request of this id if it runs, or will run. ``False`` if there is none that might."""
        task = next((task for task, running in (self._tasks or {}).items() if running == request_id), None)
        if task is not None:
            task.cancel()
        elif self._current == request_id and self._connection.task is not asyncio.current_task():
            if not self._cancel_current and self._connection.task is not None:
                self._cancel_current = True
                self._connection.task.cancel()
        elif self._connection.inbox.waiting and len(self._cancelled) < self._plan.limits.max_inbox:
            self._cancelled.add(request_id)
        else:
            return False
        return True

    def _end_cancel(self) -> None:
        """Take back the cancellation that ``cancel`` asked for, and no other."""
        self._cancel_current = False
        if self._connection.task is not None:
            self._connection.task.uncancel()
        self._connection.check_interrupted()

    def _is_cancelled(self, request_id: RequestId | None) -> bool:
        if request_id in self._cancelled:
            self._cancelled.discard(request_id)
            return True
        if not self._connection.inbox.waiting:
            self._cancelled.clear()
        return False

    def peek(self, frame: str | bytes) -> bool:
        """Deal with a ``cancel`` ahead of what waits. ``False`` for any other frame."""
        if not self._plan.has_cancel or isinstance(frame, str) != self._reader.takes_text:
            return False
        if ("cancel" not in frame) if isinstance(frame, str) else (b"cancel" not in frame):
            return False
        request = self._reader.read(frame)
        if request.action != "cancel" or request.error is not None:
            return False
        found = self.cancel(request.data["request_id"])
        if request.request_id is not None or not found:
            error = None if found else _nothing_to_cancel()
            status: Any = "ok" if found else "error"
            self._outbox.push(self._framer.reply(Reply("cancel", request.request_id, status, error=error)))
        return True

    # -- messages of the channel layer -----------------------------------------------------------------------------

    def receive_message(self, message: dict[str, Any]) -> None:
        """Have the event method for a channel layer message called. They are called one after another."""
        method = self._plan.options.events.get(message.get("type", ""))
        if method is None:
            logger.debug("%s has no @event method for a message", self._plan.options.name)
            return
        if self._connection.is_closing:
            return
        if self._messages is None:
            self._messages = deque()
        if len(self._messages) >= self._plan.limits.max_inbox:
            self._connection.shut(CloseCode.TRY_AGAIN_LATER, "slow_consumer")
            return
        self._messages.append(message)
        if self._messenger is None:
            self._messenger = asyncio.get_running_loop().create_task(self._run_messages(self._messages))

    async def _run_messages(self, messages: deque[dict[str, Any]]) -> None:
        assert self.turn is not None
        try:
            while messages:
                async with self.turn:
                    message = messages.popleft()
                    await self._run_message(message)
        finally:
            self._messenger = None

    async def _run_message(self, message: dict[str, Any]) -> None:
        method = getattr(self._consumer, self._plan.options.events[message["type"]])
        try:
            await _maybe(method(message))
        except StopConsumer:
            await self._connection.close(CloseCode.NORMAL)
        except Exception as failure:
            await self.tell(await self.explain(failure, f"the event method for {message['type']!r}"))

    async def stop(self) -> None:
        """Cancel everything that still runs, and wait for it."""
        tasks = {*(self._tasks or ()), *({self._messenger} if self._messenger is not None else ())}
        tasks.discard(asyncio.current_task())
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)
            if pending:
                logger.warning("%d actions of %s ignore their cancellation", len(pending), self._plan.options.name)


def _checked(error: Any, handler: Any) -> ConsumerError:
    if not isinstance(error, ConsumerError):
        raise TypeError(f"{handler!r} returned {error!r}, where a ConsumerError or None is expected")
    return error


async def _maybe(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _nothing_to_cancel() -> NotFound:
    return NotFound("No request with this id is running or waiting.")


async def _cancel(consumer: Any, request_id: RequestId) -> None:
    """Cancel the request of this id; it ends with the error ``cancelled``. Handled ahead of requests that wait."""
    if not consumer.connection.dispatcher.cancel(request_id):
        raise _nothing_to_cancel()


def _builtin(name: str, function: Any) -> Action:
    problems: list[Problem] = []
    action = compile_action(
        function, ActionMark(name=name), method=name, owner="Consumer", where=name, localns={}, problems=problems
    )
    assert action is not None, problems
    return action


#: Actions that every consumer with actions has, unless it has one of the same name itself.
BUILTINS: Mapping[str, Action] = {"cancel": _builtin("cancel", _cancel)}
