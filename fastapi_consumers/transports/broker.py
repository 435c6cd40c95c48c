"""What transports over a broker have in common: what they count, and the task that hands on what has arrived."""

import asyncio
import logging
import random
from abc import abstractmethod
from collections.abc import Collection, Mapping
from itertools import count
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from .arrivals import Arrivals
from .base import Deliver, OnGap, OnLost, Transport

logger = logging.getLogger(__name__)

G = TypeVar("G")

#: Deliveries between two turns of the event loop.
DELIVERIES_PER_TURN = 32
#: Seconds before the second attempt to reconnect, at most; doubled for each that follows, up to the second figure.
BACKOFF, MAX_BACKOFF = 0.1, 2.0


def pause_before(attempt: int) -> float:
    """Seconds before an attempt, counted from 0. Random, so that all processes do not come at once."""
    return random.random() * min(BACKOFF * 2.0 ** min(attempt, 30) / 2, MAX_BACKOFF)


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel them, and wait until they have ended, whatever they do about it."""
    for task in tasks:
        task.add_done_callback(_look_at)  # So that nobody misses what they raised, even if this is cancelled.
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        # Python 3.11's wait_for, which redis-py sends with, may swallow a cancellation.
        await asyncio.wait(pending, timeout=0.1)


def _look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


class Subscribed(Protocol):
    """One topic, from ``subscribe`` to ``unsubscribe``."""

    topic: str
    is_wanted: bool


class Packet(NamedTuple):
    """Arrived for a subscription."""

    subscription: Subscribed
    data: bytes


class BrokerTransport(Transport, Generic[G]):
    """A transport whose packets arrive in a queue, in which a ``G`` stands wherever some are missing."""

    is_distributed = True

    def __init__(self) -> None:
        #: See :class:`Transport`.
        self.on_gap: OnGap | None = None
        self.on_lost: OnLost | None = None
        #: Packets that were published; that arrived for a subscribed topic; whose delivery raised.
        self.packets_out = self.packets_in = self.failed_deliveries = 0
        #: Connections that were lost; that were made in their place.
        self.lost_connections = self.reconnects = 0

    @property
    def counters(self) -> Mapping[str, int]:
        return {
            "packets_out": self.packets_out,
            "packets_in": self.packets_in,
            "failed_deliveries": self.failed_deliveries,
            "lost_connections": self.lost_connections,
            "reconnects": self.reconnects,
        }

    async def _deliver_all(self, arrivals: Arrivals[Packet | G], deliver: Deliver) -> None:
        """One after another, for as long as the transport is open. What a delivery raises is logged and counted."""
        for number in count(1):
            arrived = await arrivals.get()
            if not isinstance(arrived, Packet):
                await self._tell_of_gap(arrived)
            elif arrived.subscription.is_wanted:
                topic = arrived.subscription.topic
                try:
                    await deliver(topic, arrived.data)
                except Exception:
                    self.failed_deliveries += 1
                    logger.exception("a packet for %r could not be delivered", topic)
            if number % DELIVERIES_PER_TURN == 0:
                await asyncio.sleep(0)

    @abstractmethod
    async def _tell_of_gap(self, gap: G) -> None:
        """Its place in the queue has come. Ends in ``_call_on_gap``."""

    async def _call_on_gap(self, topics: Collection[str]) -> None:
        if self.on_gap is not None:
            try:
                await self.on_gap(topics)
            except Exception:
                logger.exception("on_gap failed")

    def _call_on_lost(self) -> None:
        if self.on_lost is not None:
            try:
                self.on_lost()
            except Exception:
                logger.exception("on_lost failed")
