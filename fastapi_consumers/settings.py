"""What ``add_consumers`` is given, checked: each function adds the mistakes that it finds, and raises none."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from broadcaster import Broadcast

from .access_log import AccessLog, ActionLog
from .exceptions import ImproperlyConfigured, Problem
from .observing import Observer, Observing
from .options import LIMIT_NAMES, limit_mistake
from .proxies import TrustedProxies
from .runtime import Consumers
from .throttling import FAILURE_MODES, Rate, compile_throttles, parse_rate
from .transports import Transport
from .transports.broadcaster import BroadcasterTransport
from .transports.urls import seconds_of, transport_of


def check_options(handlers: Any, origins: Any, flags: Mapping[str, Any]) -> list[Problem]:
    """What type checkers see too, and what would otherwise fail late or, worse, let everybody in."""
    problems: list[Problem] = []

    def add(name: str, value: Any, expected: str, fix: str) -> None:
        problems.append(Problem(f"bad-{name.replace('_', '-')}", "add_consumers()", repr(value), expected, fix))

    if handlers is not None and not isinstance(handlers, Mapping):
        add("exception_handlers", handlers, "a dict of exception class to function", "write {MyError: handler}")
    for kind, handler in handlers.items() if isinstance(handlers, Mapping) else ():
        if not (isinstance(kind, type) and issubclass(kind, Exception) and callable(handler)):
            expected = "exception classes as keys, functions as values"
            add("exception_handlers", {kind: handler}, expected, "write {MyError: handler}")
    if origins is not None:
        is_list = isinstance(origins, Sequence) and not isinstance(origins, str | bytes)
        if not is_list or not all(isinstance(origin, str) for origin in origins):
            add("allowed_origins", origins, "a list of origins as text", 'write ["https://example.com"]')
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            add(name, flag, "True or False", f"write {name}=True")
    return problems


def check_token_keys(**keys: Any) -> list[Problem]:
    return [
        Problem(
            f"bad-{name.replace('_', '-')}", "add_consumers()", repr(key), "a name, or None", f'write {name}="token"'
        )
        for name, key in keys.items()
        if key is not None and not (isinstance(key, str) and key)
    ]


def check_app(app: Any, limits: Mapping[str, Any], arguments: Iterable[str]) -> list[Problem]:
    """``arguments``: the names of those that are no limits, to find the one that was meant."""
    problems: list[Problem] = []
    found = getattr(app.state, "consumers", None)
    if isinstance(found, Consumers):
        problems.append(
            Problem(
                "consumers-added-twice",
                "app.state.consumers",
                "the Consumers of an earlier call",
                "one call of add_consumers per application",
                "put all routes into one call, or more of them on a router with add_routes()",
            )
        )
    elif found is not None:
        fix = "keep your own under another name"
        problems.append(Problem("state-taken", "app.state.consumers", repr(found), "nothing of that name", fix))
    for name, value in limits.items():
        if name not in LIMIT_NAMES:
            near = difflib.get_close_matches(name, [*arguments, *LIMIT_NAMES], n=1, cutoff=0.7)
            problems.append(
                Problem(
                    "unknown-argument",
                    "add_consumers()",
                    f"the argument {name!r}",
                    f"one of its arguments, or a limit ({', '.join(LIMIT_NAMES)})",
                    f"did you mean {near[0]!r}?" if near else "look for a misspelling",
                )
            )
        elif (expected := limit_mistake(name, value)) is not None:
            problems.append(Problem("bad-limit", "add_consumers()", f"{name}={value!r}", expected, f"mend {name}"))
    return problems


def throttles_of(scope: str) -> Callable[[Any], Any]:
    return lambda entries: compile_throttles(entries, scope)


def compiled(
    compile_all: Callable[[Any], tuple[Any, ...]], entries: Sequence[Any], name: str, problems: list[Problem]
) -> tuple[Any, ...]:
    try:
        return compile_all(entries)
    except (TypeError, ValueError) as error:
        problems.append(
            Problem(f"bad-{name.replace('_', '-')}", "add_consumers()", repr(entries), f"a list of {name}", str(error))
        )
        return ()


def proxies_of(networks: Any, problems: list[Problem]) -> TrustedProxies | None:
    try:
        return None if networks is None else TrustedProxies(networks)
    except (TypeError, ValueError) as error:
        expected = "a list of addresses and networks"
        fix = f'write trusted_proxies=["10.0.0.0/8"]: {error}'
        problems.append(Problem("bad-trusted-proxies", "add_consumers()", repr(networks), expected, fix))
        return None


def drain_timeout_of(timeout: Any, problems: list[Problem]) -> float:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds) and seconds >= 0:
        return float(seconds)
    expected, fix = "seconds of at least 0, or a timedelta", "write drain_timeout=10, or 0 for none"
    problems.append(Problem("bad-drain-timeout", "add_consumers()", repr(timeout), expected, fix))
    return 0.0


def check_count(name: str, value: Any, problems: list[Problem]) -> None:
    """A whole number above 0, or nothing."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        expected = "a whole number above 0, or None"
        problems.append(Problem("bad-limit", "add_consumers()", f"{name}={value!r}", expected, f"mend {name}"))


def connection_rates_of(rate: Any, problems: list[Problem]) -> tuple[Rate, ...]:
    try:
        return () if rate is None else parse_rate(rate)
    except (AttributeError, TypeError, ValueError) as error:
        expected = 'a rate such as "100/second"'
        problems.append(Problem("bad-max-connection-rate", "add_consumers()", repr(rate), expected, str(error)))
        return ()


def chosen_transport(
    url: str,
    transport: Transport | None,
    broadcast: Broadcast | None,
    broker_timeout: float | timedelta,
    problems: list[Problem],
) -> Transport | None:
    if transport is not None and broadcast is not None:
        problems.append(
            Problem(
                "two-transports", "add_consumers()", "transport= and broadcast=", "one of them", "leave one of them out"
            )
        )
        return None
    if transport is not None:
        if isinstance(cast(object, transport), Transport):
            return transport
        problems.append(
            Problem(
                "bad-transport",
                "add_consumers()",
                repr(transport),
                "an instance of Transport",
                "derive it from Transport",
            )
        )
        return None
    try:
        seconds = seconds_of(broker_timeout)
        if broadcast is None:
            return transport_of(url, broker_timeout=seconds)
        if isinstance(cast(object, broadcast), Broadcast):
            return BroadcasterTransport(broadcast, broker_timeout=seconds)
    except ImproperlyConfigured as error:
        problems.extend(error.problems)
        return None
    expected, fix = "a broadcaster.Broadcast", 'write broadcast=Broadcast("memory://")'
    problems.append(Problem("bad-broadcast", "add_consumers()", repr(broadcast), expected, fix))
    return None


def check_throttle_failure(mode: Any, problems: list[Problem]) -> None:
    if mode not in FAILURE_MODES:
        expected = f"one of {', '.join(map(repr, FAILURE_MODES))}"
        fix = 'write throttle_failure="open"'
        problems.append(Problem("bad-throttle-failure", "add_consumers()", repr(mode), expected, fix))


def observing_of(observers: Any, statistics: bool | None, access_log: Any, problems: list[Problem]) -> Observing:
    """Who observes: those that were given, and the access log before them."""
    found: list[Observer] = []
    if access_log not in (True, False, "actions"):
        expected, fix = 'True, False or "actions"', 'write access_log="actions"'
        problems.append(Problem("bad-access-log", "add_consumers()", repr(access_log), expected, fix))
    elif access_log:
        found.append(ActionLog() if access_log == "actions" else AccessLog())
    is_list = isinstance(observers, Sequence) and not isinstance(observers, str | bytes)
    if not is_list or not all(isinstance(each, Observer) for each in observers):
        expected, fix = "a list of instances of Observer", "write observers=[MyObserver()]"
        problems.append(Problem("bad-observers", "add_consumers()", repr(observers), expected, fix))
        return Observing()
    return Observing([*found, *observers], counts=statistics is True)
