"""FastAPI's injection outside of a route, on the oldest and the newest FastAPI."""

import inspect
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from fastapi import BackgroundTasks, Body, Cookie, Depends, Header, HTTPException, Path, Query, Request, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection

from fastapi_consumers.codecs import encode_json
from fastapi_consumers.dependencies import (
    MAX_DETAILS,
    Dependencies,
    error_details,
    error_from_dependency,
    is_body,
    is_dependency,
)
from fastapi_consumers.exceptions import HTTPError, InvalidData, NotAuthenticated, Throttled


async def never() -> Any:
    raise AssertionError("nothing may be received")


def socket(path_params: dict[str, Any] | None = None) -> WebSocket:
    scope = {
        "type": "websocket",
        "path": "/x",
        "headers": [(b"x-token", b"t"), (b"cookie", b"session=s"), (b"x-many", b"1"), (b"x-many", b"2")],
        "query_string": b"page=3&tag=a&tag=b",
        "path_params": path_params or {"room": "lobby"},
    }
    return WebSocket(scope, never, never)


def dependencies(function: Any) -> Dependencies:
    return Dependencies.of_parameters(inspect.signature(function).parameters.values())


async def solved(function: Any, **options: Any) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        return await dependencies(function).solve(socket(), stack, **options)


async def test_values_come_from_the_handshake() -> None:
    def action(
        room: Annotated[str, Path()],
        page: Annotated[int, Query()],
        tag: Annotated[list[str], Query()],
        x_token: Annotated[str, Header()],
        x_many: Annotated[list[int], Header()],
        session: Annotated[str, Cookie()],
        absent: Annotated[str | None, Header()] = None,
        old: str = Query("default"),
    ) -> None: ...

    assert await solved(action) == {
        "room": "lobby",
        "page": 3,
        "tag": ["a", "b"],
        "x_token": "t",
        "x_many": [1, 2],
        "session": "s",
        "absent": None,
        "old": "default",
    }


async def test_dependencies_depend_on_others_which_are_called_once() -> None:
    calls: list[str] = []

    async def token(x_token: Annotated[str, Header()]) -> str:
        calls.append("token")
        return x_token

    def user(token: Annotated[str, Depends(token)], connection: HTTPConnection, websocket: WebSocket) -> str:
        calls.append("user")
        assert connection.headers["x-token"] == websocket.headers["x-token"] == token
        return f"user of {token}"

    def action(user: Annotated[str, Depends(user)], token: Annotated[str, Depends(token)]) -> None: ...

    assert await solved(action) == {"user": "user of t", "token": "t"}
    assert calls == ["token", "user"]


async def test_what_is_opened_is_closed_in_reverse_order() -> None:
    log: list[str] = []

    async def outer() -> Any:
        log.append("open outer")
        yield "outer"
        log.append("close outer")

    def inner(outer: Annotated[str, Depends(outer)]) -> Any:
        log.append("open inner")
        yield f"inner of {outer}"
        log.append("close inner")

    def action(inner: Annotated[str, Depends(inner)]) -> None: ...

    async with AsyncExitStack() as stack:
        values = await dependencies(action).solve(socket(), stack)
        assert values == {"inner": "inner of outer"}
        assert log == ["open outer", "open inner"]
    assert log == ["open outer", "open inner", "close inner", "close outer"]


async def test_what_is_open_sees_the_exception_of_the_action() -> None:
    seen: list[Exception] = []

    async def session() -> Any:
        try:
            yield 1
        except KeyError as error:
            seen.append(error)
            raise

    def action(session: Annotated[int, Depends(session)]) -> None: ...

    with pytest.raises(KeyError):
        async with AsyncExitStack() as stack:
            await dependencies(action).solve(socket(), stack)
            raise KeyError("of the action")
    assert len(seen) == 1


async def test_what_was_opened_is_closed_if_a_later_one_fails() -> None:
    log: list[str] = []

    async def first() -> Any:
        try:
            yield 1
        finally:
            log.append("closed")

    async def second(first: Annotated[int, Depends(first)]) -> None:
        raise HTTPException(401)

    def action(second: Annotated[None, Depends(second)]) -> None: ...

    with pytest.raises(HTTPException):
        await solved(action)
    assert log == ["closed"]


async def test_overrides_of_the_application_apply() -> None:
    async def real() -> str:
        return "real"

    async def fake(x_token: Annotated[str, Header()]) -> str:
        return f"fake {x_token}"

    def action(value: Annotated[str, Depends(real)]) -> None: ...

    app = SimpleNamespace(dependency_overrides={real: fake})
    assert await solved(action, overrides=app) == {"value": "fake t"}
    assert await solved(action, overrides=object()) == {"value": "real"}


async def test_two_calls_at_one_time_do_not_share_what_they_opened() -> None:
    closed: list[int] = []
    numbers = iter(range(9))

    async def number() -> Any:
        mine = next(numbers)
        yield mine
        closed.append(mine)

    def action(number: Annotated[int, Depends(number)]) -> None: ...

    found, websocket = dependencies(action), socket()
    async with AsyncExitStack() as outer:
        assert await found.solve(websocket, outer) == {"number": 0}
        async with AsyncExitStack() as inner:
            assert await found.solve(websocket, inner) == {"number": 1}
        assert closed == [1]
    assert closed == [1, 0]
    assert "fastapi_inner_astack" not in websocket.scope


async def test_what_is_missing_or_malformed_is_told_without_what_was_sent() -> None:
    def action(tag: Annotated[int, Query()], x_other: Annotated[str, Header()]) -> None: ...

    with pytest.raises(InvalidData) as caught:
        await solved(action)
    details = {tuple(detail["loc"]): detail["type"] for detail in caught.value.details}
    assert details == {("query", "tag"): "int_parsing", ("header", "x-other"): "missing"}
    assert all(set(detail) == {"loc", "type", "message"} for detail in caught.value.details)


async def test_a_list_is_solved_for_its_effect() -> None:
    log: list[str] = []

    async def audit(x_token: Annotated[str, Header()]) -> Any:
        log.append(x_token)
        yield
        log.append("closed")

    async with AsyncExitStack() as stack:
        await Dependencies.of_list([Depends(audit), Depends(audit)]).solve(socket(), stack)
    assert log == ["t", "closed"]


def test_a_list_has_only_dependencies() -> None:
    async def audit() -> None: ...

    with pytest.raises(TypeError, match="write Depends"):
        Dependencies.of_list([audit])


def wants_request(request: Request) -> None: ...
def wants_body(body: Annotated[dict[str, int], Body()]) -> None: ...
def wants_model(model: Annotated[list[BaseModel], Body()]) -> None: ...
def wants_inside(inner: Annotated[None, Depends(wants_request)]) -> None: ...


@pytest.mark.parametrize("dependency", [wants_request, wants_body, wants_model, wants_inside])
def test_what_only_http_has_is_refused_at_once(dependency: Any) -> None:
    with pytest.raises(TypeError, match="which a WebSocket has not"):
        Dependencies.of_list([Depends(dependency)])


def test_who_fills_a_parameter_is_seen_in_annotation_and_default() -> None:
    empty = inspect.Parameter.empty
    for mark in (Path(), Query(), Header(), Cookie(), Depends(never)):
        assert is_dependency(Annotated[str, "doc", mark], empty)
        assert is_dependency(str, mark)
        assert not is_body(Annotated[str, mark], empty)
    assert not is_dependency(Annotated[str, Field(gt=0)], 3)
    assert is_body(Annotated[str, Body()], empty)
    assert not is_dependency(BackgroundTasks, empty)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [HTTPException, StarletteHTTPException])
def test_http_exceptions_become_errors(kind: Any) -> None:
    assert isinstance(error_from_dependency(kind(401, "who")), NotAuthenticated)
    throttled = error_from_dependency(kind(429, "slow", {"Retry-After": "2"}))
    assert isinstance(throttled, Throttled)
    assert throttled.retry_after == 2
    other = error_from_dependency(kind(418, "tea"))
    assert isinstance(other, HTTPError)
    assert other.status == 418


@pytest.mark.parametrize("kind", [RequestValidationError, WebSocketRequestValidationError])
def test_a_validation_error_of_fastapis_becomes_invalid_data(kind: Any) -> None:
    error = RequestValidationError(
        [{"loc": ("query", "x"), "type": "missing", "msg": "Field required", "input": "SECRET"}]
    )
    found = error_from_dependency(error)
    assert isinstance(found, InvalidData)
    assert found.details == [{"loc": ["query", "x"], "type": "missing", "message": "Field required"}]


def test_other_exceptions_are_no_ones_business() -> None:
    assert error_from_dependency(ValueError("x")) is None


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


SECRET = "SECRET' found using 'x"


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, SECRET),
        (float, SECRET),
        (bool, SECRET),
        (list[int], [SECRET]),
        (Literal["a", "b"], SECRET),
        (Cat, {"kind": SECRET}),
        (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": SECRET}),
        (Annotated[str, Field(max_length=2)], SECRET),
        (Annotated[str, Field(pattern="^a$")], SECRET),
        (dict[str, int], SECRET),
    ],
)
def test_no_error_repeats_what_was_sent(annotation: Any, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(annotation).validate_python(value)
    details = error_details(caught.value.errors())
    assert details
    assert b"SECRET" not in encode_json(details)
    assert all(detail["message"] for detail in details)


def test_errors_are_bounded() -> None:
    error = {"loc": ("x" * 1000, 3), "type": "t", "msg": "m" * 1000}
    details = error_details([error] * 100)
    assert len(details) == MAX_DETAILS
    assert details[0] == {"loc": ["x" * 100, 3], "type": "t", "message": "m" * 500}


def test_an_error_can_always_be_sent() -> None:
    encode_json(error_details([{"loc": ("\ud800",), "type": "t", "msg": "\ud800"}]))
