"""Token buckets in Redis or Valkey, for all processes that have the same server.

A key per identity holds the times at which its buckets will be full again, one for each window, and expires then. One
script reads, decides and writes, so that a request which one window refuses is counted by none, in one round trip; and
one that counts for several identities is counted for all of them or none. It goes by the server's clock: no two
machines need to agree. The rules are those of :class:`.memory.TokenBuckets`.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, Literal, get_args

from ..exceptions import BrokerUnavailable
from ..redis_client import RedisClient
from ..texts import gettext_lazy as _
from .memory import SLACK, TokenBuckets
from .rates import Rate, is_too_much

logger = logging.getLogger(__name__)

#: What happens to requests while the server is away. ``memory``: each process counts by itself; ``open``: they pass;
#: ``closed``: they are refused.
FailureMode = Literal["memory", "open", "closed"]
FAILURE_MODES: tuple[str, ...] = get_args(FailureMode)

#: Seconds that a request waits for the server at most.
TIMEOUT = 0.5
#: Seconds after a failure until one request asks the server again; the others do not wait for it.
PAUSE = 1.0

#: ARGV: now or "", cost, slack, milliseconds to add to the expiry, 1 to take or 0 to ask; counts and seconds.
_HIT = """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end
local cost, slack = tonumber(ARGV[2]), tonumber(ARGV[3])
local longest, found = 0, {}
for k, key in ipairs(KEYS) do
  local fulls, updates, changed = {}, {}, false
  for text in string.gmatch(redis.call('GET', key) or '', '%S+') do
    fulls[#fulls + 1] = tonumber(text)
  end
  for i = 6, #ARGV, 2 do
    local index, count, seconds = #updates + 1, tonumber(ARGV[i]), tonumber(ARGV[i + 1])
    local interval = seconds / count
    local needed = interval * cost
    local full = math.max(fulls[index] or now, now) + needed
    local wait = full - now - seconds
    if wait > 0 and (wait > slack or wait > interval / 2) then
      if wait > needed then
        wait, fulls[index], changed = needed, now + seconds, true
      end
      longest = math.max(longest, wait)
    end
    updates[index] = full
  end
  found[k] = {fulls, updates, changed}
end
for k, key in ipairs(KEYS) do
  local fulls, updates, changed = unpack(found[k])
  if longest == 0 and ARGV[5] == '1' then
    for index, full in ipairs(updates) do fulls[index] = full end
    changed = true
  end
  if changed then
    local last, texts = now, {}
    for index, full in ipairs(fulls) do
      last = math.max(last, full)
      texts[index] = string.format('%.6f', full)
    end
    local expires = math.ceil((last - now) * 1000) + tonumber(ARGV[4])
    if expires > 0 then
      redis.call('SET', key, table.concat(texts, ' '), 'PX', string.format('%.0f', expires))
    end
  end
end
return string.format('%.6f', longest)
"""


class RedisBuckets:
    """Token buckets that many processes share. For one event loop at a time, between :meth:`open` and :meth:`close`.

    Args:
        client: opened and closed with it; it may have other users.
        failure: see :data:`FailureMode`.
        timeout: seconds that a request waits for the server at most; then it counts as away.
        clock: in place of the server's, for tests. Keys then outlive what their buckets need.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        failure: FailureMode = "memory",
        timeout: float = TIMEOUT,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.client = client
        self.failure = failure
        self.timeout = min(timeout, client.timeout)
        #: Where to count what concerns this process alone, and everything while the server is away.
        self.local = TokenBuckets() if clock is None else TokenBuckets(clock)
        #: ``outages``: how often the server went away; ``failures``: requests that were decided without it.
        self.counters: Counter[str] = Counter(outages=0, failures=0)
        self._clock = clock
        #: When to ask a server again that is away.
        self._ask_at: float | None = None

    def __repr__(self) -> str:
        return f"RedisBuckets({self.client!r}, failure={self.failure!r})"

    async def open(self) -> None:
        """Begin to use the client; connects nothing yet."""
        await self.client.open()

    async def close(self) -> None:
        """End the use of the client."""
        await self.client.close()

    async def hit(self, key: Hashable, rates: tuple[Rate, ...], cost: float = 1) -> float:
        """Take ``cost`` tokens under ``key``: 0.0 when all ``rates`` allow it, else the seconds until they do.

        Raises ``BrokerUnavailable`` with the code ``limiter_unavailable`` if the server is away and ``failure`` is
        ``closed``, and ``TypeError`` for a key that no other process would know.
        """
        names = [self._name(key, several=len(rates) > 1)]
        return await self._ask(names, rates, cost, lambda: self.local.hit(key, rates, cost))

    async def peek(self, key: Hashable, rates: tuple[Rate, ...], cost: float = 1) -> float:
        """What :meth:`hit` would answer. Takes nothing, and raises as that does."""
        names = [self._name(key, several=len(rates) > 1)]
        return await self._ask(names, rates, cost, lambda: self.local.peek(key, rates, cost), takes=False)

    async def hit_each(
        self, scope: Hashable, idents: Iterable[Hashable], rates: tuple[Rate, ...], cost: float = 1
    ) -> float:
        """Take ``cost`` tokens of each of ``idents``, which differ, or of none: 0.0, else the longest wait of them.

        Raises as :meth:`hit` does. Not the buckets that ``hit`` takes from: a cluster has all of a scope in one place.
        """
        found, several = list(idents), len(rates) > 1
        tag = f"{{{_digest(_text_of(scope))}}}:"
        names = [self._name((scope, ident), several=several, tag=tag) for ident in found]
        return await self._ask(names, rates, cost, lambda: self.local.hit_each(scope, found, rates, cost))

    async def _ask(
        self, names: Sequence[str], rates: tuple[Rate, ...], cost: float, here: Callable[[], float], takes: bool = True
    ) -> float:
        """Ask the server, or whoever decides without it; ``here`` counts in this process."""
        if is_too_much(cost, rates):
            return math.inf
        if not rates or not names:
            return 0.0
        if self._ask_at is None or self._is_time_to_ask():
            now, spare = ("", 0) if self._clock is None else (f"{self._clock():.6f}", 3_600_000)
            windows = [number for rate in rates for number in rate]
            try:
                async with asyncio.timeout(self.timeout):
                    wait = await self.client.run_script(_HIT, names, [now, cost, SLACK, spare, int(takes), *windows])
            except (BrokerUnavailable, TimeoutError) as error:
                self._lost(error)
            else:
                if self._ask_at is not None:
                    self._ask_at = None
                    logger.warning("rate limits are counted at %s again", self.client.url)
                return float(wait)
        self.counters["failures"] += 1
        if self.failure == "memory":
            return here()
        if self.failure == "open":
            return 0.0
        raise BrokerUnavailable(_("Rate limits cannot be checked at the moment."), code="limiter_unavailable")

    async def forget(self, key: Hashable, rates: tuple[Rate, ...]) -> bool:
        """Have the buckets under ``key`` full again, here too. Whether one of them was not.

        Raises ``BrokerUnavailable`` while the server is away, and ``TypeError`` as :meth:`hit` does.
        """
        was_local = self.local.forget(key, rates)
        removed = await self.client.execute("DEL", self._name(key, several=len(rates) > 1))
        return was_local or bool(removed)

    def _is_time_to_ask(self) -> bool:
        assert self._ask_at is not None
        now = time.monotonic()
        if now < self._ask_at:
            return False
        self._ask_at = now + PAUSE
        return True

    def _lost(self, error: BaseException) -> None:
        if self._ask_at is None:
            self.counters["outages"] += 1
            found = error.__cause__ or error
            logger.warning(
                "rate limits cannot be counted at %s (%s); until they can, throttle_failure=%r",
                self.client.url,
                str(found) or type(found).__name__,
                self.failure,
            )
        self._ask_at = time.monotonic() + PAUSE

    def _name(self, key: Hashable, *, several: bool, tag: str = "") -> str:
        # A digest: identities are of any length and content, and are nobody's business who lists the keys.
        return f"{self.client.prefix}limit:{tag}{_digest(_text_of(key) + ('+' if several else ''))}"


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _text_of(key: Any) -> str:
    """The same text in every process for equal keys, and another one for others."""
    kind: Any = type(key)
    if kind is tuple:
        return f"({','.join(map(_text_of, key))})"
    if kind.__repr__ is not object.__repr__:
        return repr(key)
    if kind.__str__ is not object.__str__:
        return f"{kind.__qualname__}:{str(key)!r}"
    raise TypeError(
        f"requests cannot be counted together by {key!r}: no other process would know it. Return text or a number from "
        "get_ident(), or set local = True."
    )
