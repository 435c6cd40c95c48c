#!/usr/bin/env python3
"""The dashboard with thousands of connections: how soon it shows something, what it costs, and what it looks like.

python benchmarks/dashboard.py                                  # the figures, in a Chromium
python benchmarks/dashboard.py --pictures docs/images           # the pictures of the docs
python benchmarks/dashboard.py --serve                          # to look at it oneself

The connections are real ones but for the network: each is an ASGI socket in the server's own process, whose `send` does
nothing. The page is served over HTTP and WebSocket by uvicorn; its time is Chromium's,
from the navigation on. Needs playwright and a Chromium.
"""

import argparse
import asyncio
import contextlib
import math
import random
import resource
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from page import put
from pydantic import BaseModel
from report import stamp, table
from starlette.requests import HTTPConnection

sys.path.append(str(Path(__file__).resolve().parent.parent))

from fastapi_consumers import GroupConsumer, action, add_consumers, cron, every, path
from fastapi_consumers.admin import admin_router
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.history import History
from fastapi_consumers.presence import Presence
from fastapi_consumers.schedules import ScheduledRun

NAMES = ["ada", "bela", "chen", "dmitri", "emeka", "farah", "goran", "hana", "ines", "jonas", "kofi", "lena", "mira"]
ROOMS = ["lobby", "support", "berlin", "lagos", "taipei", "music", "chess", "garden", "night-shift", "release-42"]
WORDS = ["Hello!", "Who has the release notes?", "On my way.", "Thanks"]


class User:
    def __init__(self, id: str) -> None:
        self.id = id


class ByName(BaseAuthentication):
    async def authenticate(self, connection: Any) -> Any:
        name = connection.websocket.query_params.get("name")
        return (User(name), None) if name else None


class Say(BaseModel):
    text: str


class ChatRoom(GroupConsumer):
    groups = ["chat.{room}"]
    authentication_classes = [ByName]
    throttle_classes = ["20/second; 600/minute"]
    history = History(size=100)
    presence = Presence(key=lambda consumer: consumer.user.id, count_only=True)

    @action
    async def say(self, data: Say) -> None:
        await self.broadcast("said", {"by": self.user.id, "text": data.text})


class Prices(GroupConsumer):
    groups = ["prices.{symbol}", "prices.all"]
    overflow = "coalesce"

    @action(deprecated=True)
    async def subscribe(self) -> None: ...


class Document(GroupConsumer):
    groups = ["document.{id}"]
    authentication_classes = [ByName]

    @action(concurrent=True, timeout=5)
    async def export(self) -> str:
        return ""


def require_key(connection: HTTPConnection) -> None:
    if connection.cookies.get("admin") != "yes":
        raise HTTPException(401)


def make_app() -> FastAPI:
    app = FastAPI()
    routes = [
        path("/chat/{room}", ChatRoom, name="chat"),
        path("/prices/{symbol}", Prices, name="prices"),
        path("/documents/{id:int}", Document, name="document"),
    ]
    consumers = add_consumers(app, routes, trusted_proxies=["10.0.0.0/8"])

    @consumers.schedule(every("7s", name="prices.import"))
    async def import_prices(run: ScheduledRun) -> None:
        if run.at.second % 3 == 0:
            raise TimeoutError

    app.include_router(admin_router(dependencies=[Depends(require_key)]))

    @app.get("/enter")
    async def enter() -> Any:
        from starlette.responses import RedirectResponse

        answer = RedirectResponse("/admin")
        answer.set_cookie("admin", "yes", httponly=True, samesite="strict")
        return answer

    return app


async def connect(app: FastAPI, number: int, opened: asyncio.Semaphore, ends: asyncio.Event | None = None) -> None:
    """One connection that stays until ``ends``. Which kind, and whose, depends on its number."""
    chance = random.Random(number)
    kind = chance.choices(("chat", "prices", "documents"), (6, 3, 2))[0]
    name = f"{chance.choice(NAMES)}{number}"
    where = {
        "chat": f"/chat/{ROOMS[min(int(chance.expovariate(0.4)), 9)] if number % 3 else f'room-{number % 997}'}",
        "prices": f"/prices/{chance.choice(['BTC', 'ETH', 'EUR', 'GOLD'])}",
        "documents": f"/documents/{chance.randrange(400)}",
    }[kind]
    scope = {
        "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "scheme": "ws",
        "path": where, "raw_path": where.encode(), "root_path": "",
        "query_string": b"" if kind == "prices" else f"name={name}".encode(),
        "headers": [(b"host", b"test")], "client": (f"203.0.113.{number % 254 + 1}", 40000 + number % 20000),
        "server": ("test", 80), "subprotocols": [], "extensions": {},
    }  # fmt: skip
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    messages.put_nowait({"type": "websocket.connect"})

    async def send(message: Any) -> None:
        if message["type"] == "websocket.accept":
            opened.release()

    serving = asyncio.create_task(app(scope, messages.get, send))
    if ends is not None:
        await ends.wait()
        messages.put_nowait({"type": "websocket.disconnect", "code": 1001})
    await serving


async def come_and_go(app: FastAPI, most: int) -> None:
    """Some connections more, as many as the time of day makes it."""
    started, guests, opened = time.monotonic(), [], asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        while True:
            now = time.monotonic() - started
            wanted = int(most * (0.5 + 0.4 * math.sin(now / 17) + 0.1 * math.sin(now / 3)))
            while len(guests) > wanted:
                guests.pop(0).set()
            while len(guests) < wanted:
                guests.append(asyncio.Event())
                number = random.randrange(10_000, 99_999)
                group.create_task(connect(app, number, opened, guests[-1]))
            await asyncio.sleep(0.5)


async def talk(app: FastAPI, rate: float) -> None:
    """Something goes on in all of the groups."""
    consumers, chance = app.state.consumers, random.Random(7)
    started, count = time.monotonic(), 0
    while True:
        now = time.monotonic() - started
        # Livelier at some times than at others, so that there is something to see.
        wanted = rate * (1 + 0.6 * ((now / 23) % 1 - 0.5) + 0.25 * chance.random())
        room = chance.choice(ROOMS[4:])
        if chance.random() < 0.3:
            data = {"symbol": "BTC", "price": 64000 + chance.randrange(900)}
            await consumers.broadcast(f"prices.{chance.choice(['ETH', 'EUR'])}", "price", data)
        else:
            said = {"by": chance.choice(NAMES), "text": chance.choice(WORDS)}
            await consumers.broadcast(f"chat.{room}", "said", said)
        count += 1
        await asyncio.sleep(1 / wanted)


async def add_schedules(app: FastAPI) -> None:
    """Some that are made at run time, as on the page."""
    schedules = app.state.consumers.schedules
    for name, when, group, event in (
        ("closing-bell", cron("30 17 * * 1-5", tz="Europe/Berlin"), "prices.all", "closed"),
        ("lobby.heartbeat", every("5s"), "chat.lobby", "tick"),
        ("maintenance", cron("0 4 * * 0"), "chat.support", "maintenance"),
        ("night-shift.break", cron("0 2,5 * * *", tz="Asia/Taipei"), "chat.night-shift", "break"),
        ("release.reminder", every("6h"), "chat.release-42", "reminder"),
    ):
        await schedules.create(name, when, group=group, event=event)
    await schedules.pause("maintenance")


@contextlib.asynccontextmanager
async def running(connections: int, rate: float, guests: int = 0) -> AsyncIterator[tuple[FastAPI, str]]:
    app = make_app()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws_per_message_deflate=False))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    opened = asyncio.Semaphore(0)
    tasks = {asyncio.create_task(connect(app, number, opened)) for number in range(connections)}
    for _ in range(connections):
        await opened.acquire()
    await add_schedules(app)
    tasks.add(asyncio.create_task(talk(app, rate)))
    tasks.add(asyncio.create_task(come_and_go(app, guests)))
    try:
        yield app, f"http://127.0.0.1:{port}"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.should_exit = True
        await serving


def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        sys.exit("no Chromium on PATH")
    return found


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[Any]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            await browser.close()


async def measure(connections: int, rate: float, seconds: float, docs: Path | None) -> None:
    async with running(connections, rate) as (_, url), browsing() as browser:
        await asyncio.sleep(2)
        busy = await cpu(seconds / 2)
        body = []
        for section, selector in (
            ("overview", "#card-connections .line[d]"),
            ("connections", "#connections-list tbody tr"),
            ("groups", "#groups-list tbody tr"),
            ("console/prices.ETH", "#log li"),
        ):
            page = await browser.new_page()
            await page.context.add_cookies([{"name": "admin", "value": "yes", "url": url}])
            received = {"bytes": 0}

            def count(socket: Any, received: dict[str, int] = received) -> None:
                def add(payload: Any) -> None:
                    received["bytes"] += len(payload)

                socket.on("framereceived", add)
                socket.on("framesent", add)

            page.on("websocket", count)
            await page.goto(f"{url}/admin#/{section}", wait_until="commit")
            await page.wait_for_selector(selector, state="attached")
            first = await page.evaluate("performance.now() / 1000")
            await asyncio.sleep(2)
            received["bytes"], start = 0, time.monotonic()
            busy_with = await cpu(seconds)
            kib = received["bytes"] / 1024 / (time.monotonic() - start)
            more = f"{(busy_with - busy) * 1000:.0f} ms"
            body.append([section, f"{first:.1f} s", f"{kib:.1f} KiB/s", f"{busy_with:.1%}", more])
            await page.context.clear_cookies()
            await page.close()
        head = [
            "section",
            "first data after",
            "traffic of the page",
            "process, of a core",
            "more than without, in a second",
        ]
        told = table(head, body)
        what = f"{connections} connections, {rate:g} broadcasts a second; without a page {busy:.1%} of a core"
        told += f"\n\n{stamp()}; {what}."
        print(told)
        if docs:
            put(docs / "admin.md", "dashboard", told)


async def cpu(seconds: float) -> float:
    """Which part of a core this process took."""

    def used() -> float:
        found = resource.getrusage(resource.RUSAGE_SELF)
        return found.ru_utime + found.ru_stime

    before, began = used(), time.monotonic()
    await asyncio.sleep(seconds)
    return (used() - before) / (time.monotonic() - began)


PICTURES = (
    ("overview-light", "overview", "light", (1200, 900)),
    ("overview-dark", "overview", "dark", (1280, 860)),
    ("connections-light", "connections", "light", (1200, 620)),
    ("console-dark", "console/chat.night-shift", "dark", (1200, 860)),
    ("system-light", "system", "light", (1280, 1000)),
    ("routes-dark", "routes", "dark", (1280, 860)),
    ("groups-dark", "groups", "dark", (1200, 620)),
    ("schedules-light", "schedules", "light", (1200, 960)),
    ("phone-overview", "overview", "light", (390, 844)),
    ("phone-connections", "connections", "dark", (390, 844)),
    ("phone-console", "console/chat.night-shift", "light", (390, 844)),
    ("phone-schedules", "schedules", "dark", (390, 844)),
)


async def pictures(folder: Path, only: list[str], wait: float) -> None:
    async with running(2000, 40, 900) as (_, url), browsing() as browser:
        for name, section, scheme, (width, height) in PICTURES:
            if only and name not in only:
                continue
            page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            await page.context.add_cookies([{"name": "admin", "value": "yes", "url": url}])
            page.on("console", lambda message: print(message.text))
            page.on("pageerror", lambda error: print(error))
            await page.goto(f"{url}/admin#/{section}")
            await page.wait_for_selector("#state[data-state=connected]")
            await asyncio.sleep(min(wait, 5) if section not in ("overview", "schedules") else wait)
            if section.startswith("console"):
                await page.get_by_role("button", name="Load history").click()
                await page.get_by_role("button", name="Show who is here").click()
                await asyncio.sleep(0.5)
            elif section == "groups":
                await page.get_by_role("combobox", name="Order").select_option("size")
                await asyncio.sleep(0.5)
            elif section == "schedules":
                await page.get_by_role("combobox", name="When").select_option("cron")
            await page.screenshot(path=folder / f"dashboard-{name}.png")
            await page.context.clear_cookies()
            await page.close()


async def serve() -> None:
    async with running(2000, 40, 900) as (_, url):
        print(f"{url}/enter")
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=50.0, help="broadcasts a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="for which each section is measured")
    parser.add_argument("--pictures", type=Path, help="the folder to put pictures in")
    parser.add_argument("--only", nargs="*", default=[], help="which pictures")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds before a picture of plots and schedules")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--docs", type=Path, help="folder of admin.md, to put the figures there")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
    elif options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        asyncio.run(pictures(options.pictures, options.only, options.wait))
    else:
        asyncio.run(measure(options.connections, options.rate, options.seconds, options.docs))


if __name__ == "__main__":
    main()
