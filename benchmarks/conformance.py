#!/usr/bin/env python3
"""The Autobahn test suite against an echo under uvicorn: its own WebSocket class, and ours, case by case.

python benchmarks/conformance.py --wstest /path/to/wstest [--cases 1.*,5.*] [--out FOLDER]

``wstest`` is the program of the package autobahntestsuite (25.10.1), which needs Python 2.7:

python2.7 -m virtualenv ab && ab/bin/pip install autobahntestsuite && ab/bin/wstest --help

Prints the table of docs/uvicorn.md with its commit, then each case that differs.
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

from page import put
from report import stamp

HERE = Path(__file__).resolve().parent
CLASSES = {"uvicorn": "websockets-sansio", "ours": "fastapi_consumers.contrib.uvicorn:WebSocketProtocol"}
#: Of compression one group for each side that may limit it; all of 12 and 13 take an hour.
GROUPS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragments",
    "6": "UTF-8",
    "7": "closing",
    "10": "a message that the peer splits",
    "12.1": "compression",
    "13.7": "compression, with limits agreed on",
}
CASES = ",".join(f"{group}.*" for group in GROUPS)
#: What passes. Which of them it is may depend on whether an echo is sent before the next frame is read.
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
#: What tables call it.
SPOKEN = {"NON-STRICT": "non-strict", "INFORMATIONAL": "informational", "FAILED": "failed"}


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


def group_of(case: str) -> str:
    """One of `GROUPS`, or else its first number."""
    first, second, *_ = case.split(".")
    return f"{first}.{second}" if f"{first}.{second}" in GROUPS else first


def table_of(base: dict[str, Any], own: dict[str, Any]) -> str:
    """Markdown: how many cases of each group ended how, under uvicorn's class and under ours."""
    lines = ["| group | | cases | uvicorn's class | this one |", "|---|---|---:|---|---|"]
    for group in sorted({group_of(case) for case in base}, key=lambda name: [int(part) for part in name.split(".")]):
        cases = [case for case in base if group_of(case) == group]
        columns = [
            ", ".join(f"{count} {SPOKEN.get(grade, grade)}" for grade, count in counted.most_common())
            for counted in (Counter(of[case]["behavior"] for case in cases) for of in (base, own))
        ]
        lines.append(f"| {group} | {GROUPS.get(group, '')} | {len(cases)} | {columns[0]} | {columns[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wstest", required=True, help="the program")
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--out", type=Path, help="where its reports go; by default a new folder")
    parser.add_argument("--docs", type=Path, help="folder of uvicorn.md, to put the table there")
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
    told = f"{table_of(base, own)}\n\n{stamp()}."
    print(f"\n{told}\n")
    if options.docs:
        put(options.docs / "uvicorn.md", "conformance", told)
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
