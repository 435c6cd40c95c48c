"""Noughts and crosses for two, played by the rules of the server.

Run ``uvicorn examples.game.app:app`` and open http://127.0.0.1:8000/ in two windows. Everything is in memory: the
tables are those of one process, and gone when it ends.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from fastapi_consumers import InvalidData, PersonConsumer, action, add_consumers, path
from fastapi_consumers.authentication import BearerTokenAuthentication
from fastapi_consumers.throttling import ConnectionRateThrottle

from .table import Seat, Table, Tables

STATIC = Path(__file__).parent / "static"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=30, pattern=r"^\P{Cc}+$")]
Square = Annotated[int, Field(ge=0, le=8)]

check_name = TypeAdapter(Name).validate_python
is_room = re.compile(r"[a-z0-9-]{1,30}").fullmatch


class SeatAuthentication(BearerTokenAuthentication):
    """Who was given a seat before shows its token. Everybody else is a newcomer, and anonymous."""

    def get_user(self, token: str, connection: Any) -> Seat | None:
        tables: Tables = connection.scope["app"].state.tables
        return tables.find(connection.scope["path_params"]["room"], token)


class GameRoom(PersonConsumer):
    """A table. A third visitor is refused, and so is a second one while a player who was lost may come back."""

    groups = ["game.{room}"]
    authentication_classes = [SeatAuthentication]
    throttle_classes = [ConnectionRateThrottle("20/10 seconds")]
    connection_throttle_classes = ["60/minute"]
    max_message_size = 1024
    # A browser tells its page nothing of a refused handshake. So it is accepted, told why, and closed.
    accept_refused = True

    seat: Seat | None = None

    @property
    def tables(self) -> Tables:
        tables: Tables = self.scope["app"].state.tables
        return tables

    @property
    def player(self) -> Seat:
        assert self.seat is not None
        return self.seat

    async def get_groups(self) -> list[str]:
        """Asked before the group counts its members: an older connection of the same player makes room."""
        if not is_room(self.path_params["room"]):
            raise InvalidData("A room's name has 1 to 30 small letters, digits and hyphens.")
        while isinstance(self.user, Seat) and self.user.channel is not None:
            await self.consumers.disconnect(channel=self.user.channel, reason="replaced")
            await self.user.left.wait()
        return [f"game.{self.path_params['room']}"]

    async def connect(self) -> None:
        known = self.user if isinstance(self.user, Seat) else None
        try:
            name = check_name(self.websocket.query_params.get("name", ""))
        except ValidationError:
            raise InvalidData("A name has 1 to 30 characters, on one line.") from None
        self.seat = self.tables.sit(self.path_params["room"], name, self.channel_name, known)
        await self.accept()

    async def on_join(self, group: str) -> None:
        mark, token = self.player.mark, self.player.token
        await self.send_event("welcome", {"mark": mark, "token": token, "grace": self.tables.grace})
        await self.show(self.player.table)

    async def disconnect(self, code: int) -> None:
        """Called however the connection ended, once it has left the group."""
        if self.seat is not None and self.seat.channel == self.channel_name:
            self.tables.stand_up(self.seat)
            await self.show(self.seat.table)

    async def show(self, table: Table) -> None:
        await self.consumers.broadcast(f"game.{table.name}", "table", table.view())

    @action
    async def play(self, square: Square) -> None:
        self.player.table.play(self.player, square)
        await self.show(self.player.table)

    @action
    async def rematch(self) -> None:
        self.player.table.ask_rematch(self.player)
        await self.show(self.player.table)

    @action("leave")
    async def leave_room(self) -> None:
        """Give the seat up at once, so that somebody else can have it."""
        self.tables.leave(self.player)
        await self.close(1000, "left")
        await self.show(self.player.table)


def make_app(grace: float = 30) -> FastAPI:
    """The app. ``grace`` is for how many seconds the seat of a player who was lost is kept."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        tables.close()

    app = FastAPI(title="Noughts and crosses", lifespan=lifespan)
    consumers = add_consumers(app, [path("/ws/{room}", GameRoom, name="room")], url="memory://")
    telling: set[asyncio.Task[Any]] = set()

    def tell(table: Table) -> None:
        task = asyncio.ensure_future(consumers.broadcast(f"game.{table.name}", "table", table.view()))
        telling.add(task)
        task.add_done_callback(telling.discard)

    tables = app.state.tables = Tables(grace, tell)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


app = make_app()
