"""What a process does before it obeys the signals that stop it: a server such as uvicorn closes its sockets at once."""

import asyncio
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

Work = Callable[[], Awaitable[Any]]
Handler = Callable[[int, FrameType | None], Any]

#: Those that uvicorn stops at; the last is Windows' (Ctrl+Break).
NAMES = ("SIGTERM", "SIGINT", "SIGBREAK")
#: Seconds in which a worker takes a second signal for the first: a terminal, or systemd, tells the whole group of
#: processes, and the supervisor among them tells its workers once more. Uvicorn's looks every half a second, and asks
#: its workers how they are before.
ECHO = 3.0


class StopSignals:
    """A signal handler that has work done first, and then calls the handler which it took the place of.

    The work of all applications of an event loop runs side by side. They meet here, in the handler itself, so that no
    module keeps any state. A second signal does not wait for the work: its handler is called at once, and the work goes
    on for as long as that lets it.

    Args:
        previous: signal to the handler that was there.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, previous: Mapping[int, Handler]) -> None:
        self.loop = loop
        self._previous = previous
        self._works: list[Work] = []
        #: The first signal, and when it came.
        self._received: tuple[int, float] | None = None
        self._is_over = False
        self._tasks: set[asyncio.Future[Any]] = set()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # The main thread may be anywhere: nothing is touched here that it could be at work on.
        if self._received is None and self._works and self.loop.is_running():
            self._received = number, time.monotonic()
            self.loop.call_soon_threadsafe(self._begin)
        elif self._is_over or not self._is_echo():
            self._is_over = self._received is not None
            self._previous[number](number, frame)

    def _is_echo(self) -> bool:
        if self._received is None or multiprocessing.parent_process() is None:
            return False
        return time.monotonic() - self._received[1] < ECHO

    def _begin(self) -> None:
        self._tasks.add(self.loop.create_task(self._work()))

    async def _work(self) -> None:
        results = await asyncio.gather(*[work() for work in self._works], return_exceptions=True)
        for failure in results:
            if isinstance(failure, BaseException):
                logger.error("what was to be done before the process stops failed", exc_info=failure)
        self._hand_over()

    def _hand_over(self) -> None:
        if self._received is not None and not self._is_over:
            self._is_over = True
            number, _ = self._received
            self._previous[number](number, None)

    def add(self, work: Work) -> None:
        self._works.append(work)
        if self._received is not None:
            # It came when the others had begun, who do not wait for it.
            self._tasks.add(asyncio.ensure_future(work()))

    def remove(self, work: Work) -> None:
        """It is not to be done any more. The last one puts the handlers back that were there."""
        self._works.remove(work)
        if self._works:
            return
        for number, handler in self._previous.items():
            # Whoever has put another in our place calls us, or not: that is theirs.
            if signal.getsignal(number) is self:
                signal.signal(number, handler)
        self._hand_over()


def before_stop(work: Work) -> Callable[[], None]:
    """Have ``work`` done when the process is told to stop, before the handlers that are installed now hear of it.

    Returns what takes that back. Nothing is changed where it could not help: in a thread, where Python lets nobody
    handle signals, and where SIGTERM ends the process because no server handles it.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread() or not callable(signal.getsignal(signal.SIGTERM)):
        return _nothing
    found = {number: signal.getsignal(number) for name in NAMES if (number := getattr(signal, name, None)) is not None}
    # Of another app. Somebody may have put a handler of their own before it, but hardly for each of the signals.
    ours = (each for each in found.values() if isinstance(each, StopSignals) and each.loop is loop)
    handler = next(ours, None)
    if handler is None:
        previous = {n: each for n, each in found.items() if callable(each) and each is not signal.default_int_handler}
        handler = StopSignals(loop, previous)
        for number in previous:
            signal.signal(number, handler)
    handler.add(work)
    return lambda: handler.remove(work)


def _nothing() -> None:
    return None
