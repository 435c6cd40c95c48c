"""fastapi-websockets 0.1.0: AsyncJsonWebSocketConsumer + one shared layer (its README).

The redis layer holds one redis connection per socket, and redis-py allows 100 by default, so the
URL raises max_connections; without that the 101st socket gets HTTP 500.

bench-title: fastapi-websockets
bench-venv: fws
bench-dialect: plain
"""

import os

from fastapi import FastAPI, WebSocket
from fastapi_websockets import AsyncJsonWebSocketConsumer, get_channel_layer

app = FastAPI()
if os.environ.get("BENCH_BACKEND") == "redis":
    layer = get_channel_layer(
        {
            "default": {
                "BACKEND": "fastapi_websockets.backends.redis.RedisChannelLayer",
                "CONFIG": {"url": os.environ["BENCH_REDIS_URL"] + "?max_connections=4000"},
            }
        }
    )
else:
    layer = get_channel_layer()


class ChatConsumer(AsyncJsonWebSocketConsumer):
    async def connect(self) -> None:
        await self.group_add(self.path_params["group"])
        await self.accept()

    async def receive_json(self, content: dict) -> None:
        if content["action"] == "echo":
            await self.send_json({"action": "echo", "request_id": content["request_id"], "data": content["data"]})
        else:
            data = content["data"]
            await self.channel_layer.group_send(data["group"], {"type": "chat.message", "text": data["text"]})

    async def chat_message(self, event: dict) -> None:
        await self.send_json({"action": "message", "data": {"text": event["text"]}})


@app.websocket("/ws/{group}")
async def endpoint(websocket: WebSocket) -> None:
    await ChatConsumer(layer=layer)(websocket)
