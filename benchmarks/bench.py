#!/usr/bin/env python3
"""WebSocket servers side by side, interleaved, against a limit written by hand. Standard library only; see README.md.

python benchmarks/bench.py all --short               # set up, and measure everything but the peers: ten minutes
python benchmarks/bench.py all                       # with the peers, about an hour; then tables and plots of the docs
python benchmarks/bench.py run --workloads w1,w2     # some of it
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness
from harness import ROOT, VENVS, WORK, WSLOAD, Contender, Pool, Redis, named, selected
from page import publish, put
from profiling import COMPARED, SHAPES, functions, shares
from report import description, print_versions, report
from results import Results
from workloads import WORKLOADS

#: What is worth a look while a run is going on.
SHOWN = (
    *(
        "error",
        "skipped",
        "rate",
        "deliveries",
        "known",
        "recovered",
        "kib_per_conn",
        "p50_us",
        "last_p50_us",
        "all_us",
    ),
    *("lost_msgs", "lost_deliv", "doubled", "cpu_us_per_op", "srv_cpu", "lg_cpu", "healthy_deliv", "max_gap_ms"),
    *("rss_start_mib", "rss_max_mib", "rss_late_growth_mib", "stalled_got", "stalled_closed", "counters"),
)


def setup(only: str | None) -> None:
    """The load generator, and one environment for all contenders that share it."""
    WORK.mkdir(parents=True, exist_ok=True)
    source = harness.HERE / "loadgen" / "wsload.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-o", str(WSLOAD), str(source)], check=True)
    for name in dict.fromkeys(contender.venv for contender in selected(only)):
        folder = WORK / "venvs" / name
        python = folder / "bin" / "python"
        ready = folder / "ready"
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", *VENVS[name]], check=True)
            ready.touch()
        print(f"{name}: ready")


def measure(workload: str, contender: Contender, options: argparse.Namespace, pool: Pool) -> list[dict[str, Any]]:
    try:
        cells = WORKLOADS[workload].run(contender, options, pool)
        return [{"contender": contender.name, "cell": cell, **result} for cell, result in cells]
    except Exception as error:  # one contender's failure is a result, and the others go on
        return [{"contender": contender.name, "cell": workload, "error": repr(error)}]


def taking_part(workload: str, only: str | None) -> list[Contender]:
    """Whom ratios are to comes first."""
    about = WORKLOADS[workload]
    if only not in (None, "all"):
        found = selected(only, about.to)
    else:
        found = [named(name) for name in about.takes] or [*selected(only), *map(named, about.also)]
        found = list({contender.name: contender for contender in found}.values())
        # Peers take part where they are asked for, since each needs an environment of its own.
        found = [c for c in found if only or c.venv == "base"]
    return [c for c in found if workload not in c.skip and (not c.only or workload in c.only)]


def run(options: argparse.Namespace, workloads: list[str]) -> Path:
    everybody = {c.name: c for workload in workloads for c in taking_part(workload, options.only)}
    unready = {c.venv for c in everybody.values() if not (WORK / "venvs" / c.venv / "ready").exists()}
    if unready or not WSLOAD.exists():
        only = f" --only {options.only}" if options.only else ""
        sys.exit(f"not set up: run `bench.py setup{only}` first")
    out = Path(options.out or WORK / "out" / time.strftime("%m%d-%H%M%S"))
    out.mkdir(parents=True, exist_ok=True)
    start, this_run = time.monotonic(), time.strftime("%Y%m%d-%H%M%S")
    with (out / "raw.jsonl").open("a") as raw:

        def write(line: dict[str, Any]) -> None:
            raw.write(json.dumps({"run": this_run, **line}) + "\n")
            raw.flush()

        write({"about": description({c.venv for c in everybody.values()})})
        for workload in workloads:
            with contextlib.ExitStack() as stack:
                pool = Pool(stack)
                first, *others = taking_part(workload, options.only)
                if WORKLOADS[workload].needs_redis or any(contender.needs_redis for contender in (first, *others)):
                    stack.enter_context(Redis())
                for number in range(1 if WORKLOADS[workload].is_once else options.rounds):
                    # Whom the ratios are to, then the others, starting one further each round.
                    shift = number % max(1, len(others))
                    for contender in (first, *others[shift:], *others[:shift]):
                        elapsed = time.monotonic() - start
                        if elapsed > options.max_s:
                            print("the time is spent, stopping", file=sys.stderr)
                            return out
                        for result in measure(workload, contender, options, pool):
                            write({"round": number, **result})
                            shown = {key: result[key] for key in SHOWN if key in result}
                            line = f"{elapsed:5.0f}s r{number} {result['cell']:16} {contender.name:26} {shown}"
                            print(line, file=sys.stderr)
    print(f"raw lines: {out / 'raw.jsonl'} ({time.monotonic() - start:.0f} s)", file=sys.stderr)
    return out


def measuring(running: argparse.ArgumentParser, only: str) -> None:
    running.add_argument("--only", help=only)
    running.add_argument("--workloads", default=",".join(WORKLOADS), help="separated by commas; all by default")
    running.add_argument("--rounds", type=int, default=5)
    running.add_argument("--dur", type=float, default=0.6, help="seconds measured in each cell of a round")
    running.add_argument("--warm", type=float, default=0.2)
    running.add_argument("--subs", default="100,1000,2000", help="members of the group in w2")
    running.add_argument("--members", default="100,1000", help="members of the group in the other fan-outs")
    running.add_argument("--idle", type=int, default=5000, help="connections of w5")
    running.add_argument("--many", type=int, default=20_000, help="connections of `many`")
    running.add_argument("--storm", type=int, default=1000, help="who comes at once in `presence` and `recovery`")
    running.add_argument("--slow-rate", type=float, default=100, help="messages of w7 per second")
    running.add_argument("--slow-size", type=int, default=8192, help="bytes of w7's messages")
    running.add_argument("--slow-dur", type=float, default=20, help="seconds of w7 with the stalled member")
    running.add_argument("--to", help="whom the ratios are to, in all workloads; otherwise L, or what a workload names")
    running.add_argument("--out", help="folder of the raw lines, which may have some already")
    running.add_argument("--max-s", type=float, default=7200, help="stop after so many seconds")
    running.add_argument("--short", action="store_true", help="two rounds of short slices, smaller groups, no peers")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    to = "whom the ratios are to, in all workloads"
    only = "contenders separated by commas, `all`, or NAME@ws=wsproto;loop=asyncio for a variant; L always runs"
    setting = commands.add_parser("setup", help="build the load generator and the environments")
    setting.add_argument("--only", help=only)
    for running in (
        commands.add_parser("all", help="set up, measure everything with everybody, and write the tables and plots"),
        commands.add_parser("run", help="measure some of it, and report"),
    ):
        measuring(running, only)
    reporting = commands.add_parser("report", help="tables from the raw lines of one or several runs")
    reporting.add_argument("folders", nargs="+", type=Path)
    reporting.add_argument("--to", help=to)
    publishing = commands.add_parser("publish", help="the tables and plots of the docs from such lines")
    publishing.add_argument("folders", nargs="+", type=Path)
    publishing.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of benchmarks.md")
    profiling = commands.add_parser("profile", help="py-spy under load")
    profiling.add_argument("name")
    profiling.add_argument("workload", choices=list(SHAPES))
    profiling.add_argument("--publisher", action="store_true", help="w6: look at the process that publishes")
    profiling.add_argument("--window", type=int, default=1, help="w2 and w6: messages under way")
    profiling.add_argument("--native", action="store_true")
    profiling.add_argument("--top", type=int, default=25)
    sharing = commands.add_parser("shares", help="µs of CPU by kernel, Python and libraries, with Linux's perf")
    sharing.add_argument("--workloads", default=",".join(COMPARED), help="separated by commas; all by default")
    sharing.add_argument("--only", help="contenders separated by commas, in place of those of the docs")
    sharing.add_argument("--docs", type=Path, help="folder of performance.md, to put the table there")
    commands.add_parser("list", help="contenders")
    commands.add_parser("versions", help="what is installed")
    return top


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that leaving the contexts ends the servers
    options = parser().parse_args()
    if options.command == "setup":
        setup(options.only)
    elif options.command in ("run", "all"):
        if options.short:
            options.rounds, options.dur, options.idle, options.many, options.slow_dur = 2, 0.4, 1000, 5000, 3
            options.subs = options.members
        elif options.command == "all":
            options.only = options.only or "all"
        if options.command == "all":
            setup(options.only)
        options.subs = [int(members) for members in options.subs.split(",")]
        options.members = [int(members) for members in options.members.split(",")]
        folder = run(options, options.workloads.split(","))
        report([folder], options.to)
        if options.command == "all":
            # A short run, or one without the peers, is no reason to change the docs.
            publish(Results([folder]), folder if options.short or options.only != "all" else ROOT / "docs")
    elif options.command == "report":
        report(options.folders, options.to)
    elif options.command == "publish":
        publish(Results(options.folders), options.docs)
    elif options.command == "profile":
        functions(options)
    elif options.command == "shares":
        told = shares(options.workloads.split(","), options.only.split(",") if options.only else ())
        print(told)
        if options.docs:
            put(options.docs / "performance.md", "shares", told)
    elif options.command == "list":
        for name, contender in harness.contenders().items():
            print(f"{name:28} {'default' if contender.default else '':8} {contender.meta}")
    else:
        print_versions()


if __name__ == "__main__":
    main()
