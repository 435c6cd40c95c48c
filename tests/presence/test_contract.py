"""What every store of presence promises, on each of them: in memory, and on a real server with a clock that we turn."""

import asyncio
import random
import secrets
from collections import Counter

import pytest

from fastapi_consumers.exceptions import BrokerUnavailable, ImproperlyConfigured
from fastapi_consumers.presence import Change, Entry, MemoryPresenceStore, RedisPresenceStore, Roster

LEASE, GRACE = 10.0, 5.0
HOSTILE = [
    "ä🎉",
    "{",
    "}",
    "{}",
    "}{",
    "a{b}c",
    "%7B",
    "a b",
    "x" * 255,
    "\u202e",
    "*",
    "?",
    ":",
    "a\nb",
    "\0",
    '"',
    "\\",
]


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "valkey", "cluster"])
async def store(request, clock):
    if request.param == "memory":
        store = MemoryPresenceStore(clock)
    else:
        prefix = f"t{secrets.token_hex(4)}:"
        broker = request.getfixturevalue("cluster" if request.param == "cluster" else "broker")
        nodes = broker.nodes if request.param == "cluster" else [broker]
        url = f"{broker.url}?prefix={prefix}"
        store = RedisPresenceStore(url, clock=clock)
        store.full_url = url
        store.lifetimes = lambda: {
            key: node.admin("PTTL", key) for node in nodes for key in node.admin("KEYS", f"{prefix}*")
        }
    await store.open()
    yield store
    await store.close()


class Process:
    """One of those that share the store."""

    def __init__(self, store, name, group="g"):
        self.store, self.name, self.group = store, name, group

    async def update(self, *, grace=GRACE, **change):
        return await self.store.update(self.group, self.name, Change(**change), lease=LEASE, grace=grace)

    async def enter(self, channel, key="ann", info=b"{}", **options):
        outcome = await self.update(enter=[Entry(channel, key, info)], **options)
        return refs(outcome.joins), refs(outcome.leaves)

    async def leave(self, *channels, **options):
        outcome = await self.update(leave=channels, **options)
        return refs(outcome.joins), refs(outcome.leaves)

    async def renew(self):
        outcome = await self.update()
        return refs(outcome.joins), refs(outcome.leaves)

    async def take(self, channel, limit, **change):
        return (await self.update(seat=channel, limit=limit, **change)).seated


@pytest.fixture
def one(store):
    return Process(store, "one")


@pytest.fixture
def two(store):
    return Process(store, "two")


def refs(presents):
    return sorted((present.key, present.ref) for present in presents)


async def seen(store, group="g"):
    size, members = await store.read(group)
    assert size == len({present.key for present in members}) == (await store.read(group, count_only=True)).size
    return refs(members)


# Members


async def test_who_enters_joins_once_and_is_seen_until_it_left(store, one):
    assert await seen(store) == []
    assert await one.enter("c1", "ann", b'{"x":1}') == ([("ann", "c1")], [])
    assert await one.enter("c1", "ann", b'{"x":1}') == ([], [])
    assert (await store.read("g")).members == [("c1", "ann", b'{"x":1}')]
    assert await one.leave("c1", grace=0) == ([], [("ann", "c1")])
    assert await one.leave("c1", grace=0) == ([], [])
    assert await one.leave("never", grace=0) == ([], [])
    assert await store.read("g") == Roster(0, [])
    assert await store.read("g", count_only=True) == Roster(0, [])


async def test_several_tabs_of_a_user_are_one_key_with_several_connections(store, one, two):
    for process, channel in ((one, "c1"), (two, "c2"), (two, "c3")):
        assert await process.enter(channel) == ([("ann", channel)], [])
    await two.enter("c4", "bob")
    assert (await store.read("g")).size == 2
    assert await seen(store) == [("ann", "c1"), ("ann", "c2"), ("ann", "c3"), ("bob", "c4")]
    assert await two.leave("c2", grace=0) == ([], [("ann", "c2")])
    assert (await one.update(leave=["c1", "c3"], grace=0)).size == 1


async def test_groups_know_nothing_of_each_other(store, one):
    other = Process(store, "one", "h")
    await one.enter("c1")
    await other.enter("c1", "bob")
    assert await seen(store) == [("ann", "c1")]
    assert await other.leave("c1", grace=0) == ([], [("bob", "c1")])
    assert await seen(store) == [("ann", "c1")]


async def test_many_changes_at_once_leave_before_they_enter(store, one):
    entries = [Entry(f"c{number}", f"k{number % 50}", b"{}") for number in range(500)]
    outcome = await one.update(enter=entries)
    assert (len(outcome.joins), outcome.size) == (500, 50)
    outcome = await one.update(leave=[entry.channel for entry in entries[:400]], enter=[entries[0]], grace=0)
    assert (len(outcome.leaves), refs(outcome.joins), outcome.size) == (400, [("k0", "c0")], 50)
    assert len((await store.read("g")).members) == 101


async def test_another_key_or_info_replaces_the_former(store, one):
    await one.enter("c1", "ann", b'{"x":1}')
    assert await one.enter("c1", "ann", b'{"x":2}') == ([], [])
    assert (await store.read("g")).members == [("c1", "ann", b'{"x":2}')]
    assert await one.enter("c1", "bob") == ([("bob", "c1")], [("ann", "c1")])
    assert await seen(store) == [("bob", "c1")]


@pytest.mark.parametrize("name", HOSTILE)
async def test_names_of_groups_keys_and_channels_are_only_names(store, name):
    group = name.replace("\n", "").replace("\0", "") or "x"
    process = Process(store, name, group)
    await Process(store, "one", "g").enter("c", "kept")
    assert await process.enter(name, name, b'{"a":"\xc3\xa4"}') == ([(name, name)], [])
    assert (await store.read(group)).members == [(name, name, b'{"a":"\xc3\xa4"}')]
    assert await process.leave(name) == ([], [])
    assert await process.enter(name + "2", name) == ([], [])
    assert await process.take(name, 1)
    assert not await process.take("another", 1)
    assert refs((await process.update(leave=[name + "2"], free=[name], done=True, grace=0)).leaves) == [(name, name)]
    assert await seen(store, group) == []
    assert await seen(store, "g") == [("kept", "c")]


# Grace


async def test_a_leave_is_held_back_for_its_grace_and_then_told_once(store, clock, one, two):
    await one.enter("c1")
    await two.enter("c2", "bob")
    assert await one.leave("c1") == ([], [])
    assert await seen(store) == [("ann", "c1"), ("bob", "c2")]
    clock.now += GRACE - 0.1
    assert await two.renew() == ([], [])
    clock.now += 0.2
    assert await two.renew() == ([], [("ann", "c1")])
    assert await one.renew() == await two.renew() == ([], [])
    assert await seen(store) == [("bob", "c2")]


async def test_whose_key_comes_back_anywhere_within_the_grace_never_left(store, clock, one, two):
    await one.enter("c1", "ann", b'{"x":1}')
    for number, process in enumerate([two, one] * 5, 2):
        assert await one.leave(f"c{number - 1}") == ([], [])
        clock.now += GRACE - 0.1
        assert await process.enter(f"c{number}", "ann", b'{"x":2}') == ([], [])
    # Others know it by the ref that they were told.
    assert (await store.read("g")).members == [("c1", "ann", b'{"x":2}')]
    clock.now += GRACE
    assert await two.renew() == ([], [])
    assert await one.leave("c11", grace=0) == ([], [("ann", "c1")])


async def test_each_tab_that_comes_back_takes_one_place_and_one_more_joins(store, clock, one):
    await one.update(enter=[Entry("c1", "ann", b"{}"), Entry("c2", "ann", b"{}")])
    await one.leave("c1", "c2")
    assert await one.enter("c3") == ([], [])
    assert await one.enter("c4") == ([], [])
    assert await one.enter("c5") == ([("ann", "c5")], [])
    assert await seen(store) == [("ann", "c1"), ("ann", "c2"), ("ann", "c5")]
    clock.now += GRACE + 1
    assert await one.renew() == ([], [])


async def test_the_same_channel_may_come_back_too(store, clock, one):
    await one.enter("c1")
    await one.leave("c1")
    assert await one.enter("c1") == ([], [])
    clock.now += GRACE + 1
    assert await one.renew() == ([], [])
    assert await seen(store) == [("ann", "c1")]


async def test_who_comes_back_too_late_left_and_joins(store, clock, one):
    await one.enter("c1")
    await one.leave("c1")
    clock.now += GRACE
    assert await one.enter("c2") == ([("ann", "c2")], [("ann", "c1")])


async def test_a_second_leave_does_not_begin_another_grace(store, clock, one):
    await one.enter("c1")
    await one.leave("c1")
    clock.now += GRACE - 1
    await one.leave("c1")
    clock.now += 1
    assert await one.renew() == ([], [("ann", "c1")])


# Leases


async def test_the_members_of_a_process_that_died_leave_with_its_lease(store, clock, one, two):
    await one.update(enter=[Entry("c1", "ann", b"{}"), Entry("c2", "bob", b"{}")])
    await two.enter("c3", "bob")
    clock.now += LEASE - 1
    assert await two.renew() == ([], [])
    assert len(await seen(store)) == 3
    clock.now += 1
    assert await seen(store) == [("bob", "c3")]  # before anybody announces it
    assert await two.renew() == ([], [("ann", "c1"), ("bob", "c2")])
    assert await two.renew() == ([], [])
    assert await seen(store) == [("bob", "c3")]


async def test_every_change_renews_the_lease(store, clock, one, two):
    await one.enter("c1")
    for _ in range(5):
        clock.now += LEASE - 1
        assert (await one.update()).known
        assert await two.renew() == ([], [])
    assert await seen(store) == [("ann", "c1")]


async def test_one_of_many_reapers_at_once_finds_each_member(store, clock, one):
    await one.update(enter=[Entry(f"c{number}", f"k{number}", b"{}") for number in range(100)], seat="c0", limit=1)
    clock.now += LEASE
    others = [Process(store, f"other{number}") for number in range(20)]
    outcomes = await asyncio.gather(*[other.update() for other in others])
    found = Counter(ref for outcome in outcomes for _, ref in refs(outcome.leaves))
    assert found == Counter([f"c{number}" for number in range(100)])


async def test_a_process_that_was_taken_for_dead_is_told_so(store, clock, one, two):
    assert not (await one.update(enter=[Entry("c1", "ann", b"{}")])).known
    assert (await one.update()).known
    clock.now += LEASE
    assert (await one.update()).known  # late, but nobody has noticed
    clock.now += LEASE
    await two.renew()
    assert not (await one.update()).known
    assert await one.enter("c1") == ([("ann", "c1")], [])


async def test_who_is_done_has_no_lease(store, one, two):
    await one.enter("c1")
    await one.update(leave=["c1"], done=True, grace=0)
    assert not (await one.update(done=True)).known


async def test_a_storm_of_joins_and_leaves_adds_up(store, clock):
    """Whoever follows the joins and leaves, in the order of the changes, knows who is there."""
    chance = random.Random(1)
    processes = [Process(store, f"p{number}") for number in range(4)]
    open_channels, told, numbers = {}, Counter(), iter(range(10_000))
    for _ in range(300):
        process = chance.choice(processes)
        clock.now += chance.random() * 2
        leaving = [channel for channel, owner in open_channels.items() if owner is process and chance.random() < 0.3]
        for channel in leaving:
            del open_channels[channel]
        entering = [Entry(f"c{next(numbers)}", f"k{chance.randrange(8)}", b"{}") for _ in range(chance.randrange(4))]
        open_channels.update((entry.channel, process) for entry in entering)
        for each in (process, *processes):  # All of them stay alive.
            mine = each is process
            outcome = await each.update(leave=leaving if mine else [], enter=entering if mine else [])
            leaving, entering = ([], []) if mine else (leaving, entering)
            told.update(refs(outcome.joins))
            told.subtract(refs(outcome.leaves))
            assert set(told.values()) <= {0, 1}
        assert sorted(present for present, count in told.items() if count) == await seen(store)
    assert len(await seen(store)) >= len(open_channels)
    clock.now += GRACE
    for process in processes:
        await process.renew()
    assert len(await seen(store)) == len(open_channels)


# Seats


async def test_no_more_seats_than_there_are(store, one, two):
    assert await one.take("c1", 2)
    assert await two.take("c2", 2)
    assert not await one.take("c3", 2)
    assert await two.take("c2", 2)  # has one
    assert await one.take("c3", 2, free=["c1"])
    assert not await two.take("c1", 2)
    assert await two.take("c1", 3)  # another limit
    await one.update(reseat=["c4"])  # it had one, whatever the limit
    assert not await two.take("c5", 4)
    assert await seen(store) == []


async def test_two_hundred_who_ask_at_once_get_no_more_seats_than_there_are(store, clock, one, two):
    takers = [(process, f"{process.name}{number}") for number in range(100) for process in (one, two)]
    if isinstance(store, RedisPresenceStore):
        # Each process has connections of its own.
        two.store = RedisPresenceStore(store.full_url, clock=clock)
        await two.store.open()
    seated = await asyncio.gather(*[process.take(channel, 37) for process, channel in takers])
    assert sum(seated) == 37
    taken = [taker for taker, has_seat in zip(takers, seated, strict=True) if has_seat]
    await asyncio.gather(*[process.update(free=[channel]) for process, channel in taken])
    assert await asyncio.gather(*[two.take(f"again{number}", 37) for number in range(38)]) == [True] * 37 + [False]
    if two.store is not store:
        await two.store.close()


async def test_the_seats_of_a_process_that_died_are_free_with_its_lease(store, clock, one, two):
    assert await one.take("c1", 1)
    clock.now += LEASE - 1
    assert not await two.take("c2", 1)
    clock.now += 1
    assert await two.take("c2", 1)
    clock.now += LEASE - 1
    assert not await one.take("c1", 1)


# Nothing stays behind


async def test_nothing_of_an_empty_group_stays_behind(store, clock, one, two):
    await one.update(enter=[Entry("c1", "ann", b"{}")], seat="c1", limit=1)
    assert not await two.take("c2", 1)
    await one.update(leave=["c1"], free=["c1"], done=True)
    clock.now += GRACE
    assert refs((await one.update(done=True)).leaves) == [("ann", "c1")]
    if isinstance(store, MemoryPresenceStore):
        assert store._groups == {}
    else:
        assert store.lifetimes() == {}


async def test_what_nobody_renews_goes_by_itself(store, one):
    if isinstance(store, MemoryPresenceStore):
        pytest.skip("in memory it goes with the process")
    await one.update(enter=[Entry("c1", "ann", b"{}"), Entry("c2", "ann", b"{}")], seat="c1", limit=1)
    await one.update(leave=["c1"])
    await store.write_counts("one", {"g": 1}, lease=LEASE)
    keys = store.lifetimes()
    assert len(keys) == 7
    assert all(0 < lifetime <= (2 * LEASE + GRACE) * 1000 for lifetime in keys.values())
    # All keys of one group go to one place in a cluster.
    tags = {key.partition("{")[2].partition("}")[0] for key in keys}
    assert tags == {"g.g", "counts"}


# Counts


async def test_counts_of_all_processes_but_one_add_up(store):
    assert await store.read_count("g", without="") == 0
    assert not await store.write_counts("one", {"g": 2, "h": 1}, lease=LEASE)
    assert await store.write_counts("one", {"g": 3}, lease=LEASE)
    assert not await store.write_counts("two", {"g": 4, "ä{}": 5}, lease=LEASE)
    counts = [await store.read_count(group, without=name) for group in ("g", "h", "ä{}", "x") for name in ("", "one")]
    assert counts == [7, 4, 1, 0, 5, 5, 0, 0]
    assert await store.write_counts("one", {"g": 0}, lease=LEASE)
    assert await store.read_count("g", without="") == 4
    await store.forget_counts("two")
    assert await store.read_count("g", without="") == 0
    assert await store.read_count("h", without="") == 1


async def test_many_counts_at_once(store):
    await store.write_counts("one", {f"g{number}": number for number in range(1000)}, lease=LEASE)
    assert await store.read_count("g999", without="") == 999


async def test_a_process_that_died_is_not_counted(store, clock):
    await store.write_counts("one", {"g": 2}, lease=LEASE)
    await store.write_counts("two", {"g": 1}, lease=LEASE)
    clock.now += LEASE - 1
    await store.write_counts("two", {}, lease=LEASE)
    assert await store.read_count("g", without="") == 3
    clock.now += 1
    assert await store.read_count("g", without="") == 1
    clock.now += LEASE
    assert await store.read_count("g", without="") == 0


# The server


async def test_a_store_may_be_opened_again(store, one):
    await one.enter("c1")
    await store.close()
    await store.close()
    await store.open()
    assert await one.enter("c2") == ([("ann", "c2")], [])


async def test_by_the_servers_own_time(broker):
    store = RedisPresenceStore(f"{broker.url}?prefix=t{secrets.token_hex(4)}:")
    await store.open()
    living = Process(store, "living")
    change = Change(enter=[Entry("c1", "ann", b"{}")])
    await store.update("g", "dying", change, lease=0.2, grace=0)
    await store.write_counts("dying", {"g": 1}, lease=60)
    assert await store.read_count("g", without="living") == 1
    await store.write_counts("dying", {"g": 1}, lease=0.2)
    async with asyncio.timeout(30):
        while (found := await living.renew()) == ([], []):  # noqa: ASYNC110 -- what it waits for has no event
            await asyncio.sleep(0.01)
    assert found == ([], [("ann", "c1")])
    async with asyncio.timeout(30):
        while await store.read_count("g", without="living"):  # noqa: ASYNC110 -- what it waits for has no event
            await asyncio.sleep(0.01)
    assert not await store.write_counts("dying", {}, lease=1)
    await store.close()


async def test_a_server_that_is_away_is_told_at_startup_and_later(own_broker):
    store = RedisPresenceStore(own_broker.url)
    await store.open()
    own_broker.kill()
    for call in (
        lambda: store.update("g", "one", Change(), lease=1, grace=1),
        lambda: store.read("g"),
        lambda: store.write_counts("one", {}, lease=1),
        lambda: store.read_count("g", without=""),
        lambda: store.forget_counts("one"),
    ):
        with pytest.raises(BrokerUnavailable):
            await call()
    await store.close()
    with pytest.raises(BrokerUnavailable) as caught:
        await store.open()
    assert any("tried:" in note for note in caught.value.__notes__)
    await store.close()


async def test_a_user_with_few_rights_is_enough(make_broker):
    broker = make_broker()
    rights = "+evalsha +eval +time +@hash +@sortedset +exists +pexpire +pttl +del +hello +select +client|setinfo"
    broker.admin("ACL", "SETUSER", "app", "on", ">secret", "~fc:*", "&fc:*", *rights.split())
    store = RedisPresenceStore(f"redis://app:secret@127.0.0.1:{broker.port}")
    await store.open()
    one = Process(store, "one")
    await one.enter("c1")
    await one.leave("c1")
    await one.update(free=["c1"], seat="c2", limit=1, done=True)
    await store.write_counts("one", {"g": 1}, lease=1)
    assert await store.read_count("g", without="") == 1
    assert (await store.read("g")).size == 1
    await store.forget_counts("one")
    await store.close()


async def test_a_server_that_runs_no_scripts_is_refused_at_startup(make_broker):
    broker = make_broker()
    broker.admin("ACL", "SETUSER", "weak", "on", ">secret", "~*", "&*", "+@all", "-@scripting")
    store = RedisPresenceStore(f"redis://weak:secret@127.0.0.1:{broker.port}")
    with pytest.raises(ImproperlyConfigured, match="ACL") as caught:
        await store.open()
    assert "secret" not in str(caught.value)
    await store.close()
