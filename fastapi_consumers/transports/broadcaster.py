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

from ..exceptions import BrokerUnavailable
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
        self._owned = False
        self._pumps: dict[str, asyncio.Task[None]] = {}
        self._lock: asyncio.Lock | None = None

    async def open(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._lock = asyncio.Lock()
        # Who connected it before us closes it after us.
        self._owned = getattr(self._broadcast, "_listener_task", None) is None
        if self._owned:
            await self._broadcast.connect()

    async def close(self) -> None:
        pumps, self._pumps = tuple(self._pumps.values()), {}
        for pump in pumps:
            pump.cancel()
        if pumps:
            await asyncio.wait(pumps)
        if self._owned:
            await self._broadcast.disconnect()

    async def publish(self, topic: str, packet: bytes) -> None:
        try:
            await self._broadcast.publish(channel=topic, message=base64.b64encode(packet).decode())
        except Exception as error:
            raise BrokerUnavailable from error

    async def subscribe(self, topic: str) -> None:
        assert self._lock is not None
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with self._lock:
            self._pumps[topic] = asyncio.create_task(self._pump(topic, ready))
            await ready

    async def unsubscribe(self, topic: str) -> None:
        assert self._lock is not None
        async with self._lock:
            pump = self._pumps.pop(topic, None)
            if pump is not None:
                pump.cancel()
                await asyncio.wait([pump])

    async def _pump(self, topic: str, ready: "asyncio.Future[None]") -> None:
        try:
            async with self._broadcast.subscribe(channel=topic) as subscriber:
                ready.set_result(None)
                async for event in cast(AsyncIterator[Any], subscriber):
                    await self._take(topic, event)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not ready.done():
                failure = BrokerUnavailable()
                failure.__cause__ = error
                ready.set_exception(failure)
            else:
                logger.exception("the subscription to %r ended", topic)

    async def _take(self, topic: str, event: Any) -> None:
        assert self._deliver is not None
        try:
            packet = base64.b64decode(event.message, validate=True)
        except (ValueError, TypeError):
            logger.warning("dropped a message for %r that is not one of ours", topic)
            return
        await self._deliver(topic, packet)
