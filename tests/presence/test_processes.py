"""Two real servers over one Valkey, of which one is stopped, and one is killed."""

import asyncio
import json
import secrets
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.presence.app import TTL
from tests.server.client import Refusal
from tests.server.conftest import PATIENCE, Server


class PresenceServer(Server):
    script = Path(__file__).parent / "app.py"

    def kill(self):
        self.signal(signal.SIGKILL)
        self.wait()
        self._process = None

    async def get(self, path):
        return json.loads((await self.http("GET", path))[1])


@pytest.fixture
async def servers(broker, tmp_path, monkeypatch):
    """Two processes of one application."""
    monkeypatch.setenv("BROKER_URL", f"{broker.url}?prefix=t{secrets.token_hex(4)}:")
    with ExitStack() as stack:
        started = []
        for name in ("one", "two"):
            server = PresenceServer(tmp_path / f"{name}.log", {}, ())
            stack.callback(server.stop)
            server.start()
            started.append(server)
        yield started
        for server in started:
            await server.drop_clients()
            assert server.complaints() == []


async def notice(client, timeout=PATIENCE):
    """The keys of the next notice, as (joins, leaves)."""
    async with asyncio.timeout(timeout):
        frame = await client.receive_json()
    assert frame["type"] == "presence"
    return sorted(frame["joins"]), sorted(frame["leaves"])


async def until(ask, expected, timeout=PATIENCE):
    async with asyncio.timeout(timeout):
        while (found := await ask()) != expected:
            assert found is not None
            await asyncio.sleep(0.02)


async def test_members_of_a_killed_process_leave_within_the_ttl(servers):
    one, two = servers
    watcher = await two.connect("/room/a?name=watcher")
    assert await notice(watcher) == (["watcher"], [])
    for name in ("ann", "bob", "ann"):
        await one.connect(f"/room/a?name={name}")
    joined = []
    while len(joined) < 2:
        joined += (await notice(watcher))[0]
    assert sorted(set(joined)) == ["ann", "bob"]
    assert (await two.get("/presence/room.a"))["count"] == 3
    await until(lambda: two.get("/count/room.a"), 4)
    assert await one.get("/presence/room.a") == await two.get("/presence/room.a")

    # Leases are renewed: nobody leaves while the process lives.
    with pytest.raises(TimeoutError):
        await notice(watcher, TTL * 1.2)

    one.kill()
    killed = time.monotonic()
    left = await notice(watcher)
    assert left == ([], ["ann", "bob"])
    # What is promised, and what a machine may take that is busy with other things.
    assert time.monotonic() - killed <= TTL + 15
    assert list((await two.get("/presence/room.a"))["members"]) == ["watcher"]
    await until(lambda: two.get("/count/room.a"), 1)
    with pytest.raises(TimeoutError):
        await notice(watcher, 1)


async def test_members_of_a_process_that_is_stopped_leave_at_once(servers):
    one, two = servers
    watcher = await two.connect("/lasting/a")
    ann = await one.connect("/lasting/a?name=ann")
    assert await notice(watcher) == (["ann"], [])
    await until(lambda: two.get("/count/room.a"), 2)
    one.signal(signal.SIGTERM)
    assert (await ann.closed()).code == 1012
    assert await notice(watcher) == ([], ["ann"])  # Its lease lasts for much longer.
    one.stop()
    assert await two.get("/count/room.a") == 1


async def test_whoever_comes_back_on_another_process_within_the_grace_never_left(servers):
    one, two = servers
    watcher = await two.connect("/forgiving/a")
    ann = await one.connect("/forgiving/a?name=ann")
    assert await notice(watcher) == (["ann"], [])
    for server in (two, one, one, two):
        await ann.close()
        ann = await server.connect("/forgiving/a?name=ann")
    with pytest.raises(TimeoutError):
        await notice(watcher, 3.5)
    await ann.close()
    assert await notice(watcher) == ([], ["ann"])


async def test_seats_are_for_all_processes_and_come_free_when_one_is_killed(servers):
    one, two = servers
    await one.connect("/pair/a")
    second = await two.connect("/pair/a")
    for server in servers:
        with pytest.raises(Refusal) as caught:
            await server.connect("/pair/a")
        assert caught.value.status == 503
    await second.close()
    for attempt in range(200):  # It is free in a moment.
        try:
            third = await one.connect("/pair/a")
            break
        except Refusal:
            assert attempt < 199
            await asyncio.sleep(0.01)
    one.kill()
    killed = time.monotonic()
    with pytest.raises(Refusal):
        for _ in range(3):
            await two.connect("/pair/a")
    while True:
        try:
            await two.connect("/pair/a")
            break
        except Refusal:
            assert time.monotonic() - killed < TTL + 15
            await asyncio.sleep(0.02)
    assert third is not None
