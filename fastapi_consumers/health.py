"""Whether a process is well: what a health endpoint answers, and hooks for a broker that goes and comes back.

Owned by ``Consumers``; the hub tells it of the broker.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from typing_extensions import TypedDict

from .observing import Observing

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[[], Any])

#: ``lost``: packets may be lost from now on. ``back``: all topics are received again.
BrokerEvent = Literal["lost", "back"]


class Health(TypedDict):
    """The answer of a health endpoint, in JSON.

    ``healthy``: whether packets are published and received, as far as is known without asking. ``draining``: whether
    new sockets are refused, since the process is about to stop. ``broker_lost_for``: since how many seconds the broker
    is lost, or ``None``. ``broker_losses``: how often it was lost since the start. The counts are this process's;
    ``transport``, ``history`` and ``limiter`` hold counters by names of their own, none of which goes down.
    """

    healthy: bool
    draining: bool
    broker_lost_for: float | None
    broker_losses: int
    connections: int
    groups: int
    bad_packets: int
    overflows: dict[str, int]
    transport: dict[str, int]
    history: dict[str, int]
    limiter: dict[str, int]


class Broker:
    """What is known of the broker's losses, and who wants to be told."""

    def __init__(self, now: Callable[[], float] = time.monotonic, *, observing: Observing | None = None) -> None:
        self._now = now
        self._observing = observing if observing is not None else Observing()
        self._lost_at: float | None = None
        self._handlers: dict[str, list[Callable[[], Any]]] = {"lost": [], "back": []}
        self._tasks: set[asyncio.Task[None]] = set()
        self.losses = 0

    @property
    def lost_for(self) -> float | None:
        """For how many seconds it has been lost; ``None`` if it is there."""
        return None if self._lost_at is None else self._now() - self._lost_at

    def handlers(self, event: str) -> list[Callable[[], Any]]:
        """Those of one event, to add to. Raises ``ValueError`` for another than ``"lost"`` and ``"back"``."""
        if event not in self._handlers:
            raise ValueError(f'Broker events are "lost" and "back"; found {event!r}.')
        return self._handlers[event]

    def lost(self) -> None:
        """The transport lost it."""
        self.losses += 1
        self._lost_at = self._now()
        self._observing.tell("broker_lost")
        self._tell("lost")

    def back(self) -> None:
        """The transport has it again."""
        if self._lost_at is not None:
            self._observing.tell("broker_back", self._now() - self._lost_at)
            self._lost_at = None
            self._tell("back")

    def _tell(self, event: BrokerEvent) -> None:
        for function in self._handlers[event]:
            task = asyncio.get_running_loop().create_task(self._call(event, function))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _call(self, event: BrokerEvent, function: Callable[[], Any]) -> None:
        try:
            result = function()
            if inspect.isawaitable(result):
                await result
        except Exception:
            logger.exception("a handler of the broker's %r failed", event)

    def close(self) -> None:
        """Stop the handlers that still run."""
        for task in tuple(self._tasks):
            task.cancel()
