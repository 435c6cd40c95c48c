import asyncio
import gc
import logging
import unittest
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket

from fastapi_consumers.testing import LifespanFailed, WebsocketCommunicator, lifespan, registry
from fastapi_consumers.testing.lifespans import Lifespan
from fastapi_consumers.types import ASGIApp, Receive, Scope, Send


class Boom(Exception):
    pass


def recording(log: list[str], state: dict[str, Any] | None = None) -> FastAPI:
    """An app that writes down its startups and shutdowns, and how often its endpoint was reached."""

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        log.append("startup")
        yield state if state is not None else {}
        await asyncio.sleep(0)  # a cleanup that needs the loop
        log.append("shutdown")

    app = FastAPI(lifespan=run)

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        log.append("connect")
        websocket.scope["state"]["mine"] = True
        await websocket.receive()
        log.append("disconnect")

    return app


async def use(app: ASGIApp, **options: Any) -> Scope:
    async with WebsocketCommunicator(app, "/", **options) as communicator:
        return communicator.scope


async def stop(app: ASGIApp) -> None:
    await registry.current().lifespans[id(app)].stop()


async def test_two_communicators_share_one_lifespan_that_outlives_them() -> None:
    log: list[str] = []
    app = recording(log)
    async with WebsocketCommunicator(app, "/"):
        await use(app)
    await use(app)
    assert log.count("startup") == 1
    assert "shutdown" not in log
    await stop(app)
    assert log[-1] == "shutdown"
    await use(app)
    assert log.count("startup") == 2


async def test_communicators_that_connect_at_once_share_one_lifespan() -> None:
    log: list[str] = []
    app = recording(log)
    await asyncio.gather(*(use(app) for _ in range(3)))
    assert log.count("startup") == 1


async def test_two_apps_do_not_mix() -> None:
    log_a: list[str] = []
    log_b: list[str] = []
    a, b = recording(log_a, {"name": "a"}), recording(log_b, {"name": "b"})
    assert (await use(a))["state"]["name"] == "a"
    assert (await use(b))["state"]["name"] == "b"
    await stop(a)
    assert log_a[-1] == "shutdown"
    assert "shutdown" not in log_b


async def test_each_socket_has_a_copy_of_the_state() -> None:
    shared: list[int] = []
    app = recording([], {"shared": shared})
    first, second = await use(app), await use(app, scope={"state": {"extra": 1}})
    assert first["state"]["shared"] is second["state"]["shared"] is shared
    assert first["state"] is not second["state"]
    assert second["state"]["extra"] == 1
    assert registry.current().lifespans[id(app)].state == {"shared": shared}


async def test_the_lifespan_can_be_left_to_the_test() -> None:
    log: list[str] = []
    await use(recording(log), run_lifespan=False)
    assert log == ["connect", "disconnect"]


class Runtime:
    is_open = False


async def test_an_open_runtime_is_left_alone() -> None:
    log: list[str] = []
    app = recording(log)
    app.state.consumers = Runtime()
    app.state.consumers.is_open = True
    assert (await use(app))["state"] == {"mine": True}
    app.state.consumers.is_open = False
    assert "startup" not in log
    await use(app)
    assert "startup" in log


async def test_a_lifespan_of_somebody_else_is_not_run_again() -> None:
    log: list[str] = []
    app = recording(log)
    async with app.router.lifespan_context(app):
        app.state.consumers = Runtime()
        app.state.consumers.is_open = True
        await use(app)
    assert log == ["startup", "connect", "disconnect", "shutdown"]


# Startup


def failing(where: str) -> FastAPI:
    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        if where == "startup":
            raise Boom(where)
        yield
        raise Boom(where)

    app = FastAPI(lifespan=run)

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()

    return app


async def test_what_the_startup_raises_is_raised_by_each_connect() -> None:
    app = failing("startup")
    for _ in range(2):
        with pytest.raises(Boom, match="startup"):
            await WebsocketCommunicator(app, "/").connect()
    assert id(app) not in registry.current().lifespans


async def test_what_the_shutdown_raises_is_raised_by_stop() -> None:
    app = failing("shutdown")
    await use(app)
    with pytest.raises(Boom, match="shutdown"):
        await stop(app)


def saying(*answers: str, then: type[Exception] | None = None) -> ASGIApp:
    """An app that answers the lifespan's messages one by one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        for answer in answers:
            await receive()
            await send({"type": answer, "message": "because"})
        if then is not None:
            raise then

    return app


async def test_an_app_that_says_that_it_failed() -> None:
    with pytest.raises(LifespanFailed, match="failed to start: because"):
        await use(saying("lifespan.startup.failed"))
    app = saying("lifespan.startup.complete", "lifespan.shutdown.failed")
    await use(app)
    with pytest.raises(LifespanFailed, match="failed to shut down: because"):
        await stop(app)


async def test_a_lifespan_that_crashes_after_startup_fails_the_connects() -> None:
    app = saying("lifespan.startup.complete", then=Boom)
    with pytest.raises(Boom):
        await use(app)


async def test_a_lifespan_may_return_after_startup() -> None:
    app = saying("lifespan.startup.complete")
    for _ in range(2):
        await use(app)
    await stop(app)


async def raises_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "websocket"
    await send({"type": "websocket.accept"})


async def accepts_anything(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})


async def asks_on(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "websocket.connect":
        pass
    await send({"type": "websocket.accept"})


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})


@pytest.mark.parametrize("app", [raises_at_once, accepts_anything, asks_on, returns])
async def test_an_app_without_lifespan_works(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastapi_consumers.testing")
    for _ in range(2):
        await use(app)
    assert len(caplog.records) == (app is not returns)


async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await asyncio.get_running_loop().create_future()


async def test_a_startup_that_hangs_is_told_and_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi_consumers.testing.lifespans.LIFESPAN_TIMEOUT", 0.01)
    with pytest.raises(TimeoutError, match=r"did not start within 0\.01 s"):
        await WebsocketCommunicator(hangs, "/").connect()
    await stop(hangs)
    with pytest.raises(TimeoutError):
        async with lifespan(hangs):
            pass
    assert id(hangs) not in registry.current().lifespans


async def test_a_shutdown_that_hangs_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        while True:
            await receive()

    running = Lifespan(app)
    await running.started()
    monkeypatch.setattr("fastapi_consumers.testing.lifespans.LIFESPAN_TIMEOUT", 0.01)
    with pytest.raises(TimeoutError, match=r"did not shut down within 0\.01 s; it was cancelled"):
        await running.stop()


# The end of the loop


def test_the_shutdown_is_graceful_when_asyncio_run_ends() -> None:
    log: list[str] = []
    asyncio.run(use(recording(log)))
    assert log == ["startup", "connect", "disconnect", "shutdown"]


def test_the_shutdown_is_graceful_when_the_test_fails() -> None:
    log: list[str] = []
    app = recording(log)

    async def fail() -> None:
        await WebsocketCommunicator(app, "/").connect()
        raise Boom

    with pytest.raises(Boom):
        asyncio.run(fail())
    assert log[-1] == "shutdown"


def test_the_shutdown_is_graceful_in_unittest() -> None:
    log: list[str] = []
    app = recording(log)

    class Case(unittest.IsolatedAsyncioTestCase):
        async def test(self) -> None:
            await use(app)

    result = Case("test").run()
    assert result is not None
    assert result.wasSuccessful()
    assert log == ["startup", "connect", "disconnect", "shutdown"]


def test_a_task_group_in_the_lifespan_is_no_obstacle() -> None:
    log: list[str] = []

    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            worker = group.create_task(work())
            yield
            worker.cancel()
            log.append("shutdown")

    asyncio.run(use_plain(FastAPI(lifespan=run)))
    assert log == ["shutdown"]


async def use_plain(app: ASGIApp) -> None:
    assert await WebsocketCommunicator(app, "/").connect() == (False, 1000)


def test_a_loop_that_closes_during_the_startup() -> None:
    async def connect() -> None:
        task = asyncio.create_task(WebsocketCommunicator(hangs, "/").connect())
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(connect())
    assert not registry.states()


def test_each_loop_has_a_lifespan_of_its_own() -> None:
    log: list[str] = []
    app = recording(log)
    for _ in range(2):
        asyncio.run(use(app))
    assert [entry for entry in log if entry in ("startup", "shutdown")] == ["startup", "shutdown"] * 2


@pytest.mark.parametrize("make", [lambda: recording([]), lambda: failing("startup"), FastAPI])
def test_nothing_keeps_an_app_alive_once_its_loop_is_closed(make: Callable[[], FastAPI]) -> None:
    async def touch(app: ASGIApp) -> None:
        try:
            await WebsocketCommunicator(app, "/").connect()
        except Boom:
            pass

    app = make()
    gone = weakref.ref(app)
    asyncio.run(touch(app))
    del app
    assert not registry.states()
    gc.collect()
    assert gone() is None


# The context manager


async def test_the_context_manager_runs_the_lifespan_and_shares_it() -> None:
    log: list[str] = []
    app = recording(log, {"name": "a"})
    async with lifespan(app) as state:
        assert state == {"name": "a"}
        assert (await use(app))["state"]["name"] == "a"
        async with lifespan(app) as again:
            assert again is state
        assert log == ["startup", "connect", "disconnect"]
    assert log[-1] == "shutdown"


async def test_the_context_manager_leaves_a_lifespan_that_ran_before_alone() -> None:
    log: list[str] = []
    app = recording(log)
    await use(app)
    async with lifespan(app):
        pass
    assert "shutdown" not in log


@pytest.mark.parametrize("where", ["startup", "shutdown"])
async def test_the_context_manager_raises_what_the_app_raises(where: str) -> None:
    manager: AbstractAsyncContextManager[Any] = lifespan(failing(where))
    with pytest.raises(Boom, match=where):
        async with manager:
            pass
