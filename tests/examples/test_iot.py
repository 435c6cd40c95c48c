"""The fleet: who may send, what is taken, and what those who watch are told."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from examples.iot.app import STATIC, make_app
from examples.iot.fleet import LENGTH, MAX_SENSORS, Fleet, Reading
from fastapi_consumers.testing import CallError, Clock, WebsocketCommunicator

KEYS = {"greenhouse": "k-greenhouse", "cellar": "k-cellar"}


@pytest.fixture
def app() -> FastAPI:
    return make_app(KEYS, grace=0.1)


def device(app: FastAPI, name: str, *, subprotocols: tuple[str, ...] = ("fc.v1.msgpack",)) -> WebsocketCommunicator:
    headers = {"X-API-Key": KEYS.get(name, name)}
    return WebsocketCommunicator(app, "/ws/device", headers=headers, subprotocols=subprotocols)


def watcher(app: FastAPI) -> WebsocketCommunicator:
    return WebsocketCommunicator(app, "/ws/watch")


def batch(*values: float, sensor: str = "temperature", since: float = 1.7e9) -> dict[str, Any]:
    return {"readings": [{"sensor": sensor, "value": value, "at": since + at} for at, value in enumerate(values)]}


async def presence(socket: WebsocketCommunicator, change: str, *names: str) -> None:
    """Just these devices come (``joins``) or go (``leaves``), in however many notices."""
    found: set[str] = set()
    while found != set(names):
        frame = await socket.receive_json_from(20)
        if frame["type"] == "presence":
            found |= set(frame[change])
            assert found <= set(names)


class TestDevices:
    async def test_a_batch_comes_to_those_who_watch(self, app: FastAPI) -> None:
        async with device(app, "greenhouse") as sender, watcher(app) as people:
            assert sender.subprotocol == "fc.v1.msgpack"
            await people.assert_event("welcome")
            assert await sender.call("ingest", batch(20.5, 21)) == 2
            frame = await people.assert_event("readings", group="watchers")
            assert frame["data"]["device"] == "greenhouse"
            assert [(each["sensor"], each["value"]) for each in frame["data"]["readings"]] == [
                ("temperature", 20.5),
                ("temperature", 21),
            ]
            assert [seen for seen in await people.call("look") if seen["sensors"]] == [
                {"id": "greenhouse", "sensors": {"temperature": batch(20.5, 21)["readings"]}}
            ]

    async def test_what_is_sent_again_is_taken_once(self, app: FastAPI) -> None:
        async with device(app, "greenhouse") as sender:
            assert await sender.call("ingest", batch(1, 2)) == 2
            assert await sender.call("ingest", batch(1, 2, 3)) == 1
            assert await sender.call("ingest", batch(1, 2, 3)) == 0

    @pytest.mark.parametrize("name", ["nobody", ""])
    async def test_a_key_that_nobody_has_is_refused(self, app: FastAPI, name: str) -> None:
        assert await device(app, name).connect() == (False, 4401)

    async def test_nobody_comes_without_a_key_or_in_json(self, app: FastAPI) -> None:
        anonymous = WebsocketCommunicator(app, "/ws/device", subprotocols=["fc.v1.msgpack"])
        assert await anonymous.connect() == (False, 4401)
        assert await device(app, "cellar", subprotocols=("fc.v1.json",)).connect() == (False, 4403)

    @pytest.mark.parametrize(
        "data",
        [
            batch(),
            batch(*range(101)),
            batch(1, sensor="Not A Name"),
            batch(1, since=-5),
            {"readings": [{"sensor": "t", "value": "warm", "at": 1}]},
        ],
    )
    async def test_what_is_no_batch_is_refused_as_a_whole(self, app: FastAPI, data: dict[str, Any]) -> None:
        async with device(app, "cellar") as sender, watcher(app) as people:
            with pytest.raises(CallError) as failed:
                await sender.call("ingest", data)
            assert failed.value.code == "invalid_data"
            assert [each["sensors"] for each in await people.call("look")] == [{}, {}]

    async def test_each_device_has_a_limit_of_its_own(
        self, app: FastAPI, stop_time: Callable[[FastAPI], Clock]
    ) -> None:
        stop_time(app)
        async with device(app, "greenhouse") as sender, device(app, "cellar") as other:
            for number in range(10):
                await sender.call("ingest", batch(number, since=2e9 + number))
            with pytest.raises(CallError) as failed:
                await sender.call("ingest", batch(10, since=3e9))
            assert (failed.value.code, failed.value.retry_after) == ("throttled", 2)
            assert await other.call("ingest", batch(1)) == 1

    async def test_no_device_can_watch_or_ask_for_the_fleet(self, app: FastAPI) -> None:
        async with device(app, "cellar") as sender:
            with pytest.raises(CallError) as failed:
                await sender.call("look")
            assert failed.value.code == "action_not_found"


class TestWhoIsThere:
    async def test_people_see_devices_come_and_are_not_seen(self, app: FastAPI) -> None:
        async with watcher(app) as people, watcher(app):
            async with device(app, "greenhouse"), device(app, "cellar"):
                await presence(people, "joins", "greenhouse", "cellar")
                found = await people.call("presence", {"group": "fleet"})
                assert sorted(found["members"]) == ["cellar", "greenhouse"]
            await presence(people, "leaves", "greenhouse", "cellar")


class TestTheFleet:
    def test_it_does_not_grow_without_end(self) -> None:
        fleet = Fleet(["a"])
        for number in range(LENGTH + 5):
            fleet.add("a", [Reading(sensor="t", value=number, at=number)])
        fleet.add("a", [Reading(sensor=f"s{number}", value=1, at=1) for number in range(MAX_SENSORS + 5)])
        (view,) = fleet.view()
        assert len(view.sensors) == MAX_SENSORS
        assert [each.value for each in view.sensors["t"]] == list(range(5, LENGTH + 5))


class TestThePage:
    async def test_it_loads_only_what_the_app_serves(self, app: FastAPI) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            page = await client.get("/")
            assert page.headers["content-security-policy"].startswith("default-src 'self'")
            for link in [*re.findall(r'(?:src|href)="([^"#]+)"', page.text), "/static/client.js"]:
                assert (await client.get(link)).status_code == 200, link

    def test_nothing_of_it_is_elsewhere_or_inline(self) -> None:
        for file in STATIC.iterdir():
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"://|innerHTML|<style|style=|<script(?![^>]*src=)|\son\w+=\"", text), file.name
