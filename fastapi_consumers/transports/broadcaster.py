"""A ``broadcaster.Broadcast`` as transport.

Broadcaster hands out one queue per subscriber, and concurrent first subscribers of a channel overwrite each other's. So
there is one subscription per topic here, made behind a lock, whatever number of members the topic has.
"""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

from broadcaster import Broadcast

from ..exceptions import BrokerUnavailable, ImproperlyConfigured, Problem
from .base import Deliver, Transport

logger = logging.getLogger(__name__)


class BroadcasterTransport(Transport):
    """Carries packets over any backend that ``broadcaster`` has.

    Packets travel as text, in base64, since not every backend takes bytes. Broadcaster itself promises little: what is
    published while its connection is broken is lost without a word.
    """

    is_distributed = True

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._deliver: Deliver | None = None
        #: What ``_listener_of`` found once it was connected, and whether it was connected here.
        self._listener: asyncio.Task[Any] | None = None
        self._owned = False
        self._pumps: dict[str, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()

    async def open(self, deliver: Deliver) -> None:
        self._deliver, self._lock, self._pumps = deliver, asyncio.Lock(), {}
        # Who connected it before us closes it after us.
        self._listener = _listener_of(self._broadcast)
        if self._listener is None:
            await self._broadcast.connect()
            self._owned, self._listener = True, _listener_of(self._broadcast)

    def check(self) -> None:
        # Broadcaster's connect() starts a second listener, and the first one's messages go astray.
        if self._owned and _listener_of(self._broadcast) is not self._listener:
            problem = Problem(
                "broadcast-connected-twice",
                "add_consumers(app, …, broadcast=…)",
                "a Broadcast that the app's lifespan connects, although it is connected by then",
                "one connect(): by add_consumers, or before the app starts",
                "do not connect and disconnect it in the lifespan; it is open before your lifespan and closed after it",
            )
            raise ImproperlyConfigured("The Broadcast", [problem])

    async def close(self) -> None:
        self._deliver = None
        pumps, self._pumps = tuple(self._pumps.values()), {}
        await _end(*pumps)
        listener, owned = self._listener, self._owned
        self._listener, self._owned = None, False
        if not owned or listener is None:
            return
        if listener is _listener_of(self._broadcast):
            await self._broadcast.disconnect()
        else:
            # It has ended, or somebody connected it again: disconnect() would raise what it ended with, or end theirs.
            listener.cancel()
            if listener.done() and not listener.cancelled() and (error := listener.exception()) is not None:
                logger.error("the listener of the Broadcast had ended", exc_info=error)

    async def publish(self, topic: str, packet: bytes) -> None:
        try:
            await self._broadcast.publish(channel=topic, message=base64.b64encode(packet).decode())
        except Exception as error:
            raise BrokerUnavailable from error

    async def subscribe(self, topic: str) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with self._lock:
            pump = self._pumps[topic] = asyncio.create_task(self._pump(topic, ready))
            try:
                await ready
            except BaseException:
                self._pumps.pop(topic, None)
                await _end(pump)
                raise

    async def unsubscribe(self, topic: str) -> None:
        async with self._lock:
            pump = self._pumps.pop(topic, None)
            if pump is not None:
                await _end(pump)

    async def _pump(self, topic: str, ready: "asyncio.Future[None]") -> None:
        try:
            async with self._broadcast.subscribe(channel=topic) as subscriber:
                if not ready.done():
                    ready.set_result(None)
                async for event in cast(AsyncIterator[Any], subscriber):
                    await self._take(topic, event)
        except Exception as error:
            if ready.cancelled():
                pass  # Nobody wants it any more; broadcaster makes a KeyError of the cancellation.
            elif ready.done():
                logger.exception("the subscription to %r ended", topic)
            else:
                failure = BrokerUnavailable()
                failure.__cause__ = error
                ready.set_exception(failure)

    async def _take(self, topic: str, event: Any) -> None:
        try:
            packet = base64.b64decode(event.message, validate=True)
        except (ValueError, TypeError):
            logger.warning("dropped a message for %r that is not one of ours", topic)
            return
        if self._deliver is not None:
            await self._deliver(topic, packet)


def _listener_of(broadcast: Broadcast) -> asyncio.Task[Any] | None:
    """The task of a Broadcast that is connected in this event loop. It has no public way to ask."""
    task: asyncio.Task[Any] | None = getattr(broadcast, "_listener_task", None)
    if task is None or task.done() or task.cancelling() or task.get_loop() is not asyncio.get_running_loop():
        return None
    return task


async def _end(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
