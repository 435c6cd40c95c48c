"""FastAPI's dependencies in consumers: per call, per connection, of the route and of the app."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, Path, Query, WebSocket

from fastapi_consumers import GroupConsumer, JSONConsumer, action, add_routes, path
from fastapi_consumers.testing import CallError, WebsocketCommunicator


class Log(list):
    def dependency(self, name):
        async def opened():
            self.append(f"open {name}")
            try:
                yield name
            finally:
                self.append(f"close {name}")

        return opened


@pytest.fixture
def log():
    return Log()


class Recording:
    """An ASGI app that writes what is sent, and when, into a log."""

    def __init__(self, app, log):
        self.app, self.log = app, log

    async def __call__(self, scope, receive, send):
        async def recorded(message):
            if message["type"] == "websocket.send":
                self.log.append("sent")
            await send(message)

        await self.app(scope, receive, recorded if scope["type"] == "websocket" else send)


# Per call


async def test_a_dependency_is_opened_for_each_call_and_closed_before_its_reply_is_sent(make_app, log):
    class Room(JSONConsumer):
        @action
        async def work(self, db: Annotated[str, Depends(log.dependency("db"))]) -> str:
            log.append(f"use {db}")
            return db

    app = Recording(make_app(path("/", Room)), log)
    async with WebsocketCommunicator(app, "/") as client:
        assert await client.call("work") == "db"
        assert await client.call("work") == "db"
    assert log == ["open db", "use db", "close db", "sent"] * 2


async def test_a_dependency_is_closed_before_the_answer_to_an_error_and_sees_the_exception(make_app, log):
    async def session():
        try:
            yield
        except KeyError:
            log.append("rollback")
            raise

    class Room(JSONConsumer):
        @action
        async def fail(self, db: None = Depends(session)) -> None:
            raise KeyError

    app = Recording(make_app(path("/", Room)), log)
    async with WebsocketCommunicator(app, "/") as client:
        with pytest.raises(CallError):
            await client.call("fail")
    assert log == ["rollback", "sent"]


async def test_a_dependency_that_fails_when_it_closes_turns_the_answer_into_an_error(make_app, caplog):
    async def session():
        yield
        raise RuntimeError("commit failed")

    class Room(JSONConsumer):
        @action
        async def work(self, db: None = Depends(session)) -> int:
            return 1

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        with pytest.raises(CallError) as caught:
            await client.call("work")
        assert caught.value.code == "internal_error"
    assert "commit failed" in caplog.text


async def test_a_stream_keeps_its_dependencies_open_until_it_has_ended(make_app, log):
    class Room(JSONConsumer):
        @action
        async def rows(self, db: str = Depends(log.dependency("db"))) -> AsyncIterator[int]:
            yield 1
            log.append("between")
            yield 2

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        assert [part async for part in client.stream("rows")] == [1, 2]
    assert log == ["open db", "between", "close db"]


async def test_a_cancelled_call_closes_its_dependencies(make_app, log):
    started = asyncio.Event()

    class Room(JSONConsumer):
        @action
        async def wait(self, db: str = Depends(log.dependency("db"))) -> None:
            started.set()
            await asyncio.Event().wait()

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        await client.send_json_to({"action": "wait"})
        await started.wait()
    assert log == ["open db", "close db"]


async def test_concurrent_calls_have_dependencies_of_their_own(make_app):
    both = asyncio.Barrier(2)

    async def value(text: Annotated[str, Query()]):
        yield object()

    class Room(JSONConsumer):
        @action(concurrent=True)
        async def meet(self, thing: Annotated[object, Depends(value)]) -> int:
            await both.wait()
            return id(thing)

    async with WebsocketCommunicator(make_app(path("/", Room)), "/?text=x") as client:
        for number in range(2):
            await client.send_json_to({"action": "meet", "request_id": number})
        answers = [(await client.receive_json_from())["data"] for _ in range(2)]
        assert answers[0] != answers[1]


async def test_validation_comes_before_the_dependencies_are_opened(make_app, log):
    class Room(JSONConsumer):
        @action
        async def work(self, x: int, db: str = Depends(log.dependency("db"))) -> None: ...

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        with pytest.raises(CallError, match="invalid_data"):
            await client.call("work", {"x": "no"})
    assert log == []


async def test_dependency_overrides_apply_per_call_and_at_connect(make_app, log):
    async def real():
        raise AssertionError

    class Room(JSONConsumer):
        dependencies = [Depends(real)]

        @action
        async def work(self, value: Annotated[str, Depends(real)]) -> str:
            return value

    app = make_app(path("/", Room))
    app.dependency_overrides[real] = lambda: "fake"
    async with WebsocketCommunicator(app, "/") as client:
        assert await client.call("work") == "fake"
        app.dependency_overrides[real] = lambda: "other"
        assert await client.call("work") == "other"


async def test_parameters_come_from_header_cookie_query_and_path(make_app):
    class Room(JSONConsumer):
        @action
        async def where(
            self,
            text: str,
            id: Annotated[int, Path()],
            x_colour: Annotated[str, Header()],
            seat: Annotated[str, Cookie()],
            tags: Annotated[list[str], Query()],
            lang: str = Query("en"),
        ) -> list[str]:
            return [text, str(id + 1), x_colour, seat, *tags, lang]

    app = make_app(path("/{id}", Room))
    headers = {"X-Colour": "red", "Cookie": "seat=3a"}
    async with WebsocketCommunicator(app, "/7?tags=a&tags=b", headers=headers) as client:
        assert await client.call("where", {"text": "t"}) == ["t", "8", "red", "3a", "a", "b", "en"]
        assert await client.call("where", {"text": "t", "id": 99, "lang": "de"}) == [
            "t", "8", "red", "3a", "a", "b", "en"]  # fmt: skip


async def test_a_missing_header_is_invalid_data_that_names_it(make_app):
    class Room(JSONConsumer):
        @action
        async def where(self, x_colour: Annotated[str, Header()]) -> str:
            return x_colour

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        with pytest.raises(CallError) as caught:
            await client.call("where")
        assert (caught.value.code, caught.value.details[0]["loc"]) == ("invalid_data", ["header", "x-colour"])


async def test_dependencies_may_depend_on_others_and_on_the_websocket_but_cannot_take_its_frames(make_app):
    async def agent(websocket: WebSocket) -> str:
        with pytest.raises(RuntimeError, match="belongs to a consumer"):
            await websocket.receive_json()
        return websocket.headers["user-agent"]

    def upper(agent: Annotated[str, Depends(agent)]) -> str:
        return agent.upper()

    class Room(JSONConsumer):
        @action
        async def agent(self, agent: Annotated[str, Depends(upper)]) -> str:
            return agent

    async with WebsocketCommunicator(make_app(path("/", Room)), "/", headers={"User-Agent": "test"}) as client:
        assert await client.call("agent") == "TEST"


# Per connection


async def test_connection_wide_dependencies_are_opened_at_connect_and_closed_last(make_app, log):
    class Base(GroupConsumer, abstract=True):
        async def connect(self):
            log.append("connect")
            await self.accept()

        async def disconnect(self, code):
            log.append("disconnect")

    class Room(Base):
        dependencies = [Depends(log.dependency("class"))]

    app = make_app(path("/", Room, dependencies=[Depends(log.dependency("route"))]))
    async with WebsocketCommunicator(app, "/"):
        assert log == ["open route", "open class", "connect"]
    assert log[3:] == ["disconnect", "close class", "close route"]


async def test_what_a_connection_wide_dependency_puts_on_the_state_is_there_for_actions(make_app):
    async def remember(websocket: WebSocket):
        websocket.state.colour = "red"

    class Room(JSONConsumer):
        dependencies = [Depends(remember)]

        @action
        async def colour(self, websocket: WebSocket) -> list[str]:
            return [websocket.state.colour, self.websocket.state.colour]

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        assert await client.call("colour") == ["red", "red"]


async def test_a_connection_wide_dependency_that_refuses_closes_those_opened_before(make_app, log, nothing_left):
    async def refuse():
        raise HTTPException(403)

    class Room(JSONConsumer):
        dependencies = [Depends(log.dependency("first")), Depends(refuse)]

    app = make_app(path("/", Room))
    client = WebsocketCommunicator(app, "/")
    assert await client.connect() == (False, 4403)
    await client.wait()
    assert log == ["open first", "close first"]
    assert nothing_left(app)


async def test_dependencies_of_the_app_are_enforced_for_consumers(make_app, log):
    async def token(token: str = ""):
        log.append("app")
        if token != "right":
            raise HTTPException(401)

    class Room(JSONConsumer):
        dependencies = [Depends(log.dependency("class"))]

    app = make_app(path("/", Room), app=FastAPI(dependencies=[Depends(token)]))
    client = WebsocketCommunicator(app, "/")
    assert await client.connect() == (False, 4401)
    await client.wait()
    assert log == ["app"]
    async with WebsocketCommunicator(app, "/?token=right"):
        assert log == ["app", "app", "open class"]


async def test_dependencies_of_app_router_and_route_hold_for_consumers_on_a_router(make_app, log):
    class Room(JSONConsumer):
        dependencies = [Depends(log.dependency("class"))]

    router = APIRouter(prefix="/r", dependencies=[Depends(log.dependency("router"))])
    add_routes(router, [path("/ws", Room, dependencies=[Depends(log.dependency("route"))])])
    app = make_app(app=FastAPI(dependencies=[Depends(log.dependency("app"))]))
    app.include_router(router, dependencies=[Depends(log.dependency("including"))])
    async with WebsocketCommunicator(app, "/r/ws"):
        names = ["app", "including", "router", "route", "class"]
        assert sorted(log) == sorted(f"open {name}" for name in names)
        assert log[-2:] == ["open route", "open class"]
    assert log[5:] == [f"close {entry.removeprefix('open ')}" for entry in reversed(log[:5])]
