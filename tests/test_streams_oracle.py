"""Whatever happens to packets, streams, stores and members, in whatever order: nobody is lied to.

Each client checks every frame when it comes: the next event is the next one, unless a gap was told; then what is left
out was really gone. In calm weather everybody has everything.
"""

import asyncio
import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastapi_consumers import streams
from fastapi_consumers.exceptions import BrokerUnavailable
from fastapi_consumers.messages import Position
from fastapi_consumers.packets import Packet
from tests.history.tools import GROUP, HISTORY, ROOM, Recorder, World, turns

PROCESSES = st.integers(0, 1)
#: What goes on until it is ended would make most runs pointless if it were not.
SELDOM = st.sampled_from([False, False, False, True])
MAX_RECOVERY = 8


class Client:
    """One that remembers its position, comes and goes, and notes every lie."""

    def __init__(self, machine):
        self.machine = machine
        self.position = None
        self.has_gap = False
        self.recorder = None
        self.joining = None
        #: What it asked for when it joined, and whether it has been told where that was.
        self.asked = None
        self.is_told = False

    @property
    def is_there(self):
        return self.recorder is not None

    def connect(self, process):
        hub = self.machine.world.hubs[process]
        self.recorder = recorder = Recorder(hub)
        recorder.member.push = lambda frame, droppable=None: self.feed(recorder, json.loads(frame.payload))
        self.asked, self.is_told = self.position, False
        join = recorder.join(self.position, max_events=MAX_RECOVERY)
        self.joining = self.machine.runner.get_loop().create_task(join)

    def feed(self, recorder, frame):
        self.machine.learn_epoch()
        try:
            problem = self.check(frame) if recorder is self.recorder else f"left, and got {frame}"
        except (KeyError, IndexError, ValueError) as error:
            problem = f"{frame} of nowhere: {error!r}"
        if problem is not None:
            self.machine.lies.append(problem)

    def check(self, frame):
        if not self.is_told and frame["type"] != "joined":
            return f"{frame} before it was told where it joined"
        if frame["type"] == "gap":
            self.has_gap = True
            return None if self.machine.something_was_lost else "a gap, and nothing was ever lost"
        if frame["type"] == "joined":
            return self.check_joined(Position(frame["epoch"], frame["offset"]), frame.get("recovered"))
        log, offset = self.machine.logs[self.position.epoch], frame["offset"]
        expected = self.expected()
        if frame["data"] != log[offset - 1]:
            return f"{frame} is not event {offset} of {self.position.epoch}, which is {log[offset - 1]}"
        if offset < expected or (offset > expected and not self.has_gap):
            return f"event {offset} after {self.position}, gap: {self.has_gap}"
        if offset > self.expected(is_gone=self.has_gap):
            return f"event {offset} after {self.position} and a gap, and one between them was there"
        self.position, self.has_gap = Position(self.position.epoch, offset), False
        return None

    def check_joined(self, position, recovered):
        before, had_gap = self.position, self.has_gap
        self.position, self.has_gap = position, False
        if self.is_told:
            if not had_gap or position.offset or not self.machine.is_later(position.epoch, before.epoch):
                return f"{position} after {before}, gap: {had_gap}"
            return None
        self.is_told = True
        if (self.asked is None) is not (recovered is None):
            return f"asked for {self.asked}, recovered: {recovered}"
        return f"recovered {self.asked} as {position}" if recovered and position != self.asked else None

    def expected(self, *, is_gone=False):
        """The first event to come; with ``is_gone``, of those that are still there."""
        excluded, channel, (epoch, offset) = self.machine.excluded, self.recorder.member.channel, self.position
        if is_gone:
            offset = max(offset, self.machine.trimmed[epoch])
        while excluded.get((epoch, offset + 1)) == channel:
            offset += 1
        return offset + 1


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.patched = streams.RETRY, streams.EPOCH_TIMEOUT
        streams.RETRY, streams.EPOCH_TIMEOUT = 0.0, 600.0
        self.runner = asyncio.Runner()
        self.world = World(2)
        self.run(self.world.__aenter__())
        self.clients = []
        self.lies = []
        self.epochs = []
        self.logs = {}
        self.trimmed = {}
        self.excluded = {}
        self.number = 0
        self.something_was_lost = False

    def run(self, coroutine):
        return self.runner.run(coroutine)

    def teardown(self):
        try:
            # Every run ends with a look at what everybody has.
            self.publish(0, 2, None)
            self.calm()
            self.nobody_is_lied_to()
        finally:
            self.close()

    def close(self):
        self.run(self.world.__aexit__())
        for client in self.clients:
            if client.joining is not None:
                client.joining.cancel()
        self.run(turns())
        self.runner.close()
        streams.RETRY, streams.EPOCH_TIMEOUT = self.patched

    def is_later(self, epoch, other):
        self.learn_epoch()
        return self.epochs.index(epoch) > self.epochs.index(other)

    def learn_epoch(self):
        stream = self.world.store._streams.get(GROUP)
        if stream is not None and stream.epoch not in self.logs:
            self.epochs.append(stream.epoch)
            self.logs[stream.epoch], self.trimmed[stream.epoch] = [], 0
        return stream

    # -- what may happen ---------------------------------------------------------------------------------------------

    @rule(process=PROCESSES, count=st.integers(1, 4), excluded=st.none() | st.integers(0, 5))
    def publish(self, process, count, excluded):
        there = [client for client in self.clients if client.is_there]
        channel = there[excluded % len(there)].recorder.member.channel if there and excluded is not None else None

        async def publish():
            for _ in range(count):
                self.number += 1
                packet = Packet("event", b"%d" % self.number, "said", exclude=channel)
                stream = self.learn_epoch()
                epoch = stream.epoch if stream is not None else None
                # Noted first: it is delivered before append() returns.
                if epoch is not None and not self.world.store.is_away:
                    self.logs[epoch].append(self.number)
                    self.excluded[epoch, len(self.logs[epoch])] = channel
                try:
                    position = await self.world.hubs[process].append(GROUP, packet, HISTORY)
                except BrokerUnavailable:
                    assert self.world.store.is_away
                    continue
                self.learn_epoch()
                if epoch is None:
                    self.logs[position.epoch].append(self.number)
                    self.excluded[position.epoch, 1] = channel
                assert position.offset == len(self.logs[position.epoch])
            await turns()

        self.run(publish())

    @rule(process=PROCESSES, count=st.integers(1, 4), fate=st.sampled_from(["drop", "duplicate", "delay", "reorder"]))
    def spoil(self, process, count, fate):
        getattr(self.world.transports[process], fate)(count)

    @rule(process=PROCESSES, count=st.none() | st.integers(1, 3), shuffled=st.booleans())
    def release(self, process, count, shuffled):
        async def release():
            await self.world.transports[process].release(count, shuffled=shuffled)
            await turns()

        self.run(release())

    @rule(process=PROCESSES, is_lost=SELDOM)
    def lose_the_broker(self, process, is_lost):
        if is_lost:
            self.world.transports[process].die()

    @rule(process=PROCESSES)
    def find_the_broker(self, process):
        async def revive():
            await self.world.transports[process].revive()
            await turns()

        self.run(revive())

    @rule(is_away=SELDOM)
    def lose_or_find_the_store(self, is_away):
        self.world.store.is_away = is_away
        self.run(turns(3))

    @rule(is_slow=SELDOM)
    def slow_the_store_down(self, is_slow):
        self.world.store.is_slow = is_slow

    @rule()
    def let_through(self):
        self.run(self.world.store.let_through())

    @rule(left=st.integers(0, 4))
    def trim(self, left):
        stream = self.learn_epoch()
        if stream is not None:
            while len(stream.entries) > left:
                offset = stream.entries.popleft()[0]
                self.trimmed[stream.epoch] = offset
                self.something_was_lost = True

    @rule()
    def purge(self):
        if self.learn_epoch() is not None:
            self.something_was_lost = True
            self.run(self.world.purge())

    @rule()
    def look_at_quiet_groups(self):
        async def check():
            for hub in self.world.hubs:
                looking = asyncio.create_task(hub.streams.check())
                await turns()
                if not looking.done():
                    looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)

        self.run(check())

    @precondition(lambda self: len(self.clients) < 6)
    @rule(process=PROCESSES)
    def join(self, process):
        client = Client(self)
        self.clients.append(client)
        self.connect(client, process)

    @rule(index=st.integers(0, 5), process=PROCESSES)
    def come_back(self, index, process):
        gone = [client for client in self.clients if not client.is_there]
        if gone:
            self.connect(gone[index % len(gone)], process)

    def connect(self, client, process):
        async def connect():
            client.connect(process)
            await turns()

        self.run(connect())
        self.look_at_joins()

    @rule(index=st.integers(0, 5), is_cancelled=st.booleans())
    def leave(self, index, is_cancelled):
        there = [client for client in self.clients if client.is_there]
        if not there:
            return
        client = there[index % len(there)]

        async def leave():
            if is_cancelled:
                client.joining.cancel()
            recorder, client.recorder = client.recorder, None
            await recorder.hub.leave_all(recorder.member)
            await turns()

        self.run(leave())

    @rule()
    def calm(self):
        """Nothing goes wrong any more: everybody gets everything."""
        store, clients = self.world.store, self.clients

        async def calm():
            store.is_away = store.is_slow = False
            for transport in self.world.transports:
                transport.calm()
                await transport.revive()
                await transport.release()
            while await store.let_through():
                pass
            await turns(100)
            for _ in range(2):
                for hub in self.world.hubs:
                    await hub.streams.check()
                await turns(100)

        self.run(calm())
        self.look_at_joins()
        stream = self.learn_epoch()
        for client in clients:
            if client.is_there:
                assert client.joining.done()
                assert client.position.epoch == stream.epoch
                assert client.expected(is_gone=client.has_gap) == stream.top + 1

    @rule(index=st.integers(0, 5), process=PROCESSES)
    def come_back_in_calm_weather(self, index, process):
        """What can be recovered is."""
        gone = [client for client in self.clients if not client.is_there and client.position is not None]
        if not gone:
            return
        self.calm()
        client = gone[index % len(gone)]
        asked, stream = client.position, self.learn_epoch()
        is_possible = (
            stream is not None
            and asked.epoch == stream.epoch
            and asked.offset >= self.trimmed[stream.epoch]
            and stream.top - asked.offset <= MAX_RECOVERY
        )
        before = sum(hub.streams.recovered for hub in self.world.hubs)
        self.connect(client, process)
        assert sum(hub.streams.recovered for hub in self.world.hubs) - before == is_possible
        self.calm()

    # -- what always holds -------------------------------------------------------------------------------------------

    def look_at_joins(self):
        for client in self.clients:
            if client.is_there and client.joining.done() and client.joining.exception() is not None:
                assert isinstance(client.joining.exception(), BrokerUnavailable)
                client.recorder = None

    @invariant()
    def nobody_is_lied_to(self):
        self.look_at_joins()
        assert not self.lies, self.lies

    @invariant()
    def nothing_piles_up(self):
        for hub in self.world.hubs:
            stream = hub.streams._streams.get(GROUP)
            members = hub._topics[ROOM].members if ROOM in hub._topics else {}
            assert len(hub.streams._tasks) <= 1 + sum(not task.done() for task in hub.streams._tasks)
            if stream is not None:
                assert set(stream.late) <= set(members)


TestStreamsOracle = Machine.TestCase
TestStreamsOracle.settings = settings(
    max_examples=200, stateful_step_count=30, report_multiple_bugs=False, deadline=None
)
