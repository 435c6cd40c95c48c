"""The application of these tests in a process of its own, over the server that ``BROKER_URL`` names.

Run as a script with the file descriptor of a listening socket and uvicorn's options as JSON. Without ``ADMIN`` in its
environment it has no admin router, and answers those of others all the same.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if __name__ == "__main__":
    # At the end of the path, so that an installed wheel of the package comes before its source.
    sys.path.append(str(Path(__file__).resolve().parent.parent.parent))

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from fastapi_consumers import GroupConsumer, NotAuthenticated, action, add_consumers, path
from fastapi_consumers.admin import admin_router
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.history import History
from fastapi_consumers.presence import Presence


class Room(GroupConsumer):
    groups = ["room.{room}"]

    @action(throttle_classes=["1/hour"])
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)


class ByName(BaseAuthentication):
    async def authenticate(self, connection: Any) -> Any:
        name = connection.websocket.query_params.get("name")
        return (SimpleNamespace(id=name), None) if name else None


class Hall(GroupConsumer):
    """People with names, and a history."""

    groups = ["hall.{hall}"]
    authentication_classes = [ByName]
    history = History(size=100)
    presence = Presence(key=lambda consumer: consumer.user.id)


async def require_key(connection: HTTPConnection) -> None:
    if "open" not in (connection.query_params.get("key"), connection.cookies.get("key")):
        raise NotAuthenticated


app = FastAPI()
consumers = add_consumers(
    app,
    [path("/room/{room}", Room), path("/hall/{hall}", Hall)],
    url=os.environ.get("BROKER_URL", "memory://"),
    broker_timeout=20,
    allowed_origins=["*"],
)
if "ADMIN" in os.environ:
    app.include_router(admin_router(dependencies=[Depends(require_key)], timeout=float(os.environ["ADMIN"])))


@app.get("/state")
async def state() -> dict[str, Any]:
    return {"pid": os.getpid()}


if __name__ == "__main__":
    from tests.server import app as other

    other.app = app
    other.main()
