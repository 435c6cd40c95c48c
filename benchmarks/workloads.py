"""The workloads: what is done to a server, and which figure comes of it. Standard library only."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from harness import (
    LIMIT,
    LOAD_CORE,
    OURS,
    PROTOCOL,
    Contender,
    Pool,
    Server,
    files_allowed,
    last_line,
    load,
    load_command,
)

#: Files that a process has open beside its connections, and some to spare.
SPARE_FILES = 100
#: What tells the groups of one round of a storm from those of another.
FRESH = itertools.count()

Cells = Iterator[tuple[str, dict[str, Any]]]


class Workload(NamedTuple):
    run: Callable[[Contender, Any, Pool], Cells]
    #: The keys that the figure may have in a raw line, and its unit.
    figure: tuple[str, ...]
    unit: str
    #: The same of the middle and of the long latency, in microseconds; ``all_us`` is when the last one had all.
    latencies: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    #: Whom ratios are to.
    to: str = LIMIT
    #: The contenders, if they are not those of the run.
    takes: tuple[str, ...] = ()
    #: Who takes part beside those of a run that names nobody.
    also: tuple[str, ...] = ()
    #: The least of the best is wanted, and not the most.
    is_less_better: bool = False
    #: Long, or the same every time: one round is enough.
    is_once: bool = False
    needs_redis: bool = False


def timing(options: Any) -> dict[str, float]:
    return {"dur": options.dur, "warm": options.warm}


def echo(name: str, contender: Contender, options: Any, pool: Pool) -> Cells:
    """Closed-loop round trips."""
    for conns in (1, 50):
        yield (
            f"{name}_echo_{conns}",
            load(contender, "echo", pool.get(contender), conns=conns, size=64, **timing(options)),
        )


def fan(name: str, contender: Contender, options: Any, pool: Pool, members: int, window: int, **more: int) -> Cells:
    """One group, fan-out to all of its members."""
    shape = {"conns": members, "window": window, "size": 88, **more}
    result = load(contender, "fan", pool.get(contender), **timing(options), **shape)
    if result.get("msgs", 9) * options.dur < 3:  # too slow for so short a slice
        result = load(contender, "fan", pool.get(contender), dur=5, warm=1.5, **shape)
    yield f"{name}_fan_{members}" + ("" if more else f"_w{window}"), result


def w1(contender: Contender, options: Any, pool: Pool) -> Cells:
    """Closed-loop round trips."""
    yield from echo("w1", contender, options, pool)


def w2(contender: Contender, options: Any, pool: Pool) -> Cells:
    """One group, fan-out to all of its members."""
    for members in (number for number in options.subs if number <= contender.most):
        for window in (1, 8):
            yield from fan("w2", contender, options, pool, members, window)


def bursts(contender: Contender, options: Any, pool: Pool) -> Cells:
    """As w2, but eight messages come in one write, and the next eight when all have reached everybody."""
    for members in options.members:
        yield from fan("bursts", contender, options, pool, members, 8, burst=1)


def w3(contender: Contender, options: Any, pool: Pool) -> Cells:
    """Many small groups."""
    shape = {"groups": 1000, "members": 2, "window": 16, "size": 88}
    yield "w3_groups", load(contender, "groups", pool.get(contender), **shape, **timing(options))


def w4(contender: Contender, options: Any, pool: Pool) -> Cells:
    """Connections that come and go."""
    yield "w4_churn", load(contender, "churn", pool.get(contender), conns=8, size=64, **timing(options))


def idle(contender: Contender, count: int, **more: Any) -> dict[str, Any]:
    """That many idle members of one group, what each takes of memory, and one message to all of them."""
    with Server(contender) as server:
        load(contender, "echo", server, conns=10, dur=0.3, warm=0.1)
        base = server.rss_kib()
        shape = {"port": server.port, "pid": server.pid, "conns": count, "hold": 60, **more}
        command = load_command(contender, "idle", shape)
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            result = last_line(process.stdout.readline())
            time.sleep(2.0)  # what the handshakes left behind is freed
            if "error" in result:
                return result
            result |= {"kib_per_conn": (server.rss_kib() - base) / count, "base_mib": base / 1024}
            process.stdin.write("now\n")
            process.stdin.flush()
            return result | last_line(process.stdout.readline())
        finally:
            process.kill()
            process.wait()


def w5(contender: Contender, options: Any, pool: Pool) -> Cells:
    """Memory of an idle connection."""
    yield "w5_idle", idle(contender, options.idle)


def many(contender: Contender, options: Any, pool: Pool) -> Cells:
    """As w5, with as many as a process may have. They come from several addresses, since one has not so many ports."""
    allowed = files_allowed() - SPARE_FILES
    if allowed < options.many // 2:
        yield "many_idle", {"skipped": f"{options.many} connections, and a process may have {allowed}: see `ulimit -n`"}
        return
    if allowed < options.many:
        print(f"{options.many} connections are too many for `ulimit -n`; {allowed} it is", file=sys.stderr)
    yield "many_idle", idle(contender, min(options.many, allowed), **{"from": "127.0.0.2", "spread": 8})


def w6(contender: Contender, options: Any, pool: Pool) -> Cells:
    """Fan-out through redis, from one process to the members of another."""
    if not contender.redis:
        return
    members, publisher = pool.get(contender, "redis"), pool.get(contender, "redis", LOAD_CORE)
    for window in (1, 8):
        shape = {"pub_port": publisher.port, "conns": 200, "first_alone": 1, "window": window, "size": 88}
        yield f"w6_redis_w{window}", load(contender, "fan", members, **shape, **timing(options))


def counters_of(server: Server) -> dict[str, Any] | None:
    """What the server counted, if it says so at `/counters`."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/counters", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except (OSError, ValueError):
        return None


def w7(contender: Contender, options: Any, pool: Pool) -> Cells:
    """One member that stops reading: what the others see of it."""
    for stalled in (0, 1):
        duration = options.slow_dur if stalled else max(2, options.slow_dur / 3)
        shape = {"conns": 100, "stall": stalled, "rate": options.slow_rate, "size": options.slow_size, "dur": duration}
        with Server(contender) as server:
            command = load_command(contender, "slow", {"port": server.port, **shape})
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            began = time.monotonic()
            rss, end = [(0.0, server.rss_kib() / 1024)], began + options.slow_dur + 25
            while process.poll() is None and server.process.poll() is None and time.monotonic() < end:
                rss.append((time.monotonic() - began, server.rss_kib() / 1024))
                time.sleep(0.25)
            if process.poll() is None:
                process.kill()
            result = last_line(process.stdout.read())
            process.wait()
            sizes, half = [size for _, size in rss], [size for at, size in rss if at >= duration / 2]
            result |= {"per_second": options.slow_rate, "bytes": options.slow_size, "seconds": duration}
            result |= {"rss_start_mib": sizes[0], "rss_max_mib": max(sizes), "rss_end_mib": sizes[-1]}
            result |= {"rss_late_growth_mib": max(half) - half[0] if half else None, "counters": counters_of(server)}
            yield f"w7_slow_{stalled}", result


def policies(contender: Contender, options: Any, pool: Pool) -> Cells:
    """Round trips, with a permission and a throttle before each action."""
    yield from echo("policies", contender, options, pool)


def observing(contender: Contender, options: Any, pool: Pool) -> Cells:
    """Round trips that somebody counts."""
    yield from echo("observing", contender, options, pool)


def history(contender: Contender, options: Any, pool: Pool) -> Cells:
    """Fan-out in a group with history."""
    for members in options.members:
        yield from fan("history", contender, options, pool, members, 1)


def codecs(contender: Contender, options: Any, pool: Pool) -> Cells:
    """Round trips and a fan-out, in JSON or in MessagePack."""
    yield from echo("codecs", contender, options, pool)
    yield from fan("codecs", contender, options, pool, max(options.members), 1)


def presence(contender: Contender, options: Any, pool: Pool) -> Cells:
    """All come at once, ask who is there, and are told who comes, until each knows each."""
    # A group of its own: those of the last round may not be gone yet.
    path = f"/ws/storm{next(FRESH)}?key=%23%n:0%23"
    yield f"presence_{options.storm}", load(contender, "presence", pool.get(contender), conns=options.storm, path=path)


def recovery(contender: Contender, options: Any, pool: Pool) -> Cells:
    """All come back at once, and each is to get the hundred events that it missed."""
    shape = {"conns": options.storm, "events": 100, "size": 88}
    yield f"recovery_{options.storm}", load(contender, "recovery", pool.get(contender), **shape)


#: Figure, unit and latencies.
ROUND_TRIPS = (("rate",), "round trips/s", (("p50_us",), ("p99_us",)))
DELIVERIES = (("deliveries",), "deliveries/s", (("last_p50_us",), ("last_p99_us",)))
#: What the storms are to: a contender that no other workload has.
BY_HAND = "raw_storms"


#: Variants of `observing`: one that does not differ, three that are to cost nothing, two that count.
OBSERVED = ("again", "silent", "admin", "schedule", "statistics", "metrics")


def ours(*specs: str) -> tuple[str, ...]:
    """Variants of this package; the empty one is the package as it is."""
    return tuple(f"{OURS}@{spec}" if spec else OURS for spec in specs)


WORKLOADS = {
    "w1": Workload(w1, *ROUND_TRIPS, also=(*ours("direct=no"), PROTOCOL, "raw_asgi_protocol")),
    "w2": Workload(w2, *DELIVERIES, also=(*ours("direct=no"), PROTOCOL, "raw_asgi_protocol")),
    "bursts": Workload(bursts, *DELIVERIES, also=(*ours("direct=no"), PROTOCOL, "raw_asgi_protocol")),
    "w3": Workload(w3, *DELIVERIES, also=(*ours("dialect=quiet"), PROTOCOL, "raw_asgi_protocol")),
    "w4": Workload(w4, ("rate",), "connections/s", (("p50_us",), ("p99_us",))),
    "w5": Workload(w5, ("kib_per_conn",), "KiB/connection", is_less_better=True, is_once=True),
    "w6": Workload(
        w6,
        ("deliveries",),
        "deliveries/s",
        (("each_p50_us",), ("each_p99_us",)),
        also=ours("direct=no"),
        needs_redis=True,
    ),
    "w7": Workload(w7, ("healthy_deliv",), "deliveries", also=ours("overflow=drop_oldest"), is_once=True),
    "policies": Workload(
        policies,
        *ROUND_TRIPS,
        to=OURS,
        takes=ours("", "policies=memory", "policies=redis"),
        needs_redis=True,
    ),
    "observing": Workload(
        observing,
        *ROUND_TRIPS,
        to=OURS,
        takes=ours("", *(f"observers={what}" for what in OBSERVED)),
    ),
    "history": Workload(
        history,
        *DELIVERIES,
        to=OURS,
        takes=ours("", "history=memory", "history=redis", "history=sqlite"),
        needs_redis=True,
    ),
    "codecs": Workload(
        codecs,
        ("rate", "deliveries"),
        "round trips/s, deliveries/s",
        (("p50_us", "last_p50_us"), ("p99_us", "last_p99_us")),
        to=OURS,
        takes=ours("", "dialect=msgpack"),
    ),
    "presence": Workload(
        presence,
        ("known",),
        "members made known/s",
        (("p50_us",), ("all_us",)),
        to=BY_HAND,
        takes=(BY_HAND, *ours("presence=memory", "presence=redis")),
        needs_redis=True,
    ),
    "recovery": Workload(
        recovery,
        ("recovered",),
        "events/s",
        (("p50_us",), ("all_us",)),
        to=BY_HAND,
        takes=(BY_HAND, *ours("history=memory", "history=redis", "history=sqlite"), "litestar_server@history=memory"),
        needs_redis=True,
    ),
    "many": Workload(
        many,
        ("kib_per_conn",),
        "KiB/connection",
        ((), ("all_us",)),
        takes=(LIMIT, "raw_asgi", OURS),
        is_less_better=True,
        is_once=True,
    ),
}


def workload_of(cell: str) -> Workload:
    return WORKLOADS[cell.partition("_")[0]]


#: What a cell is called, by its name's pattern.
_LABELS = {
    r"w1_echo_1": "W1, 1 connection",
    r"w1_echo_(\d+)": r"W1, \1 connections",
    r"w2_fan_(\d+)_w1": r"W2, \1 members, one message at a time",
    r"w2_fan_(\d+)_w(\d+)": r"W2, \1 members, \2 under way",
    r"bursts_fan_(\d+)": r"W2, \1 members, bursts of 8",
    r"w3_groups": "W3, 1 000 groups of 2",
    r"w4_churn": "W4, connect, join, echo, close",
    r"w5_idle": "W5, memory of an idle connection",
    r"w6_redis_w1": "W6, two processes, one message at a time",
    r"w6_redis_w(\d+)": r"W6, two processes, \1 under way",
    r"\w+_echo_1": "1 connection",
    r"\w+_echo_(\d+)": r"\1 connections",
    r"\w+_fan_(\d+)_w1": r"\1 members",
    r"(?:presence|recovery)_(\d+)": r"\1 at once",
    r"many_idle": "idle, in one group",
}


def label(cell: str) -> str:
    for pattern, text in _LABELS.items():
        if found := re.fullmatch(pattern, cell):
            return re.sub(r"\b(\d)(\d{3})\b", r"\1 \2", found.expand(text))
    return cell
