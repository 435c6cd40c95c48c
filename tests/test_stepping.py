import asyncio

import pytest

from fastapi_consumers.stepping import Resumed, Waits, run_now


def step(coroutine):
    return coroutine, coroutine.send(None)


async def test_a_stepped_coroutine_goes_on_in_a_task_and_gives_its_result():
    gate = asyncio.get_running_loop().create_future()

    async def work():
        first = await gate
        await asyncio.sleep(0)
        return first, await asyncio.sleep(0, "slept")

    coroutine, waited_for = step(work())
    task = asyncio.create_task(_await(Resumed(coroutine, waited_for)))
    await asyncio.sleep(0)
    assert not task.done()
    gate.set_result("opened")
    assert await task == ("opened", "slept")


async def test_what_it_waits_for_may_be_done_before_it_is_awaited():
    gate = asyncio.get_running_loop().create_future()

    async def work():
        return await gate

    coroutine, waited_for = step(work())
    gate.set_result(1)
    assert await Resumed(coroutine, waited_for) == 1


async def test_an_exception_of_what_it_waits_for_is_raised_inside_and_may_be_caught():
    gate = asyncio.get_running_loop().create_future()

    async def work():
        try:
            await gate
        except ValueError as error:
            await asyncio.sleep(0)
            return f"caught {error}"

    coroutine, waited_for = step(work())
    gate.set_exception(ValueError("it"))
    assert await Resumed(coroutine, waited_for) == "caught it"


async def test_an_exception_of_its_own_comes_out():
    async def work():
        await asyncio.sleep(0)
        raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        await Resumed(*step(work()))


@pytest.mark.parametrize("swallows", [False, True])
async def test_cancelling_the_task_cancels_the_coroutine(swallows):
    events = []

    async def work():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            events.append("cancelled")
            if not swallows:
                raise
            return "went on"

    task = asyncio.create_task(_await(Resumed(*step(work()))))
    await asyncio.sleep(0)
    task.cancel()
    if swallows:
        assert await task == "went on"
    else:
        with pytest.raises(asyncio.CancelledError):
            await task
    assert events == ["cancelled"]


async def test_a_timeout_inside_that_was_entered_in_the_first_step_works():
    async def work():
        try:
            async with asyncio.timeout(0):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "timed out"

    # Stepped by the very task that goes on with it, as actions are.
    assert await Resumed(*step(work())) == "timed out"
    assert asyncio.current_task().cancelling() == 0


async def test_closing_what_awaits_it_closes_the_coroutine():
    events = []

    async def work():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            events.append("closed")

    outer = _await(Resumed(*step(work())))
    outer.send(None)
    outer.close()
    assert events == ["closed"]


async def _await(awaitable):
    return await awaitable


def test_run_now_gives_the_result_of_what_does_not_wait():
    async def outer():
        return await inner()

    async def inner():
        return 7

    assert run_now(outer()) == 7
    assert run_now("plain") == "plain"


def test_run_now_raises_what_it_raises():
    async def fails():
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_now(fails())


def test_run_now_refuses_what_waits_and_closes_it():
    closed = []

    async def waits():
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    with pytest.raises(Waits):
        run_now(waits())
    assert closed == [True]


def test_run_now_takes_any_awaitable():
    class Ready:
        def __await__(self):
            return iter(())

    class Waiting:
        def __await__(self):
            yield None

    assert run_now(Ready()) is None
    with pytest.raises(Waits):
        run_now(Waiting())
