"""Time that passes when a test says so."""

import asyncio
import heapq
from datetime import timedelta
from itertools import count

#: Turns of the event loop that those who are woken get before the time goes on.
TURNS = 10


class Clock:
    """A source of time, in seconds, that the test turns; for everything that takes a ``clock`` or a ``sleep``.

    ::

        clock = Clock()
        buckets = TokenBuckets(clock)
        clock.advance(60)

    For one thread. Nothing here waits for real time.

    Args:
        start: what it shows at first.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._numbers = count()
        #: When to wake, in the order of the calls where that is the same, and what wakes.
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self._now

    def __repr__(self) -> str:
        return f"<Clock at {self._now:g} s, {self.sleepers} asleep>"

    @property
    def sleepers(self) -> int:
        """How many calls of ``sleep`` are waiting."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been turned by this much; in place of ``asyncio.sleep``."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._numbers), future))
        await future

    def advance(self, seconds: float | timedelta) -> None:
        """Turn it in one go. Who has slept long enough wakes, the longest due first, and finds the new time.

        As a machine that was suspended: who sleeps over and over again sleeps once. :meth:`run` is the other way.
        """
        self._turn(self._now + _seconds(seconds))

    async def run(self, seconds: float | timedelta) -> None:
        """Let the time pass: each sleeper wakes at its own time, and may sleep again.

        Whoever is woken gets some turns of the event loop before the time goes on. What waits for something else, such
        as a socket, is not waited for.
        """
        end = self._now + _seconds(seconds)
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._turn(self._sleepers[0][0])
            await _settle()
        self._turn(end)
        await _settle()

    def _turn(self, now: float) -> None:
        self._now = max(self._now, now)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)


def _seconds(duration: float | timedelta) -> float:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds < 0:
        raise ValueError(f"time does not go back: found {seconds:g} s, expected 0 or more")
    return seconds


async def _settle() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)
