"""The page of the chat demo, clicked through in a real browser, at a desk and on a phone.

The server runs in a process of its own. Nothing waits for a time, everything for what a person would see.
"""

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, WebSocketRoute, async_playwright, expect

from examples.chat.app import make_app
from fastapi_consumers.testing import lifespan
from tests.accessibility import obstacles

ROOT = Path(__file__).resolve().parent.parent.parent

# One event loop for all of the module, so that they share a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.browser]

#: Seconds in which a page shows what it should, on a machine that has much else to do.
PATIENCE = 60

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


#: How long a connection waits, in milliseconds, until it tries again.
AWAY = """async () => {
  const { Connection } = await import("/static/connection.js");
  const connection = new Connection(`ws://${location.host}/fake`);
  const times = {};
  const again = new Promise((resolve) => connection.addEventListener("state", ({ detail: { state } }) => {
    if (state === "connecting" && times.waiting !== undefined) resolve(performance.now() - times.waiting);
    times[state] = performance.now();
  }));
  connection.open();
  const away = await again;
  connection.close();
  return away;
}"""


class Demo:
    """The demo in a process of its own. Its socket listens all the time, so that nobody has to wait for a start: who
    comes while it is stopped is served by the next one.
    """

    def __init__(self, folder: Path) -> None:
        self.database = folder / "chat.db"
        self._log = folder / "log"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def start(self) -> None:
        """Returns when it serves, which takes its time on a machine that has much to do."""
        fd = self._listener.fileno()
        with self._log.open("a") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", SERVE, str(ROOT), str(fd)],
                pass_fds=[fd],
                cwd=ROOT,
                env={**os.environ, "CHAT_DB": str(self.database)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._starts += 1
        deadline = time.monotonic() + 2 * PATIENCE
        while (text := self._log.read_text()).count("Application startup complete") < self._starts:
            assert self._process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.05)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait(10)
            text = self._log.read_text()
            assert text.count("Application shutdown complete") == self._starts, text
            assert not re.search(r"ERROR|Traceback", text), text

    def close(self) -> None:
        try:
            self.stop()
        finally:
            self._listener.close()

    async def remember(self, texts: Sequence[str]) -> None:
        """Put messages into its past. It must not run."""
        app = make_app(self.database)
        async with lifespan(app):
            for text in texts:
                said = {"by": "Eve", "text": text, "at": "2026-01-02T03:04:05Z"}
                await app.state.consumers.broadcast("group", "said", said)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a demo that most tests share."""
    demo = Demo(tmp_path_factory.mktemp("server"))
    try:
        demo.start()
        yield demo.port
    finally:
        demo.close()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """One for a test alone, that is not running yet."""
    demo = Demo(tmp_path)
    try:
        yield demo
    finally:
        demo.close()


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
        self.messages = page.locator(".log:not([hidden]) .said .text")
        self.typing = page.locator("#typing")
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
        deadline = time.monotonic() + PATIENCE
        while True:
            found = await self.log.inner_text()
            # The last of each, as other visitors may have said the same before.
            places = [found.rfind(line) for line in lines]
            if -1 not in places and places == sorted(places):
                return
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.05)

    async def still_reads(self, before: tuple[str, float]) -> None:
        """The first line that is to be seen is the same, and where it was, but for what is rounded."""
        text, place = await self.page.evaluate(READING)
        assert (text, abs(place - before[1]) <= 1) == (before[0], True), (text, place, before)

    async def sees_who_is_there(self, *names: str) -> None:
        """These people and no others, in whichever order and with whatever is said of them."""
        await expect(self.people).to_have_text([re.compile(rf"^{re.escape(name)}( |$)") for name in sorted(names)])

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
        context.set_default_timeout(PATIENCE * 1000)
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
    expect.set_options(timeout=PATIENCE * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=120_000)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def house(browser: Browser, server: int, demo: Demo, cable: Cable, screen: str) -> AsyncIterator[House]:
    """Asks for all that pages are served by, so that it ends after they have been closed."""
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


async def test_the_group(house: House, screen: str) -> None:
    # Who left just now has not gone yet, and nobody would be told that they came again.
    anna, bert, carl = (f"{name} at the {screen}" for name in ("Anna", "Bert", "Carl"))
    evening = f"Good evening from the {screen}"
    ada = await house.enter(anna, "group")
    bob = await house.enter(bert, "group")
    cleo = await house.enter(carl, "relay")
    await cleo.go("Group")
    await ada.sees(f"{bert} came in.", f"{carl} came in.")
    for visitor in (ada, bob, cleo):
        await visitor.sees_who_is_there(anna, bert, carl)

    await cleo.say(evening)
    await ada.sees(f"{carl} came in.", evening)
    await bob.press("Grumble")
    await expect(bob.notice).to_contain_text("Grumbling is not done here. You may stay, though.")
    await expect(bob.state).to_have_text("Connected")
    await bob.press("Misbehave")
    await expect(bob.state).to_have_text("Disconnected")
    await expect(bob.banner).to_contain_text("You have been shown out of the room.")
    await ada.sees(evening, f"{bert} left.")
    await ada.sees_people(f"{anna} you", carl)
    await bob.press("Come back in")
    await expect(bob.state).to_have_text("Connected")
    await cleo.sees_people(anna, bert, f"{carl} you")

    await cleo.go("For two")
    await ada.say("Carl has gone")
    await ada.sees(f"{carl} left.")
    await cleo.go("Group")
    await cleo.sees(evening, "While you were away", "Carl has gone", "One message came while you were away.")
    await cleo.sees_people(anna, bert, f"{carl} you")
    # A window more is nobody more, and a page that is loaded again has not been left.
    other = await house.enter(anna, "group")
    await cleo.sees_people(f"{anna} 2 windows", bert, f"{carl} you")
    await other.page.reload()
    await expect(other.state).to_have_text("Connected")
    await other.sees(evening, "Carl has gone")
    await cleo.say("Nobody has left")
    for visitor in (ada, other):
        await visitor.sees("Nobody has left")
    await expect(ada.log.get_by_text(f"{anna} left.")).to_have_count(0)
    await expect(cleo.log.get_by_text(f"{anna} left.")).to_have_count(0)

    await ada.press(ada.page.get_by_text("Frames on the wire"))
    await expect(ada.page.locator("#frames li").first).to_contain_text('"type":')


async def test_who_is_writing_and_what_is_private(house: House, screen: str) -> None:
    anna, bert, carl = (f"{name} with a {screen}" for name in ("Anna", "Bert", "Carl"))
    ada, bob, cleo = [await house.enter(name, "group") for name in (anna, bert, carl)]
    await ada.sees_who_is_there(anna, bert, carl)
    await bob.text.press_sequentially("Wh")
    for visitor in (ada, cleo):
        await expect(visitor.typing).to_have_text(f"{bert} is writing…")
    await cleo.text.press_sequentially("I")
    await expect(ada.typing).to_have_text(f"{bert} and {carl} are writing…")
    await bob.say("What?")
    await ada.sees("What?")
    await expect(ada.typing).not_to_contain_text(bert)
    # A hint ends by itself.
    await expect(ada.typing).to_be_empty()
    await expect(bob.typing).to_be_empty()
    await cleo.text.fill("")

    await ada.press(ada.button(bert))
    await expect(ada.text).to_be_focused()
    await expect(ada.page.locator("#private")).to_contain_text(f"Only {bert} gets this.")
    await ada.say("Just for <b>you</b>")
    for visitor, note in ((ada, f"You, only to {bert}"), (bob, f"{anna}, only to you")):
        whispered = visitor.page.locator(".whispered")
        await expect(whispered.locator(".text")).to_have_text("Just for <b>you</b>")
        await expect(whispered).to_contain_text(note)
    # What was begun for one does not become everybody's in another room, or on the way back.
    await ada.text.fill("And this")
    await ada.go("For two")
    await expect(ada.page.locator("#private")).to_be_hidden()
    await ada.go("Group")
    await expect(ada.text).to_have_value("And this")
    await expect(ada.page.locator("#private")).to_contain_text(f"Only {bert} gets this.")
    await expect(ada.state).to_have_text("Connected")
    await bob.go("For two")
    await ada.sees_who_is_there(anna, carl)
    await ada.press(ada.send)
    await expect(ada.notice).to_contain_text("They have left. Nobody has got your message.")
    await expect(ada.text).to_have_value("And this")
    await ada.press("To everybody")
    await expect(ada.text).to_be_focused()
    await ada.say("To all")
    await cleo.sees("What?", "To all")
    await expect(cleo.page.locator(".whispered")).to_have_count(0)
    await expect(cleo.log.get_by_text("And this")).to_have_count(0)


@pytest.mark.parametrize(("screen", "room"), [("desk", "two"), ("desk", "group"), ("phone", "group")])
async def test_the_network_is_cut_and_comes_back(house: House, cable: Cable, room: str, screen: str) -> None:
    anna, bert = f"Anna cut off from {room}, {screen}", f"Bert in {room}, {screen}"
    ada = await house.enter(anna, room, port=cable.port)
    bob = await house.enter(bert, room)
    await ada.sees_people(f"{anna} you", bert)
    before, thought = f"Before, {room} {screen}", f"A thought at the {screen}"
    await ada.say(before)
    # Her own too: if the network were cut before, it would be one more that she missed.
    for visitor in (ada, bob):
        await visitor.sees(before)
    await ada.text.fill("A thought that I")

    ada.network_may_fail = True
    await cable.cut()
    await expect(ada.state).to_have_text("Reconnecting…")
    await expect(ada.banner).to_contain_text("The connection was lost.")
    await expect(ada.send).to_have_attribute("aria-disabled", "true")
    await bob.sees(before, f"{anna} left.")
    await bob.sees_people(f"{bert} you")
    # One can write on, but not send.
    await ada.text.fill(thought)
    await ada.text.press("Enter")
    await expect(ada.notice).to_contain_text("Not connected yet. What you wrote is kept.")
    await ada.press("Try now")
    await expect(ada.state).to_have_text("Reconnecting…")
    missed = [f"Missed at the {screen}: {number}" for number in (1, 2, 3)]
    for text in missed:
        await bob.say(text)
        await bob.sees(text)

    await cable.mend()
    await expect(ada.state).to_have_text("Connected")
    await expect(ada.banner).to_be_hidden()
    ada.network_may_fail = False
    await bob.sees(f"{anna} left.", *missed, f"{anna} came in.")
    await ada.sees_people(*sorted((f"{anna} you", bert)) if room == "group" else (bert, f"{anna} you"))
    await expect(ada.text).to_have_value(thought)
    await ada.press(ada.send)
    await bob.sees(f"{anna} came in.", thought)
    await expect(ada.text).to_have_value("")
    if room == "two":
        await ada.sees(before, "Connection lost.", "You are back.", thought)
        await expect(ada.log.get_by_text(missed[0])).to_have_count(0)
        return
    back = "You are back. 3 messages came while you were away."
    await ada.sees(before, "Connection lost.", "While you were away", *missed, back, thought)
    texts = await ada.messages.all_text_contents()
    assert texts[-5:] == [before, *missed, thought]
    for text in missed:
        await expect(ada.messages.get_by_text(text)).to_have_count(1)
    assert await ada.page.locator(".missed .text").all_text_contents() == missed


async def test_a_restart_of_the_server_loses_nothing(house: House, demo: Demo, screen: str) -> None:
    await asyncio.to_thread(demo.start)
    ada = await house.enter("Ada", "group", port=demo.port)
    await ada.say("Before the restart")
    await ada.sees("Before the restart")
    ada.network_may_fail = True
    await asyncio.to_thread(demo.stop)
    await expect(ada.state).to_have_text("Reconnecting…")
    await demo.remember(["While it was down"])
    await asyncio.to_thread(demo.start)
    await expect(ada.state).to_have_text("Connected")
    ada.network_may_fail = False
    await ada.sees(
        "Before the restart", "Connection lost.", "While you were away", "While it was down", "You are back."
    )
    bob = await house.enter("Bob", "group", port=demo.port)
    for visitor in (ada, bob):
        await expect(visitor.messages).to_have_text(["Before the restart", "While it was down"])
    await ada.press(ada.page.get_by_text("Frames on the wire"))
    await bob.say("After it")
    await ada.sees("You are back.", "After it")


@pytest.mark.parametrize("screen", ["desk"])
async def test_the_page_stays_away_for_as_long_as_the_server_says(house: House) -> None:
    ada = await house.open("group")
    sockets: list[WebSocketRoute] = []

    async def serve(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        if len(sockets) == 1:
            socket.send('{"type": "closing", "code": 1012, "reconnect": true, "after": 1.5}')
            await socket.close(code=1012, reason="service_restart")

    await ada.page.route_web_socket(re.compile("/fake$"), serve)
    # By itself it would come back within half a second.
    assert await ada.page.evaluate(AWAY) >= 1490
    assert len(sockets) == 2


@pytest.mark.parametrize("screen", ["desk"])
async def test_what_cannot_be_recovered_is_said_and_loaded_anew(house: House, demo: Demo) -> None:
    await demo.remember(["Of the first life"])
    await asyncio.to_thread(demo.start)
    ada = await house.enter("Ada", "group", port=demo.port)
    await expect(ada.messages).to_have_text(["Of the first life"])
    ada.network_may_fail = True
    await asyncio.to_thread(demo.stop)
    for file in demo.database.parent.glob("chat.db*"):
        file.unlink()
    await demo.remember(["Of the second life"])
    await asyncio.to_thread(demo.start)
    await expect(ada.state).to_have_text("Connected")
    ada.network_may_fail = False
    await ada.sees("Of the second life", "Not everything could be delivered to you.")
    await expect(ada.messages).to_have_text(["Of the second life"])

    # More than is given to who comes back: the newest page, and what is between can be had by looking back.
    ada.network_may_fail = True
    await asyncio.to_thread(demo.stop)
    await demo.remember([f"Number {number}" for number in range(1, 1102)])
    await asyncio.to_thread(demo.start)
    await expect(ada.state).to_have_text("Connected")
    ada.network_may_fail = False
    await ada.sees("Number 1072", "Number 1101")
    await expect(ada.messages).to_have_count(30)
    # With the keyboard: a click scrolls there first, which loads a page by itself.
    await ada.button("Older messages").focus()
    await ada.page.keyboard.press("Enter")
    await expect(ada.messages).to_have_count(60)
    await expect(ada.messages.first).to_have_text("Number 1042")


READING = """() => {
  const log = document.querySelector(".log:not([hidden])");
  const top = log.getBoundingClientRect().top;
  const line = [...log.querySelectorAll("li")].find((line) => line.getBoundingClientRect().top >= top);
  return [line.querySelector(".text").textContent, line.getBoundingClientRect().top];
}"""
# What one reads just after one has scrolled there, before anything else can happen.
SCROLL = f"(to) => {{ document.querySelector('.log:not([hidden])').scrollTop = to; return ({READING})(); }}"


async def test_scrolling_back_loads_older_messages_and_nothing_jumps(house: House, demo: Demo, screen: str) -> None:
    texts = [f"Message {number} " + "and more " * (number % 9) for number in range(1, 81)]
    await demo.remember(texts)
    await asyncio.to_thread(demo.start)
    ada = await house.enter("Ada", "group", port=demo.port)
    await ada.sees("You are in, as Ada.")
    assert await ada.messages.all_text_contents() == texts[50:]
    await expect(ada.messages.last).to_be_in_viewport()
    await expect(ada.log.locator("time").first).to_contain_text("Jan")

    # By scrolling up, as soon as the beginning is near.
    await ada.page.evaluate(SCROLL, 200)
    assert await ada.messages.count() == 30
    reading = await ada.page.evaluate(SCROLL, 70)
    await expect(ada.messages).to_have_count(60)
    await ada.still_reads(reading)
    assert await ada.messages.all_text_contents() == texts[20:]

    # What is said meanwhile moves nothing either. Then with a keyboard at the desk, and to the very top on the phone.
    older = ada.button("Older messages")
    reading = await ada.page.evaluate(READING)
    bob = await house.enter("Bob", "group", port=demo.port)
    await ada.sees_who_is_there("Ada", "Bob")
    await ada.still_reads(reading)
    await bob.say("Now")
    await expect(ada.messages).to_have_count(61)
    await ada.still_reads(reading)
    await expect(ada.button("New messages")).to_be_visible()
    if screen == "desk":
        await older.focus()
        await expect(older).to_be_in_viewport()
        reading = await ada.page.evaluate(READING)
        await ada.page.keyboard.press("Enter")
    else:
        reading = await ada.page.evaluate(SCROLL, 0)
    await expect(ada.messages).to_have_count(81)
    await ada.still_reads(reading)
    assert await ada.messages.all_text_contents() == [*texts, "Now"]
    await expect(older).to_be_hidden()
    await expect(ada.log.get_by_text("Nothing older is kept.")).to_have_count(1)
    if screen == "desk":
        await expect(ada.log).to_be_focused()
    await ada.press("New messages")
    await expect(ada.messages.last).to_be_in_viewport()
    await expect(ada.button("New messages")).to_be_hidden()


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
        assert await obstacles(visitor.page) == [], name

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
    await ada.sees_people("Bob", "Cleo", f"{long_name} you")
    await cleo.say(long_word)
    await bob.press(bob.button(long_name))
    await bob.say("Just for you")
    await expect(ada.page.locator(".whispered")).to_be_visible()
    await cleo.text.press_sequentially("W")
    await ada.press(ada.button("Bob"))
    await expect(ada.typing).to_have_text("Cleo is writing…")
    for visitor, name in ((ada, "group"), (bob, "group-private")):
        await look(visitor, name)
