"""Publishing from outside of an application: a worker, a script, a Celery task, Django, another framework.

::

    async with Publisher("redis://localhost:6379/0") as publish:
        await publish.broadcast("chat.lobby", "announced", {"text": "hi"})

    with SyncPublisher("redis://localhost:6379/0") as publish:
        publish.broadcast("chat.lobby", "announced", {"text": "hi"})

Both connect when something is published, not before, and receive nothing. They may be used again after ``close``.
"""

import asyncio
import math
import os
import selectors
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, cast

from broadcaster import Broadcast

from .addressing import Addressed, close_for, event_for, event_for_group, message_for_group, revoke_for
from .exceptions import BrokerUnavailable, ImproperlyConfigured, Problem
from .messages import Position
from .packets import encode_packet
from .redis_client import safe_url
from .transports import Transport
from .transports.broadcaster import BroadcasterTransport
from .transports.urls import seconds_of, transport_of
from .types import CloseCode

#: Seconds without a call after which the next one connects anew: what has been idle may have been cut off unnoticed.
MAX_IDLE = 30.0
#: Seconds that the thread of a ``SyncPublisher`` gets to end when it is closed.
STOP_TIMEOUT = 5.0


class Publisher:
    """Publishes to the consumers of an application that runs elsewhere.

    Every method raises ``BrokerUnavailable`` within ``broker_timeout`` if what it publishes cannot be handed on; it may
    have been all the same. What is published one call after another arrives in that order.

    It may be used by many tasks of one event loop, and in one event loop after another. A process that was forked makes
    connections of its own, where ``url`` was given.

    Args:
        url: as in ``add_consumers``, but not ``memory://``, from which nobody else would hear.
        transport: a transport that nobody else uses, in place of ``url``.
        broadcast: a ``broadcaster.Broadcast``, in place of ``url``. It is connected and disconnected here only if you
            have not connected it.
        broker_timeout: seconds, or a timedelta, that one call may take, connecting included.

    Raises ``ImproperlyConfigured`` for a URL that cannot be meant.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        transport: Transport | None = None,
        broadcast: Broadcast | None = None,
        broker_timeout: float | timedelta = 1.0,
    ) -> None:
        self._make: Callable[[], Transport] = lambda: _transport(url, transport, broadcast, broker_timeout)
        self._transport = self._make()
        self._timeout = seconds_of(broker_timeout)
        #: The event loop that the transport is open in.
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Held while it is opened or closed; and the event loop of whoever may hold it.
        self._lock = asyncio.Lock()
        self._locked_in: asyncio.AbstractEventLoop | None = None
        #: Calls that are under way, and when the last one had succeeded: never, if the last one has failed.
        self._calls = 0
        self._used_at = -math.inf
        self._pid = os.getpid()
        self._inherited: list[Transport] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._transport!r})"

    async def open(self) -> None:
        """Connect now, to see that it can be done; otherwise the first publish does so.

        Raises ``BrokerUnavailable``, and ``ImproperlyConfigured`` if the broker refuses this client.
        """
        await self._in_time(self._open)

    async def close(self) -> None:
        """Disconnect. Safe twice, and if nothing was published."""
        if self._loop is asyncio.get_running_loop() and self._pid == os.getpid():
            async with self._lock:
                self._loop = None
                await self._transport.close()

    async def __aenter__(self) -> "Publisher":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def broadcast(
        self,
        group: str,
        event: str,
        data: Any = None,
        *,
        exclude: str | None = None,
        coalesce_key: str | None = None,
    ) -> Position | None:
        """Send an event to all members of a group. As ``Consumers.broadcast``."""
        await self.publish(event_for_group(group, event, data, exclude=exclude, coalesce_key=coalesce_key))
        return None

    async def send(self, event: str, data: Any = None, *, user: Any = None, channel: str | None = None) -> None:
        """Send an event to all connections of a user, or to one channel. As ``Consumers.send``."""
        await self.publish(event_for(event, data, user=user, channel=channel))

    async def disconnect(
        self,
        *,
        user: Any = None,
        channel: str | None = None,
        group: str | None = None,
        code: int = CloseCode.REPLACED,
        reason: str = "disconnected",
    ) -> None:
        """Close all sockets of a user, one by its channel, or all of a group. As ``Consumers.disconnect``."""
        await self.publish(close_for(user=user, channel=channel, group=group, code=code, reason=reason))

    async def revoke(self, token_id: str) -> None:
        """Close all sockets whose credential has this ``token_id``, with 4401. As ``Consumers.revoke``."""
        await self.publish(revoke_for(token_id))

    async def group_send(self, group: str, message: Mapping[str, Any]) -> None:
        """Call the event method for ``message["type"]`` in every member, as Channels' layer does."""
        await self.publish(message_for_group(group, message))

    async def publish(self, addressed: Addressed | None) -> None:
        """What the other methods end in; ``None`` reaches nobody."""
        if addressed is not None:
            await self._in_time(lambda: self._publish(addressed))

    async def _publish(self, addressed: Addressed) -> None:
        await self._open()
        await self._transport.publish(addressed.topic, encode_packet(addressed.packet))

    async def _in_time(self, work: Callable[[], Awaitable[None]]) -> None:
        if self._pid != os.getpid():
            self._leave_to_parent()
        self._calls += 1
        try:
            async with asyncio.timeout(self._timeout):
                await work()
            self._used_at = time.monotonic()
        except BaseException as error:
            self._used_at = -math.inf
            if not isinstance(error, TimeoutError):
                raise
            unavailable = BrokerUnavailable()
            unavailable.add_note(f"{self._transport!r} did not answer within {self._timeout:g} s")
            raise unavailable from error
        finally:
            self._calls -= 1

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and self._loop.is_running():
            raise RuntimeError(
                f"{self!r} is in use in another event loop, in another thread: make one for each, or a SyncPublisher, "
                "which any thread may use"
            )
        if self._calls == 1 and time.monotonic() - self._used_at > MAX_IDLE:
            # Nobody else relies on what is open, if anything is.
            await self.close()
        if self._loop is loop:
            return
        if self._locked_in is not loop:
            self._lock, self._locked_in = asyncio.Lock(), loop
        async with self._lock:
            if self._loop is not loop:
                try:
                    await self._transport.open_for_publishing()
                except BaseException:
                    await self._transport.close()
                    raise
                self._loop = loop

    def _leave_to_parent(self) -> None:
        # Kept, since whatever would close these connections here would end them for the parent too.
        self._inherited.append(self._transport)
        self._transport, self._loop, self._locked_in = self._make(), None, None
        self._calls, self._pid = 0, os.getpid()


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
        broker_timeout: float | timedelta = 1.0,
    ) -> None:
        self._publisher = Publisher(url, transport=transport, broadcast=broadcast, broker_timeout=broker_timeout)
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
        coalesce_key: str | None = None,
    ) -> Position | None:
        """Send an event to all members of a group. As ``Consumers.broadcast``."""
        self._publish(event_for_group(group, event, data, exclude=exclude, coalesce_key=coalesce_key))
        return None

    def send(self, event: str, data: Any = None, *, user: Any = None, channel: str | None = None) -> None:
        """Send an event to all connections of a user, or to one channel. As ``Consumers.send``."""
        self._publish(event_for(event, data, user=user, channel=channel))

    def disconnect(
        self,
        *,
        user: Any = None,
        channel: str | None = None,
        group: str | None = None,
        code: int = CloseCode.REPLACED,
        reason: str = "disconnected",
    ) -> None:
        """Close all sockets of a user, one by its channel, or all of a group. As ``Consumers.disconnect``."""
        self._publish(close_for(user=user, channel=channel, group=group, code=code, reason=reason))

    def revoke(self, token_id: str) -> None:
        """Close all sockets whose credential has this ``token_id``, with 4401. As ``Consumers.revoke``."""
        self._publish(revoke_for(token_id))

    def group_send(self, group: str, message: Mapping[str, Any]) -> None:
        """Call the event method for ``message["type"]`` in every member, as Channels' layer does."""
        self._publish(message_for_group(group, message))

    def _publish(self, addressed: Addressed | None) -> None:
        self._call(lambda: self._publisher.publish(addressed))

    def _call(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not self._running_worker().call(work):
            pass  # It was stopped in between.

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

    def call(self, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Wait until it is done, and raise what it raises; ``False`` if it was not begun."""
        with self._lock:
            if self.is_stopped:
                return False
            future = asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop)
        try:
            future.result()
        except BaseException:
            future.cancel()  # If it was this thread that was interrupted.
            raise
        return True

    def stop(self) -> None:
        if self.pid != os.getpid():
            return  # The thread is not in this process.
        with self._lock:
            if not self.is_stopped:
                self.is_stopped = True
                self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:  # It is where the garbage collector may run.
            self._thread.join(STOP_TIMEOUT)

    async def _tracked(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._calls.add(task)
        try:
            await work()
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


def _transport(url: Any, transport: Any, broadcast: Any, broker_timeout: float | timedelta) -> Transport:
    given = {"url": url, "transport": transport, "broadcast": broadcast}
    names = [f"{name}=" for name, value in given.items() if value is not None]
    if len(names) != 1:
        fix = 'write Publisher("redis://…")'
        raise _mistake("one-transport", " and ".join(names) or "nothing", "one of url, transport= and broadcast=", fix)
    if broadcast is not None:
        if not isinstance(broadcast, Broadcast):
            fix = 'write broadcast=Broadcast("postgres://…")'
            raise _mistake("bad-broadcast", repr(broadcast), "a broadcaster.Broadcast", fix)
        return BroadcasterTransport(broadcast, broker_timeout=seconds_of(broker_timeout))
    if transport is not None and not isinstance(transport, Transport):
        raise _mistake("bad-transport", repr(transport), "an instance of Transport", "derive it from Transport")
    found: Transport = transport if transport is not None else transport_of(url, broker_timeout=broker_timeout)
    if not found.is_distributed:
        raise _mistake(
            "publisher-reaches-nobody",
            safe_url(url) if url is not None else repr(transport),
            "a broker that the application uses too, such as redis://host:6379/0",
            "name the application's broker; inside of an application that has none, use its Consumers: get_consumers",
        )
    return found


def _mistake(code: str, found: str, expected: str, fix: str) -> ImproperlyConfigured:
    return ImproperlyConfigured("The publisher", [Problem(code, "Publisher()", found, expected, fix)])
