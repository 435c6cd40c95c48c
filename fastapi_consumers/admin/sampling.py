"""The numbers that are drawn: asked for once a second while somebody looks on, by all who look on together."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ..dependencies import Dependencies
from ..runtime import Consumers
from .gathering import Gathering

logger = logging.getLogger(__name__)

#: Seconds between two samples, and how many are kept for who comes later.
INTERVAL, KEPT = 1.0, 120

#: What a sample is given to.
Take = Callable[[dict[str, Any]], None]


class Sampler:
    """For one application."""

    def __init__(self, gathering: Gathering) -> None:
        self._gathering = gathering
        self._takers: list[Take] = []
        self._task: asyncio.Task[None] | None = None
        self.samples: deque[dict[str, Any]] = deque(maxlen=KEPT)

    @property
    def is_idle(self) -> bool:
        return not self._takers

    def join(self, take: Take) -> None:
        """Have ``take`` called with each sample from now on."""
        self._takers.append(take)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="fastapi_consumers: dashboard")

    def leave(self, take: Take) -> None:
        """The last one to leave ends the sampling."""
        self._takers.remove(take)
        if not self._takers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                numbers = await self._gathering.numbers()
            except Exception:
                logger.exception("the numbers of the dashboard could not be gathered")
            else:
                sample = {"at": round(time.time(), 3), **numbers.model_dump()}
                self.samples.append(sample)
                for take in tuple(self._takers):
                    take(sample)
            await asyncio.sleep(INTERVAL)


class Board:
    """What the pages of one router share.

    Args:
        timeout: seconds that other processes have to answer.
        allowed_origins: pages that may connect; ``None`` for those of the same host.
        guards: the router's dependencies.
    """

    def __init__(self, timeout: float, allowed_origins: tuple[str, ...] | None, guards: Dependencies) -> None:
        self.guards = guards
        self.timeout = timeout
        self.allowed_origins = allowed_origins
        #: Of the applications that the router is in, those that somebody looks at.
        self._samplers: dict[Consumers, Sampler] = {}

    def gathering(self, consumers: Consumers) -> Gathering:
        return Gathering(consumers, self.timeout)

    def join(self, consumers: Consumers, take: Take) -> Sampler:
        """Look on. The sampler has what others have seen before."""
        sampler = self._samplers.get(consumers)
        if sampler is None:
            sampler = self._samplers[consumers] = Sampler(self.gathering(consumers))
        sampler.join(take)
        return sampler

    def leave(self, consumers: Consumers, take: Take) -> None:
        sampler = self._samplers[consumers]
        sampler.leave(take)
        if sampler.is_idle:
            del self._samplers[consumers]
