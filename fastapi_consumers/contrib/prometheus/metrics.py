"""What is counted, and how it is read when somebody scrapes."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from prometheus_client.registry import Collector

from ...connection import Connection
from ...facts import end_of
from ...observing import OK, Observer, Record
from ...plan import Plan
from ...printable import printable
from ...runtime import Consumers
from ...types import CloseCode
from .families import Family, exposed

#: Seconds. From half a millisecond, since most actions take less than what an HTTP request does.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: Values that one label may have; what comes later is ``other``. Codes of errors and of closes are chosen by whoever
#: writes the application, but nothing keeps that from making them up as it goes.
MAX_VALUES = 100

OTHER = "other"

_STANDARD_CODES = frozenset(map(int, CloseCode)) | {CloseCode.ABNORMAL}


class _Calls:
    """The calls of one action or event method."""

    __slots__ = ("_bounded", "_bounds", "counts", "failures", "seconds")

    def __init__(self, bounds: tuple[float, ...], bounded: Callable[[str, str], str]) -> None:
        self._bounds = bounds
        self._bounded = bounded
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0
        #: Those that did not go well, by outcome.
        self.failures: dict[str, int] = {}

    def add(self, outcome: str, durations: Sequence[float]) -> None:
        for duration in durations:
            self.counts[bisect_left(self._bounds, duration)] += 1
        self.seconds += sum(durations)
        if outcome != OK:
            outcome = self._bounded("outcome", outcome)
            self.failures[outcome] = self.failures.get(outcome, 0) + len(durations)


class Metrics(Observer, Collector):
    """Counts what the consumers of one application do, for Prometheus.

    An action adds to a few numbers; everything else is read from counters that are there anyway, when somebody
    scrapes. Labels are bounded: classes, their actions and event methods, codes; never what a client chose.

    It is a collector: serve it with :func:`metrics_router`, or register it with a ``CollectorRegistry`` of your own,
    which must be scraped in the event loop of the application.

    Args:
        buckets: bounds of the histograms of durations, in seconds, rising.

    Raises ``ValueError`` for bounds that do not rise, ``RuntimeError`` if it is given to a second application.
    """

    counts = True

    def __init__(self, *, buckets: Sequence[float] = BUCKETS) -> None:
        self.bounds = tuple(map(float, buckets))
        if not self.bounds or list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"the bounds of buckets rise; found {buckets!r}")
        self._consumers: Consumers | None = None
        self._calls: dict[tuple[Plan, str, str], _Calls] = {}
        self._opened: Counter[str] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._closed: Counter[tuple[str, str, str]] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter()
        self._recoveries: Counter[str] = Counter(recovered=0, not_recovered=0)
        self._gaps = 0
        #: Class to messages and bytes in and out of connections that have ended.
        self._traffic: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self._values: dict[str, set[str]] = defaultdict(set)

    # -- counting --------------------------------------------------------------------------------------------------

    def attached(self, consumers: Consumers) -> None:
        if self._consumers is not None:
            raise RuntimeError("Metrics counts for one application; make another one for the second")
        self._consumers = consumers

    def connection_opened(self, connection: Connection) -> None:
        self._opened[_class(connection)] += 1

    def connection_refused(self, connection: Connection) -> None:
        by = end_of(connection)[1]
        reason = connection.close_reason if by == "server" and connection.close_reason else by or OTHER
        self._refused[_class(connection), self._bounded("reason", reason)] += 1
        self._ended(connection)

    def connection_closed(self, connection: Connection) -> None:
        code, by = end_of(connection)
        # A client may send any of a thousand codes.
        known = code in _STANDARD_CODES or (by == "server" and code is not None)
        label = self._bounded("close_code", str(code)) if known else OTHER
        self._closed[_class(connection), label, by or OTHER] += 1
        self._ended(connection)

    def _ended(self, connection: Connection) -> None:
        total = self._traffic[_class(connection)]
        for place, value in enumerate(_traffic(connection)):
            total[place] += value

    def call_recorder(self, plan: Plan, kind: Literal["action", "event"], name: str) -> Record:
        calls = self._calls[plan, kind, name] = _Calls(self.bounds, self._bounded)
        return calls.add

    def error_told(self, connection: Connection, code: str) -> None:
        self._errors[_class(connection), self._bounded("outcome", code)] += 1

    def recovered(self, group: str, success: bool) -> None:
        self._recoveries["recovered" if success else "not_recovered"] += 1

    def gap(self, group: str) -> None:
        self._gaps += 1

    def _bounded(self, label: str, value: str) -> str:
        values = self._values[label]
        if value not in values:
            if len(values) >= MAX_VALUES:
                return OTHER
            values.add(value)
        return printable(value)

    # -- reading ---------------------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Any]:
        """The metrics of this process. Call it in the event loop of the application."""
        yield from exposed(self.families(), self.bounds)

    def describe(self) -> list[Any]:
        """Nothing, so that registering it collects nothing."""
        return []

    def families(self) -> list[Family]:
        """The samples of this process, as plain values."""
        return [*self._of_connections(), *self._of_calls(), *self._of_application()]

    def _of_connections(self) -> Iterator[Family]:
        opened: Counter[str] = Counter()
        waiting: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        traffic = {name: list(values) for name, values in self._traffic.items()}
        for connection in tuple(self._consumers.connections) if self._consumers is not None else ():
            name = _class(connection)
            opened[name] += connection.is_accepted
            waiting[name][0] += connection.inbox.waiting
            waiting[name][1] += connection.outbox.waiting
            total = traffic.setdefault(name, [0, 0, 0, 0])
            for place, value in enumerate(_traffic(connection)):
                total[place] += value
        for name in self._opened:
            # Nobody is there any more: a gauge says so.
            opened[name] += 0
            waiting[name][0] += 0
        by_class = ["consumer"]
        yield _gauge("connections", "Connections that are open.", by_class, opened)
        yield _counter("connections_opened", "Connections that were opened.", by_class, self._opened)
        yield _counter("connections_refused", "Handshakes that came to nothing.", ["consumer", "reason"], self._refused)
        yield _counter("connections_closed", "Connections that ended.", ["consumer", "code", "by"], self._closed)
        for place, (name, documentation) in enumerate(_TRAFFIC):
            yield _counter(name, documentation, by_class, {key: values[place] for key, values in traffic.items()})
        for place, (name, documentation) in enumerate(_WAITING):
            yield _gauge(name, documentation, by_class, {key: values[place] for key, values in waiting.items()})

    def _of_calls(self) -> Iterator[Family]:
        if self._consumers is not None:
            self._consumers.observing.flush()
        durations: dict[tuple[str, ...], list[float]] = {}
        outcomes: Counter[tuple[str, ...]] = Counter()
        # A class that was changed has another plan, and goes on under its name.
        for (plan, kind, name), calls in tuple(self._calls.items()):
            key = plan.options.name, kind, name
            before, values = durations.get(key), [*calls.counts, calls.seconds]
            durations[key] = values if before is None else [a + b for a, b in zip(before, values, strict=True)]
            if went_well := sum(calls.counts) - sum(calls.failures.values()):
                outcomes[(*key, OK)] += went_well
            for outcome, count in calls.failures.items():
                outcomes[(*key, outcome)] += count
        labels = ["consumer", "kind", "name"]
        yield Family(
            "histogram",
            "fastapi_consumers_call_duration_seconds",
            "Actions and event methods, from their turn to the end of their answer.",
            labels,
            [(list(key), values) for key, values in durations.items()],
        )
        yield _counter("calls", "Actions and event methods that ended.", [*labels, "outcome"], outcomes)
        yield _counter("errors", "Errors that clients were told of.", ["consumer", "code"], self._errors)

    def _of_application(self) -> Iterator[Family]:
        yield _counter("recoveries", "Clients that came back to a history.", ["result"], self._recoveries)
        yield _counter("gaps", "Groups that were told of a gap.", [], {(): self._gaps})
        if self._consumers is None:
            return
        health = self._consumers.health()
        yield _gauge("healthy", "1 if packets are published and received.", [], {(): int(health["healthy"])}, "least")
        lost = health["broker_lost_for"] or 0.0
        yield _gauge("broker_lost_seconds", "How long the broker has been lost.", [], {(): lost}, "most")
        yield _counter("broker_losses", "How often the broker was lost.", [], {(): health["broker_losses"]})
        yield _gauge("groups", "Groups with members in this process.", [], {(): health["groups"]})
        yield _counter("bad_packets", "Packets that were unreadable.", [], {(): health["bad_packets"]})
        yield _counter(
            "overflows", "Events dropped, or sockets closed, for slow clients.", ["policy"], health["overflows"]
        )
        for part in ("transport", "history", "limiter"):
            yield _counter(f"{part}_events", f"Counters of the {part}.", ["event"], health[part])


_TRAFFIC = (
    ("messages_received", "Messages that came."),
    ("received_bytes", "Bytes of messages that came."),
    ("messages_sent", "Messages that were handed to the server."),
    ("sent_bytes", "Bytes of messages that were handed to the server."),
)
_WAITING = (
    ("inbox_messages", "Messages that wait for their consumer."),
    ("outbox_messages", "Messages that wait for their socket."),
)


def _traffic(connection: Connection) -> tuple[int, int, int, int]:
    inbox, outbox = connection.inbox, connection.outbox
    return inbox.received or 0, inbox.received_bytes or 0, outbox.sent, outbox.sent_bytes or 0


def _class(connection: Connection) -> str:
    return connection.plan.options.name


def _samples(values: Any) -> list[tuple[list[str], Any]]:
    return [([key] if isinstance(key, str) else list(key), value) for key, value in values.items()]


def _counter(name: str, documentation: str, labels: list[str], values: Any) -> Family:
    return Family("counter", f"fastapi_consumers_{name}", documentation, labels, _samples(values))


def _gauge(name: str, documentation: str, labels: list[str], values: Any, kind: Any = "gauge") -> Family:
    return Family(kind, f"fastapi_consumers_{name}", documentation, labels, _samples(values))
