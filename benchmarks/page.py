"""What is generated of the page docs/benchmarks.md, and its picture: the newest figures, and which goals they reach."""

from __future__ import annotations

import datetime
import statistics
from pathlib import Path
from typing import NamedTuple

from harness import LIMIT, OURS
from plot import Bar, Panel, plot
from report import (
    LOST,
    Results,
    figure_table,
    growth,
    median,
    percent,
    ratio_table,
    row,
    share,
    slow_table,
    spread,
    table,
    title,
    typical,
)
from workloads import label, workload_of

PICTURE = "benchmarks.svg"


class Goal(NamedTuple):
    cell: str
    #: Of the ratio: at least, or for memory at most.
    bound: float
    contender: str = OURS
    #: What the table calls it, if not by the cell's name.
    title: str = ""


GOALS = (
    Goal("w1_echo_1", 1.0),
    Goal("w1_echo_50", 1.2),
    Goal("w2_fan_1000_w1", 2.0),
    Goal("w2_fan_1000_w8", 2.0),
    Goal("w2_fan_1000_w1", 1.0, f"{OURS}@direct=no", "W2 through plain ASGI `send`, 1 000 members, one at a time"),
    Goal("w2_fan_1000_w8", 1.0, f"{OURS}@direct=no", "W2 through plain ASGI `send`, 1 000 members, 8 under way"),
    Goal("bursts_fan_100", 12.0),
    Goal("bursts_fan_1000", 12.0),
    Goal("w3_groups", 1.5),
    Goal("w4_churn", 1.0),
    Goal("w5_idle", 1.1),
    Goal("w6_redis_w1", 1.6),
    Goal("w6_redis_w8", 1.6),
    # 1.1 times as long.
    Goal("policies_echo_1", 0.91, f"{OURS}@policies=memory", "[policies](#policies), 1 connection, to W1 without"),
    Goal("policies_echo_50", 0.91, f"{OURS}@policies=memory", "policies, 50 connections, to W1 without"),
    # 1.03 times as long.
    Goal("observing_echo_1", 0.97, f"{OURS}@observers=metrics", "[metrics](#metrics), 1 connection, to W1 without"),
    Goal("observing_echo_50", 0.97, f"{OURS}@observers=metrics", "metrics, 50 connections, to W1 without"),
)
#: Of w7: the share that the others receive, milliseconds, MiB.
SLOW_SHARE, SLOW_P99, SLOW_GROWTH = 1.0, 5.0, 5.0
#: The cells of the picture.
DRAWN = ("w1", "w2", "bursts", "w3", "w4", "w6", "w5")
#: Those of the tables, each of which would be too wide for all.
SPLIT = (("w1", "w3", "w4", "w5", "w6"), ("w2", "bursts"))
#: Sections of the page that are one table of figures.
TABLES = {
    "processes": ("w6",),
    "policies": ("policies",),
    "observing": ("observing",),
    "history": ("history",),
    "codecs": ("codecs",),
    "presence": ("presence",),
    "recovery": ("recovery",),
    "many": ("many",),
}


def goals_table(results: Results) -> str:
    body = []
    for goal in GOALS:
        if goal.contender not in results.rows.get(goal.cell, {}):
            continue
        found = results.ratios(goal.cell, goal.contender)
        if not found:
            continue
        is_less = workload_of(goal.cell).is_less_better
        is_reached = statistics.median(found) <= goal.bound if is_less else statistics.median(found) >= goal.bound
        wanted = f"at {'most' if is_less else 'least'} {goal.bound:g}"
        body.append([goal.title or label(goal.cell), wanted, spread(found), answer(is_reached)])
    raw = typical(results.rows.get("w7_slow_1", {}).get(OURS, {}))
    if "healthy_expected" in raw:
        p99, grown, what = raw["last_p99_us"] / 1000, growth(raw), "W7, one member stops reading"
        everything = [f"{what}: the others receive", percent(SLOW_SHARE), percent(share(raw))]
        body += [
            [*everything, answer(share(raw) >= SLOW_SHARE)],
            [f"{what}: their p99", f"below {SLOW_P99:g} ms", f"{p99:.1f} ms", answer(p99 < SLOW_P99)],
            [f"{what}: memory", f"below +{SLOW_GROWTH:g} MiB", f"+{grown:.1f} MiB", answer(grown < SLOW_GROWTH)],
        ]
    head = ["", "goal", "reached: median (lowest to highest of the rounds)", ""]
    return "\n".join([row(head), "|---|---:|---:|---|", *map(row, body)])


def answer(is_reached: bool) -> str:
    return "yes" if is_reached else "**missed**"


def about(results: Results) -> str:
    told = list(results.about.values())[-1]
    day = datetime.date.fromisoformat(told["at"])
    commits = results.commits()
    where = " and ".join(each + (f" ({', '.join(of)})" if len(commits) > 1 else "") for each, of in commits.items())
    base: dict[str, str] = {}
    others: dict[str, str] = {}
    for each in results.about.values():
        for venv, found in each["versions"].items():
            (base if venv == "base" else others).update(found)
    named = [f"{package} {version}" for package, version in base.items() if package != "Python"]
    peers = [f"{package} {version}" for package, version in others.items() if package not in base]
    several = [cell for cell in results.cells(*DRAWN) if not workload_of(cell).is_once]
    counts = [len(rounds) for cell in several for rounds in results.rows[cell].values()]
    rounds = f"{min(counts)} to {max(counts)} rounds of each" if counts else "one round"
    measured = f"Commit {where}, {day.day} {day:%B %Y}, {rounds}."
    machine = f"{told['machine']}; Python {base.get('Python', '?')}, {', '.join(named)}."
    return f"{measured} {machine}" + (f" Peers: {', '.join(peers)}." if peers else "")


def summary(results: Results) -> str:
    tables = [ratio_table(results, cells) for group in SPLIT if (cells := results.cells(*group))]
    told = "All contenders: the median of the ratios to L in the same round. More is better, but for memory."
    picture = f"![The same ratios as bars, with the lowest and the highest of the rounds](images/{PICTURE})"
    return "\n\n".join([about(results), goals_table(results), told, *tables, LOST, picture])


def absolute(results: Results) -> str:
    """L and this package, in figures of their own."""
    cells = [cell for cell in results.cells(*DRAWN) if workload_of(cell).to == LIMIT and not cell.startswith("w5")]
    body = []
    for cell in cells:
        for name in (LIMIT, OURS):
            if not results.values(cell, name):
                continue
            values = results.values(cell, name)
            times = [median(results.values(cell, name, *keys), ",.2f", 1e-3) for keys in workload_of(cell).latencies]
            cpu = median(results.values(cell, name, "cpu_us_per_op"), ".1f")
            busy = median(results.values(cell, name, "lg_cpu"), ".2f")
            rates = [spread(values, ",.0f"), workload_of(cell).unit]
            body.append([label(cell), title(name), *rates, *times, cpu, busy])
    head = ["", "", "median (lowest to highest)", "", "p50, ms", "p99, ms", "CPU µs each", "client's CPU"]
    return table(head, body, names=2)


def picture(results: Results) -> str:
    panels = []
    for cell in results.cells(*DRAWN):
        bars = []
        for name in results.rows[cell]:
            if name != LIMIT and (found := results.ratios(cell, name)):
                bars.append(Bar(title(name), statistics.median(found), min(found), max(found), name == OURS))
        bars.sort(key=lambda bar: bar.median, reverse=not workload_of(cell).is_less_better)
        if bars:
            less = "less is better" if workload_of(cell).is_less_better else "more is better"
            panels.append(Panel(label(cell), f"{workload_of(cell).unit}, times those of L; {less}", bars))
    best = [f"{panel.title}: {', '.join(f'{bar.name} {bar.median:.2f}' for bar in panel.bars)}" for panel in panels]
    return plot("Ratios to a loop written by hand (L)", ". ".join(best) + ".", panels, "L")


def sections(results: Results) -> dict[str, str]:
    """The generated parts of the page by name; those without a figure are left out."""
    found: dict[str, str] = {}
    if results.cells(*DRAWN):
        found |= {"results": summary(results), "figures": absolute(results)}
    if "w7_slow_1" in results.rows and "w7_slow_0" in results.rows:
        found["slow"] = slow_table(results)
    for name, workloads in TABLES.items():
        if cells := results.cells(*workloads):
            found[name] = figure_table(results, cells)
    return found


def fill(page: str, parts: dict[str, str]) -> str:
    """The page with these parts between their marks, ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``.

    Parts that have no place are not put anywhere, and places without a part stay as they are. Raises ``ValueError``
    where a mark has no end.
    """
    for name, text in parts.items():
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        if begin not in page:
            continue
        before, _, rest = page.partition(begin)
        if end not in rest:
            raise ValueError(f"{begin} has no {end}")
        page = f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
    return page


def publish(results: Results, docs: Path) -> None:
    """Bring the page in ``docs`` up to date, or make a short one where there is none; and draw the picture."""
    parts, page = sections(results), docs / "benchmarks.md"
    if page.exists():
        text = fill(page.read_text(encoding="utf-8"), parts)
    else:
        text = "# Benchmarks\n\n" + "\n\n".join(f"## {name}\n\n{part}" for name, part in parts.items()) + "\n"
    (docs / "images").mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    if "results" in parts:
        (docs / "images" / PICTURE).write_text(picture(results), encoding="utf-8")
    print(f"written: {page}" + (f" and its images/{PICTURE}" if "results" in parts else ""))
