"""A user's application: checked by ``mypy --strict``, and run. What must not pass is marked ``# type: ignore[…]``.

With ``warn_unused_ignores``, which is part of strict, such a line fails too if it passes by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, assert_type

from broadcaster import Broadcast
from fastapi import APIRouter, Depends, FastAPI, Header, WebSocket
from pydantic import BaseModel, Field

from fastapi_consumers import (
    Consumer,
    ConsumerError,
    Consumers,
    CursorPagination,
    GroupConsumer,
    JSONConsumer,
    LimitOffsetPagination,
    NotAuthenticated,
    PageNumberPagination,
    PermissionDenied,
    PersonConsumer,
    Position,
    RelayConsumer,
    Throttled,
    action,
    add_consumers,
    add_routes,
    cron,
    event,
    every,
    get_consumers,
    path,
)
from fastapi_consumers.authentication import (
    APIKeyAuthentication,
    BaseAuthentication,
    Credential,
    DependsAuthentication,
    FirstMessageAuthentication,
    JWTAuthentication,
    SessionAuthentication,
    TokenAuthentication,
)
from fastapi_consumers.connection import Connection
from fastapi_consumers.pagination import CountedPage, CursorParams, Page, PageRequest
from fastapi_consumers.permissions import AllowAny, BasePermission, Delivery, IsAuthenticated
from fastapi_consumers.schedules import ScheduledRun, ScheduleStatus
from fastapi_consumers.serializers import FlatRequest, ResponseSerializer
from fastapi_consumers.testing import WebsocketCommunicator
from fastapi_consumers.throttling import AddressRateThrottle, UserRateThrottle


class Session:
    async def commit(self) -> None: ...


async def get_session() -> AsyncIterator[Session]:
    yield Session()


async def audit(websocket: WebSocket) -> None: ...


@dataclass
class User:
    id: int
    name: str


class BearerTokenAuthentication(BaseAuthentication):
    async def authenticate(self, connection: Connection) -> tuple[User, str] | None:
        token = connection.headers.get("authorization", "").removeprefix("Bearer ")
        return (User(1, "ann"), token) if token else None


class Tokens(TokenAuthentication):
    max_token_size = 256
    sources = ("header", "query")

    async def get_user(self, token: str, connection: Connection) -> tuple[User, Credential] | None:
        return (User(1, "ann"), Credential(expires_at=2e9, token_id=token[:8])) if token else None


class Plain(SessionAuthentication):
    def get_user(self, session: MutableMapping[str, Any], connection: Connection) -> User | None:
        return User(1, session["name"]) if "name" in session else None


class Signed(JWTAuthentication):
    async def get_user_for(self, claims: Mapping[str, Any], connection: Connection) -> User:
        return User(int(claims["sub"]), claims["name"])


async def key_of(header: Mapping[str, Any]) -> str | None:
    return {"one": "x" * 32}.get(header["kid"])


async def current_user(authorization: Annotated[str | None, Header()] = None) -> User | None:
    return User(1, authorization) if authorization else None


class Everybody(GroupConsumer):
    authentication_classes = [
        Tokens,
        Plain,
        Signed(key_of, algorithms=["HS256"], audience="chat", leeway=timedelta(seconds=5)),
        DependsAuthentication(current_user),
        APIKeyAuthentication({"billing": "secret"}, header="X-Billing"),
        FirstMessageAuthentication(Tokens()),
    ]
    authentication_timeout = 5.0
    authentication_grace = 0.0

    @action
    async def log_out(self) -> None:
        await self.consumers.revoke(self.auth.token_id)


class IsBanned(BasePermission):
    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return False


class IsOwner(BasePermission):
    message = "Only the owner may do this."

    async def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return bool(consumer.user.id == 1)


class IsInvited(BasePermission):
    async def has_group_permission(self, consumer: Any, group: str) -> bool:
        return group in consumer.user.rooms

    def has_object_permission(self, consumer: Any, obj: Any) -> bool:
        return bool(obj.owner == consumer.user.id)

    def has_delivery_permission(self, consumer: Any, delivery: Delivery) -> bool:
        return delivery.event != "whispered" or consumer.user.id in delivery.data["to"]


class Club(GroupConsumer):
    permission_classes = [IsInvited & ~IsBanned]

    @action
    async def enter(self, room: str) -> bool:
        await self.check_group_permissions(room)
        await self.check_object_permissions(self)
        return await self.join(room)


class Busy(ConsumerError):
    default_code = "busy"
    retryable = True


def errors_take_the_same_keywords() -> list[ConsumerError]:
    return [
        Busy("Wait.", retryable=False),
        Throttled(1.5, "Slow down.", close=True, details=[1]),
        NotAuthenticated("Who?", challenge="Bearer", code="who"),
    ]


class Strict(UserRateThrottle):
    rate = "5/second"

    async def on_throttled(self, consumer: Any, action: Any, retry_after: float) -> None:
        raise Throttled(retry_after, "Slow down.", close=True)


class Say(BaseModel):
    text: Annotated[str, Field(max_length=500)]


class Said(BaseModel):
    id: int
    text: str


class DatabaseError(Exception):
    pass


async def on_database_error(consumer: Consumer, error: DatabaseError) -> ConsumerError | None:
    return ConsumerError("try_later", str(error), close=True, close_code=4500, details=[])


class Base(GroupConsumer, abstract=True):
    authentication_classes = [BearerTokenAuthentication]
    permission_classes = [AllowAny | (IsAuthenticated & ~IsBanned)]
    throttle_classes = ["20/second; 600/minute", Strict, AddressRateThrottle("5/second")]
    connection_throttle_classes = ["30/minute"]
    exception_handlers = {DatabaseError: on_database_error}
    allowed_origins = ["https://*.example.com"]
    dependencies = [Depends(audit)]
    max_connections = 200
    max_message_size = 64 * 1024
    write_timeout = 5.0


class Room(Base):
    groups = ["room.{room}"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.count = 0

    def get_groups(self) -> Sequence[str]:
        return [*super().get_groups(), "everybody"]

    async def connect(self) -> None:
        await self.accept(headers={"x-room": str(self.path_params["room"])})

    async def disconnect(self, code: int) -> None:
        await super().disconnect(code)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def on_join(self, group: str) -> None:
        await self.broadcast("joined", {"user": self.user.name}, group=group, exclude_self=True)

    async def on_leave(self, group: str) -> None: ...

    @action
    async def say(self, data: Say, session: Annotated[Session, Depends(get_session)]) -> Said:
        await session.commit()
        assert_type(await self.broadcast("said", data, group=self.group_names[0]), Position | None)
        return Said(id=self.count, text=data.text)

    @action("message", permission_classes=[IsOwner], throttle_classes=["2/minute"], concurrent=True, timeout=5)
    async def post(self, text: str, user_agent: Annotated[str | None, Header()] = None) -> None:
        await self.send_event("echo", text)

    @action(deprecated=True, enabled=False, timeout=timedelta(seconds=5), errors=[PermissionDenied, Throttled])
    def blocking(self, x: int, y: Annotated[int, Field(ge=0)] = 0) -> int:
        return x + y

    @action
    async def tail(self, lines: int, websocket: WebSocket) -> AsyncIterator[Said]:
        for number in range(lines):
            yield Said(id=number, text=websocket.url.path)

    @action
    async def move(self, room: str) -> bool:
        assert_type(await self.get_connection_count(), int)
        await self.leave(room)
        if self.count > 3:
            raise PermissionDenied("You have moved enough.", close=True)
        return await self.join(room)

    @event("chat.message")
    async def chat_message(self, message: dict[str, Any]) -> None:
        await self.send_json(message, close=True)


# A decorated method keeps its type.
async def keeps(room: Room) -> None:
    assert_type(await room.say(Say(text="x"), Session()), Said)
    assert_type(room.blocking(1), int)
    await room.post(1)  # type: ignore[arg-type]


class Found(CursorPagination.Params):
    author: str | None = None


class Feed(CursorPagination):
    page_size = 5
    ordering = ["-created"]
    cursor_param = "after"


class Archive(JSONConsumer):
    pagination_class = CursorPagination(page_size=50, max_page_size=200)

    @action
    async def search(self, data: Found) -> Page[Said]:
        assert_type(data.cursor, str | None)
        return await self.paginate([Said(id=1, text="x")], data)

    @action(pagination_class=PageNumberPagination)
    async def numbered(self, data: PageNumberPagination.Params) -> CountedPage[Said]:
        return await self.paginate((), data)

    @action(pagination_class=LimitOffsetPagination(page_size=5))
    async def offset(self, data: LimitOffsetPagination.Params) -> CountedPage[Said]:
        assert_type(data.offset, int)
        return await self.paginate((), data)

    @action(pagination_class=Feed)
    async def feed(self, data: Feed.Params) -> Page[Said]:
        return await self.paginate((), data)

    @action
    async def whichever(self, data: PageRequest) -> Page[Said]:
        return await self.paginate((), data)

    @action
    async def wrong(self, data: CursorParams) -> CountedPage[Said]:
        return await self.paginate((), data)  # type: ignore[return-value]


class Flat(JSONConsumer):
    class response_serializer_class(ResponseSerializer):
        action: str | None
        status: str

    request_serializer_class = FlatRequest

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        return str(await super().encode_json(content))

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        return await super().decode_json(text_data)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await super().receive_json(content)


class Echo(Consumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_add("echo", self.channel_name)
        await self.channel_layer.group_send("echo", {"type": "chat.message", "text": text_data})
        await self.send(text_data=text_data, bytes_data=bytes_data, close=4000)


class Call(PersonConsumer):
    groups = ["call.{id}"]


class Subscribed(GroupConsumer):
    async def get_groups(self) -> list[str]:
        for group in super().get_groups():
            assert_type(group, str | Any)
        return [*super().get_groups(), "news"]


class Subscriber(Subscribed):
    async def get_groups(self) -> list[str]:
        assert_type(await super().get_groups(), list[str])
        return ["all", *await super().get_groups()]


class Inherited(GroupConsumer):
    def get_groups(self) -> Sequence[str]:
        return super().get_groups()


class Miscounted(Subscribed):
    async def get_groups(self) -> list[int]:  # type: ignore[override]
        return [1]


class Relay(RelayConsumer):
    groups = ["relay"]


@Room.action("ping", permission_classes=[IsAuthenticated])
async def ping(consumer: Room, times: int = 1) -> str:
    return "pong" * times


@Room.on_event("join")
async def greet(consumer: Room, group: str) -> None:
    await consumer.send_event("welcome", group)


def farewell(consumer: Room, group: str) -> None: ...


Room.add_event_handler("leave", farewell)


class Scheduled(GroupConsumer):
    groups = ["scheduled"]

    @every("30s", timeout=timedelta(seconds=5))
    @classmethod
    async def tick(cls, group: str, consumers: Consumers, run: ScheduledRun) -> None:
        assert_type(run.group, str | None)

    @classmethod
    @cron("0 9 * * 1-5", tz="Europe/Berlin")
    async def morning(cls, consumers: Consumers) -> None: ...


async def use_schedules() -> None:
    await Scheduled.tick(5, consumers)  # type: ignore[arg-type, call-arg]
    await Scheduled.morning(consumers)
    assert_type(await consumers.schedules.list(), list[ScheduleStatus])
    made = await consumers.schedules.create("news", every(60), group="everybody", event="news", data={"n": 1})
    assert_type(made.next_run, datetime | None)


async def answer() -> str:
    return await ping(Room(), 2)


channel_routes = [
    path("/room/{room}", Room, name="room"),
    path("/echo", Echo.as_asgi(), dependencies=[Depends(audit)]),
    path("/call/{id:int}", Call),
    path("/relay", Relay),
]

app = FastAPI()
consumers = add_consumers(
    app,
    channel_routes,
    url="memory://",
    authentication_classes=[BearerTokenAuthentication],
    permission_classes=[IsAuthenticated],
    throttle_classes=["20/second"],
    pagination_class=CursorPagination,
    exception_handlers={DatabaseError: on_database_error},
    allowed_origins=["https://example.com"],
    max_message_size=4096,
)
assert_type(consumers, Consumers)

router = APIRouter(prefix="/api")
add_routes(router, [path("/flat", Flat)])
app.include_router(router)


@consumers.schedule(every("5m", name="clean-up"))
async def clean_up() -> None: ...


other = FastAPI()
add_consumers(other, broadcast=Broadcast("memory://"))


@app.websocket("/own/{room}")
async def own(websocket: WebSocket, room: str) -> None:
    await Room.serve(websocket, groups=[f"own.{room}"])


@app.post("/announce")
async def announce(text: str, consumers: Annotated[Consumers, Depends(get_consumers)]) -> None:
    await consumers.broadcast("everybody", "announced", {"text": text})
    await consumers.send("told", text, user=User(1, "ann"))
    await consumers.disconnect(group="everybody", code=4000, reason="over")
    await consumers.layer.send("channel", {"type": "chat.message"})


wrong = [lambda: path("/", "Room")]  # type: ignore[arg-type]
channel_routes += [Room]  # type: ignore[list-item]


async def test_everyone_in_the_room_hears() -> None:
    async with WebsocketCommunicator(app, "/room/lobby", headers={"Authorization": "Bearer x"}) as client:
        await client.send_json_to({"action": "say", "request_id": 1, "data": {"text": "hi"}})
        await client.assert_event("welcome", "room.lobby")
        await client.assert_event("welcome", "everybody")
        await client.assert_event("said", {"text": "hi"}, "room.lobby")
        assert await client.call("ping", {"times": 2}) == "pongpong"
