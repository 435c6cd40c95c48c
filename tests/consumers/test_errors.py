"""What clients are told of errors, and who may have a say in it."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketException, WebSocketRequestValidationError
from fastapi.responses import JSONResponse

import fastapi_consumers
from fastapi_consumers import (
    ActionNotFound,
    Consumer,
    ConsumerError,
    GroupConsumer,
    GroupFull,
    HTTPError,
    InvalidData,
    JSONConsumer,
    PermissionDenied,
    Throttled,
    action,
    path,
)
from fastapi_consumers.permissions import BasePermission
from fastapi_consumers.testing import CallError, WebsocketCommunicator
from fastapi_consumers.throttling import RateThrottle

CHILDREN = sorted(
    {
        value
        for value in vars(fastapi_consumers).values()
        if isinstance(value, type) and issubclass(value, ConsumerError) and value is not HTTPError
    },
    key=lambda kind: kind.__name__,
)


def http(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://testserver")


@pytest.fixture
def raising(make_app):
    """``raising(lambda: error, **class attributes)``: a communicator whose actions ``fail`` and ``ping`` are there."""

    def make(make_error, *, app=None, options=None, dependency=None, base=JSONConsumer, **attributes):
        def nothing():
            pass

        class Failing(base):
            @action
            async def fail(self, _: None = Depends(dependency or nothing)) -> None:
                raise make_error()

            @action
            async def ping(self) -> str:
                return "pong"

        for name, value in attributes.items():
            setattr(Failing, name, value)

        class Room(Failing):
            groups = ["room"]

        return WebsocketCommunicator(make_app(path("/", Room), app=app, **(options or {})), "/")

    return make


async def failure(client):
    with pytest.raises(CallError) as caught:
        await client.call("fail")
    return caught.value


@pytest.mark.parametrize("kind", CHILDREN, ids=lambda kind: kind.__name__)
async def test_every_error_can_be_raised_and_leaves_the_socket_open(raising, kind):
    async with raising(kind) as client:
        error = await failure(client)
        assert (error.code, error.message) == (kind.default_code, kind.default_message)
        assert await client.call("ping") == "pong"


@pytest.mark.parametrize("kind", CHILDREN, ids=lambda kind: kind.__name__)
async def test_every_error_can_close_after_its_frame(raising, kind):
    async with raising(lambda: kind(close=True)) as client:
        assert (await failure(client)).code == kind.default_code
        assert await client.assert_closed(kind.default_close_code)
        assert client.close_reason == kind.default_code


async def test_an_error_of_ones_own_has_its_code_message_details_and_close_code(raising):
    def error():
        return ConsumerError("not_ready", "Come back later.", close_code=4555, details={"at": 12})

    async with raising(error) as client:
        await client.send_json_to({"action": "fail", "request_id": 1})
        assert (await client.receive_json_from())["error"] == {
            "code": "not_ready",
            "message": "Come back later.",
            "details": {"at": 12},
        }
        await client.assert_closed(4555)


async def test_throttled_tells_when_to_come_back(raising):
    async with raising(lambda: Throttled(1.23456)) as client:
        assert (await failure(client)).retry_after == 1.235


async def test_an_error_in_a_raw_consumer_is_a_notice_and_may_close(make_app):
    class Raw(Consumer):
        async def receive(self, text_data=None, bytes_data=None):
            raise PermissionDenied("No.", close=text_data == "close")

    async with WebsocketCommunicator(make_app(path("/", Raw)), "/") as client:
        for text in ("stay", "close"):
            await client.send_to(text)
            assert await client.receive_json_from() == {
                "type": "error",
                "error": {"code": "permission_denied", "message": "No."},
            }
        await client.assert_closed(4403)


# What nobody expected


async def test_an_unexpected_exception_tells_nothing_and_is_logged_with_its_traceback(raising, caplog):
    async with raising(lambda: ZeroDivisionError("password=hunter2")) as client:
        await client.send_json_to({"action": "fail", "request_id": 1})
        text = await client.receive_from()
        assert json.loads(text)["error"] == {"code": "internal_error", "message": "An internal error occurred."}
        assert "hunter2" not in text
        assert await client.call("ping") == "pong"
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert "hunter2" in record.exc_text
    assert "in fail" in record.exc_text


async def test_an_exception_in_an_event_method_is_told_and_the_socket_stays(make_app, caplog):
    class Room(GroupConsumer):
        groups = ["room"]

        @fastapi_consumers.event
        async def boom(self, message):
            raise KeyError("hidden")

        @action
        async def ping(self) -> str:
            return "pong"

    app = make_app(path("/", Room))
    async with WebsocketCommunicator(app, "/") as client:
        await app.state.consumers.layer.group_send("room", {"type": "boom"})
        assert await client.receive_json_from() == {
            "type": "error",
            "error": {"code": "internal_error", "message": "An internal error occurred."},
        }
        assert await client.call("ping") == "pong"
    assert "hidden" in caplog.text


async def test_a_result_that_cannot_be_serialised_is_an_internal_error(make_app, caplog):
    class Room(JSONConsumer):
        @action
        async def thing(self):
            return object()

        @action
        async def ping(self) -> str:
            return "pong"

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        with pytest.raises(CallError) as caught:
            await client.call("thing")
        assert caught.value.code == "internal_error"
        assert await client.call("ping") == "pong"


# Handlers


class MyError(Exception):
    pass


class MyChild(MyError):
    pass


async def handler(consumer, error):
    return ConsumerError("mine", f"{type(consumer).__name__}: {error}")


async def test_a_handler_of_the_class_answers_for_an_exception_and_its_children(raising, caplog):
    for kind in (MyError, MyChild):
        async with raising(lambda kind=kind: kind("why"), exception_handlers={MyError: handler}) as client:
            error = await failure(client)
            assert (error.code, error.message) == ("mine", "Room: why")
    assert "why" not in caplog.text


async def test_a_handler_given_to_add_consumers_holds_for_every_class(raising):
    async with raising(MyError, options={"exception_handlers": {MyError: handler}}) as client:
        assert (await failure(client)).code == "mine"


async def test_the_class_is_asked_first_and_none_passes_on(raising):
    asked = []

    def of_class(consumer, error):
        asked.append("class")

    def of_app(consumer, error):
        asked.append("app")
        return ConsumerError("app")

    client = raising(
        MyError, exception_handlers={MyError: of_class}, options={"exception_handlers": {Exception: of_app}}
    )
    async with client:
        assert (await failure(client)).code == "app"
    assert asked == ["class", "app"]


async def test_a_handler_may_replace_one_of_our_own_errors(raising):
    def translate(consumer, error):
        return ActionNotFound("Unbekannt.")

    async with raising(MyError, exception_handlers={ActionNotFound: translate}) as client:
        with pytest.raises(CallError, match="Unbekannt"):
            await client.call("nope")


async def test_a_handler_may_raise_the_error_or_ask_to_close(raising):
    def closing(consumer, error):
        raise ConsumerError("over", close=True, close_code=4100)

    async with raising(MyError, exception_handlers={MyError: closing}) as client:
        assert (await failure(client)).code == "over"
        await client.assert_closed(4100)


@pytest.mark.parametrize("answer", [KeyError("in handler"), "no error at all"])
async def test_a_handler_that_fails_is_logged_and_answered_as_internal_error(raising, caplog, answer):
    def broken(consumer, error):
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with raising(MyError, exception_handlers={MyError: broken}) as client:
        assert (await failure(client)).code == "internal_error"
        assert await client.call("ping") == "pong"
    assert "an exception handler failed" in caplog.text


async def test_handlers_are_asked_about_exceptions_in_connect_too(make_app):
    class Room(Consumer):
        exception_handlers = {MyError: lambda consumer, error: ConsumerError("mine", close_code=4123)}

        async def connect(self):
            raise MyError

    client = WebsocketCommunicator(make_app(path("/", Room)), "/")
    assert await client.connect() == (False, 4123)
    await client.wait()


# FastAPI's own handlers


@pytest.mark.parametrize("add", [True, False])
async def test_fastapis_exception_handler_has_a_say(raising, add):
    app = FastAPI()

    @app.exception_handler(ConsumerError)
    async def mine(connection, error):
        assert isinstance(connection, WebSocket)
        return ConsumerError("fastapi", error.message)

    async with raising(lambda: GroupFull("Full."), app=app, options={"add_exception_handlers": add}) as client:
        error = await failure(client)
        assert (error.code, error.message) == ("fastapi", "Full.")


async def test_a_fastapi_handler_for_http_leaves_the_error_to_the_socket(raising):
    app = FastAPI()

    @app.exception_handler(ConsumerError)
    def mine(request: Request, error):
        return JSONResponse({"oops": error.code}, 418)

    @app.get("/http")
    async def endpoint():
        raise GroupFull

    client = raising(GroupFull, app=app)
    async with client:
        assert (await failure(client)).code == "group_full"
    async with http(app) as browser:
        answer = await browser.get("/http")
    assert (answer.status_code, answer.json()) == (418, {"oops": "group_full"})


async def test_an_http_endpoint_that_raises_is_answered_with_the_status_and_json(make_app):
    app = make_app()

    @app.get("/denied")
    async def denied():
        raise PermissionDenied("No.", details=[1])

    @app.get("/slow")
    async def slow():
        raise Throttled(1.2)

    @app.get("/teapot")
    async def teapot():
        raise HTTPError(418, "Short and stout.")

    async with http(app) as client:
        answer = await client.get("/denied")
        assert (answer.status_code, answer.json()) == (
            403,
            {"error": {"code": "permission_denied", "message": "No.", "details": [1]}},
        )
        answer = await client.get("/slow")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert answer.json()["error"]["retry_after"] == 1.2
        answer = await client.get("/teapot")
        assert (answer.status_code, answer.json()["error"]["status"]) == (418, 418)


async def test_a_plain_websocket_endpoint_that_raises_is_closed_with_the_code(make_app):
    app = make_app()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket):
        await websocket.accept()
        raise GroupFull

    @app.websocket("/gone")
    async def gone(websocket: WebSocket):
        await websocket.accept()
        await websocket.receive()
        raise GroupFull

    @app.websocket("/closed")
    async def closed(websocket: WebSocket):
        await websocket.accept()
        await websocket.close(4000)
        raise GroupFull

    @app.websocket("/refused")
    async def refused(websocket: WebSocket):
        raise GroupFull

    async with WebsocketCommunicator(app, "/ws") as client:
        await client.assert_closed(1013)
        assert client.close_reason == "group_full"
    async with WebsocketCommunicator(app, "/gone"):
        pass
    async with WebsocketCommunicator(app, "/closed") as client:
        await client.assert_closed(4000)
        await client.wait()
    client = WebsocketCommunicator(app, "/refused")
    assert await client.connect() == (False, 1013)
    await client.wait()
    client = WebsocketCommunicator(app, "/refused", denial_response=True)
    assert await client.connect() == (False, 503)
    assert json.loads(client.denial.body) == {
        "error": {"code": "group_full", "message": "This group is full.", "retryable": True}
    }
    await client.wait()


async def test_without_our_handlers_an_http_endpoints_error_is_the_apps_business(make_app):
    app = make_app(add_exception_handlers=False)

    @app.get("/")
    async def denied():
        raise PermissionDenied

    assert ConsumerError not in app.exception_handlers
    async with http(app) as client:
        with pytest.raises(PermissionDenied):
            await client.get("/")


# From dependencies


@pytest.mark.parametrize(
    ("status", "code", "status_in_error"),
    [
        (401, "not_authenticated", None),
        (403, "permission_denied", None),
        (404, "not_found", None),
        (422, "invalid_data", None),
        (429, "throttled", None),
        (418, "http_error", 418),
        (500, "http_error", 500),
    ],
)
async def test_an_http_exception_of_a_dependency_becomes_the_matching_error(raising, status, code, status_in_error):
    async def dependency():
        raise HTTPException(status, "Said so.", headers={"Retry-After": "7"})

    async with raising(MyError, dependency=dependency) as client:
        error = await failure(client)
        assert (error.code, error.message) == (code, "Said so.")
        assert error.reply["error"].get("status") == status_in_error
        assert error.retry_after == (7 if status == 429 else None)
        assert await client.call("ping") == "pong"


async def test_an_http_exception_with_details_hands_them_on(raising):
    async def dependency():
        raise HTTPException(404, {"id": 7})

    async with raising(MyError, dependency=dependency) as client:
        assert (await failure(client)).details == {"id": 7}


@pytest.mark.parametrize("kind", [RequestValidationError, WebSocketRequestValidationError])
async def test_a_request_validation_error_becomes_invalid_data_without_the_input(raising, kind):
    async def dependency():
        raise kind([{"loc": ("body", "x"), "type": "t", "msg": "Bad.", "input": "s3cret", "url": "u"}])

    async with raising(MyError, dependency=dependency) as client:
        error = await failure(client)
        assert error.code == "invalid_data"
        assert error.details == [{"loc": ["body", "x"], "type": "t", "message": "Bad."}]
        assert "s3cret" not in str(error.reply)


async def test_a_websocket_exception_closes_with_its_code(raising):
    async def dependency():
        raise WebSocketException(4321, "enough")

    async with raising(MyError, dependency=dependency) as client:
        await client.send_json_to({"action": "fail", "request_id": 1})
        await client.assert_closed(4321)


async def test_an_unexpected_exception_of_a_dependency_is_an_internal_error(raising, caplog):
    async def dependency():
        raise LookupError("hunter2")

    async with raising(MyError, dependency=dependency) as client:
        assert (await failure(client)).code == "internal_error"
        assert await client.call("ping") == "pong"
    assert "hunter2" in caplog.text


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (HTTPException(401), 4401, 401),
        (HTTPException(403), 4403, 403),
        (HTTPException(404), 1008, 404),
        (HTTPException(418), 1008, 418),
        (InvalidData(), 4400, 422),
        (ConsumerError("mine", close_code=4777), 4777, 400),
        (WebSocketException(4321), 4321, None),
        (KeyError(), 1011, 500),
    ],
)
async def test_a_dependency_that_raises_at_connect_refuses_by_code_or_by_status(make_app, error, code, status):
    async def dependency():
        raise error

    class Room(Consumer):
        dependencies = [Depends(dependency)]

    app = make_app(path("/", Room))
    client = WebsocketCommunicator(app, "/")
    assert await client.connect() == (False, code)
    await client.wait()
    if status is not None:
        client = WebsocketCommunicator(app, "/", denial_response=True)
        assert await client.connect() == (False, status)
        assert json.loads(client.denial.body)["error"]["code"]
        assert (b"content-type", b"application/json") in client.denial.headers
        await client.wait()


async def test_accept_refused_shows_the_reason_and_then_closes(make_app):
    class Room(Consumer):
        accept_refused = True

        async def connect(self):
            raise GroupFull("Try another room.")

    class Silent(Room):
        accept_refused = False

    app = make_app(path("/told", Room), path("/silent", Silent), accept_refused=True)
    async with WebsocketCommunicator(app, "/told") as client:
        assert await client.receive_json_from() == {
            "type": "error",
            "error": {"code": "group_full", "message": "Try another room.", "retryable": True},
        }
        await client.assert_closed(1013)
    client = WebsocketCommunicator(app, "/silent")
    assert await client.connect() == (False, 1013)
    await client.wait()


# Handlers, wherever the exception comes from


class Refuses(BasePermission):
    def has_permission(self, consumer, action=None):
        raise MyError("permission")


class RefusesGroups(BasePermission):
    def has_group_permission(self, consumer, group):
        raise MyError("group")


async def no_database():
    raise MyError("dependency")


class Everywhere(GroupConsumer, abstract=True):
    @action
    async def fail(self) -> None:
        raise MyError("action")

    @action(concurrent=True)
    async def beside(self) -> None:
        raise MyError("concurrent")

    @action
    async def stream(self) -> AsyncIterator[int]:
        yield 1
        raise MyError("stream")

    @action
    def thread(self) -> None:
        raise MyError("thread")

    @action
    async def injected(self, _: None = Depends(no_database)) -> None: ...

    @action(permission_classes=[Refuses])
    async def refused(self) -> None: ...

    @action(throttle_classes=[RateThrottle("1/second", key=lambda consumer: no_key())])
    async def throttled(self) -> None: ...

    @action
    async def enter(self) -> None:
        await self.join("other")

    @action(permission_classes=[RefusesGroups])
    async def enter_refused(self) -> None:
        await self.join("another")

    async def on_join(self, group):
        if group == "other":
            raise MyError("on_join")

    @action
    async def ping(self) -> str:
        return "pong"


def no_key():
    raise MyError("throttle")


@pytest.fixture(params=["class", "app"])
def everywhere(request, make_app):
    """``everywhere(base, **attributes)``: a communicator, with the handler on the class or on the app, and its app."""

    def make(base=Everywhere, **attributes):
        handlers = {"exception_handlers": {MyError: handler}}

        class Room(base):
            groups = ["room"]

        room = type("Room", (Room,), {**attributes, **(handlers if request.param == "class" else {})})
        return WebsocketCommunicator(make_app(path("/", room), **(handlers if request.param == "app" else {})), "/")

    return make


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fail", "action"),
        ("beside", "concurrent"),
        ("thread", "thread"),
        ("injected", "dependency"),
        ("refused", "permission"),
        ("throttled", "throttle"),
        ("enter", "on_join"),
        ("enter_refused", "group"),
    ],
)
async def test_handlers_answer_for_whatever_stands_in_an_actions_way(everywhere, caplog, name, text):
    async with everywhere() as client:
        with pytest.raises(CallError) as caught:
            await client.call(name)
        assert (caught.value.code, caught.value.message) == ("mine", f"Room: {text}")
        assert await client.call("ping") == "pong"
    assert "MyError" not in caplog.text


async def test_handlers_answer_for_a_stream_that_breaks(everywhere):
    async with everywhere() as client:
        with pytest.raises(CallError, match="Room: stream"):
            _ = [part async for part in client.stream("stream")]


@pytest.mark.parametrize("where", ["connect", "on_join", "get_groups", "permission", "group", "dependency", "lifespan"])
async def test_handlers_answer_for_a_handshake_that_breaks(everywhere, caplog, where):
    async def broken(self, *args):
        raise MyError(where)

    @asynccontextmanager
    async def lifespan(self):
        raise MyError(where)
        yield

    attributes = {
        "permission": {"permission_classes": [Refuses]},
        "group": {"permission_classes": [RefusesGroups]},
        "dependency": {"dependencies": [Depends(no_database)]},
        "lifespan": {"lifespan": lifespan},
    }.get(where, {where: broken})
    client = everywhere(**attributes, accept_refused=True)
    async with client:
        assert (await client.receive_json_from())["error"] == {"code": "mine", "message": f"Room: {where}"}
        await client.assert_closed(1008)
    assert "MyError" not in caplog.text


async def test_handlers_answer_for_event_methods_and_for_a_receive_of_ones_own(everywhere, caplog):
    class Own(Everywhere, abstract=True):
        @fastapi_consumers.event
        async def boom(self, message):
            raise MyError("event")

        async def receive_json(self, content):
            raise MyError("receive")

    async with everywhere(Own) as client:
        await client.send_json_to({})
        assert (await client.receive_json_from())["error"]["message"] == "Room: receive"
        await client.app.state.consumers.layer.group_send("room", {"type": "boom"})
        assert (await client.receive_json_from())["error"]["message"] == "Room: event"
    assert "MyError" not in caplog.text


@pytest.mark.parametrize("where", ["disconnect", "on_leave"])
async def test_handlers_are_told_of_what_breaks_while_a_connection_ends_and_it_is_logged_without_one(
    everywhere, make_app, caplog, where
):
    async def broken(self, *args):
        raise MyError(where)

    async with everywhere(**{where: broken}):
        pass
    assert "torn down" not in caplog.text

    class Unhandled(Everywhere):
        groups = ["room"]
        exception_handlers = {MyError: lambda consumer, error: None, KeyError: handler}

    Alone = type("Alone", (Unhandled,), {where: broken})
    async with WebsocketCommunicator(make_app(path("/", Alone)), "/"):
        pass
    assert "torn down" in caplog.text
    assert "MyError" in caplog.text
