"""Counts over processes, by a clock that the test turns."""

import pytest

from fastapi_consumers.addressing import GROUP
from fastapi_consumers.counting import BATCH, INTERVAL, LEASE, WINDOW, Counts
from fastapi_consumers.exceptions import BrokerUnavailable
from fastapi_consumers.fanning import Member
from fastapi_consumers.hub import Hub
from fastapi_consumers.keeping import Keeper
from fastapi_consumers.presence import MemoryPresenceStore
from fastapi_consumers.transports import MemoryTransport


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class SharedStore(MemoryPresenceStore):
    is_distributed = True
    away = False
    writes = 0

    async def write_counts(self, *args, **options):
        if self.away:
            raise BrokerUnavailable
        self.writes += 1
        return await super().write_counts(*args, **options)


class Process:
    def __init__(self, clock, store):
        self.clock = clock
        self.hub = Hub(MemoryTransport())
        self.keeper = Keeper(clock)
        self.counts = Counts(self.hub, store, self.keeper)
        self.members = []

    async def join(self, group="g", count=1):
        for _ in range(count):
            self.members.append(Member(self.hub.new_channel(), *[lambda *_: None] * 3, max_topics=10))
            await self.hub.join(GROUP + group, self.members[-1])
            self.counts.note(group)

    async def leave(self, group="g"):
        await self.hub.leave(GROUP + group, self.members.pop())
        self.counts.note(group)


async def pass_time(seconds, *processes):
    clock = processes[0].clock
    end = clock.now + seconds
    while clock.now < end:
        clock.now = min(end, clock.now + WINDOW / 2)
        for process in processes:
            await process.keeper.run_due()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(clock):
    return SharedStore(clock)


@pytest.fixture
def one(clock, store):
    return Process(clock, store)


@pytest.fixture
def two(clock, store):
    return Process(clock, store)


async def test_all_processes_are_counted_and_many_changes_are_one_write(one, two, store):
    await one.join(count=50)
    await two.join(count=3)
    assert (await one.counts.of("g"), await two.counts.of("g")) == (50, 3)  # its own at once
    await pass_time(WINDOW, one, two)
    assert store.writes == 2
    assert await one.counts.of("g") == await two.counts.of("g") == 53
    await two.leave()
    assert (await one.counts.of("g"), await two.counts.of("g")) == (53, 52)
    await pass_time(WINDOW, one, two)
    assert await one.counts.of("g") == 52
    assert await one.counts.of("other") == 0


async def test_a_process_goes_on_being_counted_until_it_dies(one, two):
    await one.join()
    await two.join()
    await pass_time(LEASE * 4, one, two)
    assert await two.counts.of("g") == 2
    await pass_time(LEASE - INTERVAL - 0.1, two)
    assert await two.counts.of("g") == 2
    await pass_time(INTERVAL + 0.2, two)
    assert await two.counts.of("g") == 1
    await pass_time(WINDOW + INTERVAL, one, two)  # It was only stalled.
    assert await two.counts.of("g") == 2


async def test_what_is_empty_is_renewed_no_more(one, store):
    await one.join()
    await pass_time(1, one)
    await one.leave()
    await pass_time(INTERVAL * 3, one)
    writes = store.writes
    await pass_time(INTERVAL * 10, one)
    assert store.writes == writes
    assert one.keeper._plan == []


async def test_a_store_that_lost_everything_is_told_again(one, two, store):
    for number in range(BATCH + 5):
        await one.join(f"g{number}")
    await pass_time(1, one)
    await store.close()
    await pass_time(INTERVAL, one)
    assert await two.counts.of("g3") == 1


async def test_while_the_store_is_away_changes_wait(one, two, store, caplog):
    store.away = True
    await one.join()
    await pass_time(10, one)
    await one.join()
    await pass_time(10, one)
    assert len(caplog.records) == 1
    store.away = False
    await pass_time(3, one)
    assert await two.counts.of("g") == 2


async def test_a_process_that_ends_is_not_counted_at_once(one, two):
    await one.join()
    await pass_time(1, one)
    await one.counts.close()
    assert await two.counts.of("g") == 0
