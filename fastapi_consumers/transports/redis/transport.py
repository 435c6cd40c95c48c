"""Redis or Valkey as transport: publish and subscribe.

A process has one connection that is subscribed to all of its topics, whatever number of members they have; in a
cluster, where publishing is sharded, one to each node that serves some of them. It publishes over the shared client's
pools. Beside the tasks of :mod:`.link` there are at most two, none per message:

- the deliverer hands on what has arrived. It is apart from the readers so that a delivery may subscribe;
- the watcher, behind Sentinel and in a cluster, asks who serves what when something went wrong, and now and then;
  topics are then given to the connection to whoever serves them.
"""

import asyncio
import logging
import random
import time
from itertools import count

from ...exceptions import BrokerUnavailable
from ...redis_client import FAILURES, Node, RedisClient
from ..arrivals import Arrivals
from ..base import Deliver
from ..broker import BrokerTransport, Packet, end, pause_before
from .link import Link
from .subscription import Gap, Subscription

logger = logging.getLogger(__name__)

#: Seconds after which it is asked who serves what although nothing seems wrong: a server may have lost its office
#: without a word, for example when it is cut off from the others.
WATCH_INTERVAL = 10.0
#: Seconds for which others than the node that serves a topic have to say that it does not.
DOUBT = 2.0


class RedisTransport(BrokerTransport[Gap]):
    """Carries packets over Redis or Valkey, to which all processes connect: one server, Sentinel, or a cluster.

    At most once: what is published while a process has lost its connection does not reach that process. ``on_gap`` is
    told of it. A publish that raises may still have been carried out.

    Args:
        url: see :mod:`fastapi_consumers.redis_client.urls`; or a client that is shared with others.
        prefix: what channels' names begin with, so that several apps can share a server; by default the URL's.
        broker_timeout: seconds that publishing, subscribing and connecting may take. A client that is shared has its
            own for publishing.
    """

    counts_subscribers = True

    def __init__(self, url: str | RedisClient, *, prefix: str | None = None, broker_timeout: float = 1.0) -> None:
        super().__init__()
        self.client = url if isinstance(url, RedisClient) else RedisClient(url, timeout=broker_timeout)
        self._prefix = prefix if prefix is not None else self.client.prefix
        self._timeout = broker_timeout
        self._begin()

    def __repr__(self) -> str:
        return f"RedisTransport({self.client.url!r})"

    def _begin(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Nothing is subscribed, nothing waits."""
        self._loop = loop
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._links: dict[Node, Link] = {}
        #: Links that have nothing to receive any more, while they are closed.
        self._closing: set[asyncio.Task[None]] = set()
        #: What is wanted, by topic.
        self._topics: dict[str, Subscription] = {}
        #: Subscribed first of all, which shows at startup whether it is allowed; nothing else is sent there.
        self._wake: Subscription | None = None
        #: Who else is said to serve what a node serves, and since when.
        self._doubts: dict[Subscription, tuple[Node, float]] = {}
        self._needs_watch = asyncio.Event()
        self._is_troubled = False
        #: What the links share: see `Owner`.
        self.missed: set[Subscription] = set()
        # A delivery may subscribe, and the confirmation comes behind the packets that are to be delivered.
        self.arrivals: Arrivals[Packet | Gap] = Arrivals(
            lambda: any(link.awaits_confirmation for link in self._links.values())
        )

    @property
    def is_healthy(self) -> bool:
        """Whether it is connected and everything is subscribed, as far as is known."""
        return bool(self._tasks) and not self.missed and not any(link.is_lost for link in self._links.values())

    async def open(self, deliver: Deliver) -> None:
        """Connect, once. Raises ``ImproperlyConfigured`` if the server refuses us or is of another kind than the URL
        says, ``BrokerUnavailable`` if it does not answer; the notes of the latter tell what was tried.
        """
        await self.open_for_publishing()
        wake = Subscription("", self._channel("!"))
        wake.is_wanted = False  # Nothing of it is delivered.
        link = self._link_to(self.client.node_of(wake.channel))
        link.add(wake)
        try:
            made = await link.connect()
        except FAILURES as error:
            raise self.client.startup_error(error) from error
        self._wake = wake
        delivering = self._deliver_all(self.arrivals, deliver)
        tasks = [asyncio.create_task(delivering, name="fastapi_consumers: Redis deliveries")]
        if self.client.can_move:
            tasks.append(asyncio.create_task(self._watch(), name="fastapi_consumers: Redis watcher"))
            self.client.listeners.append(self._assign_all)
        self._tasks = tuple(tasks)
        link.start(made)

    async def open_for_publishing(self) -> None:
        """Without a connection of its own: publishing takes those of the client. Raises as ``open`` does."""
        await self.close()
        self._begin(asyncio.get_running_loop())
        await self.client.open()
        await self.client.check(self._channel("!"))

    async def close(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            return  # Never opened, or in an event loop that took everything with it.
        tasks, links, closing, waiting = self._tasks, self._links, self._closing, tuple(self._topics.values())
        if self._assign_all in self.client.listeners:
            self.client.listeners.remove(self._assign_all)
        self._begin()
        try:
            await end(*tasks)
            await asyncio.gather(*[link.close() for link in links.values()], *closing)
        finally:
            for subscription in waiting:
                subscription.fail(BrokerUnavailable())
            await self.client.close()

    async def publish(self, topic: str, packet: bytes) -> None:
        verb = "SPUBLISH" if self.client.is_sharded else "PUBLISH"
        await self.client.execute(verb, self._channel(topic), packet)
        self.packets_out += 1

    async def subscribe(self, topic: str) -> None:
        if not self._tasks:
            raise BrokerUnavailable
        subscription = self._topics.get(topic)
        if subscription is None:
            subscription = self._topics[topic] = Subscription(topic, self._channel(topic))
            self._assign(subscription)
        try:
            # Not wait_for: that would cancel the future for others.
            await asyncio.wait((subscription.confirmed,), timeout=self._timeout)
            if not subscription.confirmed.done():
                raise BrokerUnavailable
            subscription.confirmed.result()
        except BaseException:
            self._withdraw(subscription)
            raise

    async def unsubscribe(self, topic: str) -> None:
        # Not awaited: nothing of it is delivered from now on, whenever the server hears of it.
        subscription = self._topics.get(topic)
        if subscription is not None:
            self._withdraw(subscription)

    async def count_subscribers(self, topic: str) -> int | None:
        channel = self._channel(topic)
        kind = "SHARDNUMSUB" if self.client.is_sharded else "NUMSUB"
        found = await self.client.execute("PUBSUB", kind, channel, key=channel)
        return int(found[1])

    def channel_of(self, topic: str) -> bytes | None:
        # A script runs where its keys are, and in a cluster it cannot publish to another slot.
        return None if self.client.is_sharded else self._channel(topic)

    def _channel(self, topic: str) -> bytes:
        return f"{self._prefix}{topic}".encode()

    def _withdraw(self, subscription: Subscription) -> None:
        subscription.is_wanted = False
        if self._topics.get(subscription.topic) is subscription:
            del self._topics[subscription.topic]
            self.missed.discard(subscription)
            self._doubts.pop(subscription, None)
            if subscription.link is not None:
                subscription.link.remove(subscription)

    # Who serves what

    def _link_to(self, node: Node) -> Link:
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = Link(node, self.client, self._timeout, self)
        return link

    def _assign(self, subscription: Subscription) -> None:
        """Have it received by the link to whoever serves it; by whichever had it as long as that is nobody."""
        try:
            node = self.client.node_of(subscription.channel)
        except BrokerUnavailable:
            self._needs_watch.set()
            return
        is_new, current = node not in self._links, subscription.link
        if self._is_doubtful(subscription, node):
            return
        link = self._link_to(node)
        if current is not link:
            if current is not None:
                current.remove(subscription)
            if subscription.was_confirmed:
                self.missed.add(subscription)
            link.add(subscription)
        if is_new:
            link.start()

    def _is_doubtful(self, subscription: Subscription, node: Node) -> bool:
        """Whether to wait before it is taken from the node that has it.

        While a slot moves, the nodes of a cluster do not agree. The one that gives it away says so itself; what others
        say counts only if they go on saying it.
        """
        current = subscription.link
        if not self.client.is_sharded or current is None or current.is_lost or current.node == node:
            self._doubts.pop(subscription, None)
            return False
        said, since = self._doubts.get(subscription, (None, 0.0))
        now = time.monotonic()
        if said != node:
            self._doubts[subscription] = node, now
            return True
        return now - since < DOUBT

    def _assign_all(self) -> None:
        if self._wake is None:
            return
        for subscription in (self._wake, *self._topics.values()):
            self._assign(subscription)
        for node, link in tuple(self._links.items()):
            if not link.wanted:
                del self._links[node]
                task = asyncio.create_task(link.close(), name="fastapi_consumers: a Redis connection is closed")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self._note_trouble_or_its_end()

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(WATCH_INTERVAL * (0.5 + random.random() / 2)):
                    await self._needs_watch.wait()
            except TimeoutError:
                pass
            for attempt in count():
                self._needs_watch.clear()
                try:
                    await self.client.refresh()
                except FAILURES as error:
                    logger.info("nobody tells who serves what of %s: %s", self.client.url, error)
                if self.is_healthy and not self._needs_watch.is_set():
                    break
                await asyncio.sleep(pause_before(attempt))

    # What links tell

    def link_lost(self, error: Exception) -> None:
        """A connection on which topics are received is lost, and is being made anew."""
        self.lost_connections += 1
        self._needs_watch.set()
        self._note_trouble_or_its_end()

    def link_failed(self) -> None:
        """It could not be made, and is tried again."""
        self._needs_watch.set()
        self._note_trouble_or_its_end()

    def link_found(self, *, is_another: bool) -> None:
        """Everything is subscribed. ``is_another``: over a connection in place of one that was lost."""
        self.reconnects += is_another
        self._note_trouble_or_its_end()

    def displaced(self, subscription: Subscription) -> None:
        """A node does not serve this topic, or not any more."""
        self._needs_watch.set()
        self._note_trouble_or_its_end()

    def _note_trouble_or_its_end(self) -> None:
        was_troubled, self._is_troubled = self._is_troubled, not self.is_healthy
        if self._is_troubled and not was_troubled:
            self._call_on_lost()

    async def _tell_of_gap(self, gap: Gap) -> None:
        self._note_trouble_or_its_end()
        topics = [each.topic for each in gap.subscriptions if each.is_wanted]
        if topics:
            await self._call_on_gap(topics)
