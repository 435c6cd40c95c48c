"""An application with an admin router, in memory, and the Valkey servers of the transports' tests."""

from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from fastapi_consumers import GroupConsumer, NotAuthenticated, PermissionDenied, action, add_consumers, path
from fastapi_consumers.admin import admin_router
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.history import History
from fastapi_consumers.permissions import BasePermission
from fastapi_consumers.presence import Presence
from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from tests.transports.conftest import broker, make_broker, own_broker

__all__ = ["broker", "make_broker", "own_broker"]

KEY = {"x-key": "open"}


class User:
    def __init__(self, id: str) -> None:
        self.id = id


class ByName(BaseAuthentication):
    async def authenticate(self, connection: Any) -> Any:
        name = connection.websocket.query_params.get("name")
        return (User(name), None) if name else None


class Secretive(BasePermission):
    """What an author of permissions may have done."""

    def __init__(self) -> None:
        self.key = "hush"

    def __repr__(self) -> str:
        return f"Secretive({self.key})"

    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return True


class Room(GroupConsumer):
    groups = ["room.{room}"]
    authentication_classes = [ByName]
    permission_classes = [Secretive]
    presence = Presence(key=lambda consumer: consumer.user.id)

    @action(throttle_classes=["1/hour"])
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)

    @action("old", deprecated=True, timeout=5)
    async def older(self) -> None: ...


class Log(GroupConsumer):
    groups = ["log.{name}"]
    history = History(size=10)


async def require_key(connection: HTTPConnection) -> None:
    key = connection.headers.get("x-key") or connection.query_params.get("key")
    if key is None:
        raise NotAuthenticated
    if key != "open":
        raise PermissionDenied


def make_app(**options: Any) -> FastAPI:
    app = FastAPI()
    add_consumers(app, [path("/room/{room}", Room, name="room"), path("/log/{name}", Log)], **options)
    app.include_router(admin_router(dependencies=[Depends(require_key)]))
    return app


class House:
    """A served application: sockets, and a client of its admin API."""

    def __init__(self, app: FastAPI, enter: Any) -> None:
        self.app, self._enter = app, enter
        self.consumers = app.state.consumers
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")

    async def enter(self, where: str, **options: Any) -> WebsocketCommunicator:
        entered: WebsocketCommunicator = await self._enter(self.app, where, **options)
        return entered

    async def ask(self, method: str, where: str, status: int = 200, **options: Any) -> Any:
        answer = await self.client.request(method, f"/admin{where}", headers=KEY, **options)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def get(self, where: str, status: int = 200, **params: Any) -> Any:
        return await self.ask("GET", where, status, params=params)


@pytest.fixture
async def house(communicator):
    app = make_app()
    house = House(app, communicator)
    async with lifespan(app), house.client:
        yield house
