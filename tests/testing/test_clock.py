"""A clock that the test turns."""

import asyncio
from datetime import timedelta

import pytest

from fastapi_consumers.testing import Clock
from fastapi_consumers.throttling import TokenBuckets, parse_rate


def test_it_shows_what_it_was_turned_to():
    clock = Clock(100.0)
    assert clock() == 100.0
    clock.advance(2.5)
    clock.advance(timedelta(minutes=1))
    assert clock() == 162.5
    assert repr(clock) == "<Clock at 162.5 s, 0 asleep>"
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_throttles_take_it():
    clock = Clock()
    buckets, rate = TokenBuckets(clock), parse_rate("2/minute")
    assert [buckets.hit("ann", rate) for _ in range(3)] == [0, 0, 30]
    clock.advance(30)
    assert [buckets.hit("ann", rate) for _ in range(2)] == [0, 30]


async def test_who_sleeps_wakes_when_it_is_time_and_in_order():
    clock, woken = Clock(), []

    async def sleep(seconds):
        await clock.sleep(seconds)
        woken.append((seconds, clock()))

    async with asyncio.TaskGroup() as group:
        for seconds in (30, 10, 20, 0):
            group.create_task(sleep(seconds))
        await clock.run(0)
        assert clock.sleepers == 3
        assert woken == [(0, 0.0)]
        clock.advance(20)
        await clock.run(0)
        assert woken[1:] == [(10, 20.0), (20, 20.0)]
        assert clock.sleepers == 1
        clock.advance(10)
    assert woken[3:] == [(30, 30.0)]


async def test_run_lets_who_sleeps_over_and_over_wake_each_time():
    clock, seen = Clock(), []

    async def refresh(every):
        while True:
            await clock.sleep(every)
            await asyncio.sleep(0)
            seen.append((every, clock()))

    tasks = [asyncio.create_task(refresh(every)) for every in (25, 40)]
    await clock.run(100)
    assert seen == [(25, 25.0), (40, 40.0), (25, 50.0), (25, 75.0), (40, 80.0), (25, 100.0)]
    assert clock() == 100.0
    await clock.run(timedelta(seconds=20))
    assert seen[6:] == [(40, 120.0)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert clock.sleepers == 0


async def test_who_is_cancelled_in_its_sleep_does_not_disturb_others():
    clock = Clock()
    cancelled, other = asyncio.create_task(clock.sleep(1)), asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    cancelled.cancel()
    await clock.run(1)
    assert cancelled.cancelled()
    assert other.done()
