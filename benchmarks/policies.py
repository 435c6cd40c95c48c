"""What a permission and a throttle in memory cost: round trips over a real socket, with both and without.

    python benchmarks/policies.py [--rounds 40] [--slice 500] [--redis redis://127.0.0.1:6379]

One uvicorn in a process of its own serves two consumers that differ in nothing else. One client, in this process, takes
turns between them in slices, the first one changing each round; the ratio is formed inside a round and the median is
taken, so that a machine that slows down slows down both. `--in-process` leaves the socket out, which shows the same
cost against a smaller whole.
"""

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from fastapi_consumers import JSONConsumer, action, add_consumers, path
from fastapi_consumers.permissions import BasePermission
from fastapi_consumers.testing import WebsocketCommunicator

Slice = Callable[[int], Awaitable[float]]


class IsAllowed(BasePermission):
    async def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return True


class Bare(JSONConsumer):
    @action
    async def echo(self, text: str) -> str:
        return text


class Guarded(Bare):
    permission_classes = [IsAllowed]
    throttle_classes = ["1000000/second"]


def make_app(limiter_url: str) -> FastAPI:
    app = FastAPI()
    add_consumers(app, [path("/bare", Bare), path("/guarded", Guarded)], limiter_url=limiter_url)
    return app


def frame(number: int) -> str:
    return f'{{"action":"echo","request_id":{number},"data":{{"text":"{"x" * 64}"}}}}'


def serve(descriptor: int, limiter_url: str) -> None:
    config = uvicorn.Config(make_app(limiter_url), log_level="warning", ws_per_message_deflate=False)
    uvicorn.Server(config).run([socket.socket(fileno=descriptor)])


async def compare(bare: Slice, guarded: Slice, rounds: int, size: int) -> None:
    await bare(size)
    await guarded(size)
    ratios, rates = [], []
    for number in range(rounds):
        if number % 2:
            plain = await bare(size)
            checked = await guarded(size)
        else:
            checked = await guarded(size)
            plain = await bare(size)
        ratios.append(checked / plain)
        rates.append((size / plain, size / checked))
    ratios.sort()
    print(f"bare                    {statistics.median(rate for rate, _ in rates):8.0f} round trips/s")
    print(f"permission and throttle {statistics.median(rate for _, rate in rates):8.0f} round trips/s")
    spread = f"quartiles {ratios[len(ratios) // 4]:.3f} to {ratios[len(ratios) * 3 // 4]:.3f}"
    print(f"time with / without     {statistics.median(ratios):8.3f} ({spread}, {rounds} rounds of {size})")


async def over_socket(options: argparse.Namespace) -> None:
    from websockets.asyncio.client import connect

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        port = listening.getsockname()[1]
        command = [sys.executable, __file__, "--serve", str(listening.fileno()), "--redis", options.redis]
        server = subprocess.Popen(command, pass_fds=[listening.fileno()])  # noqa: ASYNC220 - nothing else runs yet
    try:
        where = f"ws://127.0.0.1:{port}"
        async with (
            connect(f"{where}/bare", compression=None, open_timeout=60) as bare,
            connect(f"{where}/guarded", compression=None, open_timeout=60) as guarded,
        ):

            def run(client: Any) -> Slice:
                async def turn(size: int) -> float:
                    started = time.perf_counter()
                    for number in range(size):
                        await client.send(frame(number))
                        reply = await client.recv()
                    assert '"ok"' in reply
                    return time.perf_counter() - started

                return turn

            await compare(run(bare), run(guarded), options.rounds, options.slice)
    finally:
        server.terminate()
        server.wait(30)


async def in_process(options: argparse.Namespace) -> None:
    app = make_app(options.redis)
    async with WebsocketCommunicator(app, "/bare") as bare, WebsocketCommunicator(app, "/guarded") as guarded:

        def run(client: WebsocketCommunicator) -> Slice:
            async def turn(size: int) -> float:
                started = time.perf_counter()
                for number in range(size):
                    await client.send_to(frame(number))
                    reply = await client.receive_from()
                assert '"ok"' in str(reply)
                return time.perf_counter() - started

            return turn

        await compare(run(bare), run(guarded), options.rounds, options.slice)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--slice", type=int, default=500, help="round trips of one contender at a time")
    parser.add_argument("--redis", default="memory://", metavar="URL", help="count at this server, and not in memory")
    parser.add_argument("--in-process", action="store_true", help="without a socket")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        serve(chosen.serve, chosen.redis)
    else:
        asyncio.run(in_process(chosen) if chosen.in_process else over_socket(chosen))
