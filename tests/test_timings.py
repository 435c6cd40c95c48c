"""When things are due: intervals, cron, and the days on which clocks change."""

import sys
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastapi_consumers.timings import BadTiming, Cron, Every, Timing, timing_of

BERLIN = ZoneInfo("Europe/Berlin")
#: Zones that change at two, at midnight, by half an hour, at all hours of the year's other half, and never.
ZONES = ["Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
YEAR = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1000
HOUR, DAY = 3_600_000, 86_400_000

moments = st.integers(min_value=YEAR, max_value=YEAR + 365 * DAY)


def local(*fields: int, fold: int = 0) -> int:
    return int(datetime(*fields, tzinfo=BERLIN, fold=fold).timestamp()) * 1000  # type: ignore[arg-type]


def ticks(timing: Timing, since: int, until: int) -> list[int]:
    found, tick = [], timing.after(since)
    while tick < until:
        found.append(tick)
        tick = timing.after(tick)
    return found


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [
        (5, 5),
        (1.5, 1.5),
        ("30s", 30),
        ("5m", 300),
        (" 1h 30m ", 5400),
        ("1d", 86400),
        ("0.5h", 1800),
        (timedelta(minutes=2), 120),
        ("366d", 366 * 86400),
    ],
)
def test_intervals(interval, seconds):
    timing = Every(interval)
    assert timing.to_dict() == {"every": seconds}
    assert timing.after(0) == seconds * 1000
    assert timing.after(seconds * 1000) == 2 * seconds * 1000
    assert repr(timing) == f"every {seconds:g} s"


@pytest.mark.parametrize(
    "interval",
    [
        0,
        -1,
        0.5,
        366 * 86400 + 1,
        float("nan"),
        float("inf"),
        True,
        None,
        "",
        "30",
        "s",
        "1h x",
        "x 1h",
        "1w",
        "-5s",
        [5],
    ],
)
def test_what_is_no_interval(interval):
    with pytest.raises(BadTiming) as caught:
        Every(interval)
    assert caught.value.problem.code == "bad-interval"


@given(st.integers(1000, 10_000_000), moments)
def test_the_moments_of_an_interval_are_the_same_whenever_one_asks(step, moment):
    timing = Every(step / 1000)
    tick = timing.after(moment)
    assert moment < tick <= moment + step
    assert tick % step == 0
    assert timing.after(tick - 1) == tick
    assert timing.latest(moment, tick) == tick
    assert timing.latest(moment, tick - 1) is None


LINES = [
    "30 2 * * *",
    "0 9 * * 1-5",
    "*/15 * * * *",
    "5 * * * *",
    "15,45 2 * * *",
    "0 0 * * *",
    "0 0 1 * *",
    "* 2 * * *",
]


@given(st.sampled_from(LINES), st.sampled_from(ZONES), moments)
@example("30 2 * * *", "Europe/Berlin", local(2026, 10, 25, 2, 10, fold=1))
@example("15,45 2 * * *", "Europe/Berlin", local(2026, 3, 29, 1, 59))
def test_the_moments_of_cron_are_the_same_whenever_one_asks(line, zone, moment):
    timing = Cron(line, zone)
    tick = timing.after(moment)
    assert tick > moment
    assert tick % 1000 == 0
    # Nothing lies in between, from wherever one looks.
    for other in (moment + 1, (moment + tick) // 2, tick - 1):
        if moment < other < tick:
            assert timing.after(other) == tick
    assert timing.latest(moment, tick) == tick
    assert timing.latest(moment, tick - 1) is None
    following = timing.after(tick)
    assert sum(timing.between(moment, following)) == 1
    assert sum(timing.between(moment, following + 1)) == 2


@settings(max_examples=20)
@given(st.sampled_from(ZONES), st.integers(0, 23), st.integers(0, 59))
@example("Europe/Berlin", 2, 30)
@example("America/Santiago", 0, 0)
@example("Australia/Lord_Howe", 2, 15)
def test_what_names_an_hour_and_a_minute_comes_once_on_each_day(zone, hour, minute):
    found = ticks(Cron(f"{minute} {hour} * * *", zone), YEAR - 2 * DAY, YEAR + 366 * DAY)
    times = [datetime.fromtimestamp(tick / 1000, ZoneInfo(zone)) for tick in found]
    days = [time.date() for time in times]
    assert len(days) == len(set(days))
    assert days == [days[0] + timedelta(days=number) for number in range(len(days))]
    # At its time, or, where that is skipped, right after the gap.
    assert sum((time.hour, time.minute) != (hour, minute) for time in times) <= 2


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC"])
def test_what_comes_every_few_minutes_follows_the_time_that_passes(zone):
    for begin in (local(2026, 3, 7), local(2026, 3, 28), local(2026, 10, 24), local(2026, 10, 31)):
        found = ticks(Cron("*/15 * * * *", zone), begin, begin + 3 * DAY)
        assert {second - first for first, second in pairwise(found)} == {900_000}


def test_a_time_that_is_skipped_comes_right_after_the_gap():
    timing = Cron("30 2 * * *", BERLIN)
    assert ticks(timing, local(2026, 3, 28), local(2026, 3, 31)) == [
        local(2026, 3, 28, 2, 30),
        local(2026, 3, 29, 3, 0),
        local(2026, 3, 30, 2, 30),
    ]
    # Two that are skipped are one.
    assert ticks(Cron("15,45 2 * * *", BERLIN), local(2026, 3, 29), local(2026, 3, 30)) == [local(2026, 3, 29, 3, 0)]


def test_of_two_equal_times_the_first_is_meant():
    timing = Cron("30 2 * * *", BERLIN)
    assert ticks(timing, local(2026, 10, 24, 12), local(2026, 10, 26, 12)) == [
        local(2026, 10, 25, 2, 30, fold=0),
        local(2026, 10, 26, 2, 30),
    ]
    assert timing.after(local(2026, 10, 25, 2, 10, fold=1)) == local(2026, 10, 26, 2, 30)


def test_an_hour_that_comes_twice_has_both_of_what_comes_every_hour():
    hourly = Cron("0 * * * *", BERLIN)
    assert len(ticks(hourly, local(2026, 10, 25) - 1, local(2026, 10, 26))) == 25
    assert len(ticks(hourly, local(2026, 3, 29) - 1, local(2026, 3, 30))) == 23


def test_days_of_the_week_begin_on_sunday():
    timing = Cron("0 0 * * 1")
    monday = datetime.fromtimestamp(timing.after(YEAR) / 1000, UTC)
    assert monday.date() == date(2026, 1, 5)
    assert monday.weekday() == 0


def test_a_sixth_field_is_for_seconds():
    assert ticks(Cron("*/20 * * * * *"), YEAR, YEAR + 60_001) == [YEAR + 20_000, YEAR + 40_000, YEAR + 60_000]


def test_many_are_counted_in_parts():
    parts = list(Cron("* * * * *").between(YEAR, YEAR + 10 * HOUR))
    assert sum(parts) == 599
    assert max(parts) == Cron.PART


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "0 0 31 2 *",
        "* * */20 * 1L",
        "* * * * " + "1," * 200 + "1",
        None,
        5,
    ],
)
def test_what_is_no_line_of_cron(line):
    with pytest.raises(BadTiming) as caught:
        Cron(line)
    assert caught.value.problem.code == "bad-cron"


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "Europe", "../etc/passwd", "/etc/localtime", "a\0b", None, 5, UTC]
)
def test_what_is_no_time_zone(zone):
    with pytest.raises(BadTiming) as caught:
        Cron("0 0 * * *", zone)
    assert caught.value.problem.code == "unknown-time-zone"


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(BadTiming) as caught:
        Cron("0 0 * * *")
    assert caught.value.problem.code == "missing-extra"
    assert "fastapi-consumers[schedules]" in caught.value.problem.fix
    assert Every(5).after(0) == 5000


@pytest.mark.parametrize(
    "timing", [Every("90s"), Cron(" 0  9 * * mon-fri", "Europe/Berlin"), Cron("0 0 * * *", BERLIN)]
)
def test_they_are_kept_as_text(timing):
    again = timing_of(timing.to_dict())
    assert (repr(again), again.to_dict()) == (repr(timing), timing.to_dict())
    assert again.after(YEAR) == timing.after(YEAR)
