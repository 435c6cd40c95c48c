import asyncio

import pytest

from fastapi_consumers import gathering
from fastapi_consumers.gathering import MAX_WAIT, MAX_WAITING, NEAR, Gathering


class Who:
    def __init__(self, log):
        self.log = log

    def release(self):
        self.log.append(self)


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(gathering, "perf_counter", lambda: Clock.now)
    return Clock


@pytest.fixture
def log():
    return []


async def test_one_that_answers_by_itself_waits_for_nobody(clock, log):
    one, answers = Who(log), Gathering()
    for _ in range(100):
        clock.now += NEAR / 10
        assert not answers.takes(one, False)
    await asyncio.sleep(0)
    assert log == []


async def test_those_that_answer_far_from_each_other_do_not_wait(clock, log):
    one, two, answers = Who(log), Who(log), Gathering()
    for who in [one, two] * 10:
        clock.now += NEAR * 1.1
        assert not answers.takes(who, False)


async def test_those_that_answer_in_one_turn_write_at_its_end(clock, log):
    one, two, three, answers = Who(log), Who(log), Who(log), Gathering()
    assert not answers.takes(one, False)
    assert answers.takes(two, False)
    clock.now += MAX_WAIT / 2
    assert answers.takes(three, False)
    assert log == []
    await asyncio.sleep(0)
    assert log == [two, three]
    # They are still many, though writing took so long.
    assert answers.takes(one, False)
    await asyncio.sleep(0)
    assert log == [two, three, one]


async def test_where_the_end_of_the_turn_is_waited_for_anyway_one_alone_waits_too(clock, log):
    one, answers = Who(log), Gathering()
    assert answers.takes(one, True)
    await asyncio.sleep(0)
    assert log == [one]


async def test_no_answer_waits_for_one_that_takes_long(clock, log):
    one, two, three, answers = Who(log), Who(log), Who(log), Gathering()
    answers.takes(one, False)
    assert answers.takes(two, False)
    clock.now += MAX_WAIT * 1.1
    assert not answers.takes(three, False)
    assert log == [two]


async def test_one_who_fails_keeps_nobody_else_waiting(clock, log):
    class Broken:
        def release(self):
            raise ValueError("broken")

    told, loop = [], asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(str(context["exception"])))
    broken, two, answers = Broken(), Who(log), Gathering()
    assert answers.takes(broken, True)
    assert answers.takes(two, False)
    await asyncio.sleep(0)
    assert (log, told) == ([two], ["broken"])


async def test_only_so_many_wait(clock, log):
    first, answers = Who(log), Gathering()
    answers.takes(first, False)
    many = [Who(log) for _ in range(MAX_WAITING + 1)]
    assert [answers.takes(who, False) for who in many] == [True] * MAX_WAITING + [False]
    assert log == many[:-1]


def test_a_loop_that_ends_keeps_nobody_waiting_in_the_next_one(clock, log):
    one, two, answers = Who(log), Who(log), Gathering()

    async def ends_early():
        assert answers.takes(one, True)
        answers.release()

    async def next_one():
        assert answers.takes(two, True)
        await asyncio.sleep(0)

    asyncio.run(ends_early())
    asyncio.run(next_one())
    assert log == [one, two]
