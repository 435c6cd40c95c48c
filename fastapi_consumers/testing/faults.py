"""A transport that goes wrong when a test says so."""

import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from enum import Enum
from typing import Any

from ..exceptions import BrokerUnavailable
from ..transports import Deliver, Transport

logger = logging.getLogger(__name__)


class Fate(Enum):
    """What becomes of a packet that arrives."""

    DROP = "dropped"
    DUPLICATE = "duplicated"
    DELAY = "delayed"
    REORDER = "reordered"


class _State(Enum):
    ALIVE = "alive"
    DEAD = "dead"
    #: Packets arrive again, and wait until it has been told which ones were lost.
    REVIVING = "reviving"


class _Order:
    """The next ``count`` times, ``fate``; of packets of ``topic`` only, if it is given."""

    def __init__(self, fate: Fate, count: int, topic: str | None) -> None:
        self.fate, self.count, self.topic = fate, count, topic


class FaultyTransport(Transport):
    """Another transport, between which and the application packets get lost, come twice, late or in the wrong order.

    ::

        transport = FaultyTransport(MemoryTransport())
        add_consumers(app, channel_routes, transport=transport)
        transport.drop(topic="group:chat.lobby")        # the next packet of this group

    Faults come on command, and at random with the given probabilities, each between 0 and 1, drawn in the order in
    which packets arrive: the same seed and the same packets meet the same faults. Commands come first. Nothing sleeps:
    what is late comes when :meth:`release` says so. The topic of a group is ``group:<its name>``, that of a user
    ``user:<its id>``.

    Faults concern what arrives at this process, since that is where processes come to differ. ``counters`` counts them.

    Args:
        inner: what carries the packets. Without faults, everything is as it does it.
        seed: of the faults at random.
        drop: how likely a packet that arrives gets lost.
        duplicate: how likely it comes twice.
        delay: how likely it is held back until :meth:`release`.
        reorder: how likely it changes places with the one that follows.
        refuse: how likely a publish is refused.
    """

    def __init__(
        self,
        inner: Transport,
        *,
        seed: int = 0,
        drop: float = 0.0,
        duplicate: float = 0.0,
        delay: float = 0.0,
        reorder: float = 0.0,
        refuse: float = 0.0,
    ) -> None:
        self.inner = inner
        self.is_distributed = inner.is_distributed
        #: Set by whoever opens it: awaited with the topics whose packets may have been lost; called when that begins.
        self.on_gap: Callable[[Collection[str]], Awaitable[None]] | None = None
        self.on_lost: Callable[[], None] | None = None
        self._rates = {Fate.DROP: drop, Fate.DUPLICATE: duplicate, Fate.DELAY: delay, Fate.REORDER: reorder}
        self._refuse_rate = refuse
        if min(*self._rates.values(), refuse) < 0 or sum(self._rates.values()) > 1 or refuse > 1:
            raise ValueError(
                f"probabilities lie between 0 and 1, those of drop, duplicate, delay and reorder together too; found "
                f"drop={drop}, duplicate={duplicate}, delay={delay}, reorder={reorder}, refuse={refuse}"
            )
        # Apart, so that what is published does not change what becomes of arrivals.
        self._arrivals_random, self._publishes_random = random.Random(seed), random.Random(seed)
        self._counters: Counter[str] = Counter()
        self._orders: list[_Order] = []
        #: Publishes that are to be refused: whether each is carried out all the same. Subscribes that are.
        self._refused_publishes: deque[bool] = deque()
        self._refused_subscribes = 0
        self._deliver: Deliver | None = None
        self._begin()

    def _begin(self) -> None:
        self._state = _State.ALIVE
        self._topics: set[str] = set()
        self._gap: set[str] = set()
        #: Held back until ``release``; until another packet of its topic has come; until it has been told of the gap.
        self._late: list[tuple[str, bytes]] = []
        self._overtaken: list[tuple[str, bytes]] = []
        self._queue: deque[tuple[str, bytes]] = deque()

    def __repr__(self) -> str:
        return f"FaultyTransport({self.inner!r}, {self._state.value})"

    # Commands

    def drop(self, count: int = 1, *, topic: str | None = None) -> None:
        """Lose the next packets that arrive."""
        self._orders.append(_Order(Fate.DROP, count, topic))

    def duplicate(self, count: int = 1, *, topic: str | None = None) -> None:
        """Deliver the next packets twice."""
        self._orders.append(_Order(Fate.DUPLICATE, count, topic))

    def delay(self, count: int = 1, *, topic: str | None = None) -> None:
        """Hold the next packets back until :meth:`release`; later ones overtake them."""
        self._orders.append(_Order(Fate.DELAY, count, topic))

    def reorder(self, count: int = 1, *, topic: str | None = None) -> None:
        """Deliver each of the next packets after the one of its topic that follows it."""
        self._orders.append(_Order(Fate.REORDER, count, topic))

    async def release(self, count: int | None = None, *, shuffled: bool = False) -> int:
        """Deliver what is held back, the oldest first, or ``shuffled`` by the seed; at most ``count`` packets.

        Returns how many were delivered.
        """
        held = self._late + self._overtaken
        if shuffled:
            self._arrivals_random.shuffle(held)
        released = held[:count]
        self._late, self._overtaken = held[len(released) :], []
        for number, (topic, packet) in enumerate(released):
            if self._state is not _State.ALIVE:  # It died while it delivered one of them.
                self._counters[Fate.DROP.value] += len(released) - number
                return number
            await self._hand_on(topic, packet)
        return len(released)

    @property
    def held_back(self) -> list[tuple[str, bytes]]:
        """Topics and packets that are delayed, the oldest first, then those that wait to be overtaken."""
        return self._late + self._overtaken

    def refuse_publishes(self, count: int = 1, *, carried_out: bool = False) -> None:
        """Let the next publishes raise ``BrokerUnavailable``; ``carried_out``: as if only the answer were lost."""
        self._refused_publishes.extend([carried_out] * count)

    def refuse_subscribes(self, count: int = 1) -> None:
        """Let the next subscribes raise ``BrokerUnavailable``."""
        self._refused_subscribes += count

    def calm(self) -> None:
        """No faults from now on, neither at random nor by commands that were given. What is held back stays so."""
        self._rates, self._refuse_rate = dict.fromkeys(self._rates, 0.0), 0.0
        self._orders.clear()
        self._refused_publishes.clear()
        self._refused_subscribes = 0

    def die(self) -> None:
        """Lose the connection: what arrives or is held back is lost, publishing and subscribing is refused."""
        if self._state is _State.DEAD:
            return
        was_alive, self._state = self._state is _State.ALIVE, _State.DEAD
        self._counters[Fate.DROP.value] += len(self._late) + len(self._overtaken) + len(self._queue)
        self._late, self._overtaken = [], []
        self._queue.clear()
        self._gap |= self._topics
        if was_alive:
            self._tell_of_loss()

    async def revive(self) -> None:
        """Have the connection again. ``on_gap`` is told of the topics concerned before anything else is delivered."""
        if self._state is not _State.DEAD:
            return
        self._state = _State.REVIVING
        topics, self._gap = sorted(self._gap & self._topics), set()
        await self._tell_of_gap(topics)
        while self._queue and self._state is _State.REVIVING:
            await self._arrive(*self._queue.popleft())
        if self._state is _State.REVIVING:
            self._state = _State.ALIVE

    # What it is to the application

    @property
    def is_healthy(self) -> bool:
        return self._state is _State.ALIVE and bool(getattr(self.inner, "is_healthy", True))

    @property
    def counters(self) -> Mapping[str, int]:
        """How many packets were delivered, dropped, duplicated, delayed, reordered, and how many calls refused."""
        return {name: self._counters[name] for name in ("delivered", *(fate.value for fate in Fate), "refused")}

    async def open(self, deliver: Deliver) -> None:
        self._begin()
        self._deliver = deliver
        inner: Any = self.inner
        inner.on_gap, inner.on_lost = self._tell_of_gap_of_inner, self._tell_of_loss_of_inner
        await self.inner.open(self._receive)

    async def open_for_publishing(self) -> None:
        self._begin()
        await self.inner.open_for_publishing()

    def check(self) -> None:
        self.inner.check()

    async def close(self) -> None:
        self._deliver = None
        self._begin()
        await self.inner.close()

    async def publish(self, topic: str, packet: bytes) -> None:
        if self._state is _State.DEAD:
            raise self._refusal()
        if self._refused_publishes:
            if self._refused_publishes.popleft():
                await self.inner.publish(topic, packet)
            raise self._refusal()
        if self._refuse_rate and self._publishes_random.random() < self._refuse_rate:
            raise self._refusal()
        await self.inner.publish(topic, packet)

    async def subscribe(self, topic: str) -> None:
        if self._state is _State.DEAD:
            raise self._refusal()
        if self._refused_subscribes:
            self._refused_subscribes -= 1
            raise self._refusal()
        self._topics.add(topic)  # Before, since packets may arrive before it returns.
        try:
            await self.inner.subscribe(topic)
        except BaseException:
            self._forget(topic)
            raise

    async def unsubscribe(self, topic: str) -> None:
        self._forget(topic)
        await self.inner.unsubscribe(topic)

    def _forget(self, topic: str) -> None:
        self._topics.discard(topic)
        self._gap.discard(topic)
        self._late = [item for item in self._late if item[0] != topic]
        self._overtaken = [item for item in self._overtaken if item[0] != topic]
        self._queue = deque(item for item in self._queue if item[0] != topic)

    def _refusal(self) -> BrokerUnavailable:
        self._counters["refused"] += 1
        return BrokerUnavailable()

    # Arrivals

    async def _receive(self, topic: str, packet: bytes) -> None:
        if self._state is _State.DEAD:
            self._counters[Fate.DROP.value] += 1
        elif self._state is _State.REVIVING:
            self._queue.append((topic, packet))
        else:
            await self._arrive(topic, packet)

    async def _arrive(self, topic: str, packet: bytes) -> None:
        fate = self._fate(topic)
        if fate is not None:
            self._counters[fate.value] += 1
        if fate is Fate.DELAY:
            self._late.append((topic, packet))
        elif fate is Fate.REORDER:
            self._overtaken.append((topic, packet))
        elif fate is not Fate.DROP:
            overtaken = [item for item in self._overtaken if item[0] == topic]
            self._overtaken = [item for item in self._overtaken if item[0] != topic]
            again = [(topic, packet)] if fate is Fate.DUPLICATE else []
            for item in [(topic, packet), *again, *overtaken]:
                await self._hand_on(*item)

    def _fate(self, topic: str) -> Fate | None:
        for order in self._orders:
            if order.topic in (None, topic):
                order.count -= 1
                if order.count <= 0:
                    self._orders.remove(order)
                return order.fate
        drawn = self._arrivals_random.random()
        for fate, rate in self._rates.items():
            if drawn < rate:
                return fate
            drawn -= rate
        return None

    async def _hand_on(self, topic: str, packet: bytes) -> None:
        if self._deliver is not None:
            self._counters["delivered"] += 1
            await self._deliver(topic, packet)

    # Losses

    def _tell_of_loss(self) -> None:
        if self.on_lost is not None:
            try:
                self.on_lost()
            except Exception:
                logger.exception("on_lost failed")

    async def _tell_of_gap(self, topics: Collection[str]) -> None:
        if topics and self.on_gap is not None:
            try:
                await self.on_gap(topics)
            except Exception:
                logger.exception("on_gap failed")

    def _tell_of_loss_of_inner(self) -> None:
        if self._state is _State.ALIVE:
            self._tell_of_loss()

    async def _tell_of_gap_of_inner(self, topics: Collection[str]) -> None:
        if self._state is _State.DEAD:
            return  # It is told of all its topics when it is alive again.
        await self._tell_of_gap([topic for topic in topics if topic in self._topics])
