"""A live dashboard of a web shop: many readings, few updates, and for whoever is slow only the newest.

Run ``uvicorn examples.dashboard.app:app`` and open http://127.0.0.1:8000/. The shop is simulated: put what you measure
in its place.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random, shuffle
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_consumers import BrokerUnavailable, Consumers, GroupConsumer, action, add_consumers, path

STATIC = Path(__file__).parent / "static"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}

GROUP = "board"
#: Seconds between two updates of a metric, at least.
INTERVAL = 0.2
#: How often it is measured in that time.
MEASUREMENTS = 10
#: How many updates a page begins with: those of a minute.
REMEMBERED = round(60 / INTERVAL)
#: Seconds for each message on the line that is slow on purpose.
SLOW = 0.5

# -- what is measured ------------------------------------------------------------------------------------------------


class Metric(BaseModel):
    """What the page needs to show a value. One with a limit is shown as a gauge."""

    name: str
    label: str
    unit: str = ""
    high: float
    limit: float | None = None


METRICS = [
    Metric(name="load", label="Load of the servers", unit="%", high=100, limit=80),
    Metric(name="response", label="Time of response", unit="ms", high=600, limit=400),
    Metric(name="visitors", label="Visitors", high=900),
    Metric(name="orders", label="Orders per minute", high=80),
]


class Shop:
    """A shop that is not there. Its visitors come and go by chance; all else follows from how many there are."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = Random(seed)
        self._visitors = 450.0

    def measure(self) -> dict[str, float]:
        """A value for each metric, as it is now."""
        noise = self._random.gauss
        self._visitors = min(max(self._visitors + (450 - self._visitors) / 400 + noise(0, 9), 20), 900)
        load = min(self._visitors / 8 + abs(noise(0, 1.5)), 100)
        return {
            "visitors": round(self._visitors),
            "orders": max(round(self._visitors * 0.085 + noise(0, 0.8), 1), 0),
            "load": round(load, 1),
            "response": round(60 + 5 * load**2 / 100 + abs(noise(0, 6))),
        }


# -- the producer ----------------------------------------------------------------------------------------------------


class Producer:
    """Measures often, and tells of it less often: of each metric its newest value, if that is another one."""

    def __init__(self, consumers: Consumers, shop: Shop, interval: float) -> None:
        self._consumers = consumers
        self._shop = shop
        self._interval = interval
        self._newest: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._recent = {metric.name: deque[tuple[float, float]](maxlen=REMEMBERED) for metric in METRICS}

    def recent(self) -> dict[str, list[tuple[float, float]]]:
        """Metric → the newest (time, value) that were told, the oldest first; the time in seconds since 1970."""
        return {metric: list(told) for metric, told in self._recent.items()}

    async def run(self) -> None:
        while True:
            for _ in range(MEASUREMENTS):
                self.measure()
                await asyncio.sleep(self._interval / MEASUREMENTS)
            try:
                await self.tell()
            except BrokerUnavailable:
                pass  # the next values are newer anyway

    def measure(self) -> None:
        self._newest.update(self._shop.measure())

    async def tell(self) -> None:
        at = round(time.time(), 3)
        changed = [(metric, value) for metric, value in self._newest.items() if self._told.get(metric) != value]
        # While a client does not keep up, one reading of each metric waits for it, and the newest at the end. In an
        # order that never changes one that is very slow would only ever be sent the first.
        shuffle(changed)
        for metric, value in changed:
            reading = {"metric": metric, "at": at, "value": value}
            await self._consumers.broadcast(GROUP, "reading", reading, coalesce_key=metric)
            self._told[metric] = value
            self._recent[metric].append((at, value))


# -- who looks at it -------------------------------------------------------------------------------------------------


class Line(BaseModel):
    """How it goes between the server and one client, in messages."""

    sent: int
    waiting: int
    #: Readings that a newer one of their metric replaced before they were sent.
    coalesced: int


class Board(GroupConsumer):
    groups = [GROUP]
    overflow = "coalesce"
    # More than one of each metric, and an answer or two, never wait.
    max_outbox = 16
    throttle_classes = ["20/10 seconds"]
    max_message_size = 1024

    async def on_join(self, group: str) -> None:
        producer: Producer = self.websocket.state.producer
        await self.send_event("welcome", {"metrics": METRICS, "recent": producer.recent()})

    @action
    async def line(self) -> Line:
        outbox = self.connection.outbox
        return Line(sent=outbox.sent, waiting=outbox.waiting, coalesced=outbox.coalesced)


class SlowLine:
    """Middleware that takes its time for each message to a socket that was opened with ``?line=slow``.

    Only to see what happens then. A real slow line needs no code: the server's ``send`` waits all by itself.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_slowly(message: Message) -> None:
            if message["type"] == "websocket.send":
                await asyncio.sleep(self._seconds)
            await send(message)

        slow = scope["type"] == "websocket" and parse_qs(scope["query_string"]).get(b"line") == [b"slow"]
        await self._app(scope, receive, send_slowly if slow else send)


# -- the application -------------------------------------------------------------------------------------------------


def make_app(shop: Shop | None = None, *, interval: float = INTERVAL, slow: float = SLOW) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        # The consumers are open by now, and stay so until this has ended.
        producer = Producer(app.state.consumers, shop or Shop(), interval)
        task = asyncio.create_task(producer.run())
        try:
            yield {"producer": producer}
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    app = FastAPI(title="Dashboard", lifespan=lifespan)
    app.add_middleware(SlowLine, seconds=slow)
    add_consumers(app, [path("/ws", Board, name="board")])

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


app = make_app()
