"""The members of one topic in one process, and what is on its way to them. Owned by the hub."""

import asyncio
from collections import deque

from .fanning import MAX_TOGETHER, MAX_TOGETHER_BYTES, Fanning, Member, hand_over_together
from .messages import Position
from .stream import Stream


class Batch:
    """Packets that were published one after another, on their way to those who were members then."""

    __slots__ = ("ahead", "cursor", "fannings", "members", "number")

    def __init__(self, members: tuple[Member, ...], fanning: Fanning, number: int) -> None:
        self.members = members
        #: Its place among those of all topics.
        self.number = number
        self.fannings = [fanning]
        #: How many of the members have been served.
        self.cursor = 0
        #: Channel to how many of the packets it has had already, not having waited for its turn.
        self.ahead: dict[str, int] | None = None

    @property
    def is_done(self) -> bool:
        """Whether all members have been served."""
        return self.cursor == len(self.members)

    def takes(self, fanning: Fanning) -> bool:
        """Whether another packet for the same members goes along."""
        return (
            not self.cursor
            and fanning.is_for_all
            and self.fannings[0].is_for_all
            and len(self.fannings) < MAX_TOGETHER
            and sum(each.size for each in self.fannings) + fanning.size <= MAX_TOGETHER_BYTES
        )

    def hand_over(self, members: tuple[Member, ...], filtering: int) -> None:
        """Give these members what they have not had."""
        ahead = self.ahead
        if ahead is not None:
            for member in members:
                if member.channel in ahead:
                    self.catch_up(member, filtering)
            members = tuple(member for member in members if member.channel not in ahead)
        if len(self.fannings) == 1:
            self.fannings[0].hand_over(members, filtering=filtering)
        else:
            hand_over_together(self.fannings, members)

    def catch_up(self, member: Member, filtering: int) -> None:
        """Give one member what it has not had, now."""
        if self.ahead is None:
            self.ahead = {}
        had = self.ahead.get(member.channel, 0)
        self.ahead[member.channel] = len(self.fannings)
        for fanning in self.fannings[had:]:
            fanning.hand_over((member,), filtering=filtering)


class Topic:
    """The members of one topic in this process."""

    __slots__ = (
        "_lock", "_snapshot", "batches", "filtering", "last", "members", "name", "onlookers", "stream", "subscribed",
    )  # fmt: skip

    def __init__(self, subscribed: bool = False, name: str = "") -> None:
        #: The one text that all of its members have of it.
        self.name = name
        self.members: dict[str, Member] = {}
        #: How many of them do not count.
        self.onlookers = 0
        #: Whether its packets come; from the beginning where no transport has to be asked for them.
        self.subscribed = subscribed
        #: How many members have a say in what they are given.
        self.filtering = 0
        self._lock: asyncio.Lock | None = None
        #: What is on its way, in order.
        self.batches: deque[Batch] = deque()
        self._snapshot: tuple[Member, ...] | None = None
        #: Where a member came with a history.
        self.stream: Stream | None = None
        #: The last event with a position that came before there was a stream.
        self.last: Position | None = None

    @property
    def lock(self) -> asyncio.Lock:
        """Held while the topic is subscribed or unsubscribed at the transport."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    @property
    def is_locked(self) -> bool:
        return self._lock is not None and self._lock.locked()

    def add(self, member: Member) -> None:
        self.members[member.channel] = member
        self.onlookers += member.is_onlooker
        self.filtering += member.permits is not None
        self._snapshot = None

    def remove(self, member: Member) -> bool:
        self._snapshot = None
        if self.stream is not None:
            self.stream.late.pop(member.channel, None)
        if self.members.pop(member.channel, None) is None:
            return False
        self.onlookers -= member.is_onlooker
        self.filtering -= member.permits is not None
        return True

    @property
    def count(self) -> int:
        """Members that are connections."""
        return len(self.members) - self.onlookers

    def snapshot(self) -> tuple[Member, ...]:
        if self._snapshot is None:
            self._snapshot = tuple(self.members.values())
        return self._snapshot

    # -- what is on its way ----------------------------------------------------------------------------------------

    def put(self, fanning: Fanning, number: int) -> Batch | None:
        """Send a packet on its way to those who are members now. The batch that was made for it, if one was.

        ``None``: there are no members, or it goes along with the batch before it. That has to be this topic's and for
        the same members, so that nothing of another topic comes in between.

        Args:
            number: what a new batch would have, one more than the last one of all topics.
        """
        members, batches = self.snapshot(), self.batches
        last = batches[-1] if batches and not self.filtering else None
        if last is not None and last.number == number - 1 and last.members is members and last.takes(fanning):
            last.fannings.append(fanning)
            return None
        if not members:
            return None
        batch = Batch(members, fanning, number)
        batches.append(batch)
        return batch

    def serve(self, count: int) -> int:
        """Serve so many members of the first batch. How many were."""
        batch = self.batches[0]
        members = batch.members
        if not batch.cursor and len(members) <= count and self._snapshot is members:
            # All of them at once, and nobody has left.
            batch.cursor = len(members)
            self.batches.popleft()
            batch.hand_over(members, self.filtering)
            return batch.cursor
        chunk = batch.members[batch.cursor : batch.cursor + count]
        served = len(chunk)
        batch.cursor += served
        if batch.is_done:
            self.batches.popleft()
        if self.snapshot() is not batch.members:  # Somebody left meanwhile: nothing more for them.
            chunk = tuple(member for member in chunk if self.members.get(member.channel) is member)
        batch.hand_over(chunk, self.filtering)
        return served
