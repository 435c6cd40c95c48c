"""Rates, token buckets, who is counted together, and the check. Time is a clock that the tests turn."""

import dataclasses
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_consumers.exceptions import Throttled
from fastapi_consumers.gate import Gate
from fastapi_consumers.identity import ANONYMOUS
from fastapi_consumers.throttling import (
    AddressRateThrottle,
    BaseThrottle,
    Buckets,
    ConnectionRateThrottle,
    GroupRateThrottle,
    Rate,
    RateThrottle,
    TokenBuckets,
    UserRateThrottle,
    check_throttles,
    compile_throttles,
    parse_rate,
    throttle_of,
)


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def buckets(clock: Clock) -> TokenBuckets:
    return TokenBuckets(clock)


def consumer(user: Any = ANONYMOUS, host: str = "203.0.113.9", channel: str = "c1", groups: Any = ()) -> Any:
    return SimpleNamespace(user=user, scope={"client": (host, 5000)}, channel_name=channel, group_names=groups)


async def retry_after(throttles: Any, who: Any, buckets: Buckets, action: Any = None) -> float:
    """0.0 if the request passed."""
    try:
        await check_throttles(throttles, who, action, buckets)
    except Throttled as error:
        return error.retry_after or float("nan")
    return 0.0


# --- rates ---


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("20/second", [(20, 1)]),
        ("20/second; 600/minute", [(20, 1), (600, 60)]),
        ("2/3000 seconds", [(2, 3000)]),
        ("1/0.5s", [(1, 0.5)]),
        ("  7 / 2minutes ;8/h;9/ 3 d ", [(7, 120), (8, 3600), (9, 259200)]),
        ("1/SEC;2/Min;3/hours;4/days;5/s;6/m;7/day;8/hour", [
            (1, 1), (2, 60), (3, 3600), (4, 86400), (5, 1), (6, 60), (7, 86400), (8, 3600)
        ]),
    ],
)  # fmt: skip
def test_rates_are_read(text: str, rates: list[tuple[int, float]]) -> None:
    assert parse_rate(text) == tuple(Rate(*rate) for rate in rates)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a part of it is empty"),
        ("20/second;", "a part of it is empty"),
        ("20", "'20' is not N/unit"),
        ("20/", "is not N/unit"),
        ("-1/s", "is not N/unit"),
        ("1.5/s", "is not N/unit"),
        ("٣/s", "is not N/unit"),
        ("20 per second", "is not N/unit"),
        ("20/second, 5/minute", "is not N/unit"),
        ("20/fortnight", "there is no unit 'fortnight'"),
        ("0/second", "'0/second' would allow nothing"),
        ("1/0 seconds", "has no length of time"),
        (f"1/{'9' * 400} seconds", "has no length of time"),
    ],
)
def test_what_is_no_rate_is_an_error_that_says_why_and_what_is_expected(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="is no rate") as caught:
        parse_rate(text)
    assert problem in str(caught.value)
    assert "'20/second; 600/10 minutes'" in str(caught.value)


@given(st.text(alphabet="0123456789/;. smhdsecond\n", max_size=30) | st.text(max_size=20))
def test_no_text_reads_as_a_rate_that_cannot_be_kept(text: str) -> None:
    try:
        rates = parse_rate(text)
    except ValueError:
        return
    assert all(rate.count >= 1 and rate.seconds > 0 for rate in rates)


# --- buckets ---


def test_a_full_bucket_allows_its_count_at_once_and_then_one_for_each_part_of_the_window(
    buckets: TokenBuckets, clock: Clock
) -> None:
    rates = parse_rate("4/second")
    assert [buckets.hit("k", rates) for _ in range(4)] == [0.0] * 4
    assert buckets.hit("k", rates) == pytest.approx(0.25)
    clock.now += 0.2
    assert buckets.hit("k", rates) == pytest.approx(0.05)
    clock.now += 0.05
    assert buckets.hit("k", rates) == 0.0
    assert buckets.hit("k", rates) == pytest.approx(0.25)


def test_a_refused_request_takes_nothing(buckets: TokenBuckets, clock: Clock) -> None:
    rates = parse_rate("1/second")
    buckets.hit("k", rates)
    for _ in range(10):
        assert buckets.hit("k", rates) == pytest.approx(1.0)
    clock.now += 1
    assert buckets.hit("k", rates) == 0.0


def test_a_bucket_never_holds_more_than_its_count(buckets: TokenBuckets, clock: Clock) -> None:
    rates = parse_rate("2/second")
    clock.now += 1e6
    assert [buckets.hit("k", rates) > 0 for _ in range(3)] == [False, False, True]


def test_keys_do_not_share(buckets: TokenBuckets) -> None:
    rates = parse_rate("1/second")
    assert buckets.hit("a", rates) == 0.0
    assert buckets.hit("b", rates) == 0.0
    assert buckets.hit("a", rates) > 0


def test_all_windows_must_allow_and_the_longest_wait_is_told(buckets: TokenBuckets, clock: Clock) -> None:
    rates = parse_rate("2/second; 3/minute")
    assert [buckets.hit("k", rates) for _ in range(2)] == [0.0, 0.0]
    assert buckets.hit("k", rates) == pytest.approx(0.5)
    clock.now += 1
    assert buckets.hit("k", rates) == 0.0
    assert buckets.hit("k", rates) == pytest.approx(19)


def test_what_one_window_refuses_the_others_do_not_count(buckets: TokenBuckets, clock: Clock) -> None:
    rates = parse_rate("1/second; 2/minute")
    buckets.hit("k", rates)
    for _ in range(50):
        assert buckets.hit("k", rates) == pytest.approx(1.0)
    clock.now += 1
    assert buckets.hit("k", rates) == 0.0


def test_two_windows_of_equal_length_count_apart(buckets: TokenBuckets) -> None:
    rates = parse_rate("3/second; 2/second")
    assert [buckets.hit("k", rates) > 0 for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(("slow", "fast"), [("1/day", "2/second"), ("1/day; 1/day", "2/second; 9/second")])
def test_a_key_that_moves_to_a_faster_rate_does_not_wait_as_at_the_slower(
    buckets: TokenBuckets, clock: Clock, slow: str, fast: str
) -> None:
    assert buckets.hit("k", parse_rate(slow)) == 0.0
    assert buckets.hit("k", parse_rate(fast)) == pytest.approx(0.5)
    clock.now += 0.5
    assert buckets.hit("k", parse_rate(fast)) == 0.0


def test_a_key_may_have_more_or_fewer_rates_than_before(buckets: TokenBuckets) -> None:
    assert buckets.hit("k", parse_rate("5/hour")) == 0.0
    assert buckets.hit("k", parse_rate("5/hour; 5/day")) == 0.0
    assert buckets.hit("k", parse_rate("5/hour")) == 0.0
    assert buckets.hit("k", ()) == 0.0


def test_a_clock_that_is_set_back_costs_no_more_than_one_token(buckets: TokenBuckets, clock: Clock) -> None:
    rates = parse_rate("2/second")
    buckets.hit("k", rates)
    clock.now -= 500
    assert buckets.hit("k", rates) == pytest.approx(0.5)
    clock.now += 0.5
    assert buckets.hit("k", rates) == 0.0


@given(
    count=st.integers(1, 500),
    seconds=st.floats(0.01, 1e5),
    start=st.floats(0, 2e9),
)
def test_neither_rounding_nor_the_age_of_the_clock_takes_or_gives_a_request(
    count: int, seconds: float, start: float
) -> None:
    clock = Clock(start)
    buckets, rates = TokenBuckets(clock), (Rate(count, seconds),)
    if seconds / count < 1e-3:
        count = max(1, int(seconds / 1e-3))
        rates = (Rate(count, seconds),)
    assert [buckets.hit("k", rates) for _ in range(count)] == [0.0] * count
    wait = buckets.hit("k", rates)
    assert wait > 0
    clock.now += wait
    assert buckets.hit("k", rates) == 0.0, "who waits as long as told is let in"


@given(
    rates=st.lists(st.builds(Rate, st.integers(1, 5), st.sampled_from([1.0, 4.0, 10.0])), min_size=1, max_size=3),
    steps=st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0, 20.0]), max_size=60),
)
def test_buckets_agree_with_counting_tokens_by_hand(rates: list[Rate], steps: list[float]) -> None:
    clock = Clock(0.0)
    buckets = TokenBuckets(clock)
    tokens = [float(rate.count) for rate in rates]
    for step in steps:
        clock.now += step
        tokens = [
            min(rate.count, held + step * rate.count / rate.seconds) for rate, held in zip(rates, tokens, strict=True)
        ]
        allowed = all(held >= 1 - 1e-6 for held in tokens)
        waits = [(1 - held) * rate.seconds / rate.count for rate, held in zip(rates, tokens, strict=True)]
        wait = buckets.hit("k", tuple(rates))
        assert wait == pytest.approx(0.0 if allowed else max(waits), abs=1e-6)
        if allowed:
            tokens = [held - 1 for held in tokens]


def test_a_request_may_cost_several_tokens_or_a_part_of_one(buckets: TokenBuckets, clock: Clock) -> None:
    rates = parse_rate("10/second")
    assert buckets.hit("k", rates, 7) == 0.0
    assert buckets.hit("k", rates, 4) == pytest.approx(0.1)
    assert buckets.hit("k", rates, 2.5) == 0.0
    assert buckets.hit("k", rates) == pytest.approx(0.05)
    clock.now += 0.05
    assert buckets.hit("k", rates) == 0.0
    assert buckets.hit("k", rates, 10) == pytest.approx(1.0)


def test_what_no_window_ever_allows_at_once_is_never_allowed_and_takes_nothing(buckets: TokenBuckets) -> None:
    rates = parse_rate("10/second; 3/hour")
    assert buckets.hit("k", rates, 4) == float("inf")
    assert buckets.hit("k", rates, 3) == 0.0


def test_full_buckets_are_forgotten(buckets: TokenBuckets, clock: Clock) -> None:
    rates = parse_rate("5/second")
    for number in range(50_000):
        buckets.hit(number, rates)
        clock.now += 0.01
    assert len(buckets) <= 1024


def test_the_number_of_buckets_is_bounded_even_if_none_is_full(clock: Clock) -> None:
    buckets = TokenBuckets(clock, max_keys=5000)
    rates = parse_rate("1/day; 5/day")
    for number in range(20_000):
        buckets.hit(number, rates)
        assert len(buckets) <= 5000
    assert len(buckets) > 5000 // 2


def test_where_there_are_too_many_the_ones_soonest_full_again_are_dropped(clock: Clock) -> None:
    buckets = TokenBuckets(clock, max_keys=8)
    slow, fast = parse_rate("1/day"), parse_rate("1/minute")
    buckets.hit("slow", slow)
    for number in range(8):
        buckets.hit(number, fast)
    assert buckets.hit("slow", slow) > 0
    assert buckets.hit(7, fast) > 0, "the newest stays"
    assert buckets.hit(0, fast) == 0.0, "the oldest of equal ones went"


def test_a_sweep_makes_room_for_many_so_that_its_cost_is_spread(clock: Clock) -> None:
    sweeps = 0

    class Counting(TokenBuckets):
        def _sweep(self, now: float) -> None:
            nonlocal sweeps
            sweeps += 1
            super()._sweep(now)

    buckets = Counting(clock, max_keys=4000)
    for number in range(40_000):
        buckets.hit(number, parse_rate("1/day"))
    assert sweeps <= 40_000 / 1000


@pytest.mark.parametrize("rate", ["1/day", "1/day; 2/day"])
def test_a_single_bucket_is_enough_to_go_on(clock: Clock, rate: str) -> None:
    buckets = TokenBuckets(clock, max_keys=1)
    assert buckets.hit("a", parse_rate(rate)) == 0.0
    assert buckets.hit("b", parse_rate(rate)) == 0.0
    assert len(buckets) == 1


def test_no_room_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_keys is 0; expected at least 1"):
        TokenBuckets(max_keys=0)


def test_the_default_clock_runs() -> None:
    assert TokenBuckets().hit("k", parse_rate("1/day")) == 0.0


# --- who is counted together ---

ANN, BOB = SimpleNamespace(id=1), SimpleNamespace(id=2)


@pytest.mark.parametrize(
    ("throttle", "one", "other", "together"),
    [
        (UserRateThrottle, consumer(ANN, host="10.0.0.1"), consumer(ANN, host="10.0.0.2"), True),
        (UserRateThrottle, consumer(ANN), consumer(BOB), False),
        (UserRateThrottle, consumer(host="10.0.0.1"), consumer(host="10.0.0.1"), True),
        (UserRateThrottle, consumer(host="10.0.0.1"), consumer(host="10.0.0.2"), False),
        (UserRateThrottle, consumer("10.0.0.1"), consumer(host="10.0.0.1"), False),
        (UserRateThrottle, consumer(object()), consumer(object()), True),
        (AddressRateThrottle, consumer(ANN), consumer(BOB), True),
        (AddressRateThrottle, consumer(ANN, host="10.0.0.1"), consumer(ANN, host="10.0.0.2"), False),
        (AddressRateThrottle, consumer(host="2001:db8::1"), consumer(host="2001:db8::2"), True),
        (AddressRateThrottle, consumer(host="2001:db8::1"), consumer(host="2001:db8:0:1::1"), False),
        (AddressRateThrottle, consumer(host=""), consumer(host=""), True),
        (ConnectionRateThrottle, consumer(ANN, channel="a"), consumer(ANN, channel="b"), False),
        (ConnectionRateThrottle, consumer(channel="a"), consumer(channel="a"), True),
        (GroupRateThrottle, consumer(ANN, groups=("r",)), consumer(BOB, groups=("r",)), True),
        (GroupRateThrottle, consumer(groups=("r",)), consumer(groups=("s",)), False),
        (GroupRateThrottle, consumer(groups=("r",)), consumer(groups=("r", "s")), True),
        (GroupRateThrottle, consumer(groups=("r", "s")), consumer(groups=("s", "t")), True),
        (GroupRateThrottle, consumer(groups=("r", "s")), consumer(groups=("t",)), False),
        (GroupRateThrottle, consumer(groups=()), consumer(groups=()), False),
    ],
)
async def test_who_is_counted_together(
    throttle: type[BaseThrottle], one: Any, other: Any, together: bool, buckets: TokenBuckets
) -> None:
    throttles = compile_throttles([throttle("1/minute")], "Room")
    assert await retry_after(throttles, one, buckets) == 0.0
    assert (await retry_after(throttles, other, buckets) > 0) is together


async def test_a_request_takes_from_each_of_its_groups_or_from_none(clock: Clock, buckets: TokenBuckets) -> None:
    throttles = compile_throttles([GroupRateThrottle("2/minute")], "Room")
    assert await retry_after(throttles, consumer(groups=("r",)), buckets) == 0.0
    clock.now += 6
    assert [await retry_after(throttles, consumer(groups=("s",)), buckets) for _ in range(2)] == [0.0, 0.0]
    # The wait is that of s; r, which has one left, keeps it.
    assert await retry_after(throttles, consumer(groups=("r", "s")), buckets) == pytest.approx(30)
    assert await retry_after(throttles, consumer(groups=("r",)), buckets) == 0.0
    for groups in (("r", "s"), ("s", "r")):
        assert await retry_after(throttles, consumer(groups=groups), buckets) == pytest.approx(30)
    assert await retry_after(throttles, consumer(groups=("r",)), buckets) == pytest.approx(24)
    clock.now += 30
    assert await retry_after(throttles, consumer(groups=("r", "s")), buckets) == 0.0


async def test_a_subclass_says_which_of_its_groups_count(buckets: TokenBuckets) -> None:
    class First(GroupRateThrottle):
        rate = "1/minute"

        def get_ident(self, consumer: Any) -> Any:
            return consumer.group_names[0] if consumer.group_names else None

    throttles = compile_throttles([First], "Room")
    whose = [("r", "s"), ("s", "r"), ("r", "t"), (), ()]
    assert [await retry_after(throttles, consumer(groups=groups), buckets) > 0 for groups in whose] == [
        False, False, True, False, False
    ]  # fmt: skip


async def test_groups_are_counted_where_and_for_as_much_as_the_throttle_says(buckets: TokenBuckets) -> None:
    class Remote:
        local = buckets

    costly, free = (GroupRateThrottle("5/minute", cost=cost, local=True) for cost in (3, 0))
    throttles = compile_throttles([costly, free], "Room")
    member = consumer(groups=("r",))
    assert [await retry_after(throttles, member, Remote()) > 0 for _ in range(3)] == [False, True, True]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="GroupRateThrottle has no rate"):
        throttle_of(GroupRateThrottle)


def test_asking_takes_nothing_and_says_what_a_request_would_be_told(clock: Clock, buckets: TokenBuckets) -> None:
    rates = parse_rate("2/minute; 3/hour")
    assert [buckets.peek("k", rates) for _ in range(5)] == [0.0] * 5
    assert buckets.peek("k", rates, 4) == float("inf")
    assert len(buckets) == 0
    for _ in range(2):
        assert buckets.hit("k", rates) == 0.0
    assert buckets.peek("k", rates) == buckets.peek("k", rates) == buckets.hit("k", rates) == pytest.approx(30)
    clock.now += 30
    assert buckets.peek("k", rates) == buckets.hit("k", rates) == 0.0
    assert buckets.peek("k", rates) == pytest.approx(1200 - 30)


async def test_whoever_has_no_identity_is_not_throttled(buckets: TokenBuckets) -> None:
    class OnlyAnonymous(AddressRateThrottle):
        def get_ident(self, consumer: Any) -> Any:
            return None if consumer.user is ANN else super().get_ident(consumer)

    throttles = compile_throttles([OnlyAnonymous("1/minute")], "Room")
    assert [await retry_after(throttles, consumer(ANN), buckets) for _ in range(5)] == [0.0] * 5
    assert len(buckets) == 0


# --- what counts as a throttle ---


def test_a_rate_by_itself_counts_by_user() -> None:
    throttle = throttle_of("2/second")
    assert type(throttle) is UserRateThrottle
    assert throttle.rates == (Rate(2, 1.0),)


def test_a_class_has_its_rate_as_an_attribute_which_an_instance_may_replace() -> None:
    class Burst(UserRateThrottle):
        rate = "60/minute"

    instance = Burst("5/second")
    assert throttle_of(Burst).rates == (Rate(60, 60.0),)
    assert throttle_of(instance) is instance
    assert instance.rates == (Rate(5, 1.0),)
    assert (
        repr(instance)
        == "test_a_class_has_its_rate_as_an_attribute_which_an_instance_may_replace.<locals>.Burst('5/second')"
    )


@pytest.mark.parametrize("entry", [5, None, int, object(), ["5/second"], lambda consumer: True])
def test_anything_else_is_no_throttle(entry: Any) -> None:
    with pytest.raises(TypeError, match=r"is no throttle; expected a rate.*BaseThrottle"):
        throttle_of(entry)


@pytest.mark.parametrize("entry", ["5/parsec", "fast"])
def test_a_rate_that_cannot_be_read_is_an_error_at_once(entry: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        throttle_of(entry)
    with pytest.raises(ValueError, match="is no rate"):
        UserRateThrottle(entry)


def test_a_throttle_without_a_rate_is_an_error_and_does_not_let_all_pass() -> None:
    with pytest.raises(ValueError, match=r"UserRateThrottle has no rate.*UserRateThrottle\('5/second'\)"):
        throttle_of(UserRateThrottle)
    assert repr(UserRateThrottle()) == "UserRateThrottle()"


def test_an_async_identity_is_an_error_and_does_not_let_all_pass() -> None:
    class Async(UserRateThrottle):
        async def get_ident(self, consumer: Any) -> Any:
            return 1

    with pytest.raises(TypeError, match=r"Async\.get_ident\(\) is async.*allow\(\)"):
        throttle_of(Async("1/second"))


@pytest.mark.parametrize("entries", ["5/second", UserRateThrottle, UserRateThrottle("5/second"), 5])
def test_something_that_is_no_list_is_an_error_that_shows_the_list(entries: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a list of throttles. Put it into a list: \[.+\]"):
        compile_throttles(entries, "Room")


# --- scopes ---


async def test_an_instance_in_two_lists_counts_for_each_by_itself_and_is_not_changed(buckets: TokenBuckets) -> None:
    shared = UserRateThrottle("1/minute")
    chat, say = compile_throttles([shared], "Chat"), compile_throttles([shared], "Chat.say")
    assert await retry_after(chat, consumer(), buckets) == 0.0
    assert await retry_after(say, consumer(), buckets) == 0.0
    assert await retry_after(chat, consumer(), buckets) > 0
    assert shared.scope is None


async def test_two_throttles_of_one_list_count_by_themselves(buckets: TokenBuckets) -> None:
    throttles = compile_throttles(["2/minute", "2/minute"], "Chat")
    assert [await retry_after(throttles, consumer(), buckets) > 0 for _ in range(3)] == [False, False, True]


async def test_throttles_of_one_scope_share_their_counts(buckets: TokenBuckets) -> None:
    class Uploads(UserRateThrottle):
        rate = "1/minute"
        scope = "uploads"

    chat, files = compile_throttles([Uploads], "Chat"), compile_throttles([Uploads], "Files")
    assert await retry_after(chat, consumer(), buckets) == 0.0
    assert await retry_after(files, consumer(), buckets) > 0


async def test_a_subclass_that_does_not_call_our_init_is_limited_all_the_same(buckets: TokenBuckets) -> None:
    class Own(AddressRateThrottle):
        rate = "1/minute"

        def __init__(self) -> None:
            pass

    throttles = compile_throttles([Own], "Chat")
    assert [await retry_after(throttles, consumer(), buckets) > 0 for _ in range(2)] == [False, True]


# --- the check ---


class Told(BaseThrottle):
    """Waits as it is told to, and notes what it is asked."""

    def __init__(self, *answers: Any) -> None:
        super().__init__()
        self.answers = deque(answers)
        self.throttled: list[Any] = []

    def get_ident(self, consumer: Any) -> Any:
        raise AssertionError("not needed")

    def allow(self, consumer: Any, action: Any, buckets: Any) -> Any:
        return self.answers.popleft()

    def on_throttled(self, consumer: Any, action: Any, retry_after: float) -> Any:
        self.throttled.append((consumer, action, retry_after))


class ToldLater(Told):
    async def allow(self, consumer: Any, action: Any, buckets: Any) -> Any:
        return super().allow(consumer, action, buckets)

    async def on_throttled(self, consumer: Any, action: Any, retry_after: float) -> Any:
        super().on_throttled(consumer, action, retry_after)


both = pytest.mark.parametrize("kind", [Told, ToldLater])


@both
async def test_the_first_refusal_wins_and_those_after_it_do_not_count(kind: type[Told], buckets: TokenBuckets) -> None:
    throttles = compile_throttles([kind(0.0), kind(1.5), kind(9.0)], "Chat")
    assert await retry_after(throttles, "consumer", buckets, action="say") == 1.5
    assert [list(throttle.answers) for throttle in throttles if isinstance(throttle, Told)] == [[], [], [9.0]]
    assert [throttle.throttled for throttle in throttles if isinstance(throttle, Told)] == [
        [],
        [("consumer", "say", 1.5)],
        [],
    ]


@both
async def test_a_whole_number_of_seconds_will_do(kind: type[Told], buckets: TokenBuckets) -> None:
    throttles = compile_throttles([kind(0, 3)], "Chat")
    assert await retry_after(throttles, None, buckets) == 0.0
    assert await retry_after(throttles, None, buckets) == 3


@both
@pytest.mark.parametrize("answer", [True, False, None, "1"])
async def test_an_answer_that_is_no_number_is_an_error(kind: type[Told], answer: Any, buckets: TokenBuckets) -> None:
    with pytest.raises(TypeError, match=r"allow\(\) returned .*expected the seconds to wait"):
        await retry_after([kind(answer)], None, buckets)


async def test_the_hook_may_answer_in_place_of_the_throttle(buckets: TokenBuckets) -> None:
    class Strict(UserRateThrottle):
        def on_throttled(self, consumer: Any, action: Any, retry_after: float) -> None:
            raise Throttled(retry_after, "Slow down.", close=True)

    throttles = compile_throttles([Strict("1/minute")], "Chat")
    await check_throttles(throttles, consumer(), None, buckets)
    with pytest.raises(Throttled, match="Slow down") as caught:
        await check_throttles(throttles, consumer(), None, buckets)
    assert caught.value.close


async def test_buckets_may_be_counted_elsewhere_and_answer_later(buckets: TokenBuckets) -> None:
    class Remote:
        async def hit(self, key: Any, rates: tuple[Rate, ...], cost: float = 1) -> float:
            return buckets.hit(key, rates)

    throttles = compile_throttles(["1/minute"], "Chat")
    assert await retry_after(throttles, consumer(), Remote()) == 0.0
    assert await retry_after(throttles, consumer(), Remote()) == pytest.approx(60)


async def test_time_opens_the_way_again(buckets: TokenBuckets, clock: Clock) -> None:
    throttles = compile_throttles(["1/minute"], "Chat")
    assert await retry_after(throttles, consumer(), buckets) == 0.0
    wait = await retry_after(throttles, consumer(), buckets)
    clock.now += wait
    assert await retry_after(throttles, consumer(), buckets) == 0.0


def test_a_sync_check_never_gives_way_to_the_event_loop(buckets: TokenBuckets) -> None:
    check = check_throttles(compile_throttles(["5/minute", "9/minute"], "Chat"), consumer(), None, buckets)
    with pytest.raises(StopIteration):
        check.send(None)


@pytest.mark.parametrize(("cost", "error"), [(-1, ValueError), (float("nan"), ValueError), ("2", TypeError)])
async def test_a_cost_that_is_none_is_an_error(cost: Any, error: type[Exception], buckets: TokenBuckets) -> None:
    class Costly(UserRateThrottle):
        rate = "5/second"

        def get_cost(self, consumer: Any, action: Any) -> float:
            return cost

    with pytest.raises(error, match="expected"):
        await check_throttles(compile_throttles([Costly], "Chat"), consumer(), None, buckets)
    with pytest.raises(error, match="expected"):
        throttle_of(UserRateThrottle("5/second", cost=cost))


def test_a_cost_beyond_the_rate_is_an_error_and_does_not_refuse_all() -> None:
    with pytest.raises(ValueError, match="no request would ever pass"):
        throttle_of(UserRateThrottle("10/second; 3/hour", cost=4))


def test_an_async_cost_is_an_error() -> None:
    class Late(UserRateThrottle):
        async def get_cost(self, consumer: Any, action: Any) -> float:
            return 1

    with pytest.raises(TypeError, match="get_cost"):
        throttle_of(Late("1/second"))


#: What a gate reads of one.
PLAN: Any = SimpleNamespace(limits=SimpleNamespace(max_throttled_requests=9))


async def test_a_throttle_that_cannot_be_hashed_counts_as_well():
    @dataclasses.dataclass
    class Plain(UserRateThrottle):
        rate: str = "2/minute"

    gate = Gate(consumer(), PLAN, TokenBuckets())
    throttles = compile_throttles([Plain, Plain], "Chat")
    assert [gate.count(throttles, None) for _ in range(2)] == [None, None]
    with pytest.raises(Throttled):
        await gate.count(throttles, None)


async def test_whoever_becomes_another_user_is_counted_as_that_one():
    who, buckets = consumer(user="ann"), TokenBuckets()
    gate = Gate(who, PLAN, buckets)
    throttles = compile_throttles(["1/minute"], "Chat")
    assert gate.count(throttles, None) is None
    with pytest.raises(Throttled):
        await gate.count(throttles, None)
    who.user = "ben"
    assert gate.count(throttles, None) is None
    assert len(buckets) == 2


async def test_a_key_function_says_who_is_counted_together(buckets: TokenBuckets) -> None:
    throttles = compile_throttles([RateThrottle("1/minute", key=lambda consumer: consumer.channel_name or None)], "C")
    waits = [await retry_after(throttles, consumer(channel=channel), buckets) for channel in ("a", "a", "b", "", "")]
    assert [wait > 0 for wait in waits] == [False, True, False, False, False]


async def test_a_key_that_is_no_plain_function_is_an_error() -> None:
    async def late(consumer: Any) -> str:
        return ""

    for key in (late, "user", None):
        with pytest.raises(TypeError, match="plain function"):
            RateThrottle("1/minute", key=key)


async def test_what_is_local_is_counted_in_memory_where_others_are_not(buckets: TokenBuckets) -> None:
    class Remote:
        local = buckets

        async def hit(self, key: Any, rates: tuple[Rate, ...], cost: float = 1) -> float:
            raise AssertionError("asked")

    for throttle in (ConnectionRateThrottle("1/minute"), UserRateThrottle("1/minute", local=True)):
        compiled = compile_throttles([throttle], repr(throttle))
        assert await retry_after(compiled, consumer(), Remote()) == 0.0
        assert await retry_after(compiled, consumer(), Remote()) == pytest.approx(60)
