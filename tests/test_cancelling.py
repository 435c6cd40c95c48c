"""Cancelled requests: each is answered once, whoever cancelled it and when, and nothing of it stays behind."""

import asyncio
import logging

import pytest
from fastapi import FastAPI

from fastapi_consumers import JSONConsumer, action, add_consumers, path
from fastapi_consumers.serializers import ResponseSerializer
from fastapi_consumers.testing import WebsocketCommunicator


def connect(consumer, **options):
    app = FastAPI()
    add_consumers(app, [path("/", consumer)], **options)
    return WebsocketCommunicator(app, "/")


def running_of(client):
    """What the only connection of the app knows of its requests."""
    (connection,) = client.app.state.consumers.connections
    return connection.dispatcher._running


async def ask(client, name, request_id, **data):
    await client.send_json_to({"action": name, "request_id": request_id, "data": data})


async def cancel(client, target, request_id=None):
    await client.send_json_to({"action": "cancel", "request_id": request_id, "data": {"request_id": target}})


async def outcomes(client, count):
    """The next ``count`` answers as pairs of id and ``ok`` or the error's code."""
    frames = [await client.receive_json_from() for _ in range(count)]
    return [(frame["request_id"], frame["error"]["code"] if frame.get("error") else "ok") for frame in frames]


async def no_more(client):
    """Nothing has been sent, and the connection still answers."""
    await ask(client, "ping", "last")
    assert await outcomes(client, 1) == [("last", "ok")]
    assert await client.receive_nothing(0)


def cancelled_elsewhere():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


@pytest.fixture
def room():
    """A consumer class with ``started`` and ``go``, the events around its action ``hold``, and a list of what ran."""

    class Room(JSONConsumer):
        started = asyncio.Event()
        go = asyncio.Event()
        ran = []

        @action
        async def hold(self) -> None:
            self.started.set()
            await self.go.wait()

        @action
        async def note(self, number: int) -> int:
            self.ran.append(number)
            return number

        @action
        async def ping(self) -> str:
            return "pong"

        @action(concurrent=True)
        async def beside(self, number: int) -> None:
            self.ran.append(number)
            await self.go.wait()

    return Room


# Concurrent requests


async def test_a_concurrent_request_cancelled_before_its_task_began_is_answered_once_and_never_runs(room):
    async with connect(room) as client:
        # Both frames are there when the first is read, so that receive() does not wait in between.
        await ask(client, "beside", 1, number=1)
        await cancel(client, 1, "c")
        assert sorted(await outcomes(client, 2), key=str) == [("c", "ok"), (1, "cancelled")]
        await no_more(client)
        assert room.ran == []
        assert not running_of(client).tasks


async def test_cancelling_it_again_before_its_task_began_finds_nothing(room):
    async with connect(room) as client:
        await ask(client, "beside", 1, number=1)
        await cancel(client, 1, "c")
        await cancel(client, 1, "d")
        answers = await outcomes(client, 3)
        assert sorted(answers, key=str) == [("c", "ok"), ("d", "not_found"), (1, "cancelled")]
        await no_more(client)


async def test_of_two_concurrent_requests_with_one_id_each_cancel_ends_one(room):
    async with connect(room) as client:
        await ask(client, "beside", 1, number=1)
        await ask(client, "beside", 1, number=2)
        for request_id in ("a", "b", "c"):
            await cancel(client, 1, request_id)
        answers = await outcomes(client, 5)
        assert sorted(answers, key=str) == [
            ("a", "ok"),
            ("b", "ok"),
            ("c", "not_found"),
            (1, "cancelled"),
            (1, "cancelled"),
        ]
        await no_more(client)


# Requests that wait


@pytest.mark.parametrize(
    "wrong",
    [{"action": "note", "data": {"number": "x"}}, {"action": "nope"}, {"action": "note"}],
    ids=["invalid data", "unknown action", "no data"],
)
async def test_a_waiting_request_that_could_not_have_run_leaves_nothing_behind_when_cancelled(room, wrong):
    async with connect(room) as client:
        await ask(client, "hold", "h")
        for number in range(5):
            await client.send_json_to({**wrong, "request_id": number})
            await cancel(client, number, f"c{number}")
        assert await outcomes(client, 5) == [(f"c{number}", "ok") for number in range(5)]
        room.go.set()
        assert await outcomes(client, 6) == [("h", "ok"), *[(number, "cancelled") for number in range(5)]]
        assert not running_of(client).waiting
        for number in range(5):
            await ask(client, "note", number, number=number)
        assert await outcomes(client, 5) == [(number, "ok") for number in range(5)]
        assert room.ran == [0, 1, 2, 3, 4]
        await no_more(client)


async def test_two_waiting_requests_with_one_id_are_both_cancelled_by_two_cancels(room):
    async with connect(room) as client:
        await ask(client, "hold", "h")
        await ask(client, "note", 1, number=1)
        await ask(client, "note", 1, number=2)
        await cancel(client, 1, "a")
        await cancel(client, 1, "b")
        assert await outcomes(client, 2) == [("a", "ok"), ("b", "ok")]
        room.go.set()
        assert await outcomes(client, 3) == [("h", "ok"), (1, "cancelled"), (1, "cancelled")]
        await no_more(client)
        assert room.ran == []
        assert not running_of(client).waiting


async def test_a_third_cancel_of_two_waiting_requests_is_remembered_for_none(room):
    async with connect(room) as client:
        await ask(client, "hold", "h")
        await ask(client, "note", 1, number=1)
        for request_id in ("a", "b"):
            await cancel(client, 1, request_id)
        await ask(client, "note", 1, number=2)
        assert await outcomes(client, 1) == [("a", "ok")]
        room.go.set()
        # The second cancel waits like any request, and when its turn comes nothing has this id before it.
        assert await outcomes(client, 4) == [("h", "ok"), (1, "cancelled"), ("b", "not_found"), (1, "ok")]
        assert room.ran == [2]


# What is cancelled, but not by the client


class Stray(JSONConsumer):
    @action
    async def at_once(self) -> None:
        await cancelled_elsewhere()

    @action
    async def later(self) -> None:
        await asyncio.sleep(0)
        await cancelled_elsewhere()

    @action(timeout=60)
    async def with_timeout(self) -> None:
        await cancelled_elsewhere()

    @action(concurrent=True)
    async def beside(self) -> None:
        await cancelled_elsewhere()

    @action
    async def ping(self) -> str:
        return "pong"


@pytest.mark.parametrize("name", ["at_once", "later", "with_timeout", "beside"])
async def test_an_action_that_awaits_something_cancelled_is_answered_with_internal_error(caplog, name):
    async with connect(Stray) as client:
        for request_id in (1, 2):
            await ask(client, name, request_id)
            assert await outcomes(client, 1) == [(request_id, "internal_error")]
        await no_more(client)
    (first, _) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert isinstance(first.exc_info[1].__cause__, asyncio.CancelledError)


async def test_cancelling_the_application_while_an_action_runs_tears_down_and_propagates(room):
    codes = []

    class Watched(room):
        async def disconnect(self, code):
            codes.append(code)

    app = FastAPI()
    add_consumers(app, [path("/", Watched)])
    incoming, sent = asyncio.Queue(), []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "subprotocols": []}
    incoming.put_nowait({"type": "websocket.connect"})
    incoming.put_nowait({"type": "websocket.receive", "text": '{"action": "hold", "request_id": 1}'})
    task = asyncio.create_task(app(scope, incoming.get, send))
    await room.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert codes == [1001]
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert sent[-1]["code"] == 1001
    assert not app.state.consumers.connections


# Who is told what


async def test_cancelling_a_running_request_survives_a_response_serializer_with_a_required_field(room):
    class Named(ResponseSerializer):
        request_id: int | str | None = None
        user: str
        errors: list = []

    class Room(room):
        response_serializer_class = Named

        @action
        async def who(self) -> dict:
            return {"user": "ann"}

    async with connect(Room) as client:
        await ask(client, "hold", 1)
        await cancel(client, 1, "c")
        frames = {frame["request_id"]: frame for frame in [await client.receive_json_from() for _ in range(2)]}
        assert frames[1]["errors"][0]["code"] == "cancelled"
        assert set(frames) == {1, "c"}
        await ask(client, "who", 2)
        assert await client.receive_json_from() == {"request_id": 2, "user": "ann", "errors": []}
        assert await client.receive_nothing(0)


async def test_who_overrides_receive_json_gets_cancel_too_idle_and_busy():
    go, taken, seen = asyncio.Event(), asyncio.Event(), []

    class Own(JSONConsumer):
        async def receive_json(self, content):
            seen.append(content)
            if content.get("wait"):
                await go.wait()
            await self.send_json({"got": content})

    app, received = FastAPI(), []
    add_consumers(app, [path("/", Own)])

    async def watched(scope, receive, send):
        async def noting():
            message = await receive()
            received.append(message)
            if len(received) == 4:
                taken.set()
            return message

        await app(scope, noting if scope["type"] == "websocket" else receive, send)

    frame = {"action": "cancel", "request_id": 3, "data": {"request_id": 7}}
    async with WebsocketCommunicator(watched, "/") as client:
        await client.send_json_to(frame)
        assert await client.receive_json_from() == {"got": frame}
        await client.send_json_to({"wait": True})
        await client.send_json_to(frame)
        # The handshake and three frames: the last has been read while receive_json() waits.
        async with asyncio.timeout(20):
            await taken.wait()
        go.set()
        assert await client.receive_json_from() == {"got": {"wait": True}}
        assert await client.receive_json_from() == {"got": frame}
        assert await client.receive_nothing(0)
    assert seen == [frame, {"wait": True}, frame]


async def test_a_cancel_of_nothing_while_an_action_runs_counts_as_a_request(room):
    class Room(room):
        throttle_classes = ["3/hour"]

    async with connect(Room) as client:
        await ask(client, "hold", "h")
        await ask(client, "note", "waits", number=1)
        for number in range(4):
            await cancel(client, "nothing", number)
        # One that hits is dealt with at once, so those before it have been read too.
        await cancel(client, "waits", "c")
        assert await outcomes(client, 1) == [("c", "ok")]
        room.go.set()
        assert await outcomes(client, 6) == [
            ("h", "ok"),
            ("waits", "cancelled"),
            (0, "not_found"),
            (1, "not_found"),
            (2, "throttled"),
            (3, "throttled"),
        ]
