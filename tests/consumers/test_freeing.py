"""What has ended is freed at once: nothing that belongs to a connection refers to itself in a circle."""

import asyncio
import gc
import weakref

from fastapi import FastAPI

from fastapi_consumers import GroupConsumer, action, add_consumers, event, path
from fastapi_consumers.testing import WebsocketCommunicator


class Recorded(GroupConsumer):
    groups = ["recorded.{room}"]
    seen: list = []

    async def connect(self):
        self.seen += [weakref.ref(self), weakref.ref(self.connection)]
        assert self.websocket.headers is not None
        await super().connect()

    @event
    async def noted(self, message):
        pass

    def on_overflow(self, policy):
        pass

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)


async def test_what_has_ended_is_freed_without_the_garbage_collector():
    app = FastAPI()
    add_consumers(app, [path("/{room}", Recorded)])
    Recorded.seen.clear()
    gc.disable()
    try:
        async with WebsocketCommunicator(app, "/one") as client:
            await client.send_json_to({"action": "say", "request_id": 1, "data": {"text": "hi"}})
            assert [(await client.receive_json_from())["type"] for _ in range(2)] == ["event", "reply"]
        del client
        for _ in range(5):
            await asyncio.sleep(0)  # The tasks that ended are let go of by the loop.
        assert [seen() for seen in Recorded.seen] == [None, None]
    finally:
        gc.enable()
