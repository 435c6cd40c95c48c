"""Each limit, exceeded over a socket: what the client sees of it."""

import asyncio
import json
import time
from typing import Any

import pytest

from fastapi_consumers import Consumer, GroupConsumer, ImproperlyConfigured, PermissionDenied, action, exceptions, path
from fastapi_consumers.authentication import BaseAuthentication, Credential, FirstMessageAuthentication
from fastapi_consumers.history import History
from fastapi_consumers.options import LIMIT_NAMES
from fastapi_consumers.testing import CallError, Clock, WebsocketCommunicator
from fastapi_consumers.throttling import UserRateThrottle

PATIENCE = 20.0


class ByQuery(BaseAuthentication):
    """The user that the query names, for half a minute."""

    async def authenticate(self, connection: Any) -> Any:
        name = connection.websocket.query_params.get("user")
        return (name, Credential(expires_at=time.time() + 30)) if name else None


class Tokens(FirstMessageAuthentication):
    async def get_user(self, token: str, connection: Any) -> Any:
        return None


class Room(GroupConsumer):
    groups = ["room"]
    authentication_classes = [ByQuery]

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    @action
    async def echo(self, text: str = "") -> str:
        return text

    @action
    async def enter(self, group: str) -> None:
        await self.join(group)

    @action
    async def wait(self) -> None:
        await self.gate.wait()

    @action(concurrent=True)
    async def beside(self) -> str:
        await self.gate.wait()
        return "beside"


class Throttled(Room):
    throttle_classes = ["2/hour"]


class Kept(Room):
    history = History(size=100)


class Late(Room):
    authentication_classes = [Tokens]


async def refused(app: Any, where: str = "/") -> Any:
    client = WebsocketCommunicator(app, where, denial_response=True)
    accepted, status = await client.connect(PATIENCE)
    assert not accepted
    assert client.denial is not None
    return status, json.loads(client.denial.body)["error"]["code"]


def turn(deadlines: Any, seconds: float) -> None:
    since = deadlines.clock()
    deadlines.clock = lambda: since + seconds
    deadlines.look()


async def closing(client: WebsocketCommunicator) -> tuple[int, str | None]:
    code = await client.assert_closed(timeout=PATIENCE)
    return code, client.close_reason


async def exceed_message_size(app: Any, client: WebsocketCommunicator) -> Any:
    await client.send_to("x" * 101)
    return await closing(client)


async def exceed_inbox(app: Any, client: WebsocketCommunicator) -> Any:
    for _ in range(5):
        await client.send_json_to({"action": "wait"})
    return await closing(client)


async def exceed_outbox(app: Any, client: WebsocketCommunicator) -> Any:
    for _ in range(6):
        await app.state.consumers.broadcast("room", "news", "x" * 60)
    return await closing(client)


async def exceed_write_timeout(app: Any, client: WebsocketCommunicator) -> Any:
    for _ in range(2):
        await app.state.consumers.broadcast("room", "news")
    return await closing(client)


async def exceed_bad_frames(app: Any, client: WebsocketCommunicator) -> Any:
    for _ in range(3):
        await client.send_to("?")
    return await closing(client)


async def exceed_throttled(app: Any, client: WebsocketCommunicator) -> Any:
    codes = []
    for number in range(5):
        await client.send_json_to({"action": "echo", "request_id": number})
        codes.append((await client.receive_json_from(PATIENCE)).get("error", {}).get("code", "ok"))
    assert codes == ["ok", "ok", *["throttled"] * 3]
    return await closing(client)


async def exceed_groups(app: Any, client: WebsocketCommunicator) -> Any:
    await client.call("enter", {"group": "b"})
    with pytest.raises(CallError) as caught:
        await client.call("enter", {"group": "c"})
    return caught.value.code


async def exceed_concurrency(app: Any, client: WebsocketCommunicator) -> Any:
    (connection,) = app.state.consumers.connections
    for number in (1, 2, 3):
        await client.send_json_to({"action": "beside", "request_id": number})
    beside = connection.dispatcher._running
    async with asyncio.timeout(PATIENCE):
        while len(beside.tasks) < 2 or not connection._working:  # noqa: ASYNC110 -- it waits for what has no event
            await asyncio.sleep(0)
    running = len(beside.tasks)
    connection.member.consumer.gate.set()
    answers = [(await client.receive_json_from(PATIENCE))["request_id"] for _ in range(3)]
    return running, sorted(answers)


async def exceed_idle(app: Any, client: WebsocketCommunicator) -> Any:
    return await closing(client)


async def exceed_wait_for_token(app: Any, client: WebsocketCommunicator) -> Any:
    return await closing(client)


async def exceed_grace(app: Any, client: WebsocketCommunicator) -> Any:
    turn(app.state.consumers.expiries, 30 + 4)
    assert await client.call("echo", {"text": "in time"}) == "in time"
    turn(app.state.consumers.expiries, 2)
    return await closing(client)


async def exceed_connections(app: Any, client: WebsocketCommunicator) -> Any:
    return await refused(app, "/?user=ann")


async def exceed_recovery(app: Any, client: WebsocketCommunicator) -> Any:
    joined = await client.receive_json_from()
    await client.disconnect()
    for _ in range(3):
        await app.state.consumers.broadcast("room", "news", "x" * 60)
    where = f"/?recover={joined['epoch']}:{joined['offset']}"
    async with WebsocketCommunicator(app, where) as again:
        return (await again.receive_json_from())["recovered"]


CASES: list[tuple[type[Consumer], dict[str, Any], dict[str, Any], Any, Any]] = [
    (Room, {"max_message_size": 100}, {}, exceed_message_size, (1009, "message_too_big")),
    (Room, {"max_inbox": 2, "inbox_timeout": 0.02}, {}, exceed_inbox, (4429, "too_many_requests")),
    (Room, {"max_outbox": 3}, {"max_unread": 1}, exceed_outbox, (1013, "slow_consumer")),
    (Room, {"max_outbox_bytes": 200}, {"max_unread": 1}, exceed_outbox, (1013, "slow_consumer")),
    (Room, {"write_timeout": 0.05}, {"max_unread": 1}, exceed_write_timeout, (1013, "slow_consumer")),
    (Room, {"max_bad_frames": 2}, {}, exceed_bad_frames, (4400, "bad_frames")),
    (Throttled, {"max_throttled_requests": 2}, {}, exceed_throttled, (4429, "too_many_requests")),
    (Room, {"max_groups": 2}, {}, exceed_groups, "too_many_groups"),
    (Room, {"max_concurrent_actions": 2}, {}, exceed_concurrency, (2, [1, 2, 3])),
    (Room, {"idle_timeout": 0.05}, {}, exceed_idle, (4408, "idle_timeout")),
    (Late, {"authentication_timeout": 0.05}, {}, exceed_wait_for_token, (4401, "authentication_timeout")),
    (Room, {"authentication_grace": 5}, {"path": "/?user=ann"}, exceed_grace, (4401, "expired")),
    (Room, {"max_connections": 1}, {}, exceed_connections, (503, "group_full")),
    (Room, {"max_connections_per_user": 1}, {"path": "/?user=ann"}, exceed_connections, (429, "too_many_connections")),
    (Room, {"max_connections_per_address": 1}, {}, exceed_connections, (429, "too_many_connections")),
    (Room, {"max_connections_per_process": 1}, {}, exceed_connections, (503, "too_many_connections")),
    (Room, {"max_connection_rate": "1/hour"}, {}, exceed_connections, (429, "too_many_connections")),
    (Kept, {"max_recovery": 2}, {}, exceed_recovery, False),
    (Kept, {"max_recovery_bytes": 100}, {}, exceed_recovery, False),
]


@pytest.mark.parametrize(("cls", "limits", "client", "exceed", "outcome"), CASES, ids=[next(iter(c[1])) for c in CASES])
async def test_beyond_a_limit(make_app, cls, limits, client, exceed, outcome):
    app = make_app(path("/", cls), **limits)
    async with WebsocketCommunicator(app, **{"path": "/", **client}) as communicator:
        assert await exceed(app, communicator) == outcome


def test_no_limit_is_left_out():
    # overflow chooses what happens at one; lease_timeout is for a process that died, in tests/presence/test_processes.
    exceeded = {name for case in CASES for name in case[1]}
    assert set(LIMIT_NAMES) - exceeded == {"overflow", "lease_timeout"}


# -- throttled again and again --------------------------------------------------------------------------------------


async def statuses(client: WebsocketCommunicator, *names: str) -> list[str]:
    for number, name in enumerate(names):
        await client.send_json_to({"action": name, "request_id": number})
    return [(await client.receive_json_from(PATIENCE))["status"] for _ in names]


async def test_what_was_refused_is_forgotten_with_time_and_not_by_what_passes(make_app, monkeypatch):
    clock, now = Clock(), Clock(1000.0)
    monkeypatch.setattr("fastapi_consumers.throttling.refusals.time.monotonic", now)

    class Hurried(Room):
        throttle_classes = ["1/second"]
        max_throttled_requests = 4

    app = make_app(path("/", Hurried))
    app.state.consumers.buckets._clock = clock
    async with WebsocketCommunicator(app, "/") as client:
        for _ in range(5):
            assert await statuses(client, "echo", "echo", "echo") == ["ok", "error", "error"]
            clock.advance(1)
            now.advance(30)
        for _ in range(2):
            assert await statuses(client, "echo", "echo", "echo") == ["ok", "error", "error"]
            clock.advance(1)
        assert await statuses(client, "echo", "echo") == ["ok", "error"]
        assert await closing(client) == (4429, "too_many_requests")


async def test_an_actions_own_throttle_counts_although_the_consumers_lets_it_pass(make_app):
    class Posting(Room):
        throttle_classes = ["1000/hour"]
        max_throttled_requests = 2

        @action(throttle_classes=["1/hour"])
        async def post(self) -> None: ...

    async with WebsocketCommunicator(make_app(path("/", Posting)), "/") as client:
        assert await statuses(client, *["post"] * 4) == ["ok", "error", "error", "error"]
        assert await closing(client) == (4429, "too_many_requests")


class Forbidding(UserRateThrottle):
    rate = "1/hour"

    async def on_throttled(self, consumer: Any, action: Any, retry_after: float) -> None:
        raise PermissionDenied("That is enough.")


class Broken(UserRateThrottle):
    rate = "1/hour"

    def on_throttled(self, consumer: Any, action: Any, retry_after: float) -> None:
        raise RuntimeError("the hook is broken")


class Raising(UserRateThrottle):
    rate = "1/hour"

    def allow(self, consumer: Any, action: Any, buckets: Any) -> float:
        if wait := super().allow(consumer, action, buckets):
            raise exceptions.Throttled(wait)
        return 0.0


@pytest.mark.parametrize("throttle", [Forbidding, Broken, Raising])
async def test_a_flood_is_closed_whatever_a_throttle_raises_in_its_place(make_app, throttle):
    class Own(Room):
        throttle_classes = [throttle]
        max_throttled_requests = 2

    async with WebsocketCommunicator(make_app(path("/", Own)), "/") as client:
        assert await statuses(client, *["echo"] * 4) == ["ok", "error", "error", "error"]
        assert await closing(client) == (4429, "too_many_requests")


async def test_a_raw_consumer_that_is_flooded_closes_too(make_app):
    class Raw(Consumer):
        throttle_classes = ["1/hour"]
        max_throttled_requests = 2

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(text_data)

    async with WebsocketCommunicator(make_app(path("/", Raw)), "/") as client:
        for _ in range(4):
            await client.send_to("hi")
        assert await client.receive_from() == "hi"
        for _ in range(3):
            assert (await client.receive_json_from(PATIENCE))["error"]["code"] == "throttled"
        assert await closing(client) == (4429, "too_many_requests")


# -- silence --------------------------------------------------------------------------------------------------------


async def test_a_client_that_says_something_in_time_stays(make_app):
    app = make_app(path("/", Room), idle_timeout=60)
    async with WebsocketCommunicator(app, "/") as client:
        deadlines = app.state.consumers.deadlines
        for _ in range(3):
            turn(deadlines, 50)
            assert await client.call("echo", {"text": "here"}) == "here"
        turn(deadlines, 59)
        assert client.is_connected
        turn(deadlines, 2)
        assert await closing(client) == (4408, "idle_timeout")
    assert not len(deadlines)


@pytest.mark.parametrize("name", ["wait", "beside"])
async def test_a_client_that_waits_for_an_answer_is_not_idle(make_app, name):
    app = make_app(path("/", Room), idle_timeout=60)
    async with WebsocketCommunicator(app, "/") as client:
        deadlines = app.state.consumers.deadlines
        (connection,) = app.state.consumers.connections
        await client.send_json_to({"action": name, "request_id": 1})
        async with asyncio.timeout(PATIENCE):
            while not connection._is_busy():  # noqa: ASYNC110 -- it waits for what has no event
                await asyncio.sleep(0)
        for _ in range(3):
            turn(deadlines, 61)
        connection.member.consumer.gate.set()
        assert (await client.receive_json_from(PATIENCE))["status"] == "ok"
        async with asyncio.timeout(PATIENCE):
            while connection._is_busy():  # noqa: ASYNC110 -- it waits for what has no event
                await asyncio.sleep(0)
        turn(deadlines, 61)
        assert await closing(client) == (4408, "idle_timeout")


async def test_idle_connections_cost_one_entry_each_however_much_they_send(make_app):
    app = make_app(path("/", Room), idle_timeout=60)
    async with WebsocketCommunicator(app, "/") as client, WebsocketCommunicator(app, "/"):
        for _ in range(500):
            await client.call("echo")
        deadlines = app.state.consumers.deadlines
        assert len(deadlines) == len(deadlines._heap) == 2


# -- in all ---------------------------------------------------------------------------------------------------------


async def test_a_process_takes_another_connection_when_one_has_ended(make_app):
    class Other(Room):
        pass

    app = make_app(path("/", Room), path("/other", Other), max_connections_per_process=2)
    async with WebsocketCommunicator(app, "/") as first, WebsocketCommunicator(app, "/other"):
        for _ in range(3):
            assert await refused(app) == (503, "too_many_connections")
        plain = WebsocketCommunicator(app, "/")
        assert await plain.connect() == (False, 1013)
        told = WebsocketCommunicator(app, "/", denial_response=True)
        await told.connect()
        assert json.loads(told.denial.body)["error"]["retryable"] is True
        await first.disconnect()
        async with WebsocketCommunicator(app, "/"):
            assert await refused(app, "/other") == (503, "too_many_connections")


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "10"])
async def test_what_is_no_number_of_connections_is_refused(make_app, value):
    with pytest.raises(ImproperlyConfigured, match="max_connections_per_process"):
        make_app(path("/", Room), max_connections_per_process=value)
