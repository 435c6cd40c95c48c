#!/usr/bin/env python3
"""Two servers over one Valkey, and everything goes wrong for as long as you like: what do clients get?

python benchmarks/chaos.py                                  # a minute
python benchmarks/chaos.py --seconds 3600 --clients 100     # a long one
python benchmarks/chaos.py --faults 0                       # without faults in the servers

Clients of groups with history go, half of them without a close frame, and come back to the other server with their last
position; packets are lost, doubled, late and out of order in the servers; their connections to Valkey are cut; history
is trimmed and removed. Prints counts. Ends with 1 if an event was lost, doubled or out of order without a word, or if
somebody was told that something is gone which was there. The test tests/server/test_chaos.py is the short form.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from report import stamp

from tests.server.chaos import Run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for which things go wrong")
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--rooms", type=int, default=4)
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--faults", type=float, default=0.02, help="how likely each of four faults is for a packet")
    parser.add_argument("--seed", type=int, default=1, help="of clients, faults and harms")
    parser.add_argument("--runs", type=int, default=1, help="one after another, each with the next seed")
    options = vars(parser.parse_args())
    runs, failed = options.pop("runs"), 0
    for number in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder), **{**options, "seed": options["seed"] + number})
            asyncio.run(run.run())
            print(run.report(), flush=True)
            try:
                run.verify()
            except AssertionError as error:
                failed += 1
                print(f"FAILED with seed {run.seed}: {error}", flush=True)
    print(f"\n{stamp()}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
