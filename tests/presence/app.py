"""An application that two processes serve over one Valkey, with leases that are short.

Run as a script with the file descriptor of a listening socket and uvicorn's options as JSON; ``BROKER_URL`` names the
server.
"""

import os
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from fastapi_consumers import GroupConsumer, PersonConsumer, add_consumers, counting, path
from fastapi_consumers.presence import Presence

#: Seconds within which what a process had that died is gone.
TTL = 5.0


def name_of(consumer: Any) -> str | None:
    name: str | None = consumer.websocket.query_params.get("name")
    return name


class Room(GroupConsumer):
    groups = ["room.{room}"]
    presence = Presence(key=name_of, info=lambda consumer: {"pid": os.getpid()}, ttl=TTL, grace=0)


class Forgiving(Room):
    presence = Presence(key=name_of, ttl=TTL, grace=3.0)


class Lasting(Room):
    presence = Presence(key=name_of, ttl=600, grace=0)


class Pair(PersonConsumer):
    groups = ["pair.{room}"]
    lease_timeout = TTL


app = FastAPI()
consumers = add_consumers(
    app,
    [
        path("/room/{room}", Room),
        path("/forgiving/{room}", Forgiving),
        path("/lasting/{room}", Lasting),
        path("/pair/{room}", Pair),
    ],
    url=os.environ.get("BROKER_URL", "memory://"),
    broker_timeout=20,
    allowed_origins=["*"],
)


@app.get("/state")
async def state() -> dict[str, Any]:
    return {"pid": os.getpid()}


@app.get("/count/{group}")
async def count(group: str) -> int:
    return await consumers.get_connection_count(group)


@app.get("/presence/{group}")
async def presence(group: str) -> dict[str, Any]:
    return await consumers.get_presence(group)


if __name__ == "__main__":
    # Not where a test only wants to see the app: others count in the same process.
    counting.LEASE, counting.INTERVAL = TTL * 0.7, TTL * 0.2
    # At the end of the path, so that an installed wheel of the package comes before its source.
    sys.path.append(str(Path(__file__).resolve().parent.parent.parent))
    from tests.server import app as other

    other.app = app
    other.main()
