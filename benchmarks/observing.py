"""What observing costs an action: CPU time of the server per round trip over a real socket, with and without.

    python benchmarks/observing.py [--rounds 60] [--slice 1000] [--only metrics,traces]

One uvicorn in a process of its own serves the same consumer in several applications that differ in nothing but their
observers. One client, in this process, takes turns between them in slices, the order shifting each round. What a slice
took of the server's own CPU time is divided by that of the slice without observers in the same round, and the median
taken over the rounds, so that other work on the machine matters little. `off again` is the same as `off`: how far its
figure is from 1 is the error.
"""

import argparse
import asyncio
import logging
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI

from fastapi_consumers import JSONConsumer, action, add_consumers, path


class Echo(JSONConsumer):
    @action
    async def echo(self, text: str) -> str:
        return text


def options_of(name: str) -> dict[str, Any]:
    if name == "statistics":
        return {"statistics": True}
    if name == "action log":
        return {"access_log": "actions"}
    if name == "metrics":
        from fastapi_consumers.contrib.prometheus import Metrics

        return {"observers": [Metrics()]}
    if name.startswith("traces"):
        from fastapi_consumers.contrib.opentelemetry import Tracing
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

        return {"observers": [Tracing(TracerProvider(sampler=ALWAYS_ON if name == "traces" else ALWAYS_OFF))]}
    return {}


CONTENDERS = ("off", "off again", "statistics", "metrics", "traces unsampled", "traces", "action log")


def make_app() -> FastAPI:
    # The log goes nowhere, but is formatted.
    handler = logging.StreamHandler(open("/dev/null", "w"))  # noqa: SIM115 - for as long as the process lives
    logging.getLogger("fastapi_consumers.access").addHandler(handler)
    logging.getLogger("fastapi_consumers.access").setLevel(logging.INFO)
    app = FastAPI()

    @app.get("/cpu")
    def cpu() -> float:
        return time.process_time()

    for name in CONTENDERS:
        part = FastAPI()
        add_consumers(part, [path("/echo", Echo)], **options_of(name))
        app.mount(f"/{name.replace(' ', '-')}", part)
    return app


def frame(number: int) -> str:
    return f'{{"action":"echo","request_id":{number},"data":{{"text":"{"x" * 64}"}}}}'


def serve(descriptor: int) -> None:
    config = uvicorn.Config(make_app(), log_level="warning", ws_per_message_deflate=False)
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


async def compare(names: Sequence[str], rounds: int, size: int) -> None:
    from websockets.asyncio.client import connect

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        port = listening.getsockname()[1]
        command = [sys.executable, __file__, "--serve", str(listening.fileno())]
        server = subprocess.Popen(command, pass_fds=[listening.fileno()])  # noqa: ASYNC220 - nothing else runs yet
    try:
        clients = {
            name: await connect(
                f"ws://127.0.0.1:{port}/{name.replace(' ', '-')}/echo", compression=None, open_timeout=60
            )
            for name in names
        }
        for client in clients.values():
            await run_slice(client, server.pid, size)
        taken: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            shift = number % len(names)
            for name in (*names[shift:], *names[:shift]):
                taken[name].append(await run_slice(clients[name], server.pid, size))
        plain = taken["off"]
        for name in names:
            ratios = sorted(each / off for each, off in zip(taken[name], plain, strict=True))
            spread = f"quartiles {ratios[len(ratios) // 4]:.3f} to {ratios[len(ratios) * 3 // 4]:.3f}"
            used = statistics.median(taken[name]) * 1e6
            print(f"{name:18} {used:7.1f} µs of CPU, {statistics.median(ratios):.3f} of off ({spread})")
        print(f"{rounds} rounds of {size}")
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--slice", type=int, default=1000, help="round trips of one contender at a time")
    parser.add_argument("--only", default=",".join(CONTENDERS[2:]), help="contenders apart from off")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        serve(chosen.serve)
    else:
        asyncio.run(compare([*CONTENDERS[:2], *chosen.only.split(",")], chosen.rounds, chosen.slice))
