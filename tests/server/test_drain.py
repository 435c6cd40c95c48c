"""Real processes are told to stop by real signals while they are used, and others are there or not."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.server.client import Closed, Refusal, connect
from tests.server.conftest import PATIENCE, Server
from tests.transports.conftest import broker, make_broker, own_broker

__all__ = ["broker", "make_broker", "own_broker"]

HERE = Path(__file__).parent


#: Seconds of a drain, at the most.
DRAIN = 30.0


class DrainingServer(Server):
    script = HERE / "draining_app.py"

    def said(self):
        """What it printed."""
        return [line.removeprefix("served ") for line in self.log().splitlines() if line.startswith("served ")]


@pytest.fixture
async def start(tmp_path, monkeypatch):
    """``start(url, timeout, expected, **options of uvicorn)``: a server of the test's own."""
    started = []
    with ExitStack() as stack:

        def start(url="memory://", timeout=DRAIN, expected=(), **options):
            monkeypatch.setenv("BROKER_URL", url)
            monkeypatch.setenv("DRAIN_TIMEOUT", str(timeout))
            server = DrainingServer(tmp_path / f"{len(started)}.log", options, expected)
            stack.callback(server.stop)
            server.start()
            started.append(server)
            return server

        yield start
        for server in started:
            await server.drop_clients()
    for server in started:
        assert server.complaints() == []


@pytest.fixture
def shared(broker):
    """The URL of an app of the test's own."""
    return f"{broker.url}?prefix=d{secrets.token_hex(4)}:"


async def until(holds):
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)


async def end_of(client):
    """The frames that a client still gets, and the code with which its socket closes."""
    frames = []
    async with asyncio.timeout(PATIENCE):
        try:
            while True:
                frames.append(await client.receive_json())
        except Closed as closed:
            return frames, closed.code


async def test_a_deploy_disturbs_nobody(start, shared):
    one, two = start(shared), start(shared)
    watcher, ann = await two.connect("/lobby?name=watcher"), await one.connect("/lobby?name=ann")
    while "ann" not in (await watcher.receive_json())["joins"]:
        pass
    reader = await one.connect("/room/a")
    joined = await reader.receive_json()
    pair = [await one.connect("/pair"), await one.connect("/pair")]
    with pytest.raises(Refusal):
        await two.connect("/pair")
    worker = await one.connect("/room/b")
    await worker.receive_json()
    await worker.send_json(action="slow", request_id=1, data={"seconds": 3})
    await until(lambda: "slow" in one.said())
    relay = await one.connect("/relay")
    assert (await one.http("GET", "/ready"))[0] == 200

    one.signal(signal.SIGTERM)
    # Nobody new is let in, whoever asks is told so, and HTTP is served on.
    status = 200
    async with asyncio.timeout(PATIENCE):
        while status == 200:
            status, _ = await one.http("GET", "/ready")
    assert status == 503
    with pytest.raises(Refusal) as refused:
        await one.connect("/room/a")
    assert refused.value.status == 503
    assert int(refused.value.headers["retry-after"]) <= 3
    assert b"service_restart" in refused.value.body
    # Every socket ends with a word, and the action that ran is answered before.
    frames, code = await end_of(worker)
    assert [frame["type"] for frame in frames] == ["closing", "reply"]
    assert (frames[1]["data"], code) == ("done", 1012)
    for client in (ann, reader, *pair):
        frames, code = await end_of(client)
        assert (frames[-1]["type"], frames[-1]["reconnect"], code) == ("closing", True, 1012)
    assert (await end_of(relay)) == ([], 1012)
    # Who and what was there is free elsewhere, and what was missed is to be had there.
    async with asyncio.timeout(PATIENCE):
        while "ann" not in (await watcher.receive_json())["leaves"]:
            pass
        await two.connect("/pair")
        await two.connect("/pair")
    speaker = await two.connect("/room/a")
    await speaker.send_json(action="say", data={"text": "hello"})
    back = await two.connect(f"/room/a?recover={joined['epoch']}:{joined['offset']}")
    assert (await back.receive_json())["recovered"] is True
    assert (await back.receive_json())["data"] == "hello"
    # And the handlers of the program itself were not forgotten.
    assert await asyncio.to_thread(one.wait) == 0
    assert one.said() == [
        "slow",
        "own handler of the lifespan",
        "lifespan ends",
        "own handler of the program",
    ]


async def test_a_client_that_does_not_read_does_not_keep_the_others_waiting(start):
    server = start(timeout=1, timeout_graceful_shutdown=1, expected=("Cancel", "graceful"))
    stalled = await server.connect("/patient/a", receive_buffer=4096)
    other = await server.connect("/patient/a")
    for number in range(150):
        await other.send_json(action="say", request_id=number, data={"text": "x" * 60_000})
        while (await other.receive_json()).get("request_id") != number:
            pass
    assert (await server.state())["waiting"] > 0
    server.signal(signal.SIGTERM)
    frames, code = await end_of(other)
    assert (frames[-1]["type"], code) == ("closing", 1012)
    assert await asyncio.to_thread(server.wait) == 0
    await stalled.reset()


async def test_apps_that_are_mounted_drain_too(start):
    server = start()
    outer, inner = await server.connect("/room/a"), await server.connect("/mounted/room/a")
    await inner.receive_json()
    await inner.send_json(action="slow", request_id=1, data={"seconds": 2})
    await until(lambda: "slow" in server.said())
    server.signal(signal.SIGTERM)
    # Side by side, though the program put a handler of its own between the two apps.
    frames, code = await end_of(outer)
    assert ([frame["type"] for frame in frames], code) == (["joined", "closing"], 1012)
    assert (await inner.receive_json())["type"] == "closing"
    with pytest.raises(Refusal) as refused:
        await server.connect("/mounted/room/a")
    assert refused.value.status == 503
    frames, code = await end_of(inner)
    assert ([frame["type"] for frame in frames], code) == (["reply"], 1012)
    assert await asyncio.to_thread(server.wait) == 0


async def test_a_second_signal_ends_it_at_once(start):
    server = start()
    client = await server.connect("/room/a")
    await client.receive_json()
    await client.send_json(action="slow", request_id=1, data={"seconds": 600})
    await until(lambda: "slow" in server.said())
    server.signal(signal.SIGTERM)
    assert (await client.receive_json())["type"] == "closing"
    began = time.monotonic()
    server.signal(signal.SIGINT)
    assert await end_of(client) == ([], 1012)
    await client.drop()
    await asyncio.to_thread(server.wait)
    assert time.monotonic() - began < DRAIN * 0.9 - 1


async def test_it_drains_while_the_broker_is_down(start, own_broker):
    server = start(f"{own_broker.url}?prefix=x:", expected=("redis", "lost", "could not", "Connection", "  "))
    client, idle = await server.connect("/room/a"), await server.connect("/lobby?name=ann")
    await client.receive_json()
    own_broker.kill()
    await client.send_json(action="slow", request_id=1, data={"seconds": 0.5})
    server.signal(signal.SIGTERM)
    frames, code = await end_of(client)
    assert {frame["type"] for frame in frames} >= {"closing", "reply"}
    assert code == 1012
    assert (await end_of(idle))[1] == 1012
    assert await asyncio.to_thread(server.wait) == 0


class Workers:
    """``uvicorn --workers 2`` with a process group of its own."""

    def __init__(self, log, url, timeout):
        self._clients = []
        self.port = free_port()
        root = str(HERE.parent.parent)
        paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))
        env = {**os.environ, "PYTHONPATH": paths, "BROKER_URL": url, "DRAIN_TIMEOUT": str(timeout)}
        command = [sys.executable, "-m", "uvicorn", "tests.server.draining_app:app", "--port", str(self.port)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--workers", "2"], env=env, stdout=output, stderr=output, start_new_session=True
            )

    async def connect(self, path):
        """However often it is refused, and whatever is not there yet."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    self._clients.append(await connect(self.port, path))
                except (OSError, Refusal, Closed):
                    await asyncio.sleep(0.1)
                else:
                    return self._clients[-1]

    async def stop(self):
        for client in self._clients:
            await client.reset()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@pytest.fixture
async def workers(tmp_path, shared):
    started = Workers(tmp_path / "workers.log", shared, DRAIN)
    yield started
    await started.stop()


async def pid_of(client):
    await client.send_json(action="pid", request_id=0)
    while (frame := await client.receive_json())["type"] != "reply":
        pass
    return frame["data"]


async def test_workers_are_replaced_one_after_another_and_stop_together(workers):
    clients = [await workers.connect("/room/a") for _ in range(6)]
    before = {await pid_of(client) for client in clients}
    # A rolling restart: uvicorn replaces one worker after the other.
    workers.process.send_signal(signal.SIGHUP)
    for client in clients:
        frames, code = await end_of(client)
        assert (frames[-1]["type"], code) == ("closing", 1012)
    clients = [await workers.connect("/room/a") for _ in range(6)]
    found = {await pid_of(client) for client in clients}
    assert not found & before
    # As systemd and terminals do it: all processes are told, and the supervisor tells its workers once more.
    await clients[0].send_json(action="slow", request_id=1, data={"seconds": 2})
    os.killpg(workers.process.pid, signal.SIGTERM)
    frames, code = await end_of(clients[0])
    assert (frames[-1].get("data"), code) == ("done", 1012)
    for client in clients[1:]:
        assert (await end_of(client))[1] == 1012
    assert await asyncio.to_thread(workers.process.wait, PATIENCE) in (0, -signal.SIGTERM)
