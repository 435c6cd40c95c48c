"""Names of groups: no path can steer a consumer into a group that its template does not mean."""

import string
import uuid
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastapi_consumers.exceptions import InvalidGroup
from fastapi_consumers.groups import (
    MAX_GROUP_NAME,
    MAX_GROUP_VALUE,
    GroupTemplate,
    check_group,
    encode_value,
    group_name,
)

ANY_TEXT = st.text(max_size=20)
NASTY = st.text(alphabet="ab.%-_{}/~2E", max_size=8)
SAFE = set(string.ascii_letters + string.digits + "-_%")


@given(ANY_TEXT | NASTY, ANY_TEXT | NASTY)
def test_distinct_values_have_distinct_codes_of_safe_characters(x: str, y: str) -> None:
    try:
        first, second = encode_value(x), encode_value(y)
    except InvalidGroup:
        assume(False)
    assert set(first + second) <= SAFE
    assert (first == second) == (x == y)


@pytest.mark.parametrize("text", ["a.{x}.{y}", "{x}:{y}", "{x}/b-{y}.c", "{x}.{y}"])
@given(a=NASTY, b=NASTY, c=NASTY, d=NASTY)
def test_distinct_parameters_make_distinct_names(text: str, a: str, b: str, c: str, d: str) -> None:
    template = GroupTemplate.parse(text)
    same = template.format({"x": a, "y": b}) == template.format({"x": c, "y": d})
    assert same == ((a, b) == (c, d))


@given(NASTY, NASTY)
def test_a_value_cannot_reach_another_template(a: str, b: str) -> None:
    short, long = GroupTemplate.parse("a.{x}"), GroupTemplate.parse("a.{x}.{y}")
    assert short.format({"x": a}) != long.format({"x": a, "y": b})
    assert short.format({"x": f"{a}.{b}"}) != long.format({"x": a, "y": b})


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("lobby", "lobby"),
        ("a-b_C9", "a-b_C9"),
        ("a.b", "a%2Eb"),
        ("~", "%7E"),
        ("a/b c", "a%2Fb%20c"),
        ("%2E", "%252E"),
        ("é", "%C3%A9"),
        ("\ud800", "%ED%A0%80"),
        ("", ""),
        (7, "7"),
        (-1.5, "-1%2E5"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_values_are_percent_encoded(value: Any, code: str) -> None:
    assert encode_value(value) == code


def test_values_are_bounded_once_encoded() -> None:
    assert len(encode_value("x" * MAX_GROUP_VALUE)) == MAX_GROUP_VALUE
    for value in ("x" * (MAX_GROUP_VALUE + 1), "." * (MAX_GROUP_VALUE // 3 + 1)):
        with pytest.raises(InvalidGroup, match="at most"):
            encode_value(value)


def test_a_template_says_what_it_needs() -> None:
    template = GroupTemplate.parse("chat.{room}.{user}")
    assert template.parameters == {"room", "user"}
    assert template.format({"room": "a.b", "user": 3, "more": 1}) == "chat.a%2Eb.3"
    with pytest.raises(InvalidGroup, match="path parameter 'user'"):
        template.format({"room": "a"})


def test_braces_are_written_twice() -> None:
    assert GroupTemplate.parse("a.{{x}}").format({}) == "a.{x}"


@pytest.mark.parametrize(
    "text",
    ["", "{", "}", "{}", "{0}", "{x.y}", "{x[0]}", "{x!r}", "{x:>3}", "{x}{y}", "{x}-{y}", "{x}_a9%{y}", "a\n", "\x00"],
)
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        GroupTemplate.parse(text)


def test_the_name_as_a_whole_is_bounded() -> None:
    template = GroupTemplate.parse("{a}.{b}")
    with pytest.raises(InvalidGroup, match="characters"):
        template.format({"a": "x" * 128, "b": "y" * 128})


@pytest.mark.parametrize("name", ["a", "x" * MAX_GROUP_NAME, "chat.lobby", "gruppe ü"])
def test_valid_names(name: str) -> None:
    assert check_group(name) == name


@pytest.mark.parametrize("name", ["", "x" * (MAX_GROUP_NAME + 1), "a\nb", "\x00", "\ud800", None, 7, b"a"])
def test_invalid_names(name: Any) -> None:
    with pytest.raises(InvalidGroup, match="1 to 255"):
        check_group(name)


@given(ANY_TEXT | NASTY, ANY_TEXT | NASTY)
def test_whoever_publishes_finds_the_group_that_a_path_leads_to(x: str, y: str) -> None:
    try:
        expected = GroupTemplate.parse("a.{x}.{y}").format({"x": x, "y": y})
    except InvalidGroup:
        with pytest.raises(InvalidGroup):
            group_name("a.{x}.{y}", x=x, y=y)
    else:
        assert group_name("a.{x}.{y}", x=x, y=y) == expected


def test_names_for_publishing() -> None:
    assert group_name("inbox.{user}", user=7) == "inbox.7"
    assert group_name("inbox.{user}", user="ann@example.com") == "inbox.ann%40example%2Ecom"
    assert group_name("{template}", template="x") == "x"
    assert group_name("lobby") == "lobby"


@pytest.mark.parametrize(
    ("template", "values", "error", "text"),
    [
        ("inbox.{user}", {}, TypeError, "the template 'inbox.{user}' takes user; found none"),
        ("inbox.{user}", {"usr": 7}, TypeError, "takes user; found usr"),
        ("inbox.{user}", {"user": None}, TypeError, "takes user; found user=None"),
        ("inbox.{user}", {"user": 7, "room": None}, TypeError, "takes user; found user, room=None"),
        ("lobby", {"user": 7}, TypeError, "takes no values; found user"),
        ("{user!r}", {"user": 7}, ValueError, "is not the plain name"),
        ("", {}, ValueError, "the template is empty"),
        ("inbox.{user}", {"user": "x" * 200}, InvalidGroup, "at most 128 characters"),
    ],
)
def test_values_that_do_not_fit_the_template(
    template: str, values: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        group_name(template, **values)
    assert text in str(caught.value)
