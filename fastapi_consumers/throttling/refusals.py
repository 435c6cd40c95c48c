"""What throttles have refused to one client, so that one who does not listen is known."""

import time

#: Seconds in which all refusals are forgotten.
WINDOW = 60.0


class Refusals:
    """A bucket of refusals that fills evenly, as those of the throttles do.

    Args:
        limit: how many there may be within the window; with more it is a flood. What passes in between does not help:
            many connections share a rate, and each gets something through now and then.
    """

    __slots__ = ("_each", "_forgotten")

    def __init__(self, limit: int) -> None:
        self._each = WINDOW / limit
        #: When all of them are forgotten, on the monotonic clock.
        self._forgotten = 0.0

    def add(self) -> None:
        self._forgotten = max(self._forgotten, time.monotonic()) + self._each

    @property
    def is_flood(self) -> bool:
        return self._forgotten > 0 and self._forgotten > time.monotonic() + WINDOW
