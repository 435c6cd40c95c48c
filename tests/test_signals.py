"""Work that is done before the process stops: at real signals, that the process sends itself."""

import asyncio
import multiprocessing
import signal
import threading

import pytest
from fastapi import FastAPI

from fastapi_consumers import add_consumers
from fastapi_consumers.signals import StopSignals, before_stop

PATIENCE = 20


class Server:
    """Handles signals as uvicorn does, and remembers them."""

    def __init__(self):
        self.received = []
        self.stopped = asyncio.Event()

    def __call__(self, number, frame):
        self.received.append(number)
        asyncio.get_running_loop().call_soon_threadsafe(self.stopped.set)

    async def stops(self):
        async with asyncio.timeout(PATIENCE):
            await self.stopped.wait()


@pytest.fixture
async def server():
    """Puts back what was there, whatever the test did."""
    handler = Server()
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    yield handler
    for number, previous in before.items():
        signal.signal(number, previous)


class Work:
    def __init__(self):
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def __call__(self):
        self.begun.set()
        await self.may_end.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_server_hears_of_it_when_the_work_is_done(server, number):
    work = Work()
    take_back = before_stop(work)
    signal.raise_signal(number)
    async with asyncio.timeout(PATIENCE):
        await work.begun.wait()
    assert server.received == []
    work.may_end.set()
    await server.stops()
    assert server.received == [number]
    take_back()
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is server


async def test_a_second_signal_does_not_wait(server):
    work = Work()
    take_back = before_stop(work)
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await work.begun.wait()
    signal.raise_signal(signal.SIGINT)
    assert server.received == [signal.SIGINT]
    signal.raise_signal(signal.SIGINT)
    assert server.received == [signal.SIGINT, signal.SIGINT]
    work.may_end.set()
    take_back()
    assert server.received == [signal.SIGINT, signal.SIGINT]


async def test_a_worker_takes_the_supervisors_signal_for_the_one_that_it_has_heard(server, monkeypatch):
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "its supervisor")
    work = Work()
    take_back = before_stop(work)
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    assert server.received == []
    monkeypatch.setattr("fastapi_consumers.signals.ECHO", 0.0)
    signal.raise_signal(signal.SIGTERM)
    assert server.received == [signal.SIGTERM]
    take_back()


async def test_the_work_of_two_apps_runs_side_by_side(server):
    one, two = Work(), Work()
    first, second = before_stop(one), before_stop(two)
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await one.begun.wait()
        await two.begun.wait()
    two.may_end.set()
    await asyncio.sleep(0.05)
    assert server.received == []
    one.may_end.set()
    await server.stops()
    first()
    second()
    assert signal.getsignal(signal.SIGTERM) is server


async def test_work_that_comes_late_is_begun_at_once(server):
    one, two = Work(), Work()
    first = before_stop(one)
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await one.begun.wait()
        second = before_stop(two)
        await two.begun.wait()
    one.may_end.set()
    two.may_end.set()
    await server.stops()
    first()
    second()


async def test_an_app_finds_another_one_behind_a_handler_that_came_between(server):
    one, two = Work(), Work()
    first = before_stop(one)
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: before(number, frame))
    second = before_stop(two)
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await one.begun.wait()
        await two.begun.wait()
    one.may_end.set()
    two.may_end.set()
    await server.stops()
    first()
    second()
    assert signal.getsignal(signal.SIGINT) is server


async def test_work_that_fails_does_not_keep_the_process_from_stopping(server, caplog):
    async def broken():
        raise RuntimeError("on purpose")

    take_back = before_stop(broken)
    signal.raise_signal(signal.SIGTERM)
    await server.stops()
    assert "on purpose" in caplog.text
    take_back()


async def test_a_handler_that_came_later_and_calls_the_one_before_it_stays(server):
    work, heard = Work(), []
    work.may_end.set()
    take_back = before_stop(work)
    before = signal.getsignal(signal.SIGTERM)

    def own(number, frame):
        heard.append(number)
        before(number, frame)

    signal.signal(signal.SIGTERM, own)
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    await server.stops()
    take_back()
    assert signal.getsignal(signal.SIGTERM) is own
    # Nothing is left to be done: it goes straight on.
    signal.raise_signal(signal.SIGTERM)
    assert server.received == [signal.SIGTERM, signal.SIGTERM]


async def test_taking_it_back_while_it_runs_hands_the_signal_on(server):
    work = Work()
    take_back = before_stop(work)
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await work.begun.wait()
    take_back()
    assert server.received == [signal.SIGTERM]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
async def test_where_nobody_handles_the_signal_nothing_is_changed(server, handler):
    signal.signal(signal.SIGTERM, handler)
    before_stop(Work())()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.getsignal(signal.SIGINT) is server


async def test_who_is_ignored_and_who_interrupts_python_is_left_alone(server):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    take_back = before_stop(Work())
    assert isinstance(signal.getsignal(signal.SIGTERM), StopSignals)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    take_back()


def test_in_a_thread_nothing_is_changed():
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    own = signal.getsignal(signal.SIGTERM)
    seen = []

    async def look():
        app = FastAPI()
        consumers = add_consumers(app, [])
        async with consumers:
            seen.append(signal.getsignal(signal.SIGTERM))

    try:
        thread = threading.Thread(target=asyncio.run, args=(look(),))
        thread.start()
        thread.join(PATIENCE)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [own]


async def test_an_app_drains_at_the_signal_and_leaves_signals_as_they_were(server):
    app = FastAPI()
    consumers = add_consumers(app, [])
    async with consumers:
        assert isinstance(signal.getsignal(signal.SIGTERM), StopSignals)
        signal.raise_signal(signal.SIGTERM)
        await server.stops()
        assert consumers.health()["draining"] is True
    assert signal.getsignal(signal.SIGTERM) is server


async def test_with_a_drain_timeout_of_0_signals_are_left_alone(server):
    consumers = add_consumers(FastAPI(), [], drain_timeout=0)
    async with consumers:
        assert signal.getsignal(signal.SIGTERM) is server


def test_a_handler_whose_event_loop_is_gone_hands_on(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))

    async def leave():
        before_stop(Work())

    try:
        asyncio.run(leave())
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
