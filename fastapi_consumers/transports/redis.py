"""Redis or Valkey as transport: publish and subscribe over one server.

A process has one connection that is subscribed to all of its topics, whatever number of members they have, and
publishes over the shared client's pool. Four tasks at most, none per message:

- the supervisor holds the connection, and makes a new one when it is lost, with everything subscribed again;
- the reader takes what arrives, in order, into a bounded queue, and stops reading while that is full;
- the writer sends what is to be subscribed and left, all that has gathered in one command, and a ping when idle;
- the deliverer hands on what has arrived. It is apart from the reader so that a delivery may subscribe.

What a server confirms comes in the order of the commands, and between the messages: so a topic that is left and
subscribed again cannot be confused with what it was before.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from itertools import count, groupby
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn, cast

from redis.asyncio import Connection
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import ResponseError

from ..exceptions import BrokerUnavailable
from ..redis_client import FAILURES, RedisClient
from .arrivals import Arrivals
from .base import Deliver, Transport

logger = logging.getLogger(__name__)

#: Deliveries between two turns of the event loop.
DELIVERIES_PER_TURN = 32
#: Topics in one command when all are subscribed again.
TOPICS_PER_COMMAND = 1000
#: Seconds after which an idle connection is pinged. One that is silent for this and the timeout is lost.
PING_INTERVAL = 5.0
#: Seconds before the second attempt to reconnect, at most; doubled for each that follows, up to the second figure.
BACKOFF, MAX_BACKOFF = 0.1, 2.0

#: Told of the topics whose packets may have been lost.
OnGap = Callable[[Collection[str]], Awaitable[None]]


class _Subscription:
    """One topic, from ``subscribe`` to ``unsubscribe``."""

    __slots__ = ("channel", "confirmed", "is_wanted", "topic")

    def __init__(self, topic: str, channel: bytes) -> None:
        self.topic = topic
        self.channel = channel
        self.is_wanted = True
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Packet(NamedTuple):
    subscription: _Subscription
    data: bytes


class _Gap(NamedTuple):
    """Stands in the queue between what arrived before a connection was lost and what arrived after."""

    topics: set[str]


class RedisTransport(Transport):
    """Carries packets over one Redis or Valkey server, to which all processes connect.

    At most once: what is published while a process has lost its connection does not reach that process. ``on_gap`` is
    told of it. A publish that raises may still have been carried out.

    Args:
        url: see :mod:`fastapi_consumers.redis_client`; or a client that is shared with others.
        prefix: what channels' names begin with, so that several apps can share a server; by default the URL's.
        broker_timeout: seconds that publishing, subscribing and connecting may take.
    """

    is_distributed = True

    def __init__(self, url: str | RedisClient, *, prefix: str | None = None, broker_timeout: float = 1.0) -> None:
        self.client = url if isinstance(url, RedisClient) else RedisClient(url, timeout=broker_timeout)
        self._prefix = prefix if prefix is not None else self.client.prefix
        self._timeout = broker_timeout
        #: Called when the connection was lost and everything is subscribed again, before anything later is delivered,
        #: with those topics whose packets may have been lost, and that are still subscribed.
        self.on_gap: OnGap | None = None
        #: Called when the connection is lost.
        self.on_lost: Callable[[], None] | None = None
        #: Packets that were published; that arrived for a subscribed topic; whose delivery raised.
        self.packets_out = self.packets_in = self.failed_deliveries = 0
        #: Connections that were lost; that were made in their place.
        self.lost_connections = self.reconnects = 0
        self._begin()

    def __repr__(self) -> str:
        return f"RedisTransport({self.client.url!r})"

    def _begin(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Nothing is subscribed, nothing waits."""
        self._loop = loop
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._connection: Connection | None = None
        self._healthy = False
        #: What is wanted, by topic; and, by channel, what the server has confirmed.
        self._topics: dict[str, _Subscription] = {}
        self._channels: dict[bytes, _Subscription] = {}
        #: Topics whose packets may have been lost, until that is told.
        self._gap: set[str] = set()
        #: What the writer has to send, while there is a connection, and the commands that await confirmation.
        self._is_connected = False
        self._outgoing: list[tuple[bytes, _Subscription]] = []
        self._has_outgoing = asyncio.Event()
        self._sent: deque[tuple[bytes, deque[_Subscription]]] = deque()
        # A delivery may subscribe, and the confirmation comes behind the packets that are to be delivered.
        self._arrivals: Arrivals[_Packet | _Gap] = Arrivals(lambda: bool(self._sent or self._outgoing))

    @property
    def is_healthy(self) -> bool:
        """Whether it is connected and everything is subscribed, as far as is known."""
        return self._healthy

    async def open(self, deliver: Deliver) -> None:
        """Connect, once. Raises ``ImproperlyConfigured`` if the server refuses us or is of an unsupported kind,
        ``BrokerUnavailable`` if it does not answer; the notes of the latter tell what was tried."""
        await self.open_for_publishing()
        try:
            connection, _ = await self._connect()
        except FAILURES as error:
            raise self.client.startup_error(error) from error
        self._healthy = True
        self._tasks = (
            asyncio.create_task(self._supervise(connection), name="fastapi_consumers: Redis connection"),
            asyncio.create_task(self._deliver_all(deliver), name="fastapi_consumers: Redis deliveries"),
        )

    async def open_for_publishing(self) -> None:
        """Without a connection of its own: publishing takes those of the client. Raises as ``open`` does."""
        await self.close()
        self._begin(asyncio.get_running_loop())
        await self.client.open()
        await self.client.check(self._wake)

    async def close(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            return  # Never opened, or in an event loop that took everything with it.
        tasks, connection, waiting = self._tasks, self._connection, tuple(self._topics.values())
        self._begin()
        try:
            await _end(*tasks)
            for each in filter(None, (connection, self._connection)):  # The supervisor may not even have begun.
                await _disconnect(each)
        finally:
            for subscription in waiting:
                self._fail(subscription, None)
            await self.client.close()

    async def publish(self, topic: str, packet: bytes) -> None:
        await self.client.execute("PUBLISH", self._channel(topic), packet)
        self.packets_out += 1

    async def subscribe(self, topic: str) -> None:
        if not self._tasks:
            raise BrokerUnavailable
        subscription = self._topics.get(topic)
        if subscription is None:
            subscription = self._topics[topic] = _Subscription(topic, self._channel(topic))
            self._send(b"SUBSCRIBE", subscription)
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

    def channel_of(self, topic: str) -> bytes | None:
        return self._channel(topic)

    def _channel(self, topic: str) -> bytes:
        return f"{self._prefix}{topic}".encode()

    @property
    def _wake(self) -> bytes:
        """Subscribed first of all, which shows at startup whether it is allowed; nothing else is sent there."""
        return self._channel("!")

    def _withdraw(self, subscription: _Subscription) -> None:
        subscription.is_wanted = False
        if self._topics.get(subscription.topic) is subscription:
            del self._topics[subscription.topic]
            self._gap.discard(subscription.topic)
            self._send(b"UNSUBSCRIBE", subscription)

    def _send(self, verb: bytes, subscription: _Subscription) -> None:
        # Without a connection nothing is to be sent: the next one subscribes to all that is wanted then.
        if self._is_connected:
            self._outgoing.append((verb, subscription))
            self._has_outgoing.set()
            self._arrivals.look_again()

    # The connection

    async def _supervise(self, connection: Connection) -> None:
        while True:
            try:
                await self._serve(connection)
            except Exception as error:
                self._note_loss(error)
            finally:
                await _disconnect(connection)
            connection = await self._reconnect()

    def _note_loss(self, error: Exception) -> None:
        self._healthy = False
        self._disconnected()
        self.lost_connections += 1
        unexpected = None if isinstance(error, FAILURES) else error
        logger.warning("lost the connection to %s: %s", self.client.url, error, exc_info=unexpected)
        if self.on_lost is not None:
            try:
                self.on_lost()
            except Exception:
                logger.exception("on_lost failed")

    def _disconnected(self) -> None:
        self._is_connected = False
        self._outgoing.clear()
        self._sent.clear()
        self._channels.clear()
        self._gap.update(topic for topic, subscription in self._topics.items() if subscription.confirmed.done())

    async def _reconnect(self) -> Connection:
        since = time.monotonic()
        await self.client.drop_idle()  # They are lost too, most likely, and not every redis-py notices.
        for attempt in count():
            # Jitter, so that all processes do not come at once; the first attempt comes almost at once.
            await asyncio.sleep(random.random() * min(BACKOFF * 2**attempt / 2, MAX_BACKOFF))
            try:
                connection, early = await self._connect()
                break
            except Exception as error:
                unexpected = None if isinstance(error, FAILURES) else error
                logger.info("could not reconnect to %s: %s", self.client.url, error, exc_info=unexpected)
        self._arrivals.put(_Gap(self._gap), 0)
        for packet in early:
            self._arrivals.put(packet, len(packet.data))
        self._gap = set()
        self._healthy = True
        self.reconnects += 1
        logger.warning("connected to %s again after %.1f s", self.client.url, time.monotonic() - since)
        return connection

    async def _connect(self) -> tuple[Connection, list[_Packet]]:
        """A connection with everything subscribed, and the packets that came meanwhile."""
        connection = self.client.new_connection()
        early: list[_Packet] = []
        try:
            async with asyncio.timeout(self._timeout):
                await cast(Any, connection).connect()
            wake = _Subscription("", self._wake)
            wake.is_wanted = False
            wanted = [wake, *self._topics.values()]
            # Whatever is subscribed or left from now on has to be sent after these.
            self._is_connected = True
            chunks = [wanted[at : at + TOPICS_PER_COMMAND] for at in range(0, len(wanted), TOPICS_PER_COMMAND)]
            await self._write_commands(connection, [(b"SUBSCRIBE", chunk) for chunk in chunks])
            while self._sent:
                frame = await connection.read_response(disable_decoding=True, timeout=self._timeout)
                if frame is None:
                    raise LostConnection("no answer to SUBSCRIBE")
                packet = self._take(frame)
                if packet is not None:
                    early.append(packet)
        except BaseException:
            self._disconnected()
            await _disconnect(connection)
            raise
        self._connection = connection
        return connection, early

    async def _serve(self, connection: Connection) -> NoReturn:
        """Read and write until one of them fails; raises what it failed with."""
        tasks = (asyncio.create_task(self._read(connection)), asyncio.create_task(self._write(connection)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(*tasks)
        for task in done:
            task.result()
        raise LostConnection("the connection ended")

    async def _write(self, connection: Connection) -> NoReturn:
        while True:
            try:
                async with asyncio.timeout(PING_INTERVAL):
                    await self._has_outgoing.wait()
            except TimeoutError:
                await self._write_packed(connection, [(b"PING",)])
                continue
            self._has_outgoing.clear()
            groups = groupby(self._outgoing, key=itemgetter(0))
            commands = [(verb, [subscription for _, subscription in group]) for verb, group in groups]
            self._outgoing.clear()
            await self._write_commands(connection, commands)

    async def _write_commands(self, connection: Connection, commands: list[tuple[bytes, list[_Subscription]]]) -> None:
        packed = []
        for verb, subscriptions in commands:
            self._sent.append((verb, deque(subscriptions)))
            packed.append((verb, *[subscription.channel for subscription in subscriptions]))
        await self._write_packed(connection, packed)

    async def _write_packed(self, connection: Connection, commands: list[tuple[bytes, ...]]) -> None:
        if not connection.is_connected:
            # redis-py would connect it again, and nobody would know what was lost.
            raise LostConnection("the connection was closed")
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    async def _read(self, connection: Connection) -> NoReturn:
        read, patience = connection.read_response, PING_INTERVAL + self._timeout
        while True:
            await self._arrivals.room()
            try:
                # Not disconnected on an error: the supervisor does that, and waits until it is done.
                frame = await read(disable_decoding=True, timeout=patience, disconnect_on_error=False)
            except ResponseError as error:
                self._refused(error)
                continue
            if frame is None:
                raise LostConnection(f"silence for {patience:g} s")
            packet = self._take(frame)
            if packet is not None:
                self._arrivals.put(packet, len(packet.data))

    def _take(self, frame: Any) -> _Packet | None:
        """Act upon one frame of the server's; returns the packet that it holds, if any is wanted."""
        kind = frame[0] if isinstance(frame, list) else None
        if kind == b"message":
            subscription = self._channels.get(frame[1])
            if subscription is not None and subscription.is_wanted:
                self.packets_in += 1
                return _Packet(subscription, frame[2])
        elif kind in (b"subscribe", b"unsubscribe") and self._sent:
            verb, subscriptions = self._sent[0]
            subscription = subscriptions.popleft()
            if not subscriptions:
                self._sent.popleft()
            if verb == b"SUBSCRIBE":
                self._channels[subscription.channel] = subscription
                if not subscription.confirmed.done():
                    subscription.confirmed.set_result(None)
            else:
                self._channels.pop(subscription.channel, None)
        return None

    def _refused(self, error: ResponseError) -> None:
        """That is the answer to the oldest command, all of it."""
        logger.error("%s refused a command: %s", self.client.url, error)
        verb, subscriptions = self._sent.popleft() if self._sent else (b"", ())
        for subscription in subscriptions if verb == b"SUBSCRIBE" else ():
            self._fail(subscription, error)

    @staticmethod
    def _fail(subscription: _Subscription, error: Exception | None) -> None:
        if subscription.is_wanted and not subscription.confirmed.done():
            failure = BrokerUnavailable()
            failure.__cause__ = error
            subscription.confirmed.set_exception(failure)

    # Delivery

    async def _deliver_all(self, deliver: Deliver) -> None:
        arrivals = self._arrivals
        for number in count(1):
            arrived = await arrivals.get()
            if isinstance(arrived, _Gap):
                await self._tell_of_gap(arrived)
            elif arrived.subscription.is_wanted:
                topic = arrived.subscription.topic
                try:
                    await deliver(topic, arrived.data)
                except Exception:
                    self.failed_deliveries += 1
                    logger.exception("a packet for %r could not be delivered", topic)
            if number % DELIVERIES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _tell_of_gap(self, gap: _Gap) -> None:
        if self.on_gap is not None:
            try:
                await self.on_gap([topic for topic in gap.topics if topic in self._topics])
            except Exception:
                logger.exception("on_gap failed")


async def _end(*tasks: asyncio.Task[Any]) -> None:
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        # Python 3.11's wait_for, which redis-py sends with, may swallow a cancellation.
        await asyncio.wait(pending, timeout=0.1)
    await asyncio.gather(*tasks, return_exceptions=True)  # So that nobody misses what they raised.


async def _disconnect(connection: Connection) -> None:
    try:
        await connection.disconnect()
    except FAILURES:
        pass  # It is closed, though not in order.
