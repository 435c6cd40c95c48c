"""The server of the dashboard: what is told, how often, and what a slow client is spared."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from examples.dashboard.app import METRICS, STATIC, Producer, Shop, make_app
from fastapi_consumers.testing import WebsocketCommunicator, lifespan

NAMES = {metric.name for metric in METRICS}


class Scripted(Shop):
    """Its values are what the test says."""

    def __init__(self, **values: float) -> None:
        super().__init__(seed=1)
        self.values = values

    def measure(self) -> dict[str, float]:
        return dict(self.values)


@pytest.fixture
def shop() -> Scripted:
    return Scripted(load=1, response=1, visitors=1, orders=1)


@pytest.fixture
def app(shop: Scripted) -> FastAPI:
    """One whose producer does nothing by itself."""
    return make_app(shop, interval=3600, slow=3600)


def producer_of(client: WebsocketCommunicator) -> Producer:
    producer: Producer = client.scope["state"]["producer"]
    return producer


async def readings(client: WebsocketCommunicator, count: int) -> dict[str, float]:
    """The next ones: metric → value. No metric comes twice."""
    found = [(await client.assert_event("reading", group="board"))["data"] for _ in range(count)]
    assert len({reading["metric"] for reading in found}) == count
    return {reading["metric"]: reading["value"] for reading in found}


async def test_who_comes_is_told_what_there_is_and_the_last_minute(app: FastAPI, shop: Scripted) -> None:
    async with WebsocketCommunicator(app, "/ws") as first:
        welcome = (await first.assert_event("welcome"))["data"]
        assert {metric["name"] for metric in welcome["metrics"]} == NAMES
        assert welcome["recent"] == {name: [] for name in NAMES}
        for load in (1, 2):
            shop.values["load"] = load
            producer_of(first).measure()
            await producer_of(first).tell()
        async with WebsocketCommunicator(app, "/ws") as second:
            recent = (await second.assert_event("welcome"))["data"]["recent"]
            assert [value for _, value in recent["load"]] == [1, 2]
            assert [value for _, value in recent["orders"]] == [1]


async def test_of_many_measurements_the_newest_is_told_if_it_is_another_one(app: FastAPI, shop: Scripted) -> None:
    async with WebsocketCommunicator(app, "/ws") as client:
        await client.assert_event("welcome")
        producer = producer_of(client)
        for load in range(20):
            shop.values["load"] = load
            producer.measure()
        await producer.tell()
        assert await readings(client, 4) == {"load": 19, "response": 1, "visitors": 1, "orders": 1}
        shop.values["orders"] = 7
        producer.measure()
        await producer.tell()
        await producer.tell()
        assert await readings(client, 1) == {"orders": 7}
        assert await client.receive_nothing()


async def test_a_slow_client_gets_the_newest_of_each_metric(app: FastAPI, shop: Scripted) -> None:
    async with WebsocketCommunicator(app, "/ws", max_unread=1) as slow, WebsocketCommunicator(app, "/ws") as fast:
        await fast.assert_event("welcome")
        producer = producer_of(slow)
        for value in range(1, 51):
            shop.values = dict.fromkeys(NAMES, value)
            producer.measure()
            await producer.tell()
            assert await readings(fast, 4) == dict.fromkeys(NAMES, value)

        await slow.assert_event("welcome")
        # One was being written when it began to wait.
        first = (await slow.assert_event("reading"))["data"]
        assert first["value"] == 1
        assert await readings(slow, 4) == dict.fromkeys(NAMES, 50)
        line = await slow.call("line")
        assert line["coalesced"] == 50 * 4 - 1 - 4
        assert (await fast.call("line"))["coalesced"] == 0


async def test_only_who_asks_for_a_slow_line_has_one(app: FastAPI) -> None:
    async with WebsocketCommunicator(app, "/ws?line=slow") as slow, WebsocketCommunicator(app, "/ws") as fast:
        await fast.assert_event("welcome")
        assert await slow.receive_nothing()


async def test_the_producer_lives_as_long_as_the_app() -> None:
    app = make_app(interval=0.01)
    async with lifespan(app):
        async with WebsocketCommunicator(app, "/ws") as client:
            await client.assert_event("welcome")
            told: set[Any] = set()
            async with asyncio.timeout(20):
                while told < NAMES:
                    told.add((await client.assert_event("reading"))["data"]["metric"])
        running = [task for task in asyncio.all_tasks() if "Producer.run" in repr(task)]
        assert len(running) == 1
    assert running[0].done()


def test_the_shop_stays_within_what_the_page_shows() -> None:
    shop = Shop(seed=4)
    high = {metric.name: metric.high for metric in METRICS}
    for _ in range(2000):
        values = shop.measure()
        assert values.keys() == NAMES
        assert all(value >= 0 for value in values.values())
        assert values["load"] <= high["load"]
        assert values["visitors"] <= high["visitors"]


async def test_the_page_loads_only_what_the_app_serves(app: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        page = await client.get("/")
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        links = set(re.findall(r'(?:src|href)="([^"#]+)"', page.text))
        for file in STATIC.iterdir():
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "://" not in text, file.name
            assert "innerHTML" not in text, file.name
            links |= set(re.findall(r'from "([^"]+)"', text))
        assert links == {f"/static/{file.name}" for file in STATIC.iterdir() if file.name != "index.html"}
        for link in links:
            assert (await client.get(link)).status_code == 200, link
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=", page.text)
