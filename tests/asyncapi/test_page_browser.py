"""The page of the documentation, in a real browser: read, and used to talk to the application that it is about.

The server runs in a process of its own. Nothing waits for a time, everything for what a person would see.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from playwright.async_api import Browser, Locator, Page, Route, async_playwright, expect

from fastapi_consumers import add_consumers
from fastapi_consumers.asyncapi import AsyncAPI
from tests.accessibility import obstacles

ROOT = Path(__file__).resolve().parent.parent.parent

# One event loop for all of the module, so that they share a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.browser]

#: Seconds in which a page shows what it should, on a machine that has much else to do.
PATIENCE = 60

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SCREENS: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1440, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"},
}

# `-P`, and the root at the end of the path, so that an installed package comes before its source.
SERVE = """
import socket, sys
sys.path.append(sys.argv[1])
import uvicorn
uvicorn.Server(uvicorn.Config("tests.asyncapi.app:app")).run([socket.socket(fileno=int(sys.argv[2]))])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of the application in a process of its own."""
    log = tmp_path_factory.mktemp("server") / "log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("a") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE, str(ROOT), str(listener.fileno())],
            pass_fds=[listener.fileno()],
            cwd=ROOT,
            env=os.environ,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 2 * PATIENCE
            while "Application startup complete" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait(10)
    assert not re.search(r"ERROR|Traceback", log.read_text()), log.read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    expect.set_options(timeout=PATIENCE * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=120_000)
        yield browser
        await browser.close()


class Reader:
    """Somebody in front of the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.console = page.locator("#console")
        self.log = page.get_by_role("log")
        self.status = page.locator(".status")
        #: What the browser complained of: a file that is missing, code that the policy forbids, an error in a script.
        self.errors: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def card(self, name: str) -> Locator:
        return self.page.locator(f'.card[data-name="{name}"]')

    async def open_card(self, name: str) -> Locator:
        card = self.card(name)
        await card.locator("summary").first.click()
        await expect(card).to_have_attribute("open", "")
        return card

    async def connect(self, token: str, way: str = "bearer") -> None:
        await self.console.get_by_label("room").fill("lobby")
        await self.console.get_by_label("Authentication").select_option(way)
        await self.console.locator('input[type="password"]').fill(token)
        await self.console.get_by_role("button", name="Connect").click()

    async def call(self, action: str, **fields: str) -> Locator:
        """Fill in the form of an action, send it, and return its entry in the log."""
        await self.console.get_by_label("Action", exact=True).select_option(action)
        for name, text in fields.items():
            await (
                self.console.locator(".form .field")
                .filter(has_text=re.compile(rf"^{name}"))
                .locator("input, textarea, select")
                .fill(text)
            )
        await self.console.get_by_role("button", name="Send").click()
        return self.log.locator(".entry.sent").filter(has=self.page.get_by_text(action, exact=True)).last


@pytest.fixture(params=SCREENS)
def screen(request: pytest.FixtureRequest) -> str:
    screen: str = request.param
    return screen


@pytest_asyncio.fixture(loop_scope="module")
async def reader(browser: Browser, server: int, screen: str) -> AsyncIterator[Reader]:
    context = await browser.new_context(**SCREENS[screen])
    context.set_default_timeout(PATIENCE * 1000)
    reader = Reader(await context.new_page())
    await reader.page.goto(f"http://127.0.0.1:{server}/asyncapi")
    await expect(reader.page.get_by_role("heading", level=1)).to_have_text("Room")
    yield reader
    # Nothing is cut off, and nothing makes the page wider than the screen.
    assert await reader.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await context.close()
    assert reader.errors == []


async def test_it_shows_what_the_document_says(reader: Reader) -> None:
    page = reader.page
    await expect(page.locator("#title")).to_have_text("Tea room")
    await expect(page.locator(".address code")).to_have_text("/rooms/{room}")
    say = await reader.open_card("say")
    await expect(say).to_contain_text("Returns how many words it had.")
    await expect(say.locator(".properties > li").first).to_contain_text("What everybody will read.")
    await expect(say.locator(".errors")).to_contain_text("throttled")
    tea = page.locator(".errors .row", has_text="out_of_tea")
    await expect(tea).to_contain_text(
        "There is no tea left. (the same request may succeed later; closes, if it does, with 4410)"
    )
    await say.get_by_text("Properties").click()
    await expect(say).to_contain_text("As others see it.")
    await expect(reader.card("wave")).to_contain_text("deprecated")
    await expect(reader.card("shout")).to_contain_text("disabled")
    await expect(reader.card("said")).to_contain_text("Somebody said something.")

    # All of it without a mouse: a link of the navigation, and a card.
    link = page.get_by_role("navigation").get_by_role("link", name="Relay")
    await link.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Relay")
    await expect(page.get_by_role("heading", level=1)).to_be_focused()
    await expect(link).to_have_attribute("aria-current", "page")
    card = reader.card("receive").locator("summary").first
    await card.focus()
    await page.keyboard.press("Enter")
    await expect(reader.card("receive")).to_have_attribute("open", "")


async def test_everybody_can_use_it_and_skip_what_comes_first(reader: Reader, screen: str) -> None:
    page = reader.page
    await reader.open_card("say")
    assert await obstacles(page) == []
    await page.get_by_role("link", name="Skip to the content").press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await reader.card("say").get_by_role("button", name="Try it").click()
    await reader.connect("good-ann")
    await expect(reader.status).to_have_text("Connected")
    # Where there is no room for both, the console takes the place of the reference, and of its title.
    await expect(page.get_by_role("heading", level=1)).to_have_text("Room")
    assert await obstacles(page) == []
    await page.get_by_role("link", name="Skip to the content").press("Enter")
    await expect(page.locator("#console")).to_be_focused()


async def test_actions_are_called_from_forms_and_answers_stand_with_their_requests(reader: Reader) -> None:
    page, log = reader.page, reader.log
    say = await reader.open_card("say")
    await say.get_by_role("button", name="Try it").click()
    await reader.connect("good-ann")
    await expect(reader.status).to_have_text("Connected")
    await expect(log).to_contain_text("joined")

    entry = await reader.call("say", text="Hello there")
    await expect(entry.locator(".answer.good")).to_contain_text("2")
    event = log.locator(".entry.event").filter(has_text="said")
    await expect(event).to_contain_text('"Hello there"')
    await expect(event).to_contain_text("room.lobby")

    entry = await reader.call("say", text="")
    await expect(entry.locator(".answer.bad")).to_contain_text("invalid_data")
    entry = await reader.call("count", to="2")
    await expect(entry.locator(".answer")).to_have_count(3)
    await expect(entry.locator(".answer").last).to_contain_text("ok")
    # What is too complex for fields is a box with an example in it.
    entry = await reader.call("draw")
    await expect(entry.locator(".answer.good")).to_contain_text("circle")

    # The whole as JSON; what is no JSON is not sent.
    await reader.console.get_by_label("Action", exact=True).select_option("say")
    await reader.console.get_by_role("button", name="Edit as JSON").click()
    box = reader.console.locator(".form textarea")
    shown: dict[str, Any] = json.loads(await box.input_value())
    assert set(shown) >= {"text"}
    sent = await log.locator(".entry.sent").count()
    await box.fill("{")
    await box.press("Control+Enter")
    assert await box.evaluate("box => box.validationMessage.startsWith('This is not JSON')")
    await box.fill('{"text": "as JSON"}')
    await box.press("Control+Enter")
    await expect(log.locator(".entry.sent")).to_have_count(sent + 1)
    await expect(log.locator(".entry.event").last).to_contain_text("as JSON")

    await reader.console.get_by_role("button", name="Disconnect").click()
    await expect(reader.status).to_have_text("Not connected")
    await expect(log).to_contain_text("Closed: 1000")
    await expect(page.get_by_role("button", name="Send")).to_be_disabled()


@pytest.mark.parametrize("screen", ["desk"])
async def test_a_client_shows_who_it_is_in_each_way_that_a_page_can(reader: Reader) -> None:
    for way, token in [("bearer", "good-bé"), ("query.token", "good-b"), ("firstMessage", "good-c")]:
        await reader.connect(token, way)
        await expect(reader.status).to_have_text("Connected")
        entry = await reader.call("presence")
        await expect(entry.locator(".answer.good")).to_contain_text(token.removeprefix("good-"))
        # The log shows no secret.
        assert token not in await reader.log.inner_text()
        await reader.console.get_by_role("button", name="Disconnect").click()
        await expect(reader.status).to_have_text("Not connected")
    await reader.console.get_by_label("Authentication").select_option("cookie.token")
    await expect(reader.console).to_contain_text("The browser sends the cookie by itself")
    # Refused: with a token that is nobody's, the first message closes the socket.
    await reader.connect("bad", "firstMessage")
    await expect(reader.log).to_contain_text("Closed: 4401")


@pytest.mark.parametrize("screen", ["desk"])
async def test_the_theme_is_the_system_s_until_somebody_chooses(reader: Reader) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page = reader.page
    theirs = await page.evaluate(ground)
    await page.get_by_role("button", name="Theme: system").click()
    light = await page.evaluate(ground)
    await page.get_by_role("button", name="Theme: light").click()
    dark = await page.evaluate(ground)
    assert (theirs == light, theirs == dark) == (True, False)
    await page.reload()
    await expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert await page.evaluate(ground) == dark


STANDARD = """
globalThis.AsyncApiStandalone = {
  render: async ({ schema }, place) => { place.textContent = (await (await fetch(schema.url)).json()).info.title; },
};
"""


async def test_the_standard_component_is_handed_the_document(browser: Browser) -> None:
    """A stand-in for it: a page that is to be looked at without a network has copies of one's own too."""
    app = FastAPI(title="A tea room")
    add_consumers(app, [], asyncapi=AsyncAPI(page="react"))
    asked: list[str] = []

    async def answer(route: Route) -> None:
        url = urlsplit(route.request.url)
        if url.hostname == "test":
            found = await client.get(url.path)
            await route.fulfill(status=found.status_code, headers=dict(found.headers), body=found.content)
        else:
            asked.append(url.path)
            kind, body = ("text/javascript", STANDARD) if url.path.endswith(".js") else ("text/css", "")
            await route.fulfill(content_type=kind, body=body)

    page = await browser.new_page()
    await page.route("**/*", answer)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await page.goto("http://test/asyncapi")
        await expect(page.locator("#asyncapi")).to_have_text("A tea room")
    await page.close()
    assert len(asked) == 2
    assert all(re.search(r"@asyncapi/react-component@\d+\.\d+\.\d+/", path) for path in asked)


@pytest.mark.parametrize("screen", ["desk"])
async def test_a_channel_without_envelopes_takes_text(reader: Reader) -> None:
    await reader.page.get_by_role("navigation").get_by_role("link", name="Relay").click()
    await expect(reader.page.get_by_role("heading", level=1)).to_have_text("Relay")
    await reader.console.get_by_role("button", name="Connect").click()
    await expect(reader.status).to_have_text("Connected")
    await reader.console.get_by_label("Text").fill("<b>plain</b>")
    await reader.console.get_by_role("button", name="Send").click()
    await expect(reader.log.locator(".entry.event")).to_contain_text("<b>plain</b>")
