"""Devices that are not there: each measures what it makes up, and sends it in batches.

A device keeps what it could not send, comes back when the connection was lost, and slows down when it is told to. It
needs ``websockets`` and ``ormsgpack``, and nothing of the framework: this is all that there is to speak.
"""

import argparse
import asyncio
import json
import math
import os
import random
import time
from collections import deque
from typing import Any

import ormsgpack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

DEMO_KEYS = {"greenhouse": "demo-greenhouse-key", "cellar": "demo-cellar-key", "roof": "demo-roof-key"}
#: What each measures, and around which value.
SENSORS = {
    "greenhouse": {"temperature": 24.0, "humidity": 71.0, "light": 540.0},
    "cellar": {"temperature": 12.0, "humidity": 58.0},
    "roof": {"temperature": 17.0, "wind": 6.5, "light": 880.0},
}
#: Readings that a device keeps while it cannot send; older ones are lost.
MEMORY = 1000
LARGEST_BATCH = 100


class Device:
    """One device, that measures all the time and sends when it can."""

    def __init__(self, name: str, key: str, interval: float) -> None:
        self.name = name
        self.sent = 0
        self._key = key
        self._interval = interval
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MEMORY)
        self._sensors = SENSORS.get(name, {"temperature": 20.0})
        self._phase = random.uniform(0, 6)
        self._request_id = 0

    async def run(self, url: str) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._measure())
            tasks.create_task(self._stay_connected(url))

    async def _measure(self) -> None:
        while True:
            now = time.time()
            for sensor, usual in self._sensors.items():
                value = usual * (1 + 0.08 * math.sin(now / 20 + self._phase) + random.gauss(0, 0.008))
                self._waiting.append({"sensor": sensor, "value": round(value, 2), "at": now})
            await asyncio.sleep(self._interval / 4)

    async def _stay_connected(self, url: str) -> None:
        headers, subprotocols = {"X-API-Key": self._key}, [Subprotocol("fc.v1.msgpack")]
        # It waits longer each time while nobody answers. A key that is refused ends it.
        async for socket in connect(url, additional_headers=headers, subprotocols=subprotocols):
            try:
                while True:
                    await self._send_batch(socket)
                    await asyncio.sleep(self._interval)
            except ConnectionClosed as closed:
                print(f"{self.name}: lost the connection ({closed}), {len(self._waiting)} readings wait", flush=True)
                if closed.rcvd is not None and closed.rcvd.code in (4401, 4403):
                    return

    async def _send_batch(self, socket: ClientConnection) -> None:
        batch = list(self._waiting)[:LARGEST_BATCH]
        if not batch:
            return
        reply = await self._call(socket, "ingest", {"readings": batch})
        if reply["status"] == "ok":
            for _ in batch:
                self._waiting.popleft()
            self.sent += len(batch)
            print(f"{self.name}: sent {len(batch)}, {reply['data']} were new", flush=True)
        elif reply["error"]["code"] == "throttled":
            # Nothing was taken: the batch stays, and grows meanwhile.
            await asyncio.sleep(reply["error"]["retry_after"])
        else:
            raise RuntimeError(f"{self.name}: {reply['error']}")

    async def _call(self, socket: ClientConnection, action: str, data: Any) -> dict[str, Any]:
        self._request_id += 1
        await socket.send(ormsgpack.packb({"action": action, "request_id": self._request_id, "data": data}))
        while True:
            frame = ormsgpack.unpackb(await socket.recv(decode=False))
            # What else comes is who is there.
            if frame["type"] == "reply" and frame["request_id"] == self._request_id:
                return dict(frame)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Devices that are not there.")
    parser.add_argument("devices", nargs="*", help="which; by default all that have a key")
    parser.add_argument("--url", default="ws://127.0.0.1:8000/ws/device")
    parser.add_argument("--interval", type=float, default=3.0, help="seconds between two batches")
    options = parser.parse_args()
    keys = json.loads(os.environ.get("DEVICE_KEYS") or "null") or DEMO_KEYS
    async with asyncio.TaskGroup() as tasks:
        for name in options.devices or keys:
            tasks.create_task(Device(name, keys[name], options.interval).run(options.url))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
