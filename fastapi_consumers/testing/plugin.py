"""The pytest plugin: no test leaves a socket or a lifespan behind, and a fixture that makes communicators.

At the end of a test, while its event loop is still there,

1. what the fixture ``communicator`` connected in it is disconnected;
2. a communicator connected in it whose app still runs fails the test, unless it failed already, and the app is ended;
3. the lifespans that were started in it are shut down, and what that raises fails the test.

What a fixture connects or starts is its own: it is looked after when the test's fixtures have been torn down if the
fixture's scope is "function", and never if its scope is wider, where the closing of the loop shuts lifespans down.

All this needs a loop that outlives the test's body, as pytest-asyncio has it. Where the loop is closed before
(``asyncio.run`` in a test, ``IsolatedAsyncioTestCase``, anyio's plugin), its closing cancels the apps and shuts the
lifespans down gracefully.
"""

import asyncio
import importlib.util
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from typing import Any

import pytest

from ..types import ASGIApp
from . import registry
from .communicator import WebsocketCommunicator
from .lifespans import Lifespan
from .server import Headers

Running = WebsocketCommunicator | Lifespan
CommunicatorFactory = Callable[..., Awaitable[WebsocketCommunicator]]

#: Seconds that an app has to end once its socket is closed.
GRACE = 5.0

#: What function-scoped fixtures of the test started.
_TEST = pytest.StashKey[set[Running]]()
#: What fixtures of a wider scope started.
_WIDER = pytest.StashKey[weakref.WeakSet[Running]]()
_FAILURES = (Exception, pytest.fail.Exception, pytest.skip.Exception)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_WIDER] = weakref.WeakSet()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    before = set(_running())
    try:
        return (yield)
    finally:
        wider = request.config.stash[_WIDER]
        started = {each for each in _running() if each not in before and each not in wider}
        if fixturedef.scope == "function":
            request.node.stash.setdefault(_TEST, set()).update(started)
        else:
            wider.update(started)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    before = set(_running())

    def started() -> list[Running]:
        fixtures = [item.config.stash[_WIDER], item.stash.get(_TEST, set())]
        return [each for each in _running() if each not in before and not any(each in owned for owned in fixtures)]

    return (yield from _ended_after("the test", started))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    def left() -> list[Running]:
        owned = item.stash.get(_TEST, set())
        return [each for each in _running() if each in owned]

    return (yield from _ended_after("a fixture", left))


def _ended_after(culprit: str, running: Callable[[], list[Running]]) -> Generator[None, object, object]:
    """Run the phase, end what is ``running`` after it, and fail for it unless the phase has failed."""
    try:
        result = yield
    except _FAILURES as error:
        _note(error, _end(running())[1])
        raise
    _judge(culprit, *_end(running()))
    return result


def _running() -> list[Running]:
    """All that runs, on all loops, oldest first."""
    found: list[Running] = []
    for state in registry.states().values():
        found += state.communicators
        found += state.lifespans.values()
    return found


def _end(running: list[Running]) -> tuple[list[str], list[Exception]]:
    """End what runs. Returns what should have ended, one text each, and what was raised."""
    loops: dict[asyncio.AbstractEventLoop, list[Running]] = {}
    for each in running:
        if each.loop is not None:
            loops.setdefault(each.loop, []).append(each)
    leaks: list[str] = []
    errors: list[Exception] = []
    for loop, items in loops.items():
        if not loop.is_running() and not loop.is_closed():
            loop.run_until_complete(_end_here(items, leaks, errors))
    return leaks, errors


async def _end_here(running: list[Running], leaks: list[str], errors: list[Exception]) -> None:
    communicators = [each for each in running if isinstance(each, WebsocketCommunicator)]
    await _disconnect([each for each in communicators if each.managed], errors)
    for communicator in communicators:
        if not await communicator.ends(GRACE):
            if communicator.is_connected:
                leaks.append(f"{communicator.path}: use `async with`, or `await communicator.disconnect()`")
            else:
                leaks.append(f"{communicator.path}: its socket has ended, but the app does not")
            await communicator.tear_down(GRACE)
    for each in running:
        if isinstance(each, Lifespan):
            try:
                await each.stop()
            except Exception as error:
                errors.append(error)


async def _disconnect(communicators: list[WebsocketCommunicator], errors: list[Exception]) -> None:
    for communicator in communicators:
        try:
            await communicator.disconnect()
        except TimeoutError:
            pass  # the app still runs, which is a leak
        except Exception as error:
            errors.append(error)


def _judge(culprit: str, leaks: list[str], errors: list[Exception]) -> None:
    if leaks:
        lines = [f"{culprit} left an app running behind a communicator:", *(f"  {leak}" for leak in leaks)]
        pytest.fail("\n".join([*lines, *(f"and then: {error!r}" for error in errors)]), pytrace=False)
    if errors:
        _note(errors[0], errors[1:])
        raise errors[0]


def _note(error: BaseException, others: list[Exception]) -> None:
    for other in others:
        error.add_note(f"and then, at the end of the test: {other!r}")


class _Factory:
    """What the fixture ``communicator`` gives to a test."""

    def __init__(self) -> None:
        self.made: list[WebsocketCommunicator] = []

    async def __call__(
        self,
        app: ASGIApp,
        path: str,
        headers: Headers | None = None,
        subprotocols: Sequence[str] | None = None,
        **options: Any,
    ) -> WebsocketCommunicator:
        communicator = WebsocketCommunicator(app, path, headers, subprotocols, **options)
        communicator.managed = True
        await communicator.__aenter__()
        self.made.append(communicator)
        return communicator


if importlib.util.find_spec("pytest_asyncio") is not None:
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def communicator() -> AsyncIterator[CommunicatorFactory]:
        """``await communicator(app, path, headers=None, subprotocols=None, **options)`` connects a
        ``WebsocketCommunicator``, which is disconnected at the end of the test.
        """
        factory = _Factory()
        yield factory
        # Those of the test are disconnected already, before the lifespan was shut down; these are other fixtures'.
        errors: list[Exception] = []
        here = asyncio.get_running_loop()
        await _disconnect([each for each in factory.made if each.loop is here], errors)
        if errors:
            raise errors[0]

else:

    @pytest.fixture
    def communicator() -> CommunicatorFactory:
        """``await communicator(app, path, headers=None, subprotocols=None, **options)`` connects a
        ``WebsocketCommunicator``, which is disconnected at the end of the test.
        """
        return _Factory()
