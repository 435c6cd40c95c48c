"""python-socketio 5.18 AsyncServer (ASGI), websocket transport only; rooms; AsyncRedisManager for redis.

bench-title: python-socketio
bench-venv: socketio
bench-dialect: sio
"""

import os
from urllib.parse import parse_qs

import socketio

mgr = socketio.AsyncRedisManager(os.environ["BENCH_REDIS_URL"]) if os.environ.get("BENCH_BACKEND") == "redis" else None
sio = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], client_manager=mgr, cors_allowed_origins="*")


@sio.event
async def connect(sid, environ):
    await sio.enter_room(sid, parse_qs(environ["QUERY_STRING"])["group"][0])


@sio.event
async def echo(sid, msg):
    await sio.emit("echo", {"request_id": msg["request_id"], "data": msg["data"]}, to=sid)


@sio.event
async def publish(sid, msg):
    await sio.emit("message", {"text": msg["data"]["text"]}, room=msg["data"]["group"])


app = socketio.ASGIApp(sio)
