"""Publishing from outside of an application: a worker, a script, a Celery task, Django, another framework.

::

    async with Publisher("redis://localhost:6379/0") as publish:
        await publish.broadcast("chat.lobby", "announced", {"text": "hi"})

It connects when something is published, not before, and receives nothing. It may be used again after ``close``.
"""

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

from broadcaster import Broadcast

from .addressing import GROUP, Addressed, close_for, event_for, event_for_group, message_for_group, revoke_for
from .appending import Appender
from .backends import HistoryBackend, history_backend
from .exceptions import BrokerUnavailable, ImproperlyConfigured, Problem
from .histories import Histories
from .history import HistoryStore
from .history.base import check_idempotency_key
from .messages import Position
from .observing import Observer, Observing
from .packets import Packet, encode_packet, with_position
from .redis_client import safe_url
from .transports import Transport
from .transports.broadcaster import BroadcasterTransport
from .transports.urls import seconds_of, transport_of
from .types import CloseCode

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds without a call after which the next one connects anew: what has been idle may have been cut off unnoticed.
MAX_IDLE = 30.0
#: Seconds after which it is looked up again which groups have a history; and before that is tried again if it failed.
MAX_AGE, RETRY = 30.0, 5.0


class Publisher:
    """Publishes to the consumers of an application that runs elsewhere.

    Every method raises ``BrokerUnavailable`` within ``broker_timeout`` if what it publishes cannot be handed on; it may
    have been all the same. What is published one call after another arrives in that order.

    Events for a group with history are appended to it, with the size and age that the application keeps at the store.
    These are looked up with the first event for a group, and again with one that comes more than 30 seconds later.

    It may be used by many tasks of one event loop, and in one event loop after another. A process that was forked makes
    connections of its own, where ``url`` was given.

    Args:
        url: as in ``add_consumers``, but not ``memory://``, from which nobody else would hear.
        transport: a transport that nobody else uses, in place of ``url``.
        broadcast: a ``broadcaster.Broadcast``, in place of ``url``. It is connected and disconnected here only if you
            have not connected it.
        history_url: where the application keeps the history of its groups: the same as in its ``add_consumers``, which
            may be left out here if it is there. A ``HistoryStore`` must be one that nobody else uses.
        broker_timeout: seconds, or a timedelta, that one call may take, connecting and appending included.
        observers: are told what is published, such as those that trace: their hooks ``publishing`` and ``published``.

    Raises ``ImproperlyConfigured`` for a URL that cannot be meant.
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
        self._timeout = seconds_of(broker_timeout)
        self._observing = Observing(observers)
        self._make: Callable[[], tuple[Transport, HistoryBackend]] = lambda: _backends(
            url, transport, broadcast, history_url, self._timeout
        )
        self._inherited: list[Any] = []
        self._begin()
        #: The settings of the groups that have a history, and when they were looked up: never, at first.
        self._histories = Histories()
        self._loaded_at = -math.inf

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._transport, (store, self._store_publishes) = self._make()
        self._broker = _Connected(self._transport, self)
        self._store = (store, _Connected(store, self)) if store is not None else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._transport!r})"

    async def open(self) -> None:
        """Connect now, to see that it can be done; otherwise the first publish does so.

        Raises ``BrokerUnavailable``, and ``ImproperlyConfigured`` if the broker or the store refuses this client.
        """
        await self._in_time(self._open)

    async def close(self) -> None:
        """Disconnect. Safe twice, and if nothing was published."""
        if self._pid == os.getpid():
            try:
                if self._store is not None:
                    await self._store[1].close()
            finally:
                await self._broker.close()

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
        idempotency_key: str | None = None,
        coalesce_key: str | None = None,
    ) -> Position | None:
        """Send an event to all members of a group. As ``Consumers.broadcast``.

        In a group with history it returns where the event is: it is kept then, and delivered, be it that the broker is
        away and that members have it once that is back. What raises ``BrokerUnavailable`` may be sent again with the
        same ``idempotency_key``.
        """
        addressed = event_for_group(group, event, data, exclude=exclude, coalesce_key=coalesce_key)
        return await self.publish(addressed, idempotency_key)

    async def send(self, event: str, data: Any = None, *, user: Any = None, channel: str | None = None) -> None:
        """Send an event to all connections of a user, or to one channel. As ``Consumers.send``."""
        await self.publish(event_for(event, data, user=user, channel=channel))

    async def disconnect(
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
        await self.publish(addressed)

    async def revoke(self, token_id: str) -> None:
        """Close all sockets whose credential has this ``token_id``, with 4401. As ``Consumers.revoke``."""
        await self.publish(revoke_for(token_id))

    async def group_send(self, group: str, message: Mapping[str, Any]) -> None:
        """Call the event method for ``message["type"]`` in every member, as Channels' layer does."""
        await self.publish(message_for_group(group, message))

    async def publish(self, addressed: Addressed | None, idempotency_key: str | None = None) -> Position | None:
        """What the other methods end in; ``None`` reaches nobody."""
        if idempotency_key is not None:
            check_idempotency_key(idempotency_key)
        if addressed is None:
            return None
        with self._observing.publication(*addressed) as publication:
            return await self._publish(addressed.topic, publication.packet, idempotency_key)

    async def _publish(self, topic: str, packet: Packet, idempotency_key: str | None) -> Position | None:
        if packet.kind == "event" and topic.startswith(GROUP):
            group = topic[len(GROUP) :]
            return await self._in_time(lambda limit: self._broadcast(group, packet, idempotency_key, limit))
        await self._in_time(lambda limit: self._hand_on(topic, encode_packet(packet)))
        return None

    async def _broadcast(
        self, group: str, packet: Packet, idempotency_key: str | None, limit: asyncio.Timeout
    ) -> Position | None:
        if self._store is not None:
            store, connected = self._store
            await self._look_up(store, connected)
            history = self._histories.of(group)
            if history is not None:
                async with connected:
                    # What the store does not hand on by itself goes through here.
                    appender = Appender(store, self._transport, self._store_publishes, self._hand_on_in_time(limit))
                    position, _ = await appender.append(group, packet, history, idempotency_key)
                    return position
        if idempotency_key is not None:
            raise ValueError(
                f"The group {group!r} has no history, which is where idempotency keys are kept; or none that is known "
                "at the store, where the application leaves word when it starts."
            )
        await self._hand_on(GROUP + group, encode_packet(packet))
        return None

    async def _hand_on(self, topic: str, packet: bytes) -> None:
        async with self._broker:
            await self._transport.publish(topic, packet)

    def _hand_on_in_time(self, limit: asyncio.Timeout) -> Callable[[str, Packet, Position, bytes], Awaitable[None]]:
        async def hand_on(topic: str, packet: Packet, position: Position, encoded: bytes) -> None:
            # The event is kept. From now on no limit may raise as if it were not.
            end = limit.when()
            limit.reschedule(None)
            try:
                async with asyncio.timeout_at(end):
                    await self._hand_on(topic, with_position(position, encoded))
            except TimeoutError as error:
                raise BrokerUnavailable from error

        return hand_on

    async def _look_up(self, store: HistoryStore, connected: "_Connected") -> None:
        """See to it that it is known which groups have a history, and was still so a short time ago."""
        now = time.monotonic()
        if now - self._loaded_at <= MAX_AGE:
            return
        if self._loaded_at == -math.inf:
            async with connected:
                async with connected.lock:
                    if self._loaded_at == -math.inf:
                        self._histories.load(await store.load_templates())
                        self._loaded_at = time.monotonic()
            return
        # Others go on with what was known. So does this one if it fails: what is away changes nothing.
        self._loaded_at = now - MAX_AGE + RETRY
        try:
            async with asyncio.timeout(self._timeout / 2), connected:
                self._histories.load(await store.load_templates())
            self._loaded_at = now
        except (BrokerUnavailable, TimeoutError) as error:
            logger.warning("it could not be looked up again which groups have a history: %r", error)

    async def _open(self, limit: asyncio.Timeout) -> None:
        async with self._broker:
            pass
        if self._store is not None:
            await self._look_up(*self._store)

    async def _in_time(self, work: Callable[[asyncio.Timeout], Awaitable[T]]) -> T:
        if self._pid != os.getpid():
            # Kept, since whatever would close these connections here would end them for the parent too.
            self._inherited.append((self._transport, self._store))
            self._begin()
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await work(limit)
        except TimeoutError as error:
            unavailable = BrokerUnavailable()
            [who, *_] = getattr(error.__cause__, "__notes__", None) or [repr(self._transport)]
            unavailable.add_note(f"{who} did not answer within {self._timeout:g} s")
            raise unavailable from error


class _Connected:
    """Entered by whoever uses a broker or a store: connects where nobody has yet, or where that may be out of date.

    Args:
        target: the broker's transport, or the store.
        owner: whom an error is about.
    """

    def __init__(self, target: Transport | HistoryStore, owner: Publisher) -> None:
        self._target = target
        self._owner = owner
        #: The event loop that it is connected in.
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Held while it is connected or disconnected; and the event loop of whoever may hold it.
        self.lock = asyncio.Lock()
        self._locked_in: asyncio.AbstractEventLoop | None = None
        #: How many use it, and when the last one had succeeded: never, if the last one has failed.
        self._users = 0
        self._used_at = -math.inf

    async def __aenter__(self) -> None:
        self._users += 1
        try:
            await self._connect()
        except BaseException as error:
            self._end(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(error)

    async def close(self) -> None:
        if self._loop is asyncio.get_running_loop():
            async with self.lock:
                self._loop = None
                await self._target.close()

    def _end(self, error: BaseException | None) -> None:
        self._users -= 1
        self._used_at = time.monotonic() if error is None else -math.inf
        if isinstance(error, asyncio.CancelledError):
            error.add_note(repr(self._target))  # For whoever asks what it was that took so long.

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and self._loop.is_running():
            raise RuntimeError(
                f"{self._owner!r} is in use in another event loop, in another thread: make one for each, or a "
                "SyncPublisher, which any thread may use"
            )
        if self._users == 1 and time.monotonic() - self._used_at > MAX_IDLE:
            # Nobody else relies on what is open, if anything is.
            await self.close()
        if self._loop is loop:
            return
        if self._locked_in is not loop:
            self.lock, self._locked_in = asyncio.Lock(), loop
        async with self.lock:
            if self._loop is not loop:
                target = self._target
                try:
                    await (target.open_for_publishing() if isinstance(target, Transport) else target.open())
                except BaseException:
                    await target.close()
                    raise
                self._loop = loop


def _backends(
    url: Any, transport: Any, broadcast: Any, history_url: str | HistoryStore | None, seconds: float
) -> tuple[Transport, HistoryBackend]:
    found = _transport(url, transport, broadcast, seconds)
    # What is at the same server shares the transport's connections, and appending publishes there by itself.
    given = None if url is not None and history_url == url else history_url
    return found, history_backend(found, given, timeout=seconds)


def _transport(url: Any, transport: Any, broadcast: Any, seconds: float) -> Transport:
    given = {"url": url, "transport": transport, "broadcast": broadcast}
    names = [f"{name}=" for name, value in given.items() if value is not None]
    if len(names) != 1:
        fix = 'write Publisher("redis://…")'
        raise _mistake("one-transport", " and ".join(names) or "nothing", "one of url, transport= and broadcast=", fix)
    if broadcast is not None:
        if not isinstance(broadcast, Broadcast):
            fix = 'write broadcast=Broadcast("postgres://…")'
            raise _mistake("bad-broadcast", repr(broadcast), "a broadcaster.Broadcast", fix)
        return BroadcasterTransport(broadcast, broker_timeout=seconds)
    if transport is not None and not isinstance(transport, Transport):
        raise _mistake("bad-transport", repr(transport), "an instance of Transport", "derive it from Transport")
    found: Transport = (
        transport if transport is not None else transport_of(url, broker_timeout=seconds, reaches_others=True)
    )
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
