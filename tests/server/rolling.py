"""A rolling restart under load: two servers behind a TCP proxy, stopped and started anew one after the other.

Clients of groups with history stay connected through it, as pages do: they wait for as long as ``closing`` says, come
back to whichever server the proxy picks, and go on from their last position. All the time events are published and the
clients call an action that takes its time.

Run as a script with the file descriptor of a listening socket and settings as JSON, this is one of the servers.
"""

import asyncio
import contextlib
import http.client
import itertools
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Seconds that a server has to start or to stop, and everybody to have everything in the end.
PATIENCE = 60.0
#: Seconds between two questions of the proxy whether a server is ready.
PROBE = 0.2
#: Columns of the histogram.
BINS = 20


# -- a server ----------------------------------------------------------------------------------------------------------


def serve(descriptor: int, settings: dict[str, Any]) -> None:
    import uvicorn
    from fastapi import FastAPI, Response

    from fastapi_consumers import GroupConsumer, action, add_consumers, path
    from fastapi_consumers.history import History

    class Room(GroupConsumer):
        groups = ["room.{room}"]
        history = History(size=50_000)

        @action
        async def work(self, seconds: float) -> float:
            await asyncio.sleep(seconds)
            return seconds

    app = FastAPI()
    consumers = add_consumers(
        app,
        [path("/room/{room}", Room)],
        url=settings["url"],
        drain_timeout=settings["drain_timeout"],
        broker_timeout=20,
    )

    @app.get("/ready")
    async def ready(response: Response) -> None:
        response.status_code = 503 if consumers.health()["draining"] else 200

    listening = socket.socket(fileno=descriptor)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=10)).run(sockets=[listening])


class Server:
    """One of them, which is stopped and started anew on its port."""

    def __init__(self, log: Path, settings: dict[str, Any]) -> None:
        self._log, self._settings = log, settings
        self.port = 0
        #: When it was told to stop, the last time.
        self.stopped = 0.0
        self.closes: list[float] = []
        self.start()

    def start(self) -> None:
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", self.port))
            listening.listen(1024)
            self.port = listening.getsockname()[1]
            with self._log.open("ab") as output:
                settings = json.dumps(self._settings)
                self._process = subprocess.Popen(
                    [sys.executable, str(HERE / "rolling.py"), str(listening.fileno()), settings],
                    stdout=output,
                    stderr=output,
                    pass_fds=[listening.fileno()],
                    cwd=HERE.parent.parent,
                )
        if self.ask() != 200:
            self.kill()
            raise AssertionError(f"the server did not start; its log:\n{self._log.read_text(errors='replace')}")

    def ask(self, timeout: float = PATIENCE) -> int:
        """The status of its readiness; 0 if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def restart(self) -> None:
        self.stopped = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)
        self.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Proxy:
    """Hands connections on to the servers that say that they are ready, in turn, as balancers on level 4 do."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.ready = set(servers)
        self._turn = itertools.cycle(servers)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def __aenter__(self) -> "Proxy":
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024)
        self.port = self._listening.sockets[0].getsockname()[1]
        self._probing = asyncio.create_task(self._probe())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        self._probing.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.wait({self._probing, *self._tasks})

    async def _probe(self) -> None:
        while True:
            for server in self.servers:
                status = await asyncio.to_thread(server.ask, 2.0)
                (self.ready.add if status == 200 else self.ready.discard)(server)
            await asyncio.sleep(PROBE)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            server = next(self._turn)
            if self.ready and server not in self.ready:
                server = next(self._turn)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        for each in (writer, far_writer):
            each.transport.abort()
            self._writers.discard(each)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()


# -- clients -----------------------------------------------------------------------------------------------------------


class Client:
    """One page. It counts what it gets by offset."""

    def __init__(self, run: "Run", number: int) -> None:
        self.run = run
        self.room = f"r{number % run.rooms}"
        self.random = random.Random(number)
        self.epoch = ""
        self.first: int | None = None
        self.offset = 0
        self.seen: Counter[int] = Counter()
        self.after: float | None = None
        self.closed_at: float | None = None
        #: Requests without an answer, by id.
        self.waiting: set[int] = set()
        self._ids = itertools.count(1)

    async def live(self) -> None:
        delay = 0.25
        while True:
            path = f"/room/{self.room}"
            if self.epoch:
                path += f"?recover={self.epoch}:{self.offset}"
            try:
                client = await self.run.connect(path)
            except self.run.refused:
                self.run.counts["refused with 503"] += 1
            except (OSError, self.run.closed):
                self.run.counts["no connection"] += 1
            else:
                delay, self.after = 0.25, None
                sending = asyncio.create_task(self._call(client))
                try:
                    await self._listen(client)
                except self.run.closed as closed:
                    self._lost(closed.code)
                finally:
                    sending.cancel()
                    await client.reset()
            # A client that was told when to come again does; one that was not waits longer each time.
            await asyncio.sleep(self.after if self.after is not None else delay * self.random.uniform(0.5, 1.5))
            self.after, delay = None, min(4.0, delay * 2)

    def _lost(self, code: int) -> None:
        self.closed_at = time.monotonic()
        self.run.counts["closed"] += 1
        self.run.counts[f"closed with {code}"] += 1
        self.run.counts["told when to come again"] += self.after is not None
        self.run.counts["requests without an answer"] += len(self.waiting)
        self.waiting.clear()
        # The one that was told to stop last.
        max(self.run.servers, key=lambda server: server.stopped).closes.append(self.closed_at)

    async def _call(self, client: Any) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.2, 1.0))
            if self.after is None:
                number = next(self._ids)
                self.waiting.add(number)
                self.run.counts["requests"] += 1
                seconds = self.random.uniform(0, 0.5)
                await client.send_json(action="work", request_id=number, data={"seconds": seconds})

    async def _listen(self, client: Any) -> None:
        while True:
            frame = await client.receive_json()
            kind = frame["type"]
            if kind == "event":
                self.offset = frame["offset"]
                self.seen[self.offset] += 1
            elif kind == "reply":
                self.waiting.discard(frame["request_id"])
            elif kind == "closing":
                self.after = frame["after"]
            elif kind == "joined":
                self._joined(frame)
            else:
                self.run.counts[f"told {kind}"] += 1

    def _joined(self, frame: dict[str, Any]) -> None:
        if self.first is None:
            self.first = frame["offset"]
        if frame.get("recovered") is False:
            self.run.counts["not recovered"] += 1
        if self.closed_at is not None:
            self.run.away.append(time.monotonic() - self.closed_at)
            self.closed_at = None
        self.epoch, self.offset = frame["epoch"], frame["offset"]


class Run:
    """All of it.

    Args:
        rate: events that are published in a second, over all rooms.
        seconds: of load before, between and after the restarts.
        drain_timeout: the servers'. With 0 uvicorn closes all sockets at once.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clients: int = 200,
        rooms: int = 4,
        rate: float = 40.0,
        seconds: float = 2.0,
        drain_timeout: float = 10.0,
    ) -> None:
        from tests.server import client

        self._connect, self.refused, self.closed = client.connect, client.Refusal, client.Closed
        self.folder, self.rooms, self.rate, self.seconds = folder, rooms, rate, seconds
        self.drain_timeout = drain_timeout
        self.clients = [Client(self, number) for number in range(clients)]
        self.counts: Counter[str] = Counter()
        self.servers: list[Server] = []
        #: Seconds between the close of a socket and the first frame of the next one.
        self.away: list[float] = []
        #: Room to the offset of its last event.
        self.published: Counter[str] = Counter()
        self.goes_on = True
        self.histograms: list[list[int]] = []

    async def connect(self, path: str) -> Any:
        async with asyncio.timeout(PATIENCE):
            return await self._connect(self.proxy.port, path)

    async def run(self) -> None:
        from fastapi_consumers import Publisher
        from tests.transports.conftest import Broker

        with contextlib.ExitStack() as stack:
            valkey = Broker(self.folder / "valkey")
            stack.callback(valkey.stop)
            url = valkey.url
            settings = {"url": url, "drain_timeout": self.drain_timeout}
            try:
                for name in ("one", "two"):
                    self.servers.append(await asyncio.to_thread(Server, self.folder / f"{name}.log", settings))
                async with Proxy(self.servers) as self.proxy, Publisher(url, broker_timeout=20) as publisher:
                    await self._under_load(publisher)
            finally:
                for server in self.servers:
                    server.kill()

    async def _under_load(self, publisher: Any) -> None:
        tasks = [asyncio.create_task(client.live()) for client in self.clients]
        try:
            await self._until(lambda: all(client.first is not None for client in self.clients))
            publishing = asyncio.create_task(self._publish(publisher))
            await asyncio.sleep(self.seconds)
            for server in self.servers:
                await asyncio.to_thread(server.restart)
                await self._until(lambda: all(client.closed_at is None for client in self.clients))
                self.histograms.append(self._histogram(server))
                await asyncio.sleep(self.seconds)
            self.goes_on = False
            await publishing
            ends = {f"r{room}": self.published[f"r{room}"] for room in range(self.rooms)}
            await self._until(lambda: all(client.offset == ends[client.room] for client in self.clients))
        finally:
            for task in tasks:
                task.cancel()
            done, _ = await asyncio.wait(tasks)
            for task in done:
                if not task.cancelled():
                    task.result()

    async def _publish(self, publisher: Any) -> None:
        numbers = itertools.count()
        while self.goes_on:
            number = next(numbers)
            room = f"r{number % self.rooms}"
            position = await publisher.broadcast(f"room.{room}", "tick", number)
            self.published[room] = position.offset
            await asyncio.sleep(1 / self.rate)

    async def _until(self, holds: Any) -> None:
        ends = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < ends, self.report()
            await asyncio.sleep(0.05)

    def _histogram(self, server: Server) -> list[int]:
        """Closes by the time since the signal, over the drain's time or, without one, the first second."""
        width = (self.drain_timeout or 1.0) / BINS
        bins = [0] * (BINS + 1)
        for closed in server.closes:
            bins[min(BINS, int((closed - server.stopped) / width))] += 1
        return bins

    # -- what came of it -----------------------------------------------------------------------------------------------

    def _missing(self) -> int:
        count = 0
        for client in self.clients:
            if client.first is not None:
                count += sum(client.seen[number] == 0 for number in range(client.first + 1, client.offset + 1))
        return count

    def _doubled(self) -> int:
        return sum(count - 1 for client in self.clients for count in client.seen.values())

    def verify(self) -> None:
        assert self.counts["closed"] >= len(self.clients), self.report()
        assert (self._missing(), self._doubled(), self.counts["not recovered"]) == (0, 0, 0), self.report()
        assert set(self.counts).isdisjoint({"told gap", "told error"}), self.report()

    def lines(self) -> Iterator[str]:
        published = sum(self.published.values())
        yield f"{len(self.clients)} clients, drain_timeout {self.drain_timeout:g} s, {published} events"
        yield f"  delivered {sum(sum(client.seen.values()) for client in self.clients)}"
        yield f"  lost {self._missing()}, doubled {self._doubled()}, not recovered {self.counts['not recovered']}"
        yield "  " + ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        if self.away:
            away = sorted(self.away)
            median, last = statistics.median(away), away[-1]
            yield f"  away, from the close to the first frame: median {median:.2f} s, the longest {last:.2f} s"
        width = (self.drain_timeout or 1.0) / BINS
        for name, bins in zip(("one", "two"), self.histograms, strict=False):
            yield f"  closes of server {name} since its signal:"
            for index, count in enumerate(bins):
                label = f"{index * width:5.2f} s" if index < BINS else "  later"
                yield f"    {label} {count:4} {'#' * count}".rstrip()

    def report(self) -> str:
        return "\n".join(self.lines())


if __name__ == "__main__":
    # At the end of the path, so that an installed wheel of the package comes before its source.
    sys.path.append(str(HERE.parent.parent))
    serve(int(sys.argv[1]), json.loads(sys.argv[2]))
