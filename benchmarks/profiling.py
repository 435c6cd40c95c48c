"""Where a server's time goes: by function, with py-spy; by library and kernel, with Linux's perf."""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from harness import LOAD_CORE, OURS, PROTOCOL, WORK, Contender, Redis, Server, last_line, load_command, named
from report import median, stamp, table
from results import title

#: Seconds that are looked at, in the middle of those under load.
WATCHED, LOADED = 4, 7
#: Workload → mode of the load generator and its options.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "w1": ("echo", {"conns": 50, "size": 64}),
    "w2": ("fan", {"conns": 1000, "size": 88}),
    "w2_8": ("fan", {"conns": 1000, "size": 88, "window": 8}),
    "w3": ("groups", {"groups": 1000, "members": 2, "window": 16, "size": 88}),
    "w4": ("churn", {"conns": 8, "size": 64}),
    "w6": ("fan", {"conns": 200, "first_alone": 1, "size": 88}),
}
CALLED = {
    "w1": "W1, 50 connections",
    "w2": "W2, 1 000 members, one message at a time",
    "w2_8": "W2, 1 000 members, 8 under way",
    "w3": "W3",
    "w4": "W4",
}
#: Of each workload: by hand, and this package. W2 has it before frames went straight to the transport, and after.
COMPARED = {
    "w1": ("L", OURS, PROTOCOL),
    "w2": ("L", f"{OURS}@direct=no", OURS),
    "w2_8": ("L", f"{OURS}@direct=no", OURS),
    "w3": ("L", OURS),
    "w4": ("L", OURS),
}


class Load(NamedTuple):
    """A server under load, and the client, which prints its figures when it has ended."""

    server: Server
    client: subprocess.Popen[str]


@contextlib.contextmanager
def under_load(contender: Contender, workload: str, *, window: int = 0, of_publisher: bool = False) -> Iterator[Load]:
    mode, shape = SHAPES[workload]
    shape = {**shape, **({"window": window} if window and mode == "fan" else {})}
    is_spread = workload == "w6"
    with contextlib.ExitStack() as stack:
        if is_spread or contender.needs_redis:
            stack.enter_context(Redis())
        server = members = stack.enter_context(Server(contender, "redis" if is_spread else "memory"))
        if is_spread:
            publisher = stack.enter_context(Server(contender, "redis", LOAD_CORE))
            shape["pub_port"] = publisher.port
            server = publisher if of_publisher else members
        options = {"port": members.port, "pid": server.pid, "dur": LOADED, "warm": 0.5, **shape}
        command = load_command(contender, mode, options)
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert client.stderr is not None
        client.stderr.readline()  # It says so when it begins to measure.
        try:
            yield Load(server, client)
        finally:
            client.kill()
            client.wait()


def functions(options: argparse.Namespace) -> None:
    """Print what py-spy says of one contender: by function, of its own and with all that it called."""
    spy, samples = WORK / "venvs" / "base" / "bin" / "py-spy", WORK / "profile.txt"
    contender = named(options.name)
    with under_load(contender, options.workload, window=options.window, of_publisher=options.publisher) as load:
        extra = ["--native"] if options.native else ["--idle"]
        record = [str(spy), "record", "-p", str(load.server.pid), "-d", str(WATCHED), "-r", "500", "-f", "raw"]
        done = subprocess.run([*record, "-o", str(samples), *extra], capture_output=True, text=True, check=False)
        print(load.client.communicate()[0].strip())
    if done.returncode:
        sys.exit(done.stderr)
    own: dict[str, int] = {}
    cumulative: dict[str, int] = {}
    total = 0
    for line in samples.read_text().splitlines():
        called, _, text = line.rpartition(" ")
        count = int(text)
        frames = [re.sub(r"^(.*?) \((?:.*/)?([^/]+?)(:\d+)?\)$", r"\1 (\2)", frame) for frame in called.split(";")]
        total += count
        own[frames[-1]] = own.get(frames[-1], 0) + count
        for frame in set(frames):
            cumulative[frame] = cumulative.get(frame, 0) + count
    for heading, counts in (("self", own), ("cumulative", cumulative)):
        print(f"\n{heading}: share of {total} samples, {stamp()}")
        for frame, count in sorted(counts.items(), key=lambda item: -item[1])[: options.top]:
            print(f"  {100 * count / total:5.1f}%  {frame}")


#: Columns of the table, and which files and kernels belong there; what belongs nowhere is in the last.
PLACES = {
    "kernel": r"\[(kernel|k|guest|vdso|unknown)",
    "Python": r"(lib)?python\d?[\d.]*(\.so[\d.]*)?$",
    "pydantic, json": r"_pydantic_core|_?(or)?json\.|_jiter",
    "uvloop, C library, the rest": "",
}


def place(file: str) -> str:
    return next(name for name, pattern in PLACES.items() if re.match(pattern, file))


def shares(workloads: Collection[str], only: Collection[str]) -> str:
    """A table of Markdown: µs of the server's CPU for each operation, by where they were spent."""
    if shutil.which("perf") is None:
        sys.exit("this needs perf: `apt-get install linux-perf`, or what your system calls it")
    body = []
    for workload in workloads:
        for name in only or COMPARED[workload]:
            contender = named(name)
            spent, each = perf(contender, workload)
            taken = sum(spent.values())
            if not taken or not each:
                sys.exit(f"{name}: perf saw nothing, or the load generator failed; see `perf record -e cpu-clock`")
            columns = [median([spent.get(column, 0.0) / taken * each], ".1f") for column in PLACES]
            body.append([CALLED[workload], title(contender.name), f"{each:.1f}", *columns])
            print(" ".join(body[-1]), file=sys.stderr)
    told = table(["", "", "µs of CPU each", *PLACES], body, names=2)
    return f"{told}\n\n{stamp()}; {WATCHED} s of each."


def perf(contender: Contender, workload: str) -> tuple[dict[str, float], float]:
    """Percent of the samples by place, and the µs of CPU that an operation took."""
    data = WORK / "perf.data"
    with under_load(contender, workload) as load:
        record = ["perf", "record", "-q", "-o", str(data), "-F", "2000", "-e", "cpu-clock", "-p", str(load.server.pid)]
        subprocess.run([*record, "--", "sleep", str(WATCHED)], check=True, capture_output=True)
        result = last_line(load.client.communicate()[0])
    command = ["perf", "report", "-q", "-i", str(data), "--stdio", "--no-children", "-F", "overhead,dso"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    spent: dict[str, float] = {}
    for percent, file in re.findall(r"^\s*([\d.]+)%\s+(\S+)", told, re.M):
        spent[place(file)] = spent.get(place(file), 0.0) + float(percent)
    return spent, result.get("cpu_us_per_op", 0.0)
