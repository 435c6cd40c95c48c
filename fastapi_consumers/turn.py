"""The end of the event loop's turn, at which everything that was published in it goes to the members. Owned by the hub.

What is published for one group in the same turn reaches a member in one write, and a group with many members keeps
nobody waiting: so many are served in each turn, of all groups in rotation.
"""

import asyncio
from collections import deque

from .fanning import Fanning
from .topics import Topic

#: Members that are served in one turn: at some 6 µs each, about 3 ms.
CHUNK = 512
#: Deliveries that may be on their way before whoever publishes more has to wait.
MAX_LOAD = 16 * 1024


class Turn:
    """Topics with something on its way."""

    __slots__ = ("_load", "_topics", "_waiting", "is_due")

    def __init__(self) -> None:
        self._topics: deque[Topic] = deque()
        self._load = 0
        self._waiting: list[asyncio.Future[None]] = []
        #: Whether anything is on its way.
        self.is_due = False

    def put(self, topic: Topic, fanning: Fanning) -> None:
        """Have a packet handed to the members that the topic has now, when the turn ends."""
        is_new = not topic.batches
        count = topic.put(fanning)
        if not count:
            return
        self._load += count
        if is_new:
            self._topics.append(topic)
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
            self._load -= topic.serve(CHUNK)[1]

    def _end(self) -> None:
        topics, left = self._topics, CHUNK
        try:
            while topics and left > 0:
                topic = topics.popleft()
                try:
                    served, deliveries = topic.serve(left)
                    left -= served
                    self._load -= deliveries
                finally:
                    if topic.batches:
                        topics.append(topic)
        finally:
            self.is_due = bool(topics)
            if topics:
                asyncio.get_running_loop().call_soon(self._end)
            else:
                self._load = 0
            if self._waiting and self._load <= MAX_LOAD:
                waiting, self._waiting = self._waiting, []
                for future in waiting:
                    if not future.done():
                        future.set_result(None)
