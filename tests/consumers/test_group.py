"""Groups: broadcasting, joining and leaving at run time, and the consumers made for them."""

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from fastapi_consumers import (
    GroupConsumer,
    InvalidGroup,
    PersonConsumer,
    RelayConsumer,
    action,
    add_consumers,
    path,
)
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.testing import CallError, WebsocketCommunicator


class Say(BaseModel):
    text: str


class ChatConsumer(GroupConsumer):
    """Everyone in /chat/{room} hears everyone else."""

    groups = ["chat.{room}"]

    @action
    async def say(self, data: Say) -> None:
        await self.broadcast("said", {"text": data.text})

    @action
    async def tell_others(self, text: str) -> None:
        await self.broadcast("said", {"text": text}, exclude_self=True)

    @action
    async def tell_me(self, text: str) -> None:
        await self.send_event("whispered", {"text": text})

    @action
    async def count(self) -> int:
        return await self.get_connection_count()


channel_routes = [path("/chat/{room}", ChatConsumer, name="chat")]

app = FastAPI()
add_consumers(app, channel_routes, url="memory://")


async def test_everyone_in_the_room_hears():
    async with WebsocketCommunicator(app, "/chat/lobby") as alice, WebsocketCommunicator(app, "/chat/lobby") as bob:
        await alice.send_json_to({"action": "say", "request_id": 1, "data": {"text": "hi"}})
        assert await alice.receive_json_from() == {
            "type": "event", "event": "said", "group": "chat.lobby", "data": {"text": "hi"}}  # fmt: skip
        assert await alice.receive_json_from() == {
            "type": "reply", "action": "say", "request_id": 1, "status": "ok", "data": None}  # fmt: skip
        assert (await bob.receive_json_from())["data"] == {"text": "hi"}


async def test_other_rooms_do_not_hear(make_app):
    app = make_app(path("/chat/{room}", ChatConsumer))
    async with WebsocketCommunicator(app, "/chat/a") as ann, WebsocketCommunicator(app, "/chat/b") as ben:
        await ann.call("say", {"text": "hi"})
        await ann.assert_event("said", group="chat.a")
        assert await ben.receive_nothing(0)


async def test_exclude_self_leaves_only_the_sender_out(make_app):
    app = make_app(path("/chat/{room}", ChatConsumer))
    async with WebsocketCommunicator(app, "/chat/a") as ann, WebsocketCommunicator(app, "/chat/a") as ben:
        await ann.call("tell_others", {"text": "hi"})
        await ben.assert_event("said", {"text": "hi"}, "chat.a")
        assert await ann.receive_nothing(0)


async def test_send_event_reaches_this_connection_alone_and_names_no_group(make_app):
    app = make_app(path("/chat/{room}", ChatConsumer))
    async with WebsocketCommunicator(app, "/chat/a") as ann, WebsocketCommunicator(app, "/chat/a") as ben:
        await ann.call("tell_me", {"text": "hi"})
        assert await ann.receive_json_from() == {"type": "event", "event": "whispered", "data": {"text": "hi"}}
        assert await ben.receive_nothing(0)


async def test_get_connection_count_counts_this_group_as_members_come_and_go(make_app):
    app = make_app(path("/chat/{room}", ChatConsumer))
    consumers = app.state.consumers
    async with WebsocketCommunicator(app, "/chat/a") as ann:
        async with WebsocketCommunicator(app, "/chat/a"), WebsocketCommunicator(app, "/chat/b"):
            assert await ann.call("count") == 2
            assert await consumers.get_connection_count("chat.b") == 1
        assert await ann.call("count") == 1
    assert await consumers.get_connection_count("chat.a") == 0


async def test_all_members_get_a_groups_events_in_one_order(make_app):
    app = make_app(path("/chat/{room}", ChatConsumer))
    async with (
        WebsocketCommunicator(app, "/chat/a") as ann,
        WebsocketCommunicator(app, "/chat/a") as ben,
        WebsocketCommunicator(app, "/chat/a") as cid,
    ):
        for number in range(20):
            for sender in (ann, ben):
                await sender.send_json_to({"action": "say", "data": {"text": f"{sender is ann} {number}"}})
        heard = [[(await client.receive_json_from())["data"]["text"] for _ in range(40)] for client in (ann, ben, cid)]
        assert heard[0] == heard[1] == heard[2]
        assert [text for text in heard[2] if text.startswith("True")] == [f"True {number}" for number in range(20)]


async def test_a_value_of_the_path_cannot_steer_into_another_group(make_app):
    class Pair(ChatConsumer):
        groups = ["a.{x}.{y}"]

        @action
        async def names(self) -> list[str]:
            return list(self.group_names)

    app = make_app(path("/{x}/{y}", Pair))
    async with WebsocketCommunicator(app, "/b.c/d") as one, WebsocketCommunicator(app, "/b/c.d é") as two:
        assert await one.call("names") == ["a.b%2Ec.d"]
        assert await two.call("names") == ["a.b.c%2Ed%20%C3%A9"]


async def test_a_value_of_the_path_that_is_too_long_refuses(make_app):
    client = WebsocketCommunicator(make_app(path("/chat/{room}", ChatConsumer)), "/chat/" + "x" * 300)
    assert await client.connect() == (False, 4400)
    await client.wait()


# More than one group


@pytest.mark.parametrize("declared", [{}, {"said": dict[str, int]}])
async def test_an_event_that_is_no_text_is_refused_with_what_was_found(declared):
    class Unnamed(GroupConsumer):
        groups = ["unnamed"]
        events = declared

        @action
        async def say(self) -> None:
            with pytest.raises(TypeError, match="an event is named by text; found a value of type dict"):
                await self.broadcast({"a": 1})
            with pytest.raises(TypeError, match="an event is named by text; found a value of type dict"):
                await self.consumers.broadcast("unnamed", {"a": 1})

    unnamed = FastAPI()
    add_consumers(unnamed, [path("/", Unnamed)])
    async with WebsocketCommunicator(unnamed, "/") as client:
        await client.call("say")


class Many(GroupConsumer):
    groups = ["one", "two"]
    max_groups = 4

    @action
    async def say(self, text: str, group: str | None = None) -> None:
        await self.broadcast("said", text, group=group)

    @action
    async def enter(self, group: str) -> bool:
        return await self.join(group)

    @action
    async def quit(self, group: str) -> bool:
        return await self.leave(group)

    @action
    async def names(self) -> list[str]:
        return list(self.group_names)


async def test_with_several_groups_one_must_be_named(make_app):
    async with WebsocketCommunicator(make_app(path("/", Many)), "/") as client:
        with pytest.raises(CallError) as caught:
            await client.call("say", {"text": "hi"})
        assert caught.value.code == "invalid_group"
        assert caught.value.message == "Many is in 2 groups: name one with group=… (found: one, two)."
        await client.call("say", {"text": "hi", "group": "two"})
        await client.assert_event("said", "hi", "two")


async def test_with_no_group_the_error_says_so(make_app):
    class None_(Many):
        groups = []

    async with WebsocketCommunicator(make_app(path("/", None_)), "/") as client:
        with pytest.raises(CallError, match=r"is in 0 groups: name one with group=… \(found: none\)"):
            await client.call("say", {"text": "hi"})


async def test_join_and_leave_at_run_time(make_app, nothing_left):
    app = make_app(path("/", Many))
    consumers = app.state.consumers
    async with WebsocketCommunicator(app, "/") as client:
        assert await client.call("enter", {"group": "three"}) is True
        assert await client.call("enter", {"group": "three"}) is False
        assert await client.call("names") == ["one", "two", "three"]
        await consumers.broadcast("three", "news")
        await client.assert_event("news", group="three")
        assert await client.call("quit", {"group": "three"}) is True
        assert await client.call("quit", {"group": "three"}) is False
        await consumers.broadcast("three", "news")
        assert await client.receive_nothing(0)
        assert await consumers.get_connection_count("three") == 0
        assert await client.call("enter", {"group": "three"}) is True
    assert nothing_left(app)


async def test_beyond_max_groups_joining_fails_and_the_socket_stays(make_app):
    async with WebsocketCommunicator(make_app(path("/", Many)), "/") as client:
        await client.call("enter", {"group": "three"})
        await client.call("enter", {"group": "four"})
        with pytest.raises(CallError) as caught:
            await client.call("enter", {"group": "five"})
        assert caught.value.code == "too_many_groups"
        await client.call("quit", {"group": "three"})
        assert await client.call("enter", {"group": "five"}) is True


async def test_beyond_max_groups_in_the_class_itself_refuses(make_app):
    class TooMany(Many):
        groups = ["1", "2", "3"]
        max_groups = 2

    client = WebsocketCommunicator(make_app(path("/", TooMany)), "/")
    assert await client.connect() == (False, 1008)
    await client.wait()


@pytest.mark.parametrize("name", ["", "x" * 256, "a\nb"])
async def test_a_name_that_no_group_can_have_is_answered_with_invalid_group(make_app, name):
    async with WebsocketCommunicator(make_app(path("/", Many)), "/") as client:
        for call in ("enter", "quit"):
            with pytest.raises(CallError) as caught:
                await client.call(call, {"group": name})
            assert caught.value.code == "invalid_group"
    with pytest.raises(InvalidGroup):
        await make_app(path("/", Many)).state.consumers.broadcast(name, "news")


async def test_get_groups_chooses_by_user_or_anything_else(make_app):
    class Chosen(ChatConsumer):
        groups = []

        def get_groups(self):
            return [f"lang.{self.websocket.query_params['lang']}"]

    class Looked(ChatConsumer):
        groups = []

        async def get_groups(self):
            return ["looked.up"]

    app = make_app(path("/chosen", Chosen), path("/looked", Looked))
    async with WebsocketCommunicator(app, "/chosen?lang=de") as client:
        await client.call("say", {"text": "hallo"})
        await client.assert_event("said", group="lang.de")
    async with WebsocketCommunicator(app, "/looked") as client:
        await client.call("say", {"text": "hi"})
        await client.assert_event("said", group="looked.up")


async def test_a_member_hears_everything_from_the_moment_it_is_accepted(make_app):
    class Slow(ChatConsumer):
        async def connect(self):
            await self.consumers.broadcast("chat.a", "news", "before accept")
            await self.accept()

    async with WebsocketCommunicator(make_app(path("/chat/{room}", Slow)), "/chat/a") as client:
        await client.assert_event("news", "before accept")


async def test_joining_in_connect_announces_once_and_after_accept(make_app):
    joined = []

    class Joining(GroupConsumer):
        async def connect(self):
            await self.join("before")
            await self.accept()
            await self.join("after")

        async def on_join(self, group):
            joined.append((group, self.connection.is_accepted))

    async with WebsocketCommunicator(make_app(path("/", Joining)), "/"):
        pass
    assert sorted(joined) == [("after", True), ("before", True)]


async def test_what_was_left_again_before_accept_is_announced_neither_way(make_app):
    log = []

    class Wavering(GroupConsumer):
        async def connect(self):
            await self.join("a")
            await self.leave("a")
            await self.accept()

        async def on_join(self, group):
            log.append(("join", group))

        async def on_leave(self, group):
            log.append(("leave", group))

        @action
        async def ping(self) -> str:
            return "pong"

    async with WebsocketCommunicator(make_app(path("/", Wavering)), "/") as client:
        assert await client.call("ping") == "pong"
    assert log == []


# Limits on members


async def test_a_third_person_is_refused_with_1013_before_accept(make_app, nothing_left):
    class Call(PersonConsumer):
        groups = ["call.{id}"]

    app = make_app(path("/call/{id}", Call))
    async with WebsocketCommunicator(app, "/call/1"):
        async with WebsocketCommunicator(app, "/call/1"):
            third = WebsocketCommunicator(app, "/call/1")
            assert await third.connect() == (False, 1013)
            assert third.close_reason == "group_full"
            await third.wait()
            async with WebsocketCommunicator(app, "/call/2"):
                pass
        async with WebsocketCommunicator(app, "/call/1"):
            pass  # there is room again
    assert nothing_left(app)


async def test_max_connections_holds_for_joining_later_too(make_app):
    class Small(Many):
        groups = []
        max_connections = 1

    app = make_app(path("/", Small))
    async with WebsocketCommunicator(app, "/") as one, WebsocketCommunicator(app, "/") as two:
        await one.call("enter", {"group": "seat"})
        with pytest.raises(CallError) as caught:
            await two.call("enter", {"group": "seat"})
        assert caught.value.code == "group_full"
        await one.call("quit", {"group": "seat"})
        assert await two.call("enter", {"group": "seat"})


async def test_max_connections_may_be_given_for_the_whole_app_and_lifted_by_a_class(make_app):
    class Open(ChatConsumer):
        max_connections = 2

    app = make_app(path("/a/{room}", ChatConsumer), path("/b/{room}", Open), max_connections=1)
    async with WebsocketCommunicator(app, "/a/x"):
        client = WebsocketCommunicator(app, "/a/x")
        assert await client.connect() == (False, 1013)
        await client.wait()
    async with WebsocketCommunicator(app, "/b/x"), WebsocketCommunicator(app, "/b/x"):
        pass


async def test_a_group_that_fills_up_half_way_leaves_none_of_the_others_joined(make_app, nothing_left):
    class Two(GroupConsumer):
        groups = ["open.{id}", "narrow"]
        max_connections = 1

    app = make_app(path("/{id}", Two))
    async with WebsocketCommunicator(app, "/1"):
        second = WebsocketCommunicator(app, "/2")
        assert await second.connect() == (False, 1013)
        await second.wait()
        assert await app.state.consumers.get_connection_count("open.2") == 0
    assert nothing_left(app)


# RelayConsumer


class Relay(RelayConsumer):
    groups = ["relay.{room}"]


async def test_a_relay_hands_on_text_and_bytes_exactly_as_they_are_to_all(make_app):
    app = make_app(path("/{room}", Relay))
    async with (
        WebsocketCommunicator(app, "/a") as ann,
        WebsocketCommunicator(app, "/a") as ben,
        WebsocketCommunicator(app, "/b") as cid,
    ):
        await ann.send_to('{"action": "cancel"}')
        await ann.send_to("")
        await ann.send_to(bytes_data=b"\x00\xff")
        for client in (ann, ben):
            assert await client.receive_from() == '{"action": "cancel"}'
            assert await client.receive_from() == ""
            assert await client.receive_from() == b"\x00\xff"
        assert await cid.receive_nothing(0)


async def test_a_relay_is_throttled_and_stays_open(make_app):
    class Slow(Relay):
        throttle_classes = ["1/hour"]

    async with WebsocketCommunicator(make_app(path("/{room}", Slow)), "/a") as client:
        await client.send_to("1")
        await client.send_to("2")
        assert await client.receive_from() == "1"
        error = (await client.receive_json_from())["error"]
        assert (error["code"], error["retry_after"] > 3500) == ("throttled", True)


async def test_half_a_surrogate_pair_costs_a_relay_only_that_frame(make_app):
    async with WebsocketCommunicator(make_app(path("/{room}", Relay)), "/a") as client:
        await client.send_to("\ud800")
        assert (await client.receive_json_from())["error"]["code"] == "invalid_frame"
        await client.send_to("x")
        assert await client.receive_from() == "x"


async def test_events_reach_relays_as_events(make_app):
    app = make_app(path("/{room}", Relay))
    async with WebsocketCommunicator(app, "/a") as client:
        await app.state.consumers.broadcast("relay.a", "news", 1)
        await client.assert_event("news", 1, "relay.a")


# Reaching users and channels


class User:
    is_authenticated = True

    def __init__(self, id):
        self.id = id


class ByHeader(BaseAuthentication):
    def authenticate(self, connection):
        name = connection.headers.get("x-user")
        return (User(int(name)), None) if name else None


class Known(GroupConsumer):
    authentication_classes = [ByHeader]
    groups = ["known"]

    @action
    async def channel(self) -> str:
        return self.channel_name

    @action
    async def tell(self, user: int, text: str) -> None:
        await self.consumers.send("told", text, user=user)


def connect(app, user):
    return WebsocketCommunicator(app, "/", headers={"X-User": str(user)} if user else None)


async def test_an_event_to_a_user_reaches_all_connections_of_that_user_and_no_other(make_app):
    app = make_app(path("/", Known))
    async with connect(app, 1) as one, connect(app, 1) as again, connect(app, 2) as two, connect(app, None) as anon:
        await two.call("tell", {"user": 1, "text": "psst"})
        for client in (one, again):
            assert await client.receive_json_from() == {"type": "event", "event": "told", "data": "psst"}
        await app.state.consumers.send("told", "object", user=User(2))
        await two.assert_event("told", "object")
        for client in (one, again, two, anon):
            assert await client.receive_nothing(0)


async def test_an_event_to_a_channel_reaches_only_that(make_app):
    app = make_app(path("/", Known))
    async with connect(app, 1) as one, connect(app, 1) as two:
        await app.state.consumers.send("told", "psst", channel=await one.call("channel"))
        await one.assert_event("told", "psst")
        assert await two.receive_nothing(0)
        await app.state.consumers.send("told", "psst", channel="nobody!1")


async def test_disconnect_closes_by_user_by_channel_and_by_group(make_app, nothing_left):
    app = make_app(path("/", Known))
    consumers = app.state.consumers
    async with connect(app, 1) as one, connect(app, 1) as again, connect(app, 2) as two, connect(app, None) as anon:
        await consumers.disconnect(user=1)
        for client in (one, again):
            await client.assert_closed(4409)
        await consumers.disconnect(channel=await two.call("channel"), code=4403, reason="banned")
        await two.assert_closed(4403)
        assert two.close_reason == "banned"
        assert anon.is_connected
        await consumers.disconnect(group="known")
        await anon.assert_closed(4409)
    assert nothing_left(app)
