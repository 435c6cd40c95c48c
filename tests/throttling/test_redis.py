"""Token buckets that processes share: the same as in memory, and what becomes of limits while the server is away."""

import asyncio
import logging
import math
import secrets
import time
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_consumers.exceptions import BrokerUnavailable
from fastapi_consumers.redis_client import RedisClient
from fastapi_consumers.testing import Clock
from fastapi_consumers.throttling import Rate, RedisBuckets, TokenBuckets, parse_rate

#: Longer than any stall of the machine: what is counted in these tests is to be counted at the server.
PATIENT = 20.0


class Shared:
    """Some processes' buckets, open while the test runs."""

    def __init__(self, url: str, number: int = 2, **options: Any) -> None:
        clients = [RedisClient(url, timeout=PATIENT) for _ in range(number)]
        self.buckets = [RedisBuckets(client, **{"timeout": PATIENT, **options}) for client in clients]

    async def __aenter__(self) -> list[RedisBuckets]:
        for each in self.buckets:
            await each.open()
        return self.buckets

    async def __aexit__(self, *_: object) -> None:
        for each in self.buckets:
            await each.close()


async def test_processes_count_together(url):
    async with Shared(url, clock=Clock(1000)) as (one, two):
        rates = parse_rate("3/minute")
        assert [await each.hit("k", rates) for each in (one, two, one)] == [0.0, 0.0, 0.0]
        assert await two.hit("k", rates) == pytest.approx(20)
        assert await two.hit("other", rates) == 0.0


async def test_many_at_once_are_counted_exactly(url):
    async with Shared(url) as (one, two):
        rates = parse_rate("10/day; 1000/day")
        waits = await asyncio.gather(*[each.hit("k", rates) for each in (one, two) for _ in range(20)])
        assert waits.count(0.0) == 10


@pytest.mark.parametrize("kind", ["broker", "cluster"])
@given(
    rates=st.lists(st.builds(Rate, st.integers(1, 6), st.sampled_from([0.5, 1.0, 7.0, 60.0])), min_size=1, max_size=3),
    steps=st.lists(
        st.tuples(
            st.sampled_from([0, 0.001, 0.1, 0.25, 1.0, 9.5]),
            st.sampled_from([1, 1, 1, 2, 0.5, 5]),
            st.sampled_from(["hit", "hit", "peek", "a", "b", "ab", "abc", ""]),
        ),
        max_size=25,
    ),
)
@settings(max_examples=40)
def test_they_answer_what_buckets_in_memory_answer(kind, request, rates, steps):
    server_url = request.getfixturevalue(kind).url

    async def run() -> None:
        clock = Clock(1_700_000_000)
        memory = TokenBuckets(clock)
        async with Shared(server_url, 1, clock=clock) as (shared,):
            scope, windows = secrets.token_hex(8), tuple(rates)
            for seconds, cost, what in steps:
                clock.advance(seconds)
                if what in ("hit", "peek"):
                    expected, found = [getattr(each, what)((scope, 1), windows, cost) for each in (memory, shared)]
                else:
                    expected, found = [each.hit_each(scope, what, windows, cost) for each in (memory, shared)]
                assert await found == pytest.approx(expected, abs=1e-5)
                assert not shared.counters["failures"]

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["broker", "cluster"])
async def test_a_request_of_several_identities_takes_from_each_or_from_none(kind, request):
    async with Shared(request.getfixturevalue(kind).url, clock=Clock(1000)) as (one, two):
        rates, scope = parse_rate("2/minute"), secrets.token_hex(8)
        assert [await each.hit_each(scope, "b", rates) for each in (one, two)] == [0.0, 0.0]
        assert await one.hit_each(scope, "abc", rates) == pytest.approx(30)
        assert [await two.hit_each(scope, "ac", rates) for _ in range(2)] == [0.0, 0.0]
        assert await one.hit_each(scope, "a", rates) == pytest.approx(30)
        assert await one.hit_each("another scope" + scope, "abc", rates) == 0.0
        assert not one.counters["failures"] + two.counters["failures"]


async def test_many_at_once_that_share_one_identity_are_counted_exactly(url):
    async with Shared(url) as (one, two):
        rates = parse_rate("10/day")
        requests = [each.hit_each("s", ["all", number], rates) for each in (one, two) for number in range(20)]
        assert (await asyncio.gather(*requests)).count(0.0) == 10


async def test_asking_takes_nothing(broker, url):
    async with Shared(url) as (one, two):
        rates = parse_rate("1/hour; 5/day")
        assert [await each.peek("k", rates) for each in (one, two, one)] == [0.0] * 3
        assert broker.admin("KEYS", f"{one.client.prefix}*") == []
        assert await one.hit("k", rates) == 0.0
        assert [0 < await each.peek("k", rates) <= 3600 for each in (one, two)] == [True, True]


async def test_whoever_waits_as_long_as_told_passes_by_the_servers_own_clock(url):
    async with Shared(url, 1) as (buckets,):
        rates = parse_rate("1/3 seconds")
        assert await buckets.hit("k", rates) == 0.0
        for _ in range(20):  # a machine that stops for three seconds between two questions gives the token back
            if wait := await buckets.hit("k", rates):
                break
        assert 0 < wait <= 3
        await asyncio.sleep(wait)
        assert await buckets.hit("k", rates) == 0.0


async def test_keys_expire_when_their_buckets_are_full(broker, url):
    async with Shared(url, 1) as (buckets,):
        await buckets.hit("k", parse_rate("100/minute; 5/hour"))
        (key,) = broker.admin("KEYS", f"{buckets.client.prefix}*")
        assert 0 < broker.admin("PTTL", key) <= 720_000


async def test_what_a_client_calls_itself_is_no_part_of_the_keys(broker, url):
    async with Shared(url, 1) as (buckets,):
        await buckets.hit(("scope", ("user", "x{}* \n" * 10_000)), parse_rate("5/hour"))
        (key,) = broker.admin("KEYS", f"{buckets.client.prefix}*")
        assert len(key) < len(buckets.client.prefix) + 50


class Named:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


async def test_different_identities_have_different_keys(url):
    idents: list[Any] = ["1", 1, b"1", None, ("1",), ("1", "2"), ("1,2",), (("1",), "2"), uuid.UUID(int=1), Named("1")]
    async with Shared(url) as (one, two):
        rates = parse_rate("1/hour")
        assert [await one.hit(ident, rates) for ident in idents] == [0.0] * len(idents)
        again = ["1", 1, b"1", None, ("1",), ("1", "2"), ("1,2",), (("1",), "2"), uuid.UUID(int=1), Named("1")]
        assert all([await two.hit(ident, rates) > 0 for ident in again])


async def test_an_identity_that_no_other_process_knows_is_an_error(url):
    async with Shared(url, 1) as (buckets,):
        with pytest.raises(TypeError, match="no other process would know it"):
            await buckets.hit(("scope", object()), parse_rate("1/hour"))


async def test_what_no_bucket_holds_is_never_allowed_and_nothing_is_asked_of_the_server():
    buckets = RedisBuckets(RedisClient("redis://127.0.0.1:1"))
    assert await buckets.hit("k", parse_rate("5/hour; 2/minute"), 3) == math.inf
    assert await buckets.peek("k", parse_rate("2/minute"), 3) == math.inf
    assert await buckets.hit("k", ()) == 0.0
    assert await buckets.hit_each("s", (), parse_rate("2/minute")) == 0.0
    assert not buckets.counters["failures"]


# --- without the server ---


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("fastapi_consumers.throttling")]


@pytest.mark.parametrize("failure", ["memory", "open", "closed"])
async def test_a_server_that_is_away_costs_little_time_is_counted_and_logged_once(own_broker, failure, caplog):
    caplog.set_level(logging.INFO)
    rates = parse_rate("2/hour")
    client = RedisClient(own_broker.url, timeout=2.0)
    buckets = RedisBuckets(client, failure=failure)
    await buckets.open()
    try:
        assert await buckets.hit("k", rates) == 0.0
        own_broker.kill()
        answers: list[Any] = []
        started = time.monotonic()
        for _ in range(50):
            try:
                answers.append(await buckets.hit("k", rates) > 0)
            except BrokerUnavailable as error:
                answers.append(error.code)
        assert time.monotonic() - started < 30  # Had each waited, it would be longer.
        expected = {
            "memory": [False] * 2 + [True] * 48,
            "open": [False] * 50,
            "closed": ["limiter_unavailable"] * 50,
        }
        assert answers == expected[failure]
        assert dict(buckets.counters) == {"outages": 1, "failures": 50}
        (line,) = logged(caplog)
        assert f"throttle_failure={failure!r}" in line
        own_broker.start()
        async with asyncio.timeout(20):
            while buckets.counters["failures"] and len(logged(caplog)) < 2:
                try:
                    await buckets.hit(secrets.token_hex(8), rates)
                except BrokerUnavailable:
                    pass
                await asyncio.sleep(0.05)
        assert "again" in logged(caplog)[1]
        failures = buckets.counters["failures"]
        assert await buckets.hit("new", rates) == 0.0
        assert buckets.counters["failures"] == failures
    finally:
        await buckets.close()


@pytest.mark.parametrize("failure", ["memory", "open", "closed"])
async def test_without_the_server_groups_are_counted_and_asked_about_as_the_rest(failure):
    buckets = RedisBuckets(RedisClient("redis://127.0.0.1:1"), failure=failure)
    rates = parse_rate("1/hour")
    questions = [lambda: buckets.hit_each("s", "ab", rates), lambda: buckets.hit_each("s", "bc", rates)]
    questions += [lambda: buckets.hit("k", rates), lambda: buckets.peek("k", rates)]
    await buckets.open()
    try:
        answers: list[Any] = []
        for ask in questions:
            try:
                answers.append(await ask() > 0)
            except BrokerUnavailable as error:
                answers.append(error.code)
    finally:
        await buckets.close()
    expected = {"memory": [False, True, False, True], "open": [False] * 4, "closed": ["limiter_unavailable"] * 4}
    assert answers == expected[failure]
    assert buckets.counters["failures"] == 4


async def test_a_server_that_hangs_holds_a_request_up_for_the_timeout_and_the_next_not_at_all(own_broker):
    buckets = RedisBuckets(RedisClient(own_broker.url, timeout=30.0), failure="open", timeout=2)
    await buckets.open()
    try:
        own_broker.freeze()
        started = time.monotonic()
        assert await buckets.hit("k", parse_rate("1/hour")) == 0.0
        waited = time.monotonic() - started
        assert 1.9 < waited < 15
        started = time.monotonic()
        for _ in range(10):
            assert await buckets.hit("k", parse_rate("1/hour")) == 0.0
        # Had each waited, it would be twenty seconds; one may have asked again after a pause.
        assert time.monotonic() - started < 15
    finally:
        own_broker.thaw()
        await buckets.close()
