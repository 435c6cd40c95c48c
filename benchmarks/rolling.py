#!/usr/bin/env python3
"""A rolling restart of two servers behind a TCP proxy, under load: who is away for how long, and what is lost?

python benchmarks/rolling.py                                    # 200 clients, a drain of 10 s
python benchmarks/rolling.py --drain-timeout 0                  # what uvicorn does by itself
python benchmarks/rolling.py --clients 1000 --drain-timeout 30

Each server is told to stop with SIGTERM, and started anew when it has ended. Clients of groups with history wait for as
long as `closing` says and come back through the proxy, which asks every 0.2 s who is ready. Prints, ready for the docs,
command, commit, counts, and when each server's sockets were closed. Ends with 1 if an event was lost or came twice, or
if somebody did not come back. The test tests/server/test_rolling.py is the short form.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from page import put
from report import stamp

from tests.server.rolling import BINS, Run

#: Characters of the longest bar.
WIDTH = 27


def block(run: Run) -> str:
    """A block of Markdown: the report, with the histograms of both servers side by side."""
    told = [line for line in run.lines() if not line.startswith(("  closes of", "    "))]
    width, longest = (run.drain_timeout or 1.0) / BINS, max((max(bins) for bins in run.histograms), default=0)
    told += ["", f"{'closes since the signal':<26}{'server one':<{WIDTH + 6}}server two"]
    rows = list(zip(*run.histograms, strict=True))
    while rows and not any(rows[-1]):
        rows.pop()
    for number, counts in enumerate(rows):
        when = f"{number * width:.2f} to {(number + 1) * width:.2f} s" if number < BINS else "later"
        bars = [f"{count:4} {'#' * round(count * WIDTH / max(longest, WIDTH))}" for count in counts]
        told.append(f"  {when:<22}" + "".join(f"{bar:<{WIDTH + 6}}" for bar in bars).rstrip())
    command = f"$ python benchmarks/rolling.py --clients {len(run.clients)} --drain-timeout {run.drain_timeout:g}"
    return "\n".join(["```text", command, *told, "```", "", f"{stamp()}."])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rooms", type=int, default=4)
    parser.add_argument("--rate", type=float, default=40.0, help="events in a second, over all rooms")
    parser.add_argument("--seconds", type=float, default=2.0, help="of load before, between and after the restarts")
    parser.add_argument("--drain-timeout", type=float, default=10.0)
    parser.add_argument("--docs", type=Path, help="folder of benchmarks.md, to put the block there")
    options = vars(parser.parse_args())
    docs = options.pop("docs")
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), **options)
        asyncio.run(run.run())
        print(block(run), flush=True)
        if docs:
            put(docs / "benchmarks.md", "rolling" if run.drain_timeout else "rolling at once", block(run))
        try:
            run.verify()
        except AssertionError:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
