"""Families of samples as plain values: what one process counts, what several have counted together, what is scraped."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

#: ``gauge`` is added up over the processes that live, ``least`` and ``most`` are the least and the most of them.
Kind = Literal["counter", "histogram", "gauge", "least", "most"]


class Family(NamedTuple):
    """All samples of one name. ``samples``: the labels' values, and a number; for histograms the counts of the buckets,
    the last of which is for all beyond the last bound, and then the sum.
    """

    kind: Kind
    name: str
    documentation: str
    labels: list[str]
    samples: list[tuple[list[str], Any]]


def add_up(processes: Iterable[tuple[bool, Iterable[Family]]]) -> list[Family]:
    """The families of several processes as one. Of those that are dead (``False``) only what never goes down counts."""
    merged: dict[str, tuple[Family, dict[tuple[str, ...], Any]]] = {}
    for lives, families in processes:
        for family in families:
            if not lives and family.kind not in ("counter", "histogram"):
                continue
            _, samples = merged.setdefault(family.name, (family, {}))
            for labels, value in family.samples:
                key = tuple(labels)
                samples[key] = _added(family.kind, samples[key], value) if key in samples else value
    return [
        family._replace(samples=[(list(labels), value) for labels, value in samples.items()])
        for family, samples in merged.values()
    ]


def _added(kind: Kind, one: Any, other: Any) -> Any:
    if kind == "histogram":
        return [a + b for a, b in zip(one, other, strict=True)]
    if kind in ("least", "most"):
        return (min if kind == "least" else max)(one, other)
    return one + other


def exposed(families: Iterable[Family], bounds: tuple[float, ...]) -> Iterator[Any]:
    """The families as ``prometheus_client`` writes them."""
    for family in families:
        if family.kind == "histogram":
            histogram = HistogramMetricFamily(family.name, family.documentation, labels=family.labels)
            for labels, (*counts, total) in family.samples:
                histogram.add_metric(labels, buckets=_cumulated(counts, bounds), sum_value=total)
            yield histogram
        else:
            make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = make(family.name, family.documentation, labels=family.labels)
            for labels, value in family.samples:
                metric.add_metric(labels, value)
            yield metric


def _cumulated(counts: list[int], bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    buckets, total = [], 0
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(total)))
    return buckets
