"""A real server in a process of its own, which must never crash nor log what nobody expected."""

import asyncio
import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.server.client import Client, connect

HERE = Path(__file__).parent
#: What uvicorn itself logs, with a traceback, for a text frame that is not UTF-8.
UVICORNS_OWN = "ERROR uvicorn.error Invalid UTF-8 sequence received from client."
#: Seconds that a server has to start, and to stop.
PATIENCE = 60.0

Expected = tuple[str, ...]


class Server:
    """One process. ``options`` are uvicorn's, ``expected`` what lines of its log may hold."""

    #: What it runs.
    script = HERE / "app.py"

    def __init__(self, log: Path, options: dict[str, Any], expected: Expected) -> None:
        self._log = log
        self._options = {"loop": "auto", "ws": "auto", "lifespan": "on", **options}
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0
        self._clients: list[Client] = []
        self.expected = expected
        self.port = 0
        #: For a server with TLS, whose certificate is its own authority.
        self.tls = ssl.create_default_context(cafile=options["ssl_certfile"]) if "ssl_certfile" in options else None

    def start(self) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(512)
            self.port = listening.getsockname()[1]
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, str(self.script), str(listening.fileno()), json.dumps(self._options)],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[listening.fileno()],
                    cwd=HERE.parent.parent,
                )
        # The socket listens already: this waits until somebody takes from it.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        if self.tls is not None:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=self.tls)
        try:
            connection.request("GET", "/state")
            assert connection.getresponse().status == 200
        except OSError:
            pytest.fail(f"the server did not start; its log:\n{self.log()}")
        finally:
            connection.close()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def connect(self, path: str, headers: dict[str, str] | None = None, **options: Any) -> Client:
        async with asyncio.timeout(PATIENCE):
            client = await connect(self.port, path, headers, **options)
        self._clients.append(client)
        return client

    async def drop_clients(self) -> None:
        """None outlives its test, whatever became of that: one that does not read keeps uvicorn from stopping."""
        while self._clients:
            await self._clients.pop().reset()

    async def http(self, method: str, path: str) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
            )
            status, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
            await writer.wait_closed()
        assert status, f"no answer; the log says:\n{self.log()}"
        return int(status.split(b" ")[1]), body

    async def state(self) -> dict[str, Any]:
        status, body = await self.http("GET", "/state")
        assert status == 200, body
        return json.loads(body)

    async def until(self, holds: Callable[[dict[str, Any]], bool], timeout: float = PATIENCE) -> dict[str, Any]:
        """The state, once this holds of it."""
        deadline = time.monotonic() + timeout
        while not holds(state := await self.state()):
            if time.monotonic() > deadline:
                pytest.fail(f"it never came to this; the state is {state}, the log:\n{self.log()}")
            await asyncio.sleep(0.02)
        return state

    async def empty(self) -> dict[str, Any]:
        """The state, once nothing is left of any connection and what was begun has been ended as often."""
        state = await self.until(lambda state: not state["connections"] and not state["topics"])
        counts = state["counts"]
        assert state["channels"] == state["watched"] == state["pumps"] == 0, state
        assert counts.get("connect", 0) == counts.get("disconnect", 0), counts
        assert counts.get("join", 0) == counts.get("leave", 0), counts
        # uvicorn's own, and the one that answers this.
        return await self.until(lambda state: state["tasks"] <= 3)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def complaints(self) -> list[str]:
        """Lines of the log that are new and that nobody expected."""
        lines = self.log().splitlines()
        new, self._read = lines[self._read :], len(lines)
        fine = ("served ", "INFO ", UVICORNS_OWN)
        return [line for line in new if not line.startswith(fine) and not any(text in line for text in self.expected)]

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(PATIENCE)

    def stop(self) -> None:
        if self._process is None:
            return
        if self.is_running:
            self.signal(signal.SIGTERM)
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            pytest.fail(f"the server did not stop; its log:\n{self.log()}")
        assert code in (0, -signal.SIGTERM), f"the server ended with {code}; its log:\n{self.log()}"


@contextmanager
def serving(log: Path, options: dict[str, Any], expected: Expected = ()) -> Iterator[Server]:
    server = Server(log, options, expected)
    try:
        server.start()
        yield server
    finally:
        server.stop()
    assert not (complaints := server.complaints()), "\n".join(complaints[:20])


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[Callable[..., Server]]:
    """``start_server(expected=(…), **options of uvicorn)``: a server of the test's own."""
    started: list[Server] = []
    with ExitStack() as stack:

        def start(expected: Expected = (), **options: Any) -> Server:
            log = tmp_path / f"{len(started)}.log"
            started.append(stack.enter_context(serving(log, options, expected)))
            return started[-1]

        yield start
        for server in started:
            await server.drop_clients()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server") / "log", {"ws_max_size": 1024 * 1024}) as server:
        yield server


@pytest.fixture
async def server(shared_server: Server) -> AsyncIterator[Server]:
    """The server that tests share. None may leave anything behind in it, or have it complain."""
    shared_server.expected = ()
    yield shared_server
    await shared_server.drop_clients()
    await shared_server.empty()
    assert not (complaints := shared_server.complaints()), "\n".join(complaints[:20])
