"""An application that has a bit of everything that documentation is about. Tests of the page serve it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header
from fastapi.security import APIKeyQuery, OAuth2PasswordBearer
from pydantic import BaseModel, ConfigDict, Field

from fastapi_consumers import (
    ConsumerError,
    GroupConsumer,
    JSONConsumer,
    PermissionDenied,
    RelayConsumer,
    action,
    add_consumers,
    event_model,
    path,
)
from fastapi_consumers.asyncapi import AsyncAPI
from fastapi_consumers.authentication import (
    APIKeyAuthentication,
    DependsAuthentication,
    FirstMessageAuthentication,
    TokenAuthentication,
)
from fastapi_consumers.history import History
from fastapi_consumers.permissions import IsAuthenticated
from fastapi_consumers.presence import Presence
from fastapi_consumers.serializers import FlatRequest, ResponseSerializer


class User(BaseModel):
    id: str


class Tokens(TokenAuthentication):
    async def get_user(self, token: str, connection: Any) -> User | None:
        return User(id=token.removeprefix("good-")) if token.startswith("good-") else None


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Author(BaseModel):
    id: int
    name: str = Field(description="As others see it.")


@event_model("said")
class Said(BaseModel):
    """Somebody said something.

    Its author hears it too.
    """

    text: str
    by: Author
    at: datetime


class Say(BaseModel):
    """What to say, and how."""

    text: Annotated[str, Field(min_length=1, max_length=100, description="What everybody will read.")]
    colour: Colour = Colour.RED
    important: bool = False
    reply_to: int | None = None
    mentions: list[Author] = []


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    side: float


class Node(BaseModel):
    """A tree, which holds itself."""

    name: str
    children: list["Node"] = []


class OutOfTea(ConsumerError):
    default_code = "out_of_tea"
    default_message = "There is no tea left."
    default_close_code = 4410
    retryable = True


class NotYours(PermissionDenied):
    default_message = "This is somebody else's cup."


class Room(GroupConsumer):
    """A room where everybody hears everybody.

    What was said is kept for a day:

    - come back with ``recover``,
    - or ask for the ``history``.
    """

    groups = ["room.{room}"]
    events = [Said]
    authentication_classes = [Tokens, FirstMessageAuthentication(Tokens())]
    permission_classes = [IsAuthenticated]
    throttle_classes = ["1000/second"]
    history = History(size=1000, ttl=timedelta(days=1))
    presence = Presence(key=lambda room: room.user.id)

    @action
    async def say(self, data: Say) -> int:
        """Say something to everybody in the ``room``.

        Returns how many words it had.
        """
        by = {"id": 1, "name": self.user.id}
        await self.broadcast("said", {"text": data.text, "by": by, "at": datetime.now(UTC)})
        return len(data.text.split())

    @action
    async def count(self, to: Annotated[int, Field(ge=1, le=10)] = 3, step: int = 1) -> AsyncIterator[int]:
        """Count up to a number."""
        for number in range(0, to, step):
            yield number + 1

    @action(deprecated=True)
    async def wave(self) -> None:
        """Wave to everybody."""

    @action(enabled=False)
    async def shout(self, text: str) -> None: ...

    @action("draw", concurrent=True, timeout=5, throttle_classes=["1000/minute"])
    async def draw_it(
        self, shape: Annotated[Circle | Square, Field(discriminator="kind")], at: tuple[int, int]
    ) -> Node:
        return Node(name=shape.kind, children=[Node(name=str(place)) for place in at])

    @action(errors=[OutOfTea, NotYours])
    async def fail(self, agent: Annotated[str, Header(alias="user-agent")] = "") -> None:
        raise OutOfTea


class Reply(ResponseSerializer):
    of: str | None = Field(alias="action")
    request_id: int | str | None
    status: str
    data: Any = None
    error: dict[str, Any] | None = None


class Request(FlatRequest):
    model_config = ConfigDict(extra="allow", populate_by_name=True)

    action: str = Field(alias="do")


class Odd(JSONConsumer):
    """Envelopes of its own, and users that FastAPI's dependencies find."""

    request_serializer_class = Request
    response_serializer_class = Reply
    events = {"price": float, "raw": object}

    @action
    async def add(self, x: int, y: int = 2) -> int:
        return x + y


class Relay(RelayConsumer):
    """Text goes to everybody exactly as it was sent."""

    groups = ["relay"]


class Hidden(JSONConsumer):
    """Not in the documentation."""


async def get_user(
    token: Annotated[str, Depends(OAuth2PasswordBearer("/token", scopes={"chat": "Talk."}, auto_error=False))],
    key: Annotated[str, Depends(APIKeyQuery(name="key", auto_error=False))],
) -> User | None:
    return None


class Known(Odd):
    authentication_classes = [APIKeyAuthentication({"billing": "k" * 20}), DependsAuthentication(get_user)]


app = FastAPI(
    title="Tea room",
    version="1.4.2",
    description="Chat, and more, over WebSockets.",
    contact={"name": "Ann", "url": "https://example.com/ann", "email": "ann@example.com"},
    license_info={"name": "MIT", "identifier": "MIT"},
    terms_of_service="https://example.com/terms",
)
add_consumers(
    app,
    [
        path("/rooms/{room}", Room, name="room", tags=["chat"]),
        path("/odd/{number:int}", Odd, name="odd"),
        path("/known", Known, name="odd"),
        path("/relay", Relay),
        path("/hidden", Hidden, include_in_schema=False),
    ],
    query_token_key="token",
    cookie_token_key="token",
    asyncapi=AsyncAPI(tags=[{"name": "chat", "description": "Talking."}]),
)
