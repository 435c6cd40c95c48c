import asyncio
import contextlib
import json

import pytest

from fastapi_consumers import fanning, replaying, streams
from fastapi_consumers.exceptions import BrokerUnavailable
from fastapi_consumers.history import History
from fastapi_consumers.hub import Hub
from fastapi_consumers.messages import Position
from fastapi_consumers.packets import Packet, encode_packet, with_position
from fastapi_consumers.protocols import MSGPACK_FRAMER
from fastapi_consumers.transports import MemoryTransport
from fastapi_consumers.turn import CHUNK
from tests.history.tools import GROUP, HISTORY, ROOM, Recorder, Store, World, turns


@pytest.fixture
async def world():
    async with World() as world:
        yield world


@pytest.fixture
async def two():
    async with World(2) as world:
        yield world


async def joined(world, process=0, *args, **kwargs):
    recorder = Recorder(world.hubs[process])
    await recorder.join(*args, **kwargs)
    return recorder


async def arrive(world, offset, epoch=None, process=0):
    """A packet as another process would have published it."""
    packet = encode_packet(Packet("event", b"%d" % offset, "said"))
    data = with_position(Position(world.epoch if epoch is None else epoch, offset), packet)
    await world.hubs[process]._deliver(ROOM, data)
    await turns()


# -- joining without recovery ------------------------------------------------------------------------------------------


async def test_who_joins_is_told_its_position_first_and_then_gets_what_follows(world):
    first = await joined(world)
    await world.say(2)
    second = await joined(world)
    await world.say()
    assert first.take() == ["joined 0", 1, 2, 3]
    assert second.take() == ["joined 2", 3]


async def test_a_member_that_cannot_be_framed_is_told_nothing_and_holds_nothing_up(world):
    raw, member = Recorder(world.hub, framer=None), await joined(world)
    await raw.join()
    await world.say()
    assert raw.take() == []
    assert member.take() == ["joined 0", 1]


async def test_each_encoding_has_its_own_notices_and_events(world):
    recorder = Recorder(world.hub, framer=MSGPACK_FRAMER)
    got = []
    recorder.member.push = lambda frame, droppable=None: got.append(frame.is_text)
    await recorder.join()
    await world.keep()
    await world.say()
    assert got == [False, False, False]


async def test_a_join_is_refused_while_the_store_is_away_and_leaves_nothing_behind(world):
    world.store.is_away = True
    recorder = Recorder(world.hub)
    with pytest.raises(BrokerUnavailable):
        await recorder.join()
    assert (world.hub.count(ROOM), list(world.streams._streams), recorder.member.topics) == (0, [], ())
    world.store.is_away = False
    assert await recorder.join()
    assert recorder.take() == ["joined 0"]


async def test_a_recovery_is_refused_while_the_store_is_away_and_other_members_stay(world):
    other = await joined(world)
    world.store.is_away = True
    with pytest.raises(BrokerUnavailable):
        await joined(world, 0, world.position(0))
    world.store.is_away = False
    await world.say()
    assert other.take() == ["joined 0", 1]


async def test_a_join_that_fails_says_why_even_if_the_topic_cannot_be_left(world):
    async def unsubscribe(topic):
        raise RuntimeError("the broker is away too")

    world.transport.unsubscribe, unsubscribed = unsubscribe, world.transport.unsubscribe
    world.store.is_away = True
    with pytest.raises(BrokerUnavailable):
        await joined(world)
    world.transport.unsubscribe = unsubscribed


async def test_a_join_that_is_cancelled_while_the_store_is_asked_leaves_nothing_behind(world):
    world.store.is_slow = True
    recorder = Recorder(world.hub)
    joining = asyncio.create_task(recorder.join())
    await turns()
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    assert (world.hub.count(ROOM), list(world.streams._streams), recorder.take()) == (0, [], [])


async def test_many_that_join_at_once_ask_for_the_position_once(world):
    world.store.is_slow = True
    joining = [asyncio.create_task(joined(world)) for _ in range(5)]
    await world.store.let_through()
    recorders = await asyncio.gather(*joining)
    assert world.store.calls == 1
    world.store.is_slow = False
    await world.say()
    assert [recorder.take() for recorder in recorders] == [["joined 0", 1]] * 5


async def test_events_that_come_while_the_first_member_joins_are_behind_its_position_or_follow(two):
    await joined(two, 1)
    await two.say(2)
    two.store.is_slow = True
    joining = asyncio.create_task(joined(two))
    await turns()
    # The position, 2, is on its way.
    await two.say(2, process=1)
    two.store.is_slow = False
    await two.store.let_through()
    recorder = await joining
    await turns()
    await two.say()
    assert recorder.take() == ["joined 2", 3, 4, 5]


async def test_who_leaves_while_it_joins_gets_nothing_and_who_comes_back_gets_all(world):
    await world.say(2)
    other = await joined(world)
    world.store.is_slow = True
    recorder = Recorder(world.hub)
    first = asyncio.create_task(recorder.join(world.position(1)))
    await turns()
    assert await recorder.leave()
    await world.say()
    second = asyncio.create_task(recorder.join(world.position(1)))
    await turns()
    await world.store.let_through()
    await asyncio.gather(first, second)
    await world.say()
    # The first answer knew nothing of event 3, which came when it was no member.
    assert recorder.take() == ["joined 1 recovered", 2, 3, 4]
    assert other.take() == ["joined 2", 3, 4]


async def test_a_topic_that_empties_and_fills_again_forgets_where_it_was(world):
    first = await joined(world)
    await world.say()
    await first.leave()
    assert not world.streams._streams
    await world.say(3)
    assert (await joined(world)).take() == ["joined 4"]


async def test_who_joins_while_the_topic_is_left_begins_at_the_store_s_position_and_gets_nothing_old(world):
    gate = asyncio.Event()
    inner = world.transport.unsubscribe

    async def slow(topic):
        await gate.wait()
        await inner(topic)

    first = await joined(world)
    await world.say()
    world.transport.unsubscribe = slow
    leaving = asyncio.create_task(first.leave())
    await turns()
    second = Recorder(world.hub)
    joining = asyncio.create_task(second.join())
    await turns()
    # The topic is still subscribed, and has no member of before: event 2 is lost, event 3 shows it.
    world.store.is_slow = True
    await world.keep()
    await world.say()
    gate.set()
    await leaving
    while await world.store.let_through():
        pass
    await joining
    world.store.is_slow = False
    await world.say()
    await turns()
    assert second.take() == ["joined 3", 4]


# -- order and position ------------------------------------------------------------------------------------------------


async def test_what_is_missing_is_read_back_before_anything_later_is_delivered(world):
    recorder = await joined(world)
    await world.keep(2)
    await world.say()
    await world.say()
    assert recorder.take() == ["joined 0", 1, 2, 3, 4]
    assert (world.streams.heals, world.streams.healed, world.streams.gaps) == (1, 3, 0)


async def test_packets_that_come_twice_late_or_out_of_order_change_nothing(world):
    recorder = await joined(world)
    world.transport.duplicate(2)
    await world.say(2)
    world.transport.reorder(1)
    await world.say(2)
    world.transport.delay(2)
    await world.say(3)
    await world.transport.release(shuffled=True)
    await turns()
    assert recorder.take() == ["joined 0", 1, 2, 3, 4, 5, 6, 7]
    assert world.streams.duplicates


async def test_a_lost_last_event_is_found_by_the_look_at_quiet_groups(world):
    recorder = await joined(world)
    await world.say()
    await world.keep()
    await world.streams.check()  # An event came since the last look.
    await turns()
    assert recorder.take() == ["joined 0", 1]
    await world.streams.check()
    await turns()
    assert recorder.take() == [2]
    calls, reads = world.store.calls, world.store.reads
    await world.streams.check()
    await turns()
    assert (world.store.calls, world.store.reads) == (calls + 1, reads)


async def test_the_look_at_quiet_groups_goes_on_after_it_failed(world, monkeypatch, caplog):
    monkeypatch.setattr(streams, "CHECK_INTERVAL", 0.0)
    recorder = await joined(world)
    await world.keep()
    world.store.is_away = True
    await turns(50)
    assert "could not be looked up" in caplog.text
    world.store.is_away = False
    await turns(50)
    assert recorder.take() == ["joined 0", 1]


async def test_nobody_looks_when_there_is_no_group(world):
    recorder = await joined(world)
    assert world.streams._checking is not None
    await recorder.leave()
    assert world.streams._checking is None


async def test_packets_of_a_foreign_epoch_are_not_delivered_and_cost_one_look_each_at_most(world):
    recorder = await joined(world)
    await world.say()
    for _ in range(10):
        await arrive(world, 2, epoch="foreign")
    assert world.store.reads <= 10
    reads = world.store.reads
    await turns(100)
    assert world.store.reads == reads
    await world.say()
    assert recorder.take() == ["joined 0", 1, 2]


async def test_a_packet_from_beyond_the_newest_event_ends_its_look_too(world):
    recorder = await joined(world)
    await arrive(world, 9_007_199_254_740_991)
    await turns(100)
    assert world.store.reads <= 2
    await world.say()
    assert recorder.take() == ["joined 0", 1]


async def test_what_has_been_trimmed_is_told_as_a_gap(world):
    recorder = await joined(world)
    small = History(size=2)
    await world.keep(3)
    await world.say(history=small)
    assert recorder.take() == ["joined 0", "gap", 3, 4]
    world.store.is_slow = True
    await world.keep()
    await world.say()
    world.store._streams[GROUP].entries.clear()
    world.store.is_slow = False
    await world.store.let_through()
    assert recorder.take() == [5, 6]  # It had been read before.


async def test_when_nothing_is_left_of_what_is_missing_it_is_a_gap_too(world):
    recorder = await joined(world)
    await world.keep(2)
    world.store._streams[GROUP].entries.clear()
    world.hub.streams.heal_all([GROUP])
    await turns()
    await world.say()
    assert recorder.take() == ["joined 0", "gap", 3]
    assert world.streams.gaps == 1


async def test_an_event_that_cannot_be_read_is_a_gap_in_its_place(world, caplog):
    recorder = await joined(world)
    await world.store.append(GROUP, b"not a packet", HISTORY)
    await world.say()
    assert recorder.take() == ["joined 0", "gap", 2]
    assert "cannot be read" in caplog.text
    again = await joined(world, 0, world.position(0))
    assert again.take() == ["joined 0 recovered", "gap", 2]


async def test_while_the_store_is_away_events_wait_and_then_come_in_order(world, monkeypatch, caplog):
    monkeypatch.setattr(streams, "RETRY", 0.0)
    recorder = await joined(world)
    await world.keep()
    world.store.is_away = True
    await arrive(world, 3)
    await turns(50)
    assert recorder.take() == ["joined 0"]
    assert "its events wait" in caplog.text
    world.store.is_away = False
    await world.keep(2)
    await turns(50)
    assert recorder.take() == [1, 2, 3]


async def test_a_store_that_is_broken_is_logged_and_asked_again_with_the_next_event(world, caplog):
    recorder = await joined(world)
    inner = world.store.read

    async def broken(*args, **kwargs):
        raise ZeroDivisionError

    world.store.read = broken
    await world.keep()
    await world.say()
    assert "could not be read" in caplog.text
    world.store.read = inner
    await world.say()
    assert recorder.take() == ["joined 0", 1, 2, 3]


async def test_a_publish_raises_while_the_store_is_away(world):
    recorder = await joined(world)
    world.store.is_away = True
    with pytest.raises(BrokerUnavailable):
        await world.say()
    world.store.is_away = False
    await turns()
    assert recorder.take() == ["joined 0"]


async def test_what_is_kept_is_delivered_although_it_could_not_be_published(two, caplog):
    here, there = await joined(two), await joined(two, 1)
    two.transport.refuse_publishes()
    await two.say()
    assert here.take() == ["joined 0", 1]
    await two.say()
    assert there.take() == ["joined 0", 1, 2]
    assert two.hub.appender.unpublished == 1


async def test_what_a_cancelled_publisher_had_kept_is_delivered(world):
    recorder = await joined(world)
    gate = asyncio.get_running_loop().create_future()
    world.transport.publish = lambda topic, packet: gate
    publishing = asyncio.create_task(world.say())
    await turns()
    publishing.cancel()
    await asyncio.wait([publishing])
    await turns()
    assert recorder.take() == ["joined 0", 1]


async def test_an_idempotency_key_that_is_known_delivers_nothing_again(world):
    recorder = await joined(world)
    packet = Packet("event", b"1", "said")
    first = await world.hub.append(GROUP, packet, HISTORY, "key")
    assert await world.hub.append(GROUP, packet, HISTORY, "key") == first == world.position(1)
    with pytest.raises(ValueError, match="idempotency key"):
        await world.hub.append(GROUP, packet, HISTORY, "")
    await turns()
    assert recorder.take() == ["joined 0", 1]


async def test_a_transport_that_was_away_has_groups_with_history_read_back_and_others_told(world):
    recorder = await joined(world)
    other = Recorder(world.hub)
    await world.hub.join("group:plain", other.member)
    world.transport.die()
    await world.store.append(GROUP, encode_packet(Packet("event", b"1", "said")), HISTORY)
    await world.transport.revive()
    await turns()
    assert recorder.take() == ["joined 0", 1]
    assert other.take() == ["gap"]


async def test_a_long_heal_lets_others_run(world):
    recorder = await joined(world)
    await world.keep(50)
    turn = 0

    async def count():
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    seen = []
    recorder.member.push = lambda frame, droppable=None: seen.append(turn)
    world.streams.heal_all([GROUP])
    await turns(200)
    counting.cancel()
    assert len(seen) == 50
    assert seen[-1] - seen[0] > 40


async def test_a_heal_reads_in_batches(world, monkeypatch):
    monkeypatch.setattr(streams, "HEAL_BATCH", 3)
    recorder = await joined(world)
    await world.keep(10)
    await world.say()
    await turns(50)
    assert recorder.take() == ["joined 0", *range(1, 12)]
    assert world.store.reads == 4


# -- epochs ------------------------------------------------------------------------------------------------------------


async def test_a_new_epoch_is_a_gap_a_new_position_and_all_of_its_events(world):
    recorder = await joined(world)
    await world.say(5)
    await world.purge()
    await world.say(2)
    await world.say()
    assert recorder.take() == ["joined 0", 1, 2, 3, 4, 5, "gap", "joined 0", 1, 2, 3]


async def test_a_purge_is_noticed_although_nothing_is_said(world):
    recorder = await joined(world)
    await world.say(5)
    await world.purge()
    await world.streams.check()
    await world.streams.check()
    await turns()
    assert recorder.take() == ["joined 0", 1, 2, 3, 4, 5, "gap", "joined 0"]
    await world.say()
    assert recorder.take() == [1]


async def test_who_joined_just_before_a_new_epoch_gets_all_of_its_events(world):
    """Its last position in the old epoch says nothing about offsets of the new one."""
    await joined(world)
    await world.say(5)
    recorder = await joined(world)
    await world.purge()
    await world.say(3)
    assert recorder.take() == ["joined 5", "gap", "joined 0", 1, 2, 3]


async def test_events_of_the_old_epoch_that_are_held_do_not_come_after_the_new_one_has_begun(world):
    other = await joined(world)
    await world.say(5)
    world.store.is_slow = True
    recorder = Recorder(world.hub)
    joining = asyncio.create_task(recorder.join(world.position(3)))
    await turns()
    await world.say(2)  # Held.
    await world.purge()
    waiting, world.store.waiting, world.store.is_slow = world.store.waiting, [], False
    await world.say()
    await turns()
    for gate in waiting:
        gate.set_result(None)
    await joining
    await world.say()
    assert recorder.take() == ["joined 1 not recovered", 2]
    assert other.take() == ["joined 0", 1, 2, 3, 4, 5, 6, 7, "gap", "joined 0", 1, 2]


async def test_who_comes_back_with_the_new_epoch_is_recovered_by_a_process_that_had_not_heard_of_it(two):
    here = await joined(two)
    await two.say(3)
    await two.purge()
    await two.keep(3)
    recorder = await joined(two, 0, two.position(1))
    assert recorder.take() == ["joined 1 recovered", 2, 3]
    assert here.take() == ["joined 0", 1, 2, 3, "gap", "joined 0", 1, 2, 3]
    await two.say()
    assert recorder.take() == here.take() == [4]


async def test_a_store_that_lost_its_newest_events_without_a_new_epoch_is_a_gap(world):
    recorder = await joined(world)
    await world.say(5)
    late = await joined(world)
    stream = world.store._streams[GROUP]
    stream.top = 3
    for _ in range(2):
        stream.entries.pop()
    await world.hub._on_gap([ROOM])
    await turns()
    await world.say()
    assert recorder.take() == ["joined 0", 1, 2, 3, 4, 5, "gap", "joined 3", 4]
    assert late.take() == ["joined 5", "gap", "joined 3", 4]


async def test_frames_of_another_epoch_are_not_given_to_who_recovers(world):
    await joined(world)
    await world.say(2)
    assert (await joined(world, 0, world.position(0))).take() == ["joined 0 recovered", 1, 2]
    await world.purge()
    await world.hub.append(GROUP, Packet("event", b'"new"', "said"), HISTORY)
    await turns()
    recorder = Recorder(world.hub)
    await recorder.join(world.position(0))
    assert [frame.get("data") for frame in recorder.frames] == [None, "new"]


# -- recovery ----------------------------------------------------------------------------------------------------------


async def test_who_comes_back_gets_exactly_what_it_missed_and_then_what_follows(two):
    recorder = await joined(two)
    await two.say(3)
    position = two.position(recorder.take()[-1])
    await recorder.leave()
    await two.say(4)
    again = await joined(two, 1, position)
    await two.say()
    assert again.take() == ["joined 3 recovered", 4, 5, 6, 7, 8]


async def test_who_missed_nothing_is_recovered(world):
    await world.say(2)
    assert (await joined(world, 0, world.position(2))).take() == ["joined 2 recovered"]
    assert world.streams.recovered == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda position: None,
        lambda position: Position("foreign", position.offset),
        lambda position: Position("", position.offset),
        lambda position: Position("\ud800", position.offset),
        lambda position: Position(position.epoch, position.offset + 1),
        lambda position: Position(position.epoch, -1),
        lambda position: Position(position.epoch, -(2**70)),
        lambda position: Position(position.epoch, 2**70),
        lambda position: Position(position.epoch, 2**53),
    ],
)
async def test_a_position_that_is_not_of_this_stream_is_told_so_and_joins_all_the_same(world, change):
    await world.say(2)
    recorder = await joined(world, 0, change(world.position(2)), recovers=True)
    await world.say()
    assert recorder.take() == ["joined 2 not recovered", 3]
    assert world.streams.not_recovered == 1


async def test_a_group_that_was_never_said_anything_in_cannot_be_recovered_from(world):
    assert (await joined(world, 0, Position("old", 3))).take() == ["joined 0 not recovered"]


async def test_recovery_is_never_partial(world):
    await world.say(10)
    assert (await joined(world, 0, world.position(5), max_events=5)).take()[0] == "joined 5 recovered"
    assert (await joined(world, 0, world.position(4), max_events=5)).take() == ["joined 10 not recovered"]
    size = len(encode_packet(Packet("event", b"1", "said")))
    assert (await joined(world, 0, world.position(6), max_bytes=4 * size)).take() == ["joined 10 not recovered"]
    await world.say(history=History(size=3))
    assert (await joined(world, 0, world.position(7))).take() == ["joined 11 not recovered"]
    assert (await joined(world, 0, world.position(8))).take() == ["joined 8 recovered", 9, 10, 11]


async def test_what_comes_while_the_missed_events_are_read_follows_them_once_and_in_order(world):
    other = await joined(world)
    await world.say(4)
    world.store.is_slow = True
    recorder = Recorder(world.hub)
    joining = asyncio.create_task(recorder.join(world.position(1)))
    await turns()
    await world.say(3)  # Not in what was read.
    await world.store.let_through()
    await joining
    await world.say()
    assert recorder.take() == ["joined 1 recovered", 2, 3, 4, 5, 6, 7, 8]
    assert other.take() == ["joined 0", 1, 2, 3, 4, 5, 6, 7, 8]


async def test_a_hole_in_what_came_meanwhile_is_no_recovery(world):
    await joined(world)
    await world.say(2)
    world.store.is_slow = True
    recorder = Recorder(world.hub)
    joining = asyncio.create_task(recorder.join(world.position(1)))
    await turns()
    stream = world.stream()
    stream.offset = 3  # As after a gap: event 3 has been trimmed.
    await world.store.append(GROUP, encode_packet(Packet("event", b"3", "said")), HISTORY)
    await world.say()
    await world.store.let_through()
    await joining
    assert recorder.take() == ["joined 4 not recovered"]


async def test_more_than_can_be_held_is_read_again(world, monkeypatch):
    monkeypatch.setattr(fanning, "MAX_HELD", 2)
    await joined(world)
    await world.say(1)
    world.store.is_slow = True
    recorder = Recorder(world.hub)
    joining = asyncio.create_task(recorder.join(world.position(0)))
    await turns()
    await world.say(4)
    await world.store.let_through()
    await world.say(1)
    await world.store.let_through()
    await joining
    await world.say()
    assert recorder.take() == ["joined 0 recovered", *range(1, 8)]


async def test_who_is_overrun_each_time_is_not_recovered_and_loses_nothing_from_then_on(world, monkeypatch):
    monkeypatch.setattr(fanning, "MAX_HELD", 2)
    await joined(world)
    world.store.is_slow = True
    recorder = Recorder(world.hub)
    joining = asyncio.create_task(recorder.join(world.position(0)))
    for _ in range(streams.JOIN_TRIES):
        await turns()
        await world.say(4)
        await world.store.let_through()
    await joining
    await world.say()
    frames = recorder.take()
    assert frames[0] == "joined 12 not recovered"
    assert frames[-1] == 13


async def test_a_member_s_own_event_that_it_is_left_out_of_is_no_hole(world):
    await joined(world)
    world.store.is_slow = True
    recorder = Recorder(world.hub)
    joining = asyncio.create_task(recorder.join(world.position(0)))
    await turns()
    await world.say()
    await world.say(exclude=recorder.member.channel)
    await world.say()
    await world.store.let_through()
    await joining
    assert recorder.take() == ["joined 0 recovered", 1, 3]


async def test_who_is_left_out_of_an_event_does_not_get_it_back_by_recovery_or_healing(world):
    recorder = await joined(world)
    position = world.position(0)
    await world.keep()
    world.transport.drop()
    await world.say(exclude=recorder.member.channel)
    await world.say()
    assert recorder.take() == ["joined 0", 1, 3]
    await recorder.leave()
    assert await recorder.join(position)
    assert recorder.take() == ["joined 0 recovered", 1, 3]
    assert (await joined(world, 0, position)).take() == ["joined 0 recovered", 1, 2, 3]


async def test_frames_that_are_relayed_come_after_the_position_too(world):
    first = await joined(world)
    await first.leave()
    world.store.is_slow = True
    recorder = Recorder(world.hub)
    recorder.push = recorder.member.push = lambda frame, droppable=None: recorder.frames.append(
        {"type": "event", "data": frame.payload.decode()} if frame.payload == b"hi" else json.loads(frame.payload)
    )
    joining = asyncio.create_task(recorder.join(world.position(0)))
    await turns()
    await world.hub.publish(ROOM, Packet("text", b"hi"))
    assert recorder.frames == []
    while await world.store.let_through():
        pass
    await joining
    assert recorder.take() == ["joined 0 recovered", "hi"]


async def test_what_was_missed_and_held_is_beyond_the_outbox_s_bounds(world):
    await joined(world)
    await world.say(2)
    recorder = Recorder(world.hub)
    notes = []
    recorder.member.push = lambda frame, droppable=None: notes.append(droppable)
    world.store.is_slow = True
    joining = asyncio.create_task(recorder.join(world.position(0)))
    await turns()
    await world.say(2)
    await world.store.let_through()
    await joining
    assert notes == [None, *[streams.UNCOUNTED] * 4]
    await world.say()
    # Only what follows may be dropped, with a word to the client.
    assert json.loads(notes[-1].gap().payload) == {"type": "gap", "group": GROUP}


async def test_frames_of_old_events_are_made_once_and_bounded(world, monkeypatch):
    await joined(world)
    await world.say(20)
    for _ in range(2):
        await joined(world, 0, world.position(0))
    assert len(world.stream().frames) == 20
    size = world.streams._replaying.kept
    monkeypatch.setattr(replaying, "MAX_FRAME_BYTES", size)
    await world.say()
    assert (await joined(world, 0, world.position(0))).take()[-1] == 21
    assert len(world.stream().frames) == 1
    await world.streams.check()
    assert (len(world.stream().frames), world.streams._replaying.kept) == (0, 0)


# -- members without history -------------------------------------------------------------------------------------------


async def test_members_that_came_without_a_history_miss_nothing_when_the_first_with_one_joins(two):
    plain = Recorder(two.hub)
    await plain.join(history=None)
    await two.say(process=1)
    two.store.is_slow = True
    two.transport.delay(1)
    await two.say(process=1)
    joining = asyncio.create_task(joined(two))
    await turns()
    await two.say(process=1)
    two.store.is_slow = False
    await two.store.let_through()
    recorder = await joining
    await turns()
    await two.transport.release()
    await two.say()
    assert plain.take() == [1, 2, 3, 4]
    assert recorder.take() == ["joined 1", 2, 3, 4]


async def test_the_first_event_of_members_without_a_history_is_not_lost_either(two):
    plain = Recorder(two.hub)
    await plain.join(history=None)
    two.store.is_slow = True
    joining = asyncio.create_task(joined(two))
    await turns()
    await two.say(2, process=1)
    two.store.is_slow = False
    await two.store.let_through()
    recorder = await joining
    await turns()
    assert plain.take() == [1, 2]
    assert recorder.take() in (["joined 0", 1, 2], ["joined 2"])


async def test_a_join_that_fails_leaves_those_without_a_history_as_they_were(world, monkeypatch):
    monkeypatch.setattr(streams, "RETRY", 0.0)
    plain = Recorder(world.hub)
    await plain.join(history=None)
    await world.say()
    world.store.is_away = True
    with pytest.raises(BrokerUnavailable):
        await joined(world)
    world.store.is_away = False
    await world.say(2)
    await turns(50)
    assert plain.take() == [1, 2, 3]


# -- many members ------------------------------------------------------------------------------------------------------


class Crowd:
    """More members than are served in one go, of which the last one and the first one are looked at."""

    @classmethod
    async def of(cls, hub):
        crowd = cls()
        crowd.members = [Recorder(hub) for _ in range(CHUNK * 2)]
        for recorder in crowd.members:
            await recorder.join()
        await crowd.take()
        return crowd

    async def take(self):
        await turns(20)
        taken = [recorder.take() for recorder in self.members]
        assert all(each == taken[0] for each in taken)
        return taken[0]


@pytest.fixture
async def direct():
    """A hub over memory, where a publish is a call and fan-outs of several tasks meet."""
    hub = Hub(MemoryTransport(), Store())
    await hub.open()
    yield hub
    await hub.close()


def said(offset):
    return Packet("event", b"%d" % offset, "said")


async def test_who_joins_while_events_are_fanned_out_gets_those_after_its_position_only(direct):
    crowd = await Crowd.of(direct)
    publishing = [asyncio.create_task(direct.append(GROUP, said(number), HISTORY)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    late, recovered = Recorder(direct), Recorder(direct)
    await late.join()
    epoch = (await direct.streams.store.position(GROUP, HISTORY)).epoch
    await recovered.join(Position(epoch, 1))
    await asyncio.gather(*publishing)
    await direct.append(GROUP, said(4), HISTORY)
    assert await crowd.take() == [1, 2, 3, 4]
    position = int(late.frames[0]["offset"])
    assert late.take() == [f"joined {position}", *range(position + 1, 5)]
    assert recovered.take() == ["joined 1 recovered", 2, 3, 4]
    assert not direct.streams._streams[GROUP].late


async def test_a_publisher_that_is_cancelled_while_others_fan_out_leaves_no_hole(direct, monkeypatch):
    monkeypatch.setattr("fastapi_consumers.turn.MAX_LOAD", CHUNK)
    crowd = await Crowd.of(direct)
    publishing = [asyncio.create_task(direct.append(GROUP, said(number), HISTORY)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    publishing[1].cancel()
    publishing[0].cancel()
    await asyncio.wait(publishing)
    await direct.append(GROUP, said(4), HISTORY)
    assert [task.cancelled() for task in publishing] == [True, True, False]
    assert await crowd.take() == [1, 2, 3, 4]


async def test_a_heal_waits_for_what_is_being_fanned_out(direct):
    crowd = await Crowd.of(direct)
    publishing = [asyncio.create_task(direct.append(GROUP, said(number), HISTORY)) for number in (1, 2)]
    await asyncio.sleep(0)
    await direct.streams.store.remove(GROUP)
    await direct.streams.store.append(GROUP, encode_packet(said(1)), HISTORY)
    direct.streams.heal_all([GROUP])
    await asyncio.gather(*publishing)
    await turns(30)
    # No event of the old epoch comes after the new one was announced.
    assert await crowd.take() == [1, 2, "gap", "joined 0", 1]


async def test_a_heal_of_many_members_and_those_who_join_meanwhile(direct):
    crowd = await Crowd.of(direct)
    for number in range(1, 9):
        await direct.streams.store.append(GROUP, encode_packet(said(number)), HISTORY)
    direct.streams.heal_all([GROUP])
    late = []
    for _ in range(12):
        await asyncio.sleep(0)
        late.append(Recorder(direct))
        await late[-1].join()
    await turns(60)
    await direct.append(GROUP, said(9), HISTORY)
    assert await crowd.take() == [*range(1, 10)]
    for recorder in late:
        position = int(recorder.frames[0]["offset"])
        assert recorder.take() == [f"joined {position}", *range(position + 1, 10)]


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_leaving_ends_a_heal_that_is_under_way(world):
    recorder = await joined(world)
    await world.keep()
    world.store.is_slow = True
    await world.say()
    healing = world.stream().healing
    await recorder.leave()
    await asyncio.wait({healing})
    assert healing.cancelled()
    assert not world.streams._tasks


async def test_closing_ends_heals_that_are_under_way():
    world = World()
    await world.hub.open()
    await joined(world)
    await world.keep()
    world.store.is_slow = True
    await world.say()
    tasks = set(world.streams._tasks)
    assert tasks
    await world.hub.close()
    assert all(task.done() for task in tasks)
    assert not asyncio.all_tasks() - {asyncio.current_task()}


async def test_nothing_grows_with_the_number_of_events(world):
    small = History(size=3)
    recorder = await joined(world)
    for number in range(30):
        await world.keep(history=small)
        await world.say(history=small)
        other = await joined(world, 0, world.position(max(2 * number - 1, 0)))
        assert other.take()[0].endswith(" recovered")
        await other.leave()
        recorder.take()
    await world.streams.check()
    stream = world.stream()
    assert (len(stream.frames), len(stream.late), world.streams._tasks) == (0, 0, set())


# --- a store that does not hear that nobody waits any more ---


async def healing(world, count=3):
    """Somebody whose stream reads what is missing, and waits for the store."""
    world.store.is_deaf = True
    recorder = await joined(world)
    await world.say(count)
    await world.keep()
    world.store.is_slow = True
    await world.say()
    assert world.store.waiting
    return recorder


async def test_a_stream_that_was_given_up_says_nothing_to_those_of_the_next(world):
    await (await healing(world)).leave()
    assert not world.streams._streams
    recorder = Recorder(world.hub)
    joining = asyncio.create_task(recorder.join())
    await world.store.let_all_through()
    await joining
    world.store.is_slow = False
    await world.say()
    assert recorder.take() == ["joined 5", 6]


async def test_a_stream_that_starts_anew_is_not_moved_by_who_read_for_it_before(world):
    first = await healing(world)
    stream = world.stream()
    world.streams.restart(stream)
    await world.store.let_all_through()
    assert (stream.epoch, stream.offset) == (None, 0)
    assert first.take() == ["joined 0", 1, 2, 3]


async def test_what_a_stream_was_in_the_middle_of_is_not_said_once_it_starts_anew(world, monkeypatch):
    first = await healing(world, count=0)
    stream, hand_on = world.stream(), world.streams._hand_on

    async def hand_on_once(group, fanning):
        await hand_on(group, fanning)
        world.streams.restart(stream)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    monkeypatch.setattr(world.streams, "_hand_on", hand_on_once)
    await world.store.let_all_through()
    assert first.take() == ["joined 0", 1]
    assert (stream.epoch, stream.offset) == (None, 0)


async def test_who_reads_for_a_stream_that_began_elsewhere_meanwhile_does_not_begin_it_again(world):
    world.store.is_deaf = True
    await joined(world)
    await world.say()
    await world.purge()
    world.store.is_slow = True
    stream = world.stream()
    world.streams.heal(stream)
    # It finds nothing, and asks for the epoch that begins now.
    assert await world.store.let_through()
    assert world.store.waiting
    world.streams.restart(stream)
    stream.begin("elsewhere", 7)
    await world.store.let_all_through()
    assert (stream.epoch, stream.offset) == ("elsewhere", 7)
