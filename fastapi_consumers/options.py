"""What a class of consumers declares, gathered once: ``ConsumerOptions``, found on every class as ``_meta``."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from .actions import Action
from .authentication import BaseAuthentication
from .backlog import OVERFLOWS, Overflow
from .dependencies import Dependencies
from .event_models import EventModel
from .groups import GroupTemplate
from .history import History
from .naming import name_of, names_of
from .pagination import BasePagination
from .permissions import BasePermission
from .presence import Presence
from .scheduled import Scheduled
from .serializers import ResponseSerializer
from .throttling import BaseThrottle

#: Called as ``handler(consumer, exc)``; what it returns, if anything, is the error that the client is told of.
ExceptionHandler = Callable[[Any, Any], Any]
#: Called as ``handler(consumer, group)``.
EventHandler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one connection. Each is an attribute of a consumer class and an argument of ``add_consumers``.

    Durations may be given as ``timedelta``; they are kept in seconds.
    """

    #: Largest message from a client, in bytes; a larger one closes with 1009.
    max_message_size: int = 64 * 1024
    #: Requests that may wait while an action runs.
    max_inbox: int = 128
    #: Seconds that a full inbox may stay so; then the socket closes with 4429.
    inbox_timeout: float = 10.0
    #: What happens when more waits for a slow client than ``max_outbox`` and ``max_outbox_bytes`` allow: ``disconnect``
    #: closes with 1013, ``drop_oldest``, ``drop_newest`` and ``coalesce`` drop events and never replies.
    overflow: Overflow = "disconnect"
    #: Messages that may wait to be written to a slow client.
    max_outbox: int = 256
    #: Bytes that may.
    max_outbox_bytes: int = 1024 * 1024
    #: Events that a client may recover in one group when it comes back; with more it starts anew.
    max_recovery: int = 1000
    #: The same in bytes.
    max_recovery_bytes: int = 4 * 1024 * 1024
    #: Seconds that one message may take to be written; only under ``disconnect``.
    write_timeout: float = 10.0
    #: Seconds that a client has to send its token as the first message; more closes with 4401. Only where a
    #: ``FirstMessageAuthentication`` waits for it.
    authentication_timeout: float = 10.0
    #: Seconds after the end of its credential until a socket closes with 4401, in which it can be refreshed.
    authentication_grace: float = 10.0
    #: Frames in a row that are no requests; more closes with 4400.
    max_bad_frames: int = 50
    #: Requests of a minute that throttles refuse; more closes with 4429.
    max_throttled_requests: int = 100
    #: Seconds without a frame from the client until its socket closes with 4408; ``None`` for no limit, since clients
    #: that only listen send none. One that waits for an action is not idle.
    idle_timeout: float | None = None
    #: Actions marked ``concurrent`` that may run at the same time.
    max_concurrent_actions: int = 16
    #: Groups that one connection may be in.
    max_groups: int = 128
    #: Connections per group; ``None`` for no limit.
    max_connections: int | None = None
    #: Connections of one user in this process; ``None`` for no limit.
    max_connections_per_user: int | None = None
    #: Connections of one address in this process; ``None`` for no limit.
    max_connections_per_address: int | None = None
    #: Seconds after which a process that died has given back its seats in groups with ``max_connections``.
    lease_timeout: float = 60.0

    def __post_init__(self) -> None:
        for name in LIMIT_NAMES:
            value = getattr(self, name)
            if isinstance(value, timedelta):
                object.__setattr__(self, name, value.total_seconds())


LIMIT_NAMES = tuple(limit.name for limit in dataclasses.fields(Limits))
_OPTIONAL = {limit.name for limit in dataclasses.fields(Limits) if limit.default is None}


def limit_mistake(name: str, value: Any) -> str | None:
    """What a value for this limit should have been, or ``None`` if it is valid."""
    if name in _OPTIONAL and value is None:
        return None
    if name.endswith(("_timeout", "_grace")):
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if name.endswith("_grace"):
            return None if is_number and 0 <= seconds < math.inf else "seconds, 0 or more, or a timedelta"
        return None if is_number and seconds > 0 and math.isfinite(seconds) else "seconds above 0, or a timedelta"
    if name == "overflow":
        return None if value in OVERFLOWS else f"one of {', '.join(map(repr, OVERFLOWS))}"
    valid = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return None if valid else "a whole number above 0"


@dataclass(frozen=True, eq=False)
class ConsumerOptions:
    """Everything that one class declares or inherits. Policies are ``None`` where the application's default holds."""

    name: str
    module: str
    file: str
    line: int
    abstract: bool = False
    #: Wire name to action, in the order of declaration, bases first.
    actions: Mapping[str, Action] = field(default_factory=lambda: MappingProxyType({}))
    #: Channel layer message type to method name.
    events: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    #: ``"join"`` and ``"leave"`` to the functions registered for them, bases first.
    handlers: Mapping[str, tuple[EventHandler, ...]] = field(default_factory=lambda: MappingProxyType({}))
    #: Event name to what the class declares of it in ``events``.
    event_models: Mapping[str, EventModel] = field(default_factory=lambda: MappingProxyType({}))
    #: What runs by itself, by the name of its schedule.
    schedules: Mapping[str, Scheduled] = field(default_factory=lambda: MappingProxyType({}))
    groups: tuple[GroupTemplate, ...] = ()
    #: How much of its groups' past is kept; ``None`` for nothing.
    history: History | None = None
    authentications: tuple[BaseAuthentication, ...] | None = None
    permissions: tuple[BasePermission, ...] | None = None
    throttles: tuple[BaseThrottle, ...] | None = None
    connection_throttles: tuple[BaseThrottle, ...] | None = None
    #: Wire name to what the action adds to the consumer's own; actions that add nothing are left out.
    action_permissions: Mapping[str, tuple[BasePermission, ...]] = field(default_factory=lambda: MappingProxyType({}))
    action_throttles: Mapping[str, tuple[BaseThrottle, ...]] = field(default_factory=lambda: MappingProxyType({}))
    pagination: BasePagination | None = None
    dependencies: Dependencies | None = None
    request_serializer_class: type[Any] | None = None
    response_serializer_class: type[ResponseSerializer] | None = None
    exception_handlers: Mapping[type[Exception], ExceptionHandler] = field(default_factory=lambda: MappingProxyType({}))
    allowed_origins: tuple[str, ...] | None = None
    accept_refused: bool | None = None
    presence: Presence | None = None
    #: The limits that the class sets itself.
    limits: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    #: Hooks that the class or a base of its own overrides.
    overridden: frozenset[str] = frozenset()
    #: Annotations that could not be resolved yet: (where, message).
    unresolved: tuple[tuple[str, str], ...] = ()

    def event_method(self, type: str) -> str | None:
        """The method that was marked for messages of this type, or whose name it is with ``_`` in place of ``.``."""
        method = self.events.get(type)
        if method is None and "." in type:
            name = type.replace(".", "_")
            # A method that was marked for a type of another name has no part in this.
            method = name if self.events.get(name) == name else None
        return method

    def describe(self) -> str:
        """The options as text for people."""
        lines = [f"{self.name} ({self.module}, line {self.line}){' abstract' if self.abstract else ''}"]
        lines += _rows("groups", [template.text for template in self.groups])
        if self.history is not None:
            lines += _rows("history", [repr(self.history)])
        lines += _rows("actions", [self._action_line(action) for action in self.actions.values()])
        lines += _rows("events", [f"{type} -> {method}()" for type, method in self.events.items()])
        lines += _rows("declared events", [repr(model) for model in self.event_models.values()])
        lines += _rows("schedules", [f"{name} -> {each!r}" for name, each in self.schedules.items()])
        for name, functions in self.handlers.items():
            lines += _rows(f"on {name}", [getattr(function, "__qualname__", repr(function)) for function in functions])
        for label, policies in (
            ("authentication", self.authentications),
            ("permissions", self.permissions),
            ("throttles", self.throttles),
            ("connection throttles", self.connection_throttles),
        ):
            if policies is not None:
                lines += _rows(label, names_of(policies) or ["none"])
        if self.pagination is not None:
            lines += _rows("pagination", [name_of(self.pagination)])
        for label, serializer in (
            ("request serializer", self.request_serializer_class),
            ("response serializer", self.response_serializer_class),
        ):
            if serializer is not None:
                lines += _rows(label, [serializer.__name__])
        if self.exception_handlers:
            lines += _rows("exception handlers", [kind.__name__ for kind in self.exception_handlers])
        if self.allowed_origins is not None:
            lines += _rows("allowed origins", list(self.allowed_origins) or ["none"])
        if self.presence is not None:
            lines += _rows("presence", [repr(self.presence)])
        lines += _rows("limits", [f"{name} = {value!r}" for name, value in self.limits.items()])
        lines += _rows("unresolved", [f"{where}: {message}" for where, message in self.unresolved])
        return "\n".join(lines)

    def _action_line(self, action: Action) -> str:
        flags = [
            flag
            for flag, on in (
                ("streams", action.stream),
                ("thread", action.threaded),
                ("concurrent", action.concurrent),
                (f"timeout {action.timeout} s", action.timeout is not None),
                ("deprecated", action.deprecated),
                ("disabled", not action.enabled),
            )
            if on
        ]
        policies = [
            name_of(policy)
            for policy in (*self.action_permissions.get(action.name, ()), *self.action_throttles.get(action.name, ()))
        ]
        if action.errors:
            flags.append(f"errors {' '.join(error.default_code for error in action.errors)}")
        extra = f" [{', '.join(flags + policies)}]" if flags or policies else ""
        return f"{action.name} -> {action.owner}.{action.method}(), line {action.line}{extra}"


def _rows(label: str, values: list[str]) -> list[str]:
    return [f"  {label + ':' if index == 0 else '':<22}{value}" for index, value in enumerate(values)]
