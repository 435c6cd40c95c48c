"""The keeper: jobs run when they are due, by a clock that the test turns, and by the real one."""

import asyncio

import pytest

from fastapi_consumers import keeping
from fastapi_consumers.keeping import CONCURRENT_JOBS, PAUSE, Job, Keeper


class Noting(Job):
    def __init__(self, work=None):
        super().__init__()
        self.runs = 0
        self.ran = asyncio.Event()
        self._work = work

    async def run(self):
        self.runs += 1
        self.ran.set()
        if self._work is not None:
            await self._work()


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keeper(clock):
    return Keeper(clock)


async def test_a_job_runs_once_when_it_is_due(keeper, clock):
    job, other = Noting(), Noting()
    keeper.call_at(job, 101)
    keeper.call_at(other, 102)
    await keeper.run_due()
    assert (job.runs, other.runs) == (0, 0)
    clock.now = 101
    await keeper.run_due()
    await keeper.run_due()
    assert (job.runs, other.runs) == (1, 0)
    clock.now = 110
    await keeper.run_due()
    assert (job.runs, other.runs) == (1, 1)


async def test_the_earliest_time_that_was_asked_for_counts(keeper, clock):
    job = Noting()
    for when in (105, 103, 104, 103):
        keeper.call_at(job, when)
    clock.now = 103
    await keeper.run_due()
    assert job.runs == 1
    clock.now = 110
    await keeper.run_due()
    assert job.runs == 1  # It did not ask again.
    keeper.call_at(job, 111)
    clock.now = 111
    await keeper.run_due()
    assert job.runs == 2


async def test_asking_for_the_same_time_again_and_again_takes_no_memory(keeper, clock):
    job = Noting()
    for _ in range(1000):
        keeper.call_at(job, 500)
        clock.now += 0.1
        keeper.call_at(job, clock.now)
        await keeper.run_due()
    assert job.runs == 1000
    assert len(keeper._plan) == len(job.planned) == 1


async def test_a_job_that_fails_is_logged_and_runs_again(keeper, clock, caplog):
    async def fail():
        raise RuntimeError("broken")

    job, other = Noting(fail), Noting()
    keeper.call_at(job, 100)
    keeper.call_at(other, 100)
    await keeper.run_due()
    assert (job.runs, other.runs) == (1, 1)
    assert "broken" in caplog.text
    clock.now += PAUSE
    await keeper.run_due()
    assert job.runs == 2


async def test_few_run_at_the_same_time(keeper):
    running = most = 0

    async def work():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    jobs = [Noting(work) for _ in range(50)]
    for job in jobs:
        keeper.call_at(job, 100)
    await keeper.run_due()
    assert most == CONCURRENT_JOBS
    assert [job.runs for job in jobs] == [1] * 50


@pytest.mark.parametrize("ends", [True, False])
async def test_what_runs_when_it_stops_may_end_unless_it_takes_too_long(monkeypatch, ends):
    if not ends:
        monkeypatch.setattr(keeping, "LAST_RUN", 0.01)
    written, outcomes = asyncio.Event(), []

    async def write():
        try:
            await written.wait()
        except asyncio.CancelledError:
            outcomes.append("cut off")
            raise
        outcomes.append("told")

    keeper, job, later = Keeper(), Noting(write), Noting()
    keeper.call_at(job, 0.0)
    keeper.start()
    async with asyncio.timeout(20):
        await job.ran.wait()
        keeper.call_at(later, 0.0)
        stopping = asyncio.create_task(keeper.stop())
        await asyncio.sleep(0)
        if ends:
            written.set()
        await stopping
    assert outcomes == ["told" if ends else "cut off"]
    assert later.runs == 0


async def test_the_task_wakes_for_what_becomes_due_first_and_stops():
    keeper = Keeper()
    late, soon = Noting(), Noting()
    keeper.call_at(soon, 0.0)
    keeper.start()
    async with asyncio.timeout(20):
        await soon.ran.wait()
        while keeper._task is not None:  # noqa: ASYNC110 -- what it waits for has no event
            await asyncio.sleep(0)
    soon.ran.clear()
    soon.runs = 0
    keeper.call_at(late, keeper.clock() + 1000)
    await asyncio.sleep(0)
    keeper.call_at(soon, keeper.clock() + 0.01)
    async with asyncio.timeout(20):
        await soon.ran.wait()
        soon.ran.clear()
        keeper.call_at(soon, 0.0)
        await soon.ran.wait()
    await keeper.stop()
    await keeper.stop()
    keeper.call_at(soon, 0.0)
    await asyncio.sleep(0)
    assert (late.runs, soon.runs) == (0, 2)
