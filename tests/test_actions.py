"""The signature rules: who fills which parameter, what a payload is, how an action is called and what it gives."""

import dataclasses
import datetime as dt
import enum
import functools
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal

import pytest
from fastapi import Cookie, Depends, Header, Path, Query, WebSocket
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, RootModel, ValidationError
from starlette.requests import HTTPConnection
from typing_extensions import TypeAliasType, TypedDict

from fastapi_consumers import Consumer, Consumers, GroupConsumer, ImproperlyConfigured
from fastapi_consumers.actions import ANYTHING, MISSING, Action, Returns, Unresolved, compile_action
from fastapi_consumers.connection import Connection
from fastapi_consumers.exceptions import Problem
from fastapi_consumers.marks import ActionMark


def compiled(function: Callable[..., Any], **options: Any) -> Action:
    problems: list[Problem] = []
    action = compile_action(
        function,
        ActionMark(**options),
        method="method",
        owner="Owner",
        where="here",
        localns={},
        problems=problems,
    )
    if action is None:
        raise ImproperlyConfigured("here", problems)
    return action


def validated(function: Callable[..., Any], data: Any = MISSING, *, as_json: bool = True) -> dict[str, Any]:
    """The keyword arguments that data becomes."""
    action = compiled(function)
    return action.arguments(action.payload.validate(data, as_json=as_json))


def refusal(function: Callable[..., Any], data: Any = MISSING) -> list[tuple[tuple[int | str, ...], str]]:
    """Place and type of each error in data."""
    with pytest.raises(ValidationError) as caught:
        validated(function, data)
    return [(error["loc"], error["type"]) for error in caught.value.errors()]


class Say(BaseModel):
    text: str
    loud: bool = False


class Other(BaseModel):
    number: int


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Typed(TypedDict):
    a: int


class Numbers(RootModel[list[int]]):
    pass


Both = TypeAliasType("Both", Say | Other)


# -- what is the payload -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "data", "value"),
    [
        (Say, {"text": "a"}, Say(text="a")),
        (Say | None, {"text": "a"}, Say(text="a")),
        (Say | Other, {"number": 3}, Other(number=3)),
        (Both, {"number": 3}, Other(number=3)),
        (Annotated[Say, Field(description="what")], {"text": "a"}, Say(text="a")),
        (Point, {"x": 1}, Point(1)),
        (Typed, {"a": 1}, {"a": 1}),
        (Point | Typed | None, {"a": 1}, {"a": 1}),
        (Numbers, [1, 2], Numbers([1, 2])),
    ],
)
def test_a_sole_model_is_the_whole_payload(annotation: Any, data: Any, value: Any) -> None:
    async def say(self: Any, message: annotation) -> None: ...

    assert compiled(say).payload.kind == "whole"
    assert validated(say, data) == {"message": value}


@pytest.mark.parametrize(
    ("annotation", "data"), [(int, 3), (list[int], [1]), (dict[str, int], {"a": 1}), (Any, {"a": [None]}), (str, "")]
)
def test_a_parameter_named_data_is_the_whole_payload_whatever_its_type(annotation: Any, data: Any) -> None:
    async def say(self: Any, data: annotation) -> None: ...

    assert validated(say, data) == {"data": data}


@pytest.mark.parametrize("annotation", [str, int, list[Say], dict[str, Say], Say | int, Say | str | None])
def test_a_sole_parameter_of_another_type_is_a_field(annotation: Any) -> None:
    async def say(self: Any, message: annotation) -> None: ...

    assert compiled(say).payload.kind == "fields"


def test_several_parameters_are_fields_by_name() -> None:
    async def move(self: Any, x: int, point: Point, y: Annotated[int, Field(ge=0)] = 5, *, say: Say | None) -> None: ...

    assert validated(move, {"x": "1", "point": {"x": 2}, "say": None}) == {"x": 1, "point": Point(2), "say": None}
    assert refusal(move, {"y": -1, "point": {}, "say": None}) == [
        (("x",), "missing"),
        (("point", "x"), "missing"),
        (("y",), "greater_than_equal"),
    ]


def test_only_what_the_signature_names_is_taken() -> None:
    async def move(self: Any, x: int) -> None: ...

    async def ping(self: Any) -> None: ...

    assert validated(move, {"x": 1, "self": 2, "consumer": 3}) == {"x": 1}
    assert validated(ping, {"x": 1}) == {}
    assert validated(ping, "text") == {}


def test_fields_have_the_defaults_of_the_signature_and_of_their_fields() -> None:
    async def move(
        self: Any,
        a: int = 1,
        b: int = Field(2, ge=0),
        c: list[int] = Field(default_factory=list),  # noqa: B008 -- as users write it
        d: Annotated[int, Field(default=4)] = 5,
        e: Annotated[int, Field(default=6, gt=0)] = Field(gt=1),
        f: Annotated[list[int], Field(default_factory=lambda: [7])] = Field(),  # noqa: B008 -- as users write it
    ) -> None: ...

    for data in (MISSING, None, {}):
        assert validated(move, data) == {"b": 2, "c": [], "e": 6, "f": [7]}
    assert validated(move, {"a": 0, "b": 0, "c": [0], "d": 0, "e": 2, "f": []})["f"] == []
    assert refusal(move, {"b": -1, "e": 1}) == [(("b",), "greater_than_equal"), (("e",), "greater_than")]


def test_a_field_without_a_default_stays_required() -> None:
    async def move(self: Any, x: int = Field(gt=0), y: int = Field(...)) -> None: ...

    assert refusal(move, {}) == [(("x",), "missing"), (("y",), "missing")]


def test_a_default_factory_makes_a_new_value_each_time_and_only_where_needed() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return len(made)

    async def move(self: Any, x: int = Field(default_factory=make), y: int = 0) -> None: ...

    assert validated(move, {"x": 9}) == {"x": 9}
    assert [validated(move)["x"], validated(move)["x"]] == [1, 2]


def test_fields_have_aliases() -> None:
    async def say(
        self: Any,
        text: Annotated[str, Field(alias="msg")],
        to: Annotated[str, Field(validation_alias=AliasChoices("to", "for"))] = "all",
    ) -> None: ...

    assert validated(say, {"msg": "hi", "for": "ann"}) == {"text": "hi", "to": "ann"}
    assert refusal(say, {"text": "hi"}) == [(("msg",), "missing")]


def test_a_whole_payload_may_have_a_default() -> None:
    async def plain(self: Any, data: Say = Say(text="none")) -> None: ...  # noqa: B008 -- as users write it
    async def none(self: Any, data: Say | None = None) -> None: ...
    async def field(self: Any, data: list[int] = Field(default_factory=list, max_length=1)) -> None: ...  # noqa: B008 -- as users write it
    async def required(self: Any, data: int = Field(gt=0)) -> None: ...

    assert validated(plain) == validated(none) == {}
    assert validated(none, None) == {"data": None}
    assert validated(field) == {"data": []}
    assert refusal(field, [1, 2]) == [((), "too_long")]
    assert refusal(required) == [((), "missing")]
    assert refusal(required, 0) == [((), "greater_than")]


@pytest.mark.parametrize("annotation", [Any, int, list[int], Say | None, dict[str, Any], Say | Other, object])
def test_data_that_is_required_and_missing_is_an_error(annotation: Any) -> None:
    async def say(self: Any, data: annotation) -> None: ...

    assert refusal(say) == [((), "missing")]


@pytest.mark.parametrize("annotation", [Say, Annotated[Say, "doc"]])
def test_missing_data_for_a_model_names_the_missing_fields(annotation: Any) -> None:
    async def say(self: Any, data: annotation) -> None: ...

    async def optional(self: Any, data: Typed) -> None: ...

    assert refusal(say) == [(("text",), "missing")]
    assert refusal(say, None)[0][0] == ()
    assert refusal(optional) == [(("a",), "missing")]


class Colour(enum.Enum):
    RED = "red"


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: dt.datetime
    id: uuid.UUID
    colour: Colour
    pair: tuple[int, int]


STRICT = {"at": "2024-01-02T03:04:05Z", "id": str(uuid.UUID(int=1)), "colour": "red", "pair": [1, 2]}


def test_strict_models_read_what_json_has() -> None:
    async def say(self: Any, data: Strict) -> None: ...

    assert validated(say, STRICT)["data"].id == uuid.UUID(int=1)
    assert refusal(say, {**STRICT, "pair": ["1", 2]}) == [(("pair", 0), "int_type")]


class Weight(BaseModel):
    kilos: float = 0
    more: Any = None


@pytest.mark.parametrize("text", ["NaN", "inf", "-Infinity", "1e999", " inf "])
@pytest.mark.parametrize("place", ["kilos", "more"])
def test_a_number_that_is_not_finite_does_not_come_in_as_text_either(text: str, place: str) -> None:
    async def weigh(self: Any, data: Weight) -> None: ...
    async def fields(self: Any, kilos: float = 0, more: list[Weight] = []) -> None: ...  # noqa: B006 -- it is what is tested

    if place == "kilos":
        assert refusal(weigh, {"kilos": text}) == [(("kilos",), "finite_number")]
        assert refusal(fields, {"kilos": text}) == [(("kilos",), "finite_number")]
        assert refusal(fields, {"more": [{"kilos": text}]}) == [(("more", 0, "kilos"), "finite_number")]
    else:
        assert validated(weigh, {"more": text})["data"].more == text


def test_a_number_too_large_for_a_float_is_refused() -> None:
    async def weigh(self: Any, kilos: float) -> None: ...

    assert refusal(weigh, {"kilos": 10**400})[0][0] == ("kilos",)


# -- what is injected --------------------------------------------------------------------------------------------------


def test_the_connections_own_things_come_by_annotation() -> None:
    async def say(
        self: Any,
        text: str,
        socket: WebSocket,
        also: Annotated[HTTPConnection, "doc"],
        connection: Connection | None,
        consumers: Consumers,
        consumer: GroupConsumer,
        base: Consumer,
    ) -> None: ...

    action = compiled(say)
    assert action.injected == (
        ("socket", "websocket"),
        ("also", "websocket"),
        ("connection", "connection"),
        ("consumers", "consumers"),
        ("consumer", None),
        ("base", None),
    )
    assert action.payload.kind == "fields"
    assert not action.plain


def test_what_fastapi_injects_is_no_payload() -> None:
    alias = TypeAliasType("alias", Annotated[int, Depends(lambda: 1)])

    async def say(
        self: Any,
        data: Say,
        room: Annotated[str, Path()],
        page: Annotated[int, Query()],
        token: Annotated[str, Header()],
        session: Annotated[str, Cookie()],
        a: Annotated[int, Depends(lambda: 1)],
        named: alias,
        old: str = Header(),
        untyped=Depends(lambda: 1),
    ) -> None: ...

    action = compiled(say)
    assert (action.payload.kind, action.payload.name) == ("whole", "data")
    assert action.dependencies is not None
    assert not action.plain


# -- how it is called --------------------------------------------------------------------------------------------------


async def called(function: Callable[..., Any], data: Any = MISSING) -> Any:
    """What the action returns when it is called straight away, as it is where nothing is to be injected."""
    action = compiled(function)
    assert action.plain
    return await action.call("consumer", action.payload.validate(data, as_json=True))


async def test_an_action_is_called_with_the_consumer_and_its_data() -> None:
    async def none(self: Any) -> Any:
        return self

    async def whole(self: Any, say: Say) -> Any:
        return self, say.text

    async def optional(self: Any, say: Say | None = None) -> Any:
        return self, say

    async def fields(self: Any, x: int, y: int = 2, z: int = Field(3)) -> Any:
        return self, x, y, z

    def blocking(self: Any, x: int) -> Any:
        return self, x, threading.current_thread() is threading.main_thread()

    assert await called(none) == "consumer"
    assert await called(whole, {"text": "hi"}) == ("consumer", "hi")
    assert await called(optional) == ("consumer", None)
    assert await called(fields, {"x": 1}) == ("consumer", 1, 2, 3)
    assert await called(fields, {"x": 1, "z": 4}) == ("consumer", 1, 2, 4)
    assert await called(blocking, {"x": 1}) == ("consumer", 1, False)


async def test_arguments_may_be_completed_before_the_call() -> None:
    async def say(self: Any, x: int, socket: WebSocket) -> Any:
        return self, x, socket

    def blocking(self: Any, x: int, socket: WebSocket) -> Any:
        return self, x, socket

    for function in (say, blocking):
        action = compiled(function)
        arguments = {**action.arguments(action.payload.validate({"x": 1}, as_json=True)), "socket": "view"}
        assert await action.start("consumer", arguments) == ("consumer", 1, "view")


async def test_generators_stream_their_items() -> None:
    async def tail(self: Any, lines: int) -> AsyncIterator[Say]:
        for number in range(lines):
            yield Say(text=str(number))

    def blocking(self: Any, lines: int) -> Iterator[Say]:
        for number in range(lines):
            yield Say(text=str(number))

    async def untyped(self: Any, lines: int):
        yield lines

    for function in (tail, blocking):
        action = compiled(function)
        assert action.stream
        items = action.start("consumer", {"lines": 2})
        assert [item.text async for item in items] == ["0", "1"]
        assert action.returns.to_json(Say(text="x")) == b'{"text":"x","loud":false}'
        assert action.returns.validate is not None
    assert compiled(untyped).returns.validate is None


async def test_wrapped_functions_partials_and_objects_are_actions_too() -> None:
    async def say(self: Any, prefix: str, text: str) -> str:
        return prefix + text

    @functools.wraps(say)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await say(*args, **kwargs)

    class Callable_:
        async def __call__(self, consumer: Any, text: str) -> str:
            return "c" + text

    assert await called(wrapper, {"prefix": "a", "text": "b"}) == "ab"
    assert await called(functools.partial(say, prefix="p"), {"text": "b"}) == "pb"
    assert await called(Callable_(), {"text": "b"}) == "cb"


def test_what_is_known_of_an_action() -> None:
    async def say(self: Any) -> None:
        """Says it."""

    action = compiled(say, name="wire", concurrent=True, timeout=3.0, deprecated=True, enabled=False)
    assert repr(action) == "<Action 'wire' of Owner.method>"
    assert (action.concurrent, action.timeout, action.deprecated, action.enabled) == (True, 3.0, True, False)
    assert action.description == "Says it."
    assert action.line == say.__code__.co_firstlineno
    assert not action.plain
    assert compiled(say).plain


def test_a_name_that_does_not_exist_yet_is_no_mistake() -> None:
    async def say(self: Any, data: "Later") -> None: ...  # noqa: F821 -- never defined, or later

    with pytest.raises(Unresolved, match="Later"):
        compiled(say)


# -- what it returns ---------------------------------------------------------------------------------------------------


class Row:
    """As an object-relational mapper makes it."""

    text = "from a row"
    loud = True
    secret = "s"


class Longer(Say):
    secret: str = "s"


class Aliased(BaseModel):
    value: float = Field(serialization_alias="theValue")


@pytest.mark.parametrize(
    ("annotation", "value", "encoded"),
    [
        (Say, {"text": "a"}, b'{"text":"a","loud":false}'),
        (Say, Longer(text="a"), b'{"text":"a","loud":false}'),
        (Say, Row(), b'{"text":"from a row","loud":true}'),
        (list[Say], [{"text": "a"}], b'[{"text":"a","loud":false}]'),
        (dict[str, int], {"a": "1"}, b'{"a":1}'),
        (Say | None, None, b"null"),
        (Literal["a"], "a", b'"a"'),
        (Aliased, {"value": float("nan")}, b'{"theValue":null}'),
        (dt.date, dt.date(2024, 1, 2), b'"2024-01-02"'),
    ],
)
def test_what_is_returned_is_validated_and_serialised(annotation: Any, value: Any, encoded: bytes) -> None:
    returns = Returns(annotation)
    assert returns.validate is not None
    assert returns.to_json(returns.validate(value)) == encoded


def test_what_does_not_fit_is_refused() -> None:
    for annotation, value in ((Say, {}), (int, "x"), (list[Say], [1])):
        validate = Returns(annotation).validate
        assert validate is not None
        with pytest.raises(ValidationError):
            validate(value)


async def bare(self): ...


async def none(self: Any) -> None: ...
async def anything(self: Any) -> Any: ...


@pytest.mark.parametrize("function", [bare, none, anything])
def test_without_a_type_anything_is_returned(function: Any) -> None:
    returns = compiled(function).returns
    assert returns.validate is None
    assert returns.to_json({"a": [Aliased(value=1)], "b": float("inf")}) == b'{"a":[{"theValue":1.0}],"b":null}'


def test_what_is_returned_as_python_keeps_bytes() -> None:
    class Blob(BaseModel):
        raw: bytes = Field(serialization_alias="theRaw")

    blob = Blob(raw=b"\xff")
    assert Returns(Blob).to_python(blob) == ANYTHING.to_python(blob) == {"theRaw": b"\xff"}
    assert ANYTHING.to_python(3) == 3
