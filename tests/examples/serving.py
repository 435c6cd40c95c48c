"""A demo in a process of its own, and a browser to look at it."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from tests.accessibility import obstacles
from tests.examples.test_chat_browser import FLAGS, LOOK, PATIENCE, SCREENS, SERVE

ROOT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def served(module: str, folder: Path, **environment: str) -> Iterator[int]:
    """Run ``module:app`` by uvicorn, on a port of its own, which is returned once it serves."""
    log = folder / "log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE.replace("examples.chat.app", module), str(ROOT), str(listener.fileno())],
            pass_fds=[listener.fileno()],
            cwd=folder,
            env={**os.environ, **environment},
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
            process.terminate()
            process.wait(20)
        finally:
            process.kill()
            process.wait(10)
    text = log.read_text()
    assert "Application shutdown complete" in text, text
    assert not re.search(r"ERROR|Traceback", text), text


class Window:
    """One page of a browser, whose complaints are kept."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    async def look(self) -> None:
        """It fits the screen, can be read and touched."""
        assert await self.page.evaluate(LOOK) == []
        found = await obstacles(self.page)
        assert found == [], found


class Windows:
    """Opens pages. None may complain."""

    def __init__(self, browser: Browser, address: str) -> None:
        self._browser = browser
        self._address = address
        self.opened: list[Window] = []

    async def open(self, path: str = "/", *, screen: str = "desk", scheme: str = "light") -> Window:
        options: dict[str, Any] = {**SCREENS[screen], "color_scheme": scheme, "reduced_motion": "reduce"}
        context = await self._browser.new_context(**options)
        context.set_default_timeout(PATIENCE * 1000)
        window = Window(await context.new_page())
        self.opened.append(window)
        await window.page.goto(self._address + path)
        return window


@asynccontextmanager
async def windows(chromium: str, port: int) -> AsyncIterator[Windows]:
    """Give them all time to close before the server stops, so that nothing reconnects."""
    expect.set_options(timeout=PATIENCE * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=120_000)
        found = Windows(browser, f"http://127.0.0.1:{port}")
        try:
            yield found
        finally:
            await browser.close()
    assert [window.complaints for window in found.opened] == [[] for _ in found.opened]
