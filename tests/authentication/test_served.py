"""A real server: what its log says of credentials, and how a real browser presents them."""

import asyncio
import base64
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets

HERE = Path(__file__).parent
ENCODED = base64.urlsafe_b64encode(b"s3cret/good").decode().rstrip("=")


class Served:
    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self.process: Any = None

    def url(self, path: str, scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        return self.log.read_text(errors="replace")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """The socket listens before the process starts, so that nobody has to wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "log").open("wb") as log:
        server = Served(listening.getsockname()[1], tmp_path / "log")
        server.process = subprocess.Popen(
            [sys.executable, str(HERE / "served.py"), str(listening.fileno())],
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[listening.fileno()],
            cwd=HERE.parent.parent,
        )
    try:
        # The socket listens already: this waits until somebody takes from it.
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        yield server
    finally:
        server.process.kill()
        server.process.wait(20)


async def ask(socket: Any, action: str, data: Any) -> Any:
    await socket.send(json.dumps({"action": action, "request_id": 1, "data": data}))
    return json.loads(await socket.recv())


def session_of(served: Served) -> str:
    """The cookie that a browser has after it has logged in; and the query of this request is none of its business."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", "/login?token=s3cret/good")
    response = connection.getresponse()
    assert response.status == 200
    cookie = response.headers["Set-Cookie"].partition(";")[0]
    connection.close()
    assert cookie.startswith("session=")
    return cookie


async def test_no_token_cookie_or_payload_is_logged(served: Served) -> None:
    bearer = {"additional_headers": {"Authorization": "Bearer s3cret/good"}}
    session = session_of(served)
    offers: list[tuple[str, dict[str, Any]]] = [
        ("/room", bearer),
        ("/room", {"subprotocols": ["fc.v1.json", f"bearer64.{ENCODED}"]}),
        ("/room?token=s3cret/good", {}),
        ("/room?lang=de&t%6Fken=s3cret%2Fgood", {}),
        ("/room", {"additional_headers": {"Cookie": 'token="s3cret/good"'}}),
        ("/visited", {"additional_headers": {"Cookie": session}}),
    ]
    for path, options in offers:
        async with websockets.connect(served.url(path), **options) as client:
            assert (await ask(client, "who", {"secret": "s3cret payload"}))["data"] == "ann"
            assert (await ask(client, "who", {"secret": ["s3cret payload"]}))["status"] == "error"
            await client.send("s3cret frame")
            await client.recv()
            # A session is renewed by a request of HTTP, tokens on the socket.
            refreshed = await ask(client, "authenticate", {"token": "s3cret/good/again"})
            assert refreshed["status"] == ("error" if path == "/visited" else "ok")
            assert (await ask(client, "who", {}))["data"] == "ann"
    async with websockets.connect(served.url("/late")) as client:
        assert (await ask(client, "authenticate", {"token": "s3cret/good"}))["data"]["user"] == "ann"
        assert (await ask(client, "authenticate", {"token": "s3cret/good/again"}))["data"]["user"] == "ann"
        assert (await ask(client, "authenticate", {"token": "s3cret/bad"}))["error"]["code"] == "invalid_token"
    for token, status in (("s3cret/bad", 401), ("s3cret/crash", 500)):
        for path, options in (
            ("/room", {"additional_headers": {"Authorization": f"Bearer {token}"}}),
            (f"/room?token={token}", {}),
        ):
            with pytest.raises(websockets.InvalidStatus) as caught:
                await websockets.connect(served.url(path), **options)
            assert caught.value.response.status_code == status
            if status == 401:
                assert caught.value.response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    for token in ("s3cret/crash", "s3cret" * 2000):
        async with websockets.connect(served.url("/late")) as client:
            await ask(client, "authenticate", {"token": token})
            with pytest.raises(websockets.ConnectionClosed):
                await client.recv()
    log = served.stop()
    assert "DEBUG fastapi_consumers" in log or "INFO fastapi_consumers" in log
    assert "get_user() raised LookupError, whose text holds the token" in log
    for line in (
        '"WebSocket /room?token=***" [accepted]',
        '"WebSocket /room?lang=de&t%6Fken=***" [accepted]',
        '"WebSocket /room?token=***" 401',
        '"GET /login?token=*** HTTP/1.1" 200',
        "< GET /room?token=*** HTTP/1.1",
    ):
        assert line in log
    secrets = ("s3cret", ENCODED, session.removeprefix("session="))
    told = [line for line in log.splitlines() if any(secret in line for secret in secrets)]
    # At its level DEBUG the server prints each header and each frame, at TRACE the subprotocols that a client offers.
    wire = ("DEBUG uvicorn.error < ", "DEBUG uvicorn.error > ", "TRACE uvicorn.asgi ")
    assert [line for line in told if not line.startswith(wire)] == []
    # There too no query holds a token.
    assert [line for line in told if "token=s3cret" in line and "cookie" not in line.lower()] == []


CONNECT = """([url, offer]) => new Promise(done => {
  const socket = new WebSocket(url, offer);
  socket.onopen = () => socket.send(JSON.stringify({action: "who", request_id: 1}));
  socket.onmessage = event => {
    const {data} = event;
    done([socket.protocol, data.startsWith("{") ? JSON.parse(data).data : data]);
    socket.close();
  };
  socket.onclose = event => done(["closed", event.code]);
})"""
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.mark.browser
async def test_how_a_browser_presents_a_token(served: Served, chromium: str) -> None:
    from playwright.async_api import async_playwright

    token = f"bearer64.{ENCODED}"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=120_000)
        page = await browser.new_page()
        await page.goto(served.url("/", "http"))

        async def connect(path: str, *offer: str) -> Any:
            async with asyncio.timeout(20):
                return await page.evaluate(CONNECT, [served.url(path), list(offer)])

        assert await connect("/room", "fc.v1.json", token) == ["fc.v1.json", "ann"]
        assert await connect("/room", token, "fc.v1.json") == ["fc.v1.json", "ann"]
        assert await connect("/room", "bearer", token) == ["bearer", "ann"]
        assert await connect("/raw", "bearer", token) == ["bearer", "ann"]
        # A server that chooses none of what was offered is refused by the browser, and the token is never chosen.
        assert await connect("/room", token) == ["closed", 1006]
        assert await connect("/room?token=s3cret/good") == ["", "ann"]
        assert await connect("/room") == ["closed", 1006]
        await page.goto(served.url("/cookie", "http"))
        assert await connect("/room") == ["", "ann"]
        await browser.close()
