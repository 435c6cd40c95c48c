"""Something that is to happen to a connection at a time: one timer for all of them."""

import asyncio
import heapq
import time
from collections.abc import Callable, Hashable
from itertools import count

#: Seconds after which the clock is looked at again, since one of the wall may be set meanwhile.
LONGEST_WAIT = 30.0
#: Entries of the heap that may be out of date, besides as many as are not.
STALE = 64


class Deadlines:
    """Calls a function for each owner whose time has come. An owner has one deadline; setting it again moves it.

    Args:
        clock: the time in seconds, on which the deadlines are. A test may put another one into ``clock``, and call
            :meth:`look` when it has turned it.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._due: dict[Hashable, tuple[int, Callable[[], object]]] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._numbers = count()
        #: Not every event loop has timers that say when.
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0

    def __len__(self) -> int:
        """How many deadlines there are."""
        return len(self._due)

    def set(self, owner: Hashable, when: float, call: Callable[[], object]) -> None:
        """Have ``call`` called at ``when``, unless it is moved or discarded before. It must not raise."""
        number = next(self._numbers)
        self._due[owner] = number, call
        heapq.heappush(self._heap, (when, number, owner))
        self._tidy()
        self._wait()

    def discard(self, owner: Hashable) -> None:
        """Forget the owner's deadline, if there is one."""
        if self._due.pop(owner, None) is not None:
            self._tidy()

    def close(self) -> None:
        """Forget all."""
        self._due.clear()
        self._heap.clear()
        self._stop()

    def look(self) -> None:
        """Call for all whose time has come."""
        now = self.clock()
        while self._heap and self._heap[0][0] <= now:
            _, number, owner = heapq.heappop(self._heap)
            if self._is_due(number, owner):
                _, call = self._due.pop(owner)
                call()
        self._stop()
        self._wait()

    def _is_due(self, number: int, owner: Hashable) -> bool:
        found = self._due.get(owner)
        return found is not None and found[0] == number

    def _tidy(self) -> None:
        """What was moved or discarded stays in the heap until it is on top, or until there is too much of it."""
        if len(self._heap) > 2 * len(self._due) + STALE:
            self._heap = [entry for entry in self._heap if self._is_due(entry[1], entry[2])]
            heapq.heapify(self._heap)

    def _wait(self) -> None:
        if not self._due:
            self._stop()
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + min(max(0.0, self._heap[0][0] - self.clock()), LONGEST_WAIT)
        if self._timer is None or self._timer_at > at:
            self._stop()
            self._timer, self._timer_at = loop.call_at(at, self.look), at

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
