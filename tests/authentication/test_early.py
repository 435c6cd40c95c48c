"""What happens between the moment in which a client is known and the one in which it is let in.

A credential that is revoked then, or a user that is disconnected, opens nothing; in one application, and from another
over one Redis.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Depends

from fastapi_consumers import GroupConsumer, PermissionDenied, action, path
from fastapi_consumers.authentication import BearerTokenAuthentication, Credential, FirstMessageAuthentication
from fastapi_consumers.history import History
from fastapi_consumers.permissions import BasePermission
from fastapi_consumers.testing import WebsocketCommunicator
from tests.transports.conftest import broker

__all__ = ["broker"]

#: Longer than any stall of the machine.
PATIENT = 20.0
#: Where a handshake may have to wait once its client is known.
STEPS = ("permission", "dependency", "groups", "group permission", "connect")


class Gate:
    """Where a handshake waits, and what becomes of it."""

    def __init__(self) -> None:
        self.step = ""
        self.reached = asyncio.Event()
        self.opens = asyncio.Event()
        self.swallows = self.refuses = False
        self.seen: list[str] = []

    async def pass_through(self, step: str) -> None:
        self.seen.append(step)
        if step == self.step:
            self.reached.set()
            try:
                await self.opens.wait()
            except asyncio.CancelledError:
                if not self.swallows:
                    raise


@pytest.fixture
def gate() -> Gate:
    return Gate()


class Tokens(BearerTokenAuthentication):
    async def get_user(self, token: str, connection: Any) -> Any:
        return (token, Credential(token_id=f"id of {token}")) if token in ("ann", "ben") else None


@pytest.fixture(params=["memory", "redis"])
async def apps(request: Any, make_app: Any, gate: Gate) -> Any:
    """``apps(**attributes of the class)``: the application that has the socket, and the one that closes it."""

    class Waiting(BasePermission):
        async def has_permission(self, consumer: Any, action: Any = None) -> bool:
            if action is None:
                await gate.pass_through("permission")
            return not gate.refuses

        async def has_group_permission(self, consumer: Any, group: str) -> bool:
            await gate.pass_through("group permission")
            return True

    async def dependency() -> Any:
        gate.seen.append("opened")
        try:
            await gate.pass_through("dependency")
            yield
        finally:
            gate.seen.append("released")

    class Room(GroupConsumer):
        authentication_classes = [Tokens]
        permission_classes = [Waiting]
        dependencies = [Depends(dependency)]

        async def get_groups(self) -> list[str]:
            await gate.pass_through("groups")
            return ["room"]

        async def connect(self) -> None:
            await gate.pass_through("connect")
            await self.accept()

        @action
        async def who(self) -> str:
            return str(self.user)

    url = (
        f"{request.getfixturevalue('broker').url}?prefix={secrets.token_hex(6)}:" if request.param == "redis" else None
    )

    others: list[Any] = []

    def make(**attributes: Any) -> tuple[Any, Any]:
        kind = type("Room", (Room,), attributes)
        if url is None:
            app = make_app(path("/", kind))
            return app, app
        first, second = (make_app(path("/", kind), url=url, broker_timeout=PATIENT) for _ in range(2))
        others.append(second)
        return first, second

    yield make
    for other in others:
        await other.state.consumers.close()


Close = Callable[[Any], Any]
CLOSES: dict[str, tuple[Close, int, int, str]] = {
    "revoked": (lambda consumers: consumers.revoke("id of ann"), 401, 4401, "revoked"),
    "disconnected": (lambda consumers: consumers.disconnect(user="ann"), 403, 4409, "disconnected"),
    "logged out": (lambda consumers: consumers.disconnect(user="ann", code=4401, reason="out"), 401, 4401, "out"),
}
each_close = pytest.mark.parametrize("how", CLOSES)


def client_of(app: Any, token: str | None = "ann", **options: Any) -> WebsocketCommunicator:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else None
    return WebsocketCommunicator(app, "/", headers=headers, **options)


async def begun(gate: Gate, client: WebsocketCommunicator, step: str) -> Any:
    """A handshake that waits at this step."""
    gate.step = step
    connecting = asyncio.create_task(client.connect(PATIENT))
    async with asyncio.timeout(PATIENT):
        await gate.reached.wait()
    return connecting


async def opened(app: Any) -> Any:
    """The consumers of an application that is open, also if nobody has connected to it yet."""
    consumers = app.state.consumers
    if not consumers.is_open:
        await consumers.open()
    return consumers


@pytest.mark.parametrize("step", STEPS)
@each_close
async def test_a_handshake_that_is_not_through_is_refused(apps: Any, gate: Gate, step: str, how: str) -> None:
    app, other = apps()
    close, status, _, reason = CLOSES[how]
    client = client_of(app, denial_response=True)
    connecting = await begun(gate, client, step)
    await close(await opened(other))
    assert await connecting == (False, status)
    assert json.loads(client.denial.body)["error"]["code"] == reason
    await client.wait()
    assert gate.seen[-1] in (step, "released")
    assert gate.seen.count("opened") == gate.seen.count("released")
    assert not app.state.consumers.connections
    assert list(app.state.consumers.hub.topics()) == []
    # Whoever comes later is let in: it is for the authentication to know.
    gate.step = ""
    async with client_of(app) as later:
        assert await later.call("who", timeout=PATIENT) == "ann"


@each_close
async def test_a_server_without_denials_closes(apps: Any, gate: Gate, how: str) -> None:
    app, other = apps()
    close, _, code, reason = CLOSES[how]
    client = client_of(app)
    connecting = await begun(gate, client, "permission")
    await close(await opened(other))
    assert await connecting == (False, code)
    assert client.close_reason == reason


@each_close
async def test_with_accept_refused_the_page_is_told(apps: Any, gate: Gate, how: str) -> None:
    app, other = apps(accept_refused=True)
    close, _, code, reason = CLOSES[how]
    client = client_of(app)
    connecting = await begun(gate, client, "permission")
    await close(await opened(other))
    assert (await connecting)[0]
    assert (await client.receive_json_from(PATIENT))["error"]["code"] == reason
    await client.assert_closed(code)
    await client.disconnect()


@pytest.mark.parametrize("step", STEPS)
@each_close
async def test_a_first_message_that_is_being_judged(apps: Any, gate: Gate, step: str, how: str) -> None:
    app, other = apps(authentication_classes=[FirstMessageAuthentication(Tokens())])
    close, _, code, reason = CLOSES[how]
    async with client_of(app, None) as client:
        gate.step = step
        await client.send_json_to({"action": "authenticate", "request_id": 1, "data": {"token": "ann"}})
        async with asyncio.timeout(PATIENT):
            await gate.reached.wait()
        if step != "permission":
            assert (await client.receive_json_from(PATIENT))["status"] == "ok"
        await close(await opened(other))
        await client.assert_closed(code)
        assert client.close_reason == reason
    assert list(app.state.consumers.hub.topics()) == []


@pytest.mark.parametrize("step", STEPS[:-1])
async def test_whoever_goes_on_all_the_same_opens_nothing(apps: Any, gate: Gate, step: str) -> None:
    app, other = apps()
    gate.swallows = True
    client = client_of(app, denial_response=True)
    connecting = await begun(gate, client, step)
    await (await opened(other)).revoke("id of ann")
    assert await connecting == (False, 401)
    await client.wait()
    assert "connect" not in gate.seen


async def test_what_closes_others_disturbs_nobody(apps: Any, gate: Gate) -> None:
    app, other = apps()
    client = client_of(app)
    connecting = await begun(gate, client, "permission")
    consumers = await opened(other)
    await consumers.revoke("id of ben")
    await consumers.disconnect(user="ben")
    gate.opens.set()
    assert (await connecting)[0]
    assert await client.call("who", timeout=PATIENT) == "ann"
    await client.disconnect()


async def sent_to(app: Any, other: Any, *names: str) -> None:
    """Events for the user, all of which have come to where the socket is, and wait there."""
    consumers = await opened(other)
    for name in names:
        await consumers.send(name, user="ann")
    connection = next(iter(app.state.consumers.connections))
    async with asyncio.timeout(PATIENT):
        while len(connection.member.push_all.__self__) < len(names):  # noqa: ASYNC110 -- there is no event
            await asyncio.sleep(0.001)


async def test_events_of_the_user_wait_until_it_is_let_in(apps: Any, gate: Gate) -> None:
    app, other = apps()
    client = client_of(app)
    connecting = await begun(gate, client, "permission")
    await sent_to(app, other, "one", "two")
    gate.opens.set()
    assert (await connecting)[0]
    await client.assert_event("one", None)
    await client.assert_event("two", None)
    await (await opened(other)).send("three", user="ann")
    await client.assert_event("three", None)
    await client.disconnect()


@pytest.mark.parametrize("first_message", [False, True])
async def test_who_is_refused_is_sent_none_of_them(apps: Any, gate: Gate, first_message: bool) -> None:
    ways = [FirstMessageAuthentication(Tokens())] if first_message else [Tokens]
    app, other = apps(accept_refused=True, authentication_classes=ways)
    gate.refuses = True
    client = client_of(app, None if first_message else "ann")
    if first_message:
        gate.step = "permission"
        assert (await client.connect())[0]
        await client.send_json_to({"action": "authenticate", "request_id": 1, "data": {"token": "ann"}})
        async with asyncio.timeout(PATIENT):
            await gate.reached.wait()
        await sent_to(app, other, "secret")
        gate.opens.set()
    else:
        connecting = await begun(gate, client, "permission")
        await sent_to(app, other, "secret")
        gate.opens.set()
        assert (await connecting)[0]
    assert (await client.receive_json_from(PATIENT))["error"]["code"] == "permission_denied"
    await client.assert_closed(4403)
    await client.disconnect()


REFUSED_LATE = {
    "accept_refused, known": ({"accept_refused": True}, "ann"),
    "accept_refused, anonymous": ({"accept_refused": True, "authentication_classes": []}, None),
    "first message": ({"authentication_classes": [FirstMessageAuthentication(Tokens())]}, None),
    "HTTP": ({}, "ann"),
}


@pytest.mark.parametrize("how", REFUSED_LATE)
@pytest.mark.parametrize("calls_accept", [False, True])
async def test_who_is_refused_in_connect_hears_nothing_of_its_groups(apps: Any, how: str, calls_accept: bool) -> None:
    refuses = [True]

    async def connect(self: Any) -> None:
        await self.broadcast("entered")
        if refuses:
            raise PermissionDenied
        if calls_accept or not self.connection.is_accepted:
            await self.accept()
        await self.send_event("welcome")

    attributes, token = REFUSED_LATE[how]
    app, other = apps(connect=connect, groups=["room"], history=History(size=100), **attributes)
    consumers = await opened(other)
    position = await consumers.broadcast("room", "secret", {"number": 1})

    def client() -> WebsocketCommunicator:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else None
        return WebsocketCommunicator(app, f"/?recover={position.epoch}:0", headers=headers)

    async def connected(client: WebsocketCommunicator) -> bool:
        is_let_in, _ = await client.connect(PATIENT)
        if how == "first message":
            await client.send_json_to({"action": "authenticate", "request_id": 1, "data": {"token": "ann"}})
            assert (await client.receive_json_from(PATIENT))["status"] == "ok"
        return is_let_in

    async with contextlib.AsyncExitStack() as stack:
        visitor = client()
        stack.push_async_callback(visitor.disconnect)
        if await connected(visitor):
            assert (await visitor.receive_json_from(PATIENT))["error"]["code"] == "permission_denied"
            await visitor.assert_closed(4403)
        else:
            assert how == "HTTP"
    # Who is let in is told where it joined, then what it missed, then what happened meanwhile.
    refuses.clear()
    async with contextlib.AsyncExitStack() as stack:
        visitor = client()
        stack.push_async_callback(visitor.disconnect)
        assert await connected(visitor)
        frames = [await visitor.receive_json_from(PATIENT) for _ in range(5)]
        if calls_accept or how != "first message":
            assert frames[0]["type"] == "joined"
        events = [frame["event"] for frame in frames if frame["type"] == "event"]
        assert sorted(events) == ["entered", "entered", "secret", "welcome"]
        assert events.index("secret") < events.index("entered")


@pytest.mark.parametrize("first", ["frames", "bytes"])
async def test_more_events_than_may_wait_are_dropped_where_that_is_the_rule(apps: Any, gate: Gate, first: str) -> None:
    told: list[str] = []
    bounds = {"max_outbox": 2} if first == "frames" else {"max_outbox_bytes": 700}
    app, other = apps(overflow="drop_oldest", on_overflow=lambda self, policy: told.append(policy), **bounds)
    client = client_of(app)
    connecting = await begun(gate, client, "permission")
    consumers = await opened(other)
    for name in ("one", "two", "three", "four"):
        await consumers.send(name, "x" * 200, user="ann")
    connection = next(iter(app.state.consumers.connections))
    async with asyncio.timeout(PATIENT):
        while len(told) < 1 or connection.member.push.__self__._backlog.dropped < 2:  # noqa: ASYNC110 -- there is no event
            await asyncio.sleep(0.001)
    gate.opens.set()
    assert (await connecting)[0]
    await client.assert_event("three", "x" * 200)
    await client.assert_event("four", "x" * 200)
    await client.disconnect()
    assert told[0] == "drop_oldest"


@pytest.mark.parametrize("accept_refused", [False, True])
async def test_a_kill_while_the_server_takes_its_time_to_accept_closes_what_was_accepted(
    apps: Any, accept_refused: bool
) -> None:
    app, other = apps(accept_refused=accept_refused)
    accepting, types = asyncio.Event(), []
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    inbox.put_nowait({"type": "websocket.connect"})

    async def send(message: Any) -> None:
        types.append(message["type"])
        if message["type"] == "websocket.accept":
            accepting.set()
            await asyncio.Event().wait()
        elif message["type"] == "websocket.close":
            inbox.put_nowait({"type": "websocket.disconnect", "code": message["code"]})

    communicator = client_of(app)
    running = asyncio.create_task(app(communicator.scope, inbox.get, send))
    async with asyncio.timeout(PATIENT):
        await accepting.wait()
        await (await opened(other)).disconnect(user="ann")
        await running
        await app.state.consumers.close()
    assert types == ["websocket.accept", "websocket.send", "websocket.close"]


async def test_a_first_message_is_answered_before_them(apps: Any, gate: Gate) -> None:
    app, other = apps(authentication_classes=[FirstMessageAuthentication(Tokens())])
    async with client_of(app, None) as client:
        gate.step = "permission"
        await client.send_json_to({"action": "authenticate", "request_id": 1, "data": {"token": "ann"}})
        async with asyncio.timeout(PATIENT):
            await gate.reached.wait()
        await sent_to(app, other, "news")
        gate.opens.set()
        assert (await client.receive_json_from(PATIENT))["type"] == "reply"
        await client.assert_event("news", None)


async def test_more_events_than_may_wait_give_the_handshake_up(apps: Any, gate: Gate) -> None:
    app, other = apps(max_outbox=2)
    client = client_of(app, denial_response=True)
    connecting = await begun(gate, client, "permission")
    consumers = await opened(other)
    for _ in range(3):
        await consumers.send("more", user="ann")
    assert await connecting == (False, 503)
    error = json.loads(client.denial.body)["error"]
    assert (error["code"], error["retryable"]) == ("slow_consumer", True)
    await client.wait()


async def test_a_credential_that_ends_meanwhile_is_refused_as_expired(apps: Any, gate: Gate) -> None:
    class Ending(Tokens):
        async def get_user(self, token: str, connection: Any) -> Any:
            return token, Credential(expires_at=connection.consumers.expiries.clock() + 60)

    app, _ = apps(authentication_classes=[Ending], authentication_grace=0)
    client = client_of(app, denial_response=True)
    connecting = await begun(gate, client, "permission")
    expiries = app.state.consumers.expiries
    now = expiries.clock()
    expiries.clock = lambda: now + 61
    expiries.look()
    assert await connecting == (False, 401)
    assert json.loads(client.denial.body)["error"]["code"] == "expired"
    await client.wait()
