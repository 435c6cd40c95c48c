"""Members of a hub whose groups have a history, and what became of the events that they were sent."""

import asyncio
import json

from fastapi_consumers.exceptions import BrokerUnavailable
from fastapi_consumers.fanning import Member
from fastapi_consumers.history import History, MemoryHistoryStore
from fastapi_consumers.hub import Hub
from fastapi_consumers.messages import Position
from fastapi_consumers.packets import Packet
from fastapi_consumers.protocols import JSON_FRAMER
from fastapi_consumers.streams import Recovery
from fastapi_consumers.testing import FaultyTransport
from fastapi_consumers.transports import MemoryTransport

GROUP = "room"
ROOM = "group:room"
HISTORY = History(size=100)


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


class Store(MemoryHistoryStore):
    """Answers when it is let through, if it is told to be slow, and fails when it is away."""

    def __init__(self, **options):
        super().__init__(**options)
        self.is_slow = self.is_away = False
        #: Whether who is cancelled goes on, as up to Python 3.11 happens below redis-py (``asyncio.wait_for``).
        self.is_deaf = False
        self.reads = self.calls = 0
        self.waiting = []

    async def _pass(self):
        self.calls += 1
        if self.is_slow:
            gate = asyncio.get_running_loop().create_future()
            self.waiting.append(gate)
            while not gate.done():
                try:
                    await asyncio.shield(gate)
                except asyncio.CancelledError:
                    if not self.is_deaf:
                        raise
        if self.is_away:
            raise BrokerUnavailable

    async def let_through(self):
        """Let through what waits now."""
        await turns()
        waiting, self.waiting = [gate for gate in self.waiting if not gate.done()], []
        for gate in waiting:
            gate.set_result(None)
        await turns()
        return len(waiting)

    async def let_all_through(self):
        """Let through what waits now, and what comes of it."""
        for _ in range(50):
            if not await self.let_through():
                return
        raise AssertionError("the store is asked again and again")

    async def append(self, *args, **kwargs):
        if self.is_away:
            raise BrokerUnavailable
        return await super().append(*args, **kwargs)

    async def position(self, *args):
        found = await super().position(*args)
        await self._pass()
        return found

    async def positions(self, groups):
        await self._pass()
        return await super().positions(groups)

    async def read(self, *args, **kwargs):
        self.reads += 1
        # The answer is on its way while it waits.
        found = await super().read(*args, **kwargs)
        await self._pass()
        return found


class Recorder:
    """A member and what it got."""

    def __init__(self, hub, framer=JSON_FRAMER):
        self.frames = []
        self.messages = []
        self.hub = hub
        self.member = Member(hub.new_channel(), self.push, self.messages.append, lambda code, reason: None, 100)
        self.member.framer = framer
        hub.register(self.member)

    def push(self, frame, droppable=None):
        self.frames.append(json.loads(frame.payload))

    async def join(self, recover=None, *, recovers=False, history=HISTORY, max_events=1000, max_bytes=1 << 20):
        recovery = Recovery(recover, max_events, max_bytes) if recovers or recover is not None else None
        return await self.hub.join(ROOM, self.member, None, history, recovery)

    async def leave(self):
        return await self.hub.leave(ROOM, self.member)

    def take(self):
        """What came since the last call: notices as they are called, events as their offsets."""
        frames, self.frames = self.frames, []
        return [told(frame) for frame in frames]


def told(frame):
    if frame["type"] == "event":
        return frame.get("offset", frame["data"])
    if frame["type"] == "joined":
        recovered = {True: " recovered", False: " not recovered", None: ""}[frame.get("recovered")]
        return f"joined {frame['offset']}{recovered}"
    return frame["type"]


class World:
    """Hubs that share a store and a broker; each has a transport that goes wrong when it is told to."""

    def __init__(self, processes=1, **options):
        self.store = Store(**options)
        self.brokers = []
        self.transports = [FaultyTransport(Wire(self.brokers)) for _ in range(processes)]
        self.hubs = [Hub(transport, self.store) for transport in self.transports]

    async def __aenter__(self):
        for hub in self.hubs:
            await hub.open()
        return self

    async def __aexit__(self, *_):
        self.store.is_slow = self.store.is_away = False
        await self.store.let_through()
        for hub in self.hubs:
            await hub.close()

    @property
    def hub(self):
        return self.hubs[0]

    @property
    def transport(self):
        return self.transports[0]

    @property
    def streams(self):
        return self.hub.streams

    @property
    def epoch(self):
        return self.store._streams[GROUP].epoch

    def stream(self, process=0):
        return self.hubs[process].streams._streams[GROUP]

    async def say(self, count=1, *, process=0, history=HISTORY, **options):
        """Broadcast some events; their data is their offset."""
        for _ in range(count):
            found = self.store._streams.get(GROUP)
            data = b"%d" % (found.top + 1 if found is not None else 1)
            await self.hubs[process].append(GROUP, Packet("event", data, "said", **options), history)
        await turns()

    async def keep(self, count=1, **options):
        """Events that are kept, and whose packets reach nobody."""
        for transport in self.transports:
            transport.drop(count)
        await self.say(count, **options)

    async def purge(self):
        await self.store.remove(GROUP)

    def position(self, offset):
        return Position(self.epoch, offset)


class Wire(MemoryTransport):
    """Carries packets to all that have the same list."""

    def __init__(self, ends):
        super().__init__()
        self._ends = ends
        ends.append(self)

    async def publish(self, topic, packet):
        for end in self._ends:
            await MemoryTransport.publish(end, topic, packet)
