"""What only the store in Redis or Valkey does, on a real Valkey that is frozen, flushed and killed."""

import asyncio
import contextlib
import logging
import re
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.crc import key_slot

from fastapi_consumers.exceptions import BrokerUnavailable, ImproperlyConfigured
from fastapi_consumers.history import History, RedisHistoryStore
from fastapi_consumers.history.base import REMEMBERED_KEYS
from fastapi_consumers.redis_client import RedisClient
from tests.history.conftest import Backend
from tests.transports.tools import hurried

HISTORY = History(size=10)
DAY = 86400


@pytest.fixture
def backend(tmp_path, request):
    return Backend("redis", tmp_path, request)


@pytest.fixture
def redis(backend):
    with Redis(port=backend.broker.port) as redis:
        yield redis


@pytest.fixture
def keys(backend, redis):
    """The keys of the test's store, as text."""
    return lambda: sorted(key.decode() for key in redis.scan_iter(f"{backend.name}:*"))


async def test_an_event_is_published_with_its_position_when_it_can_be_read(store, backend, redis):
    channel = f"{backend.name}:group:chät".encode()
    with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(channel)
        assert pubsub.get_message(timeout=20) is None  # The confirmation.
        packets = [b"1first", b"", b"\n\0@\xff"]
        positions = [(await store.append("chät", packet, HISTORY, channel=channel)).position for packet in packets]
        for position, packet in zip(positions, packets, strict=True):
            message = pubsub.get_message(timeout=20)
            assert message["channel"] == channel
            assert message["data"] == b"@%b:%d\n%b" % (position.epoch.encode(), position.offset, packet)
    assert [entry.packet for entry in (await store.read("chät", limit=9)).entries] == packets


async def test_nothing_is_published_without_a_channel_nor_for_a_known_key(store, backend, redis):
    with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.psubscribe("*")
        assert pubsub.get_message(timeout=20) is None
        await store.append("chat", b"1", HISTORY, idempotency_key="a")
        await store.append("chat", b"2", HISTORY, idempotency_key="a", channel=b"news")
        await store.append("chat", b"3", HISTORY, idempotency_key="b", channel=b"news")
        assert pubsub.get_message(timeout=20)["data"].endswith(b"\n3")
        assert pubsub.get_message() is None


async def test_arrivals_come_in_the_order_of_their_offsets(store, backend, redis):
    with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("news")
        assert pubsub.get_message(timeout=20) is None
        await asyncio.gather(*[store.append("chat", b"x", HISTORY, channel=b"news") for _ in range(100)])
        arrived = [pubsub.get_message(timeout=20)["data"] for _ in range(100)]
    assert [int(data.partition(b":")[2].partition(b"\n")[0]) for data in arrived] == list(range(1, 101))


@pytest.mark.parametrize("group", ["chat", "{a}", "}{", "a}b{", "群组", "{}"])
def test_all_keys_of_a_group_share_a_slot(store, group):
    slots = {key_slot(key.encode()) for key in store._keys(group)}
    assert len(slots) == 1


def test_groups_are_spread_over_slots(store):
    assert len({key_slot(store._keys(f"chat.{number}")[0].encode()) for number in range(100)}) > 90


async def test_nothing_stays_for_ever(store, redis, keys, backend):
    await store.append("short", b"x", History(ttl=60), idempotency_key="a")
    await store.append("long", b"x", History(ttl=100 * DAY))
    await store.append("unlimited", b"x", HISTORY)
    await store.position("empty", HISTORY)
    left = {key.removeprefix(f"{backend.name}:history:"): redis.pttl(key) / 1000 for key in keys()}
    expected = {
        "{short}:meta": 30 * DAY,
        "{short}:events": 60,
        "{short}:keys": 300,
        "{short}:times": 300,
        "{long}:meta": 100 * DAY,
        "{long}:events": 100 * DAY,
        "{unlimited}:meta": 30 * DAY,
        "{unlimited}:events": 30 * DAY,
        "{empty}:meta": 30 * DAY,
    }
    assert left == {key: pytest.approx(seconds, abs=20) for key, seconds in expected.items()}


@pytest.mark.parametrize("use", ["read", "position", "positions"])
async def test_whoever_uses_a_stream_keeps_it(store, redis, keys, use):
    await store.append("chat", b"x", HISTORY)
    for key in keys():
        redis.pexpire(key, 5_000)
    if use == "read":
        await store.read("chat", limit=1)
    elif use == "position":
        await store.position("chat", HISTORY)
    else:
        await store.positions(["chat"])
    assert len(keys()) == 2
    assert all(redis.ttl(key) > 29 * DAY for key in keys())


async def test_using_a_stream_keeps_no_event_beyond_its_ttl(store, redis, keys):
    await store.append("chat", b"x", HISTORY)
    await store.position("chat", History(ttl=60))
    await store.positions(["chat"])
    await store.read("chat", limit=1)
    assert {redis.ttl(key) > 60 for key in keys() if key.endswith(":events")} == {False}


async def test_how_long_unused_streams_stay_is_a_setting(open_store, redis, keys):
    store = await open_store(unused=90)
    await store.append("chat", b"x", HISTORY)
    assert all(60 < redis.ttl(key) <= 90 for key in keys())
    with pytest.raises(ValueError, match="unused is 0"):
        RedisHistoryStore("redis://localhost", unused=0)


@pytest.mark.parametrize("lost", ["everything", "meta"])
async def test_what_the_server_lost_begins_another_epoch_without_old_events(store, redis, keys, lost):
    before = (await store.append("chat", b"old", HISTORY, idempotency_key="a")).position
    redis.delete(*[key for key in keys() if lost == "everything" or key.endswith(":meta")])
    assert await store.read("chat", limit=5) == ("", 0, [])
    assert await store.positions(["chat"]) == {}
    after = await store.append("chat", b"new", HISTORY, idempotency_key="a")
    assert after.is_new
    assert after.position.offset == 1
    assert after.position.epoch != before.epoch
    assert [entry.packet for entry in (await store.read("chat", limit=5)).entries] == [b"new"]


async def test_lost_events_are_seen_as_a_gap(store, redis, keys):
    for _ in range(5):
        before = (await store.append("chat", b"x", HISTORY)).position
    redis.delete(*[key for key in keys() if key.endswith(":events")])
    found = await store.read("chat", after=2, limit=5)
    assert found == (before.epoch, 5, [])
    await store.append("chat", b"x", HISTORY)
    found = await store.read("chat", after=2, limit=5)
    assert [entry.offset for entry in found.entries] == [6]


async def test_idempotency_keys_are_bounded_in_number(store, redis, keys, backend):
    for start in range(0, REMEMBERED_KEYS + 5, 500):
        numbers = range(start, min(start + 500, REMEMBERED_KEYS + 5))
        await asyncio.gather(*[store.append("chat", b"", HISTORY, idempotency_key=str(n)) for n in numbers])
    counts = {key.rpartition(":")[2]: key for key in keys()}
    assert redis.hlen(counts["keys"]) == redis.zcard(counts["times"]) == REMEMBERED_KEYS


async def test_prefixes_keep_apps_apart(backend, store):
    await store.append("chat", b"x", HISTORY)
    other = RedisHistoryStore(store.client, prefix=f"{backend.name}2:")
    assert await other.positions(["chat"]) == {}


async def test_a_client_is_shared(backend):
    client = RedisClient(backend.url)
    one, other = RedisHistoryStore(client), RedisHistoryStore(client)
    await one.open()
    await other.open()
    await one.append("chat", b"x", HISTORY)
    await one.close()
    assert (await other.position("chat", HISTORY)).offset == 1
    await other.close()


@pytest.mark.parametrize("outcome", ["answer", "failure"])
async def test_a_cancellation_that_is_swallowed_below_is_one_all_the_same(backend, outcome):
    client = RedisClient(backend.url)
    await client.open()
    begun = asyncio.Event()

    async def swallow(redis, asking):
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        if outcome == "failure":
            raise ConnectionError("closed while it was cancelled")

    try:
        task = asyncio.create_task(client._run("k", swallow))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Time that is up is no cancellation.
        client.timeout = 0.01
        if outcome == "failure":
            with pytest.raises(BrokerUnavailable):
                await client._run("k", swallow)
    finally:
        await client.close()


async def test_settings_that_cannot_be_read_are_skipped(store, redis, backend, caplog):
    await store.save_templates({"good": HISTORY})
    broken = {b"json": b"{", b"size": b"[0, null]", b"kind": b"[true, 1]", b"\xff": b"[1, null]", b"more": b"[1, 2, 3]"}
    redis.hset(f"{backend.name}:history:templates", mapping=broken)
    with caplog.at_level(logging.WARNING):
        assert await store.load_templates() == {"good": HISTORY}
    assert len(caplog.records) == 5


def calls(store):
    yield store.append("chat", b"x", HISTORY)
    yield store.position("chat", HISTORY)
    yield store.positions(["chat"])
    yield store.read("chat", limit=1)
    yield store.remove("chat")
    yield store.save_templates({"chat": HISTORY})
    yield store.load_templates()


@pytest.mark.parametrize("how", ["freeze", "kill"])
async def test_a_server_that_is_away_is_an_error_within_the_timeout(own_broker, how):
    store = RedisHistoryStore(own_broker.url)
    await store.open()
    await store.append("chat", b"x", HISTORY)
    getattr(own_broker, how)()
    try:
        for call in calls(store):
            began = time.monotonic()
            with hurried(store), pytest.raises(BrokerUnavailable):
                await call
            assert time.monotonic() - began < 20
    finally:
        if how == "freeze":
            own_broker.thaw()
        await store.close()


async def test_a_server_that_is_not_there_at_the_start_says_what_was_tried(own_broker):
    own_broker.kill()
    store = RedisHistoryStore(f"redis://:secret@127.0.0.1:{own_broker.port}", timeout=0.3)
    with pytest.raises(BrokerUnavailable) as caught:
        await store.open()
    await store.close()
    notes = "\n".join(caught.value.__notes__)
    assert f"127.0.0.1:{own_broker.port}" in notes
    assert "secret" not in notes + str(caught.value) + repr(store)


async def test_the_rights_that_the_documentation_names_are_enough(own_broker):
    page = (Path(__file__).parents[2] / "docs" / "history.md").read_text(encoding="utf-8")
    rights = re.search(r"`(~fc:\*)`.*?`(\+evalsha [^`]*)`", page, re.DOTALL)
    basic = ("+publish", "+ping", "+hello", "+select", "+client|setinfo", "&fc:*")
    own_broker.admin("ACL", "SETUSER", "app", "on", ">secret", *basic, rights[1], *rights[2].split())
    store = RedisHistoryStore(own_broker.url.replace("//", "//app:secret@"))
    await store.open()
    for _ in range(2):
        for history in (HISTORY, History(ttl=0.001), History(20)):
            for key in ("a", "b", None):
                await store.append("chat", b"x", history, idempotency_key=key, channel=b"fc:chat")
                await store.read("chat", limit=1)
                await store.read("chat", limit=1, newest_first=True)
        for call in calls(store):
            await call
    await store.close()


async def test_a_server_that_lacks_what_is_needed_is_refused_at_the_start(own_broker):
    own_broker.admin("ACL", "SETUSER", "default", "-xtrim")
    store = RedisHistoryStore(own_broker.url)
    with pytest.raises(ImproperlyConfigured) as caught:
        await store.open()
    await store.close()
    assert "broker-refused" in {problem.code for problem in caught.value.problems}
