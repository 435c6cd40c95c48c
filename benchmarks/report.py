"""A run's raw lines, and the tables of Markdown that are made of them."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from harness import LIMIT, LOAD_CORE, OURS, ROOT, SERVER_CORE, UVICORN, VENVS, WORK, contenders
from results import Origins, Results, Rounds, Run, day, title
from workloads import WORKLOADS, label, workload_of

LOST = "† some messages did not reach every member in 1.5 s; at 0.00 no message reached all of them in that time."


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


def ratio_table(
    results: Results, cells: list[str], to: str | None = None, *, cpu: bool = False, only: Collection[str] = ()
) -> str:
    """Contenders down, cells across, medians of the ratios; and where they come from. ``only``: these contenders."""
    cells = [
        cell for cell in cells if not cpu or any(results.values(cell, n, "cpu_us_per_op") for n in results.rows[cell])
    ]
    names = [name for name in results.contenders(cells) if not only or name in only]
    origins = Origins(results, [(cell, name) for cell in cells for name in names if name in results.rows[cell]])
    body = []
    for name in names:
        fields = []
        for cell in cells:
            found = results.ratios(cell, name, to, cpu=cpu) if name in results.rows[cell] else []
            failed = "fail" if results.failure(cell, name) else "-"
            fields.append(median(found, ".2f") + results.mark(cell, name) if found else failed)
        body.append([title(name) + origins.mark(name), *fields])
    told = table(["", *(label(cell) for cell in cells)], body)
    lost = any(results.mark(cell, name) for cell in cells for name in names)
    return "\n\n".join([told, *([LOST] if lost else []), origins.line()])


#: More columns of some workloads: title, key, factor, form.
MORE: dict[str, list[tuple[str, str, float, str]]] = {
    "presence": [("received by all, MiB", "mib", 1.0, ",.0f")],
    "recovery": [("lost", "lost_deliv", 1.0, ",.0f"), ("doubled", "doubled", 1.0, ",.0f")],
    "many": [("connections", "conns", 1.0, ",.0f"), ("to open, s", "open_s", 1.0, ".1f")],
}
#: Where the ratio by the server's CPU time stands beside that of the rates.
BY_CPU = ("policies", "observing")


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
    origins = Origins(results, [(cell, name) for cell in cells for name in results.rows[cell]])
    body, shown, by_cpu = [], set(), cells[0].partition("_")[0] in BY_CPU
    for cell in cells:
        run = results.fullest(cell)
        shown.add(run)
        for name in results.contenders([cell]):
            names = [label(cell), title(name) + origins.mark(name, cell)]
            if not results.values(cell, name):
                body.append([*names, results.failure(cell, name) or "-", *[""] * (1 + by_cpu + len(more))])
                continue
            values = results.values(cell, name, run=run)
            fields = [median(results.values(cell, name, *keys, run=run), form, scale) for _, keys, scale, form in more]
            figure = median(values, form) + results.mark(cell, name)
            ratios = [spread(results.ratios(cell, name, to, cpu=cpu)) for cpu in (False, True)[: 1 + by_cpu]]
            body.append([*names, figure, *ratios, *fields])
    head = ["", "", workload.unit, f"to {title(to or workload.to)}", *["by CPU time"] * by_cpu]
    head += [name for name, *_ in more]
    lost = any(results.mark(cell, name) for cell in cells for name in results.rows[cell])
    below = [*([LOST] if lost else []), f"{origins.line()} {single(results, cells, shown)}".strip()]
    return "\n\n".join([table(head, body, names=2), *below])


def single(results: Results, cells: Collection[str], shown: Collection[Run]) -> str:
    """Which run figures come from that are no ratios, where there are others."""
    if all(len({run for name in results.rows[cell] for run in results.runs(cell, name)}) == 1 for cell in cells):
        return ""
    told = "one run for each workload" if len(shown) > 1 else "one run"
    return f"Figures that are no ratios are of {told}: {results.commits(sorted(shown))}."


#: What w7 was before its lines said so.
SLOW = {"bytes": 4096, "per_second": 100, "seconds": 20}


def slow_table(results: Results) -> str:
    healthy, stalled = results.rows["w7_slow_0"], results.rows["w7_slow_1"]
    origins = Origins(results, [("w7_slow_1", name) for name in stalled])
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
        marked = title(name) + origins.mark(name)
        body.append([marked, *shares, number(with_one["max_gap_ms"]), *p99, *memory, got, counted])
    head = [
        "",
        "delivered, none stopped",
        "delivered to the others",
        "longest gap, ms",
        "p99, none stopped, ms",
        "p99, ms",
    ]
    told = table([*head, "memory, MiB", "of it in the 2nd half", "the one that stopped got", "counted"], body)
    absent = sorted(
        title(name)
        for name, each in contenders().items()
        if name not in stalled and not each.only and "w7" not in each.skip
    )
    shape = {**SLOW, **typical(stalled[OURS if OURS in stalled else next(iter(stalled))])}
    size, rate, seconds = (shape[key] for key in ("bytes", "per_second", "seconds"))
    what = f"Messages of {size / 1024:g} KiB at {rate:g} a second for {seconds:g} s."
    return f"{told}\n\n{what} {origins.line()}" + (f" Not measured: {'; '.join(absent)}." if absent else "")


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


def stamp() -> str:
    """What is measured here and now, as tables have it below them."""
    return f"Commit {commit()}, {day(time.strftime('%Y-%m-%d'))}"


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
