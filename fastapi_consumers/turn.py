"""The end of the event loop's turn, at which everything that was published in it goes to the members, and answers are
written that were put aside. Owned by the hub.

What is published for a group one after the other, in the same turn, reaches a member in one write. All leaves in the
order in which it was published; but a group with many members keeps nobody waiting: a turn serves so many, and what
others are sent goes ahead of the rest.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from .fanning import Fanning, Member
from .gathering import Gathering
from .topics import Batch, Topic

#: Members that are served in one turn: at some 6 µs each, about 3 ms.
CHUNK = 512
#: Deliveries that may be on their way before whoever publishes more has to wait.
MAX_LOAD = 16 * 1024


class Turn:
    """What is on its way, of all topics."""

    __slots__ = ("_batches", "_gathering", "_load", "_next", "_waiting", "gathers", "is_due")

    def __init__(self) -> None:
        self._batches: deque[tuple[Topic, Batch]] = deque()
        #: The number of the next batch.
        self._next = 1
        self._load = 0
        self._waiting: list[asyncio.Future[None]] = []
        #: Whether anything is on its way.
        self.is_due = False
        self._gathering = Gathering()
        #: Whether an answer is put aside until the turn ends.
        self.gathers = self._gathering.takes

    def put(self, topic: Topic, fanning: Fanning) -> None:
        """Have a packet handed to the members that the topic has now, when the turn ends."""
        batch = topic.put(fanning, self._next)
        if batch is not None:
            self._next += 1
            self._batches.append((topic, batch))
        elif not topic.batches:
            return  # Nobody is there.
        self._load += len(topic.members)
        if not self.is_due:
            self.is_due = True
            asyncio.get_running_loop().call_soon(self._end)

    @property
    def is_full(self) -> bool:
        """Whether so much is on its way that whoever publishes more has to wait for room."""
        return self._load > MAX_LOAD

    async def room(self) -> None:
        """Wait while too much is on its way."""
        while self.is_full:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting

    def settle(self, topic: Topic) -> None:
        """Hand over all that is on its way to a topic's members, now."""
        while topic.batches:
            packets = len(topic.batches[0].fannings)
            self._load -= topic.serve(CHUNK) * packets

    def finish(self) -> None:
        """Hand over everything, now: the event loop may end before its turn does, and another one begin."""
        while self._batches:
            self.settle(self._batches.popleft()[0])
        self.is_due = False
        self._gathering.release()

    def _end(self) -> None:
        batches, left = self._batches, CHUNK
        try:
            for _ in range(len(batches)):
                topic, batch = batches.popleft()
                if batch.is_done:
                    continue  # It was settled.
                try:
                    # Of one topic none goes ahead of another.
                    if topic.batches[0] is batch:
                        packets = len(batch.fannings)
                        served = topic.serve(left)
                        left -= served
                        self._load -= served * packets
                finally:
                    if not batch.is_done:
                        batches.append((topic, batch))
                if left <= 0:
                    break
        finally:
            self.is_due = bool(batches)
            if batches:
                asyncio.get_running_loop().call_soon(self._end)
            else:
                self._load = 0
            if self._waiting and not self.is_full:
                waiting, self._waiting = self._waiting, []
                for future in waiting:
                    if not future.done():
                        future.set_result(None)


def catch_up(member: Member, topics: Iterable[Topic]) -> None:
    """Give one member all that is on its way to it, now and in the order in which it was published."""
    found = [(batch.number, batch, topic) for topic in topics for batch in topic.batches]
    for _, batch, topic in sorted(found):
        if member in batch.members[batch.cursor :]:
            batch.catch_up(member, topic.filtering)
