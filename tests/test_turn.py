"""What is published in one turn of the event loop, on its way to the members."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_consumers.backlog import Droppable
from fastapi_consumers.fanning import MAX_TOGETHER, MAX_TOGETHER_BYTES, Fanning, Member
from fastapi_consumers.packets import Packet
from fastapi_consumers.protocols import JSON_FRAMER, MSGPACK_FRAMER
from fastapi_consumers.topics import Topic
from fastapi_consumers.turn import CHUNK, Turn, catch_up


class Client:
    """A member, and the writes that it got: a text, or a list of those that came in one."""

    def __init__(self, channel, framer=JSON_FRAMER):
        self.writes, self.messages, self.closed = [], [], []
        self.member = Member(channel, self.push, self.messages.append, self.close, 10, self.push_all)
        self.member.framer = framer

    def push(self, frame, droppable):
        assert isinstance(droppable, Droppable)
        self.writes.append(frame.payload.decode())

    def push_all(self, entries, wire):
        assert wire == b"".join(frame.wire for frame, _ in entries)
        self.writes.append([frame.payload.decode() for frame, _ in entries])

    def close(self, code, reason):
        self.closed.append((code, reason))

    @property
    def texts(self):
        return [text for write in self.writes for text in (write if isinstance(write, list) else [write])]


def make(count=2, **options):
    topic, clients = Topic(), [Client(str(number), **options) for number in range(count)]
    for client in clients:
        topic.add(client.member)
    return topic, clients


def text(value, **options):
    return Fanning(Packet("text", str(value).encode(), **options), "group")


def event(value):
    return Fanning(Packet("event", b"%d" % value, "said"), "group")


async def turns(count=1):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_published_in_one_turn_reaches_a_member_in_one_write_when_it_ends():
    turn = Turn()
    topic, clients = make(3)
    for value in "abc":
        turn.put(topic, text(value))
    assert turn.is_due
    assert [client.writes for client in clients] == [[], [], []]
    await turns()
    assert [client.writes for client in clients] == [[["a", "b", "c"]]] * 3
    assert not turn.is_due
    turn.put(topic, text("d"))
    await turns()
    assert clients[0].writes == [["a", "b", "c"], "d"]


async def test_members_with_one_encoding_share_the_bytes_of_a_burst():
    turn, wires = Turn(), {}
    topic, _ = make(0)
    for channel, framer in (("a", JSON_FRAMER), ("b", MSGPACK_FRAMER), ("c", JSON_FRAMER), ("d", None)):
        take = lambda entries, wire, channel=channel: wires.setdefault(channel, wire)  # noqa: E731  one for each
        member = Member(channel, None, None, None, 1, take)
        member.framer = framer
        topic.add(member)
    for value in range(3):
        turn.put(topic, event(value))
    await turns()
    assert wires["a"] is wires["c"]
    assert sorted(wires) == ["a", "b", "c"]  # "d" has no encoding for events
    assert wires["a"].count(b"said") == wires["b"].count(b"said") == 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["x"] * (MAX_TOGETHER + 1), [MAX_TOGETHER, 1]),
        (["x" * (MAX_TOGETHER_BYTES // 2)] * 3, [2, 1]),
        (["x", "x" * MAX_TOGETHER_BYTES, "x"], [1, 1, 1]),
    ],
)
async def test_what_goes_together_is_bounded(values, expected):
    turn = Turn()
    topic, clients = make()
    for value in values:
        turn.put(topic, text(value))
    await turns()
    for client in clients:
        assert [len(write) if isinstance(write, list) else 1 for write in client.writes] == expected
        assert client.texts == values


async def test_what_is_not_for_all_goes_alone_and_in_its_place():
    turn = Turn()
    topic, (one, two) = make()
    turn.put(topic, text("a"))
    turn.put(topic, text("b", exclude="0"))
    turn.put(topic, Fanning(Packet("message", b'{"type":"ping"}')))
    turn.put(topic, text("c"))
    turn.put(topic, text("d"))
    turn.put(topic, Fanning(Packet("close", b'[4409,"kicked"]')))
    await turns()
    assert one.writes == ["a", ["c", "d"]]
    assert two.writes == ["a", "b", ["c", "d"]]
    assert one.messages == two.messages == [{"type": "ping"}]
    assert one.closed == two.closed == [(4409, "kicked")]


async def test_a_member_that_catches_up_gets_the_rest_later_and_nothing_twice():
    turn = Turn()
    topic, (one, two) = make()
    turn.put(topic, text("a"))
    turn.put(topic, text("b"))
    catch_up(one.member, [topic])
    assert (one.texts, two.texts) == (["a", "b"], [])
    turn.put(topic, text("c"))
    await turns()
    assert one.texts == two.texts == ["a", "b", "c"]
    catch_up(one.member, [topic])
    assert one.texts == ["a", "b", "c"]


async def test_catching_up_in_the_middle_of_a_fan_out():
    turn = Turn()
    topic, clients = make(CHUNK + 2)
    turn.put(topic, text("a"))
    await turns()
    first, last = clients[0], clients[-1]
    for client in (first, last):
        catch_up(client.member, [topic])
    assert (first.texts, last.texts, clients[-2].texts) == (["a"], ["a"], [])
    await turns()
    assert {tuple(client.texts) for client in clients} == {("a",)}


async def test_who_joins_gets_what_comes_then_and_who_has_left_gets_nothing():
    turn = Turn()
    topic, (one, two) = make()
    turn.put(topic, text("a"))
    late = Client("late")
    topic.add(late.member)
    topic.remove(two.member)
    turn.put(topic, text("b"))
    await turns()
    assert (one.texts, two.texts, late.texts) == (["a", "b"], [], ["b"])


async def test_what_one_member_gets_of_several_groups_keeps_its_order():
    turn, client = Turn(), Client("0")
    topics = [Topic() for _ in range(3)]
    for topic in topics:
        topic.add(client.member)
    for number in range(12):
        turn.put(topics[(number * 7 + number // 4) % 3], text(number))
        if number == 5:
            catch_up(client.member, reversed(topics))
            assert client.texts == [str(number) for number in range(6)]
    await turns()
    assert client.texts == [str(number) for number in range(12)]


async def test_groups_take_turns_so_that_a_large_one_holds_no_small_one_up():
    turn = Turn()
    large, crowd = make(CHUNK * 3)
    small, (one, _) = make()
    turn.put(large, text("a"))
    turn.put(small, text("b"))
    await turns(2)
    assert one.texts == ["b"]
    assert crowd[-1].texts == []
    await turns(2)
    assert crowd[-1].texts == ["a"]


async def test_who_publishes_more_than_is_delivered_waits(monkeypatch):
    monkeypatch.setattr("fastapi_consumers.turn.MAX_LOAD", CHUNK * 2)
    turn = Turn()
    topic, clients = make(CHUNK)
    done = []

    async def publish():
        for number in range(6):
            turn.put(topic, text(number))
            await turn.room()
            done.append(number)

    publishing = [asyncio.create_task(publish()) for _ in range(2)]
    await turns()
    assert len(done) < 12
    publishing[1].cancel()
    await asyncio.wait_for(publishing[0], 30)
    await turns(5)
    assert clients[0].texts[-1] == "5"
    assert {tuple(client.texts) for client in clients} == {tuple(clients[0].texts)}
    assert turn._load == 0


async def test_settling_hands_over_everything_of_one_topic_at_once():
    turn = Turn()
    topic, clients = make(CHUNK + 1)
    other, (one, _) = make()
    turn.put(topic, text("a"))
    turn.put(other, text("b"))
    turn.settle(topic)
    assert clients[-1].texts == ["a"]
    assert one.texts == []
    await turns()
    assert one.texts == ["b"]
    assert not turn.is_due


def test_what_is_on_its_way_when_it_is_closed_is_handed_over_and_another_event_loop_may_begin():
    turn = Turn()
    topic, clients = make(CHUNK + 1)
    other, (one, _) = make()

    async def first():
        turn.put(topic, text("a"))
        turn.put(other, text("b"))
        turn.put(topic, text("c"))
        turn.finish()
        assert (clients[0].texts, clients[-1].texts, one.texts) == (["a", "c"], ["a", "c"], ["b"])
        assert not turn.is_due

    async def second():
        turn.put(other, text("d"))
        await turns()
        assert one.texts == ["b", "d"]

    loop = asyncio.new_event_loop()
    loop.run_until_complete(first())
    loop.close()
    asyncio.run(second())


async def test_an_interrupt_by_the_keyboard_does_not_keep_the_others_from_what_is_theirs():
    turn = Turn()
    topic, (one, _) = make()
    bad, (first, _) = make()

    def interrupt(frame, droppable):
        raise KeyboardInterrupt

    first.member.push = interrupt
    turn.is_due = True  # Its end is called here, and by nobody else.
    turn.put(bad, text("a"))
    turn.put(topic, text("b"))
    with pytest.raises(KeyboardInterrupt):
        turn._end()
    assert one.texts == []
    await turns()
    assert one.texts == ["b"]


async def test_nothing_is_due_for_a_topic_without_members():
    turn = Turn()
    turn.put(Topic(), text("a"))
    assert not turn.is_due


Step = st.tuples(
    st.sampled_from(["publish", "publish", "publish", "exclude", "catch up", "join", "leave", "turn", "settle"]),
    st.integers(0, 3),
)


@given(st.lists(Step, max_size=40))
def test_every_member_gets_all_that_was_published_while_it_was_one_once_and_in_order(steps):
    async def run():
        turn, topic, number, expected = Turn(), Topic(), 0, {}
        clients = [Client(str(each)) for each in range(4)]
        for step, which in steps:
            client = clients[which]
            match step:
                case "publish" | "exclude":
                    number += 1
                    excluded = client.member.channel if step == "exclude" else None
                    turn.put(topic, text(number, exclude=excluded))
                    for channel in topic.members:
                        if channel != excluded:
                            expected.setdefault(channel, []).append(str(number))
                case "catch up":
                    if client.member.channel in topic.members:
                        catch_up(client.member, [topic])
                        assert client.texts == expected.get(client.member.channel, [])
                case "join":
                    if client.member.channel not in topic.members:
                        topic.add(client.member)
                case "leave":
                    if client.member.channel in topic.members:
                        catch_up(client.member, [topic])
                        topic.remove(client.member)
                case "turn":
                    await turns()
                case "settle":
                    turn.settle(topic)
        await turns(3)
        for client in clients:
            assert client.texts == expected.get(client.member.channel, [])
        assert (turn.is_due, turn._load, len(topic.batches)) == (False, 0, 0)

    asyncio.run(run())
