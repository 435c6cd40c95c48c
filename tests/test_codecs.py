"""JSON and MessagePack: what comes back is what went in, and what must not come in does not."""

import datetime as dt
import enum
import json
import math
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from fastapi_consumers.codecs import (
    MAX_DEPTH,
    decode_json,
    decode_msgpack,
    encode_json,
    encode_msgpack,
    find_not_finite,
    has_bytes,
    plain,
)
from fastapi_consumers.exceptions import InvalidFrame

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | TEXT
FINITE = SCALARS.filter(lambda value: not isinstance(value, float) or math.isfinite(value))
VALUES = st.recursive(FINITE, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


@given(VALUES)
def test_json_comes_back_as_it_went(value: Any) -> None:
    encoded = encode_json(value)
    assert decode_json(encoded) == decode_json(encoded.decode()) == json.loads(encoded) == value


@given(VALUES)
def test_msgpack_comes_back_as_it_went(value: Any) -> None:
    assert decode_msgpack(encode_msgpack(value)) == value


@given(st.recursive(FINITE | st.binary(), lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))
def test_msgpack_carries_bytes(value: Any) -> None:
    assert decode_msgpack(encode_msgpack(value)) == value


@given(st.binary() | st.binary().map(lambda tail: b'{"a":' + tail))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    for decode in (decode_json, decode_msgpack):
        try:
            value = decode(data)
        except InvalidFrame as error:
            encode_json(error.body())
        else:
            assert find_not_finite(value) is None


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Model(BaseModel):
    at: dt.datetime = Field(serialization_alias="when")
    any: Any = None


@dataclass
class Point:
    x: int


DAY = dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
IDENTIFIER = uuid.UUID(int=7)
RICH: list[Any] = [
    DAY,
    DAY.date(),
    dt.timedelta(seconds=90),
    IDENTIFIER,
    Decimal("1.50"),
    Colour.RED,
    Number.ONE,
    Model(at=DAY, any={Colour.RED: (1, 2)}),
    Point(3),
    {1, 2},
    (1, (2,)),
    {1: "a", None: "b", 1.5: "c", DAY: "d", IDENTIFIER: "e", Colour.RED: "f", Number.ONE: "g"},
    {True: "a", False: "b"},
    [math.nan, math.inf, -math.inf, {"a": math.nan}],
    {"model": [Model(at=DAY)]},
]


@pytest.mark.parametrize("value", RICH, ids=repr)
def test_msgpack_carries_what_json_would(value: Any) -> None:
    assert decode_msgpack(encode_msgpack(value)) == decode_json(encode_json(value))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_go_out_as_null(value: float) -> None:
    data = {"a": [value], "model": Model(at=DAY, any=value)}
    for back in (decode_json(encode_json(data)), decode_msgpack(encode_msgpack(data))):
        assert (back["a"], back["model"]["any"]) == ([None], None)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "[1e0400]", "9" * 310 + ".0"])
def test_numbers_that_are_not_finite_do_not_come_in_as_json(text: str) -> None:
    with pytest.raises(InvalidFrame):
        decode_json(text)
    with pytest.raises(InvalidFrame):
        decode_json(f'{{"a":[{text}]}}')


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_do_not_come_in_as_msgpack(value: float) -> None:
    with pytest.raises(InvalidFrame, match="not finite"):
        decode_msgpack(ormsgpack.packb({"a": [value]}))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_both_formats_are_nested_equally_deep_at_most() -> None:
    deepest = nested(MAX_DEPTH + 1)
    assert decode_json("[" * MAX_DEPTH + "[]" + "]" * MAX_DEPTH) == decode_msgpack(ormsgpack.packb(deepest)) == deepest
    for depth in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(InvalidFrame):
            decode_json("[" * depth + "1" + "]" * depth)
        with pytest.raises(InvalidFrame):
            decode_json('{"a":' * depth + "1" + "}" * depth)
        with pytest.raises(InvalidFrame):
            decode_msgpack(b"\x91" * depth + b"\x01")
        with pytest.raises(InvalidFrame):
            decode_msgpack(b"\x81\xa1a" * depth + b"\x01")


@pytest.mark.parametrize(
    "text", ["", " ", "{", "{]", "nul", '"\\ud800"', "\ud800", '{"a":1,}', "1 2", "'a'", "1" * 5000, "\x00", "\ufeff1"]
)
def test_what_is_not_json_is_refused_with_a_short_text(text: str) -> None:
    with pytest.raises(InvalidFrame, match="not valid JSON") as caught:
        decode_json(text)
    assert len(caught.value.message) < 300
    encode_json(caught.value.body())


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x81\x01\x02", b"\x92\x01", b"\xd4\x05a", b"\xa1\xff", b"\x81\xc0\x01"]
)
def test_what_is_not_msgpack_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidFrame, match="not valid MessagePack"):
        decode_msgpack(data)


def test_numbers_of_any_size_go_out() -> None:
    assert decode_json(encode_json(10**400)) == 10**400
    assert decode_msgpack(encode_msgpack([2**64, -(2**63) - 1])) == [str(2**64), str(-(2**63) - 1)]
    assert decode_msgpack(encode_msgpack([2**64 - 1, -(2**63)])) == [2**64 - 1, -(2**63)]


def test_lone_surrogates_cannot_go_out() -> None:
    for encode in (encode_json, encode_msgpack):
        with pytest.raises((ValueError, TypeError)):
            encode("\ud800")


def test_plain_values_have_exact_types() -> None:
    class Name(str):
        __slots__ = ()

    value = plain({Name("a"): [Name("b"), Number.ONE, (True,)]})
    assert value == {"a": ["b", 1, [True]]}
    assert [type(item) for item in (*value, *value["a"])] == [str, str, int, list]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"", True), ({"a": [{"b": b"x"}]}, True), ([["b"], {"a": None}], False), ({b"a": 1}, False), ("b", False)],
)
def test_bytes_are_found_anywhere(value: Any, expected: bool) -> None:
    assert has_bytes(value) is expected
    assert has_bytes([[value]]) is expected


def test_bytes_are_looked_for_at_any_depth() -> None:
    assert not has_bytes(nested(50_000))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (math.nan, ()),
        ([1.0, math.inf], (1,)),
        ({"a": {"b": -math.inf}}, ("a", "b")),
        (Model(at=DAY, any=[math.inf]), ("any", 0)),
        (Point(math.inf), ("x",)),
        ((math.inf,), (0,)),
        ([1, 1.5, "inf", None, Model(at=DAY), Point(1), {"a": 10**400}], None),
        (Point, None),
        ("NaN", None),
    ],
)
def test_numbers_that_are_not_finite_are_found_anywhere(value: Any, place: Any) -> None:
    assert find_not_finite(value) == place
