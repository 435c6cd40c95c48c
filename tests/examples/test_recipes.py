"""The clients of the page of recipes: its JavaScript in a browser, its Python against a server."""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.async_api import async_playwright, expect

from tests.examples.serving import FLAGS, PATIENCE
from tests.test_docs import FENCE, modules_of

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
PAGE = DOCS / "authentication-recipes.md"


@pytest.fixture
def recipes() -> Iterator[list[ModuleType]]:
    """The applications of the page, in its order."""
    made = []
    for number, found in enumerate(modules_of(PAGE)):
        module = ModuleType(f"recipe_{number}")
        sys.modules[module.__name__] = module
        exec(compile(found.source, str(PAGE), "exec"), module.__dict__)
        made.append(module)
    yield made
    for module in made:
        del sys.modules[module.__name__]


def fence(page: Path, info: str, holds: str) -> str:
    [body] = [
        found["body"]
        for found in FENCE.finditer(page.read_text("utf-8"))
        if found["info"] == info and holds in found["body"]
    ]
    return body


async def until(holds: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[int]:
    """The app under uvicorn in this event loop; its port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5))
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or task.done())
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@pytest.mark.once
async def test_the_client_of_a_mobile_app_refreshes_comes_back_and_ends_with_its_login(
    recipes: list[ModuleType],
) -> None:
    module, client = recipes[1], {}
    exec(fence(PAGE, "python", "async def stay("), client)
    fetched: list[str] = []
    heard: list[Any] = []

    async def fetch_token() -> str:
        if "phone-1" not in module.INSTALLATIONS:
            raise client["LoggedOut"]
        fetched.append(module.token(600))
        return fetched[-1]

    def lifetimes() -> list[float]:
        return [each.lifetime.expires_at for each in module.consumers.connections]

    async with serving(module.app) as port:
        # A second after it was told how long the token is good for, it brings the next one.
        staying = asyncio.create_task(
            client["stay"](f"ws://127.0.0.1:{port}/room/a", fetch_token, lambda event: heard.append(event["data"]), 599)
        )
        await until(lambda: len(fetched) > 2)
        assert not staying.done()
        ends = [module.jwt.decode(each, options={"verify_signature": False})["exp"] for each in fetched]
        await until(lambda: lifetimes() and lifetimes()[0] > ends[0])
        await module.consumers.broadcast("room.a", "said", "one")
        await until(lambda: heard == ["one"])

        await module.consumers.close_sockets()
        await module.consumers.broadcast("room.a", "said", "two")
        await until(lambda: heard == ["one", "two"])

        await until(lambda: len(list(module.consumers.connections)) == 1)
        del module.INSTALLATIONS["phone-1"]
        await module.consumers.revoke("phone-1")
        with pytest.raises(client["LoggedOut"]):
            async with asyncio.timeout(PATIENCE):
                await staying
        assert heard == ["one", "two"]


@pytest.mark.browser
async def test_the_page_refreshes_by_itself_and_leads_to_the_login(chromium: str, recipes: list[ModuleType]) -> None:
    module = recipes[0]
    app: FastAPI = module.app
    script = fence(DOCS / "protocol.md", "js", "class Client") + fence(PAGE, "js", "async function renew")

    @app.get("/desk-page")
    async def desk() -> HTMLResponse:
        return HTMLResponse(
            f"<title>Desk</title><script type=module>{script}\nwindow.who = () => client.call('who');</script>"
        )

    @app.get("/login")
    async def login() -> HTMLResponse:
        return HTMLResponse("<title>Log in</title>")

    def lifetimes() -> list[float]:
        return [each.lifetime.expires_at for each in module.consumers.connections if each.is_accepted]

    async with serving(app) as port, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=120_000)
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        await page.clock.install()
        # "localhost" is a secure place for browsers, without TLS.
        await page.goto(f"http://localhost:{port}/desk-page")
        await page.wait_for_url("**/login")  # nobody has logged in

        credentials = "{method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(account)}"
        status = f"async (account) => (await fetch('/login', {credentials})).status"
        assert await page.evaluate(status, {"name": "ann", "password": "milk"}) == 403
        assert await page.evaluate(status, {"name": "ann", "password": "tea"}) == 204
        assert await page.evaluate("document.cookie") == ""
        await page.goto(f"http://localhost:{port}/desk-page")
        await until(lifetimes)
        assert await page.evaluate("who()") == "ann"
        assert await page.evaluate("document.cookie") == ""

        # Four fifths of the time are over.
        before = lifetimes()[0]
        await page.clock.fast_forward("09:00")
        await until(lambda: lifetimes()[0] > before)

        # It slept for so long that the socket has ended: it comes back by itself.
        [connection] = module.consumers.connections
        module.consumers.expiries.clock = lambda: time.time() + 640
        module.consumers.expiries.look()
        await until(lambda: connection.closed_at is not None)
        module.consumers.expiries.clock = time.time
        async with asyncio.timeout(PATIENCE):
            while not lifetimes():
                await page.clock.run_for(1000)
        assert await page.evaluate("who()") == "ann"

        # From here, or from another browser.
        assert (
            await page.evaluate("fetch('/logout?everywhere=true', {method: 'POST'}).then(({ status }) => status)")
            == 204
        )
        await until(lambda: not list(module.consumers.connections))
        async with asyncio.timeout(PATIENCE):
            while not re.search("/login$", page.url):
                await page.clock.run_for(1000)
        await browser.close()
