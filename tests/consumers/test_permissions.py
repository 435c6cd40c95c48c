"""Who may join which group, touch which object and hear which event; and what a hostile client can do about it."""

import asyncio
import json

import pytest
from fastapi import FastAPI, WebSocket

from fastapi_consumers import (
    GroupConsumer,
    JSONConsumer,
    NotFound,
    PermissionDenied,
    RelayConsumer,
    action,
    add_consumers,
    event,
    path,
)
from fastapi_consumers.addressing import GROUP
from fastapi_consumers.authentication import TokenAuthentication
from fastapi_consumers.history import History
from fastapi_consumers.permissions import BasePermission, IsAuthenticated
from fastapi_consumers.presence import Presence
from fastapi_consumers.testing import CallError, WebsocketCommunicator

TIMEOUT = 20


async def error_of(client, name, data=None):
    with pytest.raises(CallError) as caught:
        await client.call(name, data)
    return caught.value


class User:
    def __init__(self, id, *groups):
        self.id, self.groups = id, groups


class Tokens(TokenAuthentication):
    """``name:group,group`` is whose token it is, and what it lets him join."""

    async def get_user(self, token, connection):
        name, _, groups = token.partition(":")
        return User(name, *groups.split(","))


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


class InToken(BasePermission):
    message = "Your token does not say so."

    async def has_group_permission(self, consumer, group):
        await asyncio.sleep(0)
        return group in consumer.user.groups


class Room(GroupConsumer, abstract=True):
    authentication_classes = [Tokens]
    permission_classes = [InToken]
    groups = ["room.{room}"]

    @action
    async def enter(self, group: str) -> bool:
        return await self.join(group)

    @action
    async def add(self, group: str) -> None:
        await self.channel_layer.group_add(group, self.channel_name)

    @action
    async def say(self, group: str, text: str) -> None:
        await self.broadcast("said", text, group=group)

    @action
    async def where(self) -> list[str]:
        return list(self.group_names)


def members(app, group):
    return app.state.consumers.hub.count(GROUP + group)


# Joining


async def test_a_group_that_may_not_be_joined_refuses_the_socket_before_accept(make_app):
    class Own(Room):
        pass

    app = make_app(path("/{room}", Own))
    async with WebsocketCommunicator(app, "/a", headers=bearer("ann:room.a")) as client:
        assert await client.call("where") == ["room.a"]
    client = WebsocketCommunicator(app, "/b", headers=bearer("ann:room.a"))
    assert await client.connect() == (False, 4403)
    assert client.close_reason == "permission_denied"
    await client.wait()
    client = WebsocketCommunicator(app, "/b", headers=bearer("ann:room.a"), denial_response=True)
    assert await client.connect() == (False, 403)
    assert json.loads(client.denial.body) == {
        "error": {"code": "permission_denied", "message": "Your token does not say so."}
    }
    await client.wait()


async def test_a_refused_handshake_has_been_in_no_group_at_all(make_app):
    joined, app = [], None

    class Watches(BasePermission):
        def has_group_permission(self, consumer, group):
            joined.append((group, members(app, "first"), members(app, "second")))
            return group != "second"

    class Two(GroupConsumer):
        groups = ["first", "second"]
        permission_classes = [Watches]
        presence = Presence(key=lambda consumer: "ann")

    class Looks(GroupConsumer):
        groups = ["first"]
        presence = Presence(key=lambda consumer: "looks")

    app = make_app(path("/two", Two), path("/looks", Looks))
    async with WebsocketCommunicator(app, "/looks") as looks:
        assert (await looks.receive_json_from())["joins"].keys() == {"looks"}
        client = WebsocketCommunicator(app, "/two")
        assert await client.connect() == (False, 4403)
        await client.wait()
        assert joined == [("first", 1, 0), ("second", 1, 0)]
        assert members(app, "first") == 1
        assert (await looks.call("presence"))["count"] == 1


@pytest.mark.parametrize("way", ["enter", "add"])
async def test_every_way_into_a_group_asks(make_app, way):
    class Own(Room):
        pass

    app = make_app(path("/{room}", Own))
    async with WebsocketCommunicator(app, "/a", headers=bearer("ann:room.a,extra")) as client:
        await client.call(way, {"group": "extra"})
        error = await error_of(client, way, {"group": "room.b"})
        assert (error.code, error.message) == ("permission_denied", "Your token does not say so.")
        assert (members(app, "extra"), members(app, "room.b")) == (1, 0)
        assert (await error_of(client, way, {"group": ""})).code == "invalid_group"


async def test_an_http_endpoint_that_adds_a_channel_is_asked_for_too_and_whose_action_it_is_does_not_matter(make_app):
    asked = []

    class Own(Room):
        permission_classes = [InToken | (lambda consumer, action: asked.append(action))]

        @action
        async def channel(self) -> str:
            return self.channel_name

        @action(permission_classes=[InToken])
        async def pull(self, group: str, channel: str) -> None:
            await self.channel_layer.group_add(group, channel)

    app = make_app(path("/{room}", Own))
    async with (
        WebsocketCommunicator(app, "/a", headers=bearer("ann:room.a,x")) as ann,
        WebsocketCommunicator(app, "/a", headers=bearer("ben:room.a")) as ben,
    ):
        channel = await ben.call("channel")
        asked.clear()
        assert (await error_of(ann, "pull", {"group": "x", "channel": channel})).code == "permission_denied"
        assert asked[-1] is None
        with pytest.raises(Exception, match="do not have permission"):
            await app.state.consumers.layer.group_add("x", channel)
        assert members(app, "x") == 0


async def test_groups_given_to_serve_are_asked_for(make_app):
    class Own(Room):
        pass

    app = make_app()

    @app.websocket("/serve/{group}")
    async def endpoint(websocket: WebSocket, group: str):
        await Own.serve(websocket, groups=[group])

    async with WebsocketCommunicator(app, "/serve/x", headers=bearer("ann:x")) as client:
        assert await client.call("where") == ["x"]
    client = WebsocketCommunicator(app, "/serve/y", headers=bearer("ann:x"))
    assert await client.connect() == (False, 4403)
    await client.wait()


async def test_the_apps_permissions_are_asked_about_groups_and_a_list_of_the_class_replaces_them(make_app):
    class Default(GroupConsumer):
        groups = ["{room}"]
        authentication_classes = [Tokens]

    class Lifted(Default):
        permission_classes = []

    app = make_app(path("/default/{room}", Default), path("/lifted/{room}", Lifted), permission_classes=[InToken])
    client = WebsocketCommunicator(app, "/default/a", headers=bearer("ann:b"))
    assert await client.connect() == (False, 4403)
    await client.wait()
    async with WebsocketCommunicator(app, "/lifted/a", headers=bearer("ann:b")):
        pass


async def test_an_actions_own_permissions_are_asked_about_the_groups_that_it_joins_besides(make_app):
    log = []

    class Noting(BasePermission):
        def __init__(self, name, forbidden=""):
            self.name, self.forbidden = name, forbidden

        def has_group_permission(self, consumer, group):
            log.append((self.name, group))
            return group != self.forbidden

    class Own(GroupConsumer):
        groups = ["first"]
        permission_classes = [Noting("class")]

        @action(permission_classes=[Noting("action", "secret")])
        async def strict(self, group: str) -> bool:
            return await self.join(group)

        @action(permission_classes=[Noting("concurrent", "secret")], concurrent=True)
        async def beside(self, group: str) -> bool:
            return await self.join(group)

        @action
        async def easy(self, group: str) -> bool:
            return await self.join(group)

    async with WebsocketCommunicator(make_app(path("/", Own)), "/") as client:
        assert log == [("class", "first")]
        log.clear()
        for name in ("strict", "beside"):
            assert (await error_of(client, name, {"group": "secret"})).code == "permission_denied"
        assert await client.call("easy", {"group": "secret"}) is True
        assert await client.call("strict", {"group": "secret"}) is False, "nothing is asked of a member"
        assert log == [
            *[("class", "secret"), ("action", "secret")],
            *[("class", "secret"), ("concurrent", "secret")],
            ("class", "secret"),
        ]


async def test_a_check_of_ones_own_is_asked_wherever_a_group_is_joined(make_app):
    class Own(Room):
        permission_classes = []

        async def check_group_permissions(self, group):
            await super().check_group_permissions(group)
            if group == "hidden":
                raise NotFound

    async with WebsocketCommunicator(make_app(path("/{room}", Own)), "/a") as client:
        assert (await error_of(client, "enter", {"group": "hidden"})).code == "not_found"
        assert (await error_of(client, "add", {"group": "hidden"})).code == "not_found"
        assert await client.call("enter", {"group": "open"}) is True
    client = WebsocketCommunicator(make_app(path("/", type("Hidden", (Own,), {"groups": ["hidden"]}))), "/")
    assert await client.connect() == (False, 1008)
    await client.wait()


# Refreshing


async def refreshed(client, token):
    await client.send_json_to({"action": "authenticate", "request_id": "r", "data": {"token": token}})
    frames = []
    while True:
        frames.append(await client.receive_json_from(timeout=TIMEOUT))
        if frames[-1].get("request_id") == "r":
            return frames


async def test_a_new_credential_that_allows_less_ends_memberships_and_the_client_is_told(make_app):
    left = []

    class Own(Room):
        async def on_leave(self, group):
            left.append(group)

    app = make_app(path("/{room}", Own))
    async with WebsocketCommunicator(app, "/a", headers=bearer("ann:room.a,x,y")) as client:
        for way, group in (("enter", "x"), ("enter", "y")):
            await client.call(way, {"group": group})
        notice, reply = await refreshed(client, "ann:room.a,y")
        assert notice == {
            "type": "left",
            "group": "x",
            "error": {"code": "permission_denied", "message": "Your token does not say so."},
        }
        assert reply["status"] == "ok"
        assert await client.call("where") == ["room.a", "y"]
        assert (members(app, "x"), left) == (0, ["x"])
        await app.state.consumers.broadcast("x", "said", "not for ann")
        assert (await error_of(client, "enter", {"group": "x"})).code == "permission_denied"
        assert len(await refreshed(client, "ann:room.a,x,y")) == 1
        assert await client.call("enter", {"group": "x"}) is True


async def test_what_the_channel_layer_added_is_asked_about_again_too(make_app):
    class Own(Room):
        pass

    app = make_app(path("/{room}", Own))
    async with WebsocketCommunicator(app, "/a", headers=bearer("ann:room.a,x")) as client:
        await client.call("add", {"group": "x"})
        assert [frame["type"] for frame in await refreshed(client, "ann:room.a")] == ["left", "reply"]
        assert members(app, "x") == 0


async def test_a_new_credential_that_would_have_refused_the_handshake_closes(make_app):
    class Own(Room):
        pass

    app = make_app(path("/{room}", Own))
    async with WebsocketCommunicator(app, "/a", headers=bearer("ann:room.a")) as client:
        [reply] = await refreshed(client, "ann:x")
        assert (reply["status"], reply["error"]["code"]) == ("error", "permission_denied")
        await client.assert_closed(4403)
    assert members(app, "room.a") == 0


async def test_a_permission_that_fails_on_refresh_ends_the_membership_and_is_logged(make_app, caplog):
    class Fails(InToken):
        async def has_group_permission(self, consumer, group):
            return group == "room.a" or self.known[consumer.user.groups]

        known = {("1",): True}

    class Own(Room):
        permission_classes = [Fails]

    app = make_app(path("/{room}", Own))
    async with WebsocketCommunicator(app, "/a", headers=bearer("ann:1")) as client:
        await client.call("enter", {"group": "x"})
        notice, reply = await refreshed(client, "ann:2")
        assert (notice["type"], notice["error"]["code"], reply["status"]) == ("left", "internal_error", "ok")
    assert "KeyError" in caplog.text


async def test_on_a_refresh_operands_are_asked_as_at_connect_and_not_as_for_the_action(make_app):
    asked = []

    def noting(consumer, action):
        asked.append(action and action.name)
        return False

    class Own(Room):
        permission_classes = [noting | InToken()]

    async with WebsocketCommunicator(make_app(path("/{room}", Own)), "/a", headers=bearer("ann:room.a")) as client:
        assert asked == [None, None]
        asked.clear()
        await refreshed(client, "ann:room.a")
        assert asked == ["authenticate", None, None]


# Hostile clients


@pytest.mark.parametrize("waits_in", ["has_permission", "has_group_permission"])
async def test_a_cancel_of_the_refresh_does_not_skip_what_is_asked_about_the_new_credential(make_app, waits_in):
    asked = asyncio.Event()

    async def waits(self, consumer, subject=None):
        if "less" in consumer.user.groups and not hasattr(subject, "name"):
            asked.set()
            await asyncio.Event().wait()
        return True

    class Own(Room):
        permission_classes = [type("Waits", (BasePermission,), {waits_in: waits})]

    app = make_app(path("/{room}", Own))
    async with WebsocketCommunicator(app, "/a", headers=bearer("ann:more")) as client:
        await client.call("enter", {"group": "x"})
        await client.send_json_to({"action": "authenticate", "request_id": 1, "data": {"token": "ann:less"}})
        await asyncio.wait_for(asked.wait(), TIMEOUT)
        await client.send_json_to({"action": "cancel", "data": {"request_id": 1}})
        assert (await client.receive_json_from(timeout=TIMEOUT))["error"]["code"] == "cancelled"
        await client.assert_closed(4401, timeout=TIMEOUT)
    assert members(app, "x") == 0


async def test_a_cancel_while_a_handler_explains_the_refusal_of_a_new_credential_does_not_skip_it_either(make_app):
    asked = asyncio.Event()

    class Less(BasePermission):
        def has_permission(self, consumer, action=None):
            return action is not None or "less" not in consumer.user.groups

    async def explains(consumer, error):
        asked.set()
        await asyncio.Event().wait()

    class Own(Room):
        permission_classes = [Less]
        exception_handlers = {PermissionDenied: explains}

    async with WebsocketCommunicator(make_app(path("/{room}", Own)), "/a", headers=bearer("ann:more")) as client:
        await client.send_json_to({"action": "authenticate", "request_id": 1, "data": {"token": "ann:less"}})
        await asyncio.wait_for(asked.wait(), TIMEOUT)
        await client.send_json_to({"action": "cancel", "data": {"request_id": 1}})
        await client.assert_closed(4401, timeout=TIMEOUT)


async def test_a_join_that_was_asked_with_an_old_credential_does_not_outlive_it(make_app):
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(InToken):
        async def has_group_permission(self, consumer, group):
            allowed = group in consumer.user.groups
            if group == "x" and allowed:
                asked.set()
                await go_on.wait()
            return allowed

    class Own(Room):
        permission_classes = [Slow]

        @action(concurrent=True)
        async def slowly(self, group: str) -> bool:
            return await self.join(group)

    app = make_app(path("/{room}", Own))
    async with WebsocketCommunicator(app, "/a", headers=bearer("ann:room.a,x")) as client:
        await client.send_json_to({"action": "slowly", "request_id": 1, "data": {"group": "x"}})
        await asyncio.wait_for(asked.wait(), TIMEOUT)
        assert len(await refreshed(client, "ann:room.a")) == 1
        go_on.set()
        reply = await client.receive_json_from(timeout=TIMEOUT)
        assert (reply["request_id"], reply["error"]["code"]) == (1, "permission_denied")
        assert members(app, "x") == 0
        assert await client.call("where") == ["room.a"]


@pytest.mark.parametrize("concurrent", [False, True])
@pytest.mark.parametrize("waits_in", ["has_permission", "has_group_permission", "has_object_permission"])
async def test_a_cancel_while_a_permission_is_asked_opens_nothing(make_app, waits_in, concurrent):
    asked, done = asyncio.Event(), []

    async def waits(self, consumer, subject=None):
        if waits_in == "has_permission" and (subject is None or subject.name != "act"):
            return True
        if subject == "room.a":
            return True
        asked.set()
        await asyncio.Event().wait()

    class Own(Room):
        permission_classes = [type("Waits", (BasePermission,), {waits_in: waits})]

        @action(concurrent=concurrent)
        async def act(self) -> None:
            await self.check_object_permissions("thing")
            await self.join("x")
            done.append("act")

    app = make_app(path("/{room}", Own))
    async with WebsocketCommunicator(app, "/a", headers=bearer("ann:x")) as client:
        await client.send_json_to({"action": "act", "request_id": 1})
        await asyncio.wait_for(asked.wait(), TIMEOUT)
        await client.send_json_to({"action": "cancel", "data": {"request_id": 1}})
        reply = await client.receive_json_from(timeout=TIMEOUT)
        assert (reply["request_id"], reply["error"]["code"]) == (1, "cancelled")
        assert (members(app, "x"), done) == (0, [])
        assert await client.call("where") == ["room.a"]


async def test_a_client_that_goes_while_it_is_asked_for_at_connect_is_in_no_group(make_app, nothing_left):
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Waits(BasePermission):
        async def has_group_permission(self, consumer, group):
            asked.set()
            await go_on.wait()
            return True

    class Own(Room):
        permission_classes = [Waits]

    app = make_app(path("/{room}", Own))
    client = WebsocketCommunicator(app, "/a")
    connecting = asyncio.create_task(client.connect(timeout=TIMEOUT))
    await asyncio.wait_for(asked.wait(), TIMEOUT)
    assert members(app, "room.a") == 0
    leaving = asyncio.create_task(client.disconnect(timeout=TIMEOUT))
    with pytest.raises(ConnectionError):
        await connecting
    go_on.set()
    await leaving
    assert nothing_left(app)


async def test_the_query_recovers_no_group_that_the_client_is_not_let_into(make_app):
    class Own(Room):
        history = History(size=10)

    app = make_app(path("/{room}", Own))
    async with WebsocketCommunicator(app, "/a", headers=bearer("ann:room.a,room.b")) as ann:
        await ann.receive_json_from()
        position = await app.state.consumers.broadcast("room.b", "said", "secret")
        await app.state.consumers.broadcast("room.a", "said", "open")
        start = f"{position.epoch}:0"
        client = WebsocketCommunicator(app, f"/b?recover={start}&recover.room.b={start}", headers=bearer("eve:room.a"))
        assert await client.connect() == (False, 4403)
        await client.wait()
        query = f"/a?recover.room.b={start}&recover.room.a={start}"
        async with WebsocketCommunicator(app, query, headers=bearer("eve:room.a")) as eve:
            assert (await eve.receive_json_from())["group"] == "room.a"
            assert (await error_of(eve, "history", {"group": "room.b"})).code == "not_a_member"
            assert (await error_of(eve, "enter", {"group": "room.b"})).code == "permission_denied"
            assert (await error_of(eve, "history", {"group": "room.b"})).code == "not_a_member"
            assert members(app, "room.b") == 0


async def test_values_of_the_path_cannot_name_a_group_of_another_template(make_app):
    asked = []

    class Asks(BasePermission):
        def has_group_permission(self, consumer, group):
            asked.append(group)
            return not group.startswith("private.admin")

    class Open(GroupConsumer):
        groups = ["private.{user}"]
        permission_classes = [Asks]

    app = make_app(path("/{user}", Open))
    for value in ("admin.1", "x%2Fadmin", "..admin", "admin%2E1", "%61dmin.1"):
        client = WebsocketCommunicator(app, f"/{value}")
        await client.connect()
        await client.disconnect()
        await client.wait()
    assert "private.admin.1" not in asked
    assert all(group.count(".") == 1 for group in asked)


# Objects


class OwnsDocument(BasePermission):
    message = "It is somebody else's."

    async def has_object_permission(self, consumer, obj):
        return obj["owner"] == consumer.user.id


class Reads(BasePermission):
    def has_permission(self, consumer, action=None):
        return action is None or action.name == "read"


DOCUMENTS = {"a": {"owner": "ann", "text": "A"}, "b": {"owner": "ben", "text": "B"}}


async def test_objects_are_asked_about_from_within_an_action(make_app):
    class Documents(JSONConsumer):
        authentication_classes = [Tokens]
        permission_classes = [IsAuthenticated, OwnsDocument]

        @action
        async def read(self, name: str) -> str:
            document = DOCUMENTS[name]
            await self.check_object_permissions(document)
            return document["text"]

    async with WebsocketCommunicator(make_app(path("/", Documents)), "/", headers=bearer("ann")) as client:
        assert await client.call("read", {"name": "a"}) == "A"
        error = await error_of(client, "read", {"name": "b"})
        assert (error.code, error.message) == ("permission_denied", "It is somebody else's.")


@pytest.mark.parametrize("concurrent", [False, True])
async def test_an_actions_own_permissions_count_and_operands_know_which_action_it_is(make_app, concurrent):
    class Documents(JSONConsumer):
        authentication_classes = [Tokens]
        permission_classes = [Reads | OwnsDocument]

        @action(concurrent=concurrent)
        async def read(self, name: str) -> str:
            await self.check_object_permissions(DOCUMENTS[name])
            return DOCUMENTS[name]["text"]

        @action(concurrent=concurrent)
        async def write(self, name: str) -> None:
            await self.check_object_permissions(DOCUMENTS[name])

        @action(concurrent=concurrent, permission_classes=[~OwnsDocument])
        async def praise(self, name: str) -> None:
            await self.check_object_permissions(DOCUMENTS[name])

    async with WebsocketCommunicator(make_app(path("/", Documents)), "/", headers=bearer("ann")) as client:
        assert await client.call("read", {"name": "b"}) == "B"
        await client.call("write", {"name": "a"})
        assert (await error_of(client, "write", {"name": "b"})).code == "permission_denied"
        assert (await error_of(client, "praise", {"name": "a"})).code == "permission_denied"
        assert (await error_of(client, "praise", {"name": "b"})).code == "permission_denied"


async def test_outside_of_an_action_objects_are_the_consumers_business_alone(make_app):
    class Never(BasePermission):
        def has_object_permission(self, consumer, obj):
            return False

    class Documents(GroupConsumer):
        groups = ["all"]
        authentication_classes = [Tokens]
        permission_classes = [OwnsDocument]

        @action(permission_classes=[Never])
        async def read(self, name: str) -> None:
            await self.check_object_permissions(DOCUMENTS[name])

        @event
        async def look(self, message):
            await self.check_object_permissions(DOCUMENTS[message["name"]])
            await self.send_event("saw", message["name"])

    app = make_app(path("/", Documents))
    async with WebsocketCommunicator(app, "/", headers=bearer("ann")) as client:
        assert (await error_of(client, "read", {"name": "a"})).code == "permission_denied"
        await app.state.consumers.layer.group_send("all", {"type": "look", "name": "a"})
        assert (await client.receive_json_from())["data"] == "a"
        await app.state.consumers.layer.group_send("all", {"type": "look", "name": "b"})
        assert (await client.receive_json_from())["error"]["code"] == "permission_denied"


# Deliveries


class Cleared(BasePermission):
    """Events with a level are for those whose user has it; a broken one breaks it."""

    def has_delivery_permission(self, consumer, delivery):
        assert delivery.group == "room"
        return delivery.event != "said" or delivery.data["level"] <= int(consumer.user.groups[0])


class Told(GroupConsumer, abstract=True):
    groups = ["room"]
    authentication_classes = [Tokens]
    permission_classes = [Cleared]

    @action
    async def say(self, level: int | None) -> None:
        await self.broadcast("said", {"level": level})

    @action
    async def past(self) -> list[int]:
        return [event.data["level"] for event in (await self.read_history("room")).events]


async def levels(client, count):
    found = [await client.receive_json_from(timeout=TIMEOUT) for _ in range(count)]
    return [frame["data"]["level"] for frame in found if frame["type"] == "event"]


def at(app, level, query="", **options):
    return WebsocketCommunicator(app, "/" + query, headers=bearer(f"user{level}:{level}"), **options)


async def test_a_live_event_goes_to_those_who_may_have_it(make_app):
    class Own(Told):
        pass

    class Unfiltered(GroupConsumer):
        groups = ["room"]

    app = make_app(path("/", Own), path("/all", Unfiltered))
    async with at(app, 1) as low, at(app, 3) as high, WebsocketCommunicator(app, "/all") as everyone:
        for level in (3, 1, 2, 0):
            await app.state.consumers.broadcast("room", "said", {"level": level})
        await app.state.consumers.broadcast("room", "other")
        assert await levels(low, 2) == [1, 0]
        assert (await low.receive_json_from())["event"] == "other"
        assert await levels(high, 4) == [3, 1, 2, 0]
        assert await levels(everyone, 4) == [3, 1, 2, 0]


async def test_what_is_sent_to_one_connection_or_user_on_purpose_is_not_asked_about(make_app):
    class Own(Told):
        @action
        async def channel(self) -> str:
            await self.send_event("said", {"level": 9})
            return self.channel_name

    app = make_app(path("/", Own))
    async with at(app, 1) as client:
        await client.send_json_to({"action": "channel", "request_id": 1})
        assert await levels(client, 1) == [9]
        channel = (await client.receive_json_from())["data"]
        await app.state.consumers.send("said", {"level": 8}, channel=channel)
        await app.state.consumers.send("said", {"level": 7}, user="user1")
        assert await levels(client, 2) == [8, 7]


async def test_a_permission_that_fails_withholds_the_event_from_that_member_and_is_logged_once(make_app, caplog):
    class Own(Told):
        pass

    app = make_app(path("/", Own))
    async with at(app, 1) as one, at(app, 2) as two, at(app, "x") as broken:
        await app.state.consumers.broadcast("room", "said", {"level": None})
        await app.state.consumers.broadcast("room", "said", {"level": 1})
        await app.state.consumers.broadcast("room", "other")
        for client in (one, two):
            assert await levels(client, 1) == [1]
        assert (await broken.receive_json_from())["event"] == "other"
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert len(tracebacks) == 2, "one for each event, and not for each member"
    assert "for 3 members" in caplog.text


async def test_healed_and_recovered_events_and_the_history_are_as_withheld_as_live_ones(make_app):
    class Own(Told):
        history = History(size=100)

    app = make_app(path("/", Own))
    consumers = app.state.consumers
    async with at(app, 1) as low, at(app, 3) as high:
        joined = await low.receive_json_from()
        await high.receive_json_from()
        for level in (2, 1, 3, 0):
            await consumers.broadcast("room", "said", {"level": level})
        assert await levels(low, 2) == [1, 0]
        assert await levels(high, 4) == [2, 1, 3, 0]
        # What was lost on the way is read back from the store.
        stream = consumers.hub.streams._streams["room"]
        stream.offset -= 3
        consumers.hub.streams.heal(stream)
        assert await levels(low, 2) == [1, 0]
        assert await levels(high, 3) == [1, 3, 0]
        assert await low.call("past") == [1, 0]
        assert await high.call("past") == [2, 1, 3, 0]
        page = await low.call("history", {"limit": 2})
        assert [entry["data"]["level"] for entry in page["results"]] == [0]
        page = await low.call("history", {"limit": 2, "cursor": page["next"]})
        assert [entry["data"]["level"] for entry in page["results"]] == [1]
        assert page["next"] is None
        page = await low.call("history", {"limit": 1, "cursor": (await low.call("history", {"limit": 1}))["next"]})
        assert (page["results"], bool(page["next"])) == ([], True)
    query = f"?recover={joined['epoch']}:{joined['offset']}"
    async with at(app, 1, query) as low, at(app, 3, query) as high:
        for client, missed in ((low, 2), (high, 4)):
            told = await client.receive_json_from()
            assert (told["recovered"], told["missed"], told["top"] - told["offset"]) == (True, missed, 4)
        assert await levels(low, 2) == [1, 0]
        assert await levels(high, 4) == [2, 1, 3, 0]
        await consumers.broadcast("room", "said", {"level": 2})
        await consumers.broadcast("room", "said", {"level": 1})
        assert await levels(low, 1) == [1]
        assert await levels(high, 2) == [2, 1]


async def test_paging_the_history_oneself_withholds_as_well_and_the_applications_view_does_not(make_app):
    from fastapi_consumers.pagination import CursorPagination

    class Own(Told):
        history = History(size=100)

        @action
        async def page(self, data: CursorPagination.Params) -> list[int]:
            page = await self.paginate(self.consumers.history("room"), data)
            return [event.data["level"] for event in page.results]

        @action
        async def everything(self) -> list[int]:
            return [event.data["level"] for event in (await self.consumers.history("room").read()).events]

    app = make_app(path("/", Own))
    async with at(app, 1) as client:
        await client.receive_json_from()
        for level in (1, 3):
            await app.state.consumers.broadcast("room", "said", {"level": level})
        await levels(client, 1)
        assert await client.call("page", {}) == [1]
        assert await client.call("everything") == [1, 3]


async def test_events_that_come_while_a_member_joins_are_withheld_too(make_app):
    class Own(Told):
        history = History(size=100)

    app = make_app(path("/", Own))
    async with at(app, 3) as high:
        await high.receive_json_from()
        store = app.state.consumers.hub.streams.store
        read, position = store.read, None

        async def reading(*args, **options):
            # One that is in the store when it is read, and two that are held meanwhile.
            found = await read(*args, **options)
            if position is not None:
                await app.state.consumers.broadcast("room", "said", {"level": 3})
                await app.state.consumers.broadcast("room", "said", {"level": 1})
            return found

        store.read = reading
        position = await app.state.consumers.broadcast("room", "said", {"level": 2})
        async with at(app, 1, f"?recover={position.epoch}:0") as low:
            assert (await low.receive_json_from())["recovered"] is True
            await app.state.consumers.broadcast("room", "said", {"level": 0})
            assert await levels(low, 2) == [1, 0]
        assert await levels(high, 4) == [2, 3, 1, 0]


async def test_frames_of_a_relay_are_asked_about_as_they_are(make_app):
    asked = []

    class Clean(BasePermission):
        def has_delivery_permission(self, consumer, delivery):
            asked.append((delivery.event, delivery.data))
            return delivery.data not in ("rude", b"rude")

    class Relay(RelayConsumer):
        groups = ["room"]
        permission_classes = [Clean]

    async with WebsocketCommunicator(make_app(path("/", Relay)), "/") as client:
        for frame in ({"text_data": "rude"}, {"bytes_data": b"rude"}, {"text_data": "kind"}):
            await client.send_to(**frame)
        assert await client.receive_from() == "kind"
    assert asked == [("", "rude"), ("", b"rude"), ("", "kind")]


async def test_a_member_that_has_left_counts_no_more_and_the_order_holds_over_chunks(make_app, monkeypatch):
    monkeypatch.setattr("fastapi_consumers.turn.CHUNK", 1)

    class Own(Told):
        pass

    app = make_app(path("/", Own))
    async with at(app, 1) as one:
        async with at(app, 3) as two:
            for level in (3, 2, 1):
                await app.state.consumers.broadcast("room", "said", {"level": level})
            assert await levels(one, 1) == [1]
            assert await levels(two, 3) == [3, 2, 1]
            assert app.state.consumers.hub._topics[GROUP + "room"].filtering == 2
        await two.wait()
        assert app.state.consumers.hub._topics[GROUP + "room"].filtering == 1
        await app.state.consumers.broadcast("room", "said", {"level": 0})
        assert await levels(one, 1) == [0]


def test_an_async_delivery_permission_is_a_mistake_of_the_class():
    from fastapi_consumers import ImproperlyConfigured

    class Late(BasePermission):
        async def has_delivery_permission(self, consumer, delivery):
            return True

    with pytest.raises(ImproperlyConfigured, match=r"bad-permission-classes(.|\n)*is async"):

        class Own(GroupConsumer):
            permission_classes = [Late]


def test_where_nothing_is_asked_about_nothing_is_added():
    class Plain(GroupConsumer):
        permission_classes = [IsAuthenticated]

        @action
        async def ping(self) -> None: ...

    app = FastAPI()
    plan = add_consumers(app, []).plan(Plain)
    assert (plan.groups, plan.objects, plan.deliveries) == ((), (), ())
    assert "ping" in plan.direct
