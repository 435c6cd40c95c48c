"""The task that runs a consumer: what it works on is stopped when the socket is gone or has to be closed.

The base of a connection, which owns the socket; this part knows of it only whether it is being closed.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from .inbox import Inbox
from .stepping import Resumed

T = TypeVar("T")


class Interrupted(Exception):
    """What the connection was doing has been stopped, because the socket is gone or has to be closed."""


class Working:
    """What the task of a connection works on, one thing at a time: the handshake, a hook, an action."""

    inbox: Inbox
    #: The task that runs the consumer, until teardown begins.
    task: "asyncio.Task[Any] | None"
    #: Cancellations that the task had before, as where serve() is called in an endpoint that swallowed one.
    cancelling: int
    #: Whether the socket is closed, gone or about to be closed, so that nothing more is read from it.
    is_closing = False
    #: Whether the close, or the refusal, has been sent or given up.
    _closing = False
    _working = _interrupted = False

    def begin(self) -> None:
        """From here on the current task is the one."""
        self.task = asyncio.current_task()
        self.cancelling = self.task.cancelling() if self.task is not None else 0

    async def work(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await it with the socket being read meanwhile. Raises ``Interrupted`` if that ends or has to be closed."""
        self._working = True
        try:
            waited_for = coroutine.send(None)
        except StopIteration as end:
            # It did not wait: nobody else ran in between, and there was nothing to watch over.
            return end.value  # type: ignore[no-any-return]  # what the coroutine returned
        finally:
            self._working = False
        return await self.watch_over(coroutine, waited_for)

    async def watch_over(self, coroutine: Coroutine[Any, Any, T], waited_for: Any) -> T:
        """The same for a coroutine that was stepped once, and waits for this."""
        self._working = True
        self.inbox.begin()
        try:
            result = await Resumed(coroutine, waited_for)
        except asyncio.CancelledError:
            self.check_interrupted()
            raise
        finally:
            self._working = False
            self.inbox.end()
        if self._interrupted:
            # It was cancelled and went on all the same.
            self.check_interrupted()
        return result

    def check_interrupted(self) -> None:
        """Turn the connection's own cancellation of its task into ``Interrupted``; leave anybody else's alone."""
        if self._interrupted:
            self._interrupted = False
            if self.task is None or self.task.uncancel() <= self.cancelling:
                raise Interrupted from None

    def _interrupt(self) -> None:
        """Stop the task that runs the consumer, whether it works or waits for the next frame."""
        task = self.task
        if task is None or self._interrupted or task.done():
            return
        if task is asyncio.current_task():
            # Its own doing, such as a broadcast that is too much for its own client. What it runs goes on to its next
            # step, and is stopped where it waits.
            asyncio.get_running_loop().call_soon(self._interrupt_later)
            return
        self._interrupted = True
        task.cancel()

    def _interrupt_later(self) -> None:
        if not self._closing:
            self._interrupt()

    def release(self) -> None:
        """Nothing is read, and nothing interrupts the task, from here on, for teardown runs."""
        self.is_closing = True
        task, self.task = self.task, None
        if task is not None and self._interrupted:
            # It was cancelled and went on all the same.
            self._interrupted = False
            task.uncancel()
