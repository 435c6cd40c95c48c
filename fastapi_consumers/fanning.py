"""Handing one packet to its members in this process: a frame is made once for each framer, and pushed to each outbox.

Used by the hub, which says who they are and in which order packets come.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

from pydantic_core import from_json

from .backlog import UNCOUNTED, Droppable, Entries
from .messages import Event, Frame, Notice
from .packets import BadPacket, Packet
from .permissions import Delivery
from .protocols import Framer
from .redaction import without_input
from .types import new_tuple

logger = logging.getLogger(__name__)

#: Packets that go to a member together, and bytes of their data: no more than a server takes at once, with all that is
#: around it, before it says that it has enough (64 KiB).
MAX_TOGETHER, MAX_TOGETHER_BYTES = 16, 32 * 1024
#: Frames that wait for a member until it has been told where it joined; beyond this it starts over.
MAX_HELD = 4096


class Member:
    """One consumer as the hub sees it: where its frames go and how they are made."""

    __slots__ = (
        "channel", "close", "consumer", "framer", "has_left", "is_onlooker", "max_topics", "permits", "push",
        "push_all", "receive", "topics",
    )  # fmt: skip

    def __init__(
        self,
        channel: str,
        push: Callable[[Frame, Droppable | None], None],
        receive: Callable[..., None],
        close: Callable[[int, str], None],
        max_topics: int,
        push_all: Callable[[Entries, bytes], None] | None = None,
    ) -> None:
        self.channel = channel
        #: What it is a member of, so that it can leave all of it; the hub keeps this. For most it is one or two, and a
        #: tuple takes a quarter of what a set does.
        self.topics: tuple[str, ...] = ()
        self.max_topics = max_topics
        #: Whether it has left for good, so that nothing late makes it a member again.
        self.has_left = False
        #: Whether it is no connection that counts, but somebody who looks on.
        self.is_onlooker = False
        #: Known once the subprotocol has been chosen; until then, and for raw consumers, events are not framed.
        self.framer: Framer | None = None
        #: The consumer, once there is one.
        self.consumer: Any = None
        #: Whether an event of a group is for it; ``None``: all are. Set before it joins anything, and never changed.
        self.permits: Callable[[Delivery], bool] | None = None
        self.push = push
        #: Takes several frames, and the bytes of all of them.
        self.push_all = push_all if push_all is not None else self._push_each
        self.receive = receive
        self.close = close

    def joined(self, topic: str) -> None:
        """Remember that it is a member of this."""
        self.topics += (topic,)

    def left(self, topic: str) -> None:
        """Forget that it was a member of this."""
        self.topics = tuple([each for each in self.topics if each != topic])

    def detach(self) -> None:
        """Hold nothing of its connection any more, and take nothing. Called once it has left everything for good."""
        self.consumer = self.permits = None
        self.push = self.push_all = self.receive = self.close = _nothing

    def _push_each(self, entries: Entries, wire: bytes) -> None:
        for frame, droppable in entries:
            self.push(frame, droppable)


def _nothing(*_: object) -> None:
    return None


class Held:
    """What waits for a member of a stream until it has been told where it joined."""

    __slots__ = ("frames", "overflowed")

    def __init__(self) -> None:
        #: Offset, where there is one, and the frame; ``None`` for an event that this member does not get, which would
        #: look like a hole otherwise.
        self.frames: list[tuple[int | None, Frame | None]] = []
        self.overflowed = False

    def add(self, offset: int | None, frame: Frame | None) -> None:
        if len(self.frames) < MAX_HELD:
            self.frames.append((offset, frame))
        else:
            self.overflowed = True

    def clear(self) -> None:
        """Start over after an overflow."""
        if self.overflowed:
            self.frames.clear()
            self.overflowed = False


#: Channel to what waits for it, or to the offset up to which it has everything already.
Late = dict[str, Held | int]


class Fanning:
    """One packet on its way to the members of a topic, possibly in several chunks.

    Args:
        group: the topic's group, if it is one.
        offset: the packet's, in a group with history.
        late: in a group with history, who joined just now.

    Raises ``BadPacket`` for a packet whose data is not of its kind, before anybody has got anything.
    """

    __slots__ = ("_closing", "_event", "_frames", "_group", "_late", "_notice", "_offset", "_packet", "_single")

    def __init__(self, packet: Packet, group: str | None = None, offset: int | None = None, late: Late | None = None):
        self._packet = packet
        self._group = group
        self._offset = offset
        self._late = late
        self._frames: dict[Framer | None, tuple[Frame | None, Droppable]] = {}
        self._event: Event | None = None
        self._notice: Notice | None = None
        self._single: Frame | None = None
        self._closing = (0, "")
        if packet.kind == "event":
            self._event = new_tuple(Event, (packet.name, packet.data, group, offset))
        elif packet.kind == "notice":
            self._notice = _notice_of(packet)
        elif packet.kind == "close":
            self._closing = _close_of(packet)
        elif packet.kind == "message":
            _message_of(packet)
        else:
            self._single = _frame_of(packet)

    @property
    def is_for_all(self) -> bool:
        """Whether all members get the same frame, so that it may go along with others."""
        return self._packet.exclude is None and (self._event is not None or self._single is not None)

    @property
    def size(self) -> int:
        """Bytes of the packet's data."""
        return len(self._packet.data)

    def entry(self, framer: Framer | None) -> tuple[Frame | None, Droppable]:
        """The frame for members with this framer, if they get one. Only where it is for all."""
        if self._single is not None:
            return self._single, Droppable(self._group)
        if framer not in self._frames:
            self._frames[framer] = self._frame(framer)
        return self._frames[framer]

    def hand_over(self, members: Iterable[Member], *, filtering: int = 0) -> None:
        """Give it to these members.

        Args:
            filtering: how many of them, or of others, have a say in what they are given; 0 if none has.
        """
        packet = self._packet
        if filtering and self._group is not None:
            members = self._permitted(members, self._group)
        if packet.exclude is not None:
            members = self._without(packet.exclude, members)
        if self._event is not None:
            self._push_event(members, self._late)
        elif self._notice is not None:
            tell(members, self._notice, self._late)
        elif self._single is not None:
            droppable, late = Droppable(self._group), self._late
            for member in members:
                if not late or member.channel not in late or self._is_due(member, late, self._single):
                    member.push(self._single, droppable)
        elif packet.kind == "message":
            trace = () if packet.trace is None else (packet.trace,)
            for member in members:
                # Decoded for each: a consumer may change what it is given.
                member.receive(_message_of(packet), *trace)
        else:
            for member in tuple(members):
                member.close(*self._closing)

    def _permitted(self, members: Iterable[Member], group: str) -> list[Member]:
        """Those whose permissions let them have it, each asked once."""
        if self._event is None and self._single is None:
            return list(members)
        delivery = delivery_of(self._packet, group, self._offset)
        permitted, failures = [], 0
        for member in members:
            is_permitted = member.permits is None
            if member.permits is not None:
                try:
                    is_permitted = member.permits(delivery)
                except Exception as error:
                    failures += 1
                    if failures == 1:  # One event, one traceback, however many there are that it fails for.
                        text = "a delivery permission failed on %r: it is withheld"
                        extra = {"connection": member.channel, "group": delivery.group}
                        logger.error(text, delivery, exc_info=without_input(error), extra=extra)
            if is_permitted:
                permitted.append(member)
            elif self._late and member.channel in self._late:
                self._is_due(member, self._late, None)
        if failures > 1:
            text = "a delivery permission failed on %r for %d members"
            logger.error(text, delivery, failures, extra={"group": delivery.group})
        return permitted

    def _without(self, channel: str, members: Iterable[Member]) -> list[Member]:
        others = []
        for member in members:
            if member.channel != channel:
                others.append(member)
            elif self._late and member.channel in self._late:
                self._is_due(member, self._late, None)
        return others

    def _push_event(self, members: Iterable[Member], late: Late | None) -> None:
        framer: Framer | None = None
        frame: Frame | None = None
        droppable: Droppable | None = None
        for member in members:
            if member.framer is not framer:
                framer = member.framer
                frame, droppable = self.entry(framer)
            if late and member.channel in late and not self._is_due(member, late, frame):
                continue
            if frame is not None:
                member.push(frame, droppable)

    def is_early(self, member: Member) -> bool:
        """Whether the member joined just now, and may not be due to get this."""
        return bool(self._late) and member.channel in cast(Late, self._late)

    def _is_due(self, member: Member, late: Late, frame: Frame | None) -> bool:
        """Whether a member that joined just now gets this; if it is too early, it is held."""
        state, offset = late[member.channel], self._offset
        if isinstance(state, Held):
            state.add(offset, frame)
            return False
        if offset is None:
            return True
        if offset <= state:
            return False
        del late[member.channel]
        return True

    def _frame(self, framer: Framer | None) -> tuple[Frame | None, Droppable]:
        group, key = self._group, self._packet.key
        if framer is None or self._event is None:
            return None, Droppable(group, key)
        droppable = new_tuple(Droppable, (group, key, None))
        if self._offset is not None and group is not None:
            droppable = Droppable(group, key, lambda: gap_frame(framer, group))
        try:
            return framer.event(self._event), droppable
        except Exception as error:
            why = "the event %r could not be encoded; members with this encoding miss it"
            logger.error(why, self._packet.name, exc_info=without_input(error))
            return None, droppable


def hand_over_together(fannings: Sequence[Fanning], members: Iterable[Member]) -> None:
    """Give packets that are for all to these members, to each of them all at once."""
    made: dict[Framer | None, tuple[Entries, bytes]] = {}
    for member in members:
        if fannings[-1].is_early(member):
            for fanning in fannings:
                fanning.hand_over((member,))
            continue
        framer = member.framer
        found = made.get(framer)
        if found is None:
            entries = [fanning.entry(framer) for fanning in fannings]
            kept: Entries = [(frame, droppable) for frame, droppable in entries if frame is not None]
            found = made[framer] = kept, b"".join([frame.wire for frame, _ in kept])
        if found[0]:
            member.push_all(*found)


def push_together(member: Member, frames: Iterable[Frame]) -> None:
    """Give one member frames that are not counted against its queue, ``MAX_TOGETHER_BYTES`` at once."""
    entries: Entries = []
    size = 0
    for frame in frames:
        if entries and size + frame.size > MAX_TOGETHER_BYTES:
            member.push_all(entries, b"".join([each.wire for each, _ in entries]))
            entries, size = [], 0
        entries.append((frame, UNCOUNTED))
        size += frame.size
    if entries:
        member.push_all(entries, b"".join([each.wire for each, _ in entries]))


def delivery_of(packet: Packet, group: str, offset: int | None) -> Delivery:
    """The packet, as the permissions of those it may go to see it."""
    if packet.kind == "event":
        return Delivery(packet.name, group, partial(from_json, packet.data), offset)
    return Delivery("", group, packet.data.decode if packet.kind == "text" else partial(bytes, packet.data), offset)


def tell(members: Iterable[Member], notice: Notice, late: Late | None = None) -> None:
    """Send a notice to all members that have a framer.

    Notices of presence may be dropped, as events may. Those of a stream are not, and who waits to be told where it
    joined does not need them.
    """
    frames: dict[Framer, Frame | None] = {}
    droppable = Droppable(notice.fields.get("group")) if notice.type == "presence" else None
    for member in members:
        framer = member.framer
        held = late.get(member.channel) if late else None
        if framer is None or (isinstance(held, Held) and droppable is None):
            continue
        if framer not in frames:
            frames[framer] = _notice_frame(framer, notice)
        frame = frames[framer]
        if frame is None:
            continue
        if isinstance(held, Held) and droppable is not None:
            held.add(None, frame)
        else:
            member.push(frame, droppable)


def _notice_frame(framer: Framer, notice: Notice) -> Frame | None:
    try:
        return framer.notice(notice)
    except Exception as error:
        why = "the notice %r could not be encoded; members with this encoding miss it"
        logger.error(why, notice.type, exc_info=without_input(error))
        return None


def gap_frame(framer: Framer, group: str) -> Frame:
    """The notice that events of this group may have been missed."""
    return framer.notice(Notice("gap", {"group": group}))


def _message_of(packet: Packet) -> dict[str, Any]:
    message = _json_of(packet)
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise BadPacket("a message without a type")
    return message


def _notice_of(packet: Packet) -> Notice:
    fields = _json_of(packet)
    if not isinstance(fields, dict):
        raise BadPacket("a notice without fields")
    return Notice(cast(Any, packet.name), fields)


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
    if packet.kind not in ("text", "bytes"):
        raise BadPacket(f"a packet of the kind {packet.kind!r} is nothing for members")
    try:
        if packet.kind == "text":
            packet.data.decode()
    except UnicodeDecodeError:
        raise BadPacket("a text that is not UTF-8") from None
    return Frame(packet.data, packet.kind == "text")
