"""An application as it is deployed: settings from the environment, and what asks whether it is alive and ready.

``BROKER_URL`` names the Redis or Valkey server that all processes share, ``DRAIN_TIMEOUT`` how many seconds a process
may take to send its clients to the others. The files beside this one run it.
"""

import os
from typing import Annotated

from fastapi import Depends, FastAPI, Response

from fastapi_consumers import Consumers, GroupConsumer, action, add_consumers, get_consumers, path
from fastapi_consumers.health import Health
from fastapi_consumers.history import History


class Room(GroupConsumer):
    groups = ["room.{room}"]
    # So that whoever is sent to another process goes on there where it was.
    history = History(size=1000, ttl=3600)

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", {"text": text})


app = FastAPI()
add_consumers(
    app,
    [path("/room/{room}", Room)],
    url=os.environ.get("BROKER_URL", "memory://"),
    drain_timeout=float(os.environ.get("DRAIN_TIMEOUT", "25")),
    max_connections_per_address=100,
    max_connection_rate="200/second",
)

Found = Annotated[Consumers, Depends(get_consumers)]


@app.get("/live")
async def live() -> dict[str, bool]:
    """Whether the process answers at all. Nothing else: who asks restarts it if not."""
    return {"alive": True}


@app.get("/ready")
async def ready(consumers: Found, response: Response) -> dict[str, bool]:
    """Whether new sockets may come: 503 from the moment in which it is told to stop."""
    draining = consumers.health()["draining"]
    response.status_code = 503 if draining else 200
    return {"ready": not draining}


@app.get("/health")
async def health(consumers: Found) -> Health:
    """For whoever watches. Keep it from the outside, as nginx.conf and the Caddyfile do."""
    return consumers.health()
