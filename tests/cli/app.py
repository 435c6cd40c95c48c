"""An application for ``connect`` to talk to: what answers, what refuses, what closes."""

import asyncio
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from fastapi_consumers import Consumer, GroupConsumer, JSONConsumer, action, add_consumers, path
from fastapi_consumers.authentication import TokenAuthentication
from fastapi_consumers.history import History
from fastapi_consumers.permissions import BasePermission, IsAuthenticated
from fastapi_consumers.presence import Presence


class User(BaseModel):
    id: str


class Tokens(TokenAuthentication):
    async def get_user(self, token: str, connection: Any) -> Any:
        return User(id=token.removeprefix("t-")) if token.startswith("t-") else None


class Say(BaseModel):
    text: str
    loud: bool = False


class Room(GroupConsumer):
    groups = ["room.{room}"]
    authentication_classes = [Tokens]
    history = History(size=100)
    presence = Presence(key=lambda room: room.user.id, grace=0)

    @action
    async def say(self, data: Say) -> None:
        """Tell everybody."""
        await self.broadcast("said", {"text": data.text})

    @action
    async def sum_up(self, a: int, b: int = 0) -> int:
        return a + b

    @action("close")
    async def close_it(self, code: int) -> None:
        await self.close(code, "on_request")

    @action
    async def wait_for_ever(self) -> None:
        await asyncio.Event().wait()

    @action
    async def look(self) -> dict[str, Any]:
        """What the handshake had."""
        headers = self.websocket.headers
        names = ("authorization", "cookie", "origin", "x-one", "sec-websocket-protocol")
        return {"user": self.user.id, **{name: headers[name] for name in names if name in headers}}


class NoPoets(BasePermission):
    message = "No poets, \x1b[31mplease."

    async def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return False


class Closed(JSONConsumer):
    permission_classes = [NoPoets]


class Members(JSONConsumer):
    authentication_classes = [Tokens]
    permission_classes = [IsAuthenticated]


class Rare(JSONConsumer):
    connection_throttle_classes = ["1/3600 seconds"]


class Told(Members):
    accept_refused = True


class Echo(Consumer):
    """Says what it is told, until that is "bye"."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data)
        if text_data == "bye":
            await self.close()


class Odd(Consumer):
    """Sends what is no message of the protocol."""

    async def connect(self) -> None:
        await self.accept()
        await self.send("not\njson \x1b[2J")
        await self.send(bytes_data=b"\x00\x01" * 40)
        await self.send('{\n"a": 1}')
        await self.close()


app = FastAPI()
add_consumers(
    app,
    [
        path("/room/{room}", Room),
        path("/closed", Closed),
        path("/members", Members),
        path("/rare", Rare),
        path("/told", Told),
        path("/echo", Echo),
        path("/odd", Odd),
    ],
    allowed_origins=["*"],
)


@app.get("/plain")
async def plain() -> str:
    return "a page"
