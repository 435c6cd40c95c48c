"""The dashboard in a real browser, for the tests that look at it and those that use it. Its server is a process."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests.accessibility import obstacles
from tests.admin.test_processes import AdminServer

__all__ = ["AdminServer", "Visit", "browser", "expect", "server", "visit"]

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SCREENS: dict[str, Any] = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}
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

    async def press(self, control: Locator, key: str = "Enter") -> None:
        await control.focus()
        await expect(control).to_be_focused()
        await self.page.keyboard.press(key)

    async def press_button(self, name: str | re.Pattern[str]) -> None:
        await self.press(self.page.get_by_role("button", name=name, exact=isinstance(name, str)))

    async def write(self, control: Locator, text: str) -> None:
        await self.press(control, "Control+a")
        await self.page.keyboard.type(text)

    async def confirm(self, verb: str) -> None:
        """The dialog begins at what does no harm."""
        await expect(self.page.get_by_role("button", name="Cancel")).to_be_focused()
        await self.page.keyboard.press("Tab")
        await expect(self.page.locator("#confirm-yes")).to_have_text(verb)
        await self.page.keyboard.press("Enter")

    async def schedule(self, **fields: str) -> None:
        """Fill in the form, and send it off."""
        form = self.page.locator("#schedule-form")
        for label, text in fields.items():
            await self.write(form.get_by_label(label.replace("_", " ")), text)
        await self.press(form.get_by_role("button", name="Create"))

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
