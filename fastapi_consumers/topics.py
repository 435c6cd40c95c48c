"""The members of one topic in one process. Owned by the hub."""

import asyncio

from .fanning import Member
from .messages import Position
from .stream import Stream


class Topic:
    """The members of one topic in this process."""

    __slots__ = ("_snapshot", "filtering", "last", "lock", "members", "onlookers", "serving", "stream", "subscribed")

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        #: How many of them do not count.
        self.onlookers = 0
        self.subscribed = False
        #: How many members have a say in what they are given.
        self.filtering = 0
        #: Held while the topic is subscribed or unsubscribed at the transport.
        self.lock = asyncio.Lock()
        #: Done when the last one has ended of the fan-outs that let others run in between. None overtakes another.
        self.serving: asyncio.Future[None] | None = None
        self._snapshot: tuple[Member, ...] | None = None
        #: Where a member came with a history.
        self.stream: Stream | None = None
        #: The last event with a position that came before there was a stream.
        self.last: Position | None = None

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
