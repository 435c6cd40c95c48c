"""When things run, on a clock that the test turns, over the stores that processes share."""

import asyncio
import logging
from dataclasses import astuple

import pytest

from fastapi_consumers import Consumers, GroupConsumer, cron, every, scheduled_runs, scheduler
from fastapi_consumers.exceptions import BrokerUnavailable
from fastapi_consumers.schedule_stores import MemoryScheduleStore
from fastapi_consumers.scheduled import compile_scheduled
from fastapi_consumers.scheduled_runs import LEASE
from fastapi_consumers.scheduler import JITTER, LATE, SLACK, Scheduler, entry_of
from tests.schedules.conftest import START


class Faulty(MemoryScheduleStore):
    """One that processes share, and that goes away on command."""

    is_distributed = True

    def __init__(self, clock):
        super().__init__(clock)
        self.is_away = False
        #: Whether what is asked is done all the same, and only the answer is lost.
        self.loses_answers = False

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name in ("save", "load", "claim", "renew", "finish", "add_missed", "set_paused") and self.is_away:
            return self._failing(found)
        return found

    def _failing(self, method):
        async def fail(*args, **kwargs):
            if self.loses_answers:
                await method(*args, **kwargs)
            raise BrokerUnavailable

        return fail


class Process:
    """One process, whose timers fire when the test turns the clock."""

    def __init__(self, store, clock, name="one"):
        self.name = name
        self.groups = []
        self.scheduler = Scheduler(
            store, "consumers", lambda cls: list(self.groups), name, clock=clock, monotonic=clock, sleep=clock.sleep
        )
        self.scheduler.process = name

    async def add(self, mark, function, cls=None, name="job"):
        problems = []
        scheduled = compile_scheduled(name, mark, function, "here", problems, cls)
        assert problems == []
        await self.scheduler.register(entry_of(scheduled))

    async def die(self):
        """Without a word to anybody."""
        self.scheduler.deadlines.close()
        for task in (*self.scheduler._tasks, *(hold.task for hold in self.scheduler.runs._held.values())):
            task.cancel()
        if self.scheduler.runs._renewing is not None:
            self.scheduler.runs._renewing.cancel()

        async def silent(*args):
            return True

        self.scheduler.runs._finish = silent


async def settle():
    for _ in range(8):
        await asyncio.sleep(0)


async def turn(clock, seconds, *processes, step=0.25):
    """Let time pass in small steps, so that whatever is due comes in its order."""
    for _ in range(round(seconds / step)):
        clock.advance(step)
        for process in processes:
            process.scheduler.deadlines.look()
        await settle()


@pytest.fixture
def store(clock):
    return Faulty(clock)


@pytest.fixture
async def processes(store, clock):
    """Makes processes over one store, and stops them."""
    made = []

    def make(count=1):
        made.extend(Process(store, clock, f"p{len(made)}") for _ in range(count))
        return made[-count:]

    yield make
    for process in made:
        process.scheduler.deadlines.close()
        for tasks in process.scheduler.runs.of.values():
            for task in tasks:
                task.cancel()
        if process.scheduler.runs._renewing is not None:
            process.scheduler.runs._renewing.cancel()
    await settle()


async def only(store, name="job"):
    [kept] = await store.load(name)
    return kept


async def test_it_runs_once_at_each_moment_whatever_the_number_of_processes(processes, store, clock):
    ran = []

    async def job(run):
        ran.append(run)

    three = processes(3)
    for process in three:
        await process.add(every("10s"), job)
    await turn(clock, 60.5, *three)
    assert [run.at.timestamp() - START for run in ran] == [10, 20, 30, 40, 50, 60]
    assert {astuple(run)[:1] + astuple(run)[2:] for run in ran} == {("job", None, 1, 0, False)}
    assert {run.at.utcoffset().total_seconds() for run in ran} == {0}
    kept = await only(store)
    assert (kept.runs, kept.errors, kept.missed, kept.lost) == (6, 0, 0, 0)


async def test_it_does_not_drift(processes, clock):
    began = []

    async def job():
        began.append(clock() - START)
        await clock.sleep(3)

    [process] = processes()
    await process.add(every("10s"), job)
    await turn(clock, 600.5, process)
    assert len(began) == 60
    assert all(0 <= at % 10 <= JITTER + 0.25 for at in began)


async def test_processes_do_not_ask_at_the_same_instant(processes, store, clock, monkeypatch):
    asked = []
    claim = MemoryScheduleStore.claim

    async def note(self, *args):
        asked.append(args[0].process)
        return await claim(self, *args)

    monkeypatch.setattr(MemoryScheduleStore, "claim", note)

    async def job():
        pass

    many = processes(20)
    for process in many:
        await process.add(every("10s"), job)
    due = [process.scheduler.deadlines._heap[0][0] - START - 10 for process in many]
    assert all(0 <= each <= JITTER for each in due)
    assert len({round(each, 4) for each in due}) > 10
    await turn(clock, 11, *many)
    assert len(asked) == 20


async def test_groups_run_where_they_have_members_and_each_once(processes, store, clock):
    ran = []

    async def job(group):
        ran.append(group)

    one, two, three = processes(3)
    for process in (one, two, three):
        await process.add(every("10s"), job, GroupConsumer)
    one.groups, two.groups = ["a", "b"], ["b", "c"]
    await turn(clock, 10.5, one, two, three)
    assert sorted(ran) == ["a", "b", "c"]
    one.groups = two.groups = []
    await turn(clock, 10, one, two, three)
    assert len(ran) == 3
    assert (await only(store)).runs == 3


async def test_many_groups_run_some_at_a_time(processes, store, clock):
    at_once = most = 0

    async def job(group):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await clock.sleep(0.5)
        at_once -= 1

    [process] = processes()
    process.groups = [f"room.{number}" for number in range(300)]
    await process.add(every("1m"), job, GroupConsumer)
    await turn(clock, 70, process)
    assert most == scheduler.CONCURRENT_RUNS
    assert (await only(store)).runs == 300


async def test_a_run_that_takes_too_long_is_not_overlapped_and_what_it_missed_is_counted(processes, store, clock):
    began = []

    async def job(run):
        began.append(run.at.timestamp() - START)
        if len(began) == 1:
            await clock.sleep(35)

    two = processes(2)
    for process in two:
        await process.add(every("10s"), job)
    await turn(clock, 65, *two)
    assert began == [10, 50, 60]
    kept = await only(store)
    assert (kept.runs, kept.missed, kept.lost) == (3, 3, 0)


async def test_a_process_that_died_is_taken_over_from_within_the_lease(processes, store, clock):
    ran = []

    async def job(run):
        ran.append((run.at.timestamp() - START, run.attempt, clock() - START))
        if len(ran) == 1:
            await clock.sleep(1000)

    one, two = processes(2)
    await one.add(every("1h"), job)
    await turn(clock, 3601, one, step=1)
    assert [run[:2] for run in ran] == [(3600, 1)]
    await two.add(every("1h"), job)  # Another one starts meanwhile; it too sees what is not finished.
    await turn(clock, 30, one, two, step=1)
    assert len(ran) == 1
    await one.die()
    await turn(clock, LEASE + 2 * SLACK + 1, two)
    assert [run[:2] for run in ran] == [(3600, 1), (3600, 2)]
    kept = await only(store)
    assert (kept.runs, kept.lost, kept.missed, kept.last_process) == (1, 1, 0, two.name)


async def test_what_may_not_be_taken_over_is_lost(processes, store, clock):
    ran = []

    async def job(run):
        ran.append(run.attempt)
        await clock.sleep(1000)

    one, two = processes(2)
    for process in (one, two):
        await process.add(every("1h", take_over=False), job)
    await turn(clock, 3601, one, two, step=1)
    await (one if one.scheduler.runs._held else two).die()
    await turn(clock, 60, one, two, step=1)
    assert ran == [1]


async def test_what_nobody_was_there_for_is_skipped_and_counted(processes, store, clock, caplog):
    ran = []
    caplog.set_level(logging.INFO)

    async def job(run):
        ran.append((run.at.timestamp() - START, run.missed))

    [one] = processes()
    await one.add(every("10s"), job)
    await turn(clock, 10.5, one)
    await one.scheduler.stop()
    clock.advance(100)
    [two] = processes()
    await two.add(every("10s"), job)
    await turn(clock, 20, two)
    assert ran == [(10, 0), (120, 10), (130, 0)]
    [missed] = [each for each in caplog.records if "missed 10 runs before this one" in each.getMessage()]
    assert extras([missed]) == [{"schedule": "job", "due_at": START + 120, "attempt": 1}]
    assert (await only(store)).missed == 10


async def test_a_process_that_hung_runs_what_is_not_too_late_and_counts_the_rest(processes, store, clock):
    ran = []

    async def job(run):
        ran.append((run.at.timestamp() - START, run.missed))

    [one] = processes()
    await one.add(every("10s"), job)
    await one.add(cron("0 * * * *"), job, name="hourly")
    await turn(clock, 10.5, one)
    clock.advance(34)  # 44.5
    await turn(clock, 10, one)
    clock.advance(3600 - 54 + LATE + 5)  # The full hour is more than a minute ago.
    await turn(clock, 10, one)
    assert ran[:3] == [(10, 0), (40, 2), (50, 0)]
    assert ran[3] == (3660, 360)
    assert (await only(store, "hourly")).runs == 0
    await turn(clock, 3600, one, step=1)
    assert (7200, 1) in ran
    assert (await only(store, "hourly")).missed == 1


async def test_errors_are_logged_and_counted_and_the_schedule_goes_on(processes, store, clock, caplog):
    count = 0

    async def job():
        nonlocal count
        count += 1
        if count == 1:
            raise RuntimeError("secret")
        if count == 2:
            raise TimeoutError("of its own")

    [one] = processes()
    await one.add(every("10s"), job)
    with caplog.at_level(logging.ERROR):
        await turn(clock, 10.5, one)
        kept = await only(store)
        assert (kept.last_outcome, kept.last_error) == ("error", "RuntimeError")
        await turn(clock, 20, one)
    assert [record.getMessage() for record in caplog.records] == ["the schedule 'job' failed"] * 2
    assert extras(caplog.records) == [{"schedule": "job", "due_at": START + at, "attempt": 1} for at in (10, 20)]
    assert "RuntimeError: secret" in caplog.text
    kept = await only(store)
    assert (kept.runs, kept.errors, kept.last_outcome, kept.last_error) == (3, 2, "ok", "")


def extras(records):
    """What stands in attributes of these records."""
    names = ("schedule", "group", "due_at", "attempt")
    return [{name: getattr(record, name) for name in names if hasattr(record, name)} for record in records]


async def test_what_goes_wrong_with_the_run_of_one_group_names_it(processes, store, clock, caplog):
    async def job(group):
        if group == "a":
            raise RuntimeError
        if group == "b":
            await asyncio.sleep(60)

    [one] = processes()
    one.groups = ["a", "b", "c"]
    finish = store.finish

    async def taken(held, result):
        return await finish(held, result) and held.group != "c"

    store.finish = taken
    await one.add(every("10s", timeout=0.01), job, GroupConsumer)
    await turn(clock, 10.5, one)
    for task in tuple(one.scheduler.runs.of.get("job", ())):
        await asyncio.wait([task], timeout=20)
    found = {record.group: record for record in caplog.records}
    assert {group: record.getMessage() for group, record in found.items()} == {
        "a": "the schedule 'job' for the group 'a' failed",
        "b": "the schedule 'job' for the group 'b' was cancelled after 0.01 s",
        "c": "a run of the schedule 'job' for the group 'c' ended after others had taken over",
    }
    expected = {"schedule": "job", "due_at": START + 10, "attempt": 1}
    assert extras(found.values()) == [{**expected, "group": group} for group in found]


async def test_a_run_that_exceeds_its_timeout_is_cancelled(processes, store, clock, caplog):
    async def job():
        await asyncio.sleep(60)

    [one] = processes()
    await one.add(every("10s", timeout=0.01), job)
    await turn(clock, 10.5, one)
    await asyncio.wait(one.scheduler.runs.of["job"], timeout=20)
    kept = await only(store)
    assert (kept.errors, kept.last_outcome, kept.last_error) == (1, "timeout", "cancelled after 0.01 s")
    assert "was cancelled after 0.01 s" in caplog.text


async def test_stopping_waits_for_what_runs(processes, store, clock):
    async def job():
        await asyncio.sleep(0.05)

    [one] = processes()
    await one.add(every("10s"), job)
    await turn(clock, 10.5, one)
    await one.scheduler.stop()
    assert (await only(store)).last_outcome == "ok"
    await turn(clock, 30, one)
    assert (await only(store)).runs == 1


async def test_what_does_not_end_in_time_is_cancelled_and_run_by_another(processes, store, clock, monkeypatch):
    monkeypatch.setattr(scheduled_runs, "STOP_TIMEOUT", 0.05)
    ended = []

    async def job(run):
        try:
            if run.attempt == 1:
                await clock.sleep(1000)
        finally:
            ended.append(run.attempt)

    one, two = processes(2)
    for process in (one, two):
        await process.add(every("1h"), job)
    await turn(clock, 3601, one, two, step=1)
    first, second = (one, two) if one.scheduler.runs._held else (two, one)
    await first.scheduler.stop()
    assert ended == [1]
    assert (await only(store)).last_outcome == "cancelled"
    await turn(clock, LEASE + SLACK + 1, second)
    assert ended == [1, 2]
    kept = await only(store)
    assert (kept.runs, kept.lost, kept.last_process) == (2, 0, second.name)


async def test_nothing_is_paused_halfway(processes, store, clock):
    ran = []

    async def job(run):
        ran.append((run.at.timestamp() - START, run.missed, run.is_manual))

    one, two = processes(2)
    for process in (one, two):
        await process.add(every("10s"), job)
    await store.set_paused("job", True, one.scheduler.now())
    await turn(clock, 30, one, two)
    for process in (one, two):
        process.scheduler.run_now("job", None, "request")
    await settle()
    assert ran == [(30, 0, True)]
    await store.set_paused("job", False, one.scheduler.now())
    await turn(clock, 11, one, two)
    assert ran[1:] == [(40, 0, False)]


# -- the store goes away -----------------------------------------------------------------------------------------------


async def test_a_moment_that_the_store_was_away_at_is_run_late_and_once(processes, store, clock):
    ran = []

    async def job(run):
        ran.append((run.at.timestamp() - START, run.missed))

    two = processes(2)
    for process in two:
        await process.add(every("1h"), job)
    await turn(clock, 3590, *two, step=1)
    store.is_away = True
    await turn(clock, 30, *two)
    assert ran == []
    store.is_away = False
    await turn(clock, 30, *two)
    assert ran == [(3600, 0)]


async def test_a_moment_that_the_store_was_away_at_for_too_long_is_missed(processes, store, clock, caplog):
    ran = []

    async def job(run):
        ran.append((run.at.timestamp() - START, run.missed))

    two = processes(2)
    for process in two:
        await process.add(every("1h"), job)
    await turn(clock, 3590, *two, step=1)
    store.is_away = True
    await turn(clock, LATE + 20, *two)
    store.is_away = False
    await turn(clock, 3600, *two, step=1)
    assert ran == [(7200, 1)]
    over = [record for record in caplog.records if "the schedule 'job' is passed over once" in record.getMessage()]
    assert extras(over) == [{"schedule": "job"}] * 2
    assert caplog.text.count("cannot be reached: ") == 2


async def test_a_claim_whose_answer_was_lost_is_not_lost(processes, store, clock):
    ran = []

    async def job(run):
        ran.append((run.at.timestamp() - START, run.attempt))

    two = processes(2)
    for process in two:
        await process.add(every("1h"), job)
    await turn(clock, 3599, *two, step=1)
    store.is_away = store.loses_answers = True
    await turn(clock, 1.5, *two)
    assert ran == []
    store.is_away = False
    await turn(clock, 10, *two)
    assert ran == [(3600, 1)]
    assert (await only(store)).lost == 0


async def test_a_run_that_ended_while_the_store_was_away_is_not_run_again(processes, store, clock):
    ran = []

    async def job(run):
        ran.append(run.attempt)
        await clock.sleep(2)

    two = processes(2)
    for process in two:
        await process.add(every("1h"), job)
    await turn(clock, 3601, *two, step=1)
    store.is_away = True
    await turn(clock, LEASE + 10, *two)  # Longer than the lease.
    store.is_away = False
    await turn(clock, 3 * LEASE, *two)
    assert ran == [1]
    kept = await only(store)
    assert (kept.runs, kept.lost, kept.last_outcome) == (1, 0, "ok")


async def test_nothing_is_taken_over_right_after_the_store_is_back(processes, store, clock, monkeypatch):
    """Who ran it may not have been able to say that it ended, here since it asks rarely."""
    monkeypatch.setattr(scheduled_runs, "RETRY", 4.0)
    ran = []

    async def job(run):
        ran.append(run.attempt)
        await clock.sleep(2.5)

    async def beat():
        pass

    two = processes(2)
    for process in two:
        await process.add(every("1h"), job)
        await process.add(every("1s"), beat, name="beat")
    await turn(clock, 3599, *two, step=0.5)
    await turn(clock, 2, *two)
    store.is_away = True
    await turn(clock, LEASE + SLACK - 1.25, *two)
    store.is_away = False
    await turn(clock, 3 * LEASE, *two)
    assert ran == [1]
    assert (await only(store)).lost == 0


async def test_who_cannot_renew_its_lease_stops_before_others_begin(processes, store, clock, monkeypatch, caplog):
    """One of two is cut off from the store: what it runs goes over to the other, and never runs twice at a time."""
    at_once, most, attempts = 0, 0, []

    async def job(run):
        nonlocal at_once, most
        attempts.append(run.attempt)
        at_once += 1
        most = max(most, at_once)
        try:
            await clock.sleep(200)
        finally:
            at_once -= 1

    one, two = processes(2)
    for process in (one, two):
        await process.add(every("1h"), job)
    await turn(clock, 3601, one, two, step=1)
    cut, other = (one, two) if one.scheduler.runs._held else (two, one)
    cut.scheduler.store = cut.scheduler.runs.store = away = Faulty(clock)
    away.is_away = True
    await turn(clock, 3 * LEASE, one, two)
    assert attempts == [1, 2]
    assert most == 1
    [given_up] = [each for each in caplog.records if "its lease could not be renewed" in each.getMessage()]
    assert extras([given_up]) == [{"schedule": "job", "due_at": START + 3600, "attempt": 1}]
    assert [run.process for run in (await only(store)).running] == [other.name]


async def test_a_store_that_forgot_everything_is_told_again_and_nothing_runs_twice(processes, store, clock):
    ran = []

    async def job(run):
        ran.append(run.at.timestamp() - START)

    two = processes(2)
    for process in two:
        await process.add(every("10s"), job)
    await turn(clock, 15, *two)
    store._schedules.clear()
    await turn(clock, 30, *two)
    # The next moment only tells the store what there is.
    assert ran == [10, 30, 40]


async def test_nothing_wakes_while_nothing_is_scheduled(processes, store):
    [one] = processes()
    assert len(one.scheduler.deadlines) == 0
    assert one.scheduler.deadlines._timer is None
    assert Consumers().schedules.is_wanted is False


async def test_what_is_granted_while_the_process_stops_is_given_back(processes, store, clock, monkeypatch):
    ran = []

    async def job(run):
        ran.append(run.attempt)

    one, two = processes(2)
    for process in (one, two):
        await process.add(every("1h"), job)
    asked, answer, claim = asyncio.Event(), asyncio.Event(), store.claim

    async def slow(*args):
        asked.set()
        await answer.wait()
        return await claim(*args)

    store.claim = slow
    clock.advance(3601)
    one.scheduler.deadlines.look()
    await asked.wait()
    stopping = asyncio.create_task(one.scheduler.stop())
    await settle()
    answer.set()
    await stopping
    assert ran == []
    assert (await only(store)).unfinished == (START + 3600) * 1000
    del store.claim
    await two.add(every("1h"), job)
    await turn(clock, 1, two)
    assert ran == [2]


async def test_what_the_store_cannot_be_told_does_not_stop_a_run(processes, store, clock):
    ran = []

    async def job(run):
        ran.append(run.missed)

    [one] = processes()
    await one.add(every("10s"), job)
    clock.advance(100)

    async def fail(*args):
        raise BrokerUnavailable

    store.add_missed = fail
    await turn(clock, 10, one)
    assert ran[0] > 0
    one.scheduler.run_now("nobody", None, "request")
    await one.scheduler.stop()
    one.scheduler.run_now("job", None, "request")
    await settle()
    assert len(ran) == (await only(store)).runs


async def test_what_fails_in_the_scheduler_itself_is_logged(processes, caplog):
    [one] = processes()

    async def fail():
        raise RuntimeError("unexpected")

    one.scheduler.spawn(fail())
    await settle()
    assert "unexpected" in caplog.text


async def test_a_store_that_is_away_while_it_is_told_again(processes, store, clock):
    async def job():
        pass

    [one] = processes()
    await one.add(every("10s"), job)
    store._schedules.clear()
    save = store.save

    async def fail(*args):
        raise BrokerUnavailable

    store.save = fail
    await turn(clock, 11, one)
    store.save = save
    await turn(clock, 10, one)
    await turn(clock, 10, one)
    assert (await only(store)).runs == 1
