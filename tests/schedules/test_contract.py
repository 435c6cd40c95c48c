"""What every store of schedules promises, on each of them: in memory, on a real server, in a database."""

import asyncio
import random

import pytest

from fastapi_consumers.exceptions import BrokerUnavailable, ImproperlyConfigured
from fastapi_consumers.history import MemoryHistoryStore, RedisHistoryStore
from fastapi_consumers.history.sql import SQLHistoryStore
from fastapi_consumers.schedule_stores import (
    ATTEMPTS,
    Claim,
    Definition,
    Held,
    MemoryScheduleStore,
    RedisScheduleStore,
    Result,
    schedule_store_beside,
    schedule_store_of,
)
from fastapi_consumers.schedule_stores.sql import SQLScheduleStore
from tests.schedules.conftest import START

LEASE = 15.0
NOW = START * 1000
STEP = 30_000


@pytest.fixture(params=["memory", "valkey", "cluster", "sqlite", "postgres"])
async def store(request, make_store):
    store = make_store(request.param)
    store.kind = request.param
    await store.open()
    yield store
    await store.close()


def definition(name="Room.tick", timing=b'{"every":30.0}', **others):
    return Definition(name, others.pop("kind", "class"), timing, **others)


def claim_of(tick, token="one.1", **others):
    fields = {"name": "Room.tick", "process": f"host/{token}", "lease": LEASE, "keep": 60.0}
    return Claim(tick=tick, token=token, **{**fields, **others})


async def ask(store, tick, token="one.1", group="", **others):
    [answer] = await store.claim(claim_of(tick, token, **others), [group])
    return answer


async def state(store, tick, token="one.1", group="", **others):
    return (await ask(store, tick, token, group, **others)).state


def held(token="one.1", group=""):
    return Held("Room.tick", group, token)


async def only(store, name="Room.tick"):
    [kept] = await store.load(name)
    return kept


async def test_a_moment_is_granted_once(store, clock):
    await store.save(definition(), NOW)
    assert await store.claim(claim_of(NOW), [""]) == [("done", 0, 0, 0.0)]  # Not later than it was made.
    first = await ask(store, NOW + STEP)
    assert (first.state, first.attempt, first.previous) == ("granted", 1, NOW)
    assert await ask(store, NOW + STEP, "two.1") == ("running", 0, 0, LEASE)
    assert await store.finish(held(), Result("ok", seconds=0.25))
    assert await state(store, NOW + STEP, "two.1") == "done"
    assert await state(store, NOW + STEP, "one.1") == "done"
    second = await ask(store, NOW + 2 * STEP, "two.2")
    assert (second.state, second.previous) == ("granted", NOW + STEP)
    assert await state(store, NOW + STEP, "three.1") == "done"


async def test_whoever_asks_again_is_granted_again(store):
    await store.save(definition(), NOW)
    for _ in range(2):  # The first answer may have been lost on its way.
        assert (await ask(store, NOW + STEP)).state == "granted"
    assert (await only(store)).lost == 0


async def test_many_claim_at_once_and_one_is_granted(store):
    await store.save(definition(), NOW)
    groups = [f"room.{number}" for number in range(20)]
    claims = [store.claim(claim_of(NOW + STEP, f"p{number}.1"), groups) for number in range(8)]
    answers = await asyncio.gather(*claims)
    for number in range(len(groups)):
        assert sorted(answer[number].state for answer in answers) == ["granted"] + ["running"] * 7


async def test_groups_are_units_of_their_own(store, clock):
    await store.save(definition(kind="group"), NOW)
    answers = await store.claim(claim_of(NOW + STEP), ["a", "b"])
    assert [answer.state for answer in answers] == ["granted", "granted"]
    answers = await store.claim(claim_of(NOW + STEP, "two.1"), ["a", "c"])
    assert [answer.state for answer in answers] == ["running", "granted"]
    assert await store.finish(held(group="a"), Result("ok"))
    assert [(run.group, run.process) for run in sorted((await only(store)).running)] == [
        ("b", "host/one.1"),
        ("c", "host/two.1"),
    ]


async def test_a_later_moment_overlaps_a_run_that_goes_on(store, clock):
    await store.save(definition(), NOW)
    await ask(store, NOW + STEP)
    clock.advance(LEASE - 1)
    assert await store.renew([held(), held("other.1")], LEASE) == [True, False]
    clock.advance(LEASE - 1)
    overlap = await ask(store, NOW + 2 * STEP, "two.1")
    assert (overlap.state, overlap.left) == ("overlap", 1.0)
    assert await state(store, NOW + 2 * STEP, "three.1") == "running"
    assert await store.finish(held(), Result("ok"))
    assert await state(store, NOW + 2 * STEP, "three.1") == "done"
    kept = await only(store)
    assert (kept.runs, kept.missed, kept.lost) == (1, 1, 0)


async def test_what_a_process_did_not_finish_is_taken_over(store, clock):
    await store.save(definition(), NOW)
    await ask(store, NOW + STEP)
    assert (await only(store)).unfinished == NOW + STEP
    clock.advance(LEASE)
    assert await store.renew([held()], LEASE) == [True]  # Nobody took it meanwhile.
    clock.advance(LEASE)
    kept = await only(store)
    assert (kept.running, kept.unfinished, kept.left) == ((), NOW + STEP, 0.0)
    for attempt in range(2, ATTEMPTS + 1):
        answer = await ask(store, NOW + STEP, f"p.{attempt}", only_lost=True)
        assert (answer.state, answer.attempt) == ("granted", attempt)
        assert await store.renew([held()], LEASE) == [False]
        assert not await store.finish(held(), Result("ok"))
        clock.advance(LEASE)
    assert await state(store, NOW + STEP, "late.1", only_lost=True) == "done"
    kept = await only(store)
    assert (kept.runs, kept.lost, kept.last_outcome, kept.unfinished) == (0, ATTEMPTS, "lost", 0)
    assert kept.last_process == f"host/p.{ATTEMPTS}"
    assert await state(store, NOW + 2 * STEP, "late.2") == "granted"


async def test_only_lost_begins_nothing_new(store):
    await store.save(definition(), NOW)
    assert await state(store, NOW + STEP, only_lost=True) == "done"
    assert await state(store, NOW + STEP) == "granted"


async def test_a_run_that_may_not_be_taken_over_is_not(store, clock):
    await store.save(definition(), NOW)
    await ask(store, NOW + STEP)
    clock.advance(LEASE)
    assert await state(store, NOW + STEP, "two.1", take_over=False) == "done"
    assert (await only(store)).lost == 1
    await ask(store, NOW + 2 * STEP, "two.2")
    clock.advance(LEASE)
    # A later moment comes first: the lost run is counted, and this one is run.
    assert await state(store, NOW + 3 * STEP, "three.1") == "granted"
    assert (await only(store)).lost == 2


async def test_what_is_given_back_is_free_at_once(store):
    await store.save(definition(), NOW)
    await ask(store, NOW + STEP)
    assert await store.finish(held(), Result("cancelled", give_back=True))
    assert not await store.finish(held(), Result("ok"))
    answer = await ask(store, NOW + STEP, "two.1", only_lost=True)
    assert (answer.state, answer.attempt) == ("granted", 2)
    kept = await only(store)
    assert (kept.runs, kept.lost, kept.last_outcome) == (1, 0, "cancelled")


async def test_counts_and_the_last_run(store, clock):
    await store.save(definition(), NOW)
    for number, outcome in enumerate(("ok", "error", "timeout", "cancelled"), 1):
        await ask(store, NOW + number * STEP, f"p.{number}")
        clock.advance(2)
        assert await store.finish(held(f"p.{number}"), Result(outcome, f"{outcome} é \" ' 🎉", 1.5))
        kept = await only(store)
        assert (kept.last_outcome, kept.last_error, kept.last_process) == (
            outcome, f"{outcome} é \" ' 🎉", f"host/p.{number}",
        )  # fmt: skip
        assert (kept.last_run, kept.last_seconds) == (NOW + number * 2000 - 1500, 1.5)
    await store.add_missed("Room.tick", 5)
    await store.add_missed("nobody", 5)
    kept = await only(store)
    assert (kept.runs, kept.errors, kept.missed, kept.lost) == (4, 2, 5, 0)


async def test_nothing_runs_while_it_is_paused_nor_is_it_missed(store):
    await store.save(definition(), NOW)
    assert await store.set_paused("Room.tick", True, NOW + 1)
    assert (await only(store)).paused
    assert await state(store, NOW + STEP) == "paused"
    assert await state(store, NOW + STEP, manual="request") == "granted"
    await store.finish(held(), Result("ok"))
    await store.save(definition(), NOW + STEP)  # As a process does that starts.
    assert (await only(store)).paused
    assert await store.set_paused("Room.tick", False, NOW + 5 * STEP)
    assert await state(store, NOW + 5 * STEP) == "done"
    assert (await ask(store, NOW + 6 * STEP)).previous == NOW + 5 * STEP
    assert not await store.set_paused("nobody", True, NOW)


async def test_a_run_that_somebody_asked_for_is_granted_once_and_moves_nothing(store, clock):
    await store.save(definition(), NOW)
    assert await state(store, NOW + 1, manual="r1") == "granted"
    assert await state(store, NOW + 1, "two.1", manual="r1") == "done"
    assert await state(store, NOW + 1, "two.1", manual="r2") == "running"
    assert (await only(store)).unfinished == 0
    assert await store.finish(held(), Result("ok"))
    assert await state(store, NOW + 1, "two.1", manual="r1") == "done"
    assert await state(store, NOW + STEP, "two.2") == "granted"
    assert await store.finish(held("two.2"), Result("ok"))
    # One that is lost is not run again.
    assert await state(store, NOW + STEP + 1, "three.1", manual="r3") == "granted"
    clock.advance(LEASE)
    assert await state(store, NOW + STEP, "four.1", only_lost=True) == "done"
    assert await state(store, NOW + 2 * STEP, "four.1") == "granted"
    assert (await only(store)).lost == 1


async def test_another_timing_begins_anew_and_keeps_the_rest(store):
    assert await store.save(definition(), NOW)
    await ask(store, NOW + STEP)
    await store.finish(held(), Result("ok"))
    await store.set_paused("Room.tick", True, NOW)
    assert await store.save(definition(), NOW + STEP)
    assert (await only(store)).baseline == NOW
    assert await store.save(definition(timing=b'{"every":5.0}'), NOW + 3 * STEP)
    kept = await only(store)
    assert (kept.baseline, kept.runs, kept.paused) == (NOW + 3 * STEP, 1, True)
    assert kept.definition == definition(timing=b'{"every":5.0}')


async def test_created_ones_are_kept_as_they_are_until_they_are_deleted(store):
    made = definition(
        "stand-up é/🎉 {x}", kind="event", group="chat.{lobby}", event="said", data=b'{"text":"\xc3\xa9"}'
    )
    assert await store.save(made, NOW, replace=False)
    assert not await store.save(made._replace(event="other"), NOW, replace=False)
    [kept] = await store.load()
    assert kept.definition._replace(data=b"") == made._replace(data=b"")
    assert kept.definition.data.replace(b" ", b"") in (made.data, b'{"text":"\\u00e9"}')
    assert (kept.paused, kept.baseline, kept.runs) == (False, NOW, 0)
    assert await store.delete(made.name)
    assert not await store.delete(made.name)
    assert await store.load() == []
    assert await state(store, NOW + STEP, name=made.name) == "unknown"


async def test_what_is_remembered_of_groups_goes_by_itself(store, clock, broker):
    if store.kind == "memory":
        await store.save(definition(kind="group"), NOW)
        for round_ in range(1, 5):
            groups = [f"room.{round_}.{number}" for number in range(400)]
            await store.claim(claim_of(NOW + round_ * STEP, f"p.{round_}"), groups)
            clock.advance(61)
        assert len(store._schedules["Room.tick"].units) < 1200
    elif store.kind == "sqlite":
        await store.save(definition(kind="group"), NOW)
        await ask(store, NOW + STEP, group="a")
        clock.advance(61)
        await ask(store, NOW + 3 * STEP, "p.2", group="b")
        assert [run.group for run in (await only(store)).running] == ["b"]
    elif store.kind == "valkey":
        await store.save(definition(kind="group"), NOW)
        await ask(store, NOW + STEP, group="a")
        await ask(store, NOW + STEP)
        keys = {key: broker.admin("PTTL", key) for key in broker.admin("KEYS", f"{store.client.prefix}*")}
        lasting = {key for key, ttl in keys.items() if ttl == -1}
        assert {key.rpartition("}:")[2] for key in lasting} == {"names", "s:Room.tick", "r:Room.tick", "u:Room.tick:"}
        assert [0 < ttl <= 60_000 for key, ttl in keys.items() if key not in lasting] == [True]


async def test_pauses_outlive_the_store(store, make_store):
    if store.kind == "memory":
        return
    await store.save(definition(), NOW)
    await store.set_paused("Room.tick", True, NOW)
    await store.close()
    other = make_store(store.kind)
    await other.open()
    assert (await only(other)).paused
    await other.close()
    await store.open()


async def test_scripts_follow_the_rules(make_store, clock):
    """Memory and the server are told the same, at random, and answer the same."""
    memory, server = MemoryScheduleStore(clock), make_store("valkey")
    await server.open()
    chance = random.Random(7)
    groups = ["", "a", "b"]
    for store in (memory, server):
        await store.save(definition(), NOW)
    for number in range(1200):
        kind, group, token = chance.randrange(9), chance.choice(groups), f"p{chance.randrange(3)}.{number // 20}"
        if kind <= 3:
            others = {"only_lost": chance.random() < 0.2, "take_over": chance.random() < 0.8}
            if chance.random() < 0.2:
                others["manual"] = f"r{chance.randrange(number + 1)}"
            asked = claim_of(int(clock() * 1000) // STEP * STEP, token, keep=10_000, **others)
            some = chance.sample(groups, chance.randrange(1, 4))
            found = [await store.claim(asked, some) for store in (memory, server)]
        elif kind == 4:
            found = [await store.renew([held(token, each) for each in groups], LEASE) for store in (memory, server)]
        elif kind == 5:
            result = Result(chance.choice(["ok", "error", "cancelled"]), "", 0.5, chance.random() < 0.3)
            running = (await only(memory)).running
            if running and chance.random() < 0.7:
                group = chance.choice(running).group
                token = memory._schedules["Room.tick"].units[group].token
            found = [await store.finish(held(token, group), result) for store in (memory, server)]
        elif kind == 6:
            paused = chance.random() < 0.2
            moment = int(clock() * 1000)
            found = [await store.set_paused("Room.tick", paused, moment) for store in (memory, server)]
        else:
            clock.advance(chance.choice([0.5, 3, 8, 20]))
            continue
        assert found[0] == found[1], (number, kind)
        ours, theirs = await only(memory), await only(server)
        sort = lambda kept: kept._replace(running=tuple(sorted(kept.running)))  # noqa: E731
        assert sort(ours)._replace(definition=None) == sort(theirs)._replace(definition=None), (number, kind)
    assert ours.runs > 50
    assert ours.lost > 5
    assert ours.missed > 5
    await server.close()


async def test_a_server_that_is_away_is_said_to_be(own_broker):
    store = RedisScheduleStore(own_broker.url)
    await store.open()
    await store.save(definition(), NOW)
    own_broker.kill()
    for call in (store.load(), store.claim(claim_of(NOW), [""]), store.finish(held(), Result("ok"))):
        with pytest.raises(BrokerUnavailable):
            await call
    await store.close()
    with pytest.raises(BrokerUnavailable):
        await store.open()
    await store.close()


def test_which_store_a_url_means(tmp_path):
    assert isinstance(schedule_store_of("memory://"), MemoryScheduleStore)
    assert isinstance(schedule_store_of("redis://localhost"), RedisScheduleStore)
    assert isinstance(schedule_store_of(f"sqlite:///{tmp_path}/x.db"), SQLScheduleStore)
    for url in ("ftp://x", "redis", 5, "http://[", ""):
        with pytest.raises(ImproperlyConfigured) as caught:
            schedule_store_of(url)
        assert [problem.code for problem in caught.value.problems] == ["bad-schedules-url"]


def test_schedules_are_kept_where_history_is(tmp_path):
    history = RedisHistoryStore("redis://localhost")
    beside = schedule_store_beside(history)
    assert isinstance(beside, RedisScheduleStore)
    assert beside.client is history.client
    assert isinstance(schedule_store_beside(MemoryHistoryStore()), MemoryScheduleStore)
    beside = schedule_store_beside(SQLHistoryStore(f"sqlite:///{tmp_path}/x.db", table_prefix="own_"))
    assert isinstance(beside, SQLScheduleStore)
    assert beside.tables.schedules.name == "own_schedules"


def test_an_extra_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("fastapi_consumers.schedule_stores.urls.find_spec", lambda name: None)
    with pytest.raises(ImproperlyConfigured) as caught:
        schedule_store_of("sqlite:///x.db")
    assert caught.value.problems[0].code == "missing-extra"
