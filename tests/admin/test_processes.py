"""The admin API of two processes: real servers over one Valkey, and two applications over PostgreSQL."""

import asyncio
import secrets
import signal
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from tests.admin.conftest import House, make_app
from tests.server.conftest import PATIENCE, Server

pytestmark = pytest.mark.once


class AdminServer(Server):
    script = Path(__file__).parent / "app.py"

    async def ask(self, method, where, *, status=200, body=None, **params):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE) as client:
            answer = await client.request(method, f"/admin{where}", params={"key": "open", **params}, json=body)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def get(self, where, **params):
        return await self.ask("GET", where, **params)


@pytest.fixture
async def servers(broker, tmp_path, monkeypatch):
    """Two processes of one application, of which the second has no admin router."""
    monkeypatch.setenv("BROKER_URL", f"{broker.url}?prefix=t{secrets.token_hex(4)}:")
    monkeypatch.setenv("ADMIN", "30")
    with ExitStack() as stack:
        started = []
        for name in ("one", "two"):
            server = AdminServer(tmp_path / f"{name}.log", {}, ())
            stack.callback(server.stop)
            server.start()
            started.append(server)
            monkeypatch.delenv("ADMIN", raising=False)
        yield started
        for server in started:
            await server.drop_clients()
            assert server.complaints() == []


async def test_lists_and_commands_are_for_all_processes(servers):
    one, two = servers
    clients = [await server.connect(f"/room/{room}") for server in servers for room in ("a", "b", server.port)]
    found = await one.get("/processes")
    assert len(found["processes"]["answered"]) == 2
    assert {each["pid"] for each in found["results"]} == {one._process.pid, two._process.pid}
    assert [each["consumers"] for each in found["results"]] == [{"Room": 3}, {"Room": 3}]
    halves = [await one.get("/processes", limit=1)]
    halves.append(await one.get("/processes", limit=1, cursor=halves[0]["next"]))
    pids = [each["pid"] for half in halves for each in half["results"]]
    assert (pids, halves[1]["next"]) == ([each["pid"] for each in found["results"]], None)
    assert (await two.ask("GET", "/processes", status=404))["detail"] == "Not Found"

    everyone = await one.get("/connections", order="oldest")
    assert everyone["total"] == 6
    seen, cursor = [], {}
    for _ in range(3):
        page = await one.get("/connections", order="oldest", limit=2, **cursor)
        seen += page["results"]
        cursor = {"cursor": page["next"]}
    assert (seen, page["next"]) == (everyone["results"], None)
    assert len({each["process"] for each in seen}) == 2

    first = await one.get("/groups", limit=3)
    second = await one.get("/groups", limit=3, cursor=first["next"])
    expected = [*sorted((f"room.{server.port}", 1) for server in servers), ("room.a", 2), ("room.b", 2)]
    assert [(each["name"], each["connections"]) for each in first["results"] + second["results"]] == expected
    assert second["next"] is None
    by_size = await one.get("/groups", order="size", limit=2)
    assert [(each["name"], each["connections"]) for each in by_size["results"]] == [("room.a", 2), ("room.b", 2)]
    assert by_size["total"] is None
    assert (await one.get("/groups/room.b"))["connections"] == 2
    numbers = await one.get("/numbers")
    assert (numbers["connections"], numbers["processes"], numbers["silent"]) == (6, 2, 0)

    # One that is connected to the other process, all of a group, an event for both, and their loggers.
    far = next(each for each in everyone["results"] if each["groups"] == [f"room.{two.port}"])
    await one.ask("POST", "/disconnect", status=202, body={"channel": far["channel"]})
    assert (await clients[5].closed()).code == 4409
    await one.ask("POST", "/events", body={"group": "room.b", "event": "news", "data": 1})
    for client in (clients[1], clients[4]):
        assert (await client.receive_json())["event"] == "news"
    told = await one.ask("POST", "/disconnect", status=202, body={"group": "room.a"})
    assert (told["connections"], told["processes"]["silent"]) == (2, 0)
    for client in (clients[0], clients[3]):
        assert (await client.closed()).code == 4409
    levels = (await one.ask("PUT", "/log-level", body={"level": "ERROR"}))["levels"]
    assert [each["fastapi_consumers"] for each in levels.values()] == ["ERROR", "ERROR"]


async def test_throttles_are_reset_where_they_are_counted(servers):
    one, two = servers
    codes = []
    for server in (one, two, one):
        client = await server.connect("/room/a")
        await client.send_json(action="say", request_id=1, data={"text": "x"})
        while (frame := await client.receive_json()).get("request_id") != 1:
            pass
        codes.append(frame.get("error", {}).get("code"))
        await client.close()
        if server is two:
            found = await one.ask("POST", "/throttles/reset", body={"address": "127.0.0.1"})
            assert found["reset"] == 1
    assert codes == [None, "throttled", None]


async def test_a_process_that_hangs_is_named_and_one_that_is_gone_is_not(servers, monkeypatch, tmp_path):
    one, two = servers
    monkeypatch.setenv("ADMIN", "3")
    with ExitStack() as stack:
        three = AdminServer(tmp_path / "three.log", {}, ())
        stack.callback(three.stop)
        three.start()
        everyone = (await one.get("/processes"))["results"]
        assert len(everyone) == 3
        frozen = next(each["process"] for each in everyone if each["pid"] == two._process.pid)
        two.signal(signal.SIGSTOP)
        try:
            # It has not been heard of here, so that it is only known that there is one.
            found = (await three.get("/numbers"))["silent"], (await three.get("/processes"))["processes"]
            assert found[0] == found[1]["silent"] == 1
        finally:
            two.signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            while frozen not in (await three.get("/processes"))["processes"]["answered"]:
                pass
        two.signal(signal.SIGSTOP)
        try:
            found = (await three.get("/processes"))["processes"]
            assert (found["missing"], found["silent"]) == ([frozen], 1)
        finally:
            two.signal(signal.SIGCONT)
        two.stop()
        found = (await one.get("/processes"))["processes"]
        assert (len(found["answered"]), found["missing"], found["silent"]) == (2, [], 0)


async def test_over_postgres_answers_come_in_small_packets(postgres_url, tmp_path):
    url = f"{postgres_url}?prefix={secrets.token_hex(4)}:"
    stores = {"history_url": f"sqlite+aiosqlite:///{tmp_path}/history.db", "presence_url": "memory://"}
    apps = [make_app(url=url, **stores) for _ in range(2)]
    house = House(apps[0], None)
    async with lifespan(apps[0]), lifespan(apps[1]), house.client:
        sockets = [WebsocketCommunicator(apps[1], f"/room/{'x' * 100}{number}?name=u{number}") for number in range(60)]
        for socket in sockets:
            await socket.connect(PATIENCE)
        try:
            found = await house.get("/connections", limit=100)
            assert (found["total"], len(found["results"]), len(found["processes"]["answered"])) == (60, 60, 2)
            assert (await house.get("/groups", order="size", limit=50))["results"][0]["connections"] == 1
        finally:
            for socket in sockets:
                await socket.disconnect(timeout=PATIENCE)
