"""What only the store in memory does: it is bounded, and never waits."""

import pytest

from fastapi_consumers.history import History, MemoryHistoryStore
from fastapi_consumers.history.base import REMEMBERED_FOR, REMEMBERED_KEYS
from fastapi_consumers.stepping import run_now
from tests.history.conftest import Clock

HISTORY = History(size=10)


@pytest.fixture
def clock():
    return Clock()


def test_nothing_waits():
    store = MemoryHistoryStore()
    run_now(store.open())
    position = run_now(store.append("chat", b"x", HISTORY, idempotency_key="a")).position
    assert run_now(store.position("chat", HISTORY)) == position
    assert run_now(store.positions(["chat"])) == {"chat": position}
    assert len(run_now(store.read("chat", limit=5)).entries) == 1
    run_now(store.remove("chat"))
    run_now(store.close())


async def test_there_are_never_more_streams_than_max_streams_and_the_least_used_go_first(clock):
    store = MemoryHistoryStore(time=clock, max_streams=8)
    for number in range(8):
        clock.now += 1
        await store.append(f"chat.{number}", b"x", HISTORY)
    clock.now += 1
    await store.read("chat.0", limit=1)
    await store.positions(["chat.1"])
    await store.position("chat.2", HISTORY)
    before = await store.positions([f"chat.{number}" for number in (0, 1, 2, 6, 7)])
    clock.now += 1
    await store.append("new", b"x", HISTORY)
    assert len(store) == 7
    assert await store.positions([*before, "chat.3", "chat.4", "chat.5"]) == before | await store.positions(["chat.5"])
    for number in range(100):
        await store.append(f"flood.{number}", b"x", HISTORY)
        assert len(store) <= 8


async def test_what_is_empty_and_unused_goes_before_what_has_events(clock):
    store = MemoryHistoryStore(time=clock, max_streams=4)
    await store.append("old and kept", b"x", HISTORY)
    for number in range(3):
        await store.append(f"short.{number}", b"x", History(ttl=5))
    clock.now += 4000
    await store.positions(["short.0"])
    await store.append("new", b"x", HISTORY)
    everything = ["old and kept", "short.0", "short.1", "short.2", "new"]
    assert (await store.positions(everything)).keys() == {"old and kept", "short.0", "new"}


async def test_idempotency_keys_are_bounded_in_number_and_freed_in_time(clock):
    store = MemoryHistoryStore(time=clock)
    for number in range(REMEMBERED_KEYS + 5):
        await store.append("chat", b"x", HISTORY, idempotency_key=str(number))
    keys = store._streams["chat"].keys
    assert len(keys) == REMEMBERED_KEYS
    assert not (await store.append("chat", b"x", HISTORY, idempotency_key="5")).is_new
    assert (await store.append("chat", b"x", HISTORY, idempotency_key="4")).is_new
    clock.now += REMEMBERED_FOR + 1
    await store.append("chat", b"x", HISTORY, idempotency_key="late")
    assert list(keys) == ["late"]


def test_max_streams_is_at_least_1():
    with pytest.raises(ValueError, match="max_streams"):
        MemoryHistoryStore(max_streams=0)
