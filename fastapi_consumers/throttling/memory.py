"""Token buckets in the memory of one process."""

import math
import time
from collections.abc import Callable, Hashable, Iterable

from .rates import Rate, is_too_much

#: Seconds by which a request may come early. The times are floats, and adding up the tokens of a bucket rounds each
#: time: without it the last token, or a client that waits for exactly what it was told, could be refused.
SLACK = 0.001


class TokenBuckets:
    """Token buckets of one process, in memory. For one thread: the event loop's.

    A bucket is one float, the time at which it will be full again (GCRA: ITU-T I.371, annex A), so a full one holds
    nothing that is worth keeping. Full buckets are dropped whenever their number has doubled since the last time.

    ``max_keys`` bounds the buckets, of which there is one for each key and rate. Where dropping the full ones leaves
    more than three quarters of that, those that would be full the soonest are dropped too, the oldest of equal ones
    first, so that each sweep makes room for many: these clients get their tokens back early, nobody else notices.

    Args:
        clock: the time in seconds; only differences matter.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_keys: int = 100_000) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys is {max_keys}; expected at least 1.")
        self._clock = clock
        self._max_keys = max_keys
        self._sweep_at = min(1024, max_keys)
        self._full_at: dict[Hashable, float] = {}

    def __len__(self) -> int:
        """How many buckets are in memory."""
        return len(self._full_at)

    @property
    def local(self) -> "TokenBuckets":
        """Where to count what concerns this process alone: here."""
        return self

    def hit(self, key: Hashable, rates: tuple[Rate, ...], cost: float = 1) -> float:
        """Take ``cost`` tokens under ``key``: 0.0 when all ``rates`` allow it, else the seconds until they do.

        ``inf`` if a full bucket of one of the rates does not hold as many.
        """
        now = self._clock()
        if cost != 1 or len(rates) != 1:
            return self._hit_all((key,), rates, cost, now)
        # The same as _hit_all, without its lists: this is on the path of every message.
        count, seconds = rates[0]
        interval = seconds / count
        full_at = self._full_at.get(key)
        if full_at is None:
            self._add(key, now + interval, now)
            return 0.0
        full_at = (full_at if full_at > now else now) + interval
        wait = full_at - now - seconds
        if wait > 0.0 and (wait > SLACK or wait > interval / 2):
            return wait if wait <= interval else self._emptied(key, interval, now + seconds)
        self._full_at[key] = full_at
        return 0.0

    def peek(self, key: Hashable, rates: tuple[Rate, ...], cost: float = 1) -> float:
        """What ``hit`` would answer. Takes nothing."""
        return self._hit_all((key,), rates, cost, self._clock(), takes=False)

    def hit_each(self, scope: Hashable, idents: Iterable[Hashable], rates: tuple[Rate, ...], cost: float = 1) -> float:
        """Take ``cost`` tokens of each of ``idents``, which differ, or of none: 0.0, else the longest wait."""
        return self._hit_all([(scope, ident) for ident in idents], rates, cost, self._clock())

    def forget(self, key: Hashable, rates: tuple[Rate, ...]) -> bool:
        """Have the buckets under ``key`` full again. Whether one of them was not."""
        buckets = [key] if len(rates) == 1 else [(key, index) for index in range(len(rates))]
        now = self._clock()
        return max(self._full_at.pop(bucket, now) for bucket in buckets) > now

    def _hit_all(
        self, keys: Iterable[Hashable], rates: tuple[Rate, ...], cost: float, now: float, *, takes: bool = True
    ) -> float:
        if is_too_much(cost, rates):
            return math.inf
        longest = 0.0
        updates = []
        for key in keys:
            for index, (count, seconds) in enumerate(rates):
                bucket = key if len(rates) == 1 else (key, index)
                interval = seconds / count
                needed = interval * cost
                full_at = max(self._full_at.get(bucket, now), now) + needed
                wait = full_at - now - seconds
                if wait > 0.0 and (wait > SLACK or wait > interval / 2):
                    longest = max(longest, wait if wait <= needed else self._emptied(bucket, needed, now + seconds))
                updates.append((bucket, full_at))
        if takes and not longest:
            for bucket, full_at in updates:
                self._add(bucket, full_at, now)
        return longest

    def _emptied(self, bucket: Hashable, needed: float, full_at: float) -> float:
        # Emptier than empty: it was counted at a slower rate before, or the clock was set back. The wait is for what
        # is asked for now, and must not be for what the other rate would have had it wait.
        self._full_at[bucket] = full_at
        return needed

    def _add(self, bucket: Hashable, full_at: float, now: float) -> None:
        if len(self._full_at) >= self._sweep_at and bucket not in self._full_at:
            self._sweep(now)
        self._full_at[bucket] = full_at

    def _sweep(self, now: float) -> None:
        buckets = {bucket: full_at for bucket, full_at in self._full_at.items() if full_at > now}
        excess = len(buckets) - self._max_keys * 3 // 4
        if excess > 0:
            for bucket in sorted(buckets, key=buckets.__getitem__)[:excess]:
                del buckets[bucket]
        self._full_at = buckets
        self._sweep_at = min(max(1024, 2 * len(buckets)), self._max_keys)
