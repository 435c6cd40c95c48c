"""litestar 2.25 ChannelsPlugin (memory / redis pub-sub backend), start_subscription + run_in_background.

Variant: @history=memory. It has no positions: who comes back asks for the newest 100, which is what it has missed here.

bench-title: Litestar channels
bench-venv: litestar
bench-dialect: plain
"""

import os

from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.exceptions import WebSocketDisconnect

if os.environ.get("BENCH_BACKEND") == "redis":
    from litestar.channels.backends.redis import RedisChannelsPubSubBackend
    from redis.asyncio import Redis

    backend = RedisChannelsPubSubBackend(redis=Redis.from_url(os.environ["BENCH_REDIS_URL"]))
else:
    backend = MemoryChannelsBackend(history=1000 if "BENCH_HISTORY" in os.environ else 0)


@websocket("/ws/{group:str}")
async def handler(socket: WebSocket, channels: ChannelsPlugin, group: str) -> None:
    await socket.accept()
    if "BENCH_HISTORY" in os.environ:
        await socket.send_json({"type": "joined", "epoch": "x", "offset": 0})
    missed = 100 if "recover" in socket.query_params else None
    async with (
        channels.start_subscription([group], history=missed) as subscriber,
        subscriber.run_in_background(socket.send_text),
    ):
        try:
            while True:
                msg = await socket.receive_json()
                if msg["action"] == "echo":
                    await socket.send_json({"action": "echo", "request_id": msg["request_id"], "data": msg["data"]})
                else:
                    data = msg["data"]
                    channels.publish({"action": "message", "data": {"text": data["text"]}}, channels=[data["group"]])
        except WebSocketDisconnect:
            pass


app = Litestar(
    [handler],
    plugins=[ChannelsPlugin(backend=backend, arbitrary_channels_allowed=True)],
    openapi_config=None,
)
