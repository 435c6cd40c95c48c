"""What is generated of the docs: docs/benchmarks.md and its picture, and the tables of figures of some other pages."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import NamedTuple

from harness import LIMIT, OURS, PROTOCOL
from plot import Bar, Panel, plot
from report import (
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
    typical,
)
from results import Origins, Results, count, title
from workloads import label, workload_of

PICTURE = "benchmarks.svg"
#: Where generated parts may stand.
PAGES = ("benchmarks.md", "uvicorn.md", "comparison.md")


class Goal(NamedTuple):
    cell: str
    #: Of the ratio: at least, or for memory at most.
    bound: float
    contender: str = OURS
    #: What the table calls it, if not by the cell's name.
    title: str = ""
    #: By the server's CPU time of each, and not by the rate.
    cpu: bool = False


DIRECT, SEND = f"{OURS}@direct=no", "W2 through plain ASGI `send`"
POLICIES, METRICS = f"{OURS}@policies=memory", f"{OURS}@observers=metrics"
GOALS = (
    Goal("w1_echo_1", 1.0),
    Goal("w1_echo_50", 1.2),
    Goal("w1_echo_50", 2.0, PROTOCOL, "W1, 50 connections, under [our class for uvicorn](uvicorn.md)"),
    Goal("w2_fan_1000_w1", 2.0),
    Goal("w2_fan_1000_w8", 2.0),
    Goal("w2_fan_2000_w1", 2.0),
    Goal("w2_fan_2000_w8", 2.0),
    Goal("w2_fan_100_w1", 1.0, DIRECT, f"{SEND}, 100 members, one at a time"),
    Goal("w2_fan_100_w8", 1.0, DIRECT, f"{SEND}, 100 members, 8 under way"),
    Goal("w2_fan_1000_w1", 1.0, DIRECT, f"{SEND}, 1 000 members, one at a time"),
    Goal("w2_fan_1000_w8", 1.0, DIRECT, f"{SEND}, 1 000 members, 8 under way"),
    Goal("w2_fan_2000_w1", 1.0, DIRECT, f"{SEND}, 2 000 members, one at a time"),
    Goal("w2_fan_2000_w8", 1.0, DIRECT, f"{SEND}, 2 000 members, 8 under way"),
    Goal("bursts_fan_100", 12.0),
    Goal("bursts_fan_1000", 12.0),
    Goal("w3_groups", 1.5),
    Goal("w4_churn", 1.0),
    Goal("w5_idle", 1.1),
    Goal("w6_redis_w1", 1.6),
    Goal("w6_redis_w8", 1.6),
    # 1.1 times as long.
    Goal("policies_echo_1", 0.91, POLICIES, "[policies](#policies), 1 connection, to W1 without"),
    Goal("policies_echo_50", 0.91, POLICIES, "policies, 50 connections, to W1 without"),
    # 1.03 times as long.
    Goal("observing_echo_1", 0.97, METRICS, "[metrics](#metrics), 1 connection, to W1 without"),
    Goal("observing_echo_1", 0.97, METRICS, "the same by CPU time", cpu=True),
    Goal("observing_echo_50", 0.97, METRICS, "metrics, 50 connections, to W1 without"),
    Goal("observing_echo_50", 0.97, METRICS, "the same by CPU time", cpu=True),
)
#: Of w7: the share that the others receive, milliseconds, MiB.
SLOW_SHARE, SLOW_P99, SLOW_GROWTH = 1.0, 5.0, 5.0
#: The cells of the picture.
DRAWN = ("w1", "w2", "bursts", "w3", "w4", "w6", "w5")
#: Those of the tables, each of which would be too wide for all.
SPLIT = (("w1", "w3", "w4", "w5", "w6"), ("w2", "bursts"))
#: What the page that compares shows.
COMPARED = ("w1_echo_50", "w2_fan_1000_w1", "w3_groups", "w4_churn", "w6_redis_w1")
COMPARED_WITH = (
    *(OURS, PROTOCOL, LIMIT, "raw_starlette_orjson", "litestar_server", "socketio_server"),
    *("django_channels", "fastapi_channels_server"),
)
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
    goals = [goal for goal in GOALS if goal.contender in results.rows.get(goal.cell, {})]
    raw = typical(results.rows.get("w7_slow_1", {}).get(OURS, {}))
    has_slow = "healthy_expected" in raw
    fields = dict.fromkeys((goal.cell, goal.contender) for goal in goals)
    origins = Origins(results, [*fields, *([("w7_slow_1", OURS)] if has_slow else [])])
    body = []
    for goal in goals:
        if found := results.ratios(goal.cell, goal.contender, cpu=goal.cpu):
            name = (goal.title or label(goal.cell)) + origins.mark(goal.contender, goal.cell)
            body.append([name, wanted(goal), spread(found), answer(is_reached(goal, found))])
    if has_slow:
        p99, grown, what = raw["last_p99_us"] / 1000, growth(raw), "W7, one member stops reading"
        everything = [f"{what}: the others receive", percent(SLOW_SHARE), percent(share(raw))]
        body += [
            [*everything, answer(share(raw) >= SLOW_SHARE)],
            [f"{what}: their p99", f"below {SLOW_P99:g} ms", f"{p99:.1f} ms", answer(p99 < SLOW_P99)],
            [f"{what}: memory", f"below +{SLOW_GROWTH:g} MiB", f"+{grown:.1f} MiB", answer(grown < SLOW_GROWTH)],
        ]
    head = ["", "goal", "reached: median (lowest to highest of the rounds)", ""]
    return "\n".join([row(head), "|---|---:|---:|---|", *map(row, body), "", origins.line()])


def wanted(goal: Goal) -> str:
    return f"at {'most' if workload_of(goal.cell).is_less_better else 'least'} {goal.bound:g}"


def is_reached(goal: Goal, found: list[float]) -> bool:
    reached = statistics.median(found)
    return reached <= goal.bound if workload_of(goal.cell).is_less_better else reached >= goal.bound


def answer(is_reached: bool) -> str:
    return "yes" if is_reached else "**missed**"


def about(results: Results) -> str:
    """Machine and versions."""
    told = list(results.about.values())[-1]
    base: dict[str, str] = {}
    others: dict[str, str] = {}
    for each in results.about.values():
        for venv, found in each["versions"].items():
            (base if venv == "base" else others).update(found)
    named = [f"{package} {version}" for package, version in base.items() if package != "Python"]
    peers = [f"{package} {version}" for package, version in others.items() if package not in base]
    machine = f"{told['machine']}; Python {base.get('Python', '?')}, {', '.join(named)}."
    return machine + (f" Peers: {', '.join(peers)}." if peers else "")


def summary(results: Results) -> str:
    tables = [ratio_table(results, cells) for group in SPLIT if (cells := results.cells(*group))]
    told = "All contenders: the median of the ratios to L in the same round. More is better, but for memory."
    picture = f"![The same ratios as bars, with the lowest and the highest of the rounds](images/{PICTURE})"
    return "\n\n".join([about(results), goals_table(results), told, *tables, picture])


def absolute(results: Results) -> str:
    """L and this package, in figures of their own: of the one run that has most rounds of both."""
    cells = [cell for cell in results.cells(*DRAWN) if workload_of(cell).to == LIMIT and not cell.startswith("w5")]
    body, runs, rounds = [], set(), set()
    for cell in cells:
        run = results.fullest(cell, LIMIT, OURS)
        for name in (LIMIT, OURS):
            values = results.values(cell, name, run=run)
            if not values:
                continue
            runs.add(run)
            rounds.add(len(values))
            latencies = workload_of(cell).latencies
            times = [median(results.values(cell, name, *keys, run=run), ",.2f", 1e-3) for keys in latencies]
            cpu = median(results.values(cell, name, "cpu_us_per_op", run=run), ".1f")
            busy = median(results.values(cell, name, "lg_cpu", run=run), ".2f")
            rates = [spread(values, ",.0f"), workload_of(cell).unit]
            body.append([label(cell), title(name), *rates, *times, cpu, busy])
    head = ["", "", "median (lowest to highest)", "", "p50, ms", "p99, ms", "CPU µs each", "client's CPU"]
    told = f"One run of each workload: {results.commits(sorted(runs))}, {count(rounds)}." if runs else ""
    return f"{table(head, body, names=2)}\n\n{told}"


def protocol(results: Results) -> str:
    """Both classes for uvicorn, and which goal of ours is reached."""
    cells = [cell for cell in results.cells("w1", "w2", "bursts", "w3", "w4") if "_2000" not in cell]
    told = [ratio_table(results, cells, only=(LIMIT, OURS, PROTOCOL, "raw_asgi", "raw_asgi_protocol"))]
    for goal in GOALS:
        if goal.contender == PROTOCOL and (found := results.ratios(goal.cell, PROTOCOL)):
            state = "reached" if is_reached(goal, found) else "**missed**"
            told.append(f"The goal for it, {label(goal.cell)}: {wanted(goal)}. Seen: {spread(found)}; {state}.")
    return "\n\n".join(told)


def beside(results: Results) -> str:
    """What the page that compares needs."""
    cells = [cell for cell in results.cells("w1", "w2", "w3", "w4", "w6") if cell in COMPARED]
    return ratio_table(results, cells, only=COMPARED_WITH)


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
    if PROTOCOL in results.rows.get("w1_echo_50", {}):
        found["protocol"] = protocol(results)
    if results.cells("w6"):
        found["peers"] = beside(results)
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


def put(page: Path, name: str, text: str) -> None:
    """Fill one place of a page. Raises ``ValueError`` where there is none."""
    told = page.read_text(encoding="utf-8")
    if f"<!-- begin: {name} -->" not in told:
        raise ValueError(f"{page} has no <!-- begin: {name} -->")
    page.write_text(fill(told, {name: text}), encoding="utf-8")


def publish(results: Results, docs: Path) -> None:
    """Bring the pages in ``docs`` up to date, or make a short one where there is none; and draw the picture."""
    parts, written = sections(results), []
    filled = {page: fill(page.read_text(encoding="utf-8"), parts) for name in PAGES if (page := docs / name).exists()}
    if docs / PAGES[0] not in filled:
        text = "# Benchmarks\n\n" + "\n\n".join(f"## {name}\n\n{part}" for name, part in parts.items()) + "\n"
        filled[docs / PAGES[0]] = text
    (docs / "images").mkdir(parents=True, exist_ok=True)
    for page, text in filled.items():
        page.write_text(text, encoding="utf-8")
        written.append(str(page))
    if "results" in parts:
        written.append(str(docs / "images" / PICTURE))
        Path(written[-1]).write_text(picture(results), encoding="utf-8")
    print(f"written: {', '.join(written)}")
