"""``Consumers``: opening and closing, and reaching sockets from the rest of the application."""

import asyncio
import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import httpx
import pytest
from broadcaster import Broadcast
from fastapi import BackgroundTasks, Depends, FastAPI

from fastapi_consumers import (
    Consumer,
    Consumers,
    GroupConsumer,
    ImproperlyConfigured,
    InvalidGroup,
    add_consumers,
    get_consumers,
    path,
)
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.exceptions import BrokerUnavailable
from fastapi_consumers.testing import WebsocketCommunicator
from fastapi_consumers.transports import MemoryTransport
from fastapi_consumers.transports.broadcaster import BroadcasterTransport

ConsumersDep = Annotated[Consumers, Depends(get_consumers)]


class Listening(GroupConsumer):
    groups = ["news"]


def make_app(*routes, **options):
    app = FastAPI()
    add_consumers(app, routes or [path("/ws", Listening)], **options)
    return app


def http(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://testserver")


def in_a_thread(function):
    """``asyncio.run`` in the tests' own thread would take the loop away that pytest-asyncio keeps there."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function).result(30)


# From endpoints


async def test_an_endpoint_broadcasts_through_get_consumers():
    app = make_app()

    @app.post("/announce")
    async def announce(text: str, consumers: ConsumersDep) -> None:
        await consumers.broadcast("news", "announced", {"text": text})

    async with WebsocketCommunicator(app, "/ws") as client, http(app) as browser:
        assert (await browser.post("/announce?text=hi")).status_code == 200
        assert await client.receive_json_from() == {
            "type": "event",
            "event": "announced",
            "group": "news",
            "data": {"text": "hi"},
        }


async def test_a_background_task_broadcasts_after_the_response():
    app = make_app()

    @app.post("/later")
    async def later(tasks: BackgroundTasks, consumers: ConsumersDep) -> None:
        tasks.add_task(consumers.broadcast, "news", "later", 1)

    async with WebsocketCommunicator(app, "/ws") as client, http(app) as browser:
        await browser.post("/later")
        await client.assert_event("later", 1)


async def test_get_consumers_serves_websocket_endpoints_and_actions_too():
    seen = []

    def remember(consumers: ConsumersDep) -> None:
        seen.append(consumers)

    class Room(GroupConsumer):
        dependencies = [Depends(remember)]

    app = make_app(path("/ws", Room))
    async with WebsocketCommunicator(app, "/ws"):
        pass
    assert seen == [app.state.consumers]


async def test_get_consumers_without_add_consumers_says_what_to_call():
    app = FastAPI()

    @app.get("/")
    async def endpoint(consumers: ConsumersDep) -> None: ...

    async with http(app) as browser:
        with pytest.raises(ImproperlyConfigured, match=r"call add_consumers\(app, channel_routes\)"):
            await browser.get("/")


async def test_something_else_under_our_name_on_the_state_is_not_overwritten():
    app = FastAPI()
    app.state.consumers = ["ann", "ben"]
    app.mount("/ws", Listening.as_asgi())
    client = WebsocketCommunicator(app, "/ws/")
    with pytest.raises(ImproperlyConfigured, match="keep your own under another name"):
        await client.connect()
    assert app.state.consumers == ["ann", "ben"]
    with pytest.raises(ImproperlyConfigured, match="'ann', 'ben'"):
        add_consumers(app)


async def test_an_endpoint_that_broadcasts_before_anything_is_open_is_no_error():
    app = make_app(broadcast=Broadcast("memory://"))

    @app.post("/")
    async def announce(consumers: ConsumersDep) -> None:
        await consumers.broadcast("news", "announced")
        await consumers.send("told", user=1)
        await consumers.disconnect(group="news")

    async with http(app) as browser:
        assert (await browser.post("/")).status_code == 200
    await app.state.consumers.close()


# Receivers


async def test_exclude_leaves_a_channel_out():
    names = []

    class Named(Listening):
        async def connect(self):
            names.append(self.channel_name)
            await self.accept()

    app = make_app(path("/ws", Named))
    async with WebsocketCommunicator(app, "/ws") as one, WebsocketCommunicator(app, "/ws") as two:
        await app.state.consumers.broadcast("news", "x", exclude=names[0])
        await two.assert_event("x")
        assert await one.receive_nothing(0)


async def test_just_one_receiver_must_be_named():
    consumers = make_app().state.consumers
    with pytest.raises(TypeError, match=r"user=… or channel=… \(found none\)"):
        await consumers.send("x")
    with pytest.raises(TypeError, match=r"user=… or channel=… \(found user and channel\)"):
        await consumers.send("x", user=1, channel="c!1")
    with pytest.raises(TypeError, match=r"user=… or channel=… or group=… \(found none\)"):
        await consumers.disconnect()
    with pytest.raises(InvalidGroup):
        await consumers.disconnect(group="")
    await consumers.close()


async def test_a_user_without_an_id_cannot_be_reached_and_is_refused():
    from fastapi_consumers.authentication import ANONYMOUS

    consumers = make_app().state.consumers
    with pytest.raises(ValueError, match=r"AnonymousUser\(\) has no id"):
        await consumers.send("x", user=ANONYMOUS)
    await consumers.close()


class Account:
    is_authenticated = True

    def __init__(self, id):
        self.id = id


ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("user", "named"),
    [(Account(7), 7), (Account(7), Account(7)), (Account(ID), ID), (Account(ID), str(ID)), ("ann", "ann")],
)
async def test_a_user_is_reached_by_object_by_id_and_by_its_text(user, named):
    class Known(BaseAuthentication):
        def authenticate(self, connection):
            return user, None

    app = make_app(path("/ws", Listening), authentication_classes=[Known])
    async with WebsocketCommunicator(app, "/ws") as client:
        await app.state.consumers.send("told", 1, user=named)
        await client.assert_event("told", 1)
        await app.state.consumers.disconnect(user=named)
        await client.assert_closed(4409)


async def test_an_event_must_be_json_before_anybody_gets_it():
    consumers = make_app().state.consumers
    with pytest.raises(ValueError, match="serialize"):
        await consumers.broadcast("news", "x", object())


# Opening and closing


class Counting(MemoryTransport):
    def __init__(self):
        super().__init__()
        self.log = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = False

    async def open(self, deliver):
        self.log.append("open")
        await self.gate.wait()
        if self.failing:
            raise BrokerUnavailable
        await super().open(deliver)

    async def close(self):
        self.log.append("close")
        await super().close()


async def test_everybody_waits_until_it_is_open_and_it_is_opened_once():
    transport = Counting()
    transport.gate.clear()
    consumers = Consumers(transport)
    assert not consumers.is_open
    openings = [asyncio.create_task(consumers.open()) for _ in range(3)]
    await asyncio.wait(openings, timeout=0)
    assert not consumers.is_open
    openings[0].cancel()  # the others wait for the same, and are not cancelled with it
    transport.gate.set()
    await asyncio.gather(*openings[1:])
    await consumers.open()
    assert consumers.is_open
    assert transport.log == ["open"]
    await consumers.close()
    await consumers.close()
    assert transport.log == ["open", "close"]


async def test_a_transport_that_cannot_be_opened_is_tried_again_the_next_time():
    transport = Counting()
    transport.failing = True
    consumers = Consumers(transport)
    with pytest.raises(BrokerUnavailable):
        await consumers.open()
    assert not consumers.is_open
    assert transport.log == ["open", "close"]
    transport.failing = False
    async with consumers:
        assert consumers.is_open
    assert not consumers.is_open


async def test_it_can_be_opened_again_after_it_was_closed():
    app = make_app()
    consumers = app.state.consumers
    for _ in range(2):
        async with consumers:
            client = WebsocketCommunicator(app, "/ws", run_lifespan=False)
            await client.connect()
            await consumers.broadcast("news", "x")
            await client.assert_event("x")
        await client.assert_closed(1012)
        await client.wait()


async def test_what_publishes_after_it_was_closed_is_told_instead_of_opening_it_again():
    transport = Counting()
    app = make_app(transport=transport)
    consumers = app.state.consumers
    async with consumers:
        await consumers.broadcast("news", "x")
    for publish in (
        lambda: consumers.broadcast("news", "x"),
        lambda: consumers.send("x", user=7),
        lambda: consumers.disconnect(group="news"),
        lambda: consumers.layer.group_send("news", {"type": "x"}),
    ):
        with pytest.raises(RuntimeError, match="are closed, as its lifespan has ended"):
            await publish()
    assert transport.log == ["open", "close"]
    await consumers.open()
    await consumers.broadcast("news", "x")
    await consumers.close()


def test_one_that_was_closed_in_an_event_loop_that_is_gone_opens_at_first_use_again():
    consumers = make_app().state.consumers

    async def once():
        await consumers.broadcast("news", "x")
        assert consumers.is_open
        await consumers.close()

    in_a_thread(lambda: asyncio.run(once()))
    in_a_thread(lambda: asyncio.run(once()))


@pytest.mark.parametrize("make_transport", [MemoryTransport, lambda: BroadcasterTransport(Broadcast("memory://"))])
def test_it_opens_anew_in_an_event_loop_that_follows_one_that_is_gone(make_transport):
    app = make_app(transport=make_transport())

    async def once():
        client = WebsocketCommunicator(app, "/ws", run_lifespan=False)
        await client.connect()
        await app.state.consumers.broadcast("news", "x")
        await client.assert_event("x")
        await client.disconnect()

    in_a_thread(lambda: asyncio.run(once()))
    in_a_thread(lambda: asyncio.run(once()))


def test_without_a_running_loop_it_tells_whether_its_own_could_still_run():
    consumers = Consumers()

    def run():
        with asyncio.Runner() as runner:
            runner.run(consumers.open())
            assert consumers.is_open
        assert not consumers.is_open

    in_a_thread(run)


async def test_another_event_loop_beside_it_is_told_that_it_cannot_reach_the_sockets():
    consumers = make_app().state.consumers
    failures = []

    def elsewhere():
        try:
            asyncio.run(consumers.broadcast("news", "x"))
        except RuntimeError as error:
            failures.append(str(error))

    async with consumers:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
    assert "with TestClient(app) as client" in failures[0]


async def test_closing_does_not_wait_for_ever_for_a_consumer_that_does_not_end(monkeypatch, caplog):
    release = asyncio.Event()

    class Stubborn(Consumer):
        async def disconnect(self, code):
            await release.wait()

    monkeypatch.setattr("fastapi_consumers.runtime.SHUTDOWN_TIMEOUT", 0.01)
    app = make_app(path("/ws", Stubborn))
    async with app.state.consumers:
        client = WebsocketCommunicator(app, "/ws", run_lifespan=False)
        await client.connect()
    assert "1 connections did not end" in caplog.text
    release.set()
    await client.wait()


async def test_nothing_is_logged_by_an_ordinary_life(caplog):
    app = make_app()
    async with WebsocketCommunicator(app, "/ws"):
        pass
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
