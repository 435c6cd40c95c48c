"""Async consumers in the shape of those in Channels' tutorial and documentation, ported.

What changed against Channels: the imports, and ``@event`` on the methods that the channel layer calls.
"""

import json

import pytest

from fastapi_consumers import AcceptConnection, DenyConnection, StopConsumer, add_consumers, event, path
from fastapi_consumers import Consumer as AsyncWebsocketConsumer
from fastapi_consumers import JSONConsumer as AsyncJsonWebsocketConsumer
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.testing import WebsocketCommunicator


class RoomConsumer(AsyncWebsocketConsumer):
    """A chat room: group_add in connect, group_send in receive, group_discard in disconnect."""

    async def connect(self):
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.group = f"room_{self.room}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, close_code):
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data):
        message = json.loads(text_data)["message"]
        await self.channel_layer.group_send(self.group, {"type": "room.message", "message": message})

    @event("room.message")
    async def room_message(self, event):
        await self.send(text_data=json.dumps({"message": event["message"]}))


async def test_a_chat_room_in_channels_manner(make_app, nothing_left):
    app = make_app(path("/ws/{room}/", RoomConsumer.as_asgi()))
    async with (
        WebsocketCommunicator(app, "/ws/lobby/") as ann,
        WebsocketCommunicator(app, "/ws/lobby/") as ben,
        WebsocketCommunicator(app, "/ws/elsewhere/") as cid,
    ):
        await ann.send_to(text_data='{"message": "hello"}')
        assert await ann.receive_json_from() == {"message": "hello"}
        assert await ben.receive_json_from() == {"message": "hello"}
        await cid.send_to(text_data='{"message": "alone"}')
        assert await cid.receive_json_from() == {"message": "alone"}
        assert await ann.receive_nothing(0)
    assert nothing_left(app)


class Documented(AsyncWebsocketConsumer):
    """All hooks and verbs of the documentation's generic consumer."""

    groups = ["broadcast"]

    async def connect(self):
        wanted = self.path_params["way"]
        if wanted == "subprotocol":
            await self.accept("v2")
        elif wanted == "close":
            await self.close()
        elif wanted == "accept-exception":
            raise AcceptConnection()
        elif wanted == "deny-exception":
            raise DenyConnection()
        else:
            await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "both":
            await self.send(text_data="Hello world!")
            await self.send(bytes_data=b"Hello world!")
        elif text_data == "close":
            await self.close()
        elif text_data == "code":
            await self.close(code=4123)
        elif text_data == "reason":
            await self.close(code=4124, reason="because")
        elif text_data == "stop":
            raise StopConsumer()
        elif text_data == "last":
            await self.send("last", close=True)
        elif text_data == "last-code":
            await self.send("last", close=4125)

    async def disconnect(self, close_code):
        raise StopConsumer()


@pytest.mark.parametrize(
    ("text", "code"),
    [("close", 1000), ("code", 4123), ("reason", 4124), ("stop", 1000), ("last", 1000), ("last-code", 4125)],
)
async def test_the_documented_ways_to_close(make_app, text, code):
    app = make_app(path("/{way}", Documented))
    async with WebsocketCommunicator(app, "/x") as client:
        await client.send_to(text)
        if "last" in text:
            assert await client.receive_from() == "last"
        await client.assert_closed(code)


async def test_the_documented_ways_to_connect(make_app):
    app = make_app(path("/{way}", Documented))
    async with WebsocketCommunicator(app, "/subprotocol", subprotocols=["v1", "v2"]) as client:
        assert client.subprotocol == "v2"
    async with WebsocketCommunicator(app, "/accept-exception") as client:
        await client.send_to("both")
        assert await client.receive_from() == "Hello world!"
        assert await client.receive_from() == b"Hello world!"
    for way in ("close", "deny-exception"):
        client = WebsocketCommunicator(app, f"/{way}")
        assert await client.connect() == (False, 4403)
        await client.wait()


class Person:
    is_authenticated = True

    def __init__(self, name):
        self.username = name


class ByName(BaseAuthentication):
    async def authenticate(self, connection):
        name = connection.headers.get("x-name")
        return (Person(name), None) if name else None


class MultiRoomConsumer(AsyncJsonWebsocketConsumer):
    """Many rooms over one socket, with commands of its own: the shape of Channels' multichat example."""

    authentication_classes = [ByName]

    async def connect(self):
        if not self.scope["user"].is_authenticated:
            await self.close()
        else:
            await self.accept()
        self.rooms = set()

    async def receive_json(self, content, **kwargs):
        command = content.get("command")
        try:
            if command == "join":
                await self.join_room(content["room"])
            elif command == "leave":
                await self.leave_room(content["room"])
            elif command == "send":
                await self.send_room(content["room"], content["message"])
        except ValueError as error:
            await self.send_json({"error": str(error)})

    async def disconnect(self, code):
        for room in list(self.rooms):
            try:
                await self.leave_room(room)
            except ValueError:
                pass

    async def join_room(self, room):
        await self.channel_layer.group_send(room, {"type": "chat.join", "username": self.scope["user"].username})
        self.rooms.add(room)
        await self.channel_layer.group_add(room, self.channel_name)
        await self.send_json({"join": room})

    async def leave_room(self, room):
        self.rooms.discard(room)
        await self.channel_layer.group_discard(room, self.channel_name)
        await self.send_json({"leave": room})

    async def send_room(self, room, message):
        if room not in self.rooms:
            raise ValueError("ROOM_ACCESS_DENIED")
        await self.channel_layer.group_send(
            room, {"type": "chat.message", "username": self.scope["user"].username, "message": message}
        )

    @event("chat.join")
    async def chat_join(self, event):
        await self.send_json({"joined": event["username"]})

    @event("chat.message")
    async def chat_message(self, event):
        await self.send_json({"username": event["username"], "message": event["message"]})


async def test_many_rooms_over_one_socket_in_channels_manner(make_app, nothing_left):
    app = make_app(path("/ws", MultiRoomConsumer.as_asgi()))
    stranger = WebsocketCommunicator(app, "/ws")
    assert (await stranger.connect())[0] is False
    await stranger.wait()
    async with (
        WebsocketCommunicator(app, "/ws", headers={"X-Name": "ann"}) as ann,
        WebsocketCommunicator(app, "/ws", headers={"X-Name": "ben"}) as ben,
    ):
        await ann.send_json_to({"command": "join", "room": "a"})
        assert await ann.receive_json_from() == {"join": "a"}
        await ben.send_json_to({"command": "send", "room": "a", "message": "psst"})
        assert await ben.receive_json_from() == {"error": "ROOM_ACCESS_DENIED"}
        await ben.send_json_to({"command": "join", "room": "a"})
        assert await ben.receive_json_from() == {"join": "a"}
        assert await ann.receive_json_from() == {"joined": "ben"}
        await ben.send_json_to({"command": "send", "room": "a", "message": "hi"})
        assert await ann.receive_json_from() == {"username": "ben", "message": "hi"}
        assert await ben.receive_json_from() == {"username": "ben", "message": "hi"}
        await ann.send_json_to({"command": "leave", "room": "a"})
        assert await ann.receive_json_from() == {"leave": "a"}
        await ben.send_json_to({"command": "send", "room": "a", "message": "bye"})
        await ben.receive_json_from()
        assert await ann.receive_nothing(0)
    assert nothing_left(app)


class PrettyConsumer(AsyncJsonWebsocketConsumer):
    @classmethod
    async def decode_json(cls, text_data):
        return json.loads(text_data.upper())

    @classmethod
    async def encode_json(cls, content):
        return json.dumps(content, indent=1)

    async def receive_json(self, content, **kwargs):
        await self.send_json(content=content, close=True)


async def test_json_may_be_encoded_and_decoded_as_channels_has_it(make_app):
    async with WebsocketCommunicator(make_app(path("/", PrettyConsumer)), "/") as client:
        await client.send_to('{"a": "b"}')
        assert await client.receive_from() == '{\n "A": "B"\n}'
        await client.assert_closed(1000)


class GroupsConsumer(AsyncJsonWebsocketConsumer):
    groups = ["everybody"]

    @event("note")
    async def note(self, message):
        await self.send_json(message)

    @event("server.close")
    async def server_close(self, message):
        await self.close(code=message["code"])

    async def secret(self, message):
        raise AssertionError("nobody marked this")


async def test_the_groups_attribute_is_joined_and_the_layer_reaches_it_from_outside(make_app):
    app = make_app(path("/", GroupsConsumer))
    layer = app.state.consumers.layer
    async with WebsocketCommunicator(app, "/") as one, WebsocketCommunicator(app, "/") as two:
        await layer.group_send("everybody", {"type": "note", "n": 1})
        assert await one.receive_json_from() == await two.receive_json_from() == {"type": "note", "n": 1}
        for kind in ("secret", "close", "send_json", "receive_json", "__init__", "server_close"):
            await layer.group_send("everybody", {"type": kind, "code": 4000})
        await layer.group_send("everybody", {"type": "server.close", "code": 4777})
        await one.assert_closed(4777)
        await two.assert_closed(4777)
        assert await one.receive_output() == {"type": "websocket.close", "code": 4777, "reason": ""}


class DirectConsumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "who":
            await self.send(self.channel_name)
        else:
            channel, text = text_data.split(" ")
            await self.channel_layer.send(channel, {"type": "whisper", "text": text, "from": self.channel_name})

    @event
    async def whisper(self, event):
        await self.send(event["text"])


async def test_a_message_to_one_channel_reaches_only_that(make_app):
    app = make_app(path("/", DirectConsumer))
    async with WebsocketCommunicator(app, "/") as one, WebsocketCommunicator(app, "/") as two:
        await two.send_to("who")
        name = await two.receive_from()
        await one.send_to(f"{name} psst")
        assert await two.receive_from() == "psst"
        await one.send_to("nobody!0 psst")
        await one.send_to("unknown psst")
        await one.send_to("who")
        assert await one.receive_from() != name
        assert await two.receive_nothing(0)


class NamedConsumer(AsyncWebsocketConsumer):
    """Its methods have the names that Channels would look for."""

    groups = ["named"]

    @event
    async def chat_message(self, event):
        await self.send(f"message {event['type']}")

    @event("chat.typed")
    async def chat_written(self, event):
        await self.send(f"written {event['type']}")

    @event
    async def chat_typed(self, event):
        await self.send(f"typed {event['type']}")

    async def chat_secret(self, event):
        raise AssertionError("it is not marked")


async def test_a_bare_mark_hears_the_type_with_dots_as_in_channels(make_app):
    app = make_app(path("/", NamedConsumer))
    async with WebsocketCommunicator(app, "/") as client:
        for kind, expected in {
            "chat.message": "message chat.message",
            "chat_message": "message chat_message",
            # Named exactly, this one comes first.
            "chat.typed": "written chat.typed",
            "chat_typed": "typed chat_typed",
            "chat.written": None,
            "chat_written": None,
            "chat.secret": None,
            "chat.secret.": None,
            "": None,
        }.items():
            await app.state.consumers.layer.group_send("named", {"type": kind})
            if expected is None:
                assert await client.receive_nothing(0)
            else:
                assert await client.receive_from() == expected


async def test_a_client_cannot_reach_event_methods(make_app):
    app = make_app(path("/", GroupsConsumer))
    async with WebsocketCommunicator(app, "/") as client:
        for name in ("note", "server.close", "server_close", "secret"):
            await client.send_json_to({"action": name, "type": name, "request_id": 1, "data": {"code": 4000}})
            assert (await client.receive_json_from())["error"]["code"] == "action_not_found"


async def test_a_ported_consumer_needs_no_configuration_at_all():
    from fastapi import FastAPI

    app = FastAPI()
    add_consumers(app, [path("/ws/{room}/", RoomConsumer.as_asgi())])
    async with WebsocketCommunicator(app, "/ws/1/") as client:
        await client.send_to('{"message": "x"}')
        assert await client.receive_json_from() == {"message": "x"}
