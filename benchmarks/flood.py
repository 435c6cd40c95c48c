#!/usr/bin/env python3
"""What others notice of a flood: many connections of one address send as fast as they can, some others now and then.

python benchmarks/flood.py                                  # 1 000 connections for 10 s, every case
python benchmarks/flood.py --only limits,limits_small --rounds 5
python benchmarks/flood.py --polite                         # the flood stops where it is told to close

Needs gcc, `taskset`, and uvicorn with uvloop. The server has one core. The other one has both generators, of which the
flood is the one that is `nice`, so that what it takes is not what the others seem to wait for. These send at a fixed
rate whether they have been answered or not, so that no wait is left out. Their p99 is seen without the flood, then from
the moment at which it begins; memory is the server's largest, looked at ten times a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from harness import HERE, LOAD_CORE, ROOT, SERVER_CORE, SERVERS, UVICORN, WORK
from pydantic import BaseModel
from report import stamp

from fastapi_consumers import GroupConsumer, action, add_consumers, path

#: What each case gives ``add_consumers``. ``bare`` is the loop of ``servers/raw_starlette.py``, which limits nothing.
RATE = {"throttle_classes": ["50/second; 600/minute"]}
#: As the checklist of docs/security.md has it.
HARDENED = {
    "throttle_classes": ["20/second; 600/minute"],
    "max_connections_per_address": 20,
    "max_throttled_requests": 50,
    "max_message_size": 16 * 1024,
}
CASES: dict[str, dict[str, Any]] = {
    "bare": {},
    "none": {},
    "throttled": {**RATE, "max_throttled_requests": 10**9},
    "closed": RATE,
    "closed_small": RATE,
    "limits": {**RATE, "max_connections_per_address": 20},
    "limits_small": {**RATE, "max_connections_per_address": 20},
    "limits_protocol": {**RATE, "max_connections_per_address": 20},
    "hardened": HARDENED,
    "hardened_small": HARDENED,
    "hardened_protocol": HARDENED,
    "hardened_protocol_small": HARDENED,
    "again": {**RATE, "max_connections_per_address": 20, "connection_throttle_classes": ["60/minute"]},
}
#: Of the listening socket, from which those that it accepts have theirs. Linux takes twice as much.
RECEIVE_BUFFER = 8 * 1024
TOLD = {
    "bare": "Starlette by hand, no limits",
    "none": "no limits",
    "throttled": "throttles that answer each request",
    "closed": "throttles",
    "closed_small": f"throttles, with a receive buffer of {RECEIVE_BUFFER // 1024} KiB",
    "limits": "throttles, 20 connections per address",
    "limits_small": f"the same, with a receive buffer of {RECEIVE_BUFFER // 1024} KiB",
    "limits_protocol": "throttles, 20 connections per address, under our protocol class for uvicorn",
    "hardened": "the limits of the checklist",
    "hardened_small": f"the same, with a receive buffer of {RECEIVE_BUFFER // 1024} KiB",
    "hardened_protocol": "the limits of the checklist, under our protocol class for uvicorn",
    "hardened_protocol_small": f"the same, with a receive buffer of {RECEIVE_BUFFER // 1024} KiB",
    "again": "20 per address, and who is refused or closed comes back at once",
}
#: All that flood have one address. Of those that ask each has its own, from here on.
FLOODING, ASKING = "127.0.0.1", "127.0.0.2"


class Text(BaseModel):
    text: str


class Room(GroupConsumer):
    groups = ["room.{group}"]

    @action
    async def echo(self, data: Text) -> Text:
        return data


def make_app(case: str) -> FastAPI:
    app = FastAPI()
    add_consumers(app, [path("/ws/{group}", Room)], **CASES[case])
    return app


if "FLOOD_CASE" in os.environ:
    app = make_app(os.environ["FLOOD_CASE"])


@contextlib.contextmanager
def serving(case: str) -> Iterator[tuple[int, int]]:
    listening = socket.socket()
    if case.endswith("small"):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    listening.bind(("127.0.0.1", 0))
    listening.listen(4096)
    port = listening.getsockname()[1]
    module = "raw_starlette:app" if case == "bare" else "flood:app"
    paths = os.pathsep.join(map(str, (SERVERS, HERE, ROOT)))
    env = os.environ | {"PYTHONPATH": paths} | ({} if case == "bare" else {"FLOOD_CASE": case})
    command = [
        "taskset",
        "-c",
        SERVER_CORE,
        sys.executable,
        "-m",
        "uvicorn",
        module,
        *UVICORN,
        "--fd",
        str(listening.fileno()),
        *(["--ws", "fastapi_consumers.contrib.uvicorn:WebSocketProtocol"] if "protocol" in case else []),
    ]
    log = WORK / f"flood-{case}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output, pass_fds=[listening.fileno()])
    listening.close()
    try:
        end = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                probe.settimeout(1)
                with contextlib.suppress(OSError):
                    probe.connect(("127.0.0.1", port))
                    probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    if probe.recv(1):
                        break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server did not start, see {log}")
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def generator(mode: str, *prefix: str, **options: Any) -> subprocess.Popen[str]:
    flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    command = [*prefix, "taskset", "-c", LOAD_CORE, str(WORK / "wsload"), mode, *flags]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str], told: str | None = None) -> dict[str, Any]:
    output, _ = process.communicate(told, timeout=180)
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    if "error" in found:
        raise RuntimeError(found["error"])
    return found


class Memory(threading.Thread):
    """The largest resident set of a process, in MiB."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.largest, self.over = pid, self.now(pid), threading.Event()

    @staticmethod
    def now(pid: int) -> float:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) / 1024 if found is not None else 0.0

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.largest = max(self.largest, self.now(self.pid))


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    with serving(case) as (port, pid):
        asking = {
            "port": port,
            "pid": pid,
            "from": ASKING,
            "conns": options.asking,
            "rate": options.rate,
            "dur": options.dur,
        }
        alone = result(generator("paced", warm=1, **asking))
        before = Memory.now(pid)
        memory = Memory(pid)
        memory.start()
        shape = {"port": port, "from": FLOODING, "conns": options.conns, "size": options.size, "dur": options.dur}
        flood = generator("flood", "nice", "-n", "10", polite=int(options.polite), again=int(case == "again"), **shape)
        assert flood.stdout is not None
        flood.stdout.readline()  # All are open, or refused.
        others = generator("paced", warm=1, **asking)
        assert others.stderr is not None
        others.stderr.readline()  # It measures from here on, and the flood begins.
        flooded, beside = result(flood, "go\n"), result(others)
        memory.over.set()
        return {"alone": alone, "beside": beside, "flood": flooded, "before": before, "largest": memory.largest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES), help="cases, of " + ", ".join(CASES))
    parser.add_argument("--conns", type=int, default=1000, help="connections that flood")
    parser.add_argument("--asking", type=int, default=20, help="connections that ask now and then")
    parser.add_argument("--rate", type=int, default=200, help="what those ask together in a second")
    parser.add_argument("--size", type=int, default=64, help="characters of a request's text")
    parser.add_argument("--dur", type=float, default=10.0, help="seconds")
    parser.add_argument("--polite", action="store_true", help="a flooding connection stops when it is told to close")
    parser.add_argument("--rounds", type=int, default=1, help="the cases take turns so often")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    source = HERE / "loadgen" / "wsload.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-o", str(WORK / "wsload"), str(source)], check=True)
    cases = options.only.split(",")
    seen: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            seen[case].append(measure(case, options))
            show(case, seen[case][-1])
    if options.rounds > 1:
        print("\nmedians over the rounds (lowest to highest)")
        for case, rounds in seen.items():
            before = [found["alone"]["p99_us"] / 1000 for found in rounds]
            after = [found["beside"]["p99_us"] / 1000 for found in rounds]
            times = [beside / alone for alone, beside in zip(before, after, strict=True)]
            slowest = [found["beside"]["max_us"] / 1000 for found in rounds]
            memory = [found["largest"] - found["before"] for found in rounds]
            print(
                f"{TOLD[case]}\n  p99 {spread(before)} -> {spread(after)} ms, {spread(times)} times; "
                f"the slowest {spread(slowest)} ms; memory +{spread(memory)} MiB"
            )
    print(f"\n{stamp()}.")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def show(case: str, found: dict[str, Any]) -> None:
    alone, beside, flood = found["alone"], found["beside"], found["flood"]
    print(
        f"{TOLD[case]}\n"
        f"  others: p50 {alone['p50_us'] / 1000:.2f} -> {beside['p50_us'] / 1000:.2f} ms, "
        f"p99 {alone['p99_us'] / 1000:.2f} -> {beside['p99_us'] / 1000:.2f} ms "
        f"({beside['p99_us'] / alone['p99_us']:.1f} times), the slowest {beside['max_us'] / 1000:.0f} ms, "
        f"answered {beside['answered']} of {beside['sent']}\n"
        f"  flood: {flood['dials']} dialled, {flood['refused']} refused, at most {flood['most_open']} open, "
        f"{flood['left']} left; {flood['frames_sent']:.0f} sent, {flood['answers']} answered, "
        f"closed {flood['closed']}\n"
        f"  memory {found['before']:.0f} -> {found['largest']:.0f} MiB; CPU: server {beside['srv_cpu']:.2f}, "
        f"flood {flood['cpu']:.2f}, others {beside['lg_cpu']:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
