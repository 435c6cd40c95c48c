"""The page of the chat demo, clicked through in a real browser, at a desk and on a phone.

The server runs in a process of its own. Nothing waits for a time, everything for what a person would see.
"""

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright, expect

ROOT = Path(__file__).resolve().parent.parent.parent

# One event loop for all of the module, so that they share a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.browser]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENS: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}

# `-P`, and the root at the end of the path, so that an installed package comes before its source.
SERVE = """
import socket, sys
sys.path.append(sys.argv[1])
import uvicorn
uvicorn.Server(uvicorn.Config("examples.chat.app:app")).run([socket.socket(fileno=int(sys.argv[2]))])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of the demo. The socket listens before the process starts, so that nobody has to wait for it."""
    log = tmp_path_factory.mktemp("server") / "log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("w") as out:
        port: int = listener.getsockname()[1]
        fd = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE, str(ROOT), str(fd)],
            pass_fds=[fd],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait(10)
    text = log.read_text()
    assert "Application shutdown complete" in text, text
    assert not re.search(r"ERROR|Traceback", text), text


class Cable:
    """A TCP proxy between browser and server that can be cut."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End every connection without a goodbye, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)
        assert not self._tasks

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        for pair in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pump(*pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
            self._writers.discard(writer)


@pytest_asyncio.fixture(loop_scope="module")
async def cable(server: int) -> AsyncIterator[Cable]:
    cable = Cable(server)
    await cable.mend()
    yield cable
    await cable.cut()


class Visitor:
    """Somebody in front of a page."""

    def __init__(self, page: Page, screen: str) -> None:
        self.page = page
        self.screen = screen
        self.log = page.get_by_role("log")
        self.state = page.locator("#state")
        self.people = page.locator("#people li")
        self.notice = page.get_by_role("alert")
        self.banner = page.locator("#banner")
        self.counter = page.locator("#counter")
        self.text = page.locator("#text")
        self.send = page.get_by_role("button", name="Send")
        #: Set while the network is expected to fail.
        self.network_may_fail = False
        self.errors: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        expected = self.network_may_fail and re.search(r"WebSocket connection to|ERR_", message.text)
        if message.type in ("error", "warning") and not expected:
            self.errors.append(message.text)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    async def press(self, target: Locator | str) -> None:
        """Click it, or on a phone tap it."""
        target = self.button(target) if isinstance(target, str) else target
        await (target.tap() if self.screen == "phone" else target.click())

    async def enter(self, name: str) -> None:
        await self.page.get_by_label("Your name").fill(name)
        await self.press("Enter")
        await expect(self.state).to_have_text("Connected")

    async def go(self, room: str) -> None:
        await self.press(self.page.get_by_role("link", name=room))
        await expect(self.page.get_by_role("heading", name=room)).to_be_visible()

    async def say(self, text: str) -> None:
        await self.text.fill(text)
        await self.press(self.send)

    async def sees(self, *lines: str) -> None:
        """The log has these texts, in this order, perhaps among others."""
        for line in lines:
            await expect(self.log).to_contain_text(line)
        found = await self.log.inner_text()
        places = [found.rfind(line) for line in lines]
        assert places == sorted(places), found

    async def sees_people(self, *names: str) -> None:
        await expect(self.people).to_have_text([re.compile(rf"^{re.escape(name)}$") for name in names])


class House:
    """Lets visitors in, and looks after them: no page may report an error that the test did not expect."""

    def __init__(self, browser: Browser, port: int, screen: str) -> None:
        self._browser = browser
        self._port = port
        self._screen = screen
        self.visitors: list[Visitor] = []

    async def open(self, room: str = "relay", *, port: int | None = None, **options: Any) -> Visitor:
        """A page at the door."""
        context = await self._browser.new_context(**SCREENS[self._screen], **options)
        context.set_default_timeout(10_000)
        visitor = Visitor(await context.new_page(), self._screen)
        self.visitors.append(visitor)
        await visitor.page.goto(f"http://127.0.0.1:{port or self._port}/#{room}")
        return visitor

    async def enter(self, name: str, room: str, **options: Any) -> Visitor:
        """Somebody who is in a room."""
        visitor = await self.open(room, **options)
        await visitor.enter(name)
        return visitor


@pytest.fixture(params=SCREENS)
def screen(request: pytest.FixtureRequest) -> str:
    screen: str = request.param
    return screen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    expect.set_options(timeout=10_000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def house(browser: Browser, server: int, screen: str) -> AsyncIterator[House]:
    house = House(browser, server, screen)
    yield house
    for visitor in house.visitors:
        await visitor.page.context.close()
    assert [visitor.errors for visitor in house.visitors] == [[] for _ in house.visitors]


async def test_a_name_is_given_at_the_door(house: House) -> None:
    ada = await house.open("group")
    name = ada.page.get_by_label("Your name")
    await expect(name).to_be_focused()
    await name.fill("   ")
    await ada.press("Enter")
    await expect(ada.page.locator("#name-error")).to_have_text("Please give a name: 1 to 30 characters.")
    await expect(name).to_be_focused()
    await expect(name).to_have_attribute("aria-invalid", "true")

    await ada.enter("  <b>Ada</b> ")
    await ada.sees("You are in, as <b>Ada</b>.")
    await ada.sees_people("<b>Ada</b> you")
    await expect(ada.page.get_by_role("button", name="<b>Ada</b>")).to_be_visible()

    await ada.page.reload()
    await expect(ada.state).to_have_text("Connected")
    await ada.sees_people("<b>Ada</b> you")
    await expect(ada.page).to_have_title(re.compile(r"^Group . Three rooms$"))

    await ada.press("rename")
    await expect(name).to_have_value("<b>Ada</b>")
    await ada.enter("Ada")
    await ada.sees_people("Ada you")


async def test_a_name_that_the_server_refuses_brings_one_back_to_the_door(house: House) -> None:
    ada = await house.open("group")
    await ada.page.evaluate("sessionStorage.setItem('name', 'x'.repeat(31))")
    await ada.page.reload()
    await expect(ada.page.locator("#name-error")).to_have_text("A name has 1 to 30 characters, on one line.")
    await expect(ada.page.get_by_label("Your name")).to_be_focused()
    await ada.enter("Ada")
    await ada.sees_people("Ada you")


async def test_the_relay(house: House) -> None:
    ada = await house.enter("Ada", "relay")
    bob = await house.enter("Bob", "relay")
    texts = ["hello", "  two  spaces <img src=x onerror=alert(1)>", '{"type":"error"}']
    for text in texts:
        await ada.say(text)
        await expect(ada.text).to_have_value("")
    for visitor in (ada, bob):
        await expect(visitor.log.locator("li")).to_have_count(3)
        assert await visitor.log.locator(".text").all_text_contents() == texts
    await expect(ada.page.get_by_text("The relay knows no names")).to_be_visible()


async def test_the_room_for_two(house: House, screen: str) -> None:
    ada = await house.enter(f"Ada at the {screen}", "two")
    bob = await house.enter("Bob", "two")
    await ada.sees("Bob came in.")
    for visitor, people in (
        (ada, (f"Ada at the {screen} you", "Bob")),
        (bob, (f"Ada at the {screen}", "Bob you")),
    ):
        await visitor.sees_people(*people)

    await ada.say("Hi, <i>Bob</i>!")
    await expect(ada.log.locator(".mine .text")).to_have_text("Hi, <i>Bob</i>!")
    await expect(bob.log.locator(".said:not(.mine) .text")).to_have_text("Hi, <i>Bob</i>!")

    # Five in ten seconds; how many more it takes depends on how fast the clicks are.
    for _ in range(20):
        await ada.press("Count up")
        if await ada.notice.get_by_text("Not so fast").is_visible():
            break
    await expect(ada.notice).to_have_text(re.compile(r"^Not so fast. Try again in (a second|2 seconds)\."))
    counted = await ada.counter.inner_text()
    assert int(counted) >= 5
    await expect(bob.counter).to_have_text(counted)
    await bob.sees(f"Ada at the {screen} counted to {counted}.")
    await ada.press("Dismiss")
    await expect(ada.notice).to_be_empty()

    await ada.press("Wave")
    await expect(ada.notice).to_contain_text("Waving is deprecated")
    await bob.sees(f"Ada at the {screen} waved.")
    for button, sentence in (
        ("Shout", "This has been switched off."),
        ("Clear", "You are not allowed to do that."),
        ("Order tea", "There is no tea left. Nothing else has happened."),
    ):
        await ada.press(button)
        await expect(ada.notice).to_contain_text(sentence)
        await expect(ada.state).to_have_text("Connected")
    await ada.say("  ")
    await ada.say("Still here")
    await bob.sees("Hi, <i>Bob</i>!", "Still here")
    await expect(ada.notice).to_be_empty()

    cleo = await house.open("two")
    await cleo.page.get_by_label("Your name").fill("Cleo")
    await cleo.press("Enter")
    await expect(cleo.state).to_have_text("Room full")
    await expect(cleo.banner).to_contain_text("This room is full: two people are in it already.")
    await expect(cleo.send).to_have_attribute("aria-disabled", "true")
    await cleo.press("Try again")
    await expect(cleo.state).to_have_text("Room full")

    await bob.press("Leave")
    await expect(bob.state).to_have_text("Disconnected")
    await expect(bob.banner).to_contain_text("You have left the room.")
    await expect(bob.notice).to_be_empty()
    await ada.sees("Bob left.")
    await ada.sees_people(f"Ada at the {screen} you")

    await cleo.press("Try again")
    await expect(cleo.state).to_have_text("Connected")
    await expect(cleo.banner).to_be_hidden()
    await expect(cleo.counter).to_have_text(counted)
    await ada.sees_people(f"Ada at the {screen} you", "Cleo")
    await bob.press("Come back in")
    await expect(bob.state).to_have_text("Room full")
    await cleo.page.close()
    await ada.sees("Cleo left.")
    await bob.press("Try again")
    await bob.sees_people(f"Ada at the {screen}", "Bob you")


async def test_the_group(house: House) -> None:
    ada = await house.enter("Ada", "group")
    bob = await house.enter("Bob", "group")
    cleo = await house.enter("Cleo", "relay")
    await cleo.go("Group")
    await ada.sees("Bob came in.", "Cleo came in.")
    await cleo.sees_people("Ada", "Bob", "Cleo you")

    await cleo.say("Good evening")
    await ada.sees("Cleo came in.", "Good evening")
    await bob.press("Grumble")
    await expect(bob.notice).to_contain_text("Grumbling is not done here. You may stay, though.")
    await expect(bob.state).to_have_text("Connected")
    await bob.press("Misbehave")
    await expect(bob.state).to_have_text("Disconnected")
    await expect(bob.banner).to_contain_text("You have been shown out of the room.")
    await ada.sees("Good evening", "Bob left.")
    await ada.sees_people("Ada you", "Cleo")
    await bob.press("Come back in")
    await expect(bob.state).to_have_text("Connected")
    await cleo.sees_people("Ada", "Cleo you", "Bob")

    await cleo.go("For two")
    await ada.sees("Cleo left.")
    await cleo.go("Group")
    await cleo.sees("Good evening")
    await cleo.sees_people("Ada", "Bob", "Cleo you")
    await bob.page.reload()
    await ada.sees_people("Ada you", "Cleo", "Bob")

    await ada.press(ada.page.get_by_text("Frames on the wire"))
    await expect(ada.page.locator("#frames li").first).to_contain_text('"event":"joined"')


@pytest.mark.parametrize(("screen", "room"), [("desk", "two"), ("phone", "group")])
async def test_the_network_is_cut_and_comes_back(house: House, cable: Cable, room: str) -> None:
    ada = await house.enter("Ada", room, port=cable.port)
    bob = await house.enter("Bob", room)
    await ada.sees_people("Ada you", "Bob")
    await ada.say("Before")
    await bob.sees("Before")
    await ada.text.fill("A thought that I")

    ada.network_may_fail = True
    await cable.cut()
    await expect(ada.state).to_have_text("Reconnecting…")
    await expect(ada.banner).to_contain_text("The connection was lost.")
    await expect(ada.send).to_have_attribute("aria-disabled", "true")
    await bob.sees("Before", "Ada left.")
    await bob.sees_people("Bob you")
    # One can write on, but not send.
    await ada.text.fill("A thought that I had")
    await ada.text.press("Enter")
    await expect(ada.notice).to_contain_text("Not connected yet. What you wrote is kept.")
    await ada.press("Try now")
    await expect(ada.state).to_have_text("Reconnecting…")
    await bob.say("Nobody told Ada")

    await cable.mend()
    await expect(ada.state).to_have_text("Connected")
    await expect(ada.banner).to_be_hidden()
    ada.network_may_fail = False
    await ada.sees("Before", "Connection lost.", "You are back.")
    await bob.sees("Ada left.", "Nobody told Ada", "Ada came in.")
    await ada.sees_people("Bob", "Ada you")
    await expect(ada.text).to_have_value("A thought that I had")
    await ada.press(ada.send)
    await bob.sees("Ada came in.", "A thought that I had")
    await expect(ada.text).to_have_value("")
    await expect(ada.log.get_by_text("Nobody told Ada")).to_have_count(0)


async def test_the_relay_comes_back_too(house: House, cable: Cable) -> None:
    ada = await house.enter("Ada", "relay", port=cable.port)
    bob = await house.enter("Bob", "relay")
    ada.network_may_fail = True
    await cable.cut()
    await expect(ada.state).to_have_text("Reconnecting…")
    await ada.text.fill("Kept")
    await ada.text.press("Enter")
    await expect(ada.notice).to_contain_text("Not connected yet")
    await expect(ada.text).to_have_value("Kept")
    await cable.mend()
    await expect(ada.state).to_have_text("Connected")
    await ada.press(ada.send)
    await bob.sees("Kept")


async def test_the_device_says_that_it_is_offline(house: House) -> None:
    ada = await house.enter("Ada", "group")
    ada.network_may_fail = True
    await ada.page.context.set_offline(True)
    await expect(ada.state).to_have_text("Offline")
    await expect(ada.people).to_have_count(0)
    await ada.page.context.set_offline(False)
    await expect(ada.state).to_have_text("Connected")
    await ada.sees("You are back.")


@pytest.mark.parametrize("screen", ["desk"])
async def test_with_the_keyboard_alone(house: House) -> None:
    ada = await house.open("two")
    keyboard = ada.page.keyboard
    await expect(ada.page.get_by_label("Your name")).to_be_focused()
    await keyboard.type("Keyed Ada")
    await keyboard.press("Enter")
    await expect(ada.page.get_by_label("Message to For two")).to_be_focused()
    await keyboard.type("No mouse")
    await keyboard.press("Enter")
    await expect(ada.log.locator(".mine .text")).to_have_text("No mouse")
    await expect(ada.text).to_be_focused()
    for button in ("Leave", "Order tea"):
        await keyboard.press("Shift+Tab")
        await expect(ada.button(button)).to_be_focused()
    await keyboard.press("Enter")
    await expect(ada.notice).to_contain_text("There is no tea left.")
    await keyboard.press("Tab")
    await keyboard.press("Space")
    await expect(ada.state).to_have_text("Disconnected")
    await ada.button("Come back in").focus()
    await keyboard.press("Enter")
    await expect(ada.state).to_have_text("Connected")
    await expect(ada.text).to_be_focused()
    link = ada.page.get_by_role("link", name="Group")
    await link.focus()
    await keyboard.press("Enter")
    await expect(ada.page.get_by_label("Message to Group")).to_be_focused()
    await expect(link).to_have_attribute("aria-current", "page")


LOOK = """() => {
  const problems = [];
  const visible = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true })
    && !element.closest(".visually-hidden");
  const page = document.documentElement;
  if (page.scrollWidth > innerWidth) problems.push(`scrolls sideways: ${page.scrollWidth} > ${innerWidth}`);
  for (const element of document.querySelectorAll("button, a, input, summary")) {
    if (!visible(element)) continue;
    const { width, height, left, right } = element.getBoundingClientRect();
    const what = `${element.localName} ${element.id || element.textContent.trim()}`;
    if (width < 44 || height < 44) problems.push(`${what} is ${width} x ${height}`);
    if (left < 0 || right > innerWidth) problems.push(`${what} sticks out`);
    if (element.localName === "input" && parseFloat(getComputedStyle(element).fontSize) < 16)
      problems.push(`${what} makes phones zoom in`);
    if (element.localName === "input" && element.labels.length === 0) problems.push(`${what} has no label`);
  }
  // WCAG 2.2, contrast (minimum): 4.5 to 1 for text.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const channels = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [red, green, blue] = channels(color).map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const background = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (channels(color)[3] === 255) return color;
    }
    return "white";
  };
  for (const element of document.body.querySelectorAll("*")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== "");
    if (!text || !visible(element)) continue;
    const [dark, light] = [getComputedStyle(element).color, background(element)].map(luminance).sort((a, b) => a - b);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) problems.push(`${element.localName} "${element.textContent.slice(0, 30)}": ${ratio.toFixed(2)}`);
  }
  return problems;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_the_screen_and_can_be_read_and_touched(
    house: House, screen: str, scheme: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"color_scheme": scheme, "reduced_motion": "reduce"}
    long_name, long_word = "Wolfeschlegelsteinhausenberger", "https://example.com/" + "a" * 200

    async def look(visitor: Visitor, name: str) -> None:
        await visitor.page.screenshot(path=tmp_path / f"{name}-{screen}-{scheme}.png")
        assert await visitor.page.evaluate(LOOK) == [], name

    ada = await house.open("relay", **options)
    await ada.press("Enter")
    await look(ada, "door")
    await ada.enter(long_name)
    await ada.say(long_word)
    await ada.sees(long_word)
    await look(ada, "relay")
    await ada.go("For two")
    await expect(ada.state).to_have_text("Connected")
    bob = await house.enter("Bob", "two", **options)
    await ada.sees_people(f"{long_name} you", "Bob")
    for visitor in (ada, bob):
        await visitor.say(long_word)
    await expect(ada.log.locator(".text")).to_have_count(2)
    await ada.press("Wave")
    await expect(ada.notice).to_contain_text("deprecated")
    await look(ada, "two-info")
    await ada.press("Clear")
    await expect(ada.notice).to_contain_text("not allowed")
    await ada.press(ada.page.get_by_text("Frames on the wire"))
    await look(ada, "two-error")
    cleo = await house.open("two", **options)
    await cleo.page.get_by_label("Your name").fill("Cleo")
    await cleo.press("Enter")
    await expect(cleo.state).to_have_text("Room full")
    await look(cleo, "two-full")
    for visitor in (ada, bob, cleo):
        await visitor.go("Group")
    await ada.sees_people(f"{long_name} you", "Bob", "Cleo")
    await look(ada, "group")
