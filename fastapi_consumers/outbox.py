"""The bounded queue between whoever sends and one socket. Owned by the connection; it is the only writer.

A frame is handed to the server at once, by stepping its ``send`` coroutine in place, as long as the server takes it
without waiting and nothing is queued. Only when the server waits (its buffer is full) does a task start, which writes
what has piled up and ends. So a healthy connection costs no task, no queue and no wake-up per message.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any

from .messages import Frame
from .stepping import Resumed
from .types import Send


class Outbox:
    """What one connection still has to send.

    Args:
        send: the server's ASGI ``send``.
        max_messages, max_bytes: what may wait; more calls ``on_overflow``.
        write_timeout: seconds that one message may take to be written once the server has begun to wait.
        on_overflow: called once, without arguments, when the bound or the time is exceeded.
        on_lost: called once with the exception when the server refuses to send, as it does when the peer has gone.

    Frames leave in the order in which they were pushed. After ``abort``, an overflow or a lost peer everything is
    dropped. ``sent``, ``dropped``, ``waiting`` and the one that is being written add up to what was pushed.
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
        "_sealed",
        "_send",
        "_task",
        "_waiters",
        "_write_timeout",
        "dropped",
        "is_idle",
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
        #: Who waits for which message, counted from the first, in that order.
        self._waiters: deque[tuple[int, asyncio.Future[None]]] | None = None
        self._held = True
        self._sealed = False
        self._dead = False
        #: Whether a frame would go straight to the server: open, nothing waits, nothing is being written.
        self.is_idle = False
        #: Messages handed to the server, and messages dropped because the socket was gone.
        self.sent = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Messages that wait to be written."""
        return len(self._queue) if self._queue else 0

    @property
    def is_dead(self) -> bool:
        return self._dead

    def open(self) -> None:
        """Begin to send. Until the socket is accepted everything is held back, in order."""
        if self._held and not self._dead:
            self._held = False
            self.is_idle = not self._sealed
            queue, self._queue, self._bytes = self._queue, None, 0
            for frame in queue or ():
                self.push(frame)

    def push(self, frame: Frame) -> None:
        """Send ``frame`` now if the server takes it at once, else queue it. Never waits, never raises."""
        if not self.is_idle:
            self._enqueue(frame)
            return
        try:
            coroutine: Any = self._send(frame.message)
            if type(coroutine) is not CoroutineType and not hasattr(coroutine, "send"):
                coroutine = _awaited(coroutine)  # An awaitable that is no coroutine, as some servers return.
            waited_for = coroutine.send(None)
        except StopIteration:
            self.sent += 1
        except BaseException as error:
            self.dropped += 1
            self._lose(error)
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise
        else:
            self.is_idle = False
            self._task = asyncio.get_running_loop().create_task(self._write(Resumed(coroutine, waited_for)))

    def _enqueue(self, frame: Frame) -> None:
        if self._dead or self._sealed:
            self.dropped += 1
            return
        if self._queue is None:
            self._queue = deque()
        if len(self._queue) >= self._max_messages or self._bytes + frame.size > self._max_bytes:
            self.dropped += 1
            self._overflow()
            return
        self._queue.append(frame)
        self._bytes += frame.size

    async def _write(self, current: Awaitable[None]) -> None:
        """Finish the send that waits, then write what was queued meanwhile."""
        limit = asyncio.timeout(self._write_timeout)
        try:
            while True:
                async with limit:
                    await current
                self.sent += 1
                if self._waiters:
                    self._wake(self.sent)
                if not self._queue:
                    break
                frame = self._queue.popleft()
                self._bytes -= frame.size
                current = self._send(frame.message)
                limit = asyncio.timeout(self._write_timeout)
        except TimeoutError as error:
            if limit.expired():
                self._overflow()
            else:
                self._lose(error)
        except Exception as error:
            self._lose(error)
        except asyncio.CancelledError:
            self.abort()
            raise
        else:
            self._task = self._queue = None
            self.is_idle = not self._sealed

    async def flush(self) -> None:
        """Wait until all that was pushed before has been handed to the server, or will never be.

        Where nothing can be sent any more others get a turn, so that who sends in a loop does not keep them from
        stopping it.
        """
        if self._task is not None:
            if self._waiters is None:
                self._waiters = deque()
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((self.sent + self.waiting + 1, done))
            await done
        elif self._dead or self._sealed:
            await asyncio.sleep(0)

    def _wake(self, sent: int | None = None) -> None:
        """Wake those who wait for one of the first ``sent`` messages, or all."""
        while self._waiters and (sent is None or self._waiters[0][0] <= sent):
            _, done = self._waiters.popleft()
            if not done.done():
                done.set_result(None)

    def seal(self) -> None:
        """Take no more. What waits is still written."""
        self._sealed = True
        self.is_idle = False

    def abort(self) -> None:
        """Drop what waits and what is being written, and take no more."""
        self._dead = True
        self.is_idle = False
        self.dropped += self.waiting
        self._queue, self._bytes = None, 0
        task, self._task = self._task, None
        if task is not None:
            self.dropped += 1
            if task is not asyncio.current_task():
                task.cancel()
        self._wake()

    def _overflow(self) -> None:
        self.abort()
        self._on_overflow()

    def _lose(self, error: BaseException) -> None:
        self.abort()
        self._on_lost(error)


async def _awaited(awaitable: Awaitable[None]) -> None:
    await awaitable
