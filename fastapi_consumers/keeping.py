"""One task that runs whatever is due, for everything in a process that has to be done again and again.

There are no timers per connection and no tasks per group: a job says when it wants to run next.
"""

import asyncio
import heapq
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import count

logger = logging.getLogger(__name__)

#: Jobs that run at the same time: less than the connections that a store's client has.
CONCURRENT_JOBS = 8
#: Seconds after which a job that failed, in a way that it does not know, runs again.
PAUSE = 5.0
#: Seconds that what runs has to come to its end when the keeper stops.
LAST_RUN = 1.5


class Job(ABC):
    """Something that runs when it is due. The attributes are the keeper's."""

    def __init__(self) -> None:
        #: Infinite while nothing is planned.
        self.due = math.inf
        #: The times that the keeper has a note of.
        self.planned: set[float] = set()

    @abstractmethod
    async def run(self) -> None:
        """Do what is due, and say when to run next."""


class Keeper:
    """Runs jobs when they are due.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._plan: list[tuple[float, int, Job]] = []
        self._numbers = count()
        self._wake = asyncio.Event()
        self._is_started = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Run what is due from now on. There is a task only while something is planned."""
        self._is_started = True
        self._begin()

    def _begin(self) -> None:
        if self._is_started and self._task is None and self._plan:
            self._task = asyncio.create_task(self._run(), name="fastapi_consumers: presence and counts")

    async def stop(self) -> None:
        """Nothing runs any more when this returns.

        What runs may end first: a write that is cut off may have been done, and nobody would be told what came of it.
        """
        self._is_started = False
        task, self._task = self._task, None
        if task is not None:
            self._wake.set()
            await asyncio.wait((task,), timeout=LAST_RUN)
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=0.1)

    def call_at(self, job: Job, when: float) -> None:
        """Run the job at ``when``, or earlier if it is planned so."""
        if when >= job.due:
            return
        job.due = when
        # A note of a later time stays, since most jobs will ask for that time again.
        if when not in job.planned:
            job.planned.add(when)
            heapq.heappush(self._plan, (when, next(self._numbers), job))
        if self._plan[0][0] == when:
            self._wake.set()
            self._begin()

    async def run_due(self) -> None:
        """Run all jobs that are due by now."""
        now = self.clock()
        jobs: list[Job] = []
        while self._plan and self._plan[0][0] <= now:
            job = self._next()
            if job is not None:
                job.due = math.inf
                jobs.append(job)
        queue = iter(jobs)
        if len(jobs) == 1:
            await self._run_each(queue)
        elif jobs:
            await asyncio.gather(*[self._run_each(queue) for _ in range(min(len(jobs), CONCURRENT_JOBS))])

    def _next(self) -> Job | None:
        """Takes the next note; the job, unless it was planned for another time since."""
        when, _, job = heapq.heappop(self._plan)
        job.planned.discard(when)
        return job if job.due == when else None

    async def _run_each(self, jobs: Iterator[Job]) -> None:
        for job in jobs:
            try:
                await job.run()
            except Exception:
                logger.exception("what has to be kept could not be; trying again in %g s", PAUSE)
                self.call_at(job, self.clock() + PAUSE)

    async def _run(self) -> None:
        while self._is_started:
            self._wake.clear()
            await self.run_due()
            if not self._plan:
                self._task = None
                return
            try:
                async with asyncio.timeout(max(0.0, self._plan[0][0] - self.clock())):
                    await self._wake.wait()
            except TimeoutError:
                pass
