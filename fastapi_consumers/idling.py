"""Clients that say nothing: a deadline that is moved only when it has come, whatever the client has sent meanwhile."""

from collections.abc import Callable

from .deadlines import Deadlines
from .types import Message, Receive


class Idle:
    """Sees what a connection receives, and has it closed when nothing came for long.

    It stands before ``receive`` only where a timeout is set, and takes a look at the clock for each message. Pings and
    pongs are the server's, and do not count: an application does not see them.

    Args:
        timeout: seconds.
        is_busy: whether the client may be waiting for an answer; then the time begins anew.
        close: called once when the time is over.
    """

    __slots__ = ("_close", "_deadlines", "_is_busy", "_last", "_receive", "_timeout")

    def __init__(
        self,
        receive: Receive,
        deadlines: Deadlines,
        timeout: float,
        is_busy: Callable[[], bool],
        close: Callable[[], object],
    ) -> None:
        self._receive = receive
        self._deadlines = deadlines
        self._timeout = timeout
        self._is_busy = is_busy
        self._close = close
        self._last = 0.0

    async def receive(self) -> Message:
        message = await self._receive()
        self._last = self._deadlines.clock()
        return message

    def start(self) -> None:
        """The socket is open."""
        self._last = self._deadlines.clock()
        self._wait()

    def stop(self) -> None:
        """The socket is closed. Nobody is called any more, nor kept alive by this."""
        self._deadlines.discard(self)
        self._is_busy = self._close = _nothing

    def _wait(self) -> None:
        self._deadlines.set(self, self._last + self._timeout, self._look)

    def _look(self) -> None:
        now = self._deadlines.clock()
        if self._is_busy():
            self._last = now
        if now < self._last + self._timeout:
            self._wait()
        else:
            self._close()


def _nothing() -> bool:
    return True
