"""What observing costs an action: CPU time of the server per round trip over a real socket, with and without.

    python benchmarks/observing.py [--starts 6] [--rounds 60] [--slice 150] [--only metrics,traces]

Prints a table of Markdown with its commit.

Each contender is a uvicorn in a process of its own; they serve the same consumer, and differ in nothing but their
observers. One process would not do: Python specialises code for the classes that it sees, and no application has both.
One client, in this process, takes turns between them in slices, the order shifting each round. What a slice took of
the server's own CPU time is divided by that of the slice without observers in the same round, and the median taken over
the rounds, so that other work on the machine matters little. All of them are started anew several times, since where
things come to lie in memory is worth a percent or two. `off again` is the same as `off`: its figure is the error.
`undisturbed` compares the tenth part of the slices that took least, which is steadier on a machine that is busy.
"""

import argparse
import asyncio
import logging
import socket
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI
from page import put
from report import stamp, table

from fastapi_consumers import JSONConsumer, action, add_consumers, every, path
from fastapi_consumers.admin import admin_router


class Echo(JSONConsumer):
    @action
    async def echo(self, text: str) -> str:
        return text


def options_of(name: str) -> dict[str, Any]:
    if name == "statistics":
        return {"statistics": True}
    if name == "action log":
        return {"access_log": "actions"}
    if name == "no log":
        return {"access_log": False}
    if name == "metrics":
        from fastapi_consumers.contrib.prometheus import Metrics

        return {"observers": [Metrics()]}
    if name.startswith("traces"):
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

        from fastapi_consumers.contrib.opentelemetry import Tracing

        return {"observers": [Tracing(TracerProvider(sampler=ALWAYS_ON if name == "traces" else ALWAYS_OFF))]}
    return {}


CONTENDERS = {
    "off": "as it is",
    "off again": "the same again",
    "no log": "`access_log=False`",
    "admin": "`admin_router()` mounted, nobody looks",
    "schedule": "a schedule that is not due",
    "statistics": "`statistics=True`",
    "metrics": "metrics",
    "traces unsampled": "traces, none of them sampled",
    "traces": "traces, all of them sampled, no exporter",
    "action log": "a line in the log for each action",
}


def make_app(name: str) -> FastAPI:
    # The log goes nowhere, but is formatted.
    handler = logging.StreamHandler(open("/dev/null", "w"))  # noqa: SIM115 - for as long as the process lives
    logging.getLogger("fastapi_consumers.access").addHandler(handler)
    logging.getLogger("fastapi_consumers.access").setLevel(logging.INFO)
    app = FastAPI()
    consumers = add_consumers(app, [path("/echo", Echo)], **options_of(name))
    if name == "admin":
        app.include_router(admin_router(dependencies=[Depends(lambda: None)]))
    if name == "schedule":

        @consumers.schedule(every("365d"))
        async def clean_up() -> None: ...

    return app


def frame(number: int) -> str:
    return f'{{"action":"echo","request_id":{number},"data":{{"text":"{"x" * 64}"}}}}'


def serve(descriptor: int, name: str) -> None:
    config = uvicorn.Config(make_app(name), log_level="warning", ws_per_message_deflate=False)
    uvicorn.Server(config).run([socket.socket(fileno=descriptor)])


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has taken, from its scheduler's own count in nanoseconds (Linux)."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


async def run_slice(client: Any, pid: int, size: int) -> float:
    before = cpu_of(pid)
    for number in range(size):
        await client.send(frame(number))
        reply = await client.recv()
    assert '"ok"' in reply
    return (cpu_of(pid) - before) / size


def start(name: str) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        descriptor = listening.fileno()
        command = [sys.executable, __file__, "--serve", str(descriptor), "--only", name]
        return subprocess.Popen(command, pass_fds=[descriptor]), listening.getsockname()[1]


async def compare(names: Sequence[str], starts: int, rounds: int, size: int, docs: Path | None) -> None:
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(starts):
        servers = {name: start(name) for name in names}
        try:
            await measure(servers, taken, rounds, size)
        finally:
            for server, _ in servers.values():
                server.terminate()
                server.wait(30)
    body = []
    for name in names:
        ratios = sorted(each / off for each, off in zip(taken[name], taken["off"], strict=True))
        quartiles = f"{ratios[len(ratios) // 4]:.2f} to {ratios[len(ratios) * 3 // 4]:.2f}"
        least = tenth(taken[name]) / tenth(taken["off"])
        used = statistics.median(taken[name]) * 1e6
        body.append([CONTENDERS[name], f"{used:.1f}", f"{statistics.median(ratios):.2f} ({quartiles})", f"{least:.2f}"])
    told = table(["", "µs of CPU", "times that of the first: median (quartiles)", "undisturbed"], body)
    told += f"\n\n{stamp()}; {starts} starts, {rounds} rounds of {size} round trips each."
    print(told)
    if docs:
        put(docs / "benchmarks.md", "observers", told)


def tenth(values: list[float]) -> float:
    """What a slice took that nothing else on the machine disturbed: the first of ten."""
    return sorted(values)[len(values) // 10]


async def measure(
    servers: dict[str, tuple[subprocess.Popen[bytes], int]], taken: dict[str, list[float]], rounds: int, size: int
) -> None:
    from websockets.asyncio.client import connect

    names = list(servers)
    clients = {}
    for name, (server, port) in servers.items():
        clients[name] = await connect(f"ws://127.0.0.1:{port}/echo", compression=None, open_timeout=60)
        await run_slice(clients[name], server.pid, 2000)
    for number in range(rounds):
        shift = number % len(names)
        for name in (*names[shift:], *names[:shift]):
            taken[name].append(await run_slice(clients[name], servers[name][0].pid, size))
    for client in clients.values():
        await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--slice", type=int, default=150, help="round trips of one contender at a time")
    parser.add_argument("--only", default=",".join(list(CONTENDERS)[2:]), help="contenders apart from off")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--docs", type=Path, help="folder of benchmarks.md, to put the table there")
    chosen = parser.parse_args()
    if chosen.serve is not None:
        serve(chosen.serve, chosen.only)
    else:
        names = [*list(CONTENDERS)[:2], *chosen.only.split(",")]
        asyncio.run(compare(names, chosen.starts, chosen.rounds, chosen.slice, chosen.docs))
