"""An app behind a real broker, and programs that publish to it."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_consumers import GroupConsumer, add_consumers, event, path
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.cli import cli
from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from tests.conftest import PATIENCE
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
            capture_output=True, timeout=120, check=False,
            env={**os.environ, "PYTHONPATH": paths, "URL": url, **environment},
        )  # fmt: skip

    return run


@pytest.fixture
def command(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Awaitable[subprocess.CompletedProcess[str]]]:
    """Runs ``fastapi-consumers`` to its end, in a thread of this process: one of its own takes a second to start."""

    def main(arguments: tuple[str, ...]) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments], prog_name="fastapi-consumers")
        assert isinstance(ended.value.code, int)
        return ended.value.code

    async def command(*arguments: str, input: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "standard input"
        file.write_text(input, encoding="utf-8")
        if "--timeout" not in arguments:
            arguments = (*arguments, "--timeout", str(PATIENCE))
        capsys.readouterr()
        with file.open() as stdin, monkeypatch.context() as patch:
            patch.setattr("sys.stdin", stdin)
            for name, value in {"FASTAPI_CONSUMERS_URL": url, **environment}.items():
                patch.setenv(name, value)
            code = await asyncio.to_thread(main, arguments)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return command
