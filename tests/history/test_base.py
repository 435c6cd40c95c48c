"""Settings of a history: what they take, and what they refuse."""

import math
from datetime import timedelta

import pytest

from fastapi_consumers.history import History


def test_durations_are_seconds_or_a_timedelta():
    assert History().seconds is None
    assert History(ttl=90).seconds == 90.0
    assert History(ttl=timedelta(minutes=1.5)).seconds == 90.0
    assert History(ttl=90) == History(ttl=timedelta(seconds=90))
    assert hash(History(ttl=90)) == hash(History(ttl=timedelta(seconds=90)))
    assert History(ttl=90) != History(ttl=91)
    assert History(10) != History(11)
    assert repr(History(10, 90)) == "History(size=10, ttl=90)"


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        History().size = 5


@pytest.mark.parametrize("size", [True, 1.0, "10", None, math.nan])
def test_a_size_that_is_no_whole_number_is_an_error(size):
    with pytest.raises(TypeError, match="expected how many events to keep"):
        History(size)


@pytest.mark.parametrize("size", [0, -1, 100_001, 10**30])
def test_a_size_out_of_bounds_is_an_error(size):
    with pytest.raises(ValueError, match="expected 1 to 100000 events"):
        History(size)


@pytest.mark.parametrize("ttl", [True, "1h", b"1", [1]])
def test_a_ttl_that_is_no_duration_is_an_error(ttl):
    with pytest.raises(TypeError, match="expected seconds or a timedelta"):
        History(ttl=ttl)


@pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf, 10**400, timedelta(0), timedelta(-1), timedelta.max])
def test_a_ttl_out_of_bounds_is_an_error(ttl):
    with pytest.raises(ValueError, match="more than 0 seconds and at most ten years"):
        History(ttl=ttl)
