"""Which requests of one connection run or wait, and how their client cancels them.

A request that runs in the connection's own task, the rule, is cancelled by cancelling that task and taking the
cancellation back once the action has ended. A concurrent one has a task of its own. One that waits is remembered, and
answered when its turn comes.
"""

import asyncio
import inspect
from typing import Any

from .connection import Connection
from .messages import Request
from .types import RequestId

#: What most connections have all their life in the place of both. It is replaced, and never written to.
_EMPTY: dict[Any, Any] = {}


class Cancelling:
    """Owned by the dispatcher.

    ``current`` is the id of the request that runs in the connection's task, as long as it can be cancelled: it is reset
    before anything of its answer is sent, so that no request is answered twice.
    """

    __slots__ = ("_connection", "current", "requested", "tasks", "waiting")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.current: RequestId | None = None
        #: Whether the current request is being cancelled.
        self.requested = False
        #: Concurrent actions, with their requests as long as those can be cancelled.
        self.tasks: dict[asyncio.Task[None], Request | None] = _EMPTY
        #: Ids of waiting requests that are to be answered instead of run. Never more than wait in the inbox.
        self.waiting: dict[RequestId, int] = _EMPTY

    def start(self, task: asyncio.Task[None], request: Request) -> None:
        """A concurrent action has begun, in this task."""
        self.tasks = {**self.tasks, task: request}
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self.tasks[task]

    def cancel(self, request_id: RequestId, *, running_only: bool = False) -> bool:
        """Cancel the request of this id if it runs or waits. ``False`` if there is none."""
        own = self._connection.task
        task = next(
            (task for task, running in self.tasks.items() if running and running.request_id == request_id), None
        )
        if task is not None:
            self.tasks[task] = None
            # A task that has not begun would never get to its answer; it looks for itself.
            if inspect.getcoroutinestate(task.get_coro()) != inspect.CORO_CREATED:  # type: ignore[arg-type]  # ours are of coroutines
                task.cancel()
            return True
        if self.current == request_id and own is not None and own is not asyncio.current_task():
            if not self.requested:
                self.requested = True
                own.cancel()
            return True
        if running_only:
            return False
        queued = self._connection.inbox.queued()
        waiting = sum(isinstance(item, Request) and item.request_id == request_id for item in queued)
        if waiting > (cancelled := self.waiting.get(request_id, 0)):
            self.waiting = {**self.waiting, request_id: cancelled + 1}
            return True
        return False

    def take(self, request_id: RequestId | None) -> bool:
        """Whether a request whose turn has come was cancelled while it waited."""
        if request_id is None or request_id not in self.waiting:
            return False
        self.waiting[request_id] -= 1
        if not self.waiting[request_id]:
            del self.waiting[request_id]
        return True

    def forget(self, *, concurrent: bool) -> None:
        """The action has ended, and what follows is its answer."""
        task = asyncio.current_task()
        if not concurrent:
            self.current = None
        elif task is not None and task in self.tasks:
            self.tasks[task] = None

    def is_ours(self, cancellation: asyncio.CancelledError) -> bool:
        """Whether the client asked for this cancellation of the connection's task, which is taken back then.

        ``False`` if nobody cancelled the task: the action awaited something that was cancelled. Raises the cancellation
        again if it is somebody else's.
        """
        self.current = None
        if self.requested:
            self.end()
            return True
        task = self._connection.task
        if task is None or task.cancelling() > self._connection.cancelling:
            raise cancellation
        return False

    def end(self) -> None:
        """Take back the cancellation that ``cancel`` asked for, and no other."""
        self.requested = False
        task = self._connection.task
        if task is not None:
            others = task.uncancel()
            self._connection.check_interrupted()
            if others > self._connection.cancelling:
                # Somebody else has cancelled the task too, with the same CancelledError.
                raise asyncio.CancelledError


def stray(cancellation: asyncio.CancelledError) -> Exception:
    """The error for an action that ended with a ``CancelledError`` although nobody cancelled it."""
    error = RuntimeError("the action awaited something that was cancelled")
    error.__cause__ = cancellation
    return error
