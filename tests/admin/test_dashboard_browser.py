"""The dashboard in a real browser: looked at, typed into, and checked by axe-core.

The server runs in a process of its own. Nothing waits for a time, everything for what a person would see.
"""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.accessibility import obstacles
from tests.admin.test_processes import AdminServer

# One event loop for all of the module, so that they share a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.browser]

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SCREENS: dict[str, Any] = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}
SECTIONS = ("overview", "connections", "groups", "console/room.a", "schedules", "routes", "system")
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADMIN", "10")
        patch.delenv("BROKER_URL", raising=False)
        server = AdminServer(tmp_path_factory.mktemp("dashboard") / "log", {}, ())
        server.start()
    try:
        yield server
    finally:
        server.stop()
    assert server.complaints() == []


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=120_000)
        yield browser
        await browser.close()


class Visit:
    """A page that is open, and what it complained of."""

    def __init__(self, page: Page, server: AdminServer) -> None:
        self.page, self._server = page, server
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    async def go(self, section: str) -> None:
        where = f"http://127.0.0.1:{self._server.port}/admin#/{section}"
        await self.page.goto(where)
        await expect(self.page.locator("#state")).to_have_text("Live")

    async def show(self, section: str) -> None:
        await self.page.evaluate("(hash) => { location.hash = hash; }", f"#/{section}")
        name = section.partition("/")[0]
        await expect(self.page.locator(f"nav.sections a[href='#/{name}']")).to_have_attribute("aria-current", "page")

    async def look(self, what: str) -> None:
        """It does not scroll sideways, and axe-core finds nothing."""
        wide = await self.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, what
        assert await obstacles(self.page) == [], what


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser: Browser, server: AdminServer) -> AsyncIterator[Any]:
    contexts = []

    async def visit(section: str = "overview", **options: Any) -> Visit:
        context = await browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(60_000)
        address = {"name": "key", "value": "open", "url": f"http://127.0.0.1:{server.port}"}
        await context.add_cookies([address])
        visit = Visit(await context.new_page(), server)
        visits.append(visit)
        await visit.go(section)
        return visit

    visits: list[Visit] = []
    yield visit
    for context in contexts:
        await context.close()
    await server.drop_clients()
    assert [each.complaints for each in visits if each.complaints] == []


@pytest.mark.parametrize(("screen", "scheme"), [("desk", "light"), ("phone", "dark")])
async def test_every_section_can_be_read_by_everybody(
    visit: Any, server: AdminServer, screen: str, scheme: str, tmp_path: Path
) -> None:
    for room in ("a", "a", "b"):
        await server.connect(f"/room/{room}")
    await server.ask("POST", "/events", body={"group": "room.a", "event": "news", "data": "x" * 300})
    shown = await visit(color_scheme=scheme, reduced_motion="reduce", **SCREENS[screen])
    for section in SECTIONS:
        await shown.show(section)
        if section == "overview":
            await expect(shown.page.locator("#largest li")).to_have_count(2)
        elif section == "connections":
            await expect(shown.page.locator("#connections-list tbody tr").nth(3)).to_be_visible()
        elif section.startswith("console"):
            await expect(shown.page.locator("#log-facts")).to_contain_text("2 connections")
            await shown.page.get_by_role("button", name="Send to all").click()
            await expect(shown.page.locator("#log li").first).to_contain_text("Hello")
        await shown.page.screenshot(path=tmp_path / f"{section.partition('/')[0]}.png")
        await shown.look(section)


async def test_connections_are_found_and_disconnected_with_the_keyboard_alone(visit: Any, server: AdminServer) -> None:
    mine = await server.connect("/room/quiet")
    await server.connect("/room/loud")
    shown = await visit()
    page, keyboard = shown.page, shown.page.keyboard
    await keyboard.press("Tab")
    await expect(page.locator("#skip")).to_be_focused()
    for _ in range(3):  # The colours, and the first of the sections.
        await keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Connections", exact=True)).to_be_focused()
    await keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await page.get_by_role("searchbox", name="Search").focus()
    await keyboard.type("quiet")
    rows = page.locator("#connections-list tbody tr")
    await expect(rows).to_have_count(1)
    await page.get_by_role("button", name=re.compile("^Disconnect the anonymous")).focus()
    await keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    await keyboard.press("Escape")
    await expect(page.locator("dialog")).to_be_hidden()
    await expect(rows).to_have_count(1)
    await keyboard.press("Enter")
    await keyboard.press("Tab")
    await keyboard.press("Enter")
    assert (await mine.closed()).code == 4409
    await expect(rows).to_have_count(0)
    await expect(page.get_by_text("No connection is like this.")).to_be_visible()


async def test_a_group_is_watched_and_spoken_to(visit: Any, server: AdminServer) -> None:
    member = await server.connect("/room/talk")
    page = (await visit("console")).page
    await page.get_by_role("combobox", name="Group").fill("room.talk")
    await page.keyboard.press("Enter")
    await expect(page.locator("#log-facts")).to_have_text("1 connection")
    await page.get_by_role("textbox", name="Data, as JSON").fill("{")
    await page.get_by_role("button", name="Send to all").click()
    await expect(page.locator("#send-error")).to_contain_text("This is not JSON")
    await page.get_by_role("textbox", name="Event").fill("news")
    await page.get_by_role("textbox", name="Data, as JSON").fill('{"<b>bold</b>": 1}')
    await page.get_by_role("button", name="Send to all").click()
    assert (await member.receive_json())["data"] == {"<b>bold</b>": 1}
    await expect(page.locator("#log li")).to_contain_text('news{"<b>bold</b>":1}')
    await page.get_by_role("button", name="Pause").click()
    await member.send_json(action="say", data={"text": "unseen"})
    await expect(page.locator("#log-facts")).to_contain_text("paused, 1 came since")
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator("#log li")).to_have_count(1)


async def test_it_comes_back_after_the_server_did_and_keeps_its_colours(visit: Any, server: AdminServer) -> None:
    shown = await visit("groups", color_scheme="light")
    page = shown.page
    await server.connect("/room/a")
    await expect(page.locator("#groups-list tbody tr")).to_have_count(1)
    for name in ("Light", "Dark"):
        await page.locator("#theme").click()
        await expect(page.locator("#theme-name")).to_have_text(name)
    background = "() => getComputedStyle(document.body).backgroundColor"
    assert await page.evaluate(background) == "rgb(14, 20, 26)"
    [mine] = (await server.get("/connections", consumer="Dashboard"))["results"]
    await server.ask("POST", "/disconnect", status=202, body={"channel": mine["channel"], "code": 1012})
    await expect(page.locator("#state")).to_have_text("Reconnecting…")
    await expect(page.locator("#state")).to_have_text("Live")
    await server.connect("/room/b")
    await expect(page.locator("#groups-list tbody tr")).to_have_count(2)
    await page.reload()
    await expect(page.locator("#theme-name")).to_have_text("Dark")
    assert await page.evaluate(background) == "rgb(14, 20, 26)"


async def test_a_schedule_is_made_and_deleted(visit: Any) -> None:
    page = (await visit("schedules")).page
    form = page.locator("#schedule-form")
    for label, text in (("Name", "tea"), ("Times", "soon"), ("Group", "room.a"), ("Event", "tea")):
        await form.get_by_label(label, exact=True).fill(text)
    await form.get_by_role("button", name="Create").click()
    await expect(page.locator("#schedule-error")).to_contain_text("expected")
    await form.get_by_label("Times").fill("1h")
    await form.get_by_role("button", name="Create").click()
    row = page.locator("#schedules-list tbody tr")
    await expect(row).to_contain_text("tea to room.a")
    await row.get_by_role("button", name="Pause").click()
    await expect(row).to_contain_text("paused")
    await row.get_by_role("button", name="Delete").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(row).to_have_count(0)
