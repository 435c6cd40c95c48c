"""Presence as users see it: classes, frames and answers, in one process and over a server that several apps share."""

import asyncio
import secrets
import time
from contextlib import AsyncExitStack

import pytest
from broadcaster import Broadcast
from fastapi import APIRouter, FastAPI

from fastapi_consumers import (
    BrokerUnavailable,
    GroupConsumer,
    GroupFull,
    ImproperlyConfigured,
    JSONConsumer,
    PersonConsumer,
    action,
    add_consumers,
    add_routes,
    path,
)
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.presence import MemoryPresenceStore, Presence, RedisPresenceStore
from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from fastapi_consumers.transports import MemoryTransport, RedisTransport
from fastapi_consumers.transports.broadcaster import BroadcasterTransport


class Named(BaseAuthentication):
    async def authenticate(self, connection):
        name = connection.websocket.query_params.get("name")
        return (type("User", (), {"id": name})(), None) if name else None


class Room(GroupConsumer):
    groups = ["room.{room}"]
    authentication_classes = [Named]
    presence = Presence(
        key=lambda consumer: consumer.user.id,
        info=lambda consumer: {"device": consumer.websocket.query_params.get("device", "")},
        grace=0,
    )

    @action
    async def enter(self, group: str) -> bool:
        return await self.join(group)

    @action
    async def exit(self, group: str) -> bool:
        return await self.leave(group)

    @action
    async def who(self, group: str | None = None) -> list[str]:
        return sorted((await self.get_presence(group))["members"])


class Silent(Room):
    presence = Presence(key=lambda consumer: consumer.user.id, grace=60)


class Counted(Room):
    presence = Presence(key=lambda consumer: consumer.user.id, grace=0, count_only=True)


class Pair(PersonConsumer):
    groups = ["pair.{room}"]


class Seated(GroupConsumer):
    max_connections = 1

    async def connect(self):
        await self.join("seat")
        if self.websocket.query_params:
            await self.close()
        else:
            await self.accept()

    @action
    async def again(self) -> bool:
        for _ in range(20):
            assert await self.leave("seat")
            assert await self.join("seat")
        return await self.leave("seat")


ROUTES = [
    path("/seat", Seated),
    path("/room/{room}", Room),
    path("/silent/{room}", Silent),
    path("/counted/{room}", Counted),
    path("/pair/{room}", Pair),
]


def make_app(**options):
    app = FastAPI()
    add_consumers(app, ROUTES, **options)
    return app


@pytest.fixture(params=["memory", "two processes"])
async def apps(request):
    """Two apps: one and the same in memory, two over a server."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            app = make_app()
            await stack.enter_async_context(lifespan(app))
            yield app, app
        else:
            url = f"{request.getfixturevalue('broker').url}?prefix=t{secrets.token_hex(4)}:"
            apps = make_app(url=url), make_app(url=url)
            for app in apps:
                await stack.enter_async_context(lifespan(app))
            yield apps


async def until(ask, group, count):
    async with asyncio.timeout(20):
        while await ask(group) != count:  # noqa: ASYNC110 -- what it waits for has no event
            await asyncio.sleep(0.01)


async def notice(client):
    """The next notice of presence as (joins, leaves): key to the metas without their refs."""
    frame = await client.receive_json_from()
    assert frame.pop("type") == "presence"
    assert frame.pop("group").startswith("room.")
    if "count" in frame:
        assert set(frame) == {"count"}
        return frame["count"]
    assert set(frame) == {"joins", "leaves"}
    return tuple(
        {key: [{k: v for k, v in meta.items() if k != "ref"} for meta in found["metas"]] for key, found in part.items()}
        for part in (frame["joins"], frame["leaves"])
    )


def meta(device=""):
    return [{"device": device}]


async def test_members_are_told_who_comes_and_goes_the_newcomer_too(apps):
    one, two = apps
    async with WebsocketCommunicator(one, "/room/a?name=ann&device=phone") as ann:
        assert await notice(ann) == ({"ann": meta("phone")}, {})
        async with WebsocketCommunicator(two, "/room/a?name=bob") as bob:
            assert await notice(ann) == ({"bob": meta()}, {})
            assert await notice(bob) == ({"bob": meta()}, {})
            answer = await bob.call("presence")
            refs = {key: [meta.pop("ref") for meta in found["metas"]] for key, found in answer["members"].items()}
            assert answer == {"count": 2, "members": {"ann": {"metas": meta("phone")}, "bob": {"metas": meta()}}}
            assert len(refs["ann"]) == len(refs["bob"]) == 1
        assert await notice(ann) == ({}, {"bob": meta()})
        assert await ann.call("who") == ["ann"]


async def test_several_tabs_are_one_member(apps):
    one, two = apps
    async with WebsocketCommunicator(one, "/room/a?name=ann&device=1") as first:
        await notice(first)
        async with WebsocketCommunicator(two, "/room/a?name=ann&device=2") as second:
            assert await notice(first) == await notice(second) == ({"ann": meta("2")}, {})
            answer = await first.call("presence", {"group": "room.a"})
            assert answer["count"] == 1
            assert sorted(m["device"] for m in answer["members"]["ann"]["metas"]) == ["1", "2"]
        assert await notice(first) == ({}, {"ann": meta("2")})


async def test_who_has_no_key_sees_and_is_not_seen(apps):
    one, two = apps
    async with WebsocketCommunicator(two, "/room/a") as nobody:
        async with WebsocketCommunicator(one, "/room/a?name=ann"):
            assert await notice(nobody) == ({"ann": meta()}, {})
            assert await nobody.call("who") == ["ann"]
        assert await notice(nobody) == ({}, {"ann": meta()})
        assert await nobody.call("presence") == {"count": 0, "members": {}}


async def test_whoever_comes_back_within_the_grace_never_left(apps):
    one, two = apps
    async with WebsocketCommunicator(one, "/silent/a?name=bob") as bob:
        await notice(bob)
        async with WebsocketCommunicator(one, "/silent/a?name=ann"):
            assert await notice(bob) == ({"ann": [{}]}, {})
        for app in (two, one, two):
            async with WebsocketCommunicator(app, "/silent/a?name=ann"):
                assert await bob.call("who") == ["ann", "bob"]
        assert await bob.call("who") == ["ann", "bob"]
        assert await bob.receive_nothing(0.3)


async def test_a_group_that_only_counts_tells_numbers(apps):
    one, two = apps
    async with WebsocketCommunicator(one, "/counted/a?name=ann") as ann:
        assert await notice(ann) == 1
        async with WebsocketCommunicator(two, "/counted/a?name=bob") as bob:
            assert await notice(ann) == 2
            assert await notice(bob) == 2
            assert await bob.call("presence") == {"count": 2}
            async with WebsocketCommunicator(two, "/counted/a?name=bob"):
                assert await ann.call("presence") == {"count": 2}
        while await notice(ann) != 1:
            pass
        assert await ann.call("presence") == {"count": 1}
        consumers = two.state.consumers
        assert await consumers.get_presence("room.a", count_only=True) == {"count": 1}


async def test_joining_and_leaving_later_is_told_too(apps):
    one, two = apps
    async with (
        WebsocketCommunicator(one, "/room/a?name=ann") as ann,
        WebsocketCommunicator(two, "/room/b?name=bob") as bob,
    ):
        assert [await notice(ann), await notice(bob)] == [({"ann": meta()}, {}), ({"bob": meta()}, {})]
        assert await ann.call("enter", {"group": "room.b"})
        assert await notice(ann) == await notice(bob) == ({"ann": meta()}, {})
        assert await bob.call("who", {"group": "room.b"}) == ["ann", "bob"]
        assert await ann.call("exit", {"group": "room.b"})
        assert await notice(bob) == ({}, {"ann": meta()})
        assert await ann.receive_nothing(0)
        assert await one.state.consumers.get_presence("room.a") == await two.state.consumers.get_presence("room.a")
        assert (await two.state.consumers.get_presence("room.nobody")) == {"count": 0, "members": {}}


async def test_only_members_may_ask(apps):
    async with WebsocketCommunicator(apps[0], "/room/a?name=ann") as ann:
        await notice(ann)
        await ann.send_json_to({"action": "presence", "request_id": 1, "data": {"group": "room.b"}})
        assert (await ann.receive_json_from())["error"]["code"] == "not_a_member"


async def test_as_messagepack(apps):
    async with WebsocketCommunicator(apps[0], "/room/a?name=ann", subprotocols=["fc.v1.msgpack"]) as ann:
        frame = await ann.receive_json_from()
        assert (frame["type"], list(frame["joins"])) == ("presence", ["ann"])


async def test_a_crowd_arrives_in_few_notices(apps):
    async with WebsocketCommunicator(apps[0], "/room/a") as watcher, AsyncExitStack() as stack:
        clients = [WebsocketCommunicator(app, f"/room/a?name={name}") for app in apps for name in map(str, range(30))]
        await asyncio.gather(*[stack.enter_async_context(client) for client in clients])
        seen, notices = 0, 0
        while seen < 60:
            joins, leaves = await notice(watcher)
            assert leaves == {}
            seen += sum(map(len, joins.values()))
            notices += 1
        assert notices < 30
        assert (await watcher.call("presence"))["count"] == 30


# Seats


async def test_a_group_for_two_is_for_two_in_all_processes(apps):
    one, two = apps
    async with WebsocketCommunicator(one, "/pair/x"), WebsocketCommunicator(two, "/pair/y"):
        async with WebsocketCommunicator(two, "/pair/x"):
            for app in apps:
                third = WebsocketCommunicator(app, "/pair/x")
                assert await third.connect() == (False, 1013)
        async with WebsocketCommunicator(one, "/pair/x"):
            assert await WebsocketCommunicator(two, "/pair/x").connect() == (False, 1013)


async def test_a_seat_is_given_back_by_leave_and_by_a_refusal(apps):
    one, two = apps
    assert (await WebsocketCommunicator(one, "/seat?no").connect())[0] is False
    async with WebsocketCommunicator(one, "/seat") as first:
        assert await WebsocketCommunicator(two, "/seat").connect() == (False, 1013)
        assert await first.call("again") is True
        async with WebsocketCommunicator(two, "/seat"):
            pass


async def test_group_add_obeys_the_limit_and_group_discard_leaves_the_group(apps):
    one, two = apps
    async with WebsocketCommunicator(one, "/pair/x"), WebsocketCommunicator(two, "/pair/x"):
        async with WebsocketCommunicator(two, "/pair/other"):
            (channel,) = [
                connection.channel_name
                for connection in two.state.consumers.connections
                if connection.path_params["room"] == "other"
            ]
            with pytest.raises(GroupFull):
                await two.state.consumers.layer.group_add("pair.x", channel)
            member = two.state.consumers.hub.find(channel)
            assert member.consumer.group_names == ("pair.other",)
            await two.state.consumers.layer.group_discard("pair.other", channel)
            assert member.consumer.group_names == ()
            await two.state.consumers.layer.group_add("pair.other", channel)
            assert member.consumer.group_names == ()


# Counts


async def test_connections_are_counted_in_all_processes(apps):
    one, two = apps
    async with AsyncExitStack() as stack:
        for app in (one, two, two):
            await stack.enter_async_context(WebsocketCommunicator(app, "/room/a"))
        for app in apps:
            await until(app.state.consumers.get_connection_count, "room.a", 3)
    for app in apps:
        await until(app.state.consumers.get_connection_count, "room.a", 0)
    assert await one.state.consumers.get_connection_count("never") == 0


async def test_own_connections_count_at_once(apps):
    for app in apps:
        async with WebsocketCommunicator(app, "/room/b"):
            assert await app.state.consumers.get_connection_count("room.b") == 1


# What goes wrong


class Odd(Room):
    presence = Presence(
        key=lambda consumer: consumer.websocket.query_params.get("key"),
        info=lambda consumer: {"none": None, "list": {}, "big": {"x": "x" * 4096}}[consumer.path_params["room"]],
    )


@pytest.mark.parametrize("url", ["/odd/none?key=a", "/odd/list?key=", f"/odd/list?key={'x' * 256}", "/odd/big?key=a"])
async def test_a_key_or_an_info_that_cannot_be_fails_the_connection(url, caplog):
    app = FastAPI()
    add_consumers(app, [path("/odd/{room}", Odd)])
    async with WebsocketCommunicator(app, url) as client:
        assert (await client.receive_json_from())["error"]["code"] == "internal_error"
        await client.assert_closed(1011)
    assert "presence" in caplog.text
    assert await app.state.consumers.get_presence("room.list") == {"count": 0, "members": {}}
    caplog.clear()


async def test_key_and_info_may_be_async():
    async def key(consumer):
        await asyncio.sleep(0)
        return 7

    async def info(consumer):
        await asyncio.sleep(0)
        return {"at": [1]}

    class Awaiting(GroupConsumer):
        groups = ["room.x"]
        presence = Presence(key, info)

    app = FastAPI()
    add_consumers(app, [path("/", Awaiting)])
    async with WebsocketCommunicator(app, "/") as client:
        assert await notice(client) == ({"7": [{"at": [1]}]}, {})


async def test_who_is_refused_in_connect_is_never_seen():
    class Refusing(Room):
        async def connect(self):
            await self.close()

    app = FastAPI()
    add_consumers(app, [path("/room/{room}", Room), path("/refusing/{room}", Refusing)])
    async with WebsocketCommunicator(app, "/room/a?name=ann") as ann:
        await notice(ann)
        assert (await WebsocketCommunicator(app, "/refusing/a?name=bob").connect())[0] is False
        assert await ann.receive_nothing(0.2)


async def test_on_join_sees_its_own_presence():
    class Looking(Room):
        async def on_join(self, group):
            await self.send_event("seen", sorted((await self.get_presence(group))["members"]))

    app = FastAPI()
    add_consumers(app, [path("/room/{room}", Looking)])
    async with WebsocketCommunicator(app, "/room/a?name=ann") as ann:
        frames = [await ann.receive_json_from(), await ann.receive_json_from()]
        assert {"type": "event", "event": "seen", "data": ["ann"]} in frames


async def test_an_own_action_of_the_name_wins():
    class Own(Room):
        @action("presence")
        async def show(self) -> str:
            return "mine"

    app = FastAPI()
    add_consumers(app, [path("/room/{room}", Own)])
    async with WebsocketCommunicator(app, "/room/a") as client:
        assert await client.call("presence") == "mine"


async def test_without_presence_there_is_no_such_action():
    class Plain(Room):
        presence = None

    app = FastAPI()
    add_consumers(app, [path("/room/{room}", Plain)])
    async with WebsocketCommunicator(app, "/room/a?name=ann") as client:
        await client.send_json_to({"action": "presence", "request_id": 1})
        assert (await client.receive_json_from())["error"]["code"] == "action_not_found"
        assert await client.call("who") == []


async def test_while_the_server_is_away(own_broker):
    app = make_app(url=own_broker.url, presence_url=f"{own_broker.url}?prefix=p:", broker_timeout=3)
    async with lifespan(app), WebsocketCommunicator(app, "/room/a?name=ann") as ann:
        await notice(ann)
        own_broker.kill()
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            await app.state.consumers.get_presence("room.a")
        with pytest.raises(BrokerUnavailable):
            await app.state.consumers.get_connection_count("room.a")
        assert await WebsocketCommunicator(app, "/pair/a").connect() == (False, 1013)
        await ann.send_json_to({"action": "presence", "request_id": 1})
        assert (await ann.receive_json_from())["error"]["code"] == "broker_unavailable"
        assert time.monotonic() - began < 40
        own_broker.start()


# Settings


@pytest.mark.parametrize("value", [Presence, True, "key", {"key": 1}])
def test_presence_is_an_instance_of_presence(value):
    with pytest.raises(ImproperlyConfigured) as caught:
        type("Wrong", (GroupConsumer,), {"presence": value, "__module__": __name__})
    assert [problem.code for problem in caught.value.problems] == ["bad-presence"]


def test_presence_is_for_consumers_of_groups():
    with pytest.raises(ImproperlyConfigured) as caught:
        type("Wrong", (JSONConsumer,), {"presence": Room.presence, "__module__": __name__})
    assert [problem.code for problem in caught.value.problems] == ["presence-out-of-reach"]


def test_presence_is_inherited_described_and_overridden():
    class Child(Room):
        pass

    assert Child._meta.presence is Room.presence
    assert "presence:             Presence(ttl=60, grace=0)" in Child._meta.describe()
    assert Child.as_asgi(presence=None).consumer_class._meta.presence is None


@pytest.mark.parametrize("cls", [Room, Pair])
async def test_a_broker_that_keeps_nothing_needs_a_place_to_keep_it(cls):
    def app_of(**options):
        app = FastAPI()
        add_consumers(app, [path("/{room}", cls)], broadcast=Broadcast("memory://"), **options)
        return app

    with pytest.raises(ImproperlyConfigured, match="presence_url") as caught:
        app_of()
    assert [problem.code for problem in caught.value.problems] == ["no-presence-store"]
    app = app_of(presence_url="memory://")
    async with lifespan(app), WebsocketCommunicator(app, "/a?name=ann") as ann:
        if cls is Room:
            assert await notice(ann) == ({"ann": meta()}, {})
        assert await app.state.consumers.get_connection_count(f"{cls.__name__.lower()}.a") == 1


async def test_without_a_place_only_asking_fails():
    app = FastAPI()
    add_consumers(app, [], broadcast=Broadcast("memory://"))
    async with lifespan(app):
        with pytest.raises(ImproperlyConfigured, match="presence_url"):
            await app.state.consumers.get_presence("g")
        assert await app.state.consumers.get_connection_count("g") == 0


async def test_max_connections_of_the_whole_app_needs_a_place_too():
    routes = [path("/{room}", Room.as_asgi(presence=None))]
    with pytest.raises(ImproperlyConfigured, match="max_connections over BroadcasterTransport"):
        add_consumers(FastAPI(), routes, broadcast=Broadcast("memory://"), max_connections=5)


async def test_a_class_on_a_router_needs_it_too():
    app, router = FastAPI(), APIRouter()
    add_routes(router, [path("/{room}", Room)])
    add_consumers(app, [], broadcast=Broadcast("memory://"))
    app.include_router(router)
    with pytest.raises(ImproperlyConfigured, match="presence over"):
        async with lifespan(app):
            pass


async def test_a_store_of_ones_own():
    class Own(MemoryPresenceStore):
        pass

    store = Own()
    consumers = add_consumers(FastAPI(), [], presence_url=store)
    assert consumers._presence is store


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, MemoryPresenceStore),
        ({"url": "redis://h/0"}, RedisPresenceStore),
        ({"url": "redis://h/0", "presence_url": "memory://"}, MemoryPresenceStore),
        ({"presence_url": "valkey://h/1"}, RedisPresenceStore),
        ({"transport": MemoryTransport()}, MemoryPresenceStore),
        ({"transport": RedisTransport("redis://h/0")}, RedisPresenceStore),
        ({"transport": BroadcasterTransport(Broadcast("memory://"))}, type(None)),
    ],
)
def test_what_a_url_means(options, kind):
    app = FastAPI()
    consumers = add_consumers(app, [], **options)
    assert type(consumers._presence) is kind


def test_one_client_for_one_url():
    for options in ({"url": "redis://h/0"}, {"url": "redis://h/0", "presence_url": "redis://h/0"}):
        consumers = add_consumers(FastAPI(), [], **options)
        assert consumers._presence.client is consumers._transport.client
    consumers = add_consumers(FastAPI(), [], url="redis://h/0", presence_url="redis://h/1")
    assert consumers._presence.client is not consumers._transport.client


@pytest.mark.parametrize("url", ["", "nonsense", 7, "postgresql://h", "redis://user:se cret@h:x", "redis+sentinel://h"])
def test_a_presence_url_that_cannot_be_is_refused(url):
    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(FastAPI(), [], presence_url=url)
    assert "cret" not in str(caught.value)
    assert {problem.code for problem in caught.value.problems} <= {"bad-presence-url", "bad-url"}
