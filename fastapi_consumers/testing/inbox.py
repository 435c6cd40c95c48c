"""Waiting for what an app sends, and saying well why it does not come."""

import asyncio
import itertools
from collections.abc import Callable
from types import EllipsisType
from typing import TypeAlias

from ..types import CloseCode
from .errors import SocketClosed
from .server import Output, Server

#: Seconds; ``None`` is for ever, ``...`` the default of the one who asks.
Timeout: TypeAlias = float | EllipsisType | None


class Inbox:
    """What came out of ``server`` and was not taken yet. Times are seconds, see :data:`Timeout`."""

    def __init__(self, server: Server, path: str, default_timeout: float | None) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        #: The app's exception has reached the test.
        self.raised = False
        self._server = server
        self._path = path
        self._default_timeout = default_timeout

    def check_loop(self) -> None:
        if self._server.task is None:
            raise RuntimeError(f"{self._path} is not connected: call connect() first, or use `async with`")
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(
                f"{self._path} was connected on another event loop; give the fixture and the test one loop scope"
            )

    def seconds(self, timeout: Timeout) -> float | None:
        return self._default_timeout if timeout is ... else timeout

    async def until(self, ready: Callable[[], bool], timeout: Timeout, awaited: str) -> None:
        """Wait until ``ready()``. ``TimeoutError`` says what was ``awaited`` and what the app does; the app goes on."""
        # The app runs in a task of its own, and only the event is waited for: nothing here can cancel it.
        changed = self._server.changed
        seconds = self.seconds(timeout)
        try:
            async with asyncio.timeout(seconds):
                while not ready():
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            if not ready():
                raise TimeoutError(f"waited {seconds:g} s for {awaited}; {self._situation()}") from None

    async def take(
        self, match: Callable[[Output], bool], timeout: Timeout, awaited: str, *, keep_close: bool = False
    ) -> Output:
        """The first message that matches; the others stay where they are. A close stays as well with ``keep_close``.

        Raises :meth:`end` when none can come any more.
        """
        self.check_loop()
        server = self._server

        def find() -> int | None:
            return next((index for index, output in enumerate(server.output) if match(output)), None)

        await self.until(lambda: find() is not None or server.over, timeout, awaited)
        index = find()
        if index is None:
            raise self.end()
        if keep_close and server.output[index].is_close:
            return server.output[index]
        return server.take(index)

    async def coming(self, match: Callable[[Output], bool], seconds: float) -> Output | None:
        """The first message that matches, which stays where it is; ``None`` if there is none and none comes in time.

        Returns ``None`` at once if the app has ended; raises what it failed with.
        """
        self.check_loop()
        server = self._server

        def find() -> Output | None:
            return next(filter(match, server.output), None)

        try:
            await self.until(lambda: find() is not None or server.ended, seconds, "")
        except TimeoutError:
            return None
        found = find()
        if found is None:
            self.raise_error()
        return found

    async def take_frame(self, timeout: Timeout) -> Output:
        """The next frame. Raises :meth:`end` when the next thing is the end, now and each time after."""
        output = await self.take(lambda output: True, timeout, "a frame", keep_close=True)
        if output.is_close:
            raise self.end()
        return output

    def end(self) -> BaseException:
        """Why nothing more comes: the app's exception or a :class:`SocketClosed`."""
        server = self._server
        if server.is_closed:
            return SocketClosed(self.close_code, server.close_reason or "")
        if (error := server.error) is not None:
            self.raised = True
            return error
        if server.left is not None:
            return SocketClosed(server.left, explanation=f"this side disconnected with code {server.left}")
        how = "was cancelled" if server.task is not None and server.task.cancelled() else "returned"
        return SocketClosed(CloseCode.ABNORMAL, explanation=f"the app {how} without closing the socket")

    @property
    def close_code(self) -> int:
        """The code that the app closed with; 1006 where it did not, as the peer of a server sees it."""
        code = self._server.close_code
        return int(CloseCode.ABNORMAL) if code is None else code

    def raise_error(self) -> None:
        """Raise what the app ended with, if it failed."""
        if (error := self._server.error) is not None:
            self.raised = True
            raise error

    def unread(self) -> str:
        unread = self._server.output
        if not unread:
            return "; no frame of it is unread"
        lines = [f"\n  {output!r}" for output in itertools.islice(unread, 10)]
        more = f"\n  and {len(unread) - 10} more" if len(unread) > 10 else ""
        return f"; unread frames:{''.join(lines)}{more}"

    def _situation(self) -> str:
        doing = "waits for a frame" if self._server.app_waits else "is busy"
        return f"the app behind {self._path} still runs, and {doing}{self.unread()}"
