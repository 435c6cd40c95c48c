"""``add_consumers``: settings, lifespans, mounted apps, several apps, and what is told of mistakes."""

import gc
import warnings
from contextlib import asynccontextmanager

import httpx
import pytest
from broadcaster import Broadcast
from fastapi import APIRouter, FastAPI, Request
from starlette.applications import Starlette

from fastapi_consumers import (
    Consumers,
    GroupConsumer,
    ImproperlyConfigured,
    PermissionDenied,
    action,
    add_consumers,
    path,
)
from fastapi_consumers.permissions import AllowAny
from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from fastapi_consumers.transports import MemoryTransport


class Room(GroupConsumer):
    groups = ["room"]

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)

    @action
    async def state(self) -> dict[str, object]:
        return {**self.scope["state"]}


def codes(error):
    return [problem.code for problem in error.value.problems]


def test_it_returns_the_apps_consumers_and_leaves_them_on_its_state():
    app = FastAPI()
    consumers = add_consumers(app, [path("/ws", Room)])
    assert isinstance(consumers, Consumers)
    assert app.state.consumers is consumers


# Mistakes


def test_all_mistakes_are_reported_at_once_and_the_app_is_unchanged():
    app = FastAPI()
    routes, handlers, context = list(app.router.routes), dict(app.exception_handlers), app.router.lifespan_context
    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(
            app,
            [path("/a", Room), Room],
            url="carrier-pigeon://localhost",
            authentication_classes=[AllowAny],
            permission_classes=["staff"],
            throttle_classes=["fast"],
            connection_throttle_classes="5/second",
            exception_handlers={"KeyError": print},
            allowed_origins="https://example.com",
            accept_refused="yes",
            max_message_size=0,
            max_mesage_size=1,
        )
    assert sorted(codes(caught)) == [
        "bad-accept-refused",
        "bad-allowed-origins",
        "bad-authentication-classes",
        "bad-connection-throttle-classes",
        "bad-exception-handlers",
        "bad-limit",
        "bad-permission-classes",
        "bad-throttle-classes",
        "bad-url",
        "route-type",
        "unknown-argument",
    ]
    text = str(caught.value)
    assert text.startswith("add_consumers() has 11 mistakes:\n\n1. [")
    for part in ("'fast' is not N/unit", "'max_mesage_size'", "url='carrier-pigeon://localhost'", "max_message_size=0"):
        assert part in text
    assert getattr(app.state, "consumers", None) is None
    assert list(app.router.routes) == routes
    assert dict(app.exception_handlers) == handlers
    assert app.router.lifespan_context is context
    add_consumers(app, [path("/a", Room)])


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("allow_origins", "did you mean 'allowed_origins'?"),
        ("max_mesage_size", "did you mean 'max_message_size'?"),
        ("weather", "look for a misspelling"),
    ],
)
def test_the_argument_that_was_meant_is_named(name, fix):
    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(FastAPI(), [], **{name: 1})
    assert [(problem.code, problem.fix) for problem in caught.value.problems] == [("unknown-argument", fix)]


@pytest.mark.parametrize("app", [APIRouter(), None, FastAPI])
def test_something_that_is_no_app_is_refused(app):
    with pytest.raises(ImproperlyConfigured, match=r"for an APIRouter there is add_routes\(\)"):
        add_consumers(app, [])


def test_twice_on_one_app_is_refused():
    app = FastAPI()
    add_consumers(app, [path("/a", Room)])
    with pytest.raises(ImproperlyConfigured, match="put all routes into one call") as caught:
        add_consumers(app, [path("/b", Room)])
    assert codes(caught) == ["consumers-added-twice"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"transport": MemoryTransport(), "broadcast": Broadcast("memory://")}, "two-transports"),
        ({"transport": "memory://"}, "bad-transport"),
        ({"broadcast": "memory://"}, "bad-broadcast"),
        ({"url": None}, "bad-url"),
        ({"broker_timeout": 0}, "bad-broker-timeout"),
        ({"broker_timeout": "1"}, "bad-broker-timeout"),
        ({"exception_handlers": [KeyError]}, "bad-exception-handlers"),
        ({"exception_handlers": {KeyError: "handler"}}, "bad-exception-handlers"),
        ({"allowed_origins": [None]}, "bad-allowed-origins"),
        ({"max_connections": "2"}, "bad-limit"),
        ({"write_timeout": 0}, "bad-limit"),
    ],
)
def test_each_wrong_argument_is_named(options, code):
    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(FastAPI(), [path("/a", Room)], **options)
    assert codes(caught) == [code]


def test_one_path_twice_is_refused_as_the_second_would_never_be_reached():
    with pytest.raises(ImproperlyConfigured, match="the path of Room, which comes first") as caught:
        add_consumers(FastAPI(), [path("/a", Room), path("/a", Room)])
    assert codes(caught) == ["route-path-taken"]


# Settings


async def test_limits_are_arguments_and_a_class_has_the_last_word():
    class Large(Room):
        max_message_size = 1000

    app = FastAPI()
    add_consumers(app, [path("/small", Room), path("/large", Large)], max_message_size=100)
    frame = '{"action": "say", "request_id": 1, "data": {"text": "' + "x" * 100 + '"}}'
    async with WebsocketCommunicator(app, "/large") as client:
        await client.send_to(frame)
        assert (await client.receive_json_from())["type"] == "event"
    async with WebsocketCommunicator(app, "/small") as client:
        await client.send_to(frame)
        await client.assert_closed(1009)


async def test_a_transport_of_ones_own_carries_everything():
    class Noting(MemoryTransport):
        topics = []

        async def publish(self, topic, packet):
            self.topics.append(topic)
            await super().publish(topic, packet)

    app = FastAPI()
    add_consumers(app, [path("/ws", Room)], transport=Noting())
    async with WebsocketCommunicator(app, "/ws") as client:
        await client.call("say", {"text": "hi"})
    assert Noting.topics == ["group:room"]


# Lifespans


async def test_our_resources_open_before_the_apps_lifespan_and_close_after_it_and_its_state_is_kept():
    log = []

    class Noting(MemoryTransport):
        async def open(self, deliver):
            log.append("open")
            await super().open(deliver)

        async def close(self):
            log.append("close")
            await super().close()

    @asynccontextmanager
    async def own(app):
        await app.state.consumers.broadcast("room", "starting")
        log.append("start")
        yield {"database": "db"}
        await app.state.consumers.broadcast("room", "stopping")
        log.append("stop")

    app = FastAPI(lifespan=own)
    add_consumers(app, [path("/ws", Room)], transport=Noting())
    async with lifespan(app):
        async with WebsocketCommunicator(app, "/ws") as client:
            assert (await client.call("state"))["database"] == "db"
        assert log == ["open", "start"]
    assert log == ["open", "start", "stop", "close"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_lifespans_of_included_routers_run_and_their_state_is_kept(when):
    log = []

    @asynccontextmanager
    async def of_router(app):
        log.append("start")
        yield {"router": 1}
        log.append("stop")

    app, router = FastAPI(), APIRouter(lifespan=of_router)
    if when == "before":
        app.include_router(router)
    add_consumers(app, [path("/ws", Room)])
    if when == "after":
        app.include_router(router)
    async with lifespan(app):
        async with WebsocketCommunicator(app, "/ws") as client:
            assert (await client.call("state"))["router"] == 1
    assert log == ["start", "stop"]


async def test_a_lifespan_that_fails_to_start_closes_what_we_opened():
    @asynccontextmanager
    async def failing(app):
        raise LookupError("no database")
        yield

    app = FastAPI(lifespan=failing)
    consumers = add_consumers(app, [path("/ws", Room)])
    with pytest.raises(LookupError, match="no database"):
        async with lifespan(app):
            pass
    assert not consumers.is_open


async def test_a_transport_that_cannot_be_opened_stops_the_app_from_starting():
    class Dead(MemoryTransport):
        async def open(self, deliver):
            raise OSError("no broker")

    app = FastAPI()
    add_consumers(app, [path("/ws", Room)], transport=Dead())
    with pytest.raises(OSError, match="no broker"):
        async with lifespan(app):
            pass


# More than one app


async def test_two_apps_in_one_process_do_not_know_each_other():
    one, two = FastAPI(), FastAPI()
    add_consumers(one, [path("/ws", Room)])
    add_consumers(two, [path("/ws", Room)], permission_classes=[AllowAny], max_connections=1)
    async with WebsocketCommunicator(one, "/ws") as in_one, WebsocketCommunicator(two, "/ws") as in_two:
        await in_one.call("say", {"text": "hi"})
        await in_one.assert_event("said")
        assert await in_two.receive_nothing(0)
        assert await one.state.consumers.get_connection_count("room") == 1
        client = WebsocketCommunicator(two, "/ws")
        assert await client.connect() == (False, 1013)
        await client.wait()
        async with WebsocketCommunicator(one, "/ws"):
            pass


@pytest.mark.parametrize("broadcast", [None, "memory://"])
async def test_a_mounted_app_whose_lifespan_nobody_runs_opens_at_first_use(broadcast):
    outer, inner = FastAPI(), FastAPI()
    consumers = add_consumers(inner, [path("/ws", Room)], broadcast=Broadcast(broadcast) if broadcast else None)
    outer.mount("/inner", inner, name="inner")
    assert not consumers.is_open
    async with WebsocketCommunicator(outer, "/inner/ws") as client:
        await client.call("say", {"text": "hi"})
        await client.assert_event("said", "hi")
    assert outer.url_path_for("inner:Room") == "/inner/ws"
    await consumers.close()


async def test_a_mounted_app_and_the_one_around_it_may_both_have_consumers():
    outer, inner = FastAPI(), FastAPI()
    for app in (outer, inner):
        add_consumers(app, [path("/ws", Room)])
    outer.mount("/inner", inner)
    async with WebsocketCommunicator(outer, "/ws") as in_outer, WebsocketCommunicator(outer, "/inner/ws") as in_inner:
        await outer.state.consumers.broadcast("room", "outside")
        await inner.state.consumers.broadcast("room", "inside")
        await in_outer.assert_event("outside")
        await in_inner.assert_event("inside")
    await inner.state.consumers.close()


async def test_a_starlette_app_has_consumers_too():
    @asynccontextmanager
    async def own(app):
        yield {"own": 1}

    app = Starlette(lifespan=own)
    consumers = add_consumers(app, [path("/ws", Room, name="chat")])
    async with WebsocketCommunicator(app, "/ws") as client:
        assert (await client.call("state"))["own"] == 1
        await consumers.broadcast("room", "news")
        await client.assert_event("news")
    assert app.url_path_for("chat") == "/ws"


async def test_http_endpoints_of_the_app_go_on_as_before():
    app = FastAPI()
    add_consumers(app, [path("/ws", Room)])

    @app.get("/plain")
    async def plain(request: Request) -> dict[str, str]:
        return {"path": request.url.path}

    @app.get("/denied")
    async def denied() -> None:
        raise PermissionDenied

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://testserver") as browser:
        assert (await browser.get("/plain")).json() == {"path": "/plain"}
        assert (await browser.get("/denied")).status_code == 403
        assert (await browser.get("/ws")).status_code == 404
        assert (await browser.get("/openapi.json")).status_code == 200


# Starlette's own test client


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_starlettes_test_client_works():
    with warnings.catch_warnings():
        # Starlette 1.10 asks for httpx2 when this is imported.
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient

    app = FastAPI()
    add_consumers(app, [path("/ws", Room)])
    with TestClient(app) as client:
        with client.websocket_connect("/ws") as one, client.websocket_connect("/ws") as two:
            one.send_json({"action": "say", "request_id": 1, "data": {"text": "hi"}})
            assert one.receive_json()["event"] == "said"
            assert one.receive_json()["status"] == "ok"
            assert two.receive_json()["data"] == "hi"
    client = TestClient(app)  # no lifespan: it opens at first use
    with client.websocket_connect("/ws") as one:
        one.send_json({"action": "say", "request_id": 1, "data": {"text": "hi"}})
        assert one.receive_json()["event"] == "said"
    # Old versions of Starlette leave streams of their own unclosed. They are collected here, where that is ignored.
    del client, one, two
    gc.collect()
