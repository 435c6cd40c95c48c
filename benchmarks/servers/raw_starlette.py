"""L: the raw limit. A plain Starlette WebSocket endpoint written by hand, stdlib json.

bench-title: Starlette by hand (L)
bench-venv: base
bench-dialect: plain
bench-default: yes
"""

import asyncio
import contextlib
import json
import os

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

REDIS = os.environ.get("BENCH_REDIS_URL") if os.environ.get("BENCH_BACKEND") == "redis" else None
groups: dict[str, set[WebSocket]] = {}
redis = None


async def fan_out(group: str, text: str) -> None:
    for ws in list(groups.get(group, ())):
        try:
            await ws.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            pass


async def endpoint(ws: WebSocket) -> None:
    group = ws.path_params["group"]
    await ws.accept()
    groups.setdefault(group, set()).add(ws)
    try:
        while True:
            msg = json.loads(await ws.receive_text())
            if msg["action"] == "echo":
                await ws.send_text(json.dumps({"action": "echo", "request_id": msg["request_id"], "data": msg["data"]}))
            else:
                data = msg["data"]
                text = json.dumps({"action": "message", "data": {"text": data["text"]}})
                if redis is not None:
                    await redis.publish("g:" + data["group"], text)
                else:
                    await fan_out(data["group"], text)
    except WebSocketDisconnect:
        pass
    finally:
        members = groups[group]
        members.discard(ws)
        if not members:
            del groups[group]


@contextlib.asynccontextmanager
async def lifespan(app):
    global redis
    task = None
    if REDIS:
        from redis import asyncio as aioredis

        redis = aioredis.Redis.from_url(REDIS)
        pubsub = redis.pubsub()
        await pubsub.psubscribe("g:*")

        async def reader():
            async for m in pubsub.listen():
                if m["type"] == "pmessage":
                    await fan_out(m["channel"].decode()[2:], m["data"].decode())

        task = asyncio.create_task(reader())
    yield
    if task:
        task.cancel()


app = Starlette(routes=[WebSocketRoute("/ws/{group}", endpoint)], lifespan=lifespan)
