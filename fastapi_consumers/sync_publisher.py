"""Publishing from outside of an application by code that has no event loop of its own.

::

    with SyncPublisher("redis://localhost:6379/0") as publish:
        publish.broadcast("chat.lobby", "announced", {"text": "hi"})

A :class:`~fastapi_consumers.publisher.Publisher` in a thread with an event loop, which starts when something is
published, not before. It may be used again after ``close``.
"""

import asyncio
import os
import selectors
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar, cast

from broadcaster import Broadcast

from .addressing import Addressed, close_for, event_for, event_for_group, message_for_group, revoke_for
from .history import HistoryStore
from .messages import Position
from .observing import Observer
from .publisher import Publisher
from .transports import Transport
from .types import CloseCode

T = TypeVar("T")

#: Seconds that the thread gets to end when the publisher is closed.
STOP_TIMEOUT = 5.0


class SyncPublisher:
    """The same without ``await``: for code that has no event loop, and for threads of code that has one.

    Any number of threads may use one, at the same time. A call blocks its own thread, be it an event loop's, for at
    most ``broker_timeout``. The first call starts a thread with an event loop; a forked process starts its own, so that
    one made by a module serves in the workers of Celery or gunicorn. It is closed when the program exits, or when
    nobody refers to it any more.

    Arguments and errors are those of :class:`Publisher`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        transport: Transport | None = None,
        broadcast: Broadcast | None = None,
        history_url: str | HistoryStore | None = None,
        broker_timeout: float | timedelta = 1.0,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._publisher = Publisher(
            url,
            transport=transport,
            broadcast=broadcast,
            history_url=history_url,
            broker_timeout=broker_timeout,
            observers=observers,
        )
        self._worker: _Worker | None = None
        #: Held while a thread is started, by process: one that was held when the process was forked stays so.
        self._locks: dict[int, threading.Lock] = {}

    def __repr__(self) -> str:
        return repr(self._publisher).replace("Publisher", type(self).__name__, 1)

    def open(self) -> None:
        """As :meth:`Publisher.open`."""
        self._call(self._publisher.open)

    def close(self) -> None:
        """Disconnect and end the thread, once all calls that are under way in other threads have ended."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def __enter__(self) -> "SyncPublisher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def broadcast(
        self,
        group: str,
        event: str,
        data: Any = None,
        *,
        exclude: str | None = None,
        idempotency_key: str | None = None,
        coalesce_key: str | None = None,
    ) -> Position | None:
        """Send an event to all members of a group. As :meth:`Publisher.broadcast`."""
        addressed = event_for_group(group, event, data, exclude=exclude, coalesce_key=coalesce_key)
        return self._publish(addressed, idempotency_key)

    def send(self, event: str, data: Any = None, *, user: Any = None, channel: str | None = None) -> None:
        """Send an event to all connections of a user, or to one channel. As ``Consumers.send``."""
        self._publish(event_for(event, data, user=user, channel=channel))

    def disconnect(
        self,
        *,
        user: Any = None,
        channel: str | None = None,
        group: str | None = None,
        exclude: str | None = None,
        code: int = CloseCode.REPLACED,
        reason: str = "disconnected",
    ) -> None:
        """Close all sockets of a user, one by its channel, or all of a group. As ``Consumers.disconnect``."""
        addressed = close_for(user=user, channel=channel, group=group, exclude=exclude, code=code, reason=reason)
        self._publish(addressed)

    def revoke(self, token_id: str) -> None:
        """Close all sockets whose credential has this ``token_id``, with 4401. As ``Consumers.revoke``."""
        self._publish(revoke_for(token_id))

    def group_send(self, group: str, message: Mapping[str, Any]) -> None:
        """Call the event method for ``message["type"]`` in every member, as Channels' layer does."""
        self._publish(message_for_group(group, message))

    def _publish(self, addressed: Addressed | None, idempotency_key: str | None = None) -> Position | None:
        return self._call(lambda: self._publisher.publish(addressed, idempotency_key))

    def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        while True:
            try:
                return self._running_worker().call(work)
            except _Stopped:
                pass  # In between.

    def _running_worker(self) -> "_Worker":
        worker, pid = self._worker, os.getpid()
        if worker is not None and worker.pid == pid and not worker.is_stopped:
            return worker
        with self._locks.setdefault(pid, threading.Lock()):
            worker = self._worker
            if worker is None or worker.pid != pid or worker.is_stopped:
                worker = self._worker = _Worker(self._publisher)
                weakref.finalize(self, worker.stop)
            return worker


class _Stopped(Exception):
    """The worker takes nothing any more."""


class _Worker:
    """A thread with an event loop, for one publisher, until it is stopped."""

    def __init__(self, publisher: Publisher) -> None:
        self.pid = os.getpid()
        self.is_stopped = False
        self._publisher = publisher
        self._lock = threading.Lock()
        self._stop = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        # What a process that is forked does to its copy must not reach us: the kernel keeps what epoll and kqueue
        # watch for both of them, and poll() keeps nothing.
        selector = cast(Any, getattr(selectors, "PollSelector", selectors.SelectSelector))()
        self._loop = asyncio.SelectorEventLoop(selector)
        # A daemon, because threads are joined before anybody is told that the program exits.
        self._thread = threading.Thread(target=self._run, name="fastapi_consumers publisher", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait until it is done, and return or raise what it does. Raises ``_Stopped`` if it was not begun."""
        with self._lock:
            if self.is_stopped:
                raise _Stopped
            future = asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # If it was this thread that was interrupted.
            raise

    def stop(self) -> None:
        if self.pid != os.getpid():
            return  # The thread is not in this process.
        with self._lock:
            if not self.is_stopped:
                self.is_stopped = True
                self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:  # It is where the garbage collector may run.
            self._thread.join(STOP_TIMEOUT)

    async def _tracked(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._calls.add(task)
        try:
            return await work()
        finally:
            self._calls.discard(task)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await self._stop.wait()
        if self._calls:
            await asyncio.wait(tuple(self._calls))
        await self._publisher.close()
