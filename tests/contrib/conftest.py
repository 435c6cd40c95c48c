"""A real uvicorn in the test's own event loop, so that the test can look at both sides."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn

Serve = Callable[[Any], Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """``await serve(app)`` is the port of loopback that the app is served at."""
    started: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []

    async def start(app: Any) -> int:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws_per_message_deflate=False))
        # Its own signal handlers would be the test's too.
        task = asyncio.create_task(server._serve([listening]))
        started.append((server, task))
        async with asyncio.timeout(30):
            while not server.started and not task.done():  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.01)
        port: int = listening.getsockname()[1]
        return port

    yield start
    for server, task in started:
        server.should_exit = True
        async with asyncio.timeout(30):
            await task
