"""fastapi-channels 0.0.1b2, a Channel subclass with @action methods (its README).

bench-title: fastapi-channels
bench-venv: fastapi_channels
bench-dialect: plain
"""

import os

from fastapi import FastAPI, WebSocket
from fastapi_channels import add_channel
from fastapi_channels.channels import Channel
from fastapi_channels.decorators import action

app = FastAPI()
URL = os.environ["BENCH_REDIS_URL"] if os.environ.get("BENCH_BACKEND") == "redis" else "memory://"
add_channel(app, url=URL, limiter_url="memory://" if URL == "memory://" else URL)


class ChatRoom(Channel):
    @action("echo")
    async def echo(self, websocket: WebSocket, channel: str, data: dict, **kwargs):
        await self.broadcast_to_personal(
            websocket, {"action": "echo", "request_id": data["request_id"], "data": data["data"]}
        )

    @action("publish")
    async def publish(self, websocket: WebSocket, channel: str, data: dict, **kwargs):
        d = data["data"]
        await self.broadcast_to_channel(d["group"], {"action": "message", "data": {"text": d["text"]}})


room = ChatRoom()


@app.websocket("/ws/{group}")
async def endpoint(websocket: WebSocket, group: str):
    await room.connect(websocket, channel=group)
