"""One timer for what is to happen to many, on a clock that the test turns."""

import asyncio
from typing import Any

import pytest

from fastapi_consumers.deadlines import LONGEST_WAIT, STALE, Deadlines


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Fixture:
    def __init__(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.called: list[Any] = []

    def set(self, owner: Any, seconds: float) -> None:
        self.deadlines.set(owner, self.clock.now + seconds, lambda: self.called.append(owner))

    def turn(self, seconds: float) -> list[Any]:
        self.clock.now += seconds
        self.deadlines.look()
        called, self.called = self.called, []
        return called


@pytest.fixture
async def turned() -> Any:
    fixture = Fixture()
    yield fixture
    fixture.deadlines.close()


async def test_each_is_called_when_its_time_has_come_the_earliest_first_and_once(turned: Fixture) -> None:
    for owner, seconds in (("late", 30), ("early", 10), ("middle", 20)):
        turned.set(owner, seconds)
    assert turned.turn(9.9) == []
    assert turned.turn(0.1) == ["early"]
    assert turned.turn(100) == ["middle", "late"]
    assert turned.turn(100) == []
    assert len(turned.deadlines) == 0


async def test_a_deadline_that_is_set_again_is_moved(turned: Fixture) -> None:
    turned.set("later", 10)
    turned.set("later", 20)
    turned.set("sooner", 20)
    turned.set("sooner", 5)
    assert len(turned.deadlines) == 2
    assert turned.turn(10) == ["sooner"]
    assert turned.turn(10) == ["later"]


async def test_what_is_discarded_is_not_called(turned: Fixture) -> None:
    turned.set("one", 10)
    turned.set("two", 10)
    turned.deadlines.discard("one")
    turned.deadlines.discard("never set")
    assert turned.turn(10) == ["two"]


async def test_what_is_called_may_set_and_discard(turned: Fixture) -> None:
    turned.deadlines.set("first", turned.clock.now + 10, lambda: (turned.set("next", 5), turned.deadlines.discard("x")))
    turned.set("x", 20)
    assert turned.turn(10) == []
    assert turned.turn(10) == ["next"]


async def test_one_timer_serves_all_and_is_there_only_while_it_is_needed(turned: Fixture) -> None:
    deadlines = turned.deadlines
    assert deadlines._timer is None
    turned.set("far", LONGEST_WAIT * 10)
    far = deadlines._timer
    assert far is not None
    # A clock of the wall may be set: it is looked at before.
    assert far.when() <= asyncio.get_running_loop().time() + LONGEST_WAIT
    turned.set("near", 1)
    near = deadlines._timer
    assert near is not None
    assert far.cancelled()
    assert not near.cancelled()
    assert near.when() < far.when()
    turned.turn(LONGEST_WAIT * 10)
    assert deadlines._timer is None
    turned.set("closed", 1)
    deadlines.close()
    assert deadlines._timer is None
    assert len(deadlines) == 0


async def test_the_timer_looks_by_itself() -> None:
    deadlines, called = Deadlines(asyncio.get_running_loop().time), asyncio.Event()
    deadlines.set("one", deadlines.clock() + 0.01, called.set)
    async with asyncio.timeout(20):
        await called.wait()
    assert deadlines._timer is None


async def test_those_that_come_and_go_leave_nothing_behind(turned: Fixture) -> None:
    turned.set("stays", 5)
    for number in range(10_000):
        turned.set(number, 1_000_000)
        turned.deadlines.discard(number)
    for _ in range(10_000):
        turned.set("moves", 1_000_000)
    assert len(turned.deadlines._heap) <= 2 * len(turned.deadlines) + STALE
    assert turned.turn(5) == ["stays"]


def test_event_loops_whose_timers_do_not_say_when() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        deadlines, called = Deadlines(asyncio.get_running_loop().time), asyncio.Event()
        # What is due at once is no timer there.
        deadlines.set("one", deadlines.clock() - 1, lambda: deadlines.set("two", deadlines.clock() - 1, called.set))
        deadlines.set("three", deadlines.clock() - 1, lambda: None)
        async with asyncio.timeout(20):
            await called.wait()
        deadlines.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
