"""The bounded queue between whoever sends and one socket. Owned by the connection; it is the only writer.

A frame is handed to the server at once, by stepping its ``send`` coroutine in place, as long as the server takes it
without waiting and nothing is queued. Only when the server waits (its buffer is full) does a task start, which writes
what has piled up and ends. So a healthy connection costs no task, no queue and no wake-up per message.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from .messages import Frame
from .types import Send


class Outbox:
    """What one connection still has to send.

    Args:
        send: the server's ASGI ``send``.
        max_messages, max_bytes: what may wait; more calls ``on_overflow``.
        write_timeout: seconds that one message may take to be written once the server has begun to wait.
        on_overflow: called once, without arguments, when the bound or the time is exceeded.
        on_lost: called once with the exception when the server says that the peer has gone.

    Frames leave in the order in which they were pushed. After ``abort`` or a lost peer everything is dropped.
    """

    __slots__ = (
        "_bytes",
        "_dead",
        "_held",
        "_max_bytes",
        "_max_messages",
        "_on_lost",
        "_on_overflow",
        "_queue",
        "_send",
        "_task",
        "_write_timeout",
        "dropped",
        "sent",
    )

    def __init__(
        self,
        send: Send,
        *,
        max_messages: int,
        max_bytes: int,
        write_timeout: float,
        on_overflow: Callable[[], None],
        on_lost: Callable[[BaseException], None],
    ) -> None:
        self._send = send
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._write_timeout = write_timeout
        self._on_overflow = on_overflow
        self._on_lost = on_lost
        self._queue: deque[Frame] | None = None
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._held = True
        self._dead = False
        #: Messages handed to the server, and messages dropped because the socket was gone.
        self.sent = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Messages that wait to be written."""
        return len(self._queue) if self._queue else 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is being written."""
        return self._task is None and not self._queue

    @property
    def is_dead(self) -> bool:
        return self._dead

    def open(self) -> None:
        """Begin to send. Until the socket is accepted everything is held back, in order."""
        if self._held and not self._dead:
            self._held = False
            queue, self._queue, self._bytes = self._queue, None, 0
            for frame in queue or ():
                self.push(frame)

    def push(self, frame: Frame) -> None:
        """Send ``frame`` now if the server takes it at once, else queue it. Never waits, never raises."""
        if self._task is not None or self._held or self._dead:
            self._enqueue(frame)
            return
        coroutine: Any = self._send(frame.message)
        if not hasattr(coroutine, "send"):  # An awaitable that is no coroutine, as some servers return.
            coroutine = coroutine.__await__()
        try:
            waited_for = coroutine.send(None)
        except StopIteration:
            self.sent += 1
        except BaseException as error:
            self._lose(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._task = asyncio.get_running_loop().create_task(self._write(_Resumed(coroutine, waited_for)))

    def _enqueue(self, frame: Frame) -> None:
        if self._dead:
            self.dropped += 1
            return
        if self._queue is None:
            self._queue = deque()
        if len(self._queue) >= self._max_messages or self._bytes + frame.size > self._max_bytes:
            self._overflow()
            return
        self._queue.append(frame)
        self._bytes += frame.size

    async def _write(self, current: Awaitable[None]) -> None:
        """Finish the send that waits, then write what was queued meanwhile."""
        try:
            while True:
                async with asyncio.timeout(self._write_timeout):
                    await current
                self.sent += 1
                if not self._queue:
                    return
                frame = self._queue.popleft()
                self._bytes -= frame.size
                current = self._send(frame.message)
        except TimeoutError:
            self._overflow()
        except Exception as error:
            self._lose(error)
        finally:
            self._task = None
            self._queue = self._queue or None

    async def flush(self) -> None:
        """Wait until all that was pushed before has been handed to the server, or will never be."""
        task = self._task
        if task is not None:
            # Shielded: who waits here may be cancelled, what is being written may not.
            await asyncio.wait([task])

    def abort(self) -> None:
        """Drop what waits, and stop writing."""
        self._dead = True
        if self._queue:
            self.dropped += len(self._queue)
        self._queue, self._bytes = None, 0
        if self._task is not None:
            self._task.cancel()

    def _overflow(self) -> None:
        if not self._dead:
            self.dropped += 1
            self.abort()
            self._on_overflow()

    def _lose(self, error: BaseException) -> None:
        if not self._dead:
            self.dropped += 1
            self.abort()
            self._on_lost(error)


class _Resumed:
    """A coroutine that was stepped once by hand, to be awaited by a task from where it waits."""

    __slots__ = ("_coroutine", "_waited_for")

    def __init__(self, coroutine: Any, waited_for: Any) -> None:
        self._coroutine: Coroutine[Any, Any, None] = coroutine
        self._waited_for = waited_for

    def __await__(self) -> Generator[Any, Any, None]:
        waited_for = self._waited_for
        while True:
            try:
                value = yield waited_for
            except BaseException as error:
                try:
                    waited_for = self._coroutine.throw(error)
                except StopIteration:
                    return
            else:
                try:
                    waited_for = self._coroutine.send(value)
                except StopIteration:
                    return
