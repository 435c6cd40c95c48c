"""One connection that is subscribed, to one node, and is made anew when it is lost.

Three tasks at most, none per message:

- the supervisor holds the connection, and makes a new one when it is lost, with everything subscribed again;
- the reader takes what arrives, in order, into a bounded queue, and stops reading while that is full;
- the writer sends what is to be subscribed and left, all that has gathered in one write, and a ping when idle.

What a server confirms comes in the order of the commands, and between the messages: so a topic that is left and
subscribed again cannot be confused with what it was before. A node of a cluster also ends subscriptions by itself, when
it gives their slot away, with the same words as if it had been asked.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any, NoReturn, Protocol, cast

from redis.asyncio import Connection
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import ResponseError

from ...exceptions import BrokerUnavailable
from ...redis_client import FAILURES, Node, RedisClient
from ...redis_client.cluster import redirection_of, slot_of
from ...redis_client.servers import disconnect
from ..arrivals import Arrivals
from ..broker import Packet, end, pause_before
from .subscription import Gap, Subscription

logger = logging.getLogger(__name__)

#: Topics in one command when all are subscribed again.
TOPICS_PER_COMMAND = 1000
#: Seconds after which an idle connection is pinged. One that is silent for this and the timeout is lost.
PING_INTERVAL = 5.0

_SUBSCRIBE, _UNSUBSCRIBE = False, True


class Owner(Protocol):
    """What a link tells, and whom."""

    arrivals: Arrivals[Packet | Gap]
    packets_in: int
    missed: set[Subscription]
    """Those that were confirmed and are not any more, until they are again."""

    def link_lost(self, error: Exception) -> None:
        """The connection is lost, and is being made anew."""

    def link_failed(self) -> None:
        """The connection could not be made, and is tried again."""

    def link_found(self, *, is_another: bool) -> None:
        """Everything is subscribed. ``is_another``: in place of one that was lost."""

    def displaced(self, subscription: Subscription) -> None:
        """The node does not serve it, or not any more. The link has forgotten it."""


class Link:
    """Receives what it is given subscriptions for, from one node."""

    def __init__(self, node: Node, client: RedisClient, timeout: float, owner: Owner) -> None:
        self.node = node
        self._client = client
        self._timeout = timeout
        self._owner = owner
        verbs = (b"SSUBSCRIBE", b"SUNSUBSCRIBE") if client.is_sharded else (b"SUBSCRIBE", b"UNSUBSCRIBE")
        self._verbs = verbs
        self._subscribed, self._unsubscribed = (verb.lower() for verb in verbs)
        self._message = b"smessage" if client.is_sharded else b"message"
        self._where = f"{node} of {client.url}" if client.can_move else client.url
        #: Whether it lost its connection, or could not make one, and has no other yet.
        self.is_lost = False
        #: What it is to receive; and, by channel, what the server has confirmed.
        self.wanted: dict[Subscription, None] = {}
        self._channels: dict[bytes, Subscription] = {}
        #: What the writer has to send, while there is a connection, and the commands that await confirmation.
        self._is_connected = False
        self._outgoing: list[tuple[bool, Subscription]] = []
        self._has_outgoing = asyncio.Event()
        self._sent: deque[tuple[bool, deque[Subscription]]] = deque()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def awaits_confirmation(self) -> bool:
        """Whether a command is to be sent, or to be answered."""
        return bool(self._sent or self._outgoing)

    def start(self, connection: "tuple[Connection, list[Packet]] | None" = None) -> None:
        """Begin, with what :meth:`connect` returned, if that was called."""
        name = f"fastapi_consumers: Redis connection to {self.node}"
        self._task = asyncio.create_task(self._supervise(connection), name=name)

    async def close(self) -> None:
        connection, self._is_connected = self._connection, False
        if self._task is not None:
            await end(self._task)
        for each in filter(None, (connection, self._connection)):  # The supervisor may not even have begun.
            await disconnect(each)

    def add(self, subscription: Subscription) -> None:
        """Receive it. It is confirmed, or fails, or is displaced."""
        self.wanted[subscription] = None
        subscription.link = self
        self._send(_SUBSCRIBE, subscription)

    def remove(self, subscription: Subscription) -> None:
        """Receive it no more."""
        if subscription in self.wanted:
            del self.wanted[subscription]
            subscription.link = None
            self._send(_UNSUBSCRIBE, subscription)

    def _send(self, is_end: bool, subscription: Subscription) -> None:
        # Without a connection nothing is to be sent: the next one subscribes to all that is wanted then.
        if self._is_connected:
            self._outgoing.append((is_end, subscription))
            self._has_outgoing.set()
            self._owner.arrivals.look_again()

    # The connection

    async def _supervise(self, made: tuple[Connection, list[Packet]] | None) -> None:
        is_first = True
        while True:
            connection, early = made if made is not None else await self._make(is_first)
            self._announce(early, is_another=not is_first)
            made, is_first = None, False
            try:
                await self._serve(connection)
            except Exception as error:
                self._note_loss(error)
            finally:
                await disconnect(connection)

    def _note_loss(self, error: Exception) -> None:
        self.is_lost = True
        self._disconnected()
        unexpected = None if isinstance(error, FAILURES) else error
        logger.warning("lost the connection to %s: %s", self._where, error, exc_info=unexpected)
        self._owner.link_lost(error)

    def _disconnected(self) -> None:
        self._is_connected = False
        self._outgoing.clear()
        self._sent.clear()
        self._channels.clear()
        self._owner.missed.update(subscription for subscription in self.wanted if subscription.was_confirmed)

    async def _make(self, is_first: bool) -> tuple[Connection, list[Packet]]:
        since = time.monotonic()
        if not is_first:
            # Those for commands are lost too, most likely, and not every redis-py notices.
            await self._client.suspect(self.node)
        attempt = 0
        while True:
            if attempt or not is_first:
                await asyncio.sleep(pause_before(attempt))
            try:
                made = await self.connect()
            except Exception as error:
                unexpected = None if isinstance(error, FAILURES) else error
                logger.info(
                    "could not connect to %s of %s: %s", self.node, self._client.url, error, exc_info=unexpected
                )
                self.is_lost = True
                self._owner.link_failed()
                attempt += 1
            else:
                if attempt or not is_first:
                    took = time.monotonic() - since
                    logger.warning("connected to %s again after %.1f s", self._where, took)
                return made

    async def connect(self) -> tuple[Connection, list[Packet]]:
        """A connection with everything subscribed, and the packets that came meanwhile.

        Raises one of ``FAILURES``, a refused subscription included.
        """
        connection = self._client.new_connection(self.node)
        early: list[Packet] = []
        try:
            async with asyncio.timeout(self._timeout):
                await cast(Any, connection).connect()
            # Whatever is subscribed or left from now on has to be sent after these.
            self._is_connected = True
            wanted = list(self.wanted)
            chunks = [wanted[at : at + TOPICS_PER_COMMAND] for at in range(0, len(wanted), TOPICS_PER_COMMAND)]
            await self._write_commands(connection, [(_SUBSCRIBE, chunk) for chunk in chunks])
            while self._sent:
                try:
                    frame = await connection.read_response(disable_decoding=True, timeout=self._timeout)
                except ResponseError as error:
                    if redirection_of(error, self.node) is None:
                        raise
                    self._refused(error)
                    continue
                if frame is None:
                    raise LostConnection("no answer to SUBSCRIBE")
                heard: list[Subscription] = []
                packet = self._take(frame, heard)
                # Told of by `_announce`, all at once.
                self._owner.missed.update(heard)
                if packet is not None:
                    early.append(packet)
        except BaseException:
            self._disconnected()
            await disconnect(connection)
            raise
        self._connection = connection
        return connection, early

    def _announce(self, early: list[Packet], *, is_another: bool) -> None:
        """Everything is subscribed: what was missed is told of before anything later."""
        owner = self._owner
        missed = [each for each in self._channels.values() if each in owner.missed and each.link is self]
        owner.missed.difference_update(missed)
        if missed:
            owner.arrivals.put(Gap(missed), 0)
        for packet in early:
            owner.arrivals.put(packet, len(packet.data))
        self.is_lost = False
        owner.link_found(is_another=is_another or bool(missed))

    async def _serve(self, connection: Connection) -> NoReturn:
        """Read and write until one of them fails; raises what it failed with."""
        tasks = (asyncio.create_task(self._read(connection)), asyncio.create_task(self._write(connection)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(*tasks)
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
            commands = [(is_end, [subscription for _, subscription in group]) for is_end, group in groups]
            self._outgoing.clear()
            await self._write_commands(connection, commands)

    async def _write_commands(self, connection: Connection, commands: list[tuple[bool, list[Subscription]]]) -> None:
        packed = []
        for is_end, subscriptions in commands:
            for together in self._split(subscriptions):
                self._sent.append((is_end, deque(together)))
                packed.append((self._verbs[is_end], *[subscription.channel for subscription in together]))
        await self._write_packed(connection, packed)

    def _split(self, subscriptions: list[Subscription]) -> Iterable[list[Subscription]]:
        """One command may name the channels of one slot."""
        if not self._client.is_sharded:
            return (subscriptions,)
        by_slot: dict[int, list[Subscription]] = {}
        for subscription in subscriptions:
            by_slot.setdefault(slot_of(subscription.channel), []).append(subscription)
        return by_slot.values()

    async def _write_packed(self, connection: Connection, commands: list[tuple[bytes, ...]]) -> None:
        if not connection.is_connected:
            # redis-py would connect it again, and nobody would know what was lost.
            raise LostConnection("the connection was closed")
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    async def _read(self, connection: Connection) -> NoReturn:
        patience, arrivals = PING_INTERVAL + self._timeout, self._owner.arrivals
        while True:
            await arrivals.room()
            try:
                # Not disconnected on an error: the supervisor does that, and waits until it is done.
                frame = await connection.read_response(
                    disable_decoding=True, timeout=patience, disconnect_on_error=False
                )
            except ResponseError as error:
                self._refused(error)
                continue
            if frame is None:
                raise LostConnection(f"silence for {patience:g} s")
            heard: list[Subscription] = []
            packet = self._take(frame, heard)
            if heard:
                arrivals.put(Gap(heard), 0)
            if packet is not None:
                arrivals.put(packet, len(packet.data))

    def _take(self, frame: Any, heard: list[Subscription]) -> Packet | None:
        """Act upon one frame of the server's; returns the packet that it holds, if any is wanted.

        Args:
            heard: takes what is confirmed again after it was lost.
        """
        kind = frame[0] if isinstance(frame, list) else None
        if kind == self._message:
            subscription = self._channels.get(frame[1])
            # One that was given to another link has a gap there: nothing from before comes behind that.
            if subscription is not None and subscription.is_wanted and subscription.link is self:
                self._owner.packets_in += 1
                return Packet(subscription, frame[2])
        elif kind == self._subscribed and (subscription := self._answered(_SUBSCRIBE, frame[1])) is not None:
            self._channels[subscription.channel] = subscription
            if subscription.is_wanted and subscription.link is not self:
                return None
            subscription.confirm()
            if subscription in self._owner.missed:
                self._owner.missed.discard(subscription)
                heard.append(subscription)
        elif kind == self._unsubscribed:
            if self._answered(_UNSUBSCRIBE, frame[1]) is not None:
                self._channels.pop(frame[1], None)
            elif (subscription := self._channels.pop(frame[1], None)) is not None:
                self._displace(subscription)
        return None

    def _answered(self, is_end: bool, channel: bytes) -> Subscription | None:
        """What the oldest command named next, if that is what this confirms."""
        if not self._sent or self._sent[0][0] is not is_end or self._sent[0][1][0].channel != channel:
            return None
        subscriptions = self._sent[0][1]
        subscription = subscriptions.popleft()
        if not subscriptions:
            self._sent.popleft()
        return subscription

    def _refused(self, error: ResponseError) -> None:
        """That is the answer to the oldest command, all of it."""
        is_end, subscriptions = self._sent.popleft() if self._sent else (_UNSUBSCRIBE, ())
        is_moved = redirection_of(error, self.node) is not None
        if not is_moved:
            logger.error("%s refused a command: %s", self._where, error)
        for subscription in subscriptions:
            if is_end:
                self._channels.pop(subscription.channel, None)
            elif is_moved or subscription.was_confirmed:
                self._displace(subscription)
            else:
                failure = BrokerUnavailable()
                failure.__cause__ = error
                subscription.fail(failure)

    def _displace(self, subscription: Subscription) -> None:
        if subscription in self.wanted:
            del self.wanted[subscription]
            subscription.link = None
            if subscription.was_confirmed:
                self._owner.missed.add(subscription)
            self._owner.displaced(subscription)
