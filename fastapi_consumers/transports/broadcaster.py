"""A ``broadcaster.Broadcast`` as transport: PostgreSQL, and whatever else broadcaster has a backend for.

Two tasks, and one for each topic. The supervisor holds the connection (a :class:`Link`), and makes a new one when it is
lost, with everything subscribed again. The deliverer hands on what has arrived, one after another, from a bounded
queue. It is apart so that a delivery may subscribe. Nothing makes the backend wait while that queue is full, so what
comes then is dropped, and the topic's members are told of a gap.
"""

import asyncio
import base64
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from broadcaster import Broadcast

from ..exceptions import BrokerUnavailable, ImproperlyConfigured, MessageTooBig, Problem
from ..texts import gettext_lazy as _
from .arrivals import Arrivals
from .base import Deliver
from .broadcaster_link import Disconnected, Link, Subscription, backend_of, listener_of, traits_of
from .broker import BrokerTransport, Packet, end, pause_before
from .channel_names import channel_name

logger = logging.getLogger(__name__)

#: Packets and bytes that may wait to be delivered. Beyond either, what comes is dropped.
MAX_PACKETS, MAX_BYTES = 4096, 32 << 20
#: Backends that are not used: with one, a lone subscriber hears nothing, and the other's streams grow for ever.
_REDIS = {"RedisBackend", "RedisStreamBackend"}


class _Gap:
    """Stands in the queue where packets are missing. What comes behind it waits until the loss can be told of."""

    __slots__ = ("begins_loss", "may_be_told", "topics")

    def __init__(self, topics: set[str], *, begins_loss: bool = False) -> None:
        self.topics = topics
        #: Whether ``on_lost`` comes after it: told the other way round, the gap would look like the end of the loss.
        self.begins_loss = begins_loss
        self.may_be_told = asyncio.Event()


class BroadcasterTransport(BrokerTransport[_Gap]):
    """Carries packets over a backend of ``broadcaster``, as text, in base64, since not every backend takes bytes.

    At most once: what is published while the connection is lost does not reach this process. ``on_gap`` is told of it
    once everything is subscribed again, and of packets that had to be dropped; where the ``Broadcast`` is yours to
    connect, at the loss too. A publish that raises may still have been carried out. PostgreSQL carries packets of up to
    5997 bytes; ``MessageTooBig`` is raised for larger ones.

    Args:
        broadcast: a ``Broadcast`` for this app alone, or a function that makes one for each connection. One that you
            have connected is yours to disconnect, and to connect again when its connection is lost.
        prefix: what channels' names begin with, so that several apps can share a server.
        broker_timeout: seconds that publishing, subscribing and connecting may take.
        name: what it is called in logs and errors.

    Raises ``ImproperlyConfigured`` with the code ``broadcast-redis`` for broadcaster's Redis backends.
    """

    def __init__(
        self,
        broadcast: Broadcast | Callable[[], Broadcast],
        *,
        prefix: str = "fc:",
        broker_timeout: float = 1.0,
        name: str = "the Broadcast",
    ) -> None:
        super().__init__()
        self._make = broadcast if not isinstance(broadcast, Broadcast) else None
        self._broadcast = broadcast if isinstance(broadcast, Broadcast) else broadcast()
        if type(backend_of(self._broadcast)).__name__ in _REDIS:
            raise ImproperlyConfigured("The Broadcast", [_REDIS_PROBLEM])
        self._max_message = traits_of(self._broadcast).max_message
        self.max_packet = self._max_message // 4 * 3 if self._max_message is not None else None
        self._prefix = prefix
        self._timeout = broker_timeout
        self.name = name
        #: Packets that were dropped because too many waited.
        self.dropped_packets = 0
        #: Messages on our channels that are not ours.
        self.foreign_messages = 0
        self._begin()

    def __repr__(self) -> str:
        return f"BroadcasterTransport({self.name!r})"

    def _begin(self) -> None:
        """Nothing is subscribed, nothing waits."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._link: Link | None = None
        self._is_ours = True
        self._healthy = False
        self._topics: dict[str, Subscription] = {}
        self._arrivals: Arrivals[Packet | _Gap] = Arrivals(lambda: False, MAX_PACKETS, MAX_BYTES)
        #: In the queue, for what is dropped until it is told.
        self._dropping: _Gap | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether it is connected and everything is subscribed, as far as is known."""
        return self._healthy

    @property
    def counters(self) -> Mapping[str, int]:
        own = {"dropped_packets": self.dropped_packets, "foreign_messages": self.foreign_messages}
        return {**super().counters, **own}

    async def open(self, deliver: Deliver) -> None:
        """Connect, once, unless somebody else has. Raises ``ImproperlyConfigured`` if the server refuses us,
        ``BrokerUnavailable`` if it does not answer; the notes of the latter tell what was tried.
        """
        await self.close()
        self._begin()
        self._loop = asyncio.get_running_loop()
        # Who connected it before us closes it after us.
        self._is_ours = self._make is not None or listener_of(self._broadcast) is None
        try:
            self._link = await self._connect()
        except Exception as error:
            raise _startup_error(self.name, error, self._timeout) from error
        self._healthy = True
        self._tasks = (
            asyncio.create_task(self._supervise(self._link), name="fastapi_consumers: Broadcast"),
            asyncio.create_task(
                self._deliver_all(self._arrivals, deliver), name="fastapi_consumers: Broadcast deliveries"
            ),
        )

    def check(self) -> None:
        # Broadcaster's connect() starts a second listener, and the first one's messages go astray.
        link = self._link
        if link is not None and link.is_ours and listener_of(link.broadcast) not in (link.listener, None):
            problem = Problem(
                "broadcast-connected-twice",
                "add_consumers(app, …, broadcast=…)",
                "a Broadcast that the app's lifespan connects, although it is connected by then",
                "one connect(): by add_consumers, or before the app starts",
                "do not connect and disconnect it in the lifespan; it is open before your lifespan and closed after it",
            )
            raise ImproperlyConfigured("The Broadcast", [problem])

    async def close(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            return  # Never opened, or in an event loop that took everything with it.
        tasks, link, waiting = self._tasks, self._link, tuple(self._topics.values())
        self._begin()
        try:
            await end(*tasks)
            if link is not None:
                await link.close()
        finally:
            for subscription in waiting:
                subscription.is_wanted = False
                if not subscription.confirmed.done():
                    subscription.confirmed.set_exception(BrokerUnavailable())

    async def publish(self, topic: str, packet: bytes) -> None:
        """Raises ``MessageTooBig`` for what the backend cannot carry."""
        message = base64.b64encode(packet).decode()
        if self._max_message is not None and len(message) > self._max_message:
            raise MessageTooBig(
                _(
                    "The message is too big for the broker: {size} bytes, of at most {maximum}.",
                    size=len(packet),
                    maximum=self._max_message // 4 * 3,
                )
            )
        link = self._link
        if link is None:
            raise BrokerUnavailable
        try:
            await link.publish(self._channel(topic), message)
        except Exception as error:
            raise BrokerUnavailable from error
        self.packets_out += 1

    async def subscribe(self, topic: str) -> None:
        if not self._tasks:
            raise BrokerUnavailable
        subscription = self._topics.get(topic)
        if subscription is None:
            subscription = self._topics[topic] = Subscription(topic, self._channel(topic))
            if self._link is not None:
                self._link.subscribe(subscription)
        try:
            # Not wait_for: that would cancel the future for others.
            await asyncio.wait((subscription.confirmed,), timeout=self._timeout)
            if not subscription.confirmed.done():
                raise BrokerUnavailable
            if (error := subscription.confirmed.exception()) is not None:
                raise BrokerUnavailable from error
        except BaseException:
            self._withdraw(subscription)
            raise

    async def unsubscribe(self, topic: str) -> None:
        # Not awaited: nothing of it is delivered from now on, whenever the server hears of it.
        subscription = self._topics.get(topic)
        if subscription is not None:
            self._withdraw(subscription)

    def _channel(self, topic: str) -> str:
        return channel_name(self._prefix + topic)

    def _withdraw(self, subscription: Subscription) -> None:
        subscription.is_wanted = False
        if self._topics.get(subscription.topic) is subscription:
            del self._topics[subscription.topic]
            if self._link is not None:
                self._link.unsubscribe(subscription)

    # The connection

    async def _connect(self) -> Link:
        """A connection with nothing subscribed."""
        broadcast = self._make() if self._make is not None else self._broadcast
        wake = self._channel(f"!{secrets.token_hex(6)}")
        link = Link(broadcast, is_ours=self._is_ours, wake=wake, timeout=self._timeout, receive=self._receive)
        try:
            await link.open()
        except BaseException:
            await link.close()
            raise
        return link

    async def _supervise(self, link: Link) -> None:
        while True:
            gap = self._note_loss(await link.until_lost())
            await link.close()
            link = await self._reconnect()
            gap.may_be_told.set()

    def _note_loss(self, error: Exception) -> _Gap:
        self._healthy, self._link = False, None
        self.lost_connections += 1
        if isinstance(error, Disconnected):
            self._is_ours = False
        then = "" if self._is_ours else "; whoever connected it has to connect it again"
        logger.warning("lost the connection of %s: %r%s", self.name, error, then)
        topics = {topic for topic, subscription in self._topics.items() if subscription.confirmed.done()}
        if self._is_ours:
            self._call_on_lost()
        else:  # Perhaps nobody ever does.
            now = _Gap(topics, begins_loss=True)
            now.may_be_told.set()
            self._arrivals.put(now, 0)
        gap = _Gap(topics)
        self._arrivals.put(gap, 0)
        return gap

    async def _reconnect(self) -> Link:
        since = time.monotonic()
        for attempt in count():
            await asyncio.sleep(pause_before(attempt))
            try:
                link = await self._connect()
            except Exception as error:
                logger.info("could not reconnect %s: %r", self.name, error)
                continue
            try:
                await self._resubscribe(link)
                break
            except BaseException as error:
                self._link = None
                await link.close()
                if not isinstance(error, Exception):
                    raise
                logger.info("could not subscribe again over %s: %r", self.name, error)
        self._healthy = True
        self.reconnects += 1
        logger.warning("connected %s again after %.1f s", self.name, time.monotonic() - since)
        return link

    async def _resubscribe(self, link: Link) -> None:
        # From now on whoever subscribes does so here.
        self._link = link
        pending = {subscription: link.subscribe(subscription) for subscription in self._topics.values()}
        if pending:
            await asyncio.wait(pending.values())
        for subscription, ready in pending.items():
            if subscription.is_wanted:
                ready.result()

    # Delivery

    def _receive(self, subscription: Subscription, message: Any) -> None:
        if not subscription.is_wanted:
            return
        topic = subscription.topic
        try:
            data = base64.b64decode(message, validate=True)
        except (ValueError, TypeError):
            self.foreign_messages += 1
            logger.warning("dropped a message for %r that is not one of ours", topic)
            return
        self.packets_in += 1
        if not self._arrivals.is_full:
            self._arrivals.put(Packet(subscription, data), len(data))
            return
        self.dropped_packets += 1
        if self._dropping is None:
            logger.warning("%s brings more than can be delivered; packets are dropped", self.name)
            self._dropping = _Gap(set())
            self._dropping.may_be_told.set()
            self._arrivals.put(self._dropping, 0)
        self._dropping.topics.add(topic)

    async def _tell_of_gap(self, gap: _Gap) -> None:
        await gap.may_be_told.wait()
        if gap is self._dropping:
            self._dropping = None
        await self._call_on_gap([topic for topic in gap.topics if topic in self._topics])
        if gap.begins_loss:
            self._call_on_lost()


_REDIS_PROBLEM = Problem(
    "broadcast-redis",
    "broadcast=Broadcast(…)",
    "broadcaster's backend for Redis, which loses messages: a lone subscriber may hear nothing",
    "Redis and Valkey through a transport of our own",
    'write add_consumers(app, …, url="redis://…") in place of broadcast=',
)


def _startup_error(name: str, error: Exception, timeout: float) -> Exception:
    """The error to start with: ``ImproperlyConfigured`` if waiting would not help, else ``BrokerUnavailable``."""
    # PostgreSQL's codes: 28 is about who may come in, 3D about databases that do not exist, 42501 about privileges.
    state = str(getattr(error, "sqlstate", None) or "")
    problem: Problem | None = None
    if state.startswith(("28", "3D")) or state == "42501":
        fix = "check user, password (percent-encoded in a URL) and database"
        problem = Problem("broker-refused", name, str(error), "a server that lets this client in", fix)
    elif isinstance(error, ssl.SSLError):
        fix = "name the CA, and the server as its certificate names it"
        problem = Problem("broker-tls", name, str(error), "a certificate that can be verified", fix)
    elif isinstance(error, ValueError):  # Its text may quote the URL.
        found = f"a URL that its client cannot read ({type(error).__name__})"
        fix = "percent-encode what has a meaning in URLs, and check host, port and options"
        problem = Problem("bad-url", name, found, "such as postgresql://user:password@host:5432/database", fix)
    if problem is not None:
        return ImproperlyConfigured("The broker", [problem])
    unavailable = BrokerUnavailable()
    unavailable.add_note(f"tried:    {name}")
    unavailable.add_note(f"found:    {str(error) or f'no answer within {timeout:g} s'}")
    unavailable.add_note(f"expected: a broker that answers within {timeout:g} s")
    unavailable.add_note("fix:      start it, or mend the URL; broker_timeout gives it more time")
    return unavailable
