import asyncio
import math
import sys
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException
from starlette.responses import PlainTextResponse

from fastapi_consumers.testing import HandshakeRefused, SocketClosed, WebsocketCommunicator
from fastapi_consumers.types import Receive, Scope, Send


async def accepted(receive: Receive, send: Send, **extra: object) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", **extra})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "websocket"
    await accepted(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Boom(Exception):
    pass


# Scope


async def scope_of(path: str, *args: Any, **options: Any) -> Scope:
    communicator = WebsocketCommunicator(echo, path, *args, **options)
    async with communicator:
        return communicator.scope


async def test_the_path_is_decoded_and_its_raw_form_and_query_kept() -> None:
    scope = await scope_of("/chat/a%2Fb%20c/ü?x=1&y=%C3%BC&z=a b")
    assert scope["path"] == "/chat/a/b c/ü"
    assert scope["raw_path"] == b"/chat/a%2Fb%20c/%C3%BC"
    assert scope["query_string"] == b"x=1&y=%C3%BC&z=a%20b"
    assert scope["root_path"] == ""
    assert scope["client"] == ("testclient", 50000)
    assert scope["state"] == {}
    assert scope["extensions"] == {}


def test_a_path_without_slash_is_refused() -> None:
    with pytest.raises(ValueError, match='must start with "/"'):
        WebsocketCommunicator(echo, "ws://testserver/chat")


@pytest.mark.parametrize("headers", [[(b"X-A", "1"), ("x-a", b"2")], [("X-A", "1"), ("X-A", "2")]])
async def test_headers_are_pairs_of_str_or_bytes(headers: list[tuple[str, str]]) -> None:
    assert (await scope_of("/", headers))["headers"] == [(b"host", b"testserver"), (b"x-a", b"1"), (b"x-a", b"2")]


async def test_headers_may_be_a_mapping_and_replace_the_host() -> None:
    assert (await scope_of("/", {"Host": "a.example"}))["headers"] == [(b"host", b"a.example")]


async def test_subprotocols_and_their_header_go_together() -> None:
    offered = await scope_of("/", subprotocols=["a", "b"])
    assert offered["subprotocols"] == ["a", "b"]
    assert (b"sec-websocket-protocol", b"a, b") in offered["headers"]
    assert (await scope_of("/", [("Sec-WebSocket-Protocol", "a, b")]))["subprotocols"] == ["a", "b"]


async def test_scope_can_be_extended_and_changed() -> None:
    communicator = WebsocketCommunicator(echo, "/", scope={"scheme": "wss", "state": {"a": 1}}, client=None)
    communicator.scope["user"] = "ann"
    async with communicator:
        assert communicator.scope["scheme"] == "wss"
        assert communicator.scope["client"] is None
        assert communicator.scope["user"] == "ann"
        assert communicator.scope["state"] == {"a": 1}


# Connecting


async def test_connect_tells_the_subprotocol_and_the_headers() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send, subprotocol="b", headers=[(b"x", b"1")])
        await receive()

    communicator = WebsocketCommunicator(app, "/", subprotocols=["a", "b"])
    assert await communicator.connect() == (True, "b")
    assert communicator.subprotocol == "b"
    assert communicator.accept_headers == [(b"x", b"1")]
    with pytest.raises(RuntimeError, match="connected before"):
        await communicator.connect()
    await communicator.disconnect()


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 4403, "reason": "no"})
    assert await receive() == {"type": "websocket.disconnect", "code": 1006, "reason": "no"}


async def test_a_refused_socket_tells_the_code() -> None:
    communicator = WebsocketCommunicator(refuse, "/")
    assert await communicator.connect() == (False, 4403)
    assert (communicator.close_code, communicator.close_reason) == (4403, "no")
    with pytest.raises(SocketClosed) as caught:
        await communicator.receive_from()
    assert caught.value.code == 4403
    await communicator.disconnect()


async def test_async_with_raises_when_refused_and_ends_the_app() -> None:
    communicator = WebsocketCommunicator(refuse, "/a")
    with pytest.raises(HandshakeRefused, match="refused /a with close code 4403: no") as caught:
        await communicator.__aenter__()
    assert (caught.value.code, caught.value.reason) == (4403, "no")
    assert isinstance(caught.value, ConnectionRefusedError)
    assert not communicator.is_running


async def test_an_app_that_refuses_and_then_fails_is_noted() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close"})
        raise Boom("later")

    with pytest.raises(HandshakeRefused) as caught:
        async with WebsocketCommunicator(app, "/"):
            pass
    assert caught.value.__notes__ == ["and then the app raised Boom('later')"]


async def test_a_route_that_is_not_there_is_refused() -> None:
    assert await WebsocketCommunicator(FastAPI(), "/nowhere").connect() == (False, 1000)


async def test_what_the_app_raises_before_accept_is_raised() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Boom

    with pytest.raises(Boom):
        await WebsocketCommunicator(app, "/").connect()
    with pytest.raises(Boom):
        async with WebsocketCommunicator(app, "/"):
            pass


async def test_an_app_that_returns_undecided_is_an_error() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    with pytest.raises(RuntimeError, match="without having accepted or closed /x"):
        await WebsocketCommunicator(app, "/x").connect()


async def test_a_timeout_of_connect_leaves_the_app_running_and_can_be_waited_on() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await echo(scope, receive, send)

    communicator = WebsocketCommunicator(app, "/", run_lifespan=False)
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for the app to accept or to close.* still runs"):
        await communicator.connect(timeout=0.01)
    with pytest.raises(RuntimeError, match="not open"):
        await communicator.send_to("a")
    go.set()
    assert await communicator.connect() == (True, None)
    await communicator.disconnect()


async def test_leaving_before_accept() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await send({"type": "websocket.accept"})

    communicator = WebsocketCommunicator(app, "/", run_lifespan=False)
    with pytest.raises(TimeoutError):
        await communicator.connect(timeout=0)
    await communicator.send_input({"type": "websocket.disconnect"})
    with pytest.raises(SocketClosed, match="before the app had accepted"):
        await communicator.connect()
    go.set()
    await communicator.disconnect()


async def test_async_with_that_times_out_leaves_no_app_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        ended.append((await receive())["type"])

    communicator = WebsocketCommunicator(app, "/", run_lifespan=False)
    connect = communicator.connect
    monkeypatch.setattr(communicator, "connect", lambda: connect(timeout=0.01))
    with pytest.raises(TimeoutError):
        await communicator.__aenter__()
    assert ended == ["websocket.disconnect"]


# Denial


def denying() -> FastAPI:
    app = FastAPI()

    @app.websocket("/")
    async def deny(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("go away", 418, {"x-why": "tea"}))

    return app


async def test_a_denial_response_is_kept() -> None:
    communicator = WebsocketCommunicator(denying(), "/", denial_response=True)
    assert await communicator.connect() == (False, 418)
    assert communicator.denial is not None
    assert communicator.denial.status == 418
    assert communicator.denial.body == b"go away"
    assert (b"x-why", b"tea") in communicator.denial.headers
    with pytest.raises(HandshakeRefused, match="HTTP status 418: b'go away'") as caught:
        async with WebsocketCommunicator(denying(), "/", denial_response=True):
            pass
    assert caught.value.code == 418
    assert caught.value.denial == communicator.denial


async def test_without_the_extension_there_is_no_denial_response() -> None:
    with pytest.raises(RuntimeError, match="Denial Response"):
        await WebsocketCommunicator(denying(), "/").connect()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 403})

    with pytest.raises(RuntimeError, match=r"is connecting; expected websocket\.accept or websocket\.close$"):
        await WebsocketCommunicator(app, "/").connect()


# Frames


async def test_text_bytes_and_empty_frames_go_round_in_order() -> None:
    async with WebsocketCommunicator(echo, "/") as communicator:
        await communicator.send_to("")
        await communicator.send_to(bytes_data=b"")
        await communicator.send_to(text_data="ü")
        await communicator.send_json_to([1, math.inf])
        assert await communicator.receive_from() == ""
        assert await communicator.receive_from() == b""
        assert await communicator.receive_output() == {"type": "websocket.send", "text": "ü"}
        assert await communicator.receive_json_from() == [1, math.inf]


@pytest.mark.parametrize("frame", [{}, {"text_data": "a", "bytes_data": b""}, {"text_data": b"a"}, {"bytes_data": "a"}])
async def test_send_to_takes_exactly_one_of_text_and_bytes(frame: dict[str, object]) -> None:
    async with WebsocketCommunicator(echo, "/") as communicator:
        with pytest.raises(TypeError, match=r"_data"):
            await communicator.send_to(**frame)


async def test_receive_json_from_says_what_is_wrong_with_a_frame() -> None:
    async with WebsocketCommunicator(echo, "/") as communicator:
        await communicator.send_to(bytes_data=b"{}")
        await communicator.send_to("{")
        with pytest.raises(ValueError, match=r"expected a text frame of JSON, got binary: b'{}'"):
            await communicator.receive_json_from()
        with pytest.raises(ValueError, match=r"the frame is not JSON: .*: '{'"):
            await communicator.receive_json_from()


async def test_a_timeout_of_receive_never_cancels_the_app() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        await go.wait()
        await send({"type": "websocket.send", "text": "late"})
        await receive()

    async with WebsocketCommunicator(app, "/a") as communicator:
        with pytest.raises(
            TimeoutError, match=r"waited 0\.01 s for a frame; the app behind /a still runs, and is busy"
        ):
            await communicator.receive_from(timeout=0.01)
        with pytest.raises(TimeoutError, match="for the app to end"):
            await communicator.wait(timeout=0)
        go.set()
        assert await communicator.receive_from() == "late"
        with pytest.raises(TimeoutError, match="still runs, and waits for a frame; no frame of it is unread"):
            await communicator.receive_output(timeout=0.01)


async def test_the_timeout_of_calls_that_name_none_is_the_class_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WebsocketCommunicator, "default_timeout", 0.02)
    async with WebsocketCommunicator(echo, "/") as communicator:
        with pytest.raises(TimeoutError, match=r"waited 0\.02 s for a frame"):
            await communicator.receive_from()
        with pytest.raises(TimeoutError, match=r"waited 0\.01 s for a frame"):
            await communicator.receive_from(timeout=0.01)
    monkeypatch.setattr(WebsocketCommunicator, "default_timeout", None)
    async with WebsocketCommunicator(echo, "/") as communicator:
        waiting = asyncio.create_task(communicator.receive_from())
        await asyncio.sleep(0.05)
        await communicator.send_to("a")
        assert await waiting == "a"


async def test_a_frame_that_comes_with_the_timeout_is_taken() -> None:
    async with WebsocketCommunicator(echo, "/") as communicator:
        await communicator.send_to("a")
        assert await communicator.receive_from(timeout=0) == "a"


async def test_receive_nothing() -> None:
    async with WebsocketCommunicator(echo, "/") as communicator:
        assert await communicator.receive_nothing(timeout=0.01)
        await communicator.send_to("a")
        assert not await communicator.receive_nothing(timeout=10)
        assert await communicator.receive_from() == "a"
    assert await communicator.receive_nothing(timeout=10)


async def test_receive_nothing_does_not_hide_a_crash() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        raise Boom

    async with WebsocketCommunicator(app, "/") as communicator:
        with pytest.raises(Boom):
            await communicator.receive_nothing(timeout=10)


# The end


async def test_the_app_closes() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        await send({"type": "websocket.send", "text": "last"})
        await send({"type": "websocket.close", "code": 4400, "reason": "bad"})
        for _ in range(2):
            assert await receive() == {"type": "websocket.disconnect", "code": 4400, "reason": "bad"}
        with pytest.raises(RuntimeError, match="nothing may follow"):
            await send({"type": "websocket.send", "text": "more"})

    async with WebsocketCommunicator(app, "/") as communicator:
        assert await communicator.assert_closed(4400) == 4400
        with pytest.raises(AssertionError, match=r"closed with code 1000, got 4400 'bad'; unread frames:\n  'last'"):
            await communicator.assert_closed(1000)
        assert communicator.close_code == 4400
        assert not await communicator.receive_nothing()
        assert await communicator.receive_from() == "last"
        for _ in range(2):
            with pytest.raises(SocketClosed, match="closed the socket with code 4400: bad") as caught:
                await communicator.receive_from()
        assert (caught.value.code, caught.value.reason) == (4400, "bad")
        with pytest.raises(SocketClosed):
            await communicator.send_to("a")
        assert (await communicator.receive_output())["type"] == "websocket.close"
        with pytest.raises(SocketClosed):
            await communicator.receive_output()
        await communicator.wait()


async def test_the_app_returns_without_closing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)

    async with WebsocketCommunicator(app, "/") as communicator:
        with pytest.raises(SocketClosed, match="the app returned without closing the socket") as caught:
            await communicator.receive_from()
        assert caught.value.code == 1006
        assert await communicator.assert_closed() == 1006
        assert communicator.close_code is None


async def test_assert_closed_of_an_open_socket() -> None:
    async with WebsocketCommunicator(echo, "/") as communicator:
        with pytest.raises(TimeoutError, match="to close the socket with code 1000"):
            await communicator.assert_closed(1000, timeout=0)


async def crash(scope: Scope, receive: Receive, send: Send) -> None:
    await accepted(receive, send)
    await send({"type": "websocket.send", "text": "before"})
    await receive()
    raise Boom


async def test_a_crash_is_raised_by_the_call_that_waits_and_not_again_at_the_end() -> None:
    async with WebsocketCommunicator(crash, "/") as communicator:
        await communicator.send_to("go")
        assert await communicator.receive_from() == "before"
        with pytest.raises(Boom):
            await communicator.receive_from()
        with pytest.raises(Boom):
            await communicator.send_to("more")
        with pytest.raises(Boom):
            await communicator.wait()
        with pytest.raises(Boom):
            await communicator.assert_closed()


async def test_a_crash_that_nobody_saw_is_raised_by_disconnect_once() -> None:
    communicator = WebsocketCommunicator(crash, "/")
    await communicator.connect()
    with pytest.raises(Boom):
        await communicator.disconnect()
    await communicator.disconnect()


async def test_a_crash_while_leaving_does_not_hide_what_the_block_raised() -> None:
    with pytest.raises(KeyError) as caught:
        async with WebsocketCommunicator(crash, "/a"):
            raise KeyError
    assert caught.value.__notes__ == ["and then, when /a was disconnected: Boom()"]


async def test_the_block_that_raises_disconnects() -> None:
    communicator = WebsocketCommunicator(echo, "/")
    with pytest.raises(KeyError):
        async with communicator:
            raise KeyError
    assert not communicator.is_running


async def test_disconnect_is_safe_at_any_time() -> None:
    communicator = WebsocketCommunicator(echo, "/")
    await communicator.disconnect()
    await communicator.connect()
    await communicator.send_to("unread")
    assert not await communicator.receive_nothing()
    await communicator.disconnect(1001)
    await communicator.disconnect()
    assert await communicator.receive_from() == "unread"
    with pytest.raises(SocketClosed, match="this side disconnected with code 1001"):
        await communicator.receive_from()
    assert communicator.close_code is None


async def test_the_app_is_told_the_code_of_disconnect() -> None:
    codes: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        codes.append((await receive())["code"])
        await send({"type": "websocket.close"})  # too late, and harmless
        with pytest.raises(OSError, match="after the client had disconnected with code 3000"):
            await send({"type": "websocket.send", "text": "too late"})

    communicator = WebsocketCommunicator(app, "/")
    await communicator.connect()
    await communicator.disconnect(3000)
    assert codes == [3000]


async def test_disconnect_that_times_out_leaves_the_app_running() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        await go.wait()

    communicator = WebsocketCommunicator(app, "/")
    await communicator.connect()
    with pytest.raises(TimeoutError, match="to end after a disconnect with code 1000"):
        await communicator.disconnect(timeout=0.01)
    assert communicator.is_running
    go.set()
    await communicator.disconnect()
    assert not communicator.is_running


async def test_the_usual_end_of_a_fastapi_endpoint_is_no_error() -> None:
    app = FastAPI()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    async with WebsocketCommunicator(app, "/") as communicator:
        await communicator.send_to("a")
        assert await communicator.receive_from() == "a"
    await communicator.wait()


async def test_fastapi_closes_with_the_code_of_its_exception() -> None:
    app = FastAPI()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        raise WebSocketException(4401, "who?")

    assert await WebsocketCommunicator(app, "/").connect() == (False, 4401)


async def test_a_websocket_disconnect_out_of_the_blue_is_an_error() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        raise WebSocketDisconnect

    async with WebsocketCommunicator(app, "/") as communicator:
        with pytest.raises(WebSocketDisconnect):
            await communicator.receive_from()


async def test_cancel_ends_the_app_as_a_killed_server_does() -> None:
    cleaned: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        try:
            await receive()
        finally:
            cleaned.append(True)

    async with WebsocketCommunicator(app, "/") as communicator:
        await communicator.cancel()
        assert cleaned == [True]
        with pytest.raises(SocketClosed, match="the app was cancelled"):
            await communicator.receive_from()


# A slow client


async def test_max_unread_makes_the_app_wait_until_the_client_reads() -> None:
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        for number in range(4):
            await send({"type": "websocket.send", "text": str(number)})
            sent.append(number)
        await receive()

    async with WebsocketCommunicator(app, "/", max_unread=1) as communicator:
        with pytest.raises(TimeoutError, match=r"is busy; unread frames:\n  '0'\n  '1'"):
            await communicator.wait(timeout=0.01)
        assert sent == [0]
        assert [await communicator.receive_from() for _ in range(4)] == ["0", "1", "2", "3"]
        assert await communicator.receive_nothing(timeout=0.01)
        assert sent == [0, 1, 2, 3]


async def test_a_send_that_waits_ends_when_the_client_goes() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        with pytest.raises(OSError, match="before it had read"):
            await send({"type": "websocket.send", "text": "a"})

    async with WebsocketCommunicator(app, "/", max_unread=0):
        pass


# Misuse


@pytest.mark.parametrize(
    "message", [{}, {"text": "a", "bytes": b"a"}, {"text": b"a"}, {"bytes": "a"}, {"text": None, "bytes": None}]
)
async def test_a_bad_frame_of_the_app_is_an_error_in_the_app(message: dict[str, object]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        await send({"type": "websocket.send", **message})

    async with WebsocketCommunicator(app, "/") as communicator:
        with pytest.raises(TypeError, match="either text"):
            await communicator.receive_from()


async def test_a_message_out_of_turn_is_an_error_in_the_app() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "text": "a"})

    with pytest.raises(
        RuntimeError, match=r"'websocket.send' to a socket that is connecting; expected websocket.accept"
    ):
        await WebsocketCommunicator(app, "/").connect()


async def test_an_unconnected_communicator_says_so() -> None:
    communicator = WebsocketCommunicator(echo, "/a")
    with pytest.raises(RuntimeError, match="/a is not connected: call connect"):
        await communicator.receive_from()
    assert repr(communicator) == "<WebsocketCommunicator /a new>"


def test_another_event_loop_is_refused() -> None:
    with asyncio.Runner() as first, asyncio.Runner() as second:
        communicator = WebsocketCommunicator(echo, "/")
        first.run(communicator.connect())
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run(communicator.receive_from())
        first.run(communicator.disconnect())


async def test_an_app_that_never_stops_asking_does_not_stop_the_loop() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(receive, send)
        while True:
            await receive()

    communicator = WebsocketCommunicator(app, "/")
    await communicator.connect()
    with pytest.raises(TimeoutError):
        await communicator.disconnect(timeout=0.01)
    await communicator.tear_down(timeout=0.01)
    assert not communicator.is_running


async def test_many_unread_frames_are_summed_up() -> None:
    async with WebsocketCommunicator(echo, "/") as communicator:
        for _ in range(12):
            await communicator.send_to("x" * 300)
        with pytest.raises(TimeoutError, match=r"x…\n  and 2 more$"):
            await communicator.wait(timeout=0.01)


async def test_any_message_can_be_handed_to_the_app() -> None:
    async with WebsocketCommunicator(echo, "/") as communicator:
        await communicator.send_input({"type": "websocket.receive", "text": "raw"})
        assert await communicator.receive_from() == "raw"


def test_the_communicator_imports_nothing_of_the_framework_but_types() -> None:
    # Measured in tests/test_package.py for the package as a whole; here: what it names itself.
    module = sys.modules[WebsocketCommunicator.__module__]
    used = {getattr(value, "__module__", "") for value in vars(module).values()}
    inside = {name for name in used if name.startswith("fastapi_consumers.")}
    assert all(name.startswith("fastapi_consumers.testing") or name == "fastapi_consumers.types" for name in inside)
