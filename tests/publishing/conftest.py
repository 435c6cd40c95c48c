"""An app behind a real broker, and programs that publish to it."""

import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_consumers import GroupConsumer, add_consumers, event, path
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from tests.transports.conftest import Broker, broker, make_broker, own_broker

__all__ = ["broker", "make_broker", "own_broker"]

ROOT = Path(__file__).resolve().parent.parent.parent


class HeaderAuthentication(BaseAuthentication):
    async def authenticate(self, connection: Any) -> tuple[Any, Any] | None:
        name = connection.headers.get("x-user")
        return (name, None) if name else None


class Room(GroupConsumer):
    groups = ["room.{room}"]
    authentication_classes = [HeaderAuthentication]

    async def connect(self) -> None:
        await self.accept()
        await self.send_event("channel", self.channel_name)

    @event("room.call")
    async def called(self, message: dict[str, Any]) -> None:
        await self.send_event("called", message["number"])


@pytest.fixture
def url(broker: Broker) -> str:
    """Of one app, on the server that all tests share. The connections of publishers bear its name."""
    name = uuid.uuid4().hex
    return f"{broker.url}?prefix={name}:&client_name={name}"


@pytest.fixture
def make_app() -> Callable[..., FastAPI]:
    def make(**options: Any) -> FastAPI:
        app = FastAPI()
        add_consumers(app, [path("/{room}", Room)], **options)
        return app

    return make


@pytest.fixture
async def app(make_app: Callable[..., FastAPI], url: str) -> AsyncIterator[FastAPI]:
    app = make_app(url=url.partition("&")[0])  # Without the name, so that its connections are not counted.
    async with lifespan(app):
        yield app


@pytest.fixture
async def ann(app: FastAPI) -> AsyncIterator[WebsocketCommunicator]:
    """A client in the group ``room.a``."""
    async with WebsocketCommunicator(app, "/a", headers={"x-user": "ann"}) as client:
        client.channel = (await client.receive_json_from())["data"]
        yield client


@pytest.fixture
def connections(broker: Broker, url: str) -> Callable[[], int]:
    """How many connections publishers have."""
    name = url.rpartition("=")[2]
    return lambda: str(broker.admin("CLIENT", "LIST")).count(f"name={name}")


@pytest.fixture
def run(url: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program to its end, in a process of its own, in which a warning is an error."""

    def run(*arguments: str, input: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return subprocess.run(
            [sys.executable, "-W", "error", *arguments], cwd=tmp_path, input=input, text=True,
            capture_output=True, timeout=40, check=False,
            env={**os.environ, "PYTHONPATH": paths, "URL": url, **environment},
        )  # fmt: skip

    return run
