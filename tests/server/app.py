"""The application that the tests of this folder talk to, and the process that serves it.

Run as a script with the file descriptor of a listening socket and uvicorn's options as JSON.
"""

import asyncio
import functools
import json
import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel
from starlette.websockets import WebSocket

from fastapi_consumers import ConsumerError, GroupConsumer, PersonConsumer, RelayConsumer, action, add_consumers, path
from fastapi_consumers.exceptions import BrokerUnavailable, GroupFull, NotAuthenticated, PermissionDenied, Throttled

counts: Counter[str] = Counter()


class Counted:
    """Counts what has to be balanced in the end."""

    async def connect(self: Any) -> None:
        counts["connect"] += 1
        await self.accept()

    async def disconnect(self: Any, code: int) -> None:
        counts["disconnect"] += 1
        counts[f"code {code}"] += 1

    async def on_join(self, group: str) -> None:
        counts["join"] += 1

    async def on_leave(self, group: str) -> None:
        counts["leave"] += 1


class Point(BaseModel):
    x: float
    y: float = 0.0


class Target(Counted, GroupConsumer):
    groups = ["{kind}.{room}"]
    max_message_size = 16 * 1024
    max_inbox = 16
    # Of those that a test waits for; and longer than a busy machine stalls.
    inbox_timeout = 2.5
    write_timeout = 4.0

    @action
    async def echo(self, text: str) -> str:
        return text

    @action
    async def move(self, data: Point) -> Point:
        return data

    @action
    async def anything(self, data: Any = None) -> Any:
        return data

    @action(concurrent=True)
    async def beside(self, text: str) -> str:
        await asyncio.sleep(0)
        return text

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)

    @action
    async def tick(self, number: int, size: int) -> None:
        await self.broadcast("tick", [number, "x" * size])

    @action
    async def burst(self, count: int, size: int = 10) -> None:
        for number in range(count):
            await self.broadcast("burst", [number, "x" * size])
            if number % 50 == 0:
                await asyncio.sleep(0)

    @action
    async def sleep(self, seconds: float) -> str:
        counts["sleep began"] += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            counts["sleep cancelled"] += 1
            raise
        return "slept"

    @action
    async def endless(self) -> AsyncIterator[int]:
        """It never waits for anything but its client."""
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            counts["endless ended"] += 1


class Patient(Target):
    """A target whose outbox takes long to be full."""

    max_outbox = 100_000
    max_outbox_bytes = 100_000_000
    write_timeout = 30.0
    inbox_timeout = 30.0


class Dropping(Patient):
    """Its outbox is soon full, and then events go."""

    max_outbox = 64
    max_outbox_bytes = 1_000_000

    def on_overflow(self, policy: str) -> None:
        counts[f"overflow {policy}"] += 1

    @action
    async def move(self, player: str, to: int) -> None:
        await self.broadcast("tick", [to, player, "x" * 4000], coalesce_key=player, exclude_self=True)


class Limited(Target):
    """Bounded as it should be where strangers may come."""

    throttle_classes = ["100/second"]
    max_throttled_requests = 50
    max_connections_per_address = 30


class Refused(Counted, GroupConsumer):
    """Its permission raises what the path names."""

    @staticmethod
    async def permission(consumer: Any, action: Any = None) -> bool:
        errors: dict[str, ConsumerError] = {
            "401": NotAuthenticated(),
            "403": PermissionDenied("No entry."),
            "429": Throttled(7.2),
            "503": BrokerUnavailable(),
            "full": GroupFull(),
        }
        raise errors[consumer.path_params["why"]]

    permission_classes = [permission]


class RefusedWithWords(Refused):
    accept_refused = True


class Two(Counted, PersonConsumer):
    groups = ["two"]


class Plain(Counted, GroupConsumer):
    groups = ["plain"]


class Seldom(Plain):
    connection_throttle_classes = ["1/day"]


class Relay(Counted, RelayConsumer):
    groups = ["relay"]


routes = [
    path("/target/{kind}/{room}", Target),
    path("/patient/{kind}/{room}", Patient),
    path("/limited/{kind}/{room}", Limited),
    path("/drop_oldest/{kind}/{room}", Dropping.as_asgi(overflow="drop_oldest")),
    path("/drop_newest/{kind}/{room}", Dropping.as_asgi(overflow="drop_newest")),
    path("/coalesce/{kind}/{room}", Dropping.as_asgi(overflow="coalesce")),
    path("/refused/{why}", Refused),
    path("/words/{why}", RefusedWithWords),
    path("/two", Two),
    path("/seldom", Seldom),
    path("/relay", Relay),
]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    # Uvicorn has waited for all sockets. The process itself ends by the signal that stopped it.
    print("served", json.dumps(counts), flush=True)


app = FastAPI(lifespan=lifespan)
# What takes longer than a test has patience for does not keep the server from stopping.
consumers = add_consumers(app, routes, allowed_origins=["*"], drain_timeout=0.5)


class Seeing:
    """A middleware that sees what is sent, and changes it in place."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        @functools.wraps(send)
        async def sender(message: Any) -> None:
            if message["type"] == "websocket.send":
                counts["seen"] += 1
                message["text"] += " "
            await send(message)

        await self.app(scope, receive, sender)


seen_app = FastAPI()
add_consumers(seen_app, [path("/{kind}/{room}", Patient)], allowed_origins=["*"], drain_timeout=0.5)
app.mount("/seen", Seeing(seen_app))


#: What bounds a process holds for all of an application.
bounds: dict[str, tuple[type[GroupConsumer], dict[str, Any]]] = {
    "fast": (Plain, {"max_connection_rate": "1/day"}),
    "single": (Plain, {"max_connections_per_process": 1}),
    "closed": (Seldom, {"limiter_url": "redis://127.0.0.1:1", "throttle_failure": "closed"}),
}
bounded: dict[str, FastAPI] = {}
for name, (cls, options) in bounds.items():
    bounded[name] = FastAPI()
    add_consumers(bounded[name], [path("/", cls)], allowed_origins=["*"], drain_timeout=0.5, **options)
    app.mount(f"/{name}", bounded[name])


@app.get("/state")
async def state() -> dict[str, Any]:
    current = app.state.consumers
    return {
        "pid": os.getpid(),
        "loop": type(asyncio.get_running_loop()).__module__,
        "connections": len(current.connections),
        "single": len(bounded["single"].state.consumers.connections),
        "channels": len(current.hub._channels),
        "topics": sorted(current.hub.topics()),
        "bad_packets": current.hub.bad_packets,
        "pumps": sum(connection.inbox.is_pumping for connection in current.connections),
        "outboxes": {
            connection.channel_name: [connection.outbox.waiting, connection.outbox.sent, connection.outbox.dropped]
            for connection in current.connections
        },
        "watched": len(current.watch._busy),
        "tasks": len(asyncio.all_tasks()),
        "lanes": [connection.outbox._transport is not None for connection in current.connections],
        "overflows": current.overflows,
        "counts": counts,
    }


@app.post("/broadcast/{kind}/{room}")
async def broadcast(kind: str, room: str, name: str, count: int, size: int = 0, start: int = 0) -> Response:
    for number in range(start, start + count):
        await app.state.consumers.broadcast(f"{kind}.{room}", name, [number, "x" * size])
        if number % 10 == 0:
            await asyncio.sleep(0)
    return Response()


@app.post("/disconnect/{kind}/{room}")
async def disconnect(kind: str, room: str) -> Response:
    await app.state.consumers.disconnect(group=f"{kind}.{room}")
    return Response()


@app.websocket("/control")
async def control(websocket: WebSocket) -> None:
    """The loop that people write by hand: while it works, nobody reads the socket."""
    await websocket.accept()
    while True:
        seconds = float(await websocket.receive_text())
        await asyncio.sleep(seconds)
        await websocket.send_text("slept")


class OneLine(logging.Formatter):
    """A record, its traceback included, is one line."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


def main() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    options = json.loads(sys.argv[2])
    config = uvicorn.Config(app, log_config=None, access_log=False, **options)
    listening = socket.socket(fileno=int(sys.argv[1]))
    try:
        uvicorn.Server(config).run([listening])
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
