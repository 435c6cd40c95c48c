"""Metrics as Prometheus scrapes them from a real server."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fastapi_consumers import GroupConsumer, action, add_consumers, event, path
from fastapi_consumers.contrib.prometheus import Metrics, metrics_router
from fastapi_consumers.contrib.prometheus.families import Family, add_up
from fastapi_consumers.contrib.prometheus.workers import Workers
from fastapi_consumers.exceptions import ConsumerError
from fastapi_consumers.testing import WebsocketCommunicator
from tests.contrib.conftest import Serve


class Room(GroupConsumer):
    groups = ["room.{room}"]

    @action
    async def echo(self, text: str) -> str:
        return text

    @action
    async def fail(self, code: str) -> None:
        raise ConsumerError(code, "no")

    @action
    async def tell(self, text: str) -> None:
        await self.channel_layer.group_send("room.one", {"type": "heard", "text": text})

    @event("heard")
    async def heard(self, message: dict) -> None:
        await self.send_event("heard", message["text"])


class Locked(Room):
    def get_groups(self) -> list[str]:
        raise ConsumerError("locked", "no")


def room_app(metrics: Metrics, **options: Any) -> FastAPI:
    app = FastAPI()
    add_consumers(app, [path("/locked/{room}", Locked), path("/{room}", Room)], observers=[metrics])
    app.include_router(metrics_router(metrics, **{"registry": None, **options}))
    return app


def parsed(text: str) -> dict[tuple[Any, ...], float]:
    """Sample and sorted labels' values to its value."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        (each.name.removeprefix("fastapi_consumers_"), *(label for _, label in sorted(each.labels.items()))): each.value
        for each in samples
    }


async def scrape(port: int, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        response = await client.get(f"http://127.0.0.1:{port}/metrics", headers=headers)
    return response


async def scraped_until(port: int, key: tuple[Any, ...], value: float) -> dict[tuple[Any, ...], float]:
    async with asyncio.timeout(30):
        while (found := parsed((await scrape(port)).text)).get(key) != value:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.02)
    return found


async def test_what_clients_did_is_what_is_scraped(serve: Serve) -> None:
    port = await serve(room_app(Metrics()))
    texts = [
        json.dumps({"action": "echo", "request_id": 1, "data": {"text": "grün"}}, ensure_ascii=False),
        json.dumps({"action": "fail", "request_id": 2, "data": {"code": "sold"}}),
        json.dumps({"action": "steal\n{}", "request_id": 3}),
        json.dumps({"action": "tell", "data": {"text": "hi"}}),
    ]
    async with connect(f"ws://127.0.0.1:{port}/one?token=secret", compression=None) as client:
        answers = []
        for text in texts:
            await client.send(text)
            answers.append(await client.recv())
        found = await scraped_until(port, ("calls_total", "Room", "event", "heard", "ok"), 1)
        assert found["connections", "Room"] == 1
        assert found["messages_received_total", "Room"] == 4
        assert found["messages_sent_total", "Room"] == 4
        assert found["received_bytes_total", "Room"] == sum(len(text.encode()) for text in texts)
        assert found["sent_bytes_total", "Room"] == sum(len(str(answer).encode()) for answer in answers)
        assert found["healthy",] == 1
        assert found["groups",] == 1
    # Of the handshake that is refused, of a close with a code of the client's own, and of the connection above.
    with pytest.raises(InvalidStatus):
        await connect(f"ws://127.0.0.1:{port}/locked/one")
    other = await connect(f"ws://127.0.0.1:{port}/one")
    await other.close(4321)
    found = await scraped_until(port, ("connections_closed_total", "client", "other", "Room"), 1)
    assert found["connections_closed_total", "client", "1000", "Room"] == 1
    assert found["connections_opened_total", "Room"] == 2
    assert found["connections_refused_total", "Locked", "locked"] == 1
    assert found["connections", "Room"] == 0
    # Nothing is forgotten with the connection.
    assert found["messages_received_total", "Room"] == 4
    calls = {key[2:]: value for key, value in found.items() if key[0] == "calls_total"}
    assert calls == {
        ("action", "echo", "ok"): 1,
        ("action", "fail", "sold"): 1,
        ("action", "unknown", "action_not_found"): 1,
        ("action", "tell", "ok"): 1,
        ("event", "heard", "ok"): 1,
    }
    assert found["errors_total", "sold", "Room"] == 1
    assert found["call_duration_seconds_count", "Room", "action", "echo"] == 1
    assert 0 < found["call_duration_seconds_sum", "Room", "action", "echo"] < 60
    of_echo = "call_duration_seconds_bucket", "Room"
    buckets = [value for key, value in found.items() if key[:2] == of_echo and "echo" in key]
    assert len(buckets) == 15
    assert buckets == sorted(buckets)
    assert buckets[-1] == 1
    assert "secret" not in (await scrape(port)).text
    assert "steal" not in (await scrape(port)).text


async def test_codes_that_an_application_makes_up_do_not_grow_without_end() -> None:
    metrics = Metrics()
    async with WebsocketCommunicator(room_app(metrics), "/one") as client:
        for number in range(300):
            await client.send_json_to({"action": "fail", "request_id": 1, "data": {"code": f"code_{number}"}})
            assert (await client.receive_json_from())["error"]["code"] == f"code_{number}"
    families = {family.name.removeprefix("fastapi_consumers_"): family for family in metrics.families()}
    for name in ("calls", "errors"):
        samples = {labels[-1]: value for labels, value in families[name].samples}
        assert len(samples) == 101
        assert samples["other"] == 200


async def test_openmetrics_is_answered_where_it_is_asked_for(serve: Serve) -> None:
    port = await serve(room_app(Metrics()))
    plain = await scrape(port)
    assert plain.headers["content-type"].startswith("text/plain")
    open_metrics = await scrape(port, accept="application/openmetrics-text; version=1.0.0")
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")


async def test_the_endpoint_can_be_guarded_and_answers_for_a_registry_too(serve: Serve) -> None:
    def refuse(allowed: str = "no") -> None:
        if allowed != "yes":
            raise HTTPException(403)

    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc(3)
    app = room_app(Metrics(), registry=registry, path="/inside", dependencies=[Depends(refuse)])
    port = await serve(app)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/inside")).status_code == 403
        assert "orders_total 3.0" in (await client.get("/inside?allowed=yes")).text


def test_metrics_are_of_one_application() -> None:
    metrics = Metrics()
    room_app(metrics)
    with pytest.raises(RuntimeError, match="one application"):
        room_app(metrics)


@pytest.mark.parametrize("buckets", [(), (1, 1), (2, 1)])
def test_bounds_rise(buckets: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        Metrics(buckets=buckets)


def one(kind: Any, value: Any) -> list[Family]:
    return [Family(kind, "n", "doc", ["l"], [(["x"], value)])]


@pytest.mark.parametrize(
    ("kind", "values", "total"),
    [
        ("counter", (1, 2), 3),
        ("gauge", (1, 2), 3),
        ("least", (1, 0), 0),
        ("most", (1.5, 0), 1.5),
        ("histogram", ([1, 0, 0.5], [2, 3, 1.0]), [3, 3, 1.5]),
    ],
)
def test_several_processes_are_added_up(kind: Any, values: tuple[Any, Any], total: Any) -> None:
    (family,) = add_up([(True, one(kind, values[0])), (True, one(kind, values[1]))])
    assert family.samples == [(["x"], total)]


def test_what_a_dead_worker_counted_stays_and_its_gauges_go(tmp_path: Any) -> None:
    one_worker, other = Workers(tmp_path / "shared"), Workers(tmp_path / "shared")
    one_worker.open()
    other.open()
    own, left = [*one("counter", 1), *one("gauge", 1)], [*one("counter", 5), *one("gauge", 5)]
    own[1], left[1] = own[1]._replace(name="g"), left[1]._replace(name="g")
    other.write(left)
    assert [family.samples[0][1] for family in one_worker.read(own)] == [6, 6]
    other.close()
    assert [family.samples[0][1] for family in one_worker.read(own)] == [6, 1]
    # A file that cannot be told from one of a worker whose lock was deleted.
    next((tmp_path / "shared").glob(f"{other._name}.lock")).unlink()
    assert [family.samples[0][1] for family in one_worker.read(own)] == [6, 1]
    one_worker.close()
