"""What was measured: the raw lines of one run or of several, and of which of them the rows of a table come."""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from harness import LIMIT, OURS, named
from workloads import BY_HAND, WORKLOADS, workload_of

#: Folder and start of a run.
Run = tuple[int, str]
#: Folder, run and number of the round → raw line.
Rounds = dict[tuple[int, str, int], dict[str, Any]]


class Results:
    """What was measured, in one run or in several."""

    def __init__(self, folders: Collection[Path]) -> None:
        #: Cell → contender → rounds.
        self.rows: dict[str, dict[str, Rounds]] = {}
        #: What the runs say of themselves, the last one last; by folder and run.
        self.about: dict[Run, dict[str, Any]] = {}
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

    def runs(self, cell: str, name: str) -> frozenset[Run]:
        """Those that have a round of this contender."""
        return frozenset((folder, run) for folder, run, _ in self.rows[cell].get(name, {}))

    def fullest(self, cell: str, *names: str) -> Run:
        """The run with the most of these contenders, or of all; of several the one with most rounds, then the newest.

        Figures that are no ratios can only be compared within one run.
        """
        rounds: dict[Run, list[int]] = {}
        for name in names or self.rows[cell]:
            for run in self.runs(cell, name):
                rounds.setdefault(run, []).append(sum(when[:2] == run for when in self.rows[cell][name]))
        return max(rounds, key=lambda run: (len(rounds[run]), sum(rounds[run]), run))

    def commits(self, runs: Collection[Run]) -> str:
        """What was measured in these runs, and when: ``commits abc1234 and def5678, 22 November 2026``."""
        days: dict[str, list[str]] = {}
        for run in runs:
            told = self.about.get(run, {"commit": "unknown", "at": ""})
            commits = days.setdefault(told["at"], [])
            if told["commit"] not in commits:
                commits.append(told["commit"])
        parts = []
        for at, commits in days.items():
            named = " and ".join(filter(None, (", ".join(commits[:-1]), commits[-1])))
            named = f"commit{'s' if len(commits) > 1 else ''} {named}"
            parts.append(f"{named}, {day(at)}" if at else named)
        return "; ".join(parts)

    def contenders(self, cells: Collection[str]) -> list[str]:
        """What is written by hand first, then this package, then the others."""

        def rank(name: str) -> tuple[int, str]:
            kinds = name in (LIMIT, BY_HAND), name == OURS, name.startswith(OURS), name.startswith("raw_"), True
            return kinds.index(True), title(name).lower()

        return sorted({name for cell in cells for name in self.rows[cell]}, key=rank)

    def values(self, cell: str, name: str, *keys: str, run: Run | None = None) -> list[float]:
        """One of each round, or of each of a run, that has any of the keys; without keys the figure of the workload."""
        rounds = self.rows[cell].get(name, {}).items()
        found = (first(raw, keys or workload_of(cell).figure) for when, raw in rounds if run in (None, when[:2]))
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


#: Marks a row of other runs than those of the rows that it stands among.
OTHER = "‡"


def day(at: str) -> str:
    """A date of ISO 8601 as prose has it."""
    date = datetime.date.fromisoformat(at)
    return f"{date.day} {date:%B %Y}"


class Origins:
    """The usual runs are those of this package, or where it takes no part those of most; others are marked."""

    def __init__(self, results: Results, fields: Collection[tuple[str, str]]) -> None:
        """``fields``: cells and contenders of the table."""
        self._results = results
        self._usual: list[tuple[str, str]] = []
        self._others: dict[frozenset[Run], list[tuple[str, str]]] = {}
        usual = {cell: self._usual_of(cell) for cell, _ in fields}
        for cell, name in fields:
            runs = results.runs(cell, name)
            # Whom the ratios are to is in every run.
            is_base = runs >= usual[cell] and name == workload_of(cell).to
            if not runs or (is_base and runs != usual[cell]):
                continue
            here = self._usual if runs == usual[cell] else self._others.setdefault(runs, [])
            here.append((cell, name))

    def _usual_of(self, cell: str) -> frozenset[Run]:
        runs = {name: self._results.runs(cell, name) for name in self._results.rows[cell]}
        return runs[OURS] if OURS in runs else Counter(runs.values()).most_common(1)[0][0]

    def mark(self, name: str, *cells: str) -> str:
        """Of a contender's row; with cells, of a row that has no others."""
        strays = [field for fields in self._others.values() for field in fields]
        return OTHER if any(name == n and (not cells or cell in cells) for cell, n in strays) else ""

    def line(self) -> str:
        """Commits, days and rounds: first of the usual runs, then of the marked rows."""
        told = self._told(self._usual) if self._usual else ""
        parts = [f"{told[:1].upper()}{told[1:]}."] if told else []
        named: dict[str, list[str]] = {}
        for fields in self._others.values():
            names = named.setdefault(self._told(fields), [])
            names += [each for each in dict.fromkeys(title(name) for _, name in fields) if each not in names]
        # Where most rows are marked, nobody wants all of their names.
        most = max(named.values(), key=len, default=[])
        for told, names in sorted(named.items(), key=lambda item: len(item[1])):
            who = (
                "the others that are marked"
                if names is most and len(named) > 1 and len(names) > 3
                else "; ".join(names)
            )
            parts.append(f"{OTHER} {'marked' if len(named) == 1 else who}: {told}.")
        return " ".join(parts)

    def _told(self, fields: Collection[tuple[str, str]]) -> str:
        runs = sorted({run for field in fields for run in self._results.runs(*field)})
        rounds = {len(self._results.rows[cell][name]) for cell, name in fields}
        return f"{self._results.commits(runs)}, {count(rounds)}"


def count(rounds: Collection[int]) -> str:
    low, high = min(rounds), max(rounds)
    return ("1 round" if high == 1 else f"{high} rounds") if low == high else f"{low} to {high} rounds"
