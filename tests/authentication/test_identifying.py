"""Whose a connection is, and for how long: the first message, refreshes, the end of a credential, revocation."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from fastapi_consumers import (
    BrokerUnavailable,
    Consumer,
    GroupConsumer,
    JSONConsumer,
    RelayConsumer,
    action,
    event,
    path,
)
from fastapi_consumers.authentication import (
    BaseAuthentication,
    BearerTokenAuthentication,
    Credential,
    FirstMessageAuthentication,
)
from fastapi_consumers.permissions import BasePermission, IsAuthenticated
from fastapi_consumers.serializers import FlatRequest
from fastapi_consumers.testing import CallError, WebsocketCommunicator

NOW = 1_800_000_000.0


class Ann(BaseModel):
    id: str
    role: str = "member"


class Database:
    """Tokens, and the clock that they end by."""

    def __init__(self) -> None:
        self.now = NOW
        self.tokens: dict[str, Any] = {
            "ann": (Ann(id="ann"), None),
            "ann-1": (Ann(id="ann"), Credential(NOW + 60, "t-1")),
            "ann-2": (Ann(id="ann"), Credential(NOW + 600, "t-2")),
            "ann-banned": (Ann(id="ann", role="banned"), Credential(NOW + 600, "t-3")),
            "ann-old": (Ann(id="ann"), Credential(NOW - 1, "t-0")),
            "ben": (Ann(id="ben"), Credential(NOW + 60, "b-1")),
            "guest": (None, None),
        }
        self.gate: asyncio.Event | None = None
        self.asked: list[str] = []


db = Database()


@pytest.fixture(autouse=True)
def fresh() -> None:
    vars(db).update(vars(Database()))


class Bearer(BearerTokenAuthentication):
    async def get_user(self, token: str, connection: Any) -> Any:
        db.asked.append(token)
        if db.gate is not None:
            await db.gate.wait()
        return db.tokens.get(token)


class First(FirstMessageAuthentication):
    get_user = Bearer.get_user


class NotBanned(BasePermission):
    code = "banned"

    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return getattr(consumer.user, "role", None) != "banned"


class Hooked:
    """Remembers which hooks ran."""

    seen: Any

    async def connect(self: Any) -> None:
        type(self).seen.append(f"connect {self.user.id}")
        await self.accept()

    async def on_join(self: Any, group: str) -> None:
        type(self).seen.append(f"join {group}")

    async def disconnect(self: Any, code: int) -> None:
        type(self).seen.append(f"disconnect {code}")


class Room(Hooked, GroupConsumer):
    groups = ["room"]
    authentication_classes = [Bearer, First]
    permission_classes = [NotBanned]
    max_bad_frames = 3
    seen: list[str] = []

    @action
    async def who(self) -> list[Any]:
        assert self.scope["user"] is self.user
        return [self.user.id, self.user.role if self.user.id else None, self.auth.token_id if self.auth else None]

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)


@pytest.fixture(autouse=True)
def unseen() -> None:
    Room.seen = []


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def turn(app: Any, seconds: float) -> None:
    """Turn the clock that credentials end by."""
    db.now += seconds
    app.state.consumers.expiries.look()


def wind(app: Any) -> Any:
    app.state.consumers.expiries.clock = lambda: db.now
    return app


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 -- it waits for what has no event
            await asyncio.sleep(0)


async def code_of(client: WebsocketCommunicator, name: str, data: Any = None) -> str:
    with pytest.raises(CallError) as caught:
        await client.call(name, data)
    return caught.value.code


# The first message


async def test_the_first_message_opens_what_the_handshake_did_not(make_app: Any) -> None:
    app = wind(make_app(path("/", Room)))
    async with WebsocketCommunicator(app, "/") as client:
        assert Room.seen == []
        assert app.state.consumers.hub.count("group:room") == 0
        assert list(app.state.consumers.hub.topics()) == []
        assert len(app.state.consumers.deadlines) == 1
        await client.send_json_to({"action": "authenticate", "request_id": 7, "data": {"token": "ann-1"}})
        assert await client.receive_json_from() == {
            "type": "reply", "action": "authenticate", "request_id": 7, "status": "ok",
            "data": {"user": "ann", "expires_in": 60.0},
        }  # fmt: skip
        assert await client.call("who") == ["ann", "member", "t-1"]
        assert Room.seen == ["connect ann", "join room"]
        assert app.state.consumers.hub.count("group:room") == 1
        assert len(app.state.consumers.deadlines) == 0
        await app.state.consumers.send("hello", user="ann")
        await client.assert_event("hello", None)


async def test_a_credential_without_an_end_and_a_request_without_an_id(make_app: Any) -> None:
    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        await client.send_json_to({"action": "authenticate", "data": {"token": "ann"}})
        reply = await client.receive_json_from()
        assert (reply["status"], reply["data"]) == ("ok", {"user": "ann", "expires_in": None})


async def test_who_is_known_already_is_not_asked_again(make_app: Any) -> None:
    app = wind(make_app(path("/", Room)))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        assert await client.call("who") == ["ann", "member", "t-1"]
        assert len(app.state.consumers.deadlines) == 0
    async with WebsocketCommunicator(app, "/", scope={"user": Ann(id="of the middleware")}) as client:
        assert (await client.call("who"))[0] == "of the middleware"


async def test_everything_else_is_refused_until_then(make_app: Any) -> None:
    app = wind(make_app(path("/", Room)))
    async with WebsocketCommunicator(app, "/") as client:
        assert await code_of(client, "who") == "not_authenticated"
        assert await code_of(client, "cancel", {"request_id": 1}) == "not_authenticated"
        assert await code_of(client, "authenticate", {"tok": "x"}) == "invalid_data"
        assert (await client.call("authenticate", {"token": "ann"}))["user"] == "ann"
        assert (await client.call("who"))[0] == "ann"
    assert "join room" in Room.seen


async def test_who_goes_on_asking_is_closed(make_app: Any) -> None:
    app = make_app(path("/", Room))
    async with WebsocketCommunicator(app, "/") as client:
        for _ in range(3):
            assert await code_of(client, "nothing") == "not_authenticated"
        await client.send_json_to({"action": "who"})
        await client.assert_closed(4400)
    assert Room.seen == []


@pytest.mark.parametrize("frame", ["{", "[]", "null", '{"data": {"token": "ann"}}', "", '{"action": 1}', "\0"])
async def test_what_is_no_request_says_so(make_app: Any, frame: str) -> None:
    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        await client.send_to(frame)
        assert (await client.receive_json_from())["error"]["code"] == "invalid_frame"
        assert (await client.call("authenticate", {"token": "ann"}))["user"] == "ann"


async def test_a_binary_frame_where_text_is_spoken_is_refused_like_the_rest(make_app: Any) -> None:
    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        await client.send_to(bytes_data=b"x")
        assert (await client.receive_json_from())["error"]["code"] == "not_authenticated"


async def test_a_message_that_is_too_big_closes_as_always(make_app: Any) -> None:
    async with WebsocketCommunicator(make_app(path("/", Room), max_message_size=100), "/") as client:
        await client.send_to("x" * 101)
        await client.assert_closed(1009)


@pytest.mark.parametrize(
    ("token", "code"), [("nobody's", "invalid_token"), ("", "invalid_token"), ("ann-old", "expired"),
                        ("guest", "invalid_token"), ("x" * 9000, "invalid_token")],
)  # fmt: skip
async def test_a_bad_token_is_answered_and_the_socket_closed(make_app: Any, token: str, code: str) -> None:
    app = wind(make_app(path("/", Room)))
    async with WebsocketCommunicator(app, "/") as client:
        assert await code_of(client, "authenticate", {"token": token}) == code
        await client.assert_closed(4401)
    assert Room.seen == []


async def test_permissions_are_asked_about_who_it_is_before_anything_is_joined(make_app: Any) -> None:
    app = wind(make_app(path("/", Room)))
    async with WebsocketCommunicator(app, "/") as client:
        assert await code_of(client, "authenticate", {"token": "ann-banned"}) == "banned"
        await client.assert_closed(4403)
    assert Room.seen == []


async def test_a_failure_is_told_as_such(make_app: Any, caplog: pytest.LogCaptureFixture) -> None:
    db.tokens["ann"] = False
    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        assert await code_of(client, "authenticate", {"token": "ann"}) == "internal_error"
        await client.assert_closed(1011)
    assert "get_user() returned False as the user" in caplog.text


async def test_the_deadline_closes(make_app: Any) -> None:
    app = make_app(path("/", Room), authentication_timeout=30)
    async with WebsocketCommunicator(app, "/") as client:
        deadlines = app.state.consumers.deadlines
        since = deadlines.clock()
        deadlines.clock = lambda: since + 29
        deadlines.look()
        assert await code_of(client, "who") == "not_authenticated"
        deadlines.clock = lambda: since + 31
        deadlines.look()
        await client.assert_closed(4401)
        assert client.close_reason == "authentication_timeout"
    assert Room.seen == []


async def test_the_deadline_closes_on_the_real_clock(make_app: Any) -> None:
    async with WebsocketCommunicator(make_app(path("/", Room), authentication_timeout=0.05), "/") as client:
        await client.assert_closed(4401)


async def test_the_deadline_holds_while_the_token_is_looked_up(make_app: Any) -> None:
    app = make_app(path("/", Room), authentication_timeout=30)
    db.gate = asyncio.Event()
    async with WebsocketCommunicator(app, "/") as client:
        await client.send_json_to({"action": "authenticate", "data": {"token": "ann"}})
        await until(lambda: db.asked)
        deadlines = app.state.consumers.deadlines
        deadlines.clock = lambda: 10.0**12
        deadlines.look()
        await client.assert_closed(4401)
    assert Room.seen == []


async def test_requests_that_come_while_the_token_is_looked_up_run_afterwards(make_app: Any) -> None:
    app = make_app(path("/", Room))
    db.gate = asyncio.Event()
    async with WebsocketCommunicator(app, "/") as client:
        await client.send_json_to({"action": "authenticate", "request_id": 1, "data": {"token": "ann"}})
        await until(lambda: db.asked)
        for number in (2, 3):
            await client.send_json_to({"action": "who", "request_id": number})
        connection = next(iter(app.state.consumers.connections))
        await until(lambda: connection.inbox.waiting == 2)
        db.gate.set()
        replies = [await client.receive_json_from() for _ in range(3)]
        assert [(reply["request_id"], reply["status"]) for reply in replies] == [(1, "ok"), (2, "ok"), (3, "ok")]


async def test_no_validator_of_an_action_sees_what_a_stranger_sends(make_app: Any) -> None:
    seen: list[Any] = []

    class Payload(BaseModel):
        value: str

        @field_validator("value")
        @classmethod
        def remember(cls, value: str) -> str:
            seen.append(value)
            return value

    class Validates(Room):
        @action
        async def take(self, data: Payload) -> str:
            return data.value

    app = make_app(path("/", Validates))
    db.gate = asyncio.Event()
    async with WebsocketCommunicator(app, "/") as client:
        assert await code_of(client, "take", {"value": "before"}) == "not_authenticated"
        await client.send_json_to({"action": "authenticate", "request_id": 1, "data": {"token": "bad"}})
        await until(lambda: db.asked)
        await client.send_json_to({"action": "take", "request_id": 2, "data": {"value": "meanwhile"}})
        connection = next(iter(app.state.consumers.connections))
        await until(lambda: connection.inbox.waiting == 1)
        db.gate.set()
        assert (await client.receive_json_from())["error"]["code"] == "invalid_token"
        await client.assert_closed(4401)
    async with WebsocketCommunicator(app, "/") as client:
        await client.call("authenticate", {"token": "ann"})
        assert await client.call("take", {"value": "after"}) == "after"
    assert seen == ["after"]


@pytest.mark.parametrize("looks_up", [False, True])
async def test_a_client_that_goes_before_leaves_nothing_behind(make_app: Any, looks_up: bool) -> None:
    app = make_app(path("/", Room))
    db.gate = asyncio.Event()
    client = WebsocketCommunicator(app, "/")
    await client.connect()
    if looks_up:
        await client.send_json_to({"action": "authenticate", "data": {"token": "ann"}})
        await until(lambda: db.asked)
    await client.disconnect()
    assert Room.seen == []
    assert not app.state.consumers.connections


async def test_the_app_may_stop_before(make_app: Any) -> None:
    app = make_app(path("/", Room))
    async with WebsocketCommunicator(app, "/") as client:
        await app.state.consumers.close_sockets()
        await client.assert_closed(1012)


async def test_a_hook_that_refuses_afterwards_closes(make_app: Any) -> None:
    class Refusing(Room):
        async def get_groups(self) -> list[str]:
            raise BrokerUnavailable

    async with WebsocketCommunicator(make_app(path("/", Refusing)), "/") as client:
        assert (await client.call("authenticate", {"token": "ann"}))["user"] == "ann"
        assert (await client.receive_json_from())["error"]["code"] == "broker_unavailable"
        await client.assert_closed(1013)


async def test_messagepack(make_app: Any) -> None:
    app = wind(make_app(path("/", Room)))
    async with WebsocketCommunicator(app, "/", subprotocols=["fc.v1.msgpack"]) as client:
        assert client.subprotocol == "fc.v1.msgpack"
        assert await code_of(client, "who") == "not_authenticated"
        assert await client.call("authenticate", {"token": "ann-1"}) == {"user": "ann", "expires_in": 60.0}
        assert await client.call("who") == ["ann", "member", "t-1"]


async def test_envelopes_and_encodings_of_ones_own(make_app: Any) -> None:
    class Flat(Room):
        request_serializer_class = FlatRequest

    class Reversed(Room):
        @classmethod
        async def decode_json(cls, text_data: str) -> Any:
            import json

            return json.loads(text_data[::-1])

    app = make_app(path("/flat", Flat), path("/reversed", Reversed))
    async with WebsocketCommunicator(app, "/flat") as client:
        await client.send_json_to({"action": "authenticate", "request_id": 1, "token": "ann"})
        assert (await client.receive_json_from())["data"]["user"] == "ann"
    async with WebsocketCommunicator(app, "/reversed") as client:
        await client.send_to('{"action": "authenticate", "data": {"token": "ann"}}')
        assert (await client.receive_json_from())["error"]["code"] == "invalid_frame"
        await client.send_to('{"action": "authenticate", "data": {"token": "ann"}}'[::-1])
        assert (await client.receive_json_from())["data"]["user"] == "ann"


async def test_consumers_without_actions_speak_json_until_they_are_known(make_app: Any) -> None:
    class Relay(RelayConsumer):
        groups = ["relay"]
        authentication_classes = [First]

    class Raw(Consumer):
        authentication_classes = [First]

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(text_data, bytes_data)

    app = make_app(path("/relay", Relay), path("/raw", Raw))
    for place in ("/relay", "/raw"):
        async with WebsocketCommunicator(app, place) as client:
            await client.send_to("hello")
            assert (await client.receive_json_from())["error"]["code"] == "invalid_frame"
            assert (await client.call("authenticate", {"token": "ann"}))["user"] == "ann"
            await client.send_to("hello")
            assert await client.receive_from() == "hello"
            await client.send_to(bytes_data=b"hello")
            assert await client.receive_from() == b"hello"


async def test_consumers_with_event_methods(make_app: Any) -> None:
    class Events(Room):
        @event("news")
        async def news(self, message: dict[str, Any]) -> None:
            await self.send_event("news", message["text"])

    app = make_app(path("/", Events))
    async with WebsocketCommunicator(app, "/") as client:
        await app.state.consumers.layer.group_send("room", {"type": "news", "text": "too early"})
        assert (await client.call("authenticate", {"token": "ann"}))["user"] == "ann"
        await until(lambda: app.state.consumers.hub.count("group:room") == 1)
        await app.state.consumers.layer.group_send("room", {"type": "news", "text": "now"})
        await client.assert_event("news", "now")


async def test_an_own_action_of_the_name_wins_once_the_client_is_known(make_app: Any) -> None:
    class Own(Room):
        @action
        async def authenticate(self, name: str) -> str:
            return f"{name} of {self.user.id}"

    async with WebsocketCommunicator(make_app(path("/", Own)), "/") as client:
        assert (await client.call("authenticate", {"token": "ann"}))["user"] == "ann"
        assert await client.call("authenticate", {"name": "x"}) == "x of ann"


# Refreshing


async def test_a_refresh_moves_the_end_and_the_name(make_app: Any) -> None:
    app = wind(make_app(path("/", Room), authentication_grace=10))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        turn(app, 50)
        assert await client.call("authenticate", {"token": "ann-2"}) == {"user": "ann", "expires_in": 550.0}
        assert await client.call("who") == ["ann", "member", "t-2"]
        turn(app, 500)
        assert await client.call("who") == ["ann", "member", "t-2"]
        await app.state.consumers.revoke("t-1")
        assert await client.call("who") == ["ann", "member", "t-2"]
        turn(app, 61)
        await client.assert_closed(4401)
        assert client.close_reason == "expired"


async def test_a_refresh_may_come_within_the_grace_and_not_after(make_app: Any) -> None:
    app = wind(make_app(path("/", Room), authentication_grace=10))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        turn(app, 69)
        assert (await client.call("who"))[0] == "ann"
        assert (await client.call("authenticate", {"token": "ann-2"}))["expires_in"] == 531.0
        turn(app, 10)
        assert (await client.call("who"))[0] == "ann"
    db.now = NOW
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        turn(app, 70)
        await client.assert_closed(4401)
    assert Room.seen[-1] == "disconnect 4401"


async def test_without_a_grace_the_end_is_the_end(make_app: Any) -> None:
    app = wind(make_app(path("/", Room), authentication_grace=0))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        turn(app, 59.9)
        assert (await client.call("who"))[0] == "ann"
        turn(app, 0.1)
        await client.assert_closed(4401)


async def test_it_ends_by_the_real_clock_too(make_app: Any) -> None:
    import time

    db.tokens["short"] = (Ann(id="ann"), Credential(time.time() + 0.1))
    app = make_app(path("/", Room), authentication_grace=0)
    async with WebsocketCommunicator(app, "/", headers=bearer("short")) as client:
        await client.assert_closed(4401)


async def test_a_credential_that_does_not_end_takes_the_end_away(make_app: Any) -> None:
    app = wind(make_app(path("/", Room)))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        assert await client.call("authenticate", {"token": "ann"}) == {"user": "ann", "expires_in": None}
        turn(app, 100_000)
        assert await client.call("who") == ["ann", "member", None]
        assert len(app.state.consumers.expiries) == 0


@pytest.mark.parametrize(
    ("token", "code"), [("nobody's", "invalid_token"), ("ann-old", "expired"), ("guest", "invalid_token"),
                        ("ben", "user_changed")],
)  # fmt: skip
async def test_a_refresh_that_is_refused_changes_nothing(make_app: Any, token: str, code: str) -> None:
    app = wind(make_app(path("/", Room)))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        assert await code_of(client, "authenticate", {"token": token}) == code
        assert await client.call("who") == ["ann", "member", "t-1"]
        turn(app, 71)
        await client.assert_closed(4401)


async def test_permissions_are_asked_again_and_close(make_app: Any) -> None:
    app = wind(make_app(path("/", Room)))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        assert await code_of(client, "authenticate", {"token": "ann-banned"}) == "banned"
        await client.assert_closed(4403)


async def test_an_anonymous_connection_stays_anonymous(make_app: Any) -> None:
    class Open(Room):
        authentication_classes = [Bearer]

    app = make_app(path("/", Open))
    async with WebsocketCommunicator(app, "/") as client:
        assert await code_of(client, "authenticate", {"token": "ann"}) == "user_changed"
        assert (await client.call("who"))[0] is None


async def test_without_an_authentication_that_takes_tokens_there_is_no_such_action(make_app: Any) -> None:
    class Nobody(BaseAuthentication):
        def authenticate(self, connection: Any) -> Any:
            return None

    class Closed(Room):
        authentication_classes = [Nobody]

    async with WebsocketCommunicator(make_app(path("/", Closed)), "/") as client:
        assert await code_of(client, "authenticate", {"token": "ann"}) == "action_not_found"
    with pytest.raises(NotImplementedError, match="Nobody takes no tokens"):
        Nobody().authenticate_token("ann", None)


async def test_users_without_an_id_are_only_themselves(make_app: Any) -> None:
    class Nameless:
        role = None
        id = None

    one, other = Nameless(), Nameless()
    db.tokens |= {"one": (one, None), "one again": (one, None), "other": (other, None)}
    async with WebsocketCommunicator(make_app(path("/", Room)), "/", headers=bearer("one")) as client:
        assert await client.call("authenticate", {"token": "one again"}) == {"user": None, "expires_in": None}
        assert await code_of(client, "authenticate", {"token": "other"}) == "user_changed"


async def test_a_refresh_that_the_broker_stops_changes_nothing(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app = wind(make_app(path("/", Room)))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        connection = next(iter(app.state.consumers.connections))
        before = connection.member.max_topics, set(connection.member.topics)

        async def subscribe(topic: str) -> None:
            raise BrokerUnavailable

        transport = app.state.consumers.hub.transport
        monkeypatch.setattr(transport, "is_direct", False)  # As one with a broker behind it.
        monkeypatch.setattr(transport, "subscribe", subscribe)
        assert await code_of(client, "authenticate", {"token": "ann-2"}) == "broker_unavailable"
        assert (connection.member.max_topics, set(connection.member.topics)) == before
        assert (await client.call("who"))[2] == "t-1"
        turn(app, 71)
        await client.assert_closed(4401)


async def test_ids_are_compared_as_text(make_app: Any) -> None:
    class Numbered:
        role = None

        def __init__(self, number: Any) -> None:
            self.id = number

    db.tokens |= {"seven": (Numbered(7), None), "7": (Numbered("7"), None), "8": (Numbered("8"), None)}
    async with WebsocketCommunicator(make_app(path("/", Room)), "/", headers=bearer("seven")) as client:
        assert (await client.call("authenticate", {"token": "7"}))["user"] == "7"
        assert await code_of(client, "authenticate", {"token": "8"}) == "user_changed"


async def test_each_that_takes_tokens_may_vouch(make_app: Any) -> None:
    class Never(BearerTokenAuthentication):
        sources = ()

        async def get_user(self, token: str, connection: Any) -> Any:
            return None

    class Two(Room):
        authentication_classes = [Never, Bearer]

    app = wind(make_app(path("/", Two)))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        assert (await client.call("authenticate", {"token": "ann-2"}))["user"] == "ann"
        assert await code_of(client, "authenticate", {"token": "x"}) == "invalid_token"


async def test_refreshes_beyond_number_cost_nothing(make_app: Any) -> None:
    app = wind(make_app(path("/", Room), max_groups=1))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        connection = next(iter(app.state.consumers.connections))
        before = connection.member.max_topics, len(connection.member.topics)
        for _ in range(300):
            for token in ("ann-2", "ann", "ann-1"):
                await client.call("authenticate", {"token": token})
        assert (connection.member.max_topics, len(connection.member.topics)) == before
        assert len(app.state.consumers.expiries._heap) < 100


# The end


async def test_revocation_closes_the_sockets_of_that_token_and_no_others(make_app: Any) -> None:
    app = wind(make_app(path("/", Room)))
    async with (
        WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as first,
        WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as second,
        WebsocketCommunicator(app, "/", headers=bearer("ann-2")) as other,
        WebsocketCommunicator(app, "/") as later,
    ):
        await later.call("authenticate", {"token": "ann-1"})
        await app.state.consumers.revoke("t-1")
        for client in (first, second, later):
            await client.assert_closed(4401)
            assert client.close_reason == "revoked"
        assert (await other.call("who"))[0] == "ann"
        await app.state.consumers.revoke("nobody's")
        for wrong in (None, "", 7):
            with pytest.raises(TypeError, match="a token is named by the text of its id"):
                await app.state.consumers.revoke(wrong)


async def test_tokens_are_not_groups_and_nobody_joins_their_topics(make_app: Any) -> None:
    class Joins(Room):
        @action
        async def enter(self, group: str) -> bool:
            return await self.join(group)

    app = wind(make_app(path("/", Joins), max_groups=2))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann-1")) as client:
        assert await client.call("enter", {"group": "other"}) is True
        assert await code_of(client, "enter", {"group": "third"}) == "too_many_groups"
        # The id itself is in no topic's name.
        assert not any("t-1" in topic for topic in app.state.consumers.hub.topics())


@pytest.mark.parametrize("token", ["ann-old", "nobody's"])
async def test_a_bad_credential_is_refused_before_anything_is_joined(make_app: Any, token: str) -> None:
    app = wind(make_app(path("/", Room)))
    client = WebsocketCommunicator(app, "/", headers=bearer(token))
    assert await client.connect() == (False, 4401)
    await client.wait()
    assert Room.seen == []


async def test_an_end_of_another_type_is_the_servers_mistake(make_app: Any, caplog: pytest.LogCaptureFixture) -> None:
    db.tokens["odd"] = (Ann(id="ann"), Credential("tomorrow"))
    client = WebsocketCommunicator(make_app(path("/", Room)), "/", headers=bearer("odd"))
    assert await client.connect() == (False, 1011)
    await client.wait()
    assert "auth.expires_at is a str" in caplog.text


async def test_a_lifetime_is_watched_by_one_timer_for_all(make_app: Any) -> None:
    app = wind(make_app(path("/", Room)))
    clients = [WebsocketCommunicator(app, "/", headers=bearer("ann-1")) for _ in range(20)]
    for client in clients:
        await client.connect()
    assert len(app.state.consumers.expiries) == 20
    turn(app, 70)
    for client in clients:
        await client.assert_closed(4401)
        await client.disconnect()
    assert len(app.state.consumers.expiries) == 0


# The header of a refusal


@pytest.mark.parametrize(
    ("headers", "expected"), [({}, "Bearer"), (bearer("bad"), 'Bearer error="invalid_token"'),
                              (bearer("ann-old"), 'Bearer error="invalid_token"')],
)  # fmt: skip
async def test_a_refused_handshake_says_what_it_wants(make_app: Any, headers: Any, expected: str) -> None:
    class Closed(JSONConsumer):
        authentication_classes = [Bearer]
        permission_classes = [IsAuthenticated]

    app = wind(make_app(path("/", Closed)))
    client = WebsocketCommunicator(app, "/", headers=headers, denial_response=True)
    assert await client.connect() == (False, 401)
    await client.wait()
    assert client.denial is not None
    assert dict(client.denial.headers)[b"www-authenticate"].decode() == expected


# The subprotocol


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["bearer.ann"], None),
        (["fc.v1.json", "bearer.ann"], "fc.v1.json"),
        (["bearer.ann", "fc.v1.msgpack"], "fc.v1.msgpack"),
        (["bearer", "bearer.ann"], "bearer"),
        (["bearer.ann", "bearer"], "bearer"),
        (["bearer", "bearer.ann", "fc.v1.json"], "fc.v1.json"),
    ],
)
async def test_the_token_is_never_chosen(make_app: Any, offered: list[str], chosen: str | None) -> None:
    async with WebsocketCommunicator(make_app(path("/", Room)), "/", subprotocols=offered) as client:
        assert client.subprotocol == chosen
        assert (await client.call("who"))[0] == "ann"


async def test_a_consumer_without_a_protocol_has_one_to_choose(make_app: Any) -> None:
    class Raw(Consumer):
        authentication_classes = [Bearer]

    app = make_app(path("/", Raw))
    for offered, chosen in ((["bearer", "bearer.ann"], "bearer"), (["fc.v1.json", "bearer.ann"], None)):
        async with WebsocketCommunicator(app, "/", subprotocols=offered) as client:
            assert client.subprotocol == chosen


@pytest.mark.parametrize("name", ["query_token_key", "cookie_token_key"])
@pytest.mark.parametrize("value", ["", 7, b"token"])
def test_a_key_that_is_no_name_is_refused(make_app: Any, name: str, value: Any) -> None:
    from fastapi import FastAPI

    from fastapi_consumers import ImproperlyConfigured, add_consumers

    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(FastAPI(), [], **{name: value})
    assert [problem.code for problem in caught.value.problems] == [f"bad-{name.replace('_', '-')}"]
