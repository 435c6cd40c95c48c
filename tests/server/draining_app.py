"""An application that is told to stop while it is used. Run as a script, as tests/server/app.py is.

``BROKER_URL`` and ``DRAIN_TIMEOUT`` are told to add_consumers. It handles SIGTERM itself, in both ways in which
programs do: from before the server starts, and in its lifespan, in front of the server's handler.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Response

from fastapi_consumers import (
    Consumers,
    GroupConsumer,
    PersonConsumer,
    RelayConsumer,
    action,
    add_consumers,
    get_consumers,
    path,
)
from fastapi_consumers.health import Health
from fastapi_consumers.history import History
from fastapi_consumers.presence import Presence

settings: dict[str, Any] = {
    "url": os.environ.get("BROKER_URL", "memory://"),
    "drain_timeout": float(os.environ.get("DRAIN_TIMEOUT", "5")),
    "allowed_origins": ["*"],
}


class Room(GroupConsumer):
    groups = ["room.{room}"]
    history = History(size=10_000)

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)

    @action
    async def slow(self, seconds: float) -> str:
        print("served slow", flush=True)
        await asyncio.sleep(seconds)
        return "done"

    @action
    async def pid(self) -> int:
        return os.getpid()


class Patient(Room):
    """Its clients may take their time to read."""

    groups = ["patient.{room}"]
    max_outbox = 100_000
    max_outbox_bytes = 100_000_000
    write_timeout = 60.0


class Lobby(GroupConsumer):
    groups = ["lobby"]
    presence = Presence(key=lambda consumer: consumer.websocket.query_params.get("name"), grace=0)


class Pair(PersonConsumer):
    groups = ["pair"]


class Relay(RelayConsumer):
    groups = ["relay"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    before: Any = signal.getsignal(signal.SIGTERM)

    def heard(number: int, frame: Any) -> None:
        print("served own handler of the lifespan", flush=True)
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, heard)
    yield
    print("served lifespan ends", flush=True)


app = FastAPI(lifespan=lifespan)
routes = [path("/room/{room}", Room), path("/lobby", Lobby), path("/pair", Pair), path("/relay", Relay)]
routes.append(path("/patient/{room}", Patient))
consumers = add_consumers(app, routes, broker_timeout=20, **settings)

mounted = FastAPI()
add_consumers(mounted, [path("/room/{room}", Room)], **{**settings, "url": "memory://"})
app.mount("/mounted", mounted)


@app.get("/state")
async def state() -> dict[str, Any]:
    waiting = sum(connection.outbox.waiting for connection in consumers.connections)
    return {"pid": os.getpid(), "waiting": waiting}


@app.get("/ready")
async def ready(consumers: Annotated[Consumers, Depends(get_consumers)], response: Response) -> Health:
    found = consumers.health()
    response.status_code = 503 if found["draining"] else 200
    return found


@app.get("/presence")
async def presence() -> dict[str, Any]:
    return await consumers.get_presence("lobby")


def end(number: int, frame: Any) -> None:
    """Uvicorn sends the signal once more when it has stopped, for whoever handled it before."""
    print("served own handler of the program", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    # At the end of the path, so that an installed wheel of the package comes before its source.
    sys.path.append(str(Path(__file__).resolve().parent.parent.parent))
    from tests.server import app as other

    signal.signal(signal.SIGTERM, end)
    other.app = app
    other.main()
