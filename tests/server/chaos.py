"""Two servers, one broker, everything goes wrong: what clients of groups with history are told in the end.

Publishers write all the time. Clients go, half of them without a close frame, and come back to the other server with
their last position. Packets are lost, doubled, late and out of order inside the servers, whose connections to the
broker are cut; history is trimmed and removed. Each client checks every frame against what it was told before.

Run as a script with the file descriptor of a listening socket and settings as JSON, this is one of the servers.
"""

import asyncio
import contextlib
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis.asyncio import Redis

HERE = Path(__file__).parent
PREFIX = "chaos:"
#: Seconds that the servers have to start, and everybody to have everything once it is calm.
PATIENCE = 60.0


# -- a server ----------------------------------------------------------------------------------------------------------


def serve(descriptor: int, settings: dict[str, Any]) -> None:
    import uvicorn
    from fastapi import FastAPI

    from fastapi_consumers import GroupConsumer, Position, action, add_consumers, path, streams
    from fastapi_consumers.history import History
    from fastapi_consumers.testing import FaultyTransport
    from fastapi_consumers.transports import Deliver, MemoryTransport, RedisTransport

    # Nobody waits half a minute for a lost last event here.
    streams.CHECK_INTERVAL = 0.3

    class Room(GroupConsumer):
        groups = ["room.{room}"]
        history = History(size=5000)

    class Writer(GroupConsumer):
        @action
        async def say(self, room: str, text: str) -> Position | None:
            return await self.broadcast("said", text, group=f"room.{room}", idempotency_key=text)

    class Source(MemoryTransport):
        async def open(self, deliver: Deliver) -> None:
            self.deliver = deliver

    class Spoiled(RedisTransport):
        """What arrives goes through the faults; what is published, and by whom, is as always."""

        async def open(self, deliver: Deliver) -> None:
            source = Source()
            rates = dict.fromkeys(("drop", "duplicate", "delay", "reorder"), settings["faults"])
            self.faults = FaultyTransport(source, seed=settings["seed"], **rates)
            await self.faults.open(deliver)
            await super().open(source.deliver)
            self.releasing = asyncio.create_task(self.release())

        async def release(self) -> None:
            while True:
                await asyncio.sleep(0.05)
                await self.faults.release(shuffled=True)

        async def close(self) -> None:
            if hasattr(self, "releasing"):
                self.releasing.cancel()
            await super().close()

    app = FastAPI()
    transport = Spoiled(settings["url"])
    consumers = add_consumers(
        app, [path("/room/{room}", Room), path("/write", Writer)], transport=transport, history_url=None
    )

    @app.get("/state")
    async def state() -> dict[str, int]:
        found = consumers.hub.streams
        assert found is not None
        names = ("heals", "healed", "gaps", "duplicates", "recovered", "not_recovered")
        faults = {name: count for name, count in transport.faults.counters.items() if name != "duplicated"}
        return {
            **{name: getattr(found, name) for name in names},
            **faults,
            "doubled": transport.faults.counters["duplicated"],
            "reconnects": transport.reconnects,
        }

    @app.post("/calm")
    async def calm() -> None:
        transport.faults.calm()

    @app.post("/purge/{room}")
    async def purge(room: str) -> None:
        await consumers.history(f"room.{room}").purge()

    listening = socket.socket(fileno=descriptor)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    server.run(sockets=[listening])


class Server:
    """One of them, in a process of its own."""

    def __init__(self, log: Path, settings: dict[str, Any]) -> None:
        self._log = log
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(512)
            self.port: int = listening.getsockname()[1]
            with log.open("wb") as output:
                command = [sys.executable, str(HERE / "chaos.py"), str(listening.fileno()), json.dumps(settings)]
                self._process = subprocess.Popen(
                    command, stdout=output, stderr=output, pass_fds=[listening.fileno()], cwd=HERE.parent.parent
                )
        try:
            self.ask("GET", "/state")
        except OSError:
            self.stop()
            raise AssertionError(f"the server did not start; its log:\n{self.log()}") from None

    def ask(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    async def post(self, path: str) -> None:
        await asyncio.to_thread(self.ask, "POST", path)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# -- clients -----------------------------------------------------------------------------------------------------------


class Client:
    """One reader of one room. ``counts`` of the run tell what it was given."""

    def __init__(self, run: "Run", room: str, number: int) -> None:
        self.run = run
        self.room = room
        self.random = random.Random(f"{run.seed} {number}")
        self.turn = number
        self.epoch: str | None = None
        self.offset = 0
        self.has_gap = False
        self.seen: set[tuple[str, int]] = set()

    async def live(self) -> None:
        """Come and go until it is calm, then stay until everything is there."""
        while True:
            self.turn += 1
            server = self.run.servers[self.turn % len(self.run.servers)]
            path = f"/room/{quote(self.room)}"
            if self.epoch is not None:
                path += f"?recover={self.epoch}:{self.offset}"
            client = await self.run.connect(server.port, path)
            if client is None:
                await asyncio.sleep(0.05)
                continue
            stays = None if self.run.is_calm else self.random.uniform(0.05, 0.8)
            try:
                with contextlib.suppress(TimeoutError, self.run.closed):
                    async with asyncio.timeout(stays):
                        await self.listen(client)
            finally:
                self.run.counts["connections"] += 1
                if self.random.random() < 0.5:
                    await client.reset()
                else:
                    await client.close()
            await asyncio.sleep(self.random.uniform(0, 0.3))

    async def listen(self, client: Any) -> None:
        asked = (self.epoch, self.offset) if self.epoch is not None else None
        is_told = False
        while True:
            frame = await client.receive_json()
            kind = frame["type"]
            if not is_told and kind != "joined":
                self.lie(frame, "came before it was told where it joined")
            if kind == "joined":
                self.joined(frame, asked, is_first=not is_told)
                is_told = True
            elif kind == "gap":
                self.has_gap = True
                self.run.counts["gaps told"] += 1
            elif kind == "event":
                self.event(frame["offset"], frame["data"])
            elif kind != "closing":
                self.lie(frame, "was not expected")

    def joined(self, frame: dict[str, Any], asked: tuple[str, int] | None, *, is_first: bool) -> None:
        position, recovered = (frame["epoch"], frame["offset"]), frame.get("recovered")
        if is_first and (recovered is None) is not (asked is None):
            self.lie(frame, f"answers {asked}")
        if is_first and recovered is not None:
            self.run.counts["recovered" if recovered else "not recovered"] += 1
            if recovered and position != asked:
                self.lie(frame, f"answers {asked}")
            if not recovered:
                assert asked is not None
                self.run.refused.append((self.room, *asked, self.run.trimmed[self.room, asked[0]]))
        if not is_first and (not self.has_gap or position[0] == self.epoch):
            self.lie(frame, "came without a gap")
        self.epoch, self.offset = position
        self.has_gap = False
        begun, place = self.run.begun, (self.room, self.epoch)
        begun[place] = min(begun.get(place, self.offset), self.offset)

    def event(self, offset: int, text: str) -> None:
        assert self.epoch is not None
        counts, place = self.run.counts, (self.epoch, offset)
        counts["events"] += 1
        if self.run.texts.setdefault((self.room, *place), text) != text:
            self.lie(place, f"is {text!r}")
        if offset <= self.offset:
            counts["doubled" if place in self.seen else "out of order"] += 1
        elif offset > self.offset + 1:
            missing = offset - self.offset - 1
            if not self.has_gap:
                counts["lost"] += missing
            elif offset - 1 > self.run.trimmed[self.room, self.epoch]:
                self.lie(place, f"came after {self.offset} and a gap, and what is missing was there")
            else:
                counts["told as gone"] += missing
        self.seen.add(place)
        self.offset, self.has_gap = offset, False

    def lie(self, what: Any, why: str) -> None:
        self.run.lies.append(f"{self.room}: {what} {why}; it was at {self.epoch}:{self.offset}")


class Run:
    """All of it, for some seconds. ``report`` says what came of it."""

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float,
        clients: int,
        rooms: int,
        writers: int,
        faults: float,
        seed: int,
        expected: Sequence[str] = (),
    ) -> None:
        from tests.server import client

        self._connect, self.closed, self._refusal = client.connect, client.Closed, client.Refusal
        self.folder = folder
        self.seconds = seconds
        #: What has to have happened before it may be calm, within ``PATIENCE``: on a slow machine less happens.
        self.expected = expected
        self.rooms = [f"r{number}" for number in range(rooms)]
        self.faults = faults
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self.lies: list[str] = []
        #: Room, epoch, offset, and how far that was trimmed: who was told that recovery is impossible.
        self.refused: list[tuple[str, str, int, int]] = []
        #: Up to where events were trimmed, by room and epoch; noted before it is done.
        self.trimmed: defaultdict[tuple[str, str], int] = defaultdict(int)
        #: The lowest offset at which anybody joined, by room and epoch. What came before reached nobody, rightly.
        self.begun: dict[tuple[str, str], int] = {}
        self.texts: dict[tuple[str, str, int], str] = {}
        self.written: dict[tuple[str, str, int], str] = {}
        self.tops: dict[str, tuple[str, int]] = {}
        #: Whether nothing goes wrong any more, and whether nothing more is written.
        self.is_calm = self.is_over = False
        self.random = random.Random(seed)
        self.clients = [Client(self, self.rooms[number % rooms], number) for number in range(clients)]
        self.writer_count = writers
        self.servers: list[Server] = []

    async def connect(self, port: int, path: str) -> Any:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._connect(port, path)
        except (self._refusal, self.closed, OSError):
            self.counts["refused connections"] += 1
            return None

    async def run(self) -> None:
        from tests.transports.conftest import Broker

        with contextlib.ExitStack() as stack:
            broker = Broker(self.folder / "valkey")
            stack.callback(broker.stop)
            settings = {"url": f"redis://127.0.0.1:{broker.port}?prefix={PREFIX}", "faults": self.faults}
            for number in range(2):
                server = Server(self.folder / f"{number}.log", {**settings, "seed": self.seed + number})
                stack.callback(server.stop)
                self.servers.append(server)
            self.redis = Redis(port=broker.port, decode_responses=True)
            try:
                await self._play()
            finally:
                await self.redis.aclose()

    async def _play(self) -> None:
        ends = time.monotonic() + self.seconds
        living = [asyncio.create_task(client.live()) for client in self.clients]
        writing = [asyncio.create_task(self._write(number)) for number in range(self.writer_count)]
        harming = [
            asyncio.create_task(self._now_and_then(0.7, self._cut)),
            asyncio.create_task(self._now_and_then(0.5, self._trim)),
            asyncio.create_task(self._now_and_then(min(self.seconds / 4, 5.0), self._purge)),
        ]
        tasks = [*living, *writing, *harming]
        try:
            while time.monotonic() < ends or not await self._has_happened(ends + PATIENCE):
                done, _ = await asyncio.wait(tasks, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            for task in harming:
                task.cancel()
            self.is_calm = True
            for server in self.servers:
                await server.post("/calm")
            self.is_over = True
            await asyncio.gather(*writing)
            for room in self.rooms:
                meta = await self.redis.hmget(f"{PREFIX}history:{{room.{room}}}:meta", "epoch", "top")
                self.tops[room] = meta[0], int(meta[1])
            await self._settle()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self.counts += await self._server_counts()

    async def _has_happened(self, deadline: float) -> bool:
        counts = self.counts + await self._server_counts()
        return all(counts[name] for name in self.expected) or time.monotonic() > deadline

    async def _server_counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for server in self.servers:
            state = await asyncio.to_thread(server.ask, "GET", "/state")
            counts.update({f"servers: {name}": count for name, count in state.items()})
        return counts

    async def _settle(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            behind = [client for client in self.clients if (client.epoch, client.offset) != self.tops[client.room]]
            if not behind:
                return
            await asyncio.sleep(0.05)
        for client in behind:
            epoch, top = self.tops[client.room]
            self.counts["lost"] += top - client.offset if client.epoch == epoch else top

    # -- what publishers and the weather do ----------------------------------------------------------------------------

    async def _write(self, number: int) -> None:
        """Events one after another; what was not confirmed is sent again, with the same key."""
        count = 0
        while not self.is_over:
            client = await self.connect(self.servers[number % len(self.servers)].port, "/write")
            if client is None:
                await asyncio.sleep(0.05)
                continue
            async with client:
                while not self.is_over:
                    room, text = self.random.choice(self.rooms), f"{number}.{count}"
                    await client.send_json(action="say", request_id=count, data={"room": room, "text": text})
                    reply = await client.receive_json()
                    if reply["status"] == "ok":
                        epoch, offset = reply["data"]
                        self.written[room, epoch, offset] = text
                        count += 1
                        self.counts["written"] += 1
                    else:
                        self.counts["writes refused"] += 1
                    await asyncio.sleep(0.004)

    async def _now_and_then(self, seconds: float, harm: Any) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * seconds)
            await harm()

    async def _cut(self) -> None:
        self.counts["connections cut"] += await self.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    async def _trim(self) -> None:
        room = self.random.choice(self.rooms)
        stem = f"{PREFIX}history:{{room.{room}}}:"
        epoch, top = await self.redis.hmget(stem + "meta", "epoch", "top")
        if epoch is None:
            return
        first = max(int(top) - self.random.choice([2, 20, 100]) + 1, 1)
        if first - 1 > self.trimmed[room, epoch]:
            self.trimmed[room, epoch] = first - 1
            await self.redis.execute_command("XTRIM", stem + "events", "MINID", f"{first}-0")
            self.counts["trims"] += 1

    async def _purge(self) -> None:
        await self.random.choice(self.servers).post(f"/purge/{self.random.choice(self.rooms)}")
        self.counts["purges"] += 1

    # -- what came of it -----------------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Raises ``AssertionError`` if anybody was not told the truth."""
        found = "\n".join([*self.lies[:20], *(server.log() for server in self.servers)])
        assert not self.lies, found
        assert not any(self.counts[name] for name in ("lost", "doubled", "out of order")), f"{self.counts}\n{found}"
        for place, text in self.written.items():
            assert self.texts.get(place, text) == text, place
            room, epoch, offset = place
            if epoch == self.tops[room][0] and offset > max(self.trimmed[room, epoch], self.begun[room, epoch]):
                assert place in self.texts, f"{place} reached nobody"
        for room, epoch, offset, trimmed in self.refused:
            assert epoch != self.tops[room][0] or offset < trimmed, f"{room}, {epoch}:{offset} could be recovered"
        for server in self.servers:
            assert "Traceback" not in server.log(), server.log()

    def report(self) -> str:
        names = ("lost", "doubled", "out of order")
        rows = [(name, self.counts[name]) for name in names]
        rows += sorted((name, count) for name, count in self.counts.items() if name not in names)
        rows.append(("lies", len(self.lies)))
        return "\n".join(f"{name:<28}{count:>10}" for name, count in rows)


if __name__ == "__main__":
    serve(int(sys.argv[1]), json.loads(sys.argv[2]))
