"""The chat of ``fastapi-consumers demo``: rooms with a history and presence, in memory, and a page for them.

It is as small as such an application can be, so that the package stays so; ``examples/chat`` in the repository is not.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from ... import GroupConsumer, action, add_consumers
from ... import path as channel_path
from ...authentication import BaseAuthentication
from ...history import History
from ...permissions import IsAuthenticated
from ...presence import Presence

HERE = Path(__file__).parent
#: The page loads nothing from elsewhere.
HEADERS = {"Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=30)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
check_name = TypeAdapter(Name).validate_python


class Visitor:
    """Somebody who gave a name: there are no accounts here."""

    def __init__(self, name: str) -> None:
        self.id = name


class NameAuthentication(BaseAuthentication):
    """Believes the name in the query: ``?name=Ann``."""

    def authenticate(self, connection: Any) -> tuple[Visitor, None] | None:
        name = connection.websocket.query_params.get("name")
        try:
            return None if name is None else (Visitor(check_name(name)), None)
        except ValidationError:
            return None


class Room(GroupConsumer):
    """Everybody in /ws/{room} hears everybody else."""

    groups = ["demo.{room}"]
    authentication_classes = [NameAuthentication]
    permission_classes = [IsAuthenticated]
    throttle_classes = ["20/10 seconds"]
    history = History(size=100)
    presence = Presence(key=lambda room: room.user.id, grace=2)

    @action
    async def say(self, text: Text) -> None:
        """Tell everybody in the room."""
        await self.broadcast("said", {"by": self.user.id, "text": text})

    @action
    async def add(self, a: int, b: int = 1) -> int:
        """The sum of two numbers, for you alone."""
        return a + b

    @action
    async def countdown(self, start: Annotated[int, Field(ge=1, le=10)] = 3) -> AsyncIterator[int]:
        """Count down, one number every half second: an answer that streams."""
        for number in range(start, 0, -1):
            yield number
            await asyncio.sleep(0.5)


app = FastAPI(title="A chat")
add_consumers(app, [channel_path("/ws/{room}", Room, name="room")], url="memory://")


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(HERE / "page.html", headers=HEADERS)


@app.get("/page.js", include_in_schema=False)
async def script() -> FileResponse:
    return FileResponse(HERE / "page.js")


@app.get("/page.css", include_in_schema=False)
async def style() -> FileResponse:
    return FileResponse(HERE / "page.css")
