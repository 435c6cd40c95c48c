"""The verbs of the native wire protocol."""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import ormsgpack
import pytest

from fastapi_consumers.testing import CallError, SocketClosed, WebsocketCommunicator
from fastapi_consumers.types import ASGIApp, Receive, Scope, Send

Answer = Callable[[dict[str, Any]], list[Any]]


def answering(answer: Answer, *, msgpack: bool = False) -> ASGIApp:
    """An app that sends the frames that ``answer`` makes of each request; ``None`` closes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "fc.v1.msgpack" if msgpack else None})
        while (message := await receive())["type"] == "websocket.receive":
            request = ormsgpack.unpackb(message["bytes"]) if msgpack else json.loads(message["text"])
            for frame in answer(request):
                if frame is None:
                    await send({"type": "websocket.close", "code": 4400})
                    return
                if isinstance(frame, str):
                    await send({"type": "websocket.send", "text": frame})
                elif msgpack:
                    await send({"type": "websocket.send", "bytes": ormsgpack.packb(frame)})
                else:
                    await send({"type": "websocket.send", "text": json.dumps(frame)})

    return app


def reply(request: dict[str, Any], status: str = "ok", **more: Any) -> dict[str, Any]:
    return {"type": "reply", "action": request["action"], "request_id": request["request_id"], "status": status, **more}


def event(name: str, data: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "event", "event": name, "data": data, **more}


async def test_call_returns_the_data_of_its_reply_and_keeps_other_frames_in_order() -> None:
    other = {"type": "reply", "action": "x", "request_id": 1, "status": "ok", "data": "another's"}

    def answer(request: dict[str, Any]) -> list[Any]:
        return [event("a"), other, "not json", reply(request, data=request), event("b")]

    async with WebsocketCommunicator(answering(answer), "/") as communicator:
        first = await communicator.call("say", {"text": "hi"})
        assert first["action"] == "say"
        assert first["data"] == {"text": "hi"}
        assert "data" not in await communicator.call("say")
        for _ in range(2):
            assert await communicator.receive_json_from() == event("a")
            assert await communicator.receive_json_from() == other
            assert await communicator.receive_from() == "not json"
            assert await communicator.receive_json_from() == event("b")


async def test_each_call_has_a_request_id_of_its_own() -> None:
    async with WebsocketCommunicator(answering(lambda request: [reply(request, data=request)]), "/") as communicator:
        ids = {(await communicator.call("a"))["request_id"] for _ in range(3)}
    assert len(ids) == 3


async def test_an_error_reply_is_raised() -> None:
    error = {"code": "throttled", "message": "Too many.", "details": [1], "retryable": True, "retry_after": 2.5}

    async with WebsocketCommunicator(
        answering(lambda request: [reply(request, "error", error=error)]), "/"
    ) as communicator:
        with pytest.raises(
            CallError, match=r"'say' failed with 'throttled': Too many. \[1\] \(retry after 2.5 s\)"
        ) as e:
            await communicator.call("say")
    assert (e.value.code, e.value.message, e.value.details, e.value.retry_after) == ("throttled", "Too many.", [1], 2.5)
    assert e.value.reply["error"] == error
    assert e.value.retryable


async def test_an_error_reply_without_an_error_is_still_one() -> None:
    async with WebsocketCommunicator(answering(lambda request: [reply(request, "error")]), "/") as communicator:
        with pytest.raises(CallError) as caught:
            await communicator.call("say")
    assert caught.value.code is None


async def test_a_call_that_is_not_answered_says_what_came_instead() -> None:
    async with WebsocketCommunicator(answering(lambda request: [event("a")]), "/") as communicator:
        with pytest.raises(
            TimeoutError, match=r"(?s)the reply to 'say' \(call-1\); .* unread frames:.*\"event\": \"a\""
        ):
            await communicator.call("say", timeout=0.01)


async def test_a_socket_that_closes_instead_of_answering() -> None:
    async with WebsocketCommunicator(answering(lambda request: [event("a"), None]), "/") as communicator:
        with pytest.raises(SocketClosed) as caught:
            await communicator.call("say")
        assert caught.value.code == 4400
        await communicator.assert_event("a")


async def test_stream_yields_the_parts_until_the_final_reply() -> None:
    def answer(request: dict[str, Any]) -> list[Any]:
        parts = [reply(request, "partial", data=number) for number in range(3)]
        return [*parts[:2], event("a"), parts[2], reply(request, data=None)]

    async with WebsocketCommunicator(answering(answer), "/") as communicator:
        assert [part async for part in communicator.stream("tail", {"lines": 3})] == [0, 1, 2]
        await communicator.assert_event("a")
        assert await communicator.receive_nothing(timeout=0.01)


async def test_a_stream_that_fails() -> None:
    def answer(request: dict[str, Any]) -> list[Any]:
        return [reply(request, "partial", data=1), reply(request, "error", error={"code": "cancelled", "message": ""})]

    async with WebsocketCommunicator(answering(answer), "/") as communicator:
        parts: AsyncIterator[Any] = communicator.stream("tail")
        assert await anext(parts) == 1
        with pytest.raises(CallError, match="cancelled"):
            await anext(parts)


async def test_assert_no_event_looks_at_events_alone_and_leaves_everything_where_it_is() -> None:
    joined = {"type": "joined", "group": "chat.garden", "epoch": "x", "offset": 0}

    def answer(request: dict[str, Any]) -> list[Any]:
        return [joined, event("said", "hi", group="chat.lobby")] if request["action"] == "speak" else [joined, "x"]

    async with WebsocketCommunicator(answering(answer), "/") as communicator:
        await communicator.send_json_to({"action": "be quiet"})
        await communicator.assert_no_event(timeout=0.01)
        assert await communicator.receive_json_from() == joined
        assert await communicator.receive_from() == "x"
        await communicator.send_json_to({"action": "speak"})
        with pytest.raises(AssertionError, match=r"expected no such event for /\n  frame: .*'event': 'said'"):
            await communicator.assert_no_event(timeout=60)
        with pytest.raises(AssertionError):
            await communicator.assert_no_event("said", "chat.lobby")
        await communicator.assert_no_event("typed", timeout=0.01)
        await communicator.assert_no_event(group="chat.garden", timeout=0.01)
        await communicator.assert_no_event("said", None, timeout=0.01)
        await communicator.assert_event("said", "hi")
        await communicator.assert_no_event(timeout=0.01)
        assert await communicator.receive_json_from() == joined


async def test_assert_no_event_raises_what_the_app_failed_with() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raise ZeroDivisionError

    async with WebsocketCommunicator(app, "/") as communicator:
        with pytest.raises(ZeroDivisionError):
            await communicator.assert_no_event(timeout=60)


async def test_assert_event_takes_the_next_event_and_leaves_the_rest() -> None:
    said = event("said", {"text": "hi"}, group="chat.lobby")

    def answer(request: dict[str, Any]) -> list[Any]:
        return [reply(request), {"type": "joined"}, said, said, event("other")]

    async with WebsocketCommunicator(answering(answer), "/") as communicator:
        await communicator.send_json_to({"action": "say", "request_id": 7})
        assert await communicator.assert_event("said", {"text": "hi"}, "chat.lobby") == said
        await communicator.assert_event("said")
        with pytest.raises(AssertionError, match=r"event: expected 'said', got 'other'\n  data: expected 1, got None"):
            await communicator.assert_event("said", 1)
        assert (await communicator.receive_json_from())["request_id"] == 7
        assert (await communicator.receive_json_from())["type"] == "joined"
        with pytest.raises(TimeoutError, match="for event 'said'"):
            await communicator.assert_event("said", timeout=0.01)


async def test_an_event_without_group_can_be_asked_for() -> None:
    async with WebsocketCommunicator(
        answering(lambda request: [event("a"), event("a", group="g")]), "/"
    ) as communicator:
        await communicator.send_json_to({})
        await communicator.assert_event("a", None, None)
        with pytest.raises(AssertionError, match="group: expected None, got 'g'"):
            await communicator.assert_event("a", group=None)


@pytest.fixture
def unpackable() -> Callable[[], Awaitable[None]]:
    async def connect() -> None:
        async with WebsocketCommunicator(answering(lambda _: [], msgpack=True), "/") as communicator:
            await communicator.send_json_to({})

    return connect


async def test_messagepack_is_used_where_it_was_accepted() -> None:
    def answer(request: dict[str, Any]) -> list[Any]:
        return [event("a", b"bytes"), reply(request, data=request["data"]), event("b"), "text"]

    app = answering(answer, msgpack=True)
    async with WebsocketCommunicator(app, "/", subprotocols=["fc.v1.msgpack"]) as communicator:
        assert await communicator.call("say", {"n": 1}) == {"n": 1}
        await communicator.assert_event("a", b"bytes")
        assert await communicator.receive_json_from() == event("b")
        with pytest.raises(ValueError, match="expected a binary frame of MessagePack, got text: 'text'"):
            await communicator.receive_json_from()


async def test_bytes_that_are_no_messagepack() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", "subprotocol": "fc.v1.msgpack"})
        await send({"type": "websocket.send", "bytes": b"\xc1"})

    async with WebsocketCommunicator(app, "/") as communicator:
        with pytest.raises(ValueError, match="the frame is not MessagePack"):
            await communicator.receive_json_from()


async def test_messagepack_without_ormsgpack_says_what_to_install(
    unpackable: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ormsgpack", None)
    with pytest.raises(RuntimeError, match=r"pip install 'fastapi_consumers\[msgpack\]'"):
        await unpackable()
