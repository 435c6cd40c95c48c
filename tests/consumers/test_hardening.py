"""What a hostile client, a broken validator, a bad server or a wrong option may not do to a connection."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager

import ormsgpack
import pytest
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, field_validator
from starlette.datastructures import Headers

from fastapi_consumers import (
    ConsumerError,
    GroupConsumer,
    JSONConsumer,
    PermissionDenied,
    action,
    add_consumers,
    path,
)
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.origins import is_allowed_origin
from fastapi_consumers.permissions import BasePermission
from fastapi_consumers.serializers import RequestSerializer
from fastapi_consumers.testing import CallError, WebsocketCommunicator, lifespan


class Peer:
    """A server with one client, of which a test sees everything and decides how ``send`` behaves.

    Args:
        on_send: awaited with each message before it is taken.
    """

    def __init__(self, app, on_send=None):
        self.sent = []
        self.incoming = asyncio.Queue()
        self.on_send = on_send
        self._changed = asyncio.Event()
        self.incoming.put_nowait({"type": "websocket.connect"})
        scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "subprotocols": []}
        self.task = asyncio.create_task(app(scope, self.incoming.get, self._send))

    async def _send(self, message):
        if self.on_send is not None:
            await self.on_send(message)
        self.sent.append(message)
        self._changed.set()

    @property
    def frames(self):
        return [json.loads(message["text"]) for message in self.sent if message["type"] == "websocket.send"]

    def put(self, *requests):
        for request in requests:
            self.incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(request)})

    async def until(self, count):
        """Wait for this many messages in all."""
        async with asyncio.timeout(20):
            while len(self.sent) < count:
                self._changed.clear()
                await self._changed.wait()

    async def leave(self):
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self.ended()

    async def ended(self):
        async with asyncio.timeout(20):
            await self.task


class Room(GroupConsumer):
    groups = ["room"]

    @action
    async def ping(self) -> str:
        return "pong"


@pytest.fixture
def connect(make_app):
    """``connect(ConsumerClass, **options of the communicator)``."""
    return lambda consumer, **options: WebsocketCommunicator(make_app(path("/", consumer)), "/", **options)


async def code_of(client, name, data=None):
    with pytest.raises(CallError) as caught:
        await client.call(name, data)
    return caught.value.code


# Code that looks at what clients send


class Colour(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def known(cls, value):
        return {"red": "#f00"}[value]


class BrokenField(RequestSerializer):
    name: str = "red"

    @field_validator("name")
    @classmethod
    def known(cls, value):
        return {"red": "#f00"}[value]


class BrokenData(RequestSerializer):
    model_config = {"extra": "allow"}

    def get_data(self):
        return {"name": {"red": "#f00"}[self.model_extra.get("name", "red")]}


class Painting(JSONConsumer):
    @action
    async def paint(self, data: Colour) -> str:
        return data.name


class PaintingFlat(JSONConsumer):
    request_serializer_class = BrokenField

    @action
    async def paint(self, name: str) -> str:
        return name


class PaintingOwn(PaintingFlat):
    request_serializer_class = BrokenData


@pytest.mark.parametrize(
    ("consumer", "payload"),
    [
        (Painting, lambda name: {"data": {"name": name}}),
        (PaintingFlat, lambda name: {"name": name}),
        (PaintingOwn, lambda name: {"name": name}),
    ],
    ids=["action's validator", "envelope's validator", "get_data()"],
)
async def test_a_key_error_in_the_code_that_reads_a_request_answers_that_request_and_is_logged(
    connect, caplog, consumer, payload
):
    async with connect(consumer) as client:
        await client.send_json_to({"action": "paint", "request_id": 1, **payload("blue")})
        answer = await client.receive_json_from()
        assert (answer["type"], answer["request_id"], answer["status"]) == ("reply", 1, "error")
        assert answer["error"]["code"] == "internal_error"
        assert "blue" not in json.dumps(answer)
        await client.send_json_to({"action": "paint", "request_id": 2, **payload("red")})
        answer = await client.receive_json_from()
        assert (answer["request_id"], answer["data"]) == (2, "#f00")
        assert await client.receive_nothing(0)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert isinstance(record.exc_info[1], KeyError)


async def test_the_text_of_a_value_error_in_decode_json_does_not_reach_the_client(connect):
    class Leaking(JSONConsumer):
        @classmethod
        def decode_json(cls, text_data):
            return int("postgres://user:secret@host/")

    async with connect(Leaking) as client:
        await client.send_to("{}")
        text = await client.receive_from()
        assert json.loads(text)["error"]["code"] == "invalid_frame"
        assert "secret" not in text
        assert client.is_connected


# Floods of what is wrong


class Counting(JSONConsumer):
    @action
    async def total(self, data: list[int]) -> int:
        return sum(data)

    @action
    async def ping(self) -> str:
        return "pong"


async def test_thousands_of_errors_in_one_payload_are_told_as_one(connect):
    async with connect(Counting) as client:
        with pytest.raises(CallError) as caught:
            await client.call("total", ["x"] * 5000)
        assert caught.value.code == "invalid_data"
        (detail,) = caught.value.details
        assert detail["type"] == "too_many_errors"
        assert "5000" in detail["message"]


async def test_a_few_errors_are_told_one_by_one(connect):
    async with connect(Counting) as client:
        with pytest.raises(CallError) as caught:
            await client.call("total", ["x"] * 20)
        assert [detail["loc"] for detail in caught.value.details] == [[number] for number in range(20)]


@pytest.mark.parametrize(
    "wrong",
    [{"action": "total", "data": ["x"], "request_id": 1}, {"action": "nope"}, {"data": 1}],
    ids=["invalid data", "unknown action", "no request"],
)
async def test_another_connection_is_served_between_the_wrong_frames_of_one(make_app, wrong):
    class Tolerant(Counting):
        max_bad_frames = 100

    app, order = make_app(path("/", Tolerant)), []

    async def noting(message):
        if message["type"] == "websocket.send":
            order.append(json.loads(message["text"]).get("data"))

    flooding, other = Peer(app, noting), Peer(app, noting)
    await flooding.until(1)
    await other.until(1)
    # All of it is there at once, and fewer than FAIR_SHARE, after which others get their turn in any case.
    flooding.put(*[wrong] * 50)
    other.put({"action": "ping"})
    await flooding.until(51)
    await other.until(2)
    assert len(order) == 51
    assert order.index("pong") <= 2
    await flooding.leave()
    await other.leave()


async def test_throttled_garbage_for_an_own_receive_json_is_answered_throttled(connect):
    class Own(JSONConsumer):
        throttle_classes = ["1/hour"]

        async def receive_json(self, content):
            await self.send_json({"got": content})

    async with connect(Own) as client:
        await client.send_json_to({"a": 1})
        assert await client.receive_json_from() == {"got": {"a": 1}}
        for text in ("{bad", "", "[1]"):
            await client.send_to(text)
            assert (await client.receive_json_from())["error"]["code"] == "throttled"


# Servers and middleware


@pytest.mark.parametrize("members", [2, 3])
async def test_members_whose_sends_wait_for_one_shared_future_all_get_the_event(make_app, members):
    app, gates = make_app(path("/", Room)), []

    async def waiting(message):
        if message["type"] == "websocket.send" and gates:
            await gates[0]

    peers = [Peer(app, waiting) for _ in range(members)]
    for peer in peers:
        await peer.until(1)
    gates.append(asyncio.get_running_loop().create_future())
    await app.state.consumers.broadcast("room", "hello", 1)
    assert all(not peer.frames for peer in peers)
    gates.pop().set_result(None)
    for peer in peers:
        await peer.until(2)
        peer.put({"action": "ping", "request_id": 1})
        await peer.until(3)
        assert [frame.get("event") or frame["data"] for frame in peer.frames] == ["hello", "pong"]
        await peer.leave()


async def fail_once(make_app, way):
    codes, failing = [], []

    class Watched(Room):
        async def disconnect(self, code):
            codes.append(code)

    async def broken(message):
        if failing and message["type"] == "websocket.send":
            raise failing.pop()

    app = make_app(path("/", Watched))
    peer = Peer(app, broken)
    await peer.until(1)
    failing.append(RuntimeError("a middleware's bug"))
    if way == "broadcast":
        await app.state.consumers.broadcast("room", "hello", 1)
    else:
        peer.put({"action": "ping", "request_id": 1})
    peer.put({"action": "ping", "request_id": 2})
    await peer.ended()
    assert codes == [1011]
    assert not failing
    assert not peer.frames
    return peer


@pytest.mark.parametrize("way", ["broadcast", "reply"])
async def test_a_send_that_fails_once_while_nobody_works_ends_with_1011_at_the_next_frame(make_app, way):
    await fail_once(make_app, way)


@pytest.mark.parametrize("way", ["broadcast", "reply"])
async def test_a_client_whose_server_failed_once_is_told_1011(make_app, way):
    peer = await fail_once(make_app, way)
    assert [message["type"] for message in peer.sent] == ["websocket.accept", "websocket.close"]
    assert peer.sent[-1]["code"] == 1011


async def test_a_close_that_an_actions_timeout_interrupts_is_sent_once(make_app):
    codes = []

    class Closing(JSONConsumer):
        @action(timeout=0.01)
        async def bye(self) -> None:
            await self.close(4000)

        async def disconnect(self, code):
            codes.append(code)

    closes = []

    async def slow(message):
        if message["type"] == "websocket.close":
            closes.append(message["code"])
            await asyncio.get_running_loop().create_future()

    peer = Peer(make_app(path("/", Closing), write_timeout=0.2), slow)
    await peer.until(1)
    peer.put({"action": "bye", "request_id": 1})
    await peer.ended()
    assert closes == [4000]
    assert codes == [4000]


# Refused handshakes


async def test_handshakes_whose_authentication_raises_an_http_exception_count_for_connection_throttles(make_app):
    class Guessing(BaseAuthentication):
        async def authenticate(self, connection):
            raise HTTPException(401, "bad token")

    class Closed(JSONConsumer):
        authentication_classes = [Guessing]
        connection_throttle_classes = ["2/hour"]

    app = make_app(path("/", Closed))
    statuses = []
    for _ in range(4):
        client = WebsocketCommunicator(app, "/", denial_response=True)
        statuses.append(await client.connect())
        await client.disconnect()
    assert statuses == [(False, 401), (False, 401), (False, 429), (False, 429)]


class Never(BasePermission):
    async def has_permission(self, consumer, action=None):
        raise PermissionDenied("Not you.", code="not_you")


class Refusing(JSONConsumer):
    accept_refused = True
    permission_classes = [Never]


async def test_a_refusal_that_is_accepted_echoes_the_json_subprotocol(connect):
    client = connect(Refusing, subprotocols=["other", "fc.v1.json"])
    assert await client.connect() == (True, "fc.v1.json")
    assert (await client.receive_json_from())["error"]["code"] == "not_you"
    await client.assert_closed(4403)
    await client.disconnect()


async def test_a_refusal_that_is_accepted_speaks_messagepack_where_that_is_offered(connect):
    client = connect(Refusing, subprotocols=["fc.v1.msgpack"])
    assert await client.connect() == (True, "fc.v1.msgpack")
    message = await client.receive_output()
    assert isinstance(message.get("bytes"), bytes)
    assert ormsgpack.unpackb(message["bytes"])["error"]["code"] == "not_you"
    await client.assert_closed(4403)
    await client.disconnect()


async def test_a_refusal_that_is_accepted_without_subprotocols_is_plain_json(connect):
    client = connect(Refusing)
    assert await client.connect() == (True, None)
    assert json.loads(await client.receive_from())["error"]["code"] == "not_you"
    await client.disconnect()


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("ftp://example.com", "example.com", False),
        ("ftp://example.com:80", "example.com", False),
        ("file://example.com:443", "example.com", False),
        ("http://example.com:0", "example.com", False),
        ("https://example.com:0", "example.com", False),
        ("http://example.com", "example.com:0", False),
        ("http://example.com:0", "example.com:0", True),
        ("http://example.com:80", "example.com", True),
        ("http://example.com", "example.com", True),
    ],
)
def test_only_pages_of_the_web_and_of_the_same_port_are_of_the_same_host(origin, host, allowed):
    assert is_allowed_origin(Headers({"host": host, "origin": origin}).raw, "ws", None) is allowed


@pytest.mark.parametrize("mark", ["#", "?", "\\"])
def test_a_wildcard_does_not_cross_what_ends_a_host(mark):
    allowed = ("https://*.example.com",)
    headers = Headers(raw=[(b"origin", f"https://evil.test{mark}.example.com".encode())])
    assert not is_allowed_origin(headers.raw, "wss", allowed)
    assert is_allowed_origin(Headers({"origin": "https://a.b.example.com"}).raw, "wss", allowed)


# Shutdown


async def test_at_shutdown_the_hooks_of_open_sockets_run_before_the_apps_own_lifespan_ends():
    steps = []

    @asynccontextmanager
    async def database(app):
        steps.append("open")
        yield
        steps.append("close")

    class Hooked(Room):
        async def on_leave(self, group):
            steps.append(f"leave {group}")

        async def disconnect(self, code):
            steps.append(f"disconnect {code}")

    app = FastAPI(lifespan=database)
    add_consumers(app, [path("/", Hooked)])
    async with lifespan(app):
        client = WebsocketCommunicator(app, "/")
        assert await client.connect() == (True, None)
    assert steps == ["open", "leave room", "disconnect 1012", "close"]
    await client.assert_closed(1012)


# Close codes

UNSENDABLE = [0, 99, 999, 1004, 1005, 1006, 1015, 2999, 5000, 70000, -1]


class Leaving(Room):
    @action
    async def bye(self, code: int) -> str:
        with pytest.raises(ValueError, match="no close code that may be sent"):
            await self.close(code)
        return "still here"

    @action
    async def fail(self, code: int) -> str:
        with pytest.raises(ValueError, match="no close code that may be sent"):
            raise ConsumerError("no", "No.", close_code=code)
        return "still here"

    @action
    async def unguarded(self, code: int) -> None:
        await self.close(code)


@pytest.mark.parametrize("code", UNSENDABLE)
async def test_a_close_code_that_cannot_be_sent_is_a_value_error_and_closes_nothing(connect, code):
    async with connect(Leaving) as client:
        for name in ("bye", "fail"):
            assert await client.call(name, {"code": code}) == "still here"
        with pytest.raises(ValueError, match="no close code that may be sent"):
            await client.app.state.consumers.disconnect(group="room", code=code)
        assert await code_of(client, "unguarded", {"code": code}) == "internal_error"
        assert await client.call("ping") == "pong"


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1014, 3000, 4000, 4999])
async def test_every_close_code_that_can_be_sent_is(connect, code):
    async with connect(Leaving) as client:
        await client.send_json_to({"action": "unguarded", "data": {"code": code}})
        await client.assert_closed(code)


# Groups


async def test_on_join_that_raises_leaves_no_membership_and_the_next_join_tries_again(connect):
    joined = []

    class Picky(GroupConsumer):
        @action
        async def enter(self, group: str) -> bool:
            return await self.join(group)

        @action
        async def where(self) -> list[str]:
            return list(self.group_names)

        async def on_join(self, group):
            joined.append(group)
            if len(joined) < 3:
                raise ConsumerError("not_yet", "Not yet.")

    async with connect(Picky) as client:
        consumers = client.app.state.consumers
        for attempt in (1, 2):
            assert await code_of(client, "enter", {"group": "club"}) == "not_yet"
            assert len(joined) == attempt
            assert await client.call("where") == []
            assert "group:club" not in consumers.hub.topics()
            await consumers.broadcast("club", "secret", 1)
        assert await client.receive_nothing(0)
        assert await client.call("enter", {"group": "club"}) is True
        assert await client.call("enter", {"group": "club"}) is False
        assert await client.call("where") == ["club"]
        await consumers.broadcast("club", "hello", 1)
        await client.assert_event("hello", 1)
    assert joined == ["club"] * 3


# Numbers that are none


class Keyed(JSONConsumer):
    @action
    async def keys(self, data: dict[float, int]) -> int:
        return len(data)


@pytest.mark.parametrize("key", ["inf", "-inf", "nan", "1e999"])
@pytest.mark.parametrize("subprotocols", [None, ["fc.v1.msgpack"]])
async def test_a_key_that_is_no_finite_number_is_refused(connect, key, subprotocols):
    async with connect(Keyed, subprotocols=subprotocols) as client:
        assert await client.call("keys", {"1.5": 1}) == 1
        assert await code_of(client, "keys", {"1.5": 1, key: 1}) == "invalid_data"
