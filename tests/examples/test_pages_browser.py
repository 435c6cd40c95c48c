"""The pages of the small examples in a real browser: what somebody who tries them does first, and sees.

The servers run in the tests' own process. Nothing waits for a time, everything for what a person would see.
"""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from examples.agent.app import make_app as make_agent
from examples.agent.model import Model
from examples.dashboard.app import make_app as make_dashboard
from examples.tasks.app import make_app as make_tasks
from tests.accessibility import obstacles

# One event loop for all of the module, so that they share a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.browser]

#: Seconds in which a page shows what it should, on a machine that has much else to do.
PATIENCE = 60

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    expect.set_options(timeout=PATIENCE * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=120_000)
        yield browser
        await browser.close()


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        task = asyncio.create_task(server.serve([listener]))
        async with asyncio.timeout(PATIENCE):
            while True:
                await asyncio.sleep(0.01)
                if server.started or task.done():
                    break
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            async with asyncio.timeout(PATIENCE):
                await task


@asynccontextmanager
async def opened(browser: Browser, url: str, screen: dict[str, Any]) -> AsyncIterator[Page]:
    """The page, which may report no error and is never wider than the screen."""
    errors: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            errors.append(message.text)

    context = await browser.new_context(**screen)
    context.set_default_timeout(PATIENCE * 1000)
    page = await context.new_page()
    page.on("console", heard)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        await page.goto(url)
        yield page
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await obstacles(page) == []
    finally:
        await context.close()
    assert errors == []


async def test_the_dashboard_shows_values_and_a_slow_line_only_the_newest(browser: Browser) -> None:
    # So slow that readings are replaced, however slow the machine is.
    async with serving(make_dashboard(interval=0.1, slow=0.3)) as url, opened(browser, url, PHONE) as page:
        await expect(page.locator("#state")).to_have_text("Live")
        for metric in ("Load of the servers", "Time of response", "Visitors", "Orders per minute"):
            card = page.get_by_role("article", name=metric)
            await expect(card.locator(".value")).to_have_text(re.compile(r"^[\d.,]+$"))
            await expect(card.locator(".curve .stroke")).to_have_attribute("d", re.compile("L"))
        await expect(page.get_by_role("meter", name="Load of the servers")).to_have_attribute(
            "aria-valuetext", re.compile(r"^[\d.]+ %$")
        )

        await page.get_by_label("Slow").check()
        await expect(page.locator("#coalesced")).to_have_text(re.compile(r"^[1-9]"))
        await expect(page.locator("#state")).to_have_text("Live")

        await page.get_by_role("button", name="Pause").tap()
        await expect(page.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "true")


async def test_two_edit_a_list_and_one_of_them_goes_away_for_a_while(browser: Browser, tmp_path: Path) -> None:
    app = make_tasks(tmp_path / "tasks.db")
    async with serving(app) as url, opened(browser, url, DESK) as ann, opened(browser, url, DESK) as bob:
        rows = "textarea"

        async def add(page: Page, text: str) -> None:
            await page.get_by_label("New task").fill(text)
            await page.get_by_role("button", name="Add").click()

        async def both_see(*texts: str) -> None:
            for page in (ann, bob):
                await expect(page.locator(rows)).to_have_count(len(texts))
                for index, text in enumerate(texts):
                    await expect(page.locator(rows).nth(index)).to_have_value(text)
                await expect(page.locator("#tasks .pending")).to_have_count(0)

        for page in (ann, bob):
            await expect(page.locator("#state")).to_have_text("Connected")
        for text in ("milk", "<b>bread</b>", "tea"):
            await add(ann, text)
        await both_see("milk", "<b>bread</b>", "tea")
        await bob.get_by_role("button", name="Move up: tea").click()
        await both_see("milk", "tea", "<b>bread</b>")

        await add(ann, "   ")
        await expect(ann.get_by_role("alert").filter(has_text="A task needs a text.")).to_be_visible()
        await ann.locator(rows).first.fill("x" * 101)
        await ann.keyboard.press("Enter")
        await expect(ann.get_by_role("alert").filter(has_text="too long")).to_be_visible()
        await both_see("milk", "tea", "<b>bread</b>")

        # What one did offline and what the other did meanwhile come together.
        await ann.get_by_role("button", name="Work offline").click()
        await add(ann, "jam")
        await ann.get_by_label("Done: milk").check()
        await expect(ann.locator("#state")).to_have_text("Offline, 2 to send")
        await expect(ann.locator("#tasks .pending")).to_have_count(2)
        await bob.get_by_role("button", name="Remove: tea").click()
        await add(bob, "salt")
        await expect(bob.locator("#tasks .pending")).to_have_count(0)
        await ann.get_by_role("button", name="Work offline").click()
        await expect(ann.locator("#news")).to_have_text(re.compile("^You are back"))
        await both_see("milk", "<b>bread</b>", "salt", "jam")
        await expect(bob.get_by_label("Done: milk")).to_be_checked()

        # Nobody asked for this one, and the pages come back by themselves.
        await app.state.consumers.disconnect(group="list.home", code=1012)
        await expect(bob.locator("#news")).to_have_text(re.compile("^You are back"))
        await add(ann, "eggs")
        await both_see("milk", "<b>bread</b>", "salt", "jam", "eggs")


class Patient(Model):
    """Gives its first word, and the others when the test says so."""

    def __init__(self) -> None:
        super().__init__(pause=0)
        self.may_go_on = asyncio.Event()

    async def answer(self, question: str) -> AsyncGenerator[str, None]:
        async with aclosing(super().answer(question)) as words:
            async for word in words:
                yield word
                await self.may_go_on.wait()


async def test_the_agent_is_stopped_and_asked_on(browser: Browser) -> None:
    model = Patient()
    app = make_agent(model)
    async with serving(app) as url, opened(browser, url, PHONE) as page:
        await expect(page.locator("#state")).to_have_text("Connected")
        await page.get_by_role("button", name="Ask", exact=True).tap()
        await expect(page.get_by_role("alert")).to_have_text("Write a question first.")

        await page.get_by_role("button", name="What happens to a slow client?").tap()
        slow = page.get_by_role("article", name="What happens to a slow client?")
        await expect(slow.locator(".answer")).to_have_text("A")
        await page.get_by_label("Question").fill("What is <b>presence</b>?")
        await page.get_by_role("button", name="Ask", exact=True).tap()
        presence = page.get_by_role("article", name="What is <b>presence</b>?")
        await expect(presence.locator(".answer")).to_have_text("Presence")
        await expect(presence.locator(".note")).to_have_text("Answering")

        await slow.get_by_role("button", name="Stop").tap()
        await expect(slow.locator(".note")).to_have_text("Stopped after 1 word")
        model.may_go_on.set()
        await expect(presence.locator(".answer")).to_have_text(model.find("presence"))
        await expect(presence.locator(".note")).to_have_text(re.compile(r"^\d+ words$"))
        await expect(presence.get_by_role("button")).to_have_count(0)
        await slow.get_by_role("button", name="Ask again").tap()
        await expect(slow.locator(".answer")).to_have_text(model.find("What happens to a slow client?"))

        # An answer that is lost with its connection can be had again.
        model.may_go_on.clear()
        await page.get_by_label("Question").fill("What is a group?")
        await page.get_by_role("button", name="Ask", exact=True).tap()
        group = page.get_by_role("article", name="What is a group?")
        await expect(group.locator(".note")).to_have_text("Answering")
        [connection] = app.state.consumers.connections
        await app.state.consumers.disconnect(channel=connection.channel_name, code=1012)
        await expect(group.locator(".note")).to_have_text("The connection was lost.")
        await expect(page.locator("#state")).to_have_text("Connected")
        model.may_go_on.set()
        await group.get_by_role("button", name="Ask again").tap()
        await expect(group.locator(".answer")).to_have_text(model.find("What is a group?"))
