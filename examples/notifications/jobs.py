"""Jobs, each in a process of its own, and what is told of them by the application itself."""

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fastapi_consumers import BrokerUnavailable, Consumers

WORKER = Path(__file__).with_name("worker.py")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    id: str
    user: str
    below: int


#: Runs a job, and returns its exit code.
Run = Callable[[Job], Awaitable[int]]


def in_process(url: str) -> Run:
    """Runs a job in a process, which is given the broker's URL; cancelled, it ends the process."""

    async def run(job: Job) -> int:
        command = [sys.executable, str(WORKER), job.id, job.user, str(job.below)]
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "BROKER_URL": url})
        logger.info("job %s runs in process %d", job.id, process.pid)
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return run


class Jobs:
    """The jobs that this process has started."""

    def __init__(self, run: Run, consumers: Consumers) -> None:
        self._run = run
        self._consumers = consumers
        self._tasks: dict[asyncio.Task[None], str] = {}

    def count(self, user: str) -> int:
        """How many of a user's run."""
        return list(self._tasks.values()).count(user)

    async def start(self, user: str, below: int) -> Job:
        """Start one. Raises ``BrokerUnavailable`` if nobody could be told of it; then it is not started."""
        job = Job(secrets.token_hex(6), user, below)
        data = {"job": job.id, "title": f"Primes below {below:,}", "at": datetime.now(UTC)}
        await self._consumers.broadcast(f"inbox.{user}", "started", data)
        task = asyncio.create_task(self._watch(job))
        self._tasks[task] = user
        task.add_done_callback(self._tasks.pop)
        return job

    async def close(self) -> None:
        """End those that run. Their users are told."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _watch(self, job: Job) -> None:
        text = "The server was stopped."
        try:
            text = f"The worker ended with code {await self._run(job)}."
        finally:
            # After "finished" this changes nothing: the group takes one event with this key. So nobody has to know
            # whether a worker that died had told of its end.
            data = {"job": job.id, "text": text, "at": datetime.now(UTC)}
            try:
                await self._consumers.broadcast(f"inbox.{job.user}", "failed", data, idempotency_key=f"{job.id} end")
            except BrokerUnavailable:
                logger.warning("nobody could be told of the end of job %s: %s", job.id, text)
