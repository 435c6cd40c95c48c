"""A chat in three rooms, on one page: what consumers can do.

Run ``uvicorn examples.chat.app:app`` and open http://127.0.0.1:8000/ in two windows. What is said in the group is kept
in a file of SQLite, ``chat.db`` where one started it or what ``CHAT_DB`` names. All else is in memory: the rooms are
those of one process.
"""

import os
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, StringConstraints, TypeAdapter, ValidationError

from fastapi_consumers import (
    ConsumerError,
    CursorPagination,
    GroupConsumer,
    InvalidData,
    PersonConsumer,
    RelayConsumer,
    action,
    add_consumers,
    event_model,
    path,
)
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.history import History
from fastapi_consumers.permissions import DenyAny, IsAuthenticated
from fastapi_consumers.presence import Presence

STATIC = Path(__file__).parent / "static"

# The page loads nothing from elsewhere and has no inline code: whatever slips into it does not run.
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}

# -- names -----------------------------------------------------------------------------------------------------------

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=30, pattern=r"^\P{Cc}+$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]

check_name = TypeAdapter(Name).validate_python


class Visitor(BaseModel):
    """Whoever gave a name. There are no accounts: a name is all that is known of anybody. Throttles count by it, and in
    the group whoever has it is one person, in however many windows.
    """

    id: str


class NameAuthentication(BaseAuthentication):
    """The name that the page puts into the query: ``/ws/group?name=Ada``."""

    def authenticate(self, connection: Any) -> tuple[Visitor, None] | None:
        name = connection.websocket.query_params.get("name")
        if name is None:
            return None
        try:
            return Visitor(id=check_name(name)), None
        except ValidationError:
            raise InvalidData("A name has 1 to 30 characters, on one line.") from None

    def get_security_schemes(self, token_keys: Any) -> dict[str, dict[str, str]]:
        """So that the page of the documentation, ``/asyncapi``, asks for a name too."""
        return {"name": {"type": "httpApiKey", "in": "query", "name": "name", "description": "Any name."}}


# -- who is in the room for two --------------------------------------------------------------------------------------


class Person(BaseModel):
    """Somebody in the room for two. Names may be taken twice, so that people are told apart by number."""

    id: int
    name: str


class Who(BaseModel):
    """Who is there, and which of them is asking."""

    you: Person
    people: list[Person]


class People:
    """Those who are in a room of this process, in the order in which they came."""

    def __init__(self) -> None:
        self._people: dict[str, Person] = {}
        self._numbers = count(1)

    def add(self, consumer: GroupConsumer) -> Person:
        person = Person(id=next(self._numbers), name=consumer.user.id)
        self._people[consumer.channel_name] = person
        return person

    def remove(self, consumer: GroupConsumer) -> Person:
        return self._people.pop(consumer.channel_name)

    def find(self, consumer: GroupConsumer) -> Person:
        return self._people[consumer.channel_name]

    def all(self) -> list[Person]:
        return list(self._people.values())

    def who(self, consumer: GroupConsumer) -> Who:
        return Who(you=self.find(consumer), people=self.all())


# -- room 1: the relay -----------------------------------------------------------------------------------------------


class RelayRoom(RelayConsumer):
    """Text goes to everybody exactly as it was sent. There are no actions, no envelopes, no names."""

    groups = ["relay"]
    max_message_size = 4096


# -- room 2: for two -------------------------------------------------------------------------------------------------


class RoomForTwo(PersonConsumer):
    """Two people and a counter. A third one is told that the room is full."""

    groups = ["two"]
    authentication_classes = [NameAuthentication]
    permission_classes = [IsAuthenticated]
    max_message_size = 4096
    # A browser tells its page nothing of a refused handshake. So it is accepted, told why, and closed.
    accept_refused = True

    people = People()
    counter = 0

    async def on_join(self, group: str) -> None:
        person = self.people.add(self)
        await self.send_event("welcome", {**self.people.who(self).model_dump(), "counter": RoomForTwo.counter})
        await self.broadcast("joined", {"person": person, "people": self.people.all()}, exclude_self=True)

    async def on_leave(self, group: str) -> None:
        """Called however the connection ended: a click, a crash, a reload, a cable."""
        person = self.people.remove(self)
        if not self.people.all():
            RoomForTwo.counter = 0
        await self.broadcast("left", {"person": person, "people": self.people.all()})

    @action
    async def who(self) -> Who:
        return self.people.who(self)

    @action
    async def say(self, text: Text) -> None:
        await self.broadcast("said", {"by": self.people.find(self), "text": text})

    @action("count", throttle_classes=["5/10 seconds"])
    async def count_up(self) -> int:
        """Five times in ten seconds. After that the error says how long to wait."""
        RoomForTwo.counter += 1
        await self.broadcast("counted", {"by": self.people.find(self), "counter": RoomForTwo.counter})
        return RoomForTwo.counter

    @action(deprecated=True)
    async def wave(self) -> str:
        """Works as before. The server logs that somebody still uses it."""
        await self.broadcast("waved", {"by": self.people.find(self)})
        return "Waving is deprecated: it still works, but say something instead."

    @action(enabled=False)
    async def shout(self, text: Text) -> None:
        """Switched off: nobody gets here."""

    @action(permission_classes=[DenyAny])
    async def clear(self) -> None:
        """Forbidden: nobody gets here either."""

    @action
    async def fail(self) -> None:
        """An error is an answer. The socket stays open."""
        raise ConsumerError("out_of_tea", "There is no tea left. Nothing else has happened.")

    @action("close")
    async def close_room(self) -> None:
        await self.close(1000, "see_you")


# -- room 3: a group, function by function ---------------------------------------------------------------------------

#: The group in which it is told who is writing. It has no history: a hint is worth nothing a moment later.
TYPING = "group.typing"


@event_model("said")
class Said(BaseModel):
    """A message to everybody."""

    by: str
    text: str
    at: datetime


@event_model("whispered")
class Whispered(Said):
    """A message to one person."""

    to: str


class GroupRoom(GroupConsumer):
    """A room for everybody. The class says who may come in, the functions below what happens there."""

    groups = ["group"]
    # What it sends is checked, and documented.
    events = [Said, Whispered]
    authentication_classes = [NameAuthentication]
    permission_classes = [IsAuthenticated]
    # Of everything together; what makes others read has limits of its own.
    throttle_classes = ["60/10 seconds"]
    max_message_size = 4096
    max_connections = 200
    accept_refused = True
    # Whoever comes back is given what was said meanwhile, and anybody can look at what was said before.
    history = History(size=1000, ttl=timedelta(days=30))
    pagination_class = CursorPagination(page_size=30)
    # Who reloads the page, or is in a tunnel for a moment, has not left.
    presence = Presence(key=lambda room: room.user.id, grace=3)
    # Who does not keep up needs one hint of each writer, and is told if a message had to be dropped.
    overflow = "coalesce"


@GroupRoom.on_event("join")
async def greet(room: GroupRoom, group: str) -> None:
    # Not `room.join`, which would keep a history of it.
    await room.channel_layer.group_add(TYPING, room.channel_name)
    await room.send_event("welcome", {"you": room.user.id})


@GroupRoom.action("message", throttle_classes=["20/10 seconds"])
async def message(room: GroupRoom, text: Text) -> None:
    await room.broadcast("said", Said(by=room.user.id, text=text, at=datetime.now(UTC)))


@GroupRoom.action("typing", throttle_classes=["10/10 seconds"])
async def typing(room: GroupRoom) -> None:
    name = room.user.id
    await room.broadcast("typing", {"by": name}, group=TYPING, exclude_self=True, coalesce_key=name)


@GroupRoom.action("whisper", throttle_classes=["20/10 seconds"])
async def whisper(room: GroupRoom, to: Name, text: Text) -> None:
    """Goes to all windows of both, and is not kept."""
    if to not in (await room.get_presence())["members"]:
        raise ConsumerError("not_here", "They have left. Nobody has got your message.")
    whispered = Whispered(by=room.user.id, to=to, text=text, at=datetime.now(UTC))
    for name in {to, room.user.id}:
        await room.consumers.send("whispered", whispered, user=name)


@GroupRoom.action("grumble")
async def grumble(room: GroupRoom) -> None:
    raise ConsumerError("be_kind", "Grumbling is not done here. You may stay, though.")


@GroupRoom.action("misbehave")
async def misbehave(room: GroupRoom) -> None:
    raise ConsumerError("shown_out", "You have been shown out of the room.", close=True)


# -- the application -------------------------------------------------------------------------------------------------

channel_routes = [
    path("/ws/relay", RelayRoom, name="relay"),
    path("/ws/two", RoomForTwo, name="two"),
    path("/ws/group", GroupRoom, name="group"),
]


def make_app(database: str | os.PathLike[str]) -> FastAPI:
    """The app, with the group's history in this file; it is made when the app starts, in a folder that is there."""
    app = FastAPI(title="Three rooms")
    add_consumers(app, channel_routes, url="memory://", history_url=f"sqlite+aiosqlite:///{Path(database).resolve()}")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


app = make_app(os.environ.get("CHAT_DB") or "chat.db")
