"""One connected ``Broadcast``, made safe: what broadcaster leaves to those who use it is done here.

- Its subscribers of one channel must not come and go at the same time: there is a lock for each channel, and where the
  backend does one thing at a time on its connection (PostgreSQL), one for everything.
- Its queues have no bound: a task for each channel empties the channel's at once.
- It does not say that its connection is lost: its listener is watched, and a message to oneself has to come back.

Broadcaster's public names are ``Broadcast``, ``Event`` and ``BroadcastBackend``. It has no public way to ask whether a
``Broadcast`` is connected, and with which backend: :func:`listener_of` and :func:`backend_of` look into it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from broadcaster import Broadcast

from .broker import end

logger = logging.getLogger(__name__)

#: Seconds of silence after which the connection is tried with a message to oneself.
BEAT_INTERVAL = 1.0


class Traits(NamedTuple):
    """What is peculiar to a backend."""

    #: It has one connection, on which what overlaps fails.
    takes_turns: bool = False
    #: The largest message that it carries, in bytes.
    max_message: int | None = None
    #: Leaving one channel leaves all of them. So none is left.
    keeps_channels: bool = False
    #: Messages are gone once they are delivered, so that trying the connection costs nothing that lasts.
    forgets: bool = True


#: By the name of broadcaster's class, since importing one needs its client library. NOTIFY takes payloads that are
#: shorter than 8000 bytes.
TRAITS = {
    "PostgresBackend": Traits(takes_turns=True, max_message=7999),
    "KafkaBackend": Traits(keeps_channels=True, forgets=False),
}


class Subscription:
    """One topic, from ``subscribe`` to ``unsubscribe``."""

    __slots__ = ("channel", "confirmed", "is_wanted", "topic")

    def __init__(self, topic: str, channel: str) -> None:
        self.topic = topic
        self.channel = channel
        self.is_wanted = True
        #: Done once it has taken effect for the first time, or cannot.
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.confirmed.add_done_callback(_retrieve)  # Whoever waited for it may have gone.


class Lost(Exception):
    """The connection is of no use any more."""


class Disconnected(Lost):
    """Somebody else has disconnected the ``Broadcast``."""


class _Pump:
    """The task that is subscribed to one channel, and whose channel it is at the moment."""

    __slots__ = ("ready", "subscription", "task")

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None


class Link:
    """From ``open`` to ``close``; then another one is made.

    Args:
        is_ours: connect and disconnect the ``Broadcast`` here.
        wake: a channel that only this process uses.
        timeout: seconds that one operation may take.
        receive: called with what arrives for a subscription. It does not raise.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        *,
        is_ours: bool,
        wake: str,
        timeout: float,
        receive: Callable[[Subscription, Any], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.broadcast = broadcast
        self.is_ours = is_ours
        self.traits = traits_of(broadcast)
        self.listener: asyncio.Task[Any] | None = None
        self._wake = wake
        self._timeout = timeout
        self._receive = receive
        self._turn = asyncio.Lock() if self.traits.takes_turns else None
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._pumps: dict[Subscription, _Pump] = {}
        #: Pumps of channels that are not wanted and cannot be left, by channel.
        self._kept: dict[str, _Pump] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Done when it is lost, when it may be, and when something has arrived since that was asked.
        self._lost: asyncio.Future[Exception] = loop.create_future()
        self._suspected: asyncio.Future[None] = loop.create_future()
        self._heard: asyncio.Future[None] = loop.create_future()

    async def open(self) -> None:
        """Connect, and see that a message comes back. Raises what the backend raises, or ``Lost``."""
        if self.is_ours:
            with _no_stray_cancellation():
                async with asyncio.timeout(self._timeout):
                    await self.broadcast.connect()
        self.listener = listener_of(self.broadcast)
        if self.listener is None:
            raise Disconnected("the Broadcast is not connected")
        self.listener.add_done_callback(self._listener_ended)
        if self.traits.forgets:
            wake = Subscription("", self._wake)
            wake.is_wanted = False
            await self.subscribe(wake)
            if (error := await self._beat()) is not None:
                raise error

    async def close(self) -> None:
        """End all subscriptions, and the connection if it is ours. Does not raise for a connection that is lost."""
        if self.listener is not None:
            self.listener.remove_done_callback(self._listener_ended)
        try:
            if self.is_ours:
                # First, so that leaving the channels does not have to wait for a server that may be gone.
                await self._disconnect()
        finally:
            self._pumps.clear()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._timeout)
            await end(*self._tasks)

    async def publish(self, channel: str, message: str) -> None:
        """Raises what the backend raises, ``TimeoutError`` included; then the connection is tried."""
        try:
            with _no_stray_cancellation():
                async with asyncio.timeout(self._timeout), self._turn or nullcontext():
                    await self.broadcast.publish(channel=channel, message=message)
        except Exception:
            self._suspect()
            raise
        if self._turn is not None:  # The connection that listens has answered.
            self._hear()

    def subscribe(self, subscription: Subscription) -> asyncio.Future[None]:
        """Begin to subscribe; the future is done once that has taken effect, with an error if it cannot.

        Sets the subscription's ``confirmed`` in the same way, unless it is done already.
        """
        pump = self._kept.pop(subscription.channel, None)
        if pump is not None:
            pump.subscription = subscription
            _settle(subscription.confirmed, None)
        else:
            pump = _Pump(subscription)
            ready = pump.ready
            ready.add_done_callback(_retrieve)
            task = pump.task = asyncio.create_task(self._run(pump), name=f"fastapi_consumers: {subscription.topic!r}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: _settle(ready, Lost("not wanted any more")))  # It may not even have begun.
        self._pumps[subscription] = pump
        return pump.ready

    def unsubscribe(self, subscription: Subscription) -> None:
        """Begin to unsubscribe. It does not wait, so that nobody can be cancelled half-way."""
        pump = self._pumps.pop(subscription, None)
        if pump is None or pump.task is None:
            return
        if self.traits.keeps_channels and pump.ready.done() and not pump.task.done():
            self._kept[subscription.channel] = pump
        else:
            pump.task.cancel()

    async def until_lost(self) -> Exception:
        """Waits until the connection is lost, and returns what shows it."""
        while not self._lost.done():
            if self._heard.done():
                self._heard = asyncio.get_running_loop().create_future()
            interval = BEAT_INTERVAL if self.traits.forgets else None
            await _first(self._lost, self._suspected, timeout=interval)
            if self._lost.done() or (self._heard.done() and not self._suspected.done()):
                continue
            if (error := await self._beat()) is not None:
                return error
        return self._lost.result()

    # Is it alive?

    async def _beat(self) -> Exception | None:
        loop = asyncio.get_running_loop()
        self._suspected, self._heard = loop.create_future(), loop.create_future()
        if not self.traits.forgets:
            return None
        try:
            await self.publish(self._wake, "")
        except Exception as error:
            return error
        # Twice, because a timer may be late together with everything else, and then comes first.
        for _ in range(2):
            await _first(self._heard, self._lost, timeout=self._timeout)
        if self._lost.done():
            return self._lost.result()
        return None if self._heard.done() else Lost("a message to oneself does not come back")

    def _hear(self) -> None:
        _settle(self._heard, None)

    def _suspect(self) -> None:
        _settle(self._suspected, None)

    def _lose(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_result(error)

    def _listener_ended(self, listener: "asyncio.Task[Any]") -> None:
        if listener.cancelled():
            self._lose(Disconnected("the Broadcast was disconnected by somebody else"))
        else:
            self._lose(_as_exception(listener.exception()) or Lost("the listener of the Broadcast ended"))

    # Subscriptions

    def _lock_of(self, channel: str) -> AbstractAsyncContextManager[None]:
        return self._turn or self._locks.setdefault(channel, asyncio.Lock())

    async def _run(self, pump: _Pump) -> None:
        """Subscribed to one channel until it is cancelled."""
        context = self.broadcast.subscribe(channel=pump.subscription.channel)
        lock = self._lock_of(pump.subscription.channel)
        try:
            async with lock, asyncio.timeout(self._timeout):
                subscriber = await context.__aenter__()
        except BaseException as error:
            # Of whatever it was, a cancellation too, broadcaster makes a KeyError.
            cause = (error.__context__ or error) if isinstance(error, KeyError) else error
            failure = _as_exception(cause) or Lost(f"no answer within {self._timeout:g} s")
            _settle(pump.ready, failure)
            _settle(pump.subscription.confirmed, failure)
            self._suspect()
            if not isinstance(error, Exception):
                raise
            return
        try:
            _settle(pump.ready, None)
            _settle(pump.subscription.confirmed, None)
            while True:
                event = await subscriber.get()
                self._hear()
                self._receive(pump.subscription, event.message)
        except Exception as error:
            self._lose(error)
        finally:
            try:
                async with lock, asyncio.timeout(self._timeout):
                    await context.__aexit__(None, None, None)
            except Exception:
                self._suspect()

    async def _disconnect(self) -> None:
        listener, current = self.listener, getattr(self.broadcast, "_listener_task", None)
        try:
            with _no_stray_cancellation():
                async with asyncio.timeout(self._timeout):
                    if listener is not None and current is not listener:
                        # Somebody has connected it again. What it has now is theirs.
                        listener.cancel()
                    elif listener is not None and listener.cancelling():
                        pass  # Somebody has disconnected it already.
                    elif listener is not None and not listener.done():
                        await self.broadcast.disconnect()
                    else:
                        # Its disconnect() would raise what the listener ended with, and leave the backend connected.
                        await backend_of(self.broadcast).disconnect()
        except Exception as error:
            logger.debug("a Broadcast was not disconnected in order: %r", error)


def backend_of(broadcast: Broadcast) -> Any:
    """The backend of a ``Broadcast``."""
    return getattr(broadcast, "_backend", None)


def traits_of(broadcast: Broadcast) -> Traits:
    """What is peculiar to its backend."""
    names = [cls.__name__ for cls in type(backend_of(broadcast)).__mro__]
    return next((TRAITS[name] for name in names if name in TRAITS), Traits())


def listener_of(broadcast: Broadcast) -> "asyncio.Task[Any] | None":
    """The task of a ``Broadcast`` that is connected in this event loop."""
    task: asyncio.Task[Any] | None = getattr(broadcast, "_listener_task", None)
    if task is None or task.done() or task.cancelling() or task.get_loop() is not asyncio.get_running_loop():
        return None
    return task


@contextmanager
def _no_stray_cancellation() -> Iterator[None]:
    """A client library may cancel what it waits for, as asyncpg does: then this task looks as if it were cancelled."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Lost("the client gave up") from error


async def _first(*futures: "asyncio.Future[Any]", timeout: float | None) -> None:
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


def _settle(future: "asyncio.Future[None]", error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _retrieve(future: "asyncio.Future[None]") -> None:
    if not future.cancelled():
        future.exception()


def _as_exception(error: BaseException | None) -> Exception | None:
    return error if isinstance(error, Exception) else None
