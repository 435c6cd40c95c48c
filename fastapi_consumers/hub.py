"""The hub: who is in which group in this process, and the only thing that fans out.

It subscribes to a topic at the transport while it has a member here, decodes what arrives, and hands each member's
outbox a frame that is made once per framer. Members of one topic get everything in one and the same order.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from pydantic_core import from_json

from .addressing import GROUP, PROCESS, for_channel
from .backlog import Droppable
from .exceptions import GroupFull, TooManyGroups
from .messages import Event, Frame
from .packets import BadPacket, Packet, decode_packet, encode_packet
from .protocols import Framer
from .transports import Transport

logger = logging.getLogger(__name__)

#: Members that are served before the event loop gets its turn: at some 6 µs each, about 3 ms.
FAN_OUT_CHUNK = 512


class Member:
    """One consumer as the hub sees it: where its frames go and how they are made."""

    __slots__ = ("channel", "close", "framer", "has_left", "max_topics", "push", "receive", "topics")

    def __init__(
        self,
        channel: str,
        push: Callable[[Frame, Droppable | None], None],
        receive: Callable[[dict[str, Any]], None],
        close: Callable[[int, str], None],
        max_topics: int,
    ) -> None:
        self.channel = channel
        #: What it is a member of, so that it can leave all of it; the hub keeps this.
        self.topics: set[str] = set()
        self.max_topics = max_topics
        #: Whether it has left for good, so that nothing late makes it a member again.
        self.has_left = False
        #: Known once the subprotocol has been chosen; until then, and for raw consumers, events are not framed.
        self.framer: Framer | None = None
        self.push = push
        self.receive = receive
        self.close = close


class _Topic:
    """The members of one topic in this process."""

    __slots__ = ("_snapshot", "fanning_out", "lock", "members", "order", "subscribed")

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.subscribed = False
        #: Held while the topic is subscribed or unsubscribed at the transport.
        self.lock = asyncio.Lock()
        #: Held while a fan-out that lets others run in between is under way, so that no later one overtakes it.
        self.order: asyncio.Lock | None = None
        #: How many hold it or wait for it. Whether it is locked says less: it is not while it is passed on.
        self.fanning_out = 0
        self._snapshot: tuple[Member, ...] | None = None

    def add(self, member: Member) -> None:
        self.members[member.channel] = member
        self._snapshot = None

    def remove(self, member: Member) -> bool:
        self._snapshot = None
        return self.members.pop(member.channel, None) is not None

    def snapshot(self) -> tuple[Member, ...]:
        if self._snapshot is None:
            self._snapshot = tuple(self.members.values())
        return self._snapshot


class Hub:
    """Groups, users and channels of one process over one transport."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.process = secrets.token_hex(6)
        self._numbers = count(1)
        self._topics: dict[str, _Topic] = {}
        self._channels: dict[str, Member] = {}
        #: Packets of other processes that could not be read.
        self.bad_packets = 0

    async def open(self) -> None:
        await self.transport.open(self._deliver)
        await self.transport.subscribe(PROCESS + self.process)

    async def close(self) -> None:
        await self.transport.close()

    def new_channel(self) -> str:
        """A name for one connection, unique over all processes."""
        return f"{self.process}!{next(self._numbers)}"

    def register(self, member: Member) -> None:
        """Make the member's channel reachable."""
        self._channels[member.channel] = member

    def find(self, channel: str) -> Member | None:
        """The member of this channel, if it is in this process."""
        return self._channels.get(channel)

    def count(self, topic: str) -> int:
        """How many members the topic has."""
        found = self._topics.get(topic)
        return len(found.members) if found is not None else 0

    def topics(self) -> Iterable[str]:
        """The topics that have members here."""
        return self._topics.keys()

    async def join(self, topic: str, member: Member, limit: int | None = None) -> bool:
        """Add the member; ``False`` if it was there already. When this returns, it receives what is published.

        Nothing happens, and the answer is ``False``, after ``leave_all``. Raises ``GroupFull`` if the topic has
        ``limit`` members, ``TooManyGroups`` if the member is in too many, and what the transport raises; then it is
        not a member.
        """
        found = self._topics.get(topic)
        if member.has_left or (found is not None and member.channel in found.members):
            return False
        if len(member.topics) >= member.max_topics:
            raise TooManyGroups
        if found is None:
            found = self._topics[topic] = _Topic()
        elif limit is not None and len(found.members) >= limit:
            raise GroupFull
        found.add(member)
        member.topics.add(topic)
        if not found.subscribed:
            try:
                async with found.lock:
                    # Nobody is left if it left while it waited here; then the topic is forgotten already.
                    if found.members and not found.subscribed:
                        await self.transport.subscribe(topic)
                        found.subscribed = True
            except BaseException:
                found.remove(member)
                member.topics.discard(topic)
                self._forget(topic, found)
                raise
            if member.channel not in found.members:
                # It left while it was joining, and whoever took it out may have been cancelled.
                await self._unsubscribe(topic, found)
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
        left = [(topic, self._remove(topic, member)) for topic in tuple(member.topics)]
        cancelled: asyncio.CancelledError | None = None
        for topic, found in left:
            try:
                if found is not None:
                    await self._unsubscribe(topic, found)
            except asyncio.CancelledError as error:
                cancelled = error
            except Exception:
                logger.exception("could not unsubscribe from %r", topic)
        if cancelled is not None:
            raise cancelled

    def _remove(self, topic: str, member: Member) -> _Topic | None:
        found = self._topics.get(topic)
        member.topics.discard(topic)
        return found if found is not None and found.remove(member) else None

    async def _unsubscribe(self, topic: str, found: _Topic) -> None:
        """End the topic's subscription if nobody is left."""
        if found.members:
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

    def _forget(self, topic: str, found: _Topic) -> None:
        # Whoever holds the lock is at the transport, and forgets it afterwards.
        is_empty = not found.members and not found.subscribed and not found.lock.locked()
        if is_empty and self._topics.get(topic) is found:
            del self._topics[topic]

    async def publish(self, topic: str, packet: Packet) -> None:
        """Hand the packet to all processes. Raises ``BrokerUnavailable`` if that is not possible."""
        await self.transport.publish(topic, encode_packet(packet))

    async def send(self, channel: str, packet: Packet) -> None:
        """Hand the packet to one channel, wherever it is; nothing happens if there is none of that name."""
        addressed = for_channel(channel, packet)
        if addressed is not None:
            await self.publish(*addressed)

    async def _deliver(self, topic: str, data: bytes) -> None:
        try:
            packet = decode_packet(data)
            if packet.only is not None:
                member = self._channels.get(packet.only)
                if member is not None:
                    self._hand_over((member,), packet, {}, None)
                return
            found = self._topics.get(topic)
            if found is None:
                return
            group = topic[len(GROUP) :] if topic.startswith(GROUP) else None
            members = found.snapshot()
            if len(members) <= FAN_OUT_CHUNK and not found.fanning_out:
                self._hand_over(members, packet, {}, group)
            else:
                await self._fan_out(found, packet, group)
        except BadPacket as error:
            self.bad_packets += 1
            logger.warning("dropped a packet for %r: %s", topic, error)

    async def _fan_out(self, found: _Topic, packet: Packet, group: str | None) -> None:
        """Serve many members, chunk by chunk, after those fan-outs that began before."""
        if found.order is None:
            found.order = asyncio.Lock()
        cancelled: asyncio.CancelledError | None = None
        found.fanning_out += 1
        try:
            async with found.order:
                members, frames = found.snapshot(), dict[Any, Frame | None]()
                for start in range(0, len(members), FAN_OUT_CHUNK):
                    if start and cancelled is None:
                        try:
                            await asyncio.sleep(0)
                        except asyncio.CancelledError as error:
                            # The publisher is stopped. What some members have, the others get too.
                            cancelled = error
                    chunk = members[start : start + FAN_OUT_CHUNK]
                    if found.snapshot() is not members:  # Somebody left meanwhile: nothing more for them.
                        chunk = tuple(member for member in chunk if found.members.get(member.channel) is member)
                    self._hand_over(chunk, packet, frames, group)
        finally:
            found.fanning_out -= 1
        if cancelled is not None:
            raise cancelled

    def _hand_over(
        self, members: Iterable[Member], packet: Packet, frames: dict[Any, Frame | None], group: str | None
    ) -> None:
        """Raises ``BadPacket`` for a packet whose data is not of its kind."""
        if packet.exclude is not None:
            members = [member for member in members if member.channel != packet.exclude]
        if packet.kind == "event":
            self._hand_over_event(members, Event(packet.name, packet.data, group), frames, Droppable(group, packet.key))
        elif packet.kind == "message":
            for member in members:
                # Decoded for each: a consumer may change what it is given.
                member.receive(_message_of(packet))
        elif packet.kind == "close":
            code, reason = _close_of(packet)
            for member in tuple(members):
                member.close(code, reason)
        else:
            frame = _frame_of(packet)
            droppable = Droppable(group)
            for member in members:
                member.push(frame, droppable)

    def _hand_over_event(
        self, members: Iterable[Member], event: Event, frames: dict[Any, Frame | None], droppable: Droppable
    ) -> None:
        framer: Framer | None = None
        frame: Frame | None = None
        for member in members:
            if member.framer is not framer:
                framer = member.framer
                if framer not in frames:
                    frames[framer] = self._frame(framer, event)
                frame = frames[framer]
            if frame is not None:
                member.push(frame, droppable)

    def _frame(self, framer: Framer | None, event: Event) -> Frame | None:
        if framer is None:
            return None
        try:
            return framer.event(event)
        except Exception:
            logger.exception("the event %r could not be encoded; members with this encoding miss it", event.event)
            return None


def _message_of(packet: Packet) -> dict[str, Any]:
    message = _json_of(packet)
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise BadPacket("a message without a type")
    return message


def _close_of(packet: Packet) -> tuple[int, str]:
    match _json_of(packet):
        case [int(code), str(reason)]:
            return code, reason
    raise BadPacket("a close without code and reason")


def _json_of(packet: Packet) -> Any:
    try:
        return from_json(packet.data)
    except ValueError:
        raise BadPacket(f"the data of a {packet.kind} is not JSON") from None


def _frame_of(packet: Packet) -> Frame:
    try:
        if packet.kind == "text":
            packet.data.decode()
    except UnicodeDecodeError:
        raise BadPacket("a text that is not UTF-8") from None
    return Frame(packet.data, packet.kind == "text")
