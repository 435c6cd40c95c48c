"""Two real servers over one Valkey: what is due runs once, whichever of the three dies."""

import asyncio
import json
import secrets
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.server.conftest import PATIENCE, Server


class Run(NamedTuple):
    name: str
    group: str
    tick: int
    attempt: int
    pid: int


class Processes(NamedTuple):
    one: Server
    two: Server
    file: Path

    def runs(self, name: str) -> list[Run]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        found = [
            Run(each, group, int(tick), int(attempt), int(pid))
            for each, group, tick, attempt, pid in map(str.split, lines)
        ]
        return [run for run in found if run.name == name]


class ScheduleServer(Server):
    script = Path(__file__).parent / "app.py"

    def kill(self):
        self.signal(signal.SIGKILL)
        self.wait()
        self._process = None

    async def schedules(self):
        return {each["name"]: each for each in json.loads((await self.http("GET", "/schedules"))[1])}


async def start(broker, tmp_path, monkeypatch, stack, expected=()):
    monkeypatch.setenv("BROKER_URL", f"{broker.url}?prefix=t{secrets.token_hex(4)}:")
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    started = []
    for name in ("one", "two"):
        server = ScheduleServer(tmp_path / f"{name}.log", {}, expected)
        stack.callback(server.stop)
        server.start()
        started.append(server)
    return Processes(*started, tmp_path / "runs")


async def until(holds):
    async with asyncio.timeout(PATIENCE):
        while True:
            if found := holds():
                return found
            await asyncio.sleep(0.02)


def repeated(runs):
    """What ran more than once for one moment, each attempt for itself."""
    return [run for run, times in Counter(run[:4] for run in runs).items() if times > 1]


async def test_each_moment_runs_once_and_goes_on_when_a_process_is_killed(broker, tmp_path, monkeypatch):
    with ExitStack() as stack:
        # On a machine that stalls for longer than the short lease.
        expected = ("WARNING fastapi_consumers.scheduled_runs",)
        processes = await start(broker, tmp_path, monkeypatch, stack, expected)
        one, two, _ = processes
        pid_of_one = (await one.state())["pid"]
        clients = [await one.connect("/room/a"), await two.connect("/room/a"), await two.connect("/room/b")]
        for client in clients:
            async with asyncio.timeout(PATIENCE):
                assert (await client.receive_json())["event"] == "tick"
        await until(lambda: len(processes.runs("beat")) >= 2)
        # The one that runs what takes long is killed meanwhile.
        slow = await until(lambda: processes.runs("slow"))
        assert len(slow) == 1
        dies, lives = (one, two) if slow[0].pid == pid_of_one else (two, one)
        last = await lives.connect("/room/a")
        await dies.drop_clients()
        dies.kill()
        other = await until(lambda: processes.runs("slow")[1:])
        assert other[0].pid != slow[0].pid
        assert other[0].tick > slow[0].tick or other[0].attempt == 2
        async with asyncio.timeout(PATIENCE):
            assert (await last.receive_json())["event"] == "tick"
        statuses = await lives.schedules()
        assert statuses["slow"]["lost"] >= 1
        [running] = statuses["slow"]["running"]
        assert running["process"].endswith(f"/{other[0].pid}")
        before = len(processes.runs("beat"))
        await until(lambda: len(processes.runs("beat")) >= before + 2)
        for name in ("beat", "tick"):
            assert repeated(processes.runs(name)) == []
        assert {run.group for run in processes.runs("tick")} >= {"room.a"}
        await lives.drop_clients()
        lives.signal(signal.SIGTERM)
        assert lives.wait() in (0, -signal.SIGTERM)
        assert lives.complaints() == []


async def test_nothing_runs_twice_when_the_broker_dies_and_comes_back(own_broker, tmp_path, monkeypatch):
    with ExitStack() as stack:
        expected = ("WARNING fastapi_consumers", "Error", "Connection", "passed over", "ERROR fastapi_consumers")
        processes = await start(own_broker, tmp_path, monkeypatch, stack, expected)
        for server in (processes.one, processes.two):
            await server.connect("/room/a")
        await until(lambda: len(processes.runs("beat")) >= 2 and processes.runs("tick"))
        own_broker.kill()
        await asyncio.sleep(1.0)
        own_broker.start()
        before = len(processes.runs("beat"))
        await until(lambda: len(processes.runs("beat")) >= before + 2)
        ticks = len(processes.runs("tick"))
        await until(lambda: len(processes.runs("tick")) >= ticks + 1)
        for name in ("beat", "tick", "slow"):
            assert repeated(processes.runs(name)) == []
        for server in (processes.one, processes.two):
            await server.drop_clients()
