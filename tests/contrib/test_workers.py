"""Two workers of uvicorn behind one address: whichever is scraped answers for both."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
APP = """
import os
from fastapi import FastAPI
from fastapi_consumers import JSONConsumer, action, add_consumers, path
from fastapi_consumers.contrib.prometheus import Metrics, metrics_router


class Which(JSONConsumer):
    @action
    async def pid(self) -> int:
        return os.getpid()


metrics = Metrics()
app = FastAPI()
add_consumers(app, [path("/which", Which)], observers=[metrics])
app.include_router(metrics_router(metrics, registry=None, workers=os.environ["SHARED"], interval=0.1))
"""


async def scraped(port: int) -> dict[str, float]:
    # A connection of its own each time, which either worker may take.
    async with httpx.AsyncClient(headers={"connection": "close"}) as client:
        response = await client.get(f"http://127.0.0.1:{port}/metrics")
    families = text_string_to_metric_families(response.text)
    return {
        sample.name.removeprefix("fastapi_consumers_"): sample.value for each in families for sample in each.samples
    }


async def until(port: int, **expected: float) -> None:
    """Whoever answers says so: several times in a row."""
    right = 0
    while right < 8:
        found = await scraped(port)
        right = right + 1 if {name: found.get(name) for name in expected} == expected else 0
        await asyncio.sleep(0.02)


async def test_any_worker_answers_for_all_of_them_and_for_one_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "served:app", "--workers", "2", "--port", str(port)]
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "SHARED": str(tmp_path / "shared")}
    server = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [*command, "--log-level", "warning", "--ws-per-message-deflate", "false"], cwd=tmp_path, env=environment
    )
    clients: list[Any] = []
    try:
        async with asyncio.timeout(200):
            while True:
                try:
                    await scraped(port)
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            # As many as it takes until both have some.
            pids: list[int] = []
            while len(set(pids)) < 2:
                client = await connect(f"ws://127.0.0.1:{port}/which", compression=None)
                await client.send('{"action":"pid","request_id":1}')
                pids.append(int(str(await client.recv()).rpartition('"data":')[2].strip("} ")))
                clients.append(client)
            count = len(clients)
            await until(port, connections=count, connections_opened_total=count, calls_total=count)
            os.kill(pids[0], signal.SIGKILL)
            left = count - pids.count(pids[0])
            await until(port, connections=left, connections_opened_total=count, calls_total=count)
    finally:
        for client in clients:
            client.transport.abort()
        server.terminate()
        server.wait(30)
