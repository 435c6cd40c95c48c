"""The tracker: what is told to the store and to the group, and when, by a clock that the test turns."""

import asyncio
import json

import pytest

from fastapi_consumers.addressing import GROUP
from fastapi_consumers.exceptions import BrokerUnavailable, GroupFull
from fastapi_consumers.fanning import Member
from fastapi_consumers.hub import Hub
from fastapi_consumers.keeping import Keeper
from fastapi_consumers.packets import decode_packet
from fastapi_consumers.presence import MemoryPresenceStore, Presence
from fastapi_consumers.tracking import BATCH, INTERVAL, LEASE, NOTICE_SIZE, WINDOW, Tracker
from fastapi_consumers.transports import MemoryTransport

TTL, GRACE = 60.0, 10.0
PRESENCE = Presence(lambda consumer: consumer, ttl=TTL, grace=GRACE)
AT_ONCE = Presence(lambda consumer: consumer, ttl=TTL, grace=0)
COUNTING = Presence(lambda consumer: consumer, ttl=TTL, grace=0, count_only=True)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class SharedStore(MemoryPresenceStore):
    """One that several trackers share; it can be away, and lose an answer."""

    is_distributed = True
    away = lost_answers = False
    updates = 0

    async def update(self, *args, **options):
        await asyncio.sleep(0)
        if self.away:
            raise BrokerUnavailable
        self.updates += 1
        outcome = await super().update(*args, **options)
        if self.lost_answers:
            raise BrokerUnavailable
        return outcome


class World:
    """Processes over one store, and what was announced, by all of them, in order."""

    def __init__(self):
        self.clock = Clock()
        self.store = SharedStore(self.clock)
        self.announced = []
        self.processes = []
        self.transport_is_away = False

    def process(self, store=None):
        process = Process(self, self.store if store is None else store)
        self.processes.append(process)
        return process

    async def pass_time(self, seconds, step=0.05):
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + step)
            for process in self.processes:
                await process.keeper.run_due()

    def news(self):
        """What was announced since it was last asked: (joined, left) as lists of keys, of all notices together."""
        joins, leaves = [], []
        for notice in self.announced:
            joins += [key for key, found in notice["joins"].items() for _ in found["metas"]]
            leaves += [key for key, found in notice["leaves"].items() for _ in found["metas"]]
        self.announced.clear()
        return sorted(joins), sorted(leaves)

    @property
    def present(self):
        return sorted(record.present.key for record in self.store._groups["g"].records.values())


class Process:
    def __init__(self, world, store):
        self.world = world
        self.hub = Hub(MemoryTransport())
        self.hub.publish = self.publish
        self.keeper = Keeper(world.clock)
        self.tracker = Tracker(self.hub, store, self.keeper)

    async def publish(self, topic, packet):
        await asyncio.sleep(0)
        if self.world.transport_is_away:
            raise BrokerUnavailable
        assert topic == "group:g"
        assert (packet.kind, packet.name) == ("notice", "presence")
        fields = json.loads(packet.data)
        assert fields.pop("group") == "g"
        self.world.announced.append(fields)

    async def enter(self, key, presence=PRESENCE):
        """A connection of this key; returns its channel."""
        member = Member(self.hub.new_channel(), *[lambda *_: None] * 3, max_topics=10)
        member.topics += (GROUP + "g",)
        await self.tracker.enter("g", member, presence, key)
        return member.channel

    def leave(self, channel):
        self.tracker.leave("g", channel)

    @property
    def group(self):
        return self.tracker._groups.get("g")


@pytest.fixture
def world():
    return World()


async def test_what_changes_within_a_moment_is_told_in_one_notice(world):
    one = world.process()
    channels = [await one.enter(f"k{number}") for number in range(5)]
    one.leave(channels[0])
    await one.keeper.run_due()
    assert world.store.updates == 1  # A leave is told at once: whoever comes back should be known.
    assert world.news() == (["k1", "k2", "k3", "k4"], [])
    await one.enter("k5")
    await one.enter("k6")
    await world.pass_time(WINDOW / 2)
    assert world.announced == []
    await world.pass_time(WINDOW)
    assert world.store.updates == 2
    assert len(world.announced) == 1
    assert world.news() == (["k5", "k6"], [])


async def test_many_who_come_and_ask_see_each_other_and_are_told_of_in_one_notice(world):
    one = world.process()
    for number in range(20):
        await one.enter(f"k{number:02}")
        found = await one.tracker.read("g")
        assert sorted(found["members"]) == [f"k{known:02}" for known in range(number + 1)]
    assert world.announced == []
    await world.pass_time(WINDOW)
    assert len(world.announced) == 1
    assert world.news() == ([f"k{number:02}" for number in range(20)], [])


async def test_who_came_and_went_before_anybody_was_told_is_not_told_of(world):
    one = world.process()
    one.leave(await one.enter("ann", AT_ONCE))
    await world.pass_time(1)
    assert world.announced == []
    assert one.group is None
    assert world.store._groups == {}


async def test_a_leave_is_announced_after_its_grace_by_the_process_that_saw_it(world):
    one = world.process()
    one.leave(await one.enter("ann"))
    channel = await one.enter("bob")
    await world.pass_time(0.2)
    one.leave(channel)
    await world.pass_time(GRACE - 0.1)
    assert world.news() == (["bob"], [])
    await world.pass_time(0.3)
    assert world.news() == ([], ["bob"])
    assert one.group is None
    assert world.store._groups == {}


async def test_a_client_that_flaps_between_processes_is_not_told_of(world):
    one, two = world.process(), world.process()
    channel, at = await one.enter("ann"), one
    await two.enter("bob")
    await world.pass_time(1)
    assert world.news() == (["ann", "bob"], [])
    for to in (two, one, one, two) * 5:
        at.leave(channel)
        await world.pass_time(GRACE / 2)
        channel, at = await to.enter("ann"), to
        await world.pass_time(1)
    assert world.announced == []
    at.leave(channel)
    await world.pass_time(GRACE + 0.2)
    assert world.news() == ([], ["ann"])


async def test_the_members_of_a_process_that_died_leave_within_the_ttl_announced_once(world):
    dying, *others = [world.process() for _ in range(4)]
    for number in range(10):
        await dying.enter(f"k{number}")
    for other in others:
        await other.enter("alive")
    await world.pass_time(TTL * 1.5)
    assert len(world.news()[0]) == 13
    world.processes.remove(dying)
    await world.pass_time(TTL * (LEASE - INTERVAL) - 0.1)
    assert world.announced == []
    await world.pass_time(TTL * 2 * INTERVAL)
    assert world.news() == ([], [f"k{number}" for number in range(10)])
    await world.pass_time(TTL * 3)
    assert world.announced == []
    assert world.present == ["alive"] * 3


async def test_who_only_looks_on_finds_the_dead_too(world):
    dying, watching = world.process(), world.process()
    await dying.enter("ann")
    channel = await watching.enter(None)
    await world.pass_time(1)
    world.processes.remove(dying)
    await world.pass_time(TTL)
    assert world.news() == (["ann"], ["ann"])
    watching.leave(channel)
    await world.pass_time(1)
    assert watching.group is None
    assert world.store._groups == {}


async def test_leases_are_renewed_per_group_and_process_and_not_all_at_once(world):
    processes = [world.process() for _ in range(50)]
    for process in processes:
        for _ in range(20):
            await process.enter("ann")
    await world.pass_time(WINDOW * 2)
    assert world.store.updates == 50
    first = [process.group.renew_at - world.clock.now for process in processes]
    assert all(INTERVAL * TTL * 0.45 <= delay <= INTERVAL * TTL for delay in first)
    assert max(first) - min(first) > INTERVAL * TTL * 0.3
    await world.pass_time(10 * INTERVAL * TTL, step=1)
    assert 450 <= world.store.updates - 50 <= 550


async def test_a_process_that_was_taken_for_dead_comes_back(world):
    stalled, other = world.process(), world.process()
    await stalled.enter("ann")
    await stalled.tracker.take_seat("g", "s", 1, TTL)
    await other.enter("bob")
    await world.pass_time(1)
    world.news()
    world.processes.remove(stalled)
    await world.pass_time(TTL)
    assert world.news() == ([], ["ann"])
    world.processes.append(stalled)
    await world.pass_time(1)
    assert world.news() == (["ann"], [])
    with pytest.raises(GroupFull):
        await other.tracker.take_seat("g", "t", 1, TTL)


async def test_a_store_that_lost_everything_is_told_again(world):
    one, two = world.process(), world.process()
    await one.enter("ann")
    await two.enter("bob")
    await one.tracker.take_seat("g", "s", 1, TTL)
    await world.pass_time(1)
    await world.store.close()
    await world.pass_time(TTL * INTERVAL)
    assert world.present == ["ann", "bob"]
    with pytest.raises(GroupFull):
        await two.tracker.take_seat("g", "t", 1, TTL)
    world.news()
    await world.store.close()
    await two.tracker.take_seat("g", "t", 2, TTL)  # the first thing that the store hears
    await world.pass_time(TTL * INTERVAL)
    assert world.present == ["ann", "bob"]


@pytest.mark.parametrize("failure", ["away", "lost_answers"])
async def test_while_the_store_is_away_changes_wait_and_nothing_is_lost(world, failure, caplog):
    one = world.process()
    await one.enter("ann", AT_ONCE)
    leaving = await one.enter("bob", AT_ONCE)
    await one.tracker.take_seat("g", "s", 1, TTL)
    await world.pass_time(1)
    assert world.news() == (["ann", "bob"], [])
    setattr(world.store, failure, True)
    one.leave(leaving)
    one.leave("s")
    await one.enter("cid", AT_ONCE)
    passing = await one.enter("dan", AT_ONCE)
    await world.pass_time(5)
    one.leave(passing)
    with pytest.raises(BrokerUnavailable):
        await one.tracker.read("g")
    with pytest.raises(BrokerUnavailable):
        await one.tracker.take_seat("g", "t", 1, TTL)
    await world.pass_time(5)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    setattr(world.store, failure, False)
    await world.pass_time(5)
    assert world.present == ["ann", "cid"]
    assert world.store._groups["g"].seats == {}
    if failure == "away":
        assert world.news() == (["cid"], ["bob"])
    await one.tracker.take_seat("g", "u", 1, TTL)


async def test_while_nothing_can_be_announced_the_news_wait(world):
    one = world.process()
    channel = await one.enter("ann", AT_ONCE)
    await world.pass_time(1)
    world.news()
    world.transport_is_away = True
    passing = await one.enter("bob", AT_ONCE)
    await world.pass_time(1)
    one.leave(passing)
    one.leave(channel)
    await one.enter("cid", AT_ONCE)
    await world.pass_time(5)
    world.transport_is_away = False
    await world.pass_time(5)
    assert world.news() == (["cid"], ["ann"])


async def test_a_large_change_is_told_in_parts_and_in_notices_of_a_bounded_size(world):
    one = world.process()
    presence = Presence(lambda key: key, info=lambda key: {"x": "y" * 900}, ttl=TTL)
    for number in range(2 * BATCH + 1):
        await one.enter(f"k{number}", presence)
    await world.pass_time(1)
    assert world.store.updates == 3
    sizes = [len(json.dumps(notice)) for notice in world.announced]
    assert max(sizes) < NOTICE_SIZE * 1.2
    assert len(sizes) < 80
    assert len(world.news()[0]) == 2 * BATCH + 1


async def test_numbers_end_with_the_right_one_whatever_overtakes_what(world):
    one, two = world.process(), world.process()
    await one.enter("k0", COUNTING)
    await world.pass_time(1)
    assert world.announced == [{"count": 1}]

    # The first process's number is published late, after that of the second one.
    publish, held = one.publish, asyncio.Event()

    async def late(topic, packet):
        await held.wait()
        await publish(topic, packet)

    one.hub.publish = late
    await one.enter("k1", COUNTING)
    world.clock.now += WINDOW
    flushing = asyncio.create_task(one.keeper.run_due())
    while one.group.size != 2:  # noqa: ASYNC110 -- what it waits for has no event
        await asyncio.sleep(0)
    await two.enter("k2", COUNTING)
    world.clock.now += WINDOW
    await two.keeper.run_due()
    assert world.announced[-1] == {"count": 3}
    held.set()
    await flushing
    assert world.announced[-1] == {"count": 2}
    await world.pass_time(1)
    assert world.announced[-1] == {"count": 3}
    told = len(world.announced)
    await world.pass_time(TTL)
    assert len(world.announced) == told


async def test_a_key_that_takes_its_time_is_not_shown_after_it_left(world):
    one = world.process()
    member = Member(one.hub.new_channel(), *[lambda *_: None] * 3, max_topics=10)
    member.topics += (GROUP + "g",)

    async def slow(consumer):
        member.topics = ()
        return "ann"

    await one.tracker.enter("g", member, Presence(slow), None)
    await world.pass_time(1)
    assert (one.group, world.announced) == (None, [])


async def test_a_store_of_one_process_has_no_leases_to_renew(world):
    store = MemoryPresenceStore(world.clock)
    one = world.process(store)
    channel = await one.enter("ann")
    await one.enter(None)
    await world.pass_time(TTL * 3, step=1)
    assert (await one.tracker.read("g"))["count"] == 1
    assert one.keeper._plan == []
    one.leave(channel)
    await world.pass_time(GRACE + 1)
    assert world.news() == (["ann"], ["ann"])
    assert (one.tracker._groups, store._groups) == ({}, {})


async def test_notices_of_a_store_that_others_do_not_see_stay_in_the_process(world):
    hub = Hub(MemoryTransport())
    published = []

    async def deliver(topic, data):
        published.append((topic, decode_packet(data).kind))

    hub._deliver = deliver
    keeper = Keeper(world.clock)
    tracker = Tracker(hub, MemoryPresenceStore(world.clock), keeper, local=True)
    member = Member("c", *[lambda *_: None] * 3, max_topics=10)
    member.topics += (GROUP + "g",)
    await tracker.enter("g", member, PRESENCE, "ann")
    world.clock.now += WINDOW
    await keeper.run_due()
    assert published == [("group:g", "notice")]


async def test_seats_are_taken_and_given_back_in_turn(world):
    one, two = world.process(), world.process()
    for _ in range(20):
        await one.tracker.take_seat("g", "a", 1, TTL)
        with pytest.raises(GroupFull):
            await two.tracker.take_seat("g", "b", 1, TTL)
        await one.tracker.give_back("g", "a")
        await two.tracker.take_seat("g", "b", 1, TTL)
        two.leave("b")
        await two.keeper.run_due()
    await one.tracker.give_back("g", "never")
    await one.tracker.give_back("never", "a")
    await world.pass_time(1)
    assert (one.group, two.group, world.store._groups) == (None, None, {})


async def test_who_is_refused_a_seat_announces_whom_it_found_dead_all_the_same(world):
    dying, living, other = world.process(), world.process(), world.process()
    await dying.enter("ann")
    await living.tracker.take_seat("g", "b", 1, TTL)
    await world.pass_time(1)
    world.news()
    world.clock.now += TTL * LEASE - 2
    await living.tracker.take_seat("g", "b", 1, TTL)  # which renews its lease
    world.clock.now += 2
    with pytest.raises(GroupFull):
        await other.tracker.take_seat("g", "c", 1, TTL)
    world.clock.now += WINDOW
    await other.keeper.run_due()
    assert world.news() == ([], ["ann"])
    assert other.group is None


async def test_a_seat_is_given_back_even_if_who_gives_it_back_is_cancelled(world):
    one, two = world.process(), world.process()
    await one.tracker.take_seat("g", "a", 1, TTL)
    world.store.away = True
    giving = asyncio.create_task(one.tracker.give_back("g", "a"))
    await asyncio.sleep(0)
    giving.cancel()
    await asyncio.wait([giving])
    world.store.away = False
    await world.pass_time(1)
    await two.tracker.take_seat("g", "b", 1, TTL)


async def test_a_seat_that_was_just_left_is_free_for_the_next_one_here(world):
    one = world.process()
    await one.tracker.take_seat("g", "a", 1, TTL)
    one.leave("a")
    await one.tracker.take_seat("g", "b", 1, TTL)
    with pytest.raises(GroupFull):
        await one.tracker.take_seat("g", "c", 1, TTL)


async def test_two_hundred_takers_at_once_in_two_processes(world):
    processes = [world.process(), world.process()]
    takers = [process.tracker.take_seat("g", str(number), 30, TTL) for number in range(100) for process in processes]
    # Of both processes there is one of each number, and they are two channels.
    found = await asyncio.gather(*takers, return_exceptions=True)
    assert sum(result is None for result in found) >= 30
    assert len(world.store._groups["g"].seats) == 30


async def test_storms_leave_nothing_behind(world):
    processes = [world.process() for _ in range(3)]
    channels = []
    for round_ in range(20):
        for process in processes:
            for number in range(10):
                channels.append((process, await process.enter(f"k{(round_ + number) % 15}")))
        await world.pass_time(0.05)
        for process, channel in channels[: len(channels) // 2]:
            process.leave(channel)
        del channels[: len(channels) // 2]
        await world.pass_time(0.3)
    for process, channel in channels:
        process.leave(channel)
    balance = {}
    await world.pass_time(GRACE + 1)
    for notice in world.announced:
        for part, change in (("joins", 1), ("leaves", -1)):
            for key, found in notice[part].items():
                for meta in found["metas"]:
                    balance[key, meta["ref"]] = balance.get((key, meta["ref"]), 0) + change
                    assert balance[key, meta["ref"]] in (0, 1)
    assert set(balance.values()) == {0}
    assert [process.group for process in processes] == [None] * 3
    assert world.store._groups == {}
