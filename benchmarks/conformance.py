#!/usr/bin/env python3
"""The Autobahn test suite against an echo under uvicorn: its own WebSocket class, and ours, case by case.

python benchmarks/conformance.py --wstest /path/to/wstest [--cases 1.*,5.*] [--out FOLDER]

``wstest`` is the program of the package autobahntestsuite (25.10.1), which needs Python 2.7:

python2.7 -m virtualenv ab && ab/bin/pip install autobahntestsuite && ab/bin/wstest --help
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CLASSES = {"uvicorn": "websockets-sansio", "ours": "fastapi_consumers.contrib.uvicorn:WebSocketProtocol"}
#: Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing; and what a peer splits by itself.
CASES = "1.*,2.*,3.*,4.*,5.*,6.*,7.*,10.*"
#: What passes. Which of them it is may depend on whether an echo is sent before the next frame is read.
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """What comes goes back."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})


def serve(stack: ExitStack, cls: str, log: Path) -> int:
    """Start a server that ends with the stack; its port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        port: int = listening.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "conformance:app", "--fd", str(listening.fileno()), "--ws", cls]
        command += ["--app-dir", str(HERE), "--lifespan", "off", "--log-level", "warning"]
        output = stack.enter_context(log.open("wb"))
        files = [listening.fileno()]
        process = subprocess.Popen(command, stdout=output, stderr=output, pass_fds=files, cwd=HERE.parent)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wstest", required=True, help="the program")
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--out", type=Path, help="where its reports go; by default a new folder")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="conformance-"))
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with ExitStack() as stack:
        servers = [
            {"agent": name, "url": f"ws://127.0.0.1:{serve(stack, cls, out / f'{name}.log')}"}
            for name, cls in CLASSES.items()
        ]
        spec = {"outdir": str(out), "servers": servers, "cases": options.cases.split(","), "exclude-cases": []}
        (out / "spec.json").write_text(json.dumps({**spec, "exclude-agent-cases": {}}))
        subprocess.run([options.wstest, "--mode", "fuzzingclient", "--spec", str(out / "spec.json")], check=True)
    report = json.loads((out / "index.json").read_text())
    base, own = report["uvicorn"], report["ours"]
    print("\n| group | cases | uvicorn's class | ours |\n|---|---:|---|---|")
    groups = sorted({case.partition(".")[0] for case in base}, key=int)
    for group in groups:
        cases = [case for case in base if case.partition(".")[0] == group]
        columns = [
            ", ".join(f"{count} {grade}" for grade, count in Counter(of[case]["behavior"] for case in cases).items())
            for of in (base, own)
        ]
        print(f"| {group} | {len(cases)} | {columns[0]} | {columns[1]} |")
    differing = worse = 0
    for case in sorted(base, key=lambda name: [int(part) for part in name.split(".")]):
        for key in ("behavior", "behaviorClose", "remoteCloseCode"):
            if base[case][key] != own[case][key]:
                differing += 1
                print(f"{case} {key}: uvicorn's {base[case][key]}, ours {own[case][key]}")
                if key == "remoteCloseCode" or own[case][key] not in PASSED | {base[case][key]}:
                    worse += 1
    took = time.monotonic() - began
    print(f"\n{len(base)} cases, {differing} differences, {worse} worse; {took:.0f} s, reports in {out}")
    sys.exit(1 if worse or set(base) != set(own) else 0)


if __name__ == "__main__":
    main()
