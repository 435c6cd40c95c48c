"""A run's raw lines, and the tables of Markdown that are made of them."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from harness import LIMIT, LOAD_CORE, OURS, ROOT, SERVER_CORE, UVICORN, VENVS, WORK, named
from workloads import BY_HAND, WORKLOADS, label, workload_of

#: Folder, run and number of the round → raw line.
Rounds = dict[tuple[int, str, int], dict[str, Any]]
LOST = "† some messages did not reach every member."


class Results:
    """What was measured, in one run or in several."""

    def __init__(self, folders: Collection[Path]) -> None:
        #: Cell → contender → rounds.
        self.rows: dict[str, dict[str, Rounds]] = {}
        #: What the runs say of themselves, the last one last; by folder and run.
        self.about: dict[tuple[int, str], dict[str, Any]] = {}
        for number, folder in enumerate(folders):
            for line in (folder / "raw.jsonl").read_text().splitlines():
                raw = json.loads(line)
                if "about" in raw:
                    self.about[number, raw.get("run", "")] = raw["about"]
                    continue
                when = number, raw.get("run", ""), raw["round"]
                self.rows.setdefault(raw["cell"], {}).setdefault(raw["contender"], {})[when] = raw

    def cells(self, *workloads: str) -> list[str]:
        """Those of the workloads, in their order, the smaller ones first."""
        order = list(WORKLOADS)

        def rank(cell: str) -> tuple[int, list[int]]:
            return order.index(cell.partition("_")[0]), [int(number) for number in re.findall(r"\d+", cell[2:])]

        known = [cell for cell in self.rows if "_" in cell and cell.partition("_")[0] in (workloads or WORKLOADS)]
        return sorted(known, key=rank)

    def commits(self) -> dict[str, list[str]]:
        """Those at which this package was measured, and which workloads."""
        found: dict[str, list[str]] = {}
        for cell in self.cells():
            for name, rounds in self.rows[cell].items():
                for folder, run, _ in rounds if name.startswith(OURS) else ():
                    told = self.about.get((folder, run))
                    workloads = found.setdefault(told["commit"] if told else "unknown", [])
                    if cell.partition("_")[0] not in workloads:
                        workloads.append(cell.partition("_")[0])
        return found

    def contenders(self, cells: Collection[str]) -> list[str]:
        """What is written by hand first, then this package, then the others."""

        def rank(name: str) -> tuple[int, str]:
            kinds = name in (LIMIT, BY_HAND), name == OURS, name.startswith(OURS), name.startswith("raw_"), True
            return kinds.index(True), title(name).lower()

        return sorted({name for cell in cells for name in self.rows[cell]}, key=rank)

    def values(self, cell: str, name: str, *keys: str) -> list[float]:
        """One of each round that has any of the keys; without keys the figure of the workload."""
        found = (first(raw, keys or workload_of(cell).figure) for raw in self.rows[cell].get(name, {}).values())
        return [value for value in found if value is not None]

    def ratios(self, cell: str, name: str, to: str | None = None, *, cpu: bool = False) -> list[float]:
        """To the figure of another contender in the same round; by CPU time the other way round, as less is better."""
        keys = ("cpu_us_per_op",) if cpu else workload_of(cell).figure
        base = self.rows[cell].get(to or workload_of(cell).to, {})
        pairs = [(first(raw, keys), first(base.get(when, {}), keys)) for when, raw in self.rows[cell][name].items()]
        if cpu:
            return [other / value for value, other in pairs if value and other]
        return [value / other for value, other in pairs if value is not None and other]

    def failure(self, cell: str, name: str) -> str | None:
        """Why there is no figure."""
        for raw in self.rows[cell].get(name, {}).values():
            for key in ("skipped", "error"):
                if key in raw:
                    return f"{'skipped' if key == 'skipped' else 'failed'}: {raw[key][:90]}"
        return None

    def mark(self, cell: str, name: str) -> str:
        rounds = self.rows[cell].get(name, {}).values()
        return "†" if any(raw.get("lost_msgs") or raw.get("lost_deliv") for raw in rounds) else ""


def first(raw: dict[str, Any], keys: Collection[str]) -> float | None:
    return next((raw[key] for key in keys if raw.get(key) is not None), None)


def title(name: str) -> str:
    return "L" if name == LIMIT else named(name).title


def number(value: float, form: str = ",.0f") -> str:
    return format(value, form).replace(",", " ")


def median(values: list[float], form: str = ",.0f", scale: float = 1.0) -> str:
    return number(statistics.median(values) * scale, form) if values else "-"


def spread(values: list[float], form: str = ".2f") -> str:
    """The median, and the lowest and highest if there are several."""
    if len(values) < 2:
        return median(values, form)
    return f"{median(values, form)} ({number(min(values), form)} to {number(max(values), form)})"


def table(head: list[str], body: list[list[str]], names: int = 1) -> str:
    """``names``: how many columns are no numbers."""
    rule = "|" + "---|" * names + "---:|" * (len(head) - names)
    return "\n".join([row(head), rule, *map(row, body)])


def row(fields: list[str]) -> str:
    return "| " + " | ".join(fields) + " |"


def ratio_table(results: Results, cells: list[str], to: str | None = None, *, cpu: bool = False) -> str:
    """Contenders down, cells across, medians of the ratios."""
    cells = [
        cell for cell in cells if not cpu or any(results.values(cell, n, "cpu_us_per_op") for n in results.rows[cell])
    ]
    body = []
    for name in results.contenders(cells):
        fields = []
        for cell in cells:
            found = results.ratios(cell, name, to, cpu=cpu) if name in results.rows[cell] else []
            failed = "fail" if results.failure(cell, name) else "-"
            fields.append(median(found, ".2f") + results.mark(cell, name) if found else failed)
        body.append([title(name), *fields])
    return table(["", *(label(cell) for cell in cells)], body)


#: More columns of some workloads: title, key, factor, form.
MORE: dict[str, list[tuple[str, str, float, str]]] = {
    "presence": [("received by all, MiB", "mib", 1.0, ",.0f")],
    "recovery": [("lost", "lost_deliv", 1.0, ",.0f"), ("doubled", "doubled", 1.0, ",.0f")],
    "many": [("connections", "conns", 1.0, ",.0f"), ("to open, s", "open_s", 1.0, ".1f")],
}


def figure_table(results: Results, cells: list[str], to: str | None = None) -> str:
    """A line for each cell and contender. Columns without a figure are left out."""
    workload = workload_of(cells[0])
    middle, long = workload.latencies
    more = [
        *([("p50, ms", middle, 1e-3, ",.2f")] if middle else []),
        *([("last, ms" if long == ("all_us",) else "p99, ms", long, 1e-3, ",.2f")] if long else []),
        ("CPU µs each", ("cpu_us_per_op",), 1.0, ",.2f"),
        *((name, (key,), scale, form) for name, key, scale, form in MORE.get(cells[0].partition("_")[0], [])),
    ]
    form = ",.1f" if workload.is_less_better else ",.0f"
    body = []
    for cell in cells:
        for name in results.contenders([cell]):
            values = results.values(cell, name)
            if not values:
                body.append([label(cell), title(name), results.failure(cell, name) or "-", *[""] * (1 + len(more))])
                continue
            fields = [median(results.values(cell, name, *keys), form, scale) for _, keys, scale, form in more]
            figure = median(values, form) + results.mark(cell, name)
            body.append([label(cell), title(name), figure, spread(results.ratios(cell, name, to)), *fields])
    head = ["", "", workload.unit, f"to {title(to or workload.to)}", *(name for name, *_ in more)]
    return table(head, body, names=2)


def slow_table(results: Results) -> str:
    healthy, stalled = results.rows["w7_slow_0"], results.rows["w7_slow_1"]
    body = []
    for name in results.contenders(["w7_slow_1"]):
        rounds = stalled[name]
        with_one, without = typical(rounds), typical(healthy.get(name, {}))
        if "healthy_expected" not in with_one or "healthy_expected" not in without:
            body.append([title(name), f"failed: {with_one.get('error', '?')[:80]}", *[""] * 8])
            continue
        shares = [percent(share(raw)) for raw in (without, with_one)]
        late = with_one.get("rss_late_growth_mib")
        memory = [f"+{growth(with_one):.1f}", "-" if late is None else f"{late:.1f}"]
        ends = "closed" if with_one.get("stalled_closed") else "stays"
        got = f"{number(with_one.get('stalled_got', 0))} of {number(with_one['target_msgs'])}; {ends}"
        counted = json.dumps((with_one.get("counters") or {}).get("overflows", "-")).replace('"', "")
        p99 = [number(raw["last_p99_us"] / 1000, ",.1f") for raw in (without, with_one)]
        body.append([title(name), *shares, number(with_one["max_gap_ms"]), *p99, *memory, got, counted])
    head = [
        "",
        "delivered, none stopped",
        "delivered to the others",
        "longest gap, ms",
        "p99, none stopped, ms",
        "p99, ms",
    ]
    return table([*head, "memory, MiB", "of it in the 2nd half", "the one that stopped got", "counted"], body)


def typical(rounds: Rounds) -> dict[str, Any]:
    """Of several rounds of w7 the one whose p99 is in the middle."""
    order = sorted(rounds.values(), key=lambda raw: raw.get("last_p99_us", math.inf))
    return order[(len(order) - 1) // 2] if order else {}


def share(raw: dict[str, Any]) -> float:
    """Of what the others were to receive."""
    received: float = raw["healthy_deliv"] / raw["healthy_expected"]
    return received


def percent(value: float) -> str:
    """Rounded down, as 100 % means all."""
    return f"{math.floor(value * 1000) / 10:g} %"


def growth(raw: dict[str, Any]) -> float:
    grown: float = raw["rss_max_mib"] - raw["rss_start_mib"]
    return grown


def report(folders: Collection[Path], to: str | None = None) -> None:
    """Print everything. ``to``: whom all ratios are to."""
    results = Results(folders)
    cells = [cell for cell in results.cells() if not cell.startswith("w7")]
    plain = [cell for cell in cells if not workload_of(cell).takes]
    base = title(to or LIMIT)
    if plain:
        print(f"\n### Ratio to {base}: median over rounds (more is better; memory: less)\n")
        print(ratio_table(results, plain, to))
        print("\n### The same by the server's CPU time per operation (more is better; steadier)\n")
        print(ratio_table(results, plain, to, cpu=True))
        print(f"\n{LOST}")
    for workload in WORKLOADS:
        if found := [cell for cell in results.cells(workload) if not cell.startswith("w7")]:
            print(f"\n### {workload}\n")
            print(figure_table(results, found, to))
    if "w7_slow_1" in results.rows:
        print("\n### w7: one member that stops reading\n")
        print(slow_table(results))
    print_versions()


PACKAGES = (
    *("fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "httptools", "websockets", "orjson", "redis"),
    *("django", "channels", "channels-redis", "fast-channels", "chanx", "broadcaster", "fastapi-channels"),
    *("litestar", "python-socketio", "fastapi-websockets"),
)


def versions(venv: str) -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json, platform\n"
        "have = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        f"found = {{p: have[p] for p in {PACKAGES!r} if p in have}}\n"
        "print(json.dumps({'Python': platform.python_version()} | found))"
    )
    python = WORK / "venvs" / venv / "bin" / "python"
    if not python.exists():
        return {}
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def commit() -> str:
    """The last one that touched the package, and whether something has changed since."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments, "--", "fastapi_consumers"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = " with changes" if git("status", "--porcelain") else ""
    return (git("log", "-1", "--format=%h") or "unknown") + changed


def description(venvs: Collection[str]) -> dict[str, Any]:
    """What is measured here and now."""
    return {
        "commit": commit(),
        "at": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: versions(name) for name in sorted(venvs)},
    }


def print_versions() -> None:
    """What the figures were measured on."""
    print(f"\nMachine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores.", end=" ")
    print(f"Server on core {SERVER_CORE}, load generator on core {LOAD_CORE}. uvicorn {' '.join(UVICORN)}\n")
    for name in VENVS:
        if found := versions(name):
            print(f"- `{name}`: {' '.join(f'{package} {version}' for package, version in found.items())}")
