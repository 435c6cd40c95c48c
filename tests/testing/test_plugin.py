"""The plugin, in a pytest of its own."""

import sys
from importlib.metadata import entry_points
from typing import Protocol

import pytest

APPS = """
    import asyncio
    import pytest
    from contextlib import asynccontextmanager
    from fastapi import FastAPI, WebSocket
    from fastapi_consumers.testing import HandshakeRefused, WebsocketCommunicator, lifespan, registry

    def make(log):
        @asynccontextmanager
        async def run(app):
            log.append("startup")
            yield
            await asyncio.sleep(0)
            log.append("shutdown")

        app = FastAPI(lifespan=run)

        @app.websocket("/{name}")
        async def endpoint(websocket: WebSocket, name: str):
            await websocket.accept()
            log.append(f"{name} in")
            try:
                while True:
                    await websocket.send_text(await websocket.receive_text())
            finally:
                log.append(f"{name} out")

        return app

    log = []
    app = make(log)

    async def deaf(scope, receive, send):
        # Takes no disconnect.
        assert scope["type"] == "websocket"
        await send({"type": "websocket.accept"})
        await asyncio.get_running_loop().create_future()

    async def closes_and_stays(scope, receive, send):
        assert scope["type"] == "websocket"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4400})
        await asyncio.get_running_loop().create_future()

    async def crashes(scope, receive, send):
        assert scope["type"] == "websocket"
        await send({"type": "websocket.accept"})
        await receive()
        raise ValueError("boom")
"""


class Run(Protocol):
    def __call__(self, source: str, *args: str, **outcomes: int) -> pytest.RunResult: ...


@pytest.fixture
def run(pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the source, after ``APPS``, in a pytest with the plugin; ``outcomes`` are how many passed, failed, …"""
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath))
    # Where the package is installed, its entry point loads the plugin.
    installed = entry_points(group="pytest11", name="fastapi_consumers")
    load = () if installed else ("-p", "fastapi_consumers.testing.plugin")

    def run(source: str, *args: str, **outcomes: int) -> pytest.RunResult:
        pytester.makepyfile(APPS + source)
        options = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function")
        result = pytester.run(
            sys.executable,
            *("-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *args, *load),
            *(argument for option in options for argument in ("-o", option)),
        )
        result.assert_outcomes(**outcomes)
        return result

    return run


def test_a_leaking_test_fails_and_the_next_one_is_clean(run: Run) -> None:
    result = run(
        """
    pytestmark = pytest.mark.asyncio(loop_scope="module")  # one loop: what leaks would be seen by the next test

    async def test_leaks():
        await WebsocketCommunicator(app, "/ann?x=1").connect()

    async def test_clean():
        assert log == ["startup", "ann in", "ann out", "shutdown"]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert registry.current().communicators == {}
        async with WebsocketCommunicator(app, "/bob"):
            pass
        assert log[4:] == ["startup", "bob in", "bob out"]

    async def test_after():
        assert log[7:] == ["shutdown"]
    """,
        passed=2,
        failed=1,
    )
    result.stdout.fnmatch_lines(
        [
            "the test left an app running behind a communicator:",
            "  /ann[?]x=1: use `async with`, or `await communicator.disconnect()`",
        ]
    )
    result.stdout.no_fnmatch_line("*never retrieved*")


def test_a_leaking_test_that_failed_keeps_its_own_failure(run: Run) -> None:
    result = run(
        """
    async def test_fails():
        await WebsocketCommunicator(app, "/ann").connect()
        assert 1 == 2

    async def test_skips():
        await WebsocketCommunicator(app, "/bob").connect()
        pytest.skip("not today")

    def test_clean():
        assert log == [
            "startup", "ann in", "ann out", "shutdown",
            "startup", "bob in", "bob out", "shutdown",
        ]
    """,
        passed=1,
        failed=1,
        skipped=1,
    )
    result.stdout.fnmatch_lines(["*assert 1 == 2*"])
    result.stdout.no_fnmatch_line("*left an app running*")


def test_apps_that_do_not_end_are_cancelled(run: Run) -> None:
    result = run(
        """
    pytestmark = pytest.mark.asyncio(loop_scope="module")

    @pytest.fixture(autouse=True)
    def short(monkeypatch):
        monkeypatch.setattr("fastapi_consumers.testing.plugin.GRACE", 0.01)

    async def test_deaf():
        await WebsocketCommunicator(deaf, "/deaf").connect()

    async def test_deaf_fixture(communicator):
        await communicator(deaf, "/deaf2")

    async def test_closed():
        communicator = WebsocketCommunicator(closes_and_stays, "/closed")
        await communicator.connect()
        await communicator.assert_closed(4400)

    async def test_clean():
        assert asyncio.all_tasks() == {asyncio.current_task()}
    """,
        passed=1,
        failed=3,
    )
    result.stdout.fnmatch_lines(
        ["  /deaf: use *", *(f"  /{name}: its socket has ended, but the app does not" for name in ("deaf2", "closed"))]
    )


def test_what_ends_by_itself_is_no_leak(run: Run) -> None:
    run(
        """
    async def slow_to_end(scope, receive, send):
        assert scope["type"] == "websocket"
        await send({"type": "websocket.close", "code": 4403})
        for _ in range(10):
            await asyncio.sleep(0)

    async def test_refused():
        assert await WebsocketCommunicator(slow_to_end, "/").connect() == (False, 4403)

    def test_in_a_loop_of_its_own():
        async def main():
            await WebsocketCommunicator(app, "/ann").connect()
        asyncio.run(main())
        assert log[-1] == "shutdown"

    def test_without_a_loop():
        pass
    """,
        passed=3,
    )


def test_a_failing_shutdown_fails_the_test(run: Run) -> None:
    result = run(
        """
    @asynccontextmanager
    async def bad(app):
        yield
        raise ValueError("at shutdown")

    async def test_shutdown():
        await WebsocketCommunicator(FastAPI(lifespan=bad), "/").connect()

    async def test_failed_before():
        await WebsocketCommunicator(FastAPI(lifespan=bad), "/").connect()
        assert 1 == 2

    async def test_two():
        await WebsocketCommunicator(FastAPI(lifespan=bad), "/").connect()
        await WebsocketCommunicator(FastAPI(lifespan=bad), "/").connect()

    async def test_leak():
        await WebsocketCommunicator(FastAPI(lifespan=bad), "/").connect()
        await WebsocketCommunicator(app, "/ann").connect()
    """,
        failed=4,
    )
    result.stdout.fnmatch_lines(
        [
            "*_ test_shutdown _*",
            "*ValueError: at shutdown",
            "*_ test_failed_before _*",
            "*assert 1 == 2",
            "*and then, at the end of the test: ValueError('at shutdown')",
            "*_ test_two _*",
            "*ValueError: at shutdown",
            "*and then, at the end of the test: ValueError('at shutdown')",
            "*_ test_leak _*",
            "*left an app running behind a communicator:",
            "  /ann: use *",
            "and then: ValueError('at shutdown')",
        ]
    )


def test_what_wider_fixtures_connected_stays(run: Run) -> None:
    run(
        """
    import pytest_asyncio
    pytestmark = pytest.mark.asyncio(loop_scope="module")

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def ann():
        async with WebsocketCommunicator(app, "/ann") as communicator:
            yield communicator
        assert log[-1] == "ann out"

    @pytest.mark.parametrize("number", [1, 2])
    async def test_uses(ann, number):
        await ann.send_to("hi")
        assert await ann.receive_from() == "hi"
        assert log == ["startup", "ann in"]

    async def test_shares_its_lifespan(ann):
        async with WebsocketCommunicator(app, "/bob"):
            pass

    async def test_still(ann):
        assert log == ["startup", "ann in", "bob in", "bob out"]
    """,
        passed=4,
    )


def test_what_a_fixture_of_the_test_connected_ends_with_the_test(run: Run) -> None:
    result = run(
        """
    import pytest_asyncio
    pytestmark = pytest.mark.asyncio(loop_scope="module")

    @pytest_asyncio.fixture(loop_scope="module")
    async def ann():
        async with WebsocketCommunicator(app, "/ann") as communicator:
            yield communicator
            await communicator.send_to("still there")
            assert await communicator.receive_from() == "still there"

    @pytest_asyncio.fixture(loop_scope="module")
    async def leak():
        await WebsocketCommunicator(app, "/leak").connect()

    async def test_uses(ann):
        assert log == ["startup", "ann in"]

    async def test_shut_down():
        assert log[2:] == ["ann out", "shutdown"]
        log.clear()

    async def test_leaks(leak):
        pass

    async def test_cleaned():
        assert log == ["startup", "leak in", "leak out", "shutdown"]

    async def test_the_teardown_fails(leak, fails):
        pass

    @pytest.fixture
    def fails():
        yield
        assert 1 == 2
    """,
        passed=5,
        errors=2,
    )
    result.stdout.fnmatch_lines(["a fixture left an app running behind a communicator:", "  /leak: use *"])


def test_the_fixture_connects_and_disconnects(run: Run) -> None:
    result = run(
        """
    async def test_connects(communicator):
        ann = await communicator(app, "/ann", [("x", "1")], ["a"], client=("1.2.3.4", 5))
        bob = await communicator(app, "/bob")
        assert (b"x", b"1") in ann.scope["headers"]
        assert ann.scope["client"] == ("1.2.3.4", 5)
        await bob.send_to("hi")
        assert await bob.receive_from() == "hi"

    def test_both_left_before_the_shutdown():
        assert log == ["startup", "ann in", "bob in", "ann out", "bob out", "shutdown"]
        log.clear()

    async def test_refused(communicator):
        with pytest.raises(HandshakeRefused):
            await communicator(app, "/not/there")

    @pytest.fixture
    async def cat(communicator):
        cat = await communicator(app, "/cat")
        yield cat
        assert await cat.receive_nothing(timeout=0)

    async def test_in_a_fixture(cat, communicator):
        log.clear()
        await communicator(app, "/dog")

    def test_the_fixture_s_left_later():
        assert log == ["dog in", "dog out", "cat out", "shutdown"]

    async def test_a_crash_at_the_end_is_seen(communicator):
        await communicator(crashes, "/")

    async def test_a_crash_before_the_end_is_seen(communicator):
        ann = await communicator(crashes, "/")
        await ann.send_to("a")
        with pytest.raises(TimeoutError):
            await ann.receive_output(timeout=-1)
        await asyncio.wait([ann._server.task])

    @pytest.mark.asyncio(loop_scope="module")
    async def test_of_another_loop_than_the_fixture(communicator):
        log.clear()
        await communicator(app, "/elk")

    def test_it_left_too():
        assert log == ["startup", "elk in", "elk out", "shutdown"]
    """,
        passed=8,
        failed=1,
        errors=1,
    )
    result.stdout.fnmatch_lines(["*ValueError: boom*"])


def test_the_fixture_without_pytest_asyncio(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        hide_pytest_asyncio="""
        import importlib.util
        real = importlib.util.find_spec
        importlib.util.find_spec = lambda name, package=None: None if name == "pytest_asyncio" else real(name, package)
        """
    )
    run(
        """
    def test_in_a_loop_of_its_own(communicator):
        async def main():
            await communicator(app, "/ann")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        globals()["loop"] = loop  # left open, as pytest plugins do

    def test_left():
        assert log == ["startup", "ann in", "ann out", "shutdown"]
        loop.close()
    """,
        *("-p", "no:asyncio", "-p", "hide_pytest_asyncio", "-W", "ignore::pytest.PytestConfigWarning"),
        passed=2,
    )
