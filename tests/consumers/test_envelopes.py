"""Flat envelopes, and what the built-in cancel makes of them."""

import asyncio

import pytest
from fastapi import FastAPI

from fastapi_consumers import GroupConsumer, JSONConsumer, action, add_consumers, path
from fastapi_consumers.serializers import FlatRequest
from fastapi_consumers.testing import WebsocketCommunicator


@pytest.fixture
def started():
    return asyncio.Event()


@pytest.fixture
def app(started):
    class Room(JSONConsumer):
        request_serializer_class = FlatRequest

        @action
        async def hold(self, why: str) -> None:
            started.set()
            await asyncio.Event().wait()

    app = FastAPI()
    add_consumers(app, [path("/room", Room)])
    return app


async def test_a_flat_cancel_names_its_request_by_its_own_id_and_one_answer_comes(app, started):
    async with WebsocketCommunicator(app, "/room") as client:
        await client.send_json_to({"action": "hold", "request_id": 9, "why": "to be cancelled"})
        await started.wait()
        await client.send_json_to({"action": "cancel", "request_id": 9})
        answer = await client.receive_json_from()
        assert (answer["action"], answer["request_id"], answer["error"]["code"]) == ("hold", 9, "cancelled")
        await client.send_json_to({"action": "cancel", "request_id": 10})
        answer = await client.receive_json_from()
        assert (answer["action"], answer["request_id"], answer["error"]["code"]) == ("cancel", 10, "not_found")


async def test_a_broadcast_in_on_leave_goes_to_the_group_that_is_being_left():
    class Room(GroupConsumer):
        groups = ["a", "b"]

        @action
        async def go(self) -> None:
            await self.leave("a")

        async def on_leave(self, group: str) -> None:
            await self.broadcast("left", group)

    app = FastAPI()
    add_consumers(app, [path("/room", Room)])
    async with WebsocketCommunicator(app, "/room") as stays, WebsocketCommunicator(app, "/room") as goes:
        await goes.call("go")
        assert (await stays.assert_event("left", group="a"))["data"] == "a"
        await goes.disconnect()
        assert (await stays.assert_event("left", group="b"))["data"] == "b"
