"""What every store promises: one suite over memory, a real Valkey, a cluster of it, SQLite and PostgreSQL."""

import asyncio
import logging
import re
from itertools import product

import pytest

from fastapi_consumers.exceptions import BrokerUnavailable
from fastapi_consumers.history import History, Stored
from fastapi_consumers.history.base import MAX_IDEMPOTENCY_KEY, REMEMBERED_FOR
from fastapi_consumers.messages import Position
from tests.history.conftest import only, shared

HISTORY = History(size=100)

HOSTILE_NAMES = [
    "chat.lobby",
    "chat.Lobby",
    "chat.lobby ",
    "{a}",
    "}{",
    "{}",
    "a{b}c{d}",
    "'; DROP TABLE fc_events; --",
    '"quoted"',
    "100%_[a-z]*?",
    "back\\slash",
    "grüße",
    "gru\u0308ße",
    "群组🙂",
    ":meta",
    "templates",
    "x" * 255,
    "🙂" * 255,
]


async def fill(store, group, count, history=HISTORY):
    for number in range(1, count + 1):
        await store.append(group, b"%d" % number, history)


def offsets(found):
    return [entry.offset for entry in found.entries]


async def test_offsets_begin_at_1_and_rise_by_1(store):
    results = [await store.append("chat", b"x", HISTORY) for _ in range(5)]
    assert [result.position.offset for result in results] == [1, 2, 3, 4, 5]
    assert all(result.is_new for result in results)
    assert len({result.position.epoch for result in results}) == 1


async def test_an_epoch_is_url_safe(store):
    for name in ("a", "b", "c"):
        position = await store.position(name, HISTORY)
        assert re.fullmatch(r"[A-Za-z0-9_-]{4,32}", position.epoch)


async def test_what_was_appended_is_read_byte_for_byte(store):
    packets = [b"", bytes(range(256)), b"\r\n\0@x:1\n", b"z" * (1 << 20)]
    for packet in packets:
        await store.append("chat", packet, HISTORY)
    found = await store.read("chat", limit=10)
    assert [entry.packet for entry in found.entries] == packets
    assert all(type(entry) is Stored and type(entry.packet) is bytes for entry in found.entries)
    assert (found.top, offsets(found)) == (4, [1, 2, 3, 4])


async def test_reads_within_bounds_in_both_directions(store):
    await fill(store, "chat", 7, History(size=5))
    kept = [3, 4, 5, 6, 7]
    ends = (None, -(2**70), 0, 2, 3, 5, 7, 8, 2**53, 2**70)
    for after, before, limit, newest_first in product(ends, ends, (1, 3, 2**70), (False, True)):
        found = await store.read("chat", after=after, before=before, limit=limit, newest_first=newest_first)
        low, high = -1 if after is None else after, 2**71 if before is None else before
        expected = [offset for offset in kept if low < offset < high]
        expected = (expected[::-1] if newest_first else expected)[:limit]
        assert offsets(found) == expected, (after, before, limit, newest_first)
        assert [entry.packet for entry in found.entries] == [b"%d" % offset for offset in expected]
        assert found.top == 7


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_1_is_an_error(store, limit):
    await fill(store, "chat", 2)
    with pytest.raises(ValueError, match="limit is"):
        await store.read("chat", limit=limit)


@pytest.mark.parametrize("options", [{"limit": 1.5}, {"limit": None}, {"limit": True}, {"after": "1"}, {"before": 2.0}])
async def test_what_is_no_whole_number_is_an_error(store, options):
    with pytest.raises(TypeError, match=next(iter(options))):
        await store.read("chat", **{"limit": 1, **options})


async def test_no_more_than_size_events_are_kept_and_a_reader_sees_that_some_are_gone(store):
    await fill(store, "chat", 250, History(size=10))
    found = await store.read("chat", after=3, limit=100)
    assert (found.top, offsets(found)) == (250, list(range(241, 251)))
    assert found.entries[0].offset > 3 + 1


async def test_the_latest_settings_hold(store):
    await fill(store, "chat", 20, History(size=20))
    await store.append("chat", b"x", History(size=3))
    assert offsets(await store.read("chat", limit=100)) == [19, 20, 21]
    await store.position("chat", History(size=2))
    assert offsets(await store.read("chat", limit=100)) == [20, 21]


async def test_what_is_older_than_its_ttl_is_gone(store, backend):
    history = History(size=100, ttl=60)
    await fill(store, "chat", 3, history)
    backend.pass_time(40)
    await fill(store, "chat", 2, history)
    assert offsets(await store.read("chat", limit=100)) == [1, 2, 3, 4, 5]
    backend.pass_time(40)
    for newest_first in (False, True):
        found = await store.read("chat", limit=100, newest_first=newest_first)
        assert (found.top, sorted(offsets(found))) == (5, [4, 5])
    backend.pass_time(40)
    found = await store.read("chat", after=2, limit=100)
    assert (found.top, found.entries) == (5, [])
    # The stream goes on all the same.
    assert (await store.append("chat", b"x", history)).position == Position(found.epoch, 6)
    assert offsets(await store.read("chat", limit=100)) == [6]


async def test_long_streams_are_trimmed_by_age_at_the_right_place(store, backend):
    history = History(size=1000, ttl=100)
    for number in range(1, 41):
        await store.append("chat", b"x", history)
        if number in (1, 13, 39):
            backend.pass_time(40)
    # The first is 120 s old, those up to the 13th are 80.
    assert offsets(await store.read("chat", limit=100)) == list(range(2, 41))
    backend.pass_time(30)
    assert offsets(await store.read("chat", limit=100)) == list(range(14, 41))
    backend.pass_time(40)
    assert offsets(await store.read("chat", limit=100)) == [40]


async def test_a_position_begins_a_stream_and_nothing_else_does(store):
    assert await store.read("chat", limit=1) == ("", 0, [])
    assert await store.positions(["chat"]) == {}
    first = await store.position("chat", HISTORY)
    assert first.offset == 0
    assert await store.position("chat", HISTORY) == first
    assert await store.read("chat", limit=1) == (first.epoch, 0, [])
    assert (await store.append("chat", b"x", HISTORY)).position == Position(first.epoch, 1)
    assert await store.position("chat", HISTORY) == Position(first.epoch, 1)


async def test_positions_of_many_groups_at_once(store):
    names = [f"chat.{number}" for number in range(1203)]
    await asyncio.gather(*[store.append(name, b"x", HISTORY) for name in names[::3]])
    await store.append(names[3], b"x", HISTORY)
    found = await store.positions(names)
    assert found.keys() == set(names[::3])
    assert found[names[0]].offset == 1
    assert found[names[3]] == await store.position(names[3], HISTORY)
    assert found[names[3]].offset == 2
    assert await store.positions([]) == {}


async def test_a_removed_stream_begins_anew(store):
    before = (await store.append("chat", b"1", HISTORY, idempotency_key="a")).position
    await fill(store, "other", 2)
    await store.remove("chat")
    await store.remove("never")
    assert await store.read("chat", limit=10) == ("", 0, [])
    after = await store.append("chat", b"2", HISTORY, idempotency_key="a")
    assert after.is_new
    assert after.position.offset == 1
    assert after.position.epoch != before.epoch
    found = await store.read("chat", limit=10)
    assert [entry.packet for entry in found.entries] == [b"2"]
    assert offsets(await store.read("other", limit=10)) == [1, 2]


async def test_an_idempotency_key_appends_once(store):
    first = await store.append("chat", b"1", HISTORY, idempotency_key="a")
    await store.append("chat", b"2", HISTORY, idempotency_key="b")
    again = await store.append("chat", b"3", HISTORY, idempotency_key="a")
    assert again == (first.position, False)
    assert (await store.append("other", b"1", HISTORY, idempotency_key="a")).is_new
    assert [entry.packet for entry in (await store.read("chat", limit=10)).entries] == [b"1", b"2"]


async def test_an_append_whose_key_is_known_changes_no_settings(store):
    await fill(store, "chat", 5)
    await store.append("chat", b"x", History(size=4), idempotency_key="a")
    await store.append("chat", b"x", History(size=1), idempotency_key="a")
    assert offsets(await store.read("chat", limit=10)) == [3, 4, 5, 6]


async def test_the_same_key_at_the_same_time_appends_once(store):
    results = await asyncio.gather(
        *[store.append("chat", b"%d" % number, HISTORY, idempotency_key="a") for number in range(20)]
    )
    assert [result.is_new for result in results].count(True) == 1
    assert {result.position.offset for result in results} == {1}
    assert len((await store.read("chat", limit=10)).entries) == 1


async def test_an_idempotency_key_is_forgotten_after_a_while(store, backend):
    await store.append("chat", b"1", HISTORY, idempotency_key="a")
    backend.pass_time(REMEMBERED_FOR - 20)
    await store.append("chat", b"2", HISTORY, idempotency_key="b")
    assert not (await store.append("chat", b"3", HISTORY, idempotency_key="a")).is_new
    backend.pass_time(40)
    renewed = await store.append("chat", b"4", HISTORY, idempotency_key="a")
    assert (renewed.position.offset, renewed.is_new) == (3, True)
    assert await store.append("chat", b"5", HISTORY, idempotency_key="a") == (renewed.position, False)
    assert not (await store.append("chat", b"6", HISTORY, idempotency_key="b")).is_new
    assert (await store.read("chat", limit=10)).top == 3


async def test_idempotency_keys_of_any_printable_text(store):
    keys = ["k", "{k}", "K", "'k", "🙂" * MAX_IDEMPOTENCY_KEY, "a:b-1"]
    for number, key in enumerate(keys, 1):
        assert (await store.append("chat", b"x", HISTORY, idempotency_key=key)).position.offset == number
    for number, key in enumerate(keys, 1):
        again = await store.append("chat", b"x", HISTORY, idempotency_key=key)
        assert (again.position.offset, again.is_new) == (number, False)


@pytest.mark.parametrize("key", ["", "x" * (MAX_IDEMPOTENCY_KEY + 1), "a\nb", "a\0", "\ud800", 7, b"a"])
async def test_what_cannot_be_an_idempotency_key_is_an_error(store, key):
    with pytest.raises(ValueError, match="An idempotency key"):
        await store.append("chat", b"x", HISTORY, idempotency_key=key)
    assert (await store.read("chat", limit=1)).top == 0


async def test_every_name_is_a_stream_of_its_own(store):
    await asyncio.gather(*[store.append(name, name.encode(), HISTORY) for name in HOSTILE_NAMES])
    await store.save_templates(dict.fromkeys(HOSTILE_NAMES, HISTORY))
    for name in HOSTILE_NAMES:
        found = await store.read(name, limit=10)
        assert [entry.packet for entry in found.entries] == [name.encode()]
    assert (await store.positions(HOSTILE_NAMES)).keys() == set(HOSTILE_NAMES)
    assert (await store.load_templates()).keys() == set(HOSTILE_NAMES)
    await store.remove("{a}")
    assert len(await store.positions(HOSTILE_NAMES)) == len(HOSTILE_NAMES) - 1


async def test_times_never_fall_even_if_the_clock_does(store, backend):
    for turn in (10, -500, 5, 600):
        await store.append("chat", b"x", HISTORY)
        backend.clock.now += turn
    if backend.nodes:
        backend.pass_time(-1000)  # As if the server's clock had been set back.
    await store.append("chat", b"x", HISTORY)
    times = [entry.at for entry in (await store.read("chat", limit=10)).entries]
    assert len(times) == 5
    assert times == sorted(times)
    if not backend.nodes:
        assert times[0] == 1_700_000_000.0


async def test_templates_are_kept_and_the_last_one_wins(store, caplog):
    assert await store.load_templates() == {}
    await store.save_templates({})
    with caplog.at_level(logging.WARNING):
        await store.save_templates({"chat.{room}": History(10), "news": History(5, 60)})
        await store.save_templates({"chat.{room}": History(10), "more": History(1)})
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        await store.save_templates({"chat.{room}": History(20, 0.5), "news": History(5, 60)})
    assert ["chat.{room}" in record.getMessage() for record in caplog.records] == [True]
    expected = {"chat.{room}": History(20, 0.5), "news": History(5, 60), "more": History(1)}
    assert await store.load_templates() == expected


async def test_a_slice_is_of_one_moment(store):
    history = History(size=20)
    done = asyncio.Event()

    async def publish():
        for _ in range(150):
            await store.append("chat", b"x", history)
        done.set()

    task = asyncio.create_task(publish())
    while not done.is_set():
        found = await store.read("chat", limit=100)
        assert offsets(found) == list(range(max(1, found.top - 19), found.top + 1))
        await asyncio.sleep(0)
    await task


@only("memory")
async def test_memory_is_empty_after_it_was_closed(store):
    before = await store.append("chat", b"x", HISTORY)
    await store.close()
    await store.close()
    await store.open()
    assert await store.positions(["chat"]) == {}
    assert (await store.append("chat", b"x", HISTORY)).position.epoch != before.position.epoch


@shared
async def test_history_outlives_the_process(open_store):
    store = await open_store()
    before = await store.append("chat", b"x", HISTORY, idempotency_key="a")
    await store.save_templates({"chat": HISTORY})
    await store.close()
    await store.close()
    with pytest.raises(BrokerUnavailable):
        await store.append("chat", b"x", HISTORY)
    await store.open()
    other = await open_store()
    for each in (store, other):
        assert await each.position("chat", HISTORY) == before.position
        assert await each.append("chat", b"x", HISTORY, idempotency_key="a") == (before.position, False)
        assert await each.load_templates() == {"chat": HISTORY}


@shared
async def test_two_hundred_appenders_over_two_stores_leave_no_gap(open_store):
    stores = [await open_store(), await open_store()]
    each, history = 10, History(size=10_000)

    async def appender(number):
        store, found = stores[number % 2], []
        for turn in range(each):
            packet = b"%d/%d" % (number, turn)
            found.append(((await store.append(f"chat.{number % 3}", packet, history)).position, packet))
        assert [position for position, _ in found] == sorted(position for position, _ in found)
        return found

    told = dict(pair for pairs in await asyncio.gather(*map(appender, range(200))) for pair in pairs)
    assert len(told) == 200 * each
    for number in range(3):
        found = await stores[number % 2].read(f"chat.{number}", limit=10_000)
        assert offsets(found) == list(range(1, found.top + 1))
        of_group = {position: packet for position, packet in told.items() if position.epoch == found.epoch}
        assert of_group == {Position(found.epoch, entry.offset): entry.packet for entry in found.entries}


def test_a_store_can_be_opened_in_another_event_loop(backend):
    store = backend.store()

    async def use():
        await store.open()
        try:
            return (await store.append("chat", b"x", HISTORY)).position
        finally:
            await store.close()

    first, second = asyncio.run(use()), asyncio.run(use())
    assert (first.epoch == second.epoch) is (backend.kind != "memory")
    assert second.offset == (1 if backend.kind == "memory" else 2)


async def test_which_stores_are_shared_and_which_publish(store, backend):
    assert store.is_distributed is (backend.kind != "memory")
    assert store.publishes is (backend.kind == "redis")
