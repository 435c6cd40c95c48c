"""Who may, how often, and from where: policies on the app, the class and the action, at connect and per request."""

import pytest

from fastapi_consumers import ConsumerError, GroupConsumer, JSONConsumer, NotAuthenticated, Throttled, action, path
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.permissions import AllowAny, BasePermission, DenyAny, IsAuthenticated
from fastapi_consumers.testing import CallError, WebsocketCommunicator
from fastapi_consumers.throttling import ConnectionRateThrottle


async def code_of(client, name, data=None):
    with pytest.raises(CallError) as caught:
        await client.call(name, data)
    return caught.value.code


async def refused(client):
    accepted, code = await client.connect()
    assert not accepted
    await client.wait()
    return code


class ByHeader(BaseAuthentication):
    def authenticate(self, connection):
        name = connection.headers.get("x-user")
        if name == "forged":
            raise NotAuthenticated("The name is forged.")
        return (name, "header") if name else None


class ByQuery(BaseAuthentication):
    async def authenticate(self, connection):
        name = connection.websocket.query_params.get("user")
        return (name, "query") if name else None


# Authentication


async def test_authentications_are_asked_in_order_and_the_first_that_knows_decides(make_app):
    class Room(JSONConsumer):
        authentication_classes = [ByHeader, ByQuery]

        @action
        async def who(self) -> list[str | None]:
            assert self.scope["user"] is self.user
            return [str(self.user), self.auth]

    app = make_app(path("/", Room))
    async with WebsocketCommunicator(app, "/?user=ben", headers={"X-User": "ann"}) as client:
        assert await client.call("who") == ["ann", "header"]
    async with WebsocketCommunicator(app, "/?user=ben") as client:
        assert await client.call("who") == ["ben", "query"]
    async with WebsocketCommunicator(app, "/") as client:
        assert await client.call("who") == ["AnonymousUser()", None]


async def test_wrong_credentials_refuse_and_nobody_else_is_asked(make_app):
    class Room(JSONConsumer):
        authentication_classes = [ByHeader, ByQuery]

    app = make_app(path("/", Room))
    assert await refused(WebsocketCommunicator(app, "/?user=ben", headers={"X-User": "forged"})) == 4401
    client = WebsocketCommunicator(app, "/?user=ben", headers={"X-User": "forged"}, denial_response=True)
    assert await refused(client) == 401


async def test_the_user_that_middleware_left_in_the_scope_is_taken(make_app):
    class Room(JSONConsumer):
        permission_classes = [IsAuthenticated]

        @action
        async def who(self) -> str:
            return str(self.user)

    app = make_app(path("/", Room))
    async with WebsocketCommunicator(app, "/", scope={"user": "ann"}) as client:
        assert await client.call("who") == "ann"


async def test_a_classes_authentications_replace_the_apps(make_app):
    class Default(JSONConsumer):
        @action
        async def who(self) -> str:
            return str(self.user)

    class Own(Default):
        authentication_classes = [ByQuery]

    app = make_app(path("/default", Default), path("/own", Own), authentication_classes=[ByHeader])
    async with WebsocketCommunicator(app, "/default?user=ben", headers={"X-User": "ann"}) as client:
        assert await client.call("who") == "ann"
    async with WebsocketCommunicator(app, "/own?user=ben", headers={"X-User": "ann"}) as client:
        assert await client.call("who") == "ben"


async def test_an_authentication_that_fails_refuses_with_1011(make_app, caplog):
    class Broken(BaseAuthentication):
        def authenticate(self, connection):
            raise KeyError("database")

    class Room(JSONConsumer):
        authentication_classes = [Broken]

    assert await refused(WebsocketCommunicator(make_app(path("/", Room)), "/")) == 1011
    assert "database" in caplog.text


# Permissions


class Noting(BasePermission):
    def __init__(self, log, name, answer=True):
        self.log, self.name, self.answer = log, name, answer

    async def has_permission(self, consumer, action=None):
        self.log.append((self.name, action.name if action is not None else None))
        return self.answer


async def test_permissions_are_checked_at_connect_and_before_each_action_with_the_actions_own():
    from fastapi import FastAPI

    from fastapi_consumers import add_consumers

    log = []

    class Room(JSONConsumer):
        permission_classes = [Noting(log, "class")]

        @action(permission_classes=[Noting(log, "action")])
        async def both(self) -> None: ...

        @action
        async def one(self) -> None: ...

    app = FastAPI()
    add_consumers(app, [path("/", Room)], permission_classes=[Noting(log, "app")])
    async with WebsocketCommunicator(app, "/") as client:
        assert log == [("class", None)]
        await client.call("both")
        await client.call("one")
    assert log[1:] == [("class", "both"), ("action", "both"), ("class", "one")]


async def test_the_apps_permissions_hold_where_a_class_has_none_and_an_empty_list_lifts_them(make_app):
    class Default(JSONConsumer):
        pass

    class Lifted(JSONConsumer):
        permission_classes = []

    app = make_app(path("/default", Default), path("/lifted", Lifted), permission_classes=[DenyAny])
    assert await refused(WebsocketCommunicator(app, "/default")) == 4403
    async with WebsocketCommunicator(app, "/lifted"):
        pass


async def test_is_authenticated_answers_4401_and_any_other_4403(make_app):
    class Known(JSONConsumer):
        permission_classes = [IsAuthenticated]

    class Never(JSONConsumer):
        permission_classes = [AllowAny & ~AllowAny]

    app = make_app(path("/known", Known), path("/never", Never))
    assert await refused(WebsocketCommunicator(app, "/known")) == 4401
    assert await refused(WebsocketCommunicator(app, "/known", denial_response=True)) == 401
    assert await refused(WebsocketCommunicator(app, "/never")) == 4403
    assert await refused(WebsocketCommunicator(app, "/never", denial_response=True)) == 403


async def test_an_action_that_is_refused_is_not_called_and_the_socket_stays(make_app):
    class Room(JSONConsumer):
        @action(permission_classes=[IsAuthenticated])
        async def known(self) -> None:
            raise AssertionError

        @action(permission_classes=[lambda consumer, action=None: False])
        async def never(self) -> None:
            raise AssertionError

        @action
        async def ping(self) -> str:
            return "pong"

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        assert await code_of(client, "known") == "not_authenticated"
        assert await code_of(client, "never") == "permission_denied"
        assert await client.call("ping") == "pong"


async def test_permission_can_be_lost_while_connected(make_app):
    allowed = [True]

    class Room(JSONConsumer):
        permission_classes = [lambda consumer, action=None: allowed[0]]

        @action
        async def ping(self) -> str:
            return "pong"

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        assert await client.call("ping") == "pong"
        allowed[0] = False
        assert await code_of(client, "ping") == "permission_denied"
        assert await code_of(client, "nope") == "permission_denied"


async def test_a_permissions_message_and_own_error_are_what_the_client_is_told(make_app):
    class Owner(BasePermission):
        message = "Only the owner may do this."

        def has_permission(self, consumer, action=None):
            return False

    class Banned(BasePermission):
        def has_permission(self, consumer, action=None):
            raise ConsumerError("banned", "You are banned.", close_code=4666)

    class Room(JSONConsumer):
        @action(permission_classes=[Owner])
        async def own(self) -> None: ...

        @action(permission_classes=[Banned])
        async def banned(self) -> None: ...

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        with pytest.raises(CallError, match="Only the owner may do this"):
            await client.call("own")
        assert await code_of(client, "banned") == "banned"
        await client.assert_closed(4666)


class Asked(BasePermission):
    """Notes everything that it is asked, and refuses what it is told to."""

    def __init__(self, log, name, no=()):
        self.log, self.name, self.no = log, name, no

    def note(self, what):
        self.log.append(f"{self.name} {what}")
        return self.log[-1] not in self.no

    def has_permission(self, consumer, action=None):
        return self.note("connect" if action is None else action.name)

    def has_group_permission(self, consumer, group):
        return self.note(group)

    def has_object_permission(self, consumer, obj):
        return self.note(obj)


class Counted(ConnectionRateThrottle):
    rate = "1000/second"

    def __init__(self, log, name):
        super().__init__()
        self.log, self.name = log, name

    def get_cost(self, consumer, action):
        self.log.append(f"{self.name} counts")
        return 1


async def test_what_is_asked_in_which_order(make_app):
    log = []

    class Base(GroupConsumer, abstract=True):
        permission_classes = [Asked(log, "base")]
        throttle_classes = [Counted(log, "base")]

    class Room(Base):
        groups = ["a", "b"]
        permission_classes = [Asked(log, "class", no=["class rename"])]
        throttle_classes = [Counted(log, "class")]

        @action(
            permission_classes=[Asked(log, "action", no=["action strict"])], throttle_classes=[Counted(log, "action")]
        )
        async def act(self, x: int) -> None:
            log.append("acts")
            await self.join("c")
            await self.check_object_permissions("object")

        @action(permission_classes=[Asked(log, "action")], throttle_classes=[Counted(log, "action")])
        async def rename(self) -> None:
            raise AssertionError

        @action(permission_classes=[Asked(log, "action", no=["action strict"])], enabled=False)
        async def strict(self) -> None:
            raise AssertionError

    app = make_app(path("/", Room), permission_classes=[Asked(log, "app")], throttle_classes=[Counted(log, "app")])
    async with WebsocketCommunicator(app, "/") as client:

        async def asked(name, data=None):
            log.clear()
            try:
                await client.call(name, data)
            except CallError as error:
                return [*log, error.code]
            return list(log)

        assert log == ["class connect", "class a", "class b"]
        before = ["class counts", "action counts", "class act", "action act"]
        assert await asked("act", {"x": 1}) == [*before, "acts", "class c", "action c", "class object", "action object"]
        assert await asked("act", {"x": "wrong"}) == [*before, "invalid_data"]
        assert await asked("rename") == ["class counts", "action counts", "class rename", "permission_denied"]
        assert await asked("strict") == ["class counts", "class strict", "action strict", "permission_denied"]
        assert await asked("nope") == ["class counts", "class connect", "action_not_found"]


# Throttles


class Throttling(JSONConsumer, abstract=True):
    @action
    async def ping(self) -> str:
        return "pong"

    @action(throttle_classes=["1/hour"])
    async def rare(self) -> str:
        return "rare"


async def test_throttles_of_action_and_class_both_count_and_tell_when_to_come_back(make_app):
    class Room(Throttling):
        throttle_classes = ["3/hour"]

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        assert await client.call("rare") == "rare"
        with pytest.raises(CallError) as caught:
            await client.call("rare")
        assert caught.value.code == "throttled"
        assert 3500 < caught.value.retry_after <= 3600
        assert await client.call("ping") == "pong"
        with pytest.raises(CallError) as caught:
            await client.call("ping")
        assert 1100 < caught.value.retry_after <= 1200


async def test_a_classes_throttles_replace_the_apps_and_all_connections_of_an_address_count_together(make_app):
    class Default(Throttling):
        pass

    class Own(Throttling):
        throttle_classes = [ConnectionRateThrottle("1/hour")]

    app = make_app(path("/default", Default), path("/own", Own), throttle_classes=["1/hour"])
    async with WebsocketCommunicator(app, "/default") as one, WebsocketCommunicator(app, "/default") as two:
        assert await one.call("ping") == "pong"
        assert await code_of(two, "ping") == "throttled"
    async with WebsocketCommunicator(app, "/default", client=("10.0.0.9", 1)) as other:
        assert await other.call("ping") == "pong"
    async with WebsocketCommunicator(app, "/own") as one, WebsocketCommunicator(app, "/own") as two:
        assert await one.call("ping") == "pong"
        assert await two.call("ping") == "pong"
        assert await code_of(two, "ping") == "throttled"


async def test_bad_requests_count_too(make_app):
    class Room(Throttling):
        throttle_classes = ["2/hour"]

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        assert await code_of(client, "nope") == "action_not_found"
        await client.send_to("{")
        assert (await client.receive_json_from())["error"]["code"] == "invalid_frame"
        assert await code_of(client, "ping") == "throttled"


async def test_a_consumer_with_a_receive_of_its_own_is_throttled_as_well(make_app):
    class Room(JSONConsumer):
        throttle_classes = ["1/hour"]

        async def receive_json(self, content):
            await self.send_json(content)

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        await client.send_json_to(1)
        assert await client.receive_json_from() == 1
        await client.send_json_to(2)
        assert (await client.receive_json_from())["error"]["code"] == "throttled"


async def test_a_receive_of_its_own_that_hands_on_counts_each_request_once(make_app):
    class Room(Throttling):
        throttle_classes = ["2/hour"]

        async def receive_json(self, content):
            await super().receive_json(content)

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        assert await client.call("ping") == "pong"
        assert await client.call("ping") == "pong"
        assert await code_of(client, "ping") == "throttled"


async def test_a_validation_error_is_answered_only_to_those_who_may_ask(make_app):
    class Room(JSONConsumer):
        @action(permission_classes=[DenyAny])
        async def denied(self, x: int) -> None: ...

        @action(throttle_classes=["1/hour"])
        async def rare(self, x: int) -> None: ...

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        assert await code_of(client, "denied", {"x": "no"}) == "permission_denied"
        assert await code_of(client, "rare", {"x": "no"}) == "invalid_data"
        assert await code_of(client, "rare", {"x": "no"}) == "throttled"


async def test_on_throttled_is_called_and_may_change_the_answer(make_app):
    class Strict(ConnectionRateThrottle):
        rate = "1/hour"

        async def on_throttled(self, consumer, action, retry_after):
            raise Throttled(retry_after, f"Not so fast with {action.name}.", close=True)

    class Room(JSONConsumer):
        @action(throttle_classes=[Strict])
        async def rare(self) -> None: ...

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        await client.call("rare")
        with pytest.raises(CallError, match="Not so fast with rare"):
            await client.call("rare")
        await client.assert_closed(4429)


async def test_connection_throttles_refuse_with_4429_or_429_and_retry_after(make_app):
    class Room(GroupConsumer):
        groups = ["room"]
        connection_throttle_classes = ["1/hour"]

    app = make_app(path("/", Room))
    async with WebsocketCommunicator(app, "/"):
        pass
    assert await refused(WebsocketCommunicator(app, "/")) == 4429
    client = WebsocketCommunicator(app, "/", denial_response=True)
    assert await refused(client) == 429
    assert 3500 < int(dict(client.denial.headers)[b"retry-after"]) <= 3601


async def test_connection_throttles_of_the_app_count_handshakes_of_all_classes(make_app):
    class One(JSONConsumer):
        pass

    class Two(JSONConsumer):
        pass

    class Free(JSONConsumer):
        connection_throttle_classes = []

    app = make_app(path("/1", One), path("/2", Two), path("/free", Free), connection_throttle_classes=["1/hour"])
    async with WebsocketCommunicator(app, "/1"):
        pass
    assert await refused(WebsocketCommunicator(app, "/2")) == 4429
    async with WebsocketCommunicator(app, "/free"):
        pass


async def test_wrong_credentials_count_as_handshakes(make_app):
    class Room(JSONConsumer):
        authentication_classes = [ByHeader]
        connection_throttle_classes = ["1/hour"]

    app = make_app(path("/", Room))
    assert await refused(WebsocketCommunicator(app, "/", headers={"X-User": "forged"})) == 4401
    assert await refused(WebsocketCommunicator(app, "/", headers={"X-User": "forged"})) == 4429


# Origins


class Open(JSONConsumer):
    pass


@pytest.mark.parametrize(
    ("origin", "allowed"), [(None, True), ("http://testserver", True), ("http://evil.example", False), ("null", False)]
)
async def test_by_default_only_pages_of_the_same_host_may_connect(make_app, origin, allowed):
    client = WebsocketCommunicator(make_app(path("/", Open)), "/", headers={"Origin": origin} if origin else None)
    if allowed:
        async with client:
            pass
    else:
        assert await refused(client) == 4403
        assert client.close_reason == "origin_not_allowed"


async def test_the_first_page_that_is_refused_is_warned_of_and_others_are_not(make_app, caplog):
    app = make_app(path("/", Open))
    for origin in ("http://localhost:5173\n" + "x" * 500, "http://other.example"):
        assert await refused(WebsocketCommunicator(app, "/", headers={"Origin": origin})) == 4403
    [message] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert message.startswith("a page of http://localhost:5173\\nxxx")
    assert "allowed_origins" in message
    assert len(message) < 400


async def test_allowed_origins_of_the_class_replace_the_apps(make_app):
    class Own(JSONConsumer):
        allowed_origins = ["https://own.example"]

    app = make_app(path("/default", Open), path("/own", Own), allowed_origins=["https://*.example.com"])
    async with WebsocketCommunicator(app, "/default", headers={"Origin": "https://a.example.com"}):
        pass
    async with WebsocketCommunicator(app, "/own", headers={"Origin": "https://own.example"}):
        pass
    assert await refused(WebsocketCommunicator(app, "/default", headers={"Origin": "http://testserver"})) == 4403
    assert await refused(WebsocketCommunicator(app, "/own", headers={"Origin": "https://a.example.com"})) == 4403
