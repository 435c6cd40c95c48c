"""The channel layer's messages for one consumer, and the task that runs its event methods."""

import asyncio
import inspect
import logging
from collections import deque
from typing import Any

from .connection import Connection
from .exceptions import StopConsumer
from .types import CloseCode

logger = logging.getLogger(__name__)


class Mailbox:
    """Calls the ``@event`` method for each message, one after another, taking turns with the consumer's actions.

    Args:
        turn: held by whoever runs the consumer's code.

    Bounded by ``max_inbox``: a consumer that cannot keep up is closed with 1013.
    """

    __slots__ = ("_connection", "_consumer", "_messages", "_turn", "task")

    def __init__(self, consumer: Any, connection: Connection, turn: asyncio.Lock) -> None:
        self._consumer = consumer
        self._connection = connection
        self._turn = turn
        #: The name of the method, what it is called with, and the trace that this belongs to.
        self._messages: deque[tuple[str, dict[str, Any], str | None]] = deque()
        #: Runs while there are messages.
        self.task: asyncio.Task[None] | None = None

    def put(self, message: dict[str, Any], trace: str | None = None) -> None:
        """Take a message. One that no method is marked for is passed over."""
        options = self._connection.plan.options
        kind = message.get("type")
        method = options.event_method(kind) if isinstance(kind, str) else None
        if method is None:
            extra = {"connection": self._connection.channel_name}
            logger.debug("%s has no @event method for a message of the channel layer", options.name, extra=extra)
            return
        if len(self._messages) >= self._connection.plan.limits.max_inbox:
            self._connection.shut(CloseCode.TRY_AGAIN_LATER, "slow_consumer")
            return
        self._messages.append((method, message, trace))
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._messages:
                async with self._turn:
                    await self._call(*self._messages.popleft())
        finally:
            self.task = None

    async def _call(self, method: str, message: dict[str, Any], trace: str | None) -> None:
        # The connection lets go of it when it ends, and the method may go on for longer.
        dispatcher = self._connection.dispatcher
        try:
            result = getattr(self._consumer, method)(message)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError as cancellation:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error = RuntimeError("the event method awaited something that was cancelled")
            error.__cause__ = cancellation
            await self._tell(dispatcher, error, message)
        except StopConsumer:
            await self._connection.close(CloseCode.NORMAL)
        except Exception as failure:
            await self._tell(dispatcher, failure, message)

    async def _tell(self, dispatcher: Any, failure: Exception, message: dict[str, Any]) -> None:
        await dispatcher.tell(await dispatcher.explain(failure, f"the event method for {message['type']!r}"))
