from urllib.parse import quote, quote_from_bytes, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_consumers.messages import Position
from fastapi_consumers.recoveries import read_position, recoveries_of


def asked(query, groups=("a",)):
    found = recoveries_of({"query_string": query.encode() if isinstance(query, str) else query}, groups)
    return {group: (found.get(group), group in found) for group in groups}


def test_the_parameter_is_for_the_only_group():
    assert asked("recover=kq3f:12") == {"a": (Position("kq3f", 12), True)}
    assert asked("x=1&recover=kq-_f:0&y") == {"a": (Position("kq-_f", 0), True)}


def test_nothing_is_asked_for_without_it():
    assert asked("") == asked("token=1") == asked("uncovered=1") == asked("recoverx=a:1") == {"a": (None, False)}
    assert recoveries_of({}, ["a"]) == {}


def test_with_several_groups_each_has_its_own():
    groups = ("chat.a", "chat.b", "log")
    found = asked("recover.chat.a=x:1&recover.log=y:2&recover=z:3", groups)
    assert found == {"chat.a": (Position("x", 1), True), "chat.b": (None, False), "log": (Position("y", 2), True)}


def test_the_only_group_may_be_named_too_and_that_goes_first():
    assert asked("recover.a=x:1&recover=y:2") == {"a": (Position("x", 1), True)}


def test_another_group_s_position_is_not_asked_for():
    assert asked("recover.b=x:1") == {"a": (None, False)}


def test_names_of_groups_are_percent_encoded():
    group = "raum & küche=1"
    query = urlencode({f"recover.{group}": "x:1"})
    assert asked(query, (group, "b"))[group] == (Position("x", 1), True)
    encoded = "chat.%C3%BC"
    assert asked(f"recover.{quote(encoded)}=x:1", (encoded, "b"))[encoded] == (Position("x", 1), True)


@pytest.mark.parametrize(
    "value",
    [
        *("", ":", "x", "x:", ":1", "x:-1", "x:+1", "x:1.0", "x:1:2", " x:1", "x:1 ", "x:1\n", "x:٣", "ü:1", "x:0x1"),
        *("x:" + "9" * 17, "x" * 65 + ":1", "x:1e3", "x:1_0", "\ud800:1".encode("utf-8", "surrogatepass"), b"\xff:1"),
    ],
)
def test_what_is_malformed_is_asked_for_and_has_no_position(value):
    encoded = quote_from_bytes(value) if isinstance(value, bytes) else quote(value)
    assert asked(f"recover={encoded}") == {"a": (None, True)}


def test_an_offset_that_is_too_large_for_any_stream_is_one_all_the_same():
    assert read_position("x:" + "9" * 16) == Position("x", 10**16 - 1)


@given(st.binary(max_size=60))
def test_no_query_raises(raw):
    for query in (raw, b"recover=" + raw, b"recover." + raw):
        for position, is_asked in asked(query, ("a", "b")).values():
            assert position is None or (is_asked and position.offset >= 0)


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), st.integers(0, 2**53 - 1))
def test_every_position_of_a_store_is_read_back(epoch, offset):
    assert asked(f"recover={epoch}:{offset}") == {"a": (Position(epoch, offset), True)}
