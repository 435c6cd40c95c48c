"""Answers put together: what connections say in one turn of the event loop is written at its end. Owned by the turn.

A loop reads all sockets that are ready, and then runs those whom that woke. If each of them wrote its answer by itself,
a peer on the same machine, such as a proxy, would be woken for each one and go to sleep again before the next: on a
busy server that costs more than all else about a write. What one connection is sent in a turn becomes one write, too.
Where a single one is busy, nothing waits.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

#: Seconds between the answers of two connections that may belong to the same turn.
NEAR = 0.0001
#: Seconds that an answer may wait for the others of its turn, and connections that may wait.
MAX_WAIT, MAX_WAITING = 0.001, 64


class Gathered(Protocol):
    """What a connection is sent through."""

    def release(self) -> None:
        """Write what was put aside, if anything was. May not raise."""


class LoopTurn(Protocol):
    """A turn of the event loop, as those see it who are written to in it."""

    @property
    def is_due(self) -> bool:
        """Whether anything that was published waits for its end, for whomever."""

    @property
    def gathers(self) -> Callable[[Gathered, bool], bool]:
        """``takes``, of those whose answers wait for its end."""


class _NoTurn:
    is_due = False

    @staticmethod
    def gathers(_who: Gathered, _is_due: bool) -> bool:
        return False


NO_TURN: LoopTurn = _NoTurn()


class Gathering:
    """Those whose answers wait for the end of the turn."""

    __slots__ = ("_began", "_last", "_last_at", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Gathered] = []
        self._began = 0.0
        #: Who answered last, by its ``id`` so that nobody is kept alive, and when, on the clock of ``perf_counter``.
        self._last = 0
        self._last_at = 0.0

    def takes(self, who: Gathered, is_due: bool) -> bool:
        """Whether an answer is to be put aside; then ``who`` is told to write it when the turn ends.

        Args:
            is_due: something else waits for the end of the turn, so that it comes at once.
        """
        if not (self._waiting or is_due):
            now, last, at = perf_counter(), self._last, self._last_at
            self._last, self._last_at = id(who), now
            if last == id(who) or now - at > NEAR:
                return False
        return self.put(who)

    def put(self, who: Gathered) -> bool:
        """Have ``who`` write with the others.

        Returns:
            ``False`` if it is not to wait: the others were too many or have waited too long, and have just written.
        """
        waiting, now = self._waiting, perf_counter()
        if not waiting:
            self._began = now
            asyncio.get_running_loop().call_soon(self.release)
        elif now - self._began > MAX_WAIT or len(waiting) == MAX_WAITING:
            self.release()
            return False
        waiting.append(who)
        return True

    def release(self) -> None:
        """Have all of them write."""
        waiting = self._waiting
        if waiting:
            self._waiting = []
            for who in waiting:
                try:
                    who.release()
                except Exception as error:
                    context = {"message": "writing to a WebSocket failed", "exception": error}
                    asyncio.get_running_loop().call_exception_handler(context)
            # They were one turn, however long writing took.
            self._last, self._last_at = id(waiting[-1]), perf_counter()
