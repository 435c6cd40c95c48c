"""The hub: who is in which group in this process, and the only thing that fans out.

It subscribes to a topic at the transport while it has a member here, decodes what arrives, and hands each member's
outbox a frame that is made once per framer. Members of one topic get everything in one and the same order.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable
from itertools import count

from .addressing import GROUP, PROCESS, for_channel
from .appending import Appender
from .exceptions import GroupFull, TooManyGroups
from .fanning import Fanning, Held, Member, tell
from .health import Broker
from .history import History, HistoryStore
from .messages import Notice, Position
from .observing import Observing
from .packets import BadPacket, Packet, decode_packet, encode_packet, split_position, with_position
from .streams import Recovery, Streams
from .topics import Topic
from .transports import Transport
from .turn import Turn, catch_up

logger = logging.getLogger(__name__)


class Hub:
    """Groups, users and channels of one process over one transport.

    Args:
        store: where groups that have a history keep it.
        store_publishes: whether the store hands its packets to the transport's server by itself.
        broker: is told when the transport loses its connection, and has it again.
    """

    def __init__(
        self,
        transport: Transport,
        store: HistoryStore | None = None,
        *,
        store_publishes: bool = False,
        broker: Broker | None = None,
        observing: Observing | None = None,
    ) -> None:
        self.transport = transport
        self.turn = Turn()
        self.observing = observing if observing is not None else Observing()
        self.streams = (
            Streams(store, self._hand_on_stream, self._tell, self._settle, self.observing)
            if store is not None
            else None
        )
        self.appender = (
            Appender(store, transport, store_publishes, self._publish_appended) if store is not None else None
        )
        self.process = secrets.token_hex(6)
        self._numbers = count(1)
        self._topics: dict[str, Topic] = {}
        self._channels: dict[str, Member] = {}
        #: Topics that are no members' but this process's own.
        self._listeners: dict[str, Callable[[Packet], None]] = {}
        self.broker = broker if broker is not None else Broker()
        #: Packets of other processes that could not be read.
        self.bad_packets = 0

    async def open(self) -> None:
        self.transport.on_gap, self.transport.on_lost = self._on_gap, self.broker.lost
        await self.transport.open(self._deliver)
        await self.transport.subscribe(PROCESS + self.process)

    async def close(self) -> None:
        self.turn.finish()
        try:
            await self.transport.close()
        finally:
            if self.streams is not None:
                await self.streams.close()

    def new_channel(self) -> str:
        """A name for one connection, unique over all processes."""
        return f"{self.process}!{next(self._numbers)}"

    def register(self, member: Member) -> None:
        """Make the member's channel reachable."""
        self._channels[member.channel] = member

    def listen(self, topic: str, take: Callable[[Packet], None]) -> None:
        """Have ``take`` called with the packets of a topic that has no members. It does not raise."""
        self._listeners[topic] = take

    def find(self, channel: str) -> Member | None:
        """The member of this channel, if it is in this process."""
        return self._channels.get(channel)

    def count(self, topic: str) -> int:
        """How many members the topic has, without onlookers."""
        found = self._topics.get(topic)
        return found.count if found is not None else 0

    def topics(self) -> Iterable[str]:
        """The topics that have members here."""
        return self._topics.keys()

    async def join(
        self,
        topic: str,
        member: Member,
        limit: int | None = None,
        history: History | None = None,
        recovery: Recovery | None = None,
    ) -> bool:
        """Add the member; ``False`` if it was there already. When this returns, it receives what is published.

        In a group with ``history`` it is told its position first, and given what it missed if it asks for that.
        Nothing happens, and the answer is ``False``, after ``leave_all``. Raises ``GroupFull`` if the topic has
        ``limit`` members, ``TooManyGroups`` if the member is in too many, and what the transport raises; then it is
        not a member.
        """
        found = self._topics.get(topic)
        if member.has_left or (found is not None and member.channel in found.members):
            return False
        if len(member.topics) >= member.max_topics:
            raise TooManyGroups
        held: Held | None = None
        if found is None:
            found = self._topics[topic] = Topic(self.transport.is_direct, topic)
        elif limit is not None and found.count >= limit:
            raise GroupFull
        if history is not None and self.streams is not None and member.framer is not None:
            if found.stream is None:
                group, others = topic[len(GROUP) :], bool(found.members)
                found.stream = self.streams.stream(group, history, had_others=others, last=found.last)
            held = found.stream.late[member.channel] = Held()
        found.add(member)
        member.joined(found.name)
        if not found.subscribed:
            try:
                async with found.lock:
                    # Nobody is left if it left while it waited here; then the topic is forgotten already.
                    if found.members and not found.subscribed:
                        if found.stream is not None and self.streams is not None:
                            self.streams.restart(found.stream)
                        await self.transport.subscribe(topic)
                        found.subscribed = True
            except BaseException:
                found.remove(member)
                member.left(topic)
                self._forget(topic, found)
                raise
            if member.channel not in found.members:
                # It left while it was joining, and whoever took it out may have been cancelled.
                await self._unsubscribe(topic, found)
        if held is not None and found.stream is not None and self.streams is not None:
            try:
                await self.streams.enter(found.stream, member, held, recovery)
            except BaseException:
                try:
                    await self.leave(topic, member)
                except Exception:
                    logger.exception("could not unsubscribe from %r", topic)
                raise
        return True

    async def leave(self, topic: str, member: Member) -> bool:
        """Remove the member; ``False`` if it was not there. The last one to leave ends the subscription."""
        found = self._remove(topic, member)
        if found is None:
            return False
        await self._unsubscribe(topic, found)
        return True

    async def leave_all(self, member: Member) -> None:
        """Remove the member from everything, for good, and forget its channel.

        It is out of all topics before anything is waited for. Goes on when the transport fails, and when it is
        cancelled.
        """
        self._channels.pop(member.channel, None)
        member.has_left = True
        emptied: list[tuple[str, Topic]] = []
        for topic in tuple(member.topics):
            found = self._remove(topic, member)
            if found is not None and not found.members:
                emptied.append((topic, found))
        cancelled: asyncio.CancelledError | None = None
        for topic, found in emptied:
            try:
                await self._unsubscribe(topic, found)
            except asyncio.CancelledError as error:
                cancelled = error
            except Exception:
                logger.exception("could not unsubscribe from %r", topic)
        if cancelled is not None:
            raise cancelled

    def _remove(self, topic: str, member: Member) -> Topic | None:
        found = self._topics.get(topic)
        if found is not None and found.batches:
            self.catch_up(member)
        member.left(topic)
        return found if found is not None and found.remove(member) else None

    async def _unsubscribe(self, topic: str, found: Topic) -> None:
        """End the topic's subscription if nobody is left."""
        if found.members:
            return
        if self.transport.is_direct:
            found.subscribed = False
            self._forget(topic, found)
            return
        try:
            async with found.lock:
                # Somebody may have joined while the lock was awaited: members are added before they wait for it.
                if not found.members and found.subscribed:
                    # Said before it is done: who joins meanwhile has to wait for the lock and subscribe again.
                    found.subscribed = False
                    await self.transport.unsubscribe(topic)
        finally:
            self._forget(topic, found)

    def _forget(self, topic: str, found: Topic) -> None:
        # Whoever holds the lock is at the transport, and forgets it afterwards.
        is_empty = not found.members and not found.subscribed and not found.is_locked
        if is_empty and self._topics.get(topic) is found:
            del self._topics[topic]
            if found.stream is not None and self.streams is not None:
                self.streams.forget(found.stream.group)

    async def publish(self, topic: str, packet: Packet) -> None:
        """Hand the packet to all processes. Raises ``BrokerUnavailable`` if that is not possible."""
        rest = self.put(topic, packet)
        if rest is not None:
            await rest

    def put(self, topic: str, packet: Packet) -> Awaitable[None] | None:
        """The same as far as it goes at once; ``None`` if that was all, otherwise what is to be awaited."""
        if self.transport.is_direct:
            self._take(topic, packet, None)
            return self.turn.room() if self.turn.is_full else None
        return self.transport.publish(topic, encode_packet(packet))

    async def publish_here(self, topic: str, packet: Packet) -> None:
        """Hand the packet to the members in this process alone."""
        await self._deliver(topic, encode_packet(packet))

    async def send(self, channel: str, packet: Packet) -> None:
        """Hand the packet to one channel, wherever it is; nothing happens if there is none of that name."""
        addressed = for_channel(channel, packet)
        if addressed is not None:
            await self.publish(*addressed)

    async def append(
        self, group: str, packet: Packet, history: History, idempotency_key: str | None = None
    ) -> Position:
        """Keep an event in the group's history, and hand it to all processes. Where it is.

        Once it is kept it is delivered: if it cannot be handed on now, all processes read it back later.
        """
        assert self.streams is not None
        assert self.appender is not None
        was_published = False
        try:
            position, was_published = await self.appender.append(group, packet, history, idempotency_key)
        except ValueError:
            was_published = True  # Nothing has been done.
            raise
        finally:
            # Whatever happened, it may have been kept.
            if not was_published:
                self.streams.heal_all((group,))
        return position

    async def _publish_appended(self, topic: str, packet: Packet, position: Position, encoded: bytes) -> None:
        if self.transport.is_direct:
            self._take(topic, packet, position)
            if self.turn.is_full:
                await self.turn.room()
        else:
            await self.transport.publish(topic, with_position(position, encoded))

    async def _deliver(self, topic: str, data: bytes) -> None:
        try:
            position, data = split_position(data)
            packet = decode_packet(data)
        except BadPacket as error:
            self._drop(topic, error)
        else:
            self._take(topic, packet, position)
            if self.turn.is_full:
                await self.turn.room()

    def _drop(self, topic: str, error: BadPacket) -> None:
        self.bad_packets += 1
        logger.warning("dropped a packet for %r: %s", topic, error)

    def _take(self, topic: str, packet: Packet, position: Position | None) -> None:
        """A packet has arrived: hand it to whom it is for."""
        try:
            if packet.only is not None:
                member = self._channels.get(packet.only)
                if member is not None:
                    self.catch_up(member)
                    Fanning(packet).hand_over((member,))
                return
            found = self._topics.get(topic)
            if found is None:
                if topic in self._listeners:
                    self._listeners[topic](packet)
                return
            group = topic[len(GROUP) :] if topic.startswith(GROUP) else None
            if position is None:
                fanning = Fanning(packet, group, late=found.stream.late if found.stream is not None else None)
            elif found.stream is None or self.streams is None:
                found.last = position
                fanning = Fanning(packet, group, position.offset)
            elif self.streams.take(found.stream, position):
                fanning = Fanning(packet, group, position.offset, found.stream.late)
            else:
                return
        except BadPacket as error:
            self._drop(topic, error)
        else:
            self.turn.put(found, fanning)

    async def _hand_on_stream(self, group: str, fanning: Fanning) -> None:
        found = self._topics.get(GROUP + group)
        if found is not None:
            self.turn.put(found, fanning)
            # Many may follow one another.
            await asyncio.sleep(0)
            await self.turn.room()

    def _settle(self, group: str) -> None:
        found = self._topics.get(GROUP + group)
        if found is not None:
            self.turn.settle(found)

    def catch_up(self, member: Member) -> None:
        """Give a member all that is on its way to it, before something else is sent to it alone."""
        topics = [self._topics.get(topic) for topic in member.topics]
        if waiting := [topic for topic in topics if topic is not None and topic.batches]:
            catch_up(member, waiting)

    # -- what may have been missed ---------------------------------------------------------------------------------

    async def _on_gap(self, topics: Collection[str]) -> None:
        """The transport may have lost packets: groups with history read them back, members of others are told."""
        self.broker.back()
        for topic in topics:
            found = self._topics.get(topic)
            if found is None or not topic.startswith(GROUP):
                continue
            group = topic[len(GROUP) :]
            if found.stream is not None and self.streams is not None:
                self.streams.heal(found.stream)
            else:
                self._tell(group, Notice("gap", {"group": group}))
                self.observing.tell("gap", group)

    def _tell(self, group: str, notice: Notice) -> None:
        found = self._topics.get(GROUP + group)
        if found is not None:
            self.turn.settle(found)
            tell(found.snapshot(), notice, found.stream.late if found.stream is not None else None)
