"""How fast connections may come, and how many of one user and one address there may be."""

import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_consumers import Consumer, JSONConsumer, action, add_consumers, path
from fastapi_consumers.admission import Admission
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.testing import Clock, WebsocketCommunicator
from fastapi_consumers.throttling import parse_rate


class ByQuery(BaseAuthentication):
    async def authenticate(self, connection: Any) -> tuple[Any, Any] | None:
        name = connection.websocket.query_params.get("user")
        return ({"id": name}, None) if name else None


class Room(JSONConsumer):
    authentication_classes = [ByQuery]

    @action
    async def ping(self) -> str:
        return "pong"


class Broken(Consumer):
    async def connect(self) -> None:
        raise RuntimeError("on purpose")


def app_of(*routes: Any, **options: Any) -> FastAPI:
    app = FastAPI()
    add_consumers(app, routes or [path("/", Room)], **options)
    return app


async def test_connections_beyond_the_rate_are_refused_before_anything_is_asked():
    clock = Clock()
    app = app_of(max_connection_rate="2/second; 3/minute")
    app.state.consumers.admission = Admission(parse_rate("2/second; 3/minute"), clock)
    async with WebsocketCommunicator(app, "/"), WebsocketCommunicator(app, "/", client=("10.0.0.2", 1)):
        late = WebsocketCommunicator(app, "/", denial_response=True)
        assert await late.connect() == (False, 429)
        assert late.denial is not None
        assert dict(late.denial.headers)[b"retry-after"] == b"1"
        assert json.loads(late.denial.body)["error"]["code"] == "too_many_connections"
        assert await WebsocketCommunicator(app, "/").connect() == (False, 4429)
        clock.advance(0.5)
        async with WebsocketCommunicator(app, "/"):
            clock.advance(1)
            last = WebsocketCommunicator(app, "/", denial_response=True)
            await last.connect()
            assert last.denial is not None
            assert dict(last.denial.headers)[b"retry-after"] == b"19"


async def test_the_rate_that_was_given_is_the_one_that_holds():
    app = app_of(max_connection_rate="1/hour")
    async with WebsocketCommunicator(app, "/"):
        assert await WebsocketCommunicator(app, "/").connect() == (False, 4429)


async def refused(app: FastAPI, where: str, **options: Any) -> bool:
    client = WebsocketCommunicator(app, where, **options)
    accepted, code = await client.connect()
    if not accepted:
        assert (code, client.close_reason) == (4429, "too_many_connections")
    await client.disconnect()
    return not accepted


async def test_a_user_has_so_many_connections_and_gets_another_when_one_ends():
    app = app_of(max_connections_per_user=2)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(WebsocketCommunicator(app, "/?user=ann"))
        await stack.enter_async_context(WebsocketCommunicator(app, "/?user=ann"))
        assert await refused(app, "/?user=ann", client=("10.0.0.3", 1))
        assert not await refused(app, "/?user=bob")
        for _ in range(3):  # Nobody knows them, so nobody can say whose they are.
            await stack.enter_async_context(WebsocketCommunicator(app, "/"))
        await first.disconnect()
        assert not await refused(app, "/?user=ann")
    assert not app.state.consumers.admission._counts
    assert not app.state.consumers.admission._held


async def test_an_address_has_so_many_connections_whoever_its_users_are():
    app = app_of(max_connections_per_address=2)
    async with (
        WebsocketCommunicator(app, "/?user=ann", client=("10.0.0.1", 1)),
        WebsocketCommunicator(app, "/?user=bob", client=("10.0.0.1", 2)),
    ):
        assert await refused(app, "/", client=("10.0.0.1", 3))
        assert not await refused(app, "/", client=("10.0.0.2", 1))
    async with WebsocketCommunicator(app, "/", client=None), WebsocketCommunicator(app, "/", client=None):
        assert not await refused(app, "/", client=None)  # The server names no address.


async def test_a_class_with_a_limit_of_its_own_counts_its_own_connections():
    class Single(Room):
        max_connections_per_user = 1

    class Free(Room):
        max_connections_per_user = 100

    app = app_of(path("/single", Single), path("/free", Free), path("/", Room), max_connections_per_user=2)
    async with AsyncExitStack() as stack:
        for where in ("/", "/", "/single", "/free", "/free", "/free"):
            await stack.enter_async_context(WebsocketCommunicator(app, f"{where}?user=ann"))
        assert await refused(app, "/single?user=ann")
        assert await refused(app, "/?user=ann")


@pytest.mark.filterwarnings("ignore")
async def test_handshakes_that_fail_are_not_counted_for_ever():
    app = app_of(path("/broken", Broken), path("/", Room), max_connections_per_address=1)
    for _ in range(3):
        assert await WebsocketCommunicator(app, "/broken").connect() == (False, 1011)
    assert not await refused(app, "/")
    assert not app.state.consumers.admission._counts
