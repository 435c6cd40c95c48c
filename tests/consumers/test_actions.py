"""Actions from frame to answer: replies, streams, threads, concurrency, limits of time, order and cancelling."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta

import pytest
from pydantic import BaseModel
from starlette.websockets import WebSocket

from fastapi_consumers import Consumers, GroupConsumer, JSONConsumer, action, path
from fastapi_consumers.connection import Connection
from fastapi_consumers.testing import CallError, SocketClosed, WebsocketCommunicator


class Gate:
    """Lets a test hold an action, and see that it began and how it ended."""

    def __init__(self):
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.ended = asyncio.Event()
        self.cancelled = False

    async def hold(self):
        self.started.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended.set()


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def connect(make_app):
    """``connect(ConsumerClass, **options)``: a communicator for an app with just this consumer."""

    def make(consumer, *, subprotocols=None, **options):
        return WebsocketCommunicator(make_app(path("/", consumer), **options), "/", subprotocols=subprotocols)

    return make


async def code_of(client, name, data=None):
    with pytest.raises(CallError) as caught:
        await client.call(name, data)
    return caught.value.code


# Answers


class Answering(JSONConsumer):
    @action
    async def value(self) -> int:
        return 7

    @action
    async def nothing(self) -> None: ...

    @action("fails")
    async def raising(self) -> None:
        raise KeyError

    @action
    async def ping(self) -> str:
        return "pong"


async def test_a_request_with_an_id_gets_exactly_one_answer(connect):
    async with connect(Answering) as client:
        for request_id in (0, -1, "a", "", 2**63 - 1):
            await client.send_json_to({"action": "nothing", "request_id": request_id})
            assert await client.receive_json_from() == {
                "type": "reply",
                "action": "nothing",
                "request_id": request_id,
                "status": "ok",
                "data": None,
            }
        assert await client.receive_nothing(0)


async def test_a_request_without_an_id_is_answered_only_with_a_value_or_an_error(connect):
    async with connect(Answering) as client:
        await client.send_json_to({"action": "nothing"})
        await client.send_json_to({"action": "nothing", "request_id": None})
        await client.send_json_to({"action": "value"})
        answer = await client.receive_json_from()
        assert answer == {"type": "reply", "action": "value", "request_id": None, "status": "ok", "data": 7}
        await client.send_json_to({"action": "fails"})
        answer = await client.receive_json_from()
        assert (answer["request_id"], answer["status"], answer["error"]["code"]) == (None, "error", "internal_error")
        await client.send_json_to({"action": "nope"})
        assert (await client.receive_json_from())["error"]["code"] == "action_not_found"


async def test_an_unknown_action_is_answered_with_the_nearest_name(connect):
    async with connect(Answering) as client:
        with pytest.raises(CallError, match=r"There is no action 'pinng'. Did you mean 'ping'\?"):
            await client.call("pinng")


@pytest.mark.parametrize(
    "frame", [[], 1, None, "x", {}, {"action": 1}, {"action": None}, {"action": "ping", "request_id": 1.5}]
)
async def test_a_frame_that_is_no_request_is_answered_and_the_socket_stays(connect, frame):
    async with connect(Answering) as client:
        await client.send_json_to(frame)
        answer = await client.receive_json_from()
        assert (answer["type"], answer["error"]["code"]) == ("error", "invalid_frame")
        assert await client.call("ping") == "pong"


async def test_more_bad_frames_in_a_row_than_max_bad_frames_close_with_4400(connect):
    class Strict(Answering):
        max_bad_frames = 2

    async with connect(Strict) as client:
        for frame in ("{", "{"):
            await client.send_to(frame)
            await client.receive_json_from()
        await client.call("ping")
        for _ in range(3):
            await client.send_to("{")
        await client.assert_closed(4400)


# Payloads and results


class Point(BaseModel):
    x: int
    y: int = 0


class Item(BaseModel):
    name: str
    day: date


class Typed(JSONConsumer):
    @action
    async def whole(self, data: Point) -> Point:
        return data

    @action
    async def sole(self, point: Point) -> int:
        return point.x + point.y

    @action
    async def fields(self, x: int, y: int = 5) -> list[int]:
        return [x, y]

    @action
    async def item(self, wrong: bool = False) -> Item:
        return {"name": 1} if wrong else {"name": "a", "day": "2026-01-02", "extra": 1}

    @action
    async def anything(self):
        return {"inf": float("inf"), "day": date(2026, 1, 2)}

    @action
    async def looking(
        self, websocket: WebSocket, connection: Connection, consumers: Consumers, text: str
    ) -> dict[str, bool | str]:
        with pytest.raises(RuntimeError, match="belongs to a consumer"):
            await websocket.receive_text()
        return {
            "header": websocket.headers["x-h"],
            "connection": connection is self.connection,
            "consumers": consumers is self.consumers,
            "text": text,
        }


async def test_payloads_are_validated_and_taken_as_the_signature_says(connect):
    async with connect(Typed) as client:
        assert await client.call("whole", {"x": 1}) == {"x": 1, "y": 0}
        assert await client.call("sole", {"x": "1", "y": 2}) == 3
        assert await client.call("fields", {"x": 1}) == [1, 5]
        with pytest.raises(CallError) as caught:
            await client.call("fields", {"x": "no", "y": "secret"})
        assert caught.value.code == "invalid_data"
        assert [detail["loc"] for detail in caught.value.details] == [["x"], ["y"]]
        assert set(caught.value.details[0]) == {"loc", "type", "message"}
        assert "secret" not in str(caught.value.reply)


async def test_keys_of_a_client_are_never_splatted_into_arguments(connect):
    async with connect(Typed) as client:
        for data in ({"x": 1, "self": 1}, {"x": 1, "consumer": None, "websocket": 1, "__class__": 1}):
            assert await client.call("fields", data) == [1, 5]
        for data in ([1], "x", 1):
            assert await code_of(client, "fields", data) == "invalid_data"


async def test_results_are_validated_and_serialised(connect, caplog):
    async with connect(Typed) as client:
        assert await client.call("item") == {"name": "a", "day": "2026-01-02"}
        assert await client.call("anything") == {"inf": None, "day": "2026-01-02"}
        assert await code_of(client, "item", {"wrong": True}) == "internal_error"
    assert "validation error" in caplog.text


async def test_websocket_connection_and_consumers_are_given_by_annotation(make_app):
    app = make_app(path("/", Typed))
    async with WebsocketCommunicator(app, "/", headers={"X-H": "h"}) as client:
        assert await client.call("looking", {"text": "t"}) == {
            "header": "h",
            "connection": True,
            "consumers": True,
            "text": "t",
        }


async def test_a_websocket_view_may_send_and_close(connect):
    class Viewing(JSONConsumer):
        @action
        async def talk(self, websocket: WebSocket) -> None:
            await websocket.send_text("text")
            await websocket.send_bytes(b"bytes")
            await websocket.close(4010, "why")

    async with connect(Viewing) as client:
        await client.send_json_to({"action": "talk"})
        assert await client.receive_from() == "text"
        assert await client.receive_from() == b"bytes"
        await client.assert_closed(4010)
        assert client.close_reason == "why"


# Streams


async def test_a_stream_sends_its_parts_and_then_a_final_ok(connect):
    class Streaming(JSONConsumer):
        @action
        async def count(self, n: int) -> AsyncIterator[Point]:
            for x in range(n):
                yield {"x": x}

    async with connect(Streaming) as client:
        await client.send_json_to({"action": "count", "request_id": "s", "data": {"n": 2}})
        frames = [await client.receive_json_from() for _ in range(3)]
        assert [(frame["status"], frame["data"], frame["request_id"]) for frame in frames] == [
            ("partial", {"x": 0, "y": 0}, "s"),
            ("partial", {"x": 1, "y": 0}, "s"),
            ("ok", None, "s"),
        ]
        assert [part async for part in client.stream("count", {"n": 0})] == []
        await client.send_json_to({"action": "count", "data": {"n": 1}})
        assert [(await client.receive_json_from())["status"] for _ in range(2)] == ["partial", "ok"]


async def test_a_stream_of_a_sync_generator_runs_in_a_thread(connect):
    threads = set()

    class Streaming(JSONConsumer):
        @action
        def count(self) -> Iterator[int]:
            for number in range(3):
                threads.add(threading.current_thread())
                yield number

    async with connect(Streaming) as client:
        assert [part async for part in client.stream("count")] == [0, 1, 2]
    assert threading.current_thread() not in threads


async def test_a_stream_that_fails_half_way_ends_with_the_error(connect):
    class Streaming(JSONConsumer):
        @action
        async def fail(self) -> AsyncIterator[int]:
            yield 1
            raise KeyError

        @action
        async def wrong(self) -> AsyncIterator[int]:
            yield "no number"

    async with connect(Streaming) as client:
        await client.send_json_to({"action": "fail", "request_id": 1})
        assert (await client.receive_json_from())["data"] == 1
        assert (await client.receive_json_from())["error"]["code"] == "internal_error"
        assert await code_of(client, "wrong") == "internal_error"


@pytest.mark.parametrize("way", ["cancel", "disconnect"])
async def test_cancel_and_disconnect_close_a_streams_generator(connect, gate, way):
    closed = asyncio.Event()

    class Streaming(JSONConsumer):
        @action
        async def endless(self) -> AsyncIterator[int]:
            try:
                yield 1
                await gate.hold()
            finally:
                closed.set()

    async with connect(Streaming) as client:
        await client.send_json_to({"action": "endless", "request_id": 1})
        assert (await client.receive_json_from())["status"] == "partial"
        await gate.started.wait()
        if way == "cancel":
            await client.send_json_to({"action": "cancel", "data": {"request_id": 1}})
            answer = await client.receive_json_from()
            assert (answer["request_id"], answer["error"]["code"]) == (1, "cancelled")
        else:
            await client.disconnect()
        await asyncio.wait_for(closed.wait(), 20)
        assert gate.cancelled


# Threads


async def test_a_plain_def_runs_in_the_thread_pool(connect):
    class Blocking(JSONConsumer):
        @action
        def where(self, x: int = 1) -> list[str]:
            return [threading.current_thread().name, str(x)]

    async with connect(Blocking) as client:
        name, x = await client.call("where", {"x": 2})
        assert (name != threading.current_thread().name, x) == (True, "2")


async def test_a_thread_is_left_to_end_when_the_socket_goes(connect):
    loop = asyncio.get_running_loop()
    started, release, ended = asyncio.Event(), threading.Event(), asyncio.Event()

    class Blocking(JSONConsumer):
        @action
        def block(self) -> None:
            loop.call_soon_threadsafe(started.set)
            release.wait(10)
            loop.call_soon_threadsafe(ended.set)

    client = connect(Blocking)
    await client.connect()
    await client.send_json_to({"action": "block", "request_id": 1})
    await started.wait()
    await client.disconnect()
    assert not ended.is_set()
    release.set()
    await asyncio.wait_for(ended.wait(), 20)


# Order and concurrency


async def test_actions_of_one_connection_run_and_answer_in_order(connect, gate):
    log = []

    class Ordered(JSONConsumer):
        @action
        async def first(self) -> None:
            await gate.hold()
            log.append("first")

        @action
        async def second(self) -> None:
            log.append("second")

    async with connect(Ordered) as client:
        await client.send_json_to({"action": "first", "request_id": 1})
        await client.send_json_to({"action": "second", "request_id": 2})
        await client.send_json_to({"action": "nope", "request_id": 3})
        await gate.started.wait()
        assert log == []
        gate.go.set()
        assert [(await client.receive_json_from())["request_id"] for _ in range(3)] == [1, 2, 3]
        assert log == ["first", "second"]


class Concurrent(JSONConsumer):
    gates: dict[str, Gate]

    @action(concurrent=True)
    async def wait(self, name: str) -> str:
        await self.gates[name].hold()
        return name

    @action
    async def ping(self) -> str:
        return "pong"


async def test_concurrent_actions_run_beside_the_others(connect):
    class Room(Concurrent):
        gates = {"a": Gate(), "b": Gate()}

    async with connect(Room) as client:
        await client.send_json_to({"action": "wait", "request_id": 1, "data": {"name": "a"}})
        await client.send_json_to({"action": "wait", "request_id": 2, "data": {"name": "b"}})
        assert await client.call("ping") == "pong"
        await Room.gates["b"].started.wait()
        Room.gates["b"].go.set()
        assert (await client.receive_json_from())["data"] == "b"
        Room.gates["a"].go.set()
        assert (await client.receive_json_from())["data"] == "a"


async def test_no_more_concurrent_actions_run_than_max_concurrent_actions(connect):
    class Room(Concurrent):
        gates = {name: Gate() for name in "abc"}
        max_concurrent_actions = 2

    async with connect(Room) as client:
        for name in "abc":
            await client.send_json_to({"action": "wait", "request_id": name, "data": {"name": name}})
        await client.send_json_to({"action": "ping", "request_id": "ping"})
        await Room.gates["b"].started.wait()
        await asyncio.sleep(0)
        assert not Room.gates["c"].started.is_set()
        Room.gates["a"].go.set()
        answers = {(await client.receive_json_from())["request_id"] for _ in range(2)}
        assert answers == {"a", "ping"}
        await Room.gates["c"].started.wait()
        for gate in Room.gates.values():
            gate.go.set()
        assert {(await client.receive_json_from())["request_id"] for _ in range(2)} == {"b", "c"}


async def test_concurrent_actions_are_cancelled_when_the_socket_goes(connect):
    class Room(Concurrent):
        gates = {"a": Gate(), "b": Gate()}

    async with connect(Room) as client:
        for name in "ab":
            await client.send_json_to({"action": "wait", "data": {"name": name}})
        for gate in Room.gates.values():
            await gate.started.wait()
    assert all(gate.cancelled for gate in Room.gates.values())


async def test_an_error_in_a_concurrent_action_is_answered_and_the_socket_stays(connect):
    class Room(JSONConsumer):
        @action(concurrent=True)
        async def fail(self) -> None:
            raise KeyError

        @action(concurrent=True)
        async def fine(self) -> int:
            return 1

    async with connect(Room) as client:
        assert await code_of(client, "fail") == "internal_error"
        assert await client.call("fine") == 1


# Cancelling


class Cancellable(GroupConsumer):
    groups = ["all"]
    gate: Gate

    @action
    async def hold(self) -> str:
        await self.gate.hold()
        return "held"

    @action(concurrent=True)
    async def hold_beside(self) -> str:
        await self.gate.hold()
        return "held"

    @action
    async def ping(self) -> str:
        return "pong"


@pytest.fixture
def cancellable(gate):
    class Room(Cancellable):
        pass

    Room.gate = gate
    return Room


@pytest.mark.parametrize("name", ["hold", "hold_beside"])
async def test_cancel_ends_a_running_request_with_cancelled(connect, cancellable, gate, name):
    async with connect(cancellable) as client:
        await client.send_json_to({"action": name, "request_id": "x"})
        await gate.started.wait()
        await client.send_json_to({"action": "cancel", "request_id": "c", "data": {"request_id": "x"}})
        answers = {}
        for _ in range(2):
            answer = await client.receive_json_from()
            answers[answer["request_id"]] = answer
        assert (answers["c"]["status"], answers["c"]["data"]) == ("ok", None)
        assert (answers["x"]["action"], answers["x"]["error"]["code"]) == (name, "cancelled")
        assert gate.cancelled
        assert await client.call("ping") == "pong"


async def test_cancel_of_a_request_that_waits_keeps_it_from_running(connect, cancellable, gate):
    async with connect(cancellable) as client:
        await client.send_json_to({"action": "hold", "request_id": 1})
        await client.send_json_to({"action": "ping", "request_id": 2})
        await client.send_json_to({"action": "ping", "request_id": 3})
        await gate.started.wait()
        await client.send_json_to({"action": "cancel", "request_id": 4, "data": {"request_id": 2}})
        assert (await client.receive_json_from())["request_id"] == 4
        gate.go.set()
        answers = [await client.receive_json_from() for _ in range(3)]
        assert [(answer["request_id"], answer["status"]) for answer in answers] == [(1, "ok"), (2, "error"), (3, "ok")]
        assert answers[1]["error"]["code"] == "cancelled"


async def test_cancel_of_an_unknown_request_is_answered_with_not_found(connect, cancellable, gate):
    async with connect(cancellable) as client:
        assert await code_of(client, "cancel", {"request_id": "never"}) == "not_found"
        assert await code_of(client, "cancel", {}) == "invalid_data"


async def test_cancel_of_an_unknown_request_while_others_wait_harms_no_later_one(connect, cancellable, gate):
    async with connect(cancellable) as client:
        await client.send_json_to({"action": "hold", "request_id": 1})
        await client.send_json_to({"action": "ping", "request_id": 2})
        await gate.started.wait()
        await client.send_json_to({"action": "cancel", "request_id": 3, "data": {"request_id": "later"}})
        await client.send_json_to({"action": "ping", "request_id": "later"})
        gate.go.set()
        answers = [await client.receive_json_from() for _ in range(4)]
        assert [(answer["request_id"], answer["status"]) for answer in answers] == [
            (1, "ok"),
            (2, "ok"),
            (3, "error"),
            ("later", "ok"),
        ]
        assert answers[2]["error"]["code"] == "not_found"


async def test_cancel_reaches_a_concurrent_request_that_waits_for_its_place(connect, cancellable, gate):
    class Room(cancellable):
        max_concurrent_actions = 1

    async with connect(Room) as client:
        for request_id in (1, 2):
            await client.send_json_to({"action": "hold_beside", "request_id": request_id})
        await gate.started.wait()
        await client.send_json_to({"action": "cancel", "data": {"request_id": 2}})
        answer = await client.receive_json_from()
        assert (answer["request_id"], answer["error"]["code"]) == (2, "cancelled")
        gate.go.set()
        assert (await client.receive_json_from())["data"] == "held"


async def test_an_action_that_swallows_its_cancellation_is_answered_with_what_it_returns(connect):
    started = asyncio.Event()

    class Stubborn(JSONConsumer):
        @action
        async def wait(self) -> str:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "survived"
            return "never"

        @action
        async def ping(self) -> str:
            return "pong"

    async with connect(Stubborn) as client:
        await client.send_json_to({"action": "wait", "request_id": 1})
        await started.wait()
        await client.send_json_to({"action": "cancel", "data": {"request_id": 1}})
        assert (await client.receive_json_from())["data"] == "survived"
        assert await client.call("ping") == "pong"


async def test_a_request_id_can_be_used_again_after_cancel_came_too_late(connect, cancellable):
    async with connect(cancellable) as client:
        await client.send_json_to({"action": "ping", "request_id": 1})
        await client.receive_json_from()
        await client.send_json_to({"action": "cancel", "data": {"request_id": 1}})
        assert (await client.receive_json_from())["error"]["code"] == "not_found"
        await client.send_json_to({"action": "ping", "request_id": 1})
        assert (await client.receive_json_from())["status"] == "ok"


async def test_an_own_action_named_cancel_wins(connect):
    class Own(JSONConsumer):
        @action
        async def cancel(self, why: str) -> str:
            return why

    async with connect(Own) as client:
        assert await client.call("cancel", {"why": "because"}) == "because"


async def test_cancelling_one_action_leaves_the_connection_able_to_be_cancelled_later(connect, cancellable, gate):
    client = connect(cancellable)
    await client.connect()
    for request_id in (1, 2):
        gate.started.clear()
        await client.send_json_to({"action": "hold", "request_id": request_id})
        await gate.started.wait()
        await client.send_json_to({"action": "cancel", "data": {"request_id": request_id}})
        assert (await client.receive_json_from())["error"]["code"] == "cancelled"
    gate.started.clear()
    await client.send_json_to({"action": "hold", "request_id": 3})
    await gate.started.wait()
    await client.cancel()
    assert not client.is_running


async def test_a_running_action_is_cancelled_when_the_client_goes(connect, cancellable, gate):
    async with connect(cancellable) as client:
        await client.send_json_to({"action": "hold", "request_id": 1})
        await gate.started.wait()
    assert gate.cancelled


async def test_a_running_action_is_cancelled_when_the_server_closes_the_socket(make_app, cancellable, gate):
    app = make_app(path("/", cancellable))
    async with WebsocketCommunicator(app, "/") as client:
        await client.send_json_to({"action": "hold", "request_id": 1})
        await gate.started.wait()
        await app.state.consumers.disconnect(group="all")
        await client.assert_closed(4409)
        await client.wait()
        assert gate.cancelled


# Time


@pytest.mark.parametrize("timeout", [0.001, timedelta(milliseconds=1)])
async def test_a_timeout_cancels_the_action_and_is_answered(connect, gate, timeout):
    class Timed(JSONConsumer):
        @action(timeout=timeout)
        async def wait(self) -> None:
            await gate.hold()

        @action(timeout=60)
        async def raises(self) -> None:
            raise TimeoutError("its own")

        @action(timeout=60)
        async def fine(self) -> int:
            return 1

    async with connect(Timed) as client:
        assert await code_of(client, "wait") == "timeout"
        assert gate.cancelled
        assert await code_of(client, "raises") == "internal_error"
        assert await client.call("fine") == 1


async def test_a_timeout_holds_for_a_whole_stream(connect, gate):
    class Timed(JSONConsumer):
        @action(timeout=0.001)
        async def wait(self) -> AsyncIterator[int]:
            yield 1
            await gate.hold()

    async with connect(Timed) as client:
        assert await code_of(client, "wait") == "timeout"
        assert gate.cancelled


# Deprecated, disabled


class Aging(JSONConsumer):
    @action(deprecated=True)
    async def old(self) -> int:
        return 1

    @action(enabled=False)
    async def off(self) -> int:
        raise AssertionError

    @action(deprecated=True, enabled=False)
    async def gone(self) -> int:
        raise AssertionError


async def test_a_deprecated_action_works_and_is_logged(connect, caplog):
    async with connect(Aging) as client:
        assert await client.call("old") == 1
    record = next(record for record in caplog.records if "deprecated" in record.getMessage())
    assert (record.levelno, "'old'" in record.getMessage()) == (logging.WARNING, True)


async def test_disabled_actions_are_refused_and_the_socket_stays(connect):
    async with connect(Aging) as client:
        assert await code_of(client, "off") == "action_disabled"
        assert await code_of(client, "gone") == "action_deprecated"
        assert await client.call("old") == 1


# The class


async def test_actions_come_from_mixins_and_bases_and_can_be_replaced_or_removed(connect):
    class Pinging:
        @action
        async def ping(self) -> str:
            return "pong"

    class Base(JSONConsumer, abstract=True):
        @action
        async def name(self) -> str:
            return "base"

        @action
        async def gone(self) -> str:
            return "still here"

    class Room(Pinging, Base):
        gone = None

        @action
        async def name(self) -> str:
            return f"room and {await super().name()}"

    async with connect(Room) as client:
        assert await client.call("ping") == "pong"
        assert await client.call("name") == "room and base"
        assert await code_of(client, "gone") == "action_not_found"


async def test_close_in_an_action_sends_no_answer_after_it(connect):
    class Leaving(JSONConsumer):
        @action("close")
        async def close_room(self) -> str:
            await self.close(4003, "bye")
            return "never"

    async with connect(Leaving) as client:
        await client.send_json_to({"action": "close", "request_id": 1})
        with pytest.raises(SocketClosed) as caught:
            await client.receive_from()
        assert (caught.value.code, caught.value.reason) == (4003, "bye")


@pytest.mark.parametrize("concurrent", [False, True])
async def test_close_works_from_any_action_and_through_the_hub(connect, concurrent):
    class Leaving(GroupConsumer):
        groups = ["room"]

        @action("close", concurrent=concurrent)
        async def close_room(self) -> None:
            await self.close(4001)

        @action(concurrent=concurrent)
        async def kick(self) -> None:
            await self.consumers.disconnect(group="room", code=4002)

    for name, code in (("close", 4001), ("kick", 4002)):
        async with connect(Leaving) as client:
            await client.send_json_to({"action": name})
            await client.assert_closed(code)
            await client.wait()


# Bounds


async def test_an_inbox_that_stays_full_closes_with_4429_and_cancels_the_action(connect, gate):
    class Flooded(JSONConsumer):
        max_inbox = 2
        inbox_timeout = 0.01

        @action
        async def hold(self) -> None:
            await gate.hold()

    async with connect(Flooded) as client:
        for _ in range(6):
            await client.send_json_to({"action": "hold"})
        await client.assert_closed(4429)
        await client.wait()
    assert gate.cancelled


async def test_a_client_that_does_not_read_is_closed_with_1013_and_the_others_hear_everything(make_app, nothing_left):
    class Room(GroupConsumer):
        groups = ["room"]
        max_outbox = 5

    app = make_app(path("/", Room))
    slow = WebsocketCommunicator(app, "/", max_unread=1)
    await slow.connect()
    async with WebsocketCommunicator(app, "/") as quick:
        for number in range(20):
            await app.state.consumers.broadcast("room", "news", number)
        for number in range(20):
            await quick.assert_event("news", number)
    await slow.wait()
    assert slow.close_code in (1013, None)  # None: a close cannot reach a socket that takes nothing
    assert nothing_left(app)


async def test_an_action_may_call_back_the_layer_without_waiting_for_itself(connect):
    from fastapi_consumers import event

    class Room(GroupConsumer):
        groups = ["room"]

        @action
        async def go(self) -> str:
            await self.channel_layer.group_send("room", {"type": "went"})
            return "gone"

        @event
        async def went(self, message):
            await self.send_event("went")

    async with connect(Room) as client:
        assert await client.call("go") == "gone"
        await client.assert_event("went")
