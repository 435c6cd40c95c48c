import asyncio
import logging
from collections import Counter

import ormsgpack
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastapi_consumers.addressing import GROUP, PROCESS
from fastapi_consumers.codecs import encode_json
from fastapi_consumers.exceptions import BrokerUnavailable, GroupFull, TooManyGroups
from fastapi_consumers.hub import Hub, Member
from fastapi_consumers.messages import text_frame
from fastapi_consumers.packets import Packet, encode_packet
from fastapi_consumers.protocols import JSON_FRAMER, MSGPACK_FRAMER
from fastapi_consumers.transports import MemoryTransport, Transport
from fastapi_consumers.turn import CHUNK

ROOM = GROUP + "room"


class SlowTransport(Transport):
    """Nothing is subscribed or unsubscribed before it is let through, and it fails when told to.

    It holds callers to the contract: a topic is subscribed once until it is unsubscribed, however that ends.
    """

    def __init__(self, slow=True):
        self.slow = slow
        self.deliver = None
        self.subscribed = set()
        self.waiting = []
        self.fail_next = 0
        self.calls = []

    async def open(self, deliver):
        self.deliver = deliver

    async def close(self):
        self.deliver = None

    async def publish(self, topic, packet):
        if topic in self.subscribed:
            await self.deliver(topic, packet)

    async def subscribe(self, topic):
        assert topic not in self.subscribed, f"{topic} is subscribed twice"
        await self._wait("subscribe", topic)
        self.subscribed.add(topic)

    async def unsubscribe(self, topic):
        try:
            await self._wait("unsubscribe", topic)
        finally:
            self.subscribed.discard(topic)

    async def _wait(self, call, topic):
        self.calls.append((call, topic))
        if self.slow and topic.startswith(GROUP):
            gate = asyncio.get_running_loop().create_future()
            self.waiting.append(gate)
            await gate
        if self.fail_next:
            self.fail_next -= 1
            raise BrokerUnavailable

    async def let_through(self):
        """Let everything through that waits, and what comes to wait because of it."""
        while True:
            await turns()
            waiting, self.waiting = [gate for gate in self.waiting if not gate.done()], []
            if not waiting:
                return
            for gate in waiting:
                gate.set_result(None)


class Recorder:
    """A member and what it got."""

    def __init__(self, hub, framer=JSON_FRAMER, max_topics=10):
        self.hub = hub
        self.got = []
        self.messages = []
        self.closed = []
        self.member = Member(
            hub.new_channel(), self.push, self.messages.append, lambda *args: self.closed.append(args), max_topics
        )
        self.member.framer = framer
        hub.register(self.member)

    def push(self, frame, droppable=None):
        self.got.append(frame)

    @property
    def frames(self):
        """All that it got, or would have when the turn has ended."""
        self.hub.catch_up(self.member)
        return self.got

    @property
    def texts(self):
        return [frame.message.get("text", frame.message.get("bytes")) for frame in self.frames]


async def turns(count=8):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def hub():
    hub = Hub(MemoryTransport())
    await hub.open()
    yield hub
    await hub.close()


@pytest.fixture
async def slow():
    hub = Hub(SlowTransport())
    await hub.open()
    yield hub
    await hub.close()


def text(value):
    return Packet("text", str(value).encode())


def event(value, name="said", **options):
    return Packet("event", encode_json(value), name, **options)


def is_empty(hub):
    return not hub._topics and not hub._channels


# -- membership --------------------------------------------------------------------------------------------------------


async def test_members_get_what_is_published_from_the_moment_that_join_returns_until_they_leave(hub):
    one, two = Recorder(hub), Recorder(hub)
    await hub.publish(ROOM, text(0))
    assert await hub.join(ROOM, one.member) is True
    assert await hub.join(ROOM, one.member) is False
    await hub.publish(ROOM, text(1))
    await hub.join(ROOM, two.member)
    assert (hub.count(ROOM), list(hub.topics())) == (2, [ROOM])
    await hub.publish(ROOM, text(2))
    assert await hub.leave(ROOM, one.member) is True
    assert await hub.leave(ROOM, one.member) is False
    await hub.publish(ROOM, text(3))
    assert (one.texts, two.texts) == (["1", "2"], ["2", "3"])
    await hub.leave_all(two.member)
    await hub.leave_all(one.member)
    assert is_empty(hub)
    assert hub.count(ROOM) == 0


async def test_the_topic_is_subscribed_while_it_has_members(slow):
    slow.transport.slow = False
    one, two = Recorder(slow), Recorder(slow)
    await slow.join(ROOM, one.member)
    await slow.join(ROOM, two.member)
    await slow.leave(ROOM, one.member)
    await slow.leave(ROOM, two.member)
    await slow.join(ROOM, one.member)
    calls = [call for call, topic in slow.transport.calls if topic == ROOM]
    assert calls == ["subscribe", "unsubscribe", "subscribe"]


async def test_leaving_what_one_is_not_in_does_nothing(hub):
    member = Recorder(hub).member
    assert await hub.leave(ROOM, member) is False
    other = Recorder(hub)
    await hub.join(ROOM, other.member)
    assert await hub.leave(ROOM, member) is False
    assert hub.count(ROOM) == 1


async def test_concurrent_first_joins_subscribe_once_and_both_are_members(slow):
    one, two = Recorder(slow), Recorder(slow)
    joins = [asyncio.create_task(slow.join(ROOM, each.member)) for each in (one, two)]
    await turns()
    assert not any(join.done() for join in joins)
    await slow.transport.let_through()
    assert [join.result() for join in joins] == [True, True]
    await slow.publish(ROOM, text(1))
    assert one.texts == two.texts == ["1"]
    assert slow.transport.calls.count(("subscribe", ROOM)) == 1


async def test_a_join_whose_subscription_fails_leaves_nothing_behind(slow):
    one = Recorder(slow)
    slow.transport.fail_next = 1
    join = asyncio.create_task(slow.join(ROOM, one.member))
    await slow.transport.let_through()
    with pytest.raises(BrokerUnavailable):
        await join
    assert not slow._topics
    assert not one.member.topics


async def test_a_second_join_tries_again_when_the_first_ones_subscription_failed(slow):
    one, two = Recorder(slow), Recorder(slow)
    slow.transport.fail_next = 1
    joins = [asyncio.create_task(slow.join(ROOM, each.member)) for each in (one, two)]
    await slow.transport.let_through()
    with pytest.raises(BrokerUnavailable):
        await joins[0]
    assert await joins[1] is True
    await slow.publish(ROOM, text(1))
    assert (one.texts, two.texts, slow.count(ROOM)) == ([], ["1"], 1)


async def test_when_all_concurrent_joins_fail_nothing_is_left(slow):
    members = [Recorder(slow).member for _ in range(3)]
    slow.transport.fail_next = 3
    joins = [asyncio.create_task(slow.join(ROOM, member)) for member in members]
    await slow.transport.let_through()
    results = await asyncio.gather(*joins, return_exceptions=True)
    assert [type(result) for result in results] == [BrokerUnavailable] * 3
    assert not slow._topics


async def test_a_join_that_is_cancelled_leaves_nothing_behind(slow):
    one = Recorder(slow)
    join = asyncio.create_task(slow.join(ROOM, one.member))
    await turns()
    join.cancel()
    await asyncio.wait([join])
    assert not slow._topics
    assert not one.member.topics
    assert slow.transport.subscribed == {PROCESS + slow.process}


async def test_a_join_during_the_last_leave_is_subscribed_again(slow):
    one, two = Recorder(slow), Recorder(slow)
    slow.transport.slow = False
    await slow.join(ROOM, one.member)
    slow.transport.slow = True
    leave = asyncio.create_task(slow.leave(ROOM, one.member))
    await turns()
    join = asyncio.create_task(slow.join(ROOM, two.member))
    await turns()
    assert not join.done()
    await slow.transport.let_through()
    assert (await leave, await join) == (True, True)
    await slow.publish(ROOM, text(1))
    assert (one.texts, two.texts) == ([], ["1"])
    assert ROOM in slow.transport.subscribed


async def test_the_last_leave_while_somebody_joins_keeps_the_subscription(slow):
    one, two = Recorder(slow), Recorder(slow)
    join_one = asyncio.create_task(slow.join(ROOM, one.member))
    await turns()
    join_two = asyncio.create_task(slow.join(ROOM, two.member))
    leave_one = asyncio.create_task(slow.leave(ROOM, one.member))
    await slow.transport.let_through()
    assert [await join_one, await join_two, await leave_one] == [True, True, True]
    await slow.publish(ROOM, text(1))
    assert (one.texts, two.texts) == ([], ["1"])


async def test_who_leaves_while_joining_leaves_no_subscription_even_if_the_leave_is_cancelled(slow):
    one = Recorder(slow)
    join = asyncio.create_task(slow.join(ROOM, one.member))
    await turns()
    leave = asyncio.create_task(slow.leave_all(one.member))
    await turns()
    leave.cancel()
    await asyncio.wait([leave])
    await slow.transport.let_through()
    await join
    assert is_empty(slow)
    assert ROOM not in slow.transport.subscribed


async def test_a_topic_that_is_being_unsubscribed_is_not_forgotten_by_somebody_else(slow):
    one, two = Recorder(slow), Recorder(slow)
    join = asyncio.create_task(slow.join(ROOM, one.member))
    await turns()
    leave = asyncio.create_task(slow.leave_all(one.member))
    await turns()
    slow.transport.waiting.pop().set_result(None)
    await turns()
    # It is subscribed by now, is being unsubscribed, and the join waits behind that to see what is to be done.
    assert slow.transport.calls[-1] == ("unsubscribe", ROOM)
    join.cancel()
    await turns()
    again = asyncio.create_task(slow.join(ROOM, two.member))
    await slow.transport.let_through()
    await leave
    assert await again is True
    await slow.publish(ROOM, text(1))
    assert two.texts == ["1"]


async def test_a_failing_unsubscription_is_told_but_the_member_has_left(slow):
    one = Recorder(slow)
    slow.transport.slow = False
    await slow.join(ROOM, one.member)
    slow.transport.fail_next = 1
    with pytest.raises(BrokerUnavailable):
        await slow.leave(ROOM, one.member)
    assert not slow._topics


async def test_leave_all_goes_on_when_the_transport_fails(slow, caplog):
    one = Recorder(slow)
    slow.transport.slow = False
    for number in range(4):
        await slow.join(f"{ROOM}{number}", one.member)
    slow.transport.fail_next = 2
    await slow.leave_all(one.member)
    assert is_empty(slow)
    assert len(slow.transport.subscribed) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


async def test_leave_all_removes_from_everything_at_once_and_goes_on_when_it_is_cancelled(slow):
    one, other = Recorder(slow), Recorder(slow)
    slow.transport.slow = False
    topics = [f"{ROOM}{number}" for number in range(4)]
    for topic in topics:
        await slow.join(topic, one.member)
    await slow.join(topics[3], other.member)
    slow.transport.slow = True
    leave = asyncio.create_task(slow.leave_all(one.member))
    await turns()
    # The first unsubscription waits, yet it is a member of nothing any more.
    assert [slow.count(topic) for topic in topics] == [0, 0, 0, 1]
    leave.cancel()
    await slow.transport.let_through()
    await asyncio.wait([leave])
    assert leave.cancelled()
    assert list(slow.topics()) == [topics[3]]


async def test_nothing_late_joins_a_member_that_has_left_for_good(hub):
    one = Recorder(hub)
    await hub.leave_all(one.member)
    assert await hub.join(ROOM, one.member) is False
    assert is_empty(hub)


async def test_a_full_group_refuses_and_counts_members_that_are_still_joining(slow):
    members = [Recorder(slow).member for _ in range(5)]
    joins = [asyncio.create_task(slow.join(ROOM, member, limit=2)) for member in members]
    await slow.transport.let_through()
    results = await asyncio.gather(*joins, return_exceptions=True)
    assert Counter(map(repr, results)) == {"True": 2, repr(GroupFull()): 3}
    assert slow.count(ROOM) == 2
    assert not any(member.topics for member in members[2:])
    # Who is in already is told so, and a place that becomes free is given away.
    assert await slow.join(ROOM, members[0], limit=2) is False
    await slow.leave(ROOM, members[0])
    assert await slow.join(ROOM, members[4], limit=2) is True


async def test_a_member_may_be_in_so_many_topics_and_no_more(hub):
    one = Recorder(hub, max_topics=2)
    await hub.join(GROUP + "a", one.member)
    await hub.join(GROUP + "b", one.member)
    with pytest.raises(TooManyGroups):
        await hub.join(GROUP + "c", one.member)
    assert await hub.join(GROUP + "a", one.member) is False
    assert sorted(hub.topics()) == [GROUP + "a", GROUP + "b"]
    await hub.leave(GROUP + "a", one.member)
    assert await hub.join(GROUP + "c", one.member) is True


async def test_a_storm_of_joins_and_leaves_over_a_slow_transport_ends_where_it_should(slow):
    recorders = [Recorder(slow) for _ in range(30)]

    async def restless(index, recorder):
        for round in range(6):
            topic = f"{ROOM}{(index + round) % 4}"
            await slow.join(topic, recorder.member)
            await turns(index % 3)
            if (index + round) % 5:
                await slow.leave(topic, recorder.member)

    storm = [asyncio.create_task(restless(index, recorder)) for index, recorder in enumerate(recorders)]
    while not all(task.done() for task in storm):
        await slow.transport.let_through()
    assert [task.exception() for task in storm] == [None] * 30
    topics = {topic for recorder in recorders for topic in recorder.member.topics}
    assert set(slow.topics()) == topics
    assert slow.transport.subscribed == topics | {PROCESS + slow.process}
    for topic in sorted(topics):
        await slow.publish(topic, text(topic))
    for recorder in recorders:
        assert recorder.texts == sorted(recorder.member.topics)
    ends = [asyncio.create_task(slow.leave_all(recorder.member)) for recorder in recorders]
    await slow.transport.let_through()
    assert all(end.done() for end in ends)
    assert is_empty(slow)


class Membership(RuleBasedStateMachine):
    """Joins and leaves, some of them cancelled or failing, against a set of pairs."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.transport = SlowTransport()
        self.hub = Hub(self.transport)
        self.loop.run_until_complete(self.hub.open())
        self.recorders = self.loop.run_until_complete(self.make())
        self.tasks = []
        self.wanted = {}
        self.published = 0

    async def make(self):
        return [Recorder(self.hub) for _ in range(4)]

    def start(self, coroutine):
        self.tasks.append(self.loop.create_task(coroutine))
        self.loop.run_until_complete(turns(2))

    who = st.integers(0, 3)
    where = st.sampled_from([GROUP + "a", GROUP + "b"])

    @rule(who=who, topic=where)
    def join(self, who, topic):
        self.start(self.hub.join(topic, self.recorders[who].member))

    @rule(who=who, topic=where)
    def leave(self, who, topic):
        self.start(self.hub.leave(topic, self.recorders[who].member))

    @rule(who=who)
    def leave_all(self, who):
        old = self.recorders[who].member
        self.start(self.hub.leave_all(old))

        async def replace():
            self.recorders[who] = Recorder(self.hub)

        self.loop.run_until_complete(replace())

    @precondition(lambda self: any(not task.done() for task in self.tasks))
    @rule(data=st.data())
    def cancel(self, data):
        data.draw(st.sampled_from([task for task in self.tasks if not task.done()])).cancel()
        self.loop.run_until_complete(turns(2))

    @precondition(lambda self: self.transport.waiting)
    @rule()
    def fail(self):
        self.transport.fail_next = 1
        self.loop.run_until_complete(self.release_one())
        self.transport.fail_next = 0

    @precondition(lambda self: self.transport.waiting)
    @rule()
    def let_one_through(self):
        self.loop.run_until_complete(self.release_one())

    async def release_one(self):
        gate = self.transport.waiting.pop(0)
        if not gate.done():
            gate.set_result(None)
        await turns()

    @rule()
    def settle(self):
        """Once everything has come to rest the hub, the members and the transport agree."""
        for _ in range(50):  # A lock is handed on from one to the next, which takes its turns.
            self.loop.run_until_complete(self.transport.let_through())
            if all(task.done() for task in self.tasks):
                break
        assert all(task.done() for task in self.tasks)
        for task in self.tasks:
            if not task.cancelled() and task.exception() is not None:
                assert isinstance(task.exception(), BrokerUnavailable)
        self.tasks.clear()
        members = {(topic, channel) for topic, found in self.hub._topics.items() for channel in found.members}
        assert members == {(topic, each.member.channel) for each in self.recorders for topic in each.member.topics}
        assert set(self.hub.topics()) == {topic for topic, _ in members}
        assert {topic for topic, _ in members} == self.transport.subscribed - {PROCESS + self.hub.process}
        self.published += 1
        for topic in {topic for topic, _ in members}:
            self.loop.run_until_complete(self.hub.publish(topic, text(f"{topic} {self.published}")))
        for each in self.recorders:
            new = [line for line in each.texts if line.endswith(f" {self.published}")]
            assert sorted(new) == sorted(f"{topic} {self.published}" for topic in each.member.topics)

    @invariant()
    def members_know_their_topics(self):
        for topic, found in self.hub._topics.items():
            for member in found.members.values():
                assert topic in member.topics
                assert not member.has_left

    def teardown(self):
        self.settle()
        for who in range(4):
            self.leave_all(who)
        self.settle()
        assert not self.hub._topics
        self.loop.run_until_complete(self.hub.close())
        self.loop.close()


TestMembership = Membership.TestCase
TestMembership.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# -- fan-out -----------------------------------------------------------------------------------------------------------


async def test_a_frame_is_made_once_for_each_framer_and_shared(hub):
    class Counting(type(JSON_FRAMER)):
        calls = 0

        def event(self, event):
            self.calls += 1
            return super().event(event)

    framer = Counting()
    recorders = [Recorder(hub, (framer, MSGPACK_FRAMER, None)[number % 3]) for number in range(3 * CHUNK)]
    for recorder in recorders:
        await hub.join(ROOM, recorder.member)
    await hub.publish(ROOM, event({"a": 1}))
    await turns()
    assert framer.calls == 1
    assert len({id(recorder.frames[0]) for recorder in recorders if recorder.frames}) == 2
    assert recorders[0].texts == ['{"type":"event","event":"said","group":"room","data":{"a":1}}']
    assert isinstance(recorders[1].texts[0], bytes)
    assert recorders[2].texts == []


@pytest.mark.parametrize("size", [1, CHUNK, CHUNK + 1, 3 * CHUNK])
async def test_publishing_waits_for_nobody_needs_no_task_and_lets_others_run_between_chunks(hub, size):
    recorders = [Recorder(hub) for _ in range(size)]
    for recorder in recorders:
        await hub.join(ROOM, recorder.member)
    tasks = asyncio.all_tasks()
    await hub.publish(ROOM, text(1))
    served = []
    while not served or served[-1] < size:
        assert len(served) < 5
        await asyncio.sleep(0)
        served.append(sum(len(recorder.got) for recorder in recorders))
    assert served == [min(count, size) for count in range(CHUNK, size + CHUNK, CHUNK)]
    assert asyncio.all_tasks() == tasks
    assert all(recorder.texts == ["1"] for recorder in recorders)


async def test_all_members_get_everything_in_one_order_whoever_publishes(hub):
    recorders = [Recorder(hub) for _ in range(CHUNK * 2 + 50)]
    for recorder in recorders:
        await hub.join(ROOM, recorder.member)

    async def publish(name):
        for number in range(20):
            await hub.publish(ROOM, text(f"{name}{number}"))
            await turns(len(name) % 3)

    await asyncio.gather(*map(publish, ("a", "bb", "ccc")))
    assert len(recorders[0].texts) == 60
    for recorder in recorders:
        assert recorder.texts == recorders[0].texts
    for name in ("a", "bb", "ccc"):
        own = [line for line in recorders[0].texts if line.rstrip("0123456789") == name]
        assert own == [f"{name}{number}" for number in range(20)]


async def test_who_leaves_in_the_middle_of_a_fan_out_gets_what_was_published_and_nothing_more(hub):
    recorders = [Recorder(hub) for _ in range(CHUNK * 2)]
    for recorder in recorders:
        await hub.join(ROOM, recorder.member)
    await hub.publish(ROOM, text(1))
    await asyncio.sleep(0)
    assert [len(recorders[index].got) for index in (0, -1)] == [1, 0]
    await hub.leave(ROOM, recorders[-1].member)
    late = Recorder(hub)
    await hub.join(ROOM, late.member)
    await hub.publish(ROOM, text(2))
    await turns()
    assert recorders[-1].got == recorders[0].got[:1]
    assert [recorders[index].texts for index in (0, -2)] == [["1", "2"]] * 2
    assert late.texts == ["2"]


async def test_an_event_that_one_framer_cannot_encode_reaches_the_members_of_the_others(hub, caplog):
    class Broken(type(JSON_FRAMER)):
        def event(self, event):
            raise ValueError("cannot")

    framer = Broken()
    recorders = [Recorder(hub, framer if number % 2 else JSON_FRAMER) for number in range(600)]
    for recorder in recorders:
        await hub.join(ROOM, recorder.member)
    await hub.publish(ROOM, event(1))
    assert {len(recorder.frames) for recorder in recorders[::2]} == {1}
    assert {len(recorder.frames) for recorder in recorders[1::2]} == {0}
    assert len(caplog.records) == 1


async def test_a_notice_is_framed_for_each_encoding_and_reaches_those_that_can_encode_it(hub, caplog):
    class Broken(type(JSON_FRAMER)):
        def notice(self, notice):
            raise ValueError("cannot")

    json, msgpack, broken, raw = (Recorder(hub, framer) for framer in (JSON_FRAMER, MSGPACK_FRAMER, Broken(), None))
    for each in (json, msgpack, broken, raw):
        await hub.join(ROOM, each.member)
    packet = Packet("notice", b'{"group":"room","count":1}', "presence")
    await hub.publish(ROOM, packet)
    await hub.publish_here(ROOM, packet)
    assert json.texts == ['{"type":"presence","group":"room","count":1}'] * 2
    notice = {"type": "presence", "group": "room", "count": 1}
    assert [ormsgpack.unpackb(data) for data in msgpack.texts] == [notice] * 2
    assert broken.frames == raw.frames == []
    assert len(caplog.records) == 2


async def test_one_may_be_left_out(hub):
    recorders = [Recorder(hub) for _ in range(CHUNK + 2)]
    for recorder in recorders:
        await hub.join(ROOM, recorder.member)
    left_out = recorders[-1]
    await hub.publish(ROOM, event(1, exclude=left_out.member.channel))
    await hub.publish(ROOM, text(2)._replace(exclude=left_out.member.channel))
    assert left_out.frames == []
    assert {len(recorder.frames) for recorder in recorders[:-1]} == {2}


async def test_each_kind_of_packet(hub):
    one, two = Recorder(hub), Recorder(hub)
    for each in (one, two):
        await hub.join(ROOM, each.member)
    await hub.publish(ROOM, Packet("text", "é".encode()))
    await hub.publish(ROOM, Packet("bytes", b"\xff"))
    await hub.publish(ROOM, Packet("message", b'{"type":"ping","list":[1]}'))
    await hub.publish(ROOM, Packet("close", b'[4409,"kicked"]'))
    for each in (one, two):
        assert each.texts == ["é", b"\xff"]
        assert each.messages == [{"type": "ping", "list": [1]}]
        assert each.closed == [(4409, "kicked")]
    # A consumer may change what it is given.
    assert one.messages[0]["list"] is not two.messages[0]["list"]


async def test_one_channel_is_reached_by_its_name(hub):
    one, two = Recorder(hub), Recorder(hub)
    await hub.send(one.member.channel, event(1))
    await hub.send("nobody", event(2))
    await hub.send(f"{hub.process}!999", event(3))
    await hub.send("elsewhere!1", event(4))
    assert one.texts == ['{"type":"event","event":"said","data":1}']
    assert two.texts == []
    assert hub.find(one.member.channel) is one.member
    await hub.leave_all(one.member)
    assert hub.find(one.member.channel) is None
    await hub.send(one.member.channel, event(5))
    assert len(one.frames) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"2[]",
        encode_packet(Packet("text", b"\xff")),
        encode_packet(Packet("message", b"no json")),
        encode_packet(Packet("message", b"[1]")),
        encode_packet(Packet("message", b'{"type":[]}')),
        encode_packet(Packet("message", b'{"no":"type"}')),
        encode_packet(Packet("notice", b"no json", "presence")),
        encode_packet(Packet("notice", b"[1]", "presence")),
        encode_packet(Packet("close", b"null")),
        encode_packet(Packet("close", b'["1000","x"]')),
        encode_packet(Packet("close", b"[1000]")),
        encode_packet(Packet("close", b'[1000,"x",1]')),
        encode_packet(Packet("close", b"{}")),
    ],
)
@pytest.mark.parametrize("size", [1, CHUNK + 1])
async def test_a_bad_packet_is_counted_and_harms_nobody(hub, caplog, data, size):
    recorders = [Recorder(hub) for _ in range(size)]
    for recorder in recorders:
        await hub.join(ROOM, recorder.member)
    await hub.transport.subscribe(ROOM)  # In one process the hub does without, and without bytes.
    await hub.transport.publish(ROOM, data)
    assert hub.bad_packets == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    await hub.publish(ROOM, text("next"))
    for recorder in recorders:
        assert (recorder.texts, recorder.messages, recorder.closed) == (["next"], [], [])


async def test_in_one_process_nothing_is_asked_of_the_transport(hub, monkeypatch):
    async def unasked(*args):
        raise AssertionError(args)

    for name in ("subscribe", "unsubscribe", "publish"):
        monkeypatch.setattr(hub.transport, name, unasked)
    one = Recorder(hub)
    for _ in range(2):
        assert await hub.join(ROOM, one.member)
        await hub.publish(ROOM, text("here"))
        assert await hub.leave(ROOM, one.member)
        assert not list(hub.topics())
    await hub.publish(ROOM, text("gone"))
    assert one.texts == ["here", "here"]


async def test_a_bad_packet_for_one_channel_is_counted(hub):
    one = Recorder(hub)
    await hub.send(one.member.channel, Packet("close", b"x"))
    assert (hub.bad_packets, one.closed) == (1, [])


async def test_what_arrives_for_a_topic_without_members_is_nobodys(hub):
    await hub._deliver(ROOM, encode_packet(text(1)))
    assert (hub.bad_packets, list(hub.topics())) == (0, [])


async def test_a_message_is_shared_by_all_and_stays_as_it_is(hub):
    one, two = Recorder(hub), Recorder(hub)
    for each in (one, two):
        await hub.join(ROOM, each.member)
    await hub.publish(ROOM, text("x"))
    assert one.frames[0] is two.frames[0]
    assert one.frames[0] == text_frame("x")
