"""Runs an app's ASGI lifespan for tests: once for each app and event loop, in a task of its own.

ASGI: https://asgi.readthedocs.io/en/stable/specs/lifespan.html
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..types import ASGIApp, Message
from . import registry
from .errors import LifespanFailed

logger = logging.getLogger(__name__)

#: Seconds that an app's startup, and its shutdown, may take.
LIFESPAN_TIMEOUT = 10.0


class Lifespan:
    """One run of an app's lifespan, on the loop that it was made on.

    Its shutdown is graceful also when nobody calls :meth:`stop` and the loop's runner cancels all tasks
    (``asyncio.run``, ``IsolatedAsyncioTestCase``, pytest-asyncio): the app sees ``lifespan.shutdown`` instead of the
    cancellation, and the runner waits for its cleanup.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self.loop = asyncio.get_running_loop()
        self._startup: asyncio.Future[None] = self.loop.create_future()
        self._stopping = asyncio.Event()
        self._asked = 0
        self._failure: str | None = None
        self._supported = False
        self._task: asyncio.Task[None] = self.loop.create_task(self._run(), name="lifespan of the app under test")

    @property
    def crashed(self) -> bool:
        """The app left its lifespan with an exception. To return early is allowed."""
        return self._task.done() and not self._task.cancelled() and self._task.exception() is not None

    async def started(self) -> None:
        """Wait for the startup. An app without lifespan counts as started.

        Raises:
            LifespanFailed: the app said so and raised nothing; what it raised otherwise.
            TimeoutError: after ``LIFESPAN_TIMEOUT`` seconds. The startup goes on.
        """
        # asyncio.wait leaves what it waits for alone, whatever happens to the waiter.
        done, _ = await asyncio.wait([self._startup], timeout=LIFESPAN_TIMEOUT)
        if not done:
            raise TimeoutError(f"the app's lifespan did not start within {LIFESPAN_TIMEOUT:g} s; it is still starting")
        self._startup.result()

    async def stop(self) -> None:
        """Shut the app down and wait for it. Does nothing where it has ended, or has no lifespan.

        Raises:
            LifespanFailed: the app said so and raised nothing; what it raised otherwise.
            TimeoutError: the shutdown took more than ``LIFESPAN_TIMEOUT`` seconds. It has been cancelled.
        """
        self._forget()
        self._stopping.set()
        if not self._startup.done():
            self._task.cancel()
        await asyncio.wait([self._task], timeout=LIFESPAN_TIMEOUT)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1)
            raise TimeoutError(f"the app's lifespan did not shut down within {LIFESPAN_TIMEOUT:g} s; it was cancelled")
        if self._task.cancelled():
            return
        if error := self._task.exception():
            raise error
        if self._supported and self._failure is not None:
            raise LifespanFailed(f"the app's lifespan failed to shut down: {self._failure}")

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self.app(scope, self._receive, self._send)
        except Exception as error:
            if self._startup.done():
                raise
            if self._failure is None:
                # "If an exception is raised when calling the application callable with a lifespan.startup message
                # or a scope of type lifespan, the server must continue but not send any lifespan events."
                logger.info("The app has no ASGI lifespan: %r", error)
                self._startup.set_result(None)
            else:
                self._forget()
                self._startup.set_exception(error)
        except BaseException:
            self._forget()
            self._startup.cancel()
            raise
        else:
            if self._startup.done():
                if self._failure is None and self._asked > 1:
                    self._forget()  # shut down: it can be started again
            elif self._failure is None:
                self._startup.set_result(None)
            else:
                self._forget()
                self._startup.set_exception(LifespanFailed(f"the app's lifespan failed to start: {self._failure}"))

    async def _receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        if not self._startup.done():
            raise RuntimeError("the app asked for a message before it answered lifespan.startup")
        if self._asked > 2:
            await self.loop.create_future()
        try:
            await self._stopping.wait()
        except asyncio.CancelledError:
            # The loop is closing. The runner waits for cancelled tasks, so there is time for the app's cleanup.
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._supported = True
            if not self._startup.done():
                self._startup.set_result(None)
        elif kind in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._failure = message.get("message", "")
        elif kind != "lifespan.shutdown.complete":
            raise RuntimeError(f"the app sent {kind!r} in its lifespan; expected lifespan.startup.* or .shutdown.*")

    def _forget(self) -> None:
        state = registry.states().get(self.loop)
        if state is not None and state.lifespans.get(id(self.app)) is self:
            del state.lifespans[id(self.app)]


async def ensure_lifespan(app: ASGIApp) -> dict[str, Any]:
    """Run the app's lifespan on this loop if nobody does, and return its state.

    An app whose ``app.state.consumers.is_open`` is true was started by somebody else (Starlette's ``TestClient``, a
    lifespan manager): it is left alone, and its state, which only its starter has, is empty here.

    Raises what :meth:`Lifespan.started` raises, and what the lifespan crashed with since.
    """
    lifespans = registry.current().lifespans
    running = lifespans.get(id(app))
    if running is None:
        consumers = getattr(getattr(app, "state", None), "consumers", None)
        if getattr(consumers, "is_open", False) is True:
            return {}
        running = lifespans[id(app)] = Lifespan(app)
    await running.started()
    if running.crashed:
        await running.stop()
    return running.state


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """Run the app's lifespan for a block: ``async with lifespan(app) as state``.

    Communicators in the block share it. Where the app already runs on this loop, it is left running at the end.

    Raises what the app's startup or shutdown raised, :class:`LifespanFailed` if it only said so, ``TimeoutError``
    after ``LIFESPAN_TIMEOUT`` seconds of either.
    """
    lifespans = registry.current().lifespans
    before = lifespans.get(id(app))
    try:
        state = await ensure_lifespan(app)
        started = lifespans.get(id(app))
    except TimeoutError:
        if (hanging := lifespans.get(id(app))) is not None and hanging is not before:
            await hanging.stop()
        raise
    try:
        yield state
    finally:
        if started is not None and started is not before:
            await started.stop()
