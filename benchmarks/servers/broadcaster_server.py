"""broadcaster 0.3.1 on Starlette, as in its README (anyio task group: receiver + sender per socket).

bench-title: broadcaster
bench-venv: broadcaster
bench-dialect: plain
"""

import json
import os
from contextlib import asynccontextmanager

import anyio
from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

broadcast = Broadcast(os.environ["BENCH_REDIS_URL"] if os.environ.get("BENCH_BACKEND") == "redis" else "memory://")


async def chatroom_ws(websocket):
    await websocket.accept()
    group = websocket.path_params["group"]
    async with anyio.create_task_group() as task_group:
        # run until first is complete
        async def run_chatroom_ws_receiver() -> None:
            await chatroom_ws_receiver(websocket=websocket)
            task_group.cancel_scope.cancel()

        task_group.start_soon(run_chatroom_ws_receiver)
        await chatroom_ws_sender(websocket, group)


async def chatroom_ws_receiver(websocket):
    async for message in websocket.iter_text():
        msg = json.loads(message)
        if msg["action"] == "echo":
            await websocket.send_text(
                json.dumps({"action": "echo", "request_id": msg["request_id"], "data": msg["data"]})
            )
        else:
            data = msg["data"]
            await broadcast.publish(
                channel=data["group"], message=json.dumps({"action": "message", "data": {"text": data["text"]}})
            )


async def chatroom_ws_sender(websocket, group):
    async with broadcast.subscribe(channel=group) as subscriber:
        async for event in subscriber:
            await websocket.send_text(event.message)


@asynccontextmanager
async def lifespan(app):
    await broadcast.connect()
    yield
    await broadcast.disconnect()


app = Starlette(routes=[WebSocketRoute("/ws/{group}", chatroom_ws)], lifespan=lifespan)
