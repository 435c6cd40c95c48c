"""``JSONConsumer``: how frames become requests, and how everything that is sent is encoded."""

import json
from datetime import date
from typing import Any

import ormsgpack
import pytest
from pydantic import BaseModel

from fastapi_consumers import GroupConsumer, ImproperlyConfigured, JSONConsumer, action, event, path
from fastapi_consumers.serializers import FlatRequest, RequestSerializer, ResponseSerializer
from fastapi_consumers.testing import WebsocketCommunicator


class Plain(JSONConsumer):
    async def receive_json(self, content):
        await self.send_json({"got": content})


async def test_receive_json_and_send_json_speak_plain_json(make_app):
    async with WebsocketCommunicator(make_app(path("/", Plain)), "/") as client:
        for content in ({"a": [1, None]}, [1], "text", 2.5, None):
            await client.send_json_to(content)
            assert await client.receive_json_from() == {"got": content}


async def test_a_frame_that_is_no_json_is_told_so_and_the_socket_stays(make_app):
    async with WebsocketCommunicator(make_app(path("/", Plain)), "/") as client:
        for text in ("{", "NaN", "1e999", ""):
            await client.send_to(text)
            frame = await client.receive_json_from()
            assert (frame["type"], frame["error"]["code"]) == ("error", "invalid_frame")
        await client.send_json_to(1)
        assert await client.receive_json_from() == {"got": 1}


async def test_send_json_takes_what_pydantic_can_serialise(make_app):
    class Item(BaseModel):
        day: date

    class Dates(JSONConsumer):
        async def connect(self):
            await self.accept()
            await self.send_json([Item(day=date(2026, 1, 2)), float("inf")], close=4001)

    async with WebsocketCommunicator(make_app(path("/", Dates)), "/") as client:
        assert await client.receive_json_from() == [{"day": "2026-01-02"}, None]
        await client.assert_closed(4001)


async def test_receive_json_may_hand_on_to_the_actions(make_app):
    class Both(JSONConsumer):
        async def receive_json(self, content):
            if content == "ping":
                await self.send_json("pong")
            else:
                await super().receive_json(content)

        @action
        async def add(self, a: int, b: int) -> int:
            return a + b

    async with WebsocketCommunicator(make_app(path("/", Both)), "/") as client:
        await client.send_json_to("ping")
        assert await client.receive_json_from() == "pong"
        assert await client.call("add", {"a": 1, "b": 2}) == 3


async def test_receive_may_be_overridden_and_hand_on(make_app):
    class Framed(JSONConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            await super().receive(text_data=text_data.removeprefix("> "))

        @action
        async def hello(self) -> str:
            return "hello"

    async with WebsocketCommunicator(make_app(path("/", Framed)), "/") as client:
        await client.send_to('> {"action": "hello", "request_id": 1}')
        assert (await client.receive_json_from())["data"] == "hello"


class Tagged(GroupConsumer, abstract=True):
    groups = ["all"]

    @action
    async def shout(self, text: str) -> str:
        await self.broadcast("shouted", {"text": text})
        await self.send_event("private", 1)
        return "done"

    @action
    async def fail(self) -> None:
        raise KeyError


class AsyncTagged(Tagged):
    @classmethod
    async def encode_json(cls, content: Any) -> str:
        return "async" + json.dumps(content)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        return json.loads(text_data.removeprefix("async"))


class SyncTagged(Tagged):
    @classmethod
    def encode_json(cls, content: Any) -> str:
        return "sync" + json.dumps(content)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        return json.loads(text_data.removeprefix("sync"))


@pytest.mark.parametrize(("consumer", "prefix"), [(AsyncTagged, "async"), (SyncTagged, "sync")])
async def test_own_encoding_applies_to_replies_events_and_errors(make_app, consumer, prefix):
    app = make_app(path("/", consumer))
    async with WebsocketCommunicator(app, "/") as client:

        async def receive():
            text = await client.receive_from()
            assert text.startswith(prefix)
            return json.loads(text.removeprefix(prefix))

        await client.send_to(prefix + json.dumps({"action": "shout", "request_id": 1, "data": {"text": "hi"}}))
        assert await receive() == {"type": "event", "event": "shouted", "group": "all", "data": {"text": "hi"}}
        assert await receive() == {"type": "event", "event": "private", "data": 1}
        assert await receive() == {"type": "reply", "action": "shout", "request_id": 1, "status": "ok", "data": "done"}
        await client.send_to(prefix + json.dumps({"action": "nope", "request_id": 2}))
        assert (await receive())["error"]["code"] == "action_not_found"
        await client.send_to("{")
        assert (await receive())["error"]["code"] == "invalid_frame"
        await app.state.consumers.broadcast("all", "outside")
        assert (await receive())["event"] == "outside"


async def test_hostile_frames_cost_a_decoder_of_ones_own_no_more_than_an_answer(make_app, caplog):
    async with WebsocketCommunicator(make_app(path("/", AsyncTagged)), "/") as client:
        for text in ("[" * 60_000, "{" * 3, '{"action": "shout", "request_id": 1, "data": {"text": "\\ud800"}}'):
            await client.send_to(text)
            answer = json.loads((await client.receive_from()).removeprefix("async"))
            assert answer["error"]["code"] in ("invalid_frame", "invalid_data")
    assert "Traceback" not in caplog.text


async def test_own_encoding_to_bytes_goes_out_as_binary_frames(make_app):
    class Packed(Tagged):
        @classmethod
        async def encode_json(cls, content: Any) -> bytes:
            return ormsgpack.packb(content)

    async with WebsocketCommunicator(make_app(path("/", Packed)), "/") as client:
        await client.send_json_to({"action": "shout", "request_id": 1, "data": {"text": "hi"}})
        frames = [ormsgpack.unpackb(await client.receive_from()) for _ in range(3)]
        assert [frame["type"] for frame in frames] == ["event", "event", "reply"]


async def test_send_json_uses_ones_own_encoding_sync_or_to_bytes(make_app):
    class Sync(Plain):
        @classmethod
        def encode_json(cls, content: Any) -> str:
            return "sync" + json.dumps(content)

    class Packed(Plain):
        @classmethod
        async def encode_json(cls, content: Any) -> bytes:
            return ormsgpack.packb(content)

    app = make_app(path("/sync", Sync), path("/packed", Packed))
    async with WebsocketCommunicator(app, "/sync") as client:
        await client.send_json_to(1)
        assert await client.receive_from() == 'sync{"got": 1}'
    async with WebsocketCommunicator(app, "/packed") as client:
        await client.send_json_to(1)
        assert await client.receive_from() == ormsgpack.packb({"got": 1})


def test_encode_json_as_an_instance_method_is_refused():
    with pytest.raises(ImproperlyConfigured, match="encode_json"):

        class Wrong(JSONConsumer):
            async def encode_json(self, content: Any) -> str:
                return ""


async def test_an_encoding_that_waits_is_reported_and_others_are_served(make_app, caplog):
    import asyncio

    class Waiting(Tagged):
        @classmethod
        async def encode_json(cls, content: Any) -> str:
            await asyncio.sleep(0)
            return "never"

    class Quick(Tagged):
        pass

    app = make_app(path("/waiting", Waiting), path("/quick", Quick))
    async with WebsocketCommunicator(app, "/quick") as quick, WebsocketCommunicator(app, "/waiting"):
        await app.state.consumers.broadcast("all", "news", 1)
        await quick.assert_event("news", 1)
    assert "Waiting.encode_json() waited for something" in caplog.text


# Envelopes of one's own


class ChatRequest(RequestSerializer):
    """``{"action": "message", "user": "ann", "message": "hi", "request_id": 1}``"""

    user: str
    message: str = ""


class ChatResponse(ResponseSerializer):
    """``{"action", "user", "message", "status", "errors", "request_id"}``"""

    action: str | None
    user: str | None = None
    message: str | None = None
    status: str
    errors: list[dict[str, Any]]
    request_id: int | str | None


class FlatChat(GroupConsumer):
    groups = ["flat"]
    request_serializer_class = ChatRequest
    response_serializer_class = ChatResponse

    @action
    async def message(self, user: str, message: str) -> dict[str, str]:
        return {"user": user, "message": message.upper()}

    @action
    async def announce(self, user: str) -> None:
        await self.broadcast("announced", user)


async def test_flat_requests_and_responses(make_app):
    async with WebsocketCommunicator(make_app(path("/", FlatChat)), "/") as client:
        await client.send_json_to({"action": "message", "user": "ann", "message": "hi", "request_id": 1})
        assert await client.receive_json_from() == {
            "action": "message",
            "user": "ann",
            "message": "HI",
            "status": "ok",
            "errors": [],
            "request_id": 1,
        }


async def test_flat_errors_say_what_is_wrong(make_app):
    async with WebsocketCommunicator(make_app(path("/", FlatChat)), "/") as client:
        await client.send_json_to({"action": "message", "request_id": 2})
        answer = await client.receive_json_from()
        assert (answer["status"], answer["request_id"], answer["user"]) == ("error", 2, None)
        assert answer["errors"][0]["code"] == "invalid_data"
        assert [detail["loc"] for detail in answer["errors"][0]["details"]] == [["user"]]
        await client.send_json_to({"action": "nope", "user": "ann", "request_id": 3})
        assert (await client.receive_json_from())["errors"][0]["code"] == "action_not_found"


async def test_flat_responses_leave_events_as_they_are_unless_told(make_app):
    class OwnEvents(FlatChat):
        class response_serializer_class(ChatResponse):
            @classmethod
            def from_event(cls, event, data):
                return {"happened": event.event, "with": data, "in": event.group}

    app = make_app(path("/native", FlatChat), path("/own", OwnEvents))
    async with WebsocketCommunicator(app, "/native") as native, WebsocketCommunicator(app, "/own") as own:
        await native.send_json_to({"action": "announce", "user": "ann"})
        assert await native.receive_json_from() == {
            "type": "event",
            "event": "announced",
            "group": "flat",
            "data": "ann",
        }
        assert await own.receive_json_from() == {"happened": "announced", "with": "ann", "in": "flat"}


async def test_flat_request_lets_actions_declare_their_own_fields(make_app):
    class Shapes(JSONConsumer):
        request_serializer_class = FlatRequest

        @action
        async def move(self, x: int, y: int = 0) -> list[int]:
            return [x, y]

    async with WebsocketCommunicator(make_app(path("/", Shapes)), "/") as client:
        await client.send_json_to({"action": "move", "request_id": 1, "x": 3})
        assert (await client.receive_json_from())["data"] == [3, 0]
        await client.send_json_to({"action": "move", "request_id": 2, "x": "no"})
        assert (await client.receive_json_from())["error"]["details"][0]["loc"] == ["x"]


# MessagePack and frames of the wrong kind


class Adder(GroupConsumer):
    groups = ["adders"]

    @action
    async def add(self, a: int, b: int) -> int:
        return a + b

    @action
    async def size(self, blob: bytes) -> int:
        return len(blob)

    @action
    async def blob(self) -> dict[str, bytes]:
        return {"blob": b"\x00\xff"}

    @action
    async def fail(self) -> None:
        raise KeyError


async def test_messagepack_is_spoken_where_its_subprotocol_was_chosen(make_app):
    app = make_app(path("/", Adder))
    async with WebsocketCommunicator(app, "/", subprotocols=["other", "fc.v1.msgpack", "fc.v1.json"]) as client:
        assert client.subprotocol == "fc.v1.msgpack"
        assert await client.call("add", {"a": 1, "b": 2}) == 3
        assert await client.call("size", {"blob": b"\xff\x00"}) == 2
        await app.state.consumers.broadcast("adders", "news", [1])
        assert await client.assert_event("news", [1], "adders")
        await client.send_json_to({"action": "fail", "request_id": 1})
        assert (await client.receive_json_from())["error"]["code"] == "internal_error"


async def test_messagepack_answers_with_bytes_as_bytes(make_app):
    async with WebsocketCommunicator(make_app(path("/", Adder)), "/", subprotocols=["fc.v1.msgpack"]) as client:
        assert await client.call("blob") == {"blob": b"\x00\xff"}


async def test_the_first_subprotocol_of_ours_that_the_client_offers_is_chosen(make_app):
    app = make_app(path("/", Adder))
    async with WebsocketCommunicator(app, "/", subprotocols=["fc.v1.json", "fc.v1.msgpack"]) as client:
        assert client.subprotocol == "fc.v1.json"
        assert await client.call("add", {"a": 1, "b": 2}) == 3
    async with WebsocketCommunicator(app, "/", subprotocols=["foreign"]) as client:
        assert client.subprotocol is None


@pytest.mark.parametrize("consumer", [Adder, Plain, FlatChat])
async def test_a_binary_frame_where_text_is_spoken_closes_with_1003(make_app, consumer):
    async with WebsocketCommunicator(make_app(path("/", consumer)), "/") as client:
        await client.send_to(bytes_data=b"{}")
        await client.assert_closed(1003)


async def test_a_text_frame_where_messagepack_is_spoken_closes_with_1003(make_app):
    async with WebsocketCommunicator(make_app(path("/", Adder)), "/", subprotocols=["fc.v1.msgpack"]) as client:
        await client.send_to("{}")
        await client.assert_closed(1003)


async def test_receive_json_of_ones_own_gets_messagepack_decoded(make_app):
    class Noting(Adder):
        async def receive_json(self, content):
            await self.send_event("got", content)

    async with WebsocketCommunicator(make_app(path("/", Noting)), "/", subprotocols=["fc.v1.msgpack"]) as client:
        await client.send_json_to({"a": [1]})
        await client.assert_event("got", {"a": [1]})
        await client.send_to(bytes_data=b"\xc1")
        assert (await client.receive_json_from())["error"]["code"] == "invalid_frame"
        await client.send_to("{}")
        await client.assert_closed(1003)


async def test_events_reach_json_and_messagepack_members_alike(make_app):
    app = make_app(path("/", Adder))
    async with (
        WebsocketCommunicator(app, "/") as text,
        WebsocketCommunicator(app, "/", subprotocols=["fc.v1.msgpack"]) as packed,
    ):
        await app.state.consumers.broadcast("adders", "news", {"n": 1.5})
        assert await text.receive_json_from() == await packed.receive_json_from()


async def test_event_methods_may_use_send_json(make_app):
    class Listening(JSONConsumer):
        groups = ["all"]

        @event("chat.message")
        async def chat_message(self, message):
            await self.send_json({"said": message["text"]})

    app = make_app(path("/", Listening))
    async with WebsocketCommunicator(app, "/") as client:
        await app.state.consumers.layer.group_send("all", {"type": "chat.message", "text": "hi"})
        assert await client.receive_json_from() == {"said": "hi"}
