"""Markdown tables from a run's raw lines."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from pathlib import Path
from typing import Any

from harness import LIMIT, LOAD_CORE, SERVER_CORE, UVICORN, VENVS, WORK

#: The figure of a workload, its unit, and the two latencies to print beside it.
FIGURE = {
    "w1": ("rate", "round trips/s", "p50_us", "p99_us"),
    "w2": ("deliveries", "deliveries/s", "last_p50_us", "last_p99_us"),
    "w3": ("deliveries", "deliveries/s", "last_p50_us", "last_p99_us"),
    "w4": ("rate", "connections/s", "p50_us", "p99_us"),
    "w5": ("kib_per_conn", "KiB/connection", "", ""),
    "w6": ("deliveries", "deliveries/s", "each_p50_us", "each_p99_us"),
}

Rounds = dict[tuple[int, int], dict[str, Any]]
Rows = dict[str, dict[str, Rounds]]  # cell → contender → (run, round) → raw line


def read(folders: list[Path]) -> Rows:
    rows: Rows = {}
    for run, folder in enumerate(folders):
        for line in (folder / "raw.jsonl").read_text().splitlines():
            raw = json.loads(line)
            rows.setdefault(raw["cell"], {}).setdefault(raw["contender"], {})[run, raw["round"]] = raw
    return rows


def median(values: list[float], form: str = ",.0f") -> str:
    return format(statistics.median(values), form) if values else "-"


def ratios(rounds: Rounds, limit: Rounds, key: str, *, inverse: bool = False) -> list[float]:
    """Value / the limit's value of the same round; the other way round where less is better."""
    pairs = [(raw.get(key), limit.get(when, {}).get(key)) for when, raw in rounds.items()]
    return [(base / value if inverse else value / base) for value, base in pairs if value and base]


def table(title: str, head: list[str], body: list[list[str]]) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|---|" + "---:|" * (len(head) - 1))
    for row in body:
        print("| " + " | ".join(row) + " |")


def report(folders: list[Path], to: str = LIMIT) -> None:
    """``to``: the contender whose figures the ratios are to."""
    rows = read(folders)
    base = "L" if to == LIMIT else to
    cells = sorted(
        (cell for cell in rows if cell[:2] in FIGURE and "_" in cell),
        key=lambda cell: (cell[:2], [int(number) for number in re.findall(r"\d+", cell[2:])]),
    )
    names = list(dict.fromkeys(name for contenders in rows.values() for name in contenders))
    titles = [cell.replace("_", " ") for cell in cells]

    def ratio(cell: str, name: str, key: str, *, inverse: bool = False) -> str:
        rounds = rows[cell].get(name, {})
        found = ratios(rounds, rows[cell].get(to, {}), key, inverse=inverse)
        if not found:
            return "fail" if any("error" in raw for raw in rounds.values()) else "-"
        lost = any(raw.get("lost_msgs") for raw in rounds.values())
        return median(found, ".2f") + ("†" if lost else "")

    if cells:
        body = [[name, *(ratio(cell, name, FIGURE[cell[:2]][0]) for cell in cells)] for name in names]
        table(f"Ratio to {base}: median over rounds (more is better; w5: less is better)", ["contender", *titles], body)
        timed = [cell for cell in cells if cell[:2] != "w5"]
        body = [[name, *(ratio(cell, name, "cpu_us_per_op", inverse=True) for cell in timed)] for name in names]
        head = ["contender", *(cell.replace("_", " ") for cell in timed)]
        table("The same by the server's CPU time per operation (more is better; steadier)", head, body)
        print("\n† some messages did not reach every member.")
    for cell in cells:
        key, unit, middle, tail = FIGURE[cell[:2]]
        body = []
        for name, rounds in rows[cell].items():
            done = [raw for raw in rounds.values() if key in raw]
            if not done:
                body.append([name, f"failed: {next(iter(rounds.values())).get('error', '?')[:90]}", *[""] * 6])
                continue
            values = [raw[key] for raw in done]
            spread = f"{min(values):,.0f}..{max(values):,.0f}"
            latencies = [median([raw[which] for raw in done if which in raw]) for which in (middle, tail)]
            cpu = median([raw["cpu_us_per_op"] for raw in done if "cpu_us_per_op" in raw], ".1f")
            busy = median([raw["lg_cpu"] for raw in done if "lg_cpu" in raw], ".2f")
            body.append([name, median(values), spread, ratio(cell, name, key), *latencies, cpu, busy])
        head = [
            "contender",
            unit,
            "min..max",
            f"ratio to {base}",
            "p50 µs",
            "p99 µs",
            "server CPU µs/op",
            "load generator CPU",
        ]
        table(cell.replace("_", " "), head, body)
    if "w7_slow_1" in rows:
        report_slow(rows["w7_slow_0"], rows["w7_slow_1"])
    versions()


def report_slow(healthy: dict[str, Rounds], stalled: dict[str, Rounds]) -> None:
    body = []
    for name, rounds in stalled.items():
        with_one = next(iter(rounds.values()))
        without = next(iter(healthy.get(name, {}).values()), {})
        if "healthy_expected" not in with_one or "healthy_expected" not in without:
            body.append([name, f"failed: {with_one.get('error', '?')[:80]}", *[""] * 8])
            continue
        shares = [f"{raw['healthy_deliv'] / raw['healthy_expected']:.1%}" for raw in (without, with_one)]
        memory = f"{with_one['rss_start_mib']:.0f} → {with_one['rss_max_mib']:.0f}"
        p99 = f"{with_one['last_p99_us'] / 1000:,.1f}"
        growth = f"{with_one['rss_max_mib'] - with_one['rss_start_mib']:.1f}"
        late = with_one.get("rss_late_growth_mib")
        ends = "closed" if with_one.get("stalled_closed") else "open"
        sizes = [memory, growth, "-" if late is None else f"{late:.1f}"]
        got = f"{with_one.get('stalled_got', '?')} of {with_one['target_msgs']}, {ends}"
        counted = json.dumps((with_one.get("counters") or {}).get("overflows", "-")).replace('"', "")
        body.append([name, *shares, f"{with_one['max_gap_ms']:,.0f}", p99, *sizes, got, counted])
    head = [
        "contender",
        "delivered, none stalled",
        "delivered, 1 stalled",
        "longest gap ms",
        "p99 ms",
        "RSS start → max MiB",
        "growth MiB",
        "of it in 2nd half",
        "the stalled one got",
        "counted",
    ]
    table("w7 slow consumer", head, body)


PACKAGES = (
    *(
        "fastapi-consumers",
        "starlette",
        "fastapi",
        "pydantic",
        "uvicorn",
        "uvloop",
        "httptools",
        "websockets",
        "orjson",
    ),
    *("redis", "django", "channels", "channels-redis", "fast-channels", "chanx", "broadcaster", "fastapi-channels"),
    *("litestar", "python-socketio", "fastapi-websockets"),
)


def versions() -> None:
    """What the figures were measured on."""
    code = (
        "import importlib.metadata as m, platform\n"
        "have = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        f"print('Python', platform.python_version(), *(f'{{p}}={{have[p]}}' for p in {PACKAGES!r} if p in have))"
    )
    print(f"\nMachine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores.", end=" ")
    print(f"Server on core {SERVER_CORE}, load generator on core {LOAD_CORE}. uvicorn {' '.join(UVICORN)}\n")
    for name in VENVS:
        python = WORK / "venvs" / name / "bin" / "python"
        if python.exists():
            done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
            print(f"- `{name}`: {done.stdout.strip()}")
