"""The decorators ``@action``, ``@event``, ``@every`` and ``@cron``: they only mark a function, others read the mark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast, overload
from zoneinfo import ZoneInfo

from .exceptions import ConsumerError, Problem
from .timings import BadTiming, Cron, Every, Timing

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

ACTION_MARK = "__consumer_action__"
EVENT_MARK = "__consumer_event__"
SCHEDULE_MARK = "__consumer_schedule__"

#: Longest name of a schedule, in characters.
MAX_SCHEDULE_NAME = 128


@dataclass(frozen=True, slots=True)
class ActionMark:
    """The options of one ``@action``. ``name`` is ``None`` where the method's name is the wire name."""

    name: str | None = None
    permission_classes: tuple[Any, ...] = ()
    throttle_classes: tuple[Any, ...] = ()
    pagination_class: Any = None
    concurrent: bool = False
    timeout: float | None = None
    deprecated: bool = False
    enabled: bool = True
    errors: tuple[type[ConsumerError], ...] = ()
    #: What is wrong with the options themselves; reported with the other mistakes of the class.
    mistakes: tuple[str, ...] = field(default=(), compare=False)


@overload
def action(function: F, /) -> F: ...
@overload
def action(
    name: str | None = None,
    /,
    *,
    permission_classes: Sequence[Any] = (),
    throttle_classes: Sequence[Any] = (),
    pagination_class: Any = None,
    concurrent: bool = False,
    timeout: float | timedelta | None = None,
    deprecated: bool = False,
    enabled: bool = True,
    errors: Sequence[type[ConsumerError]] = (),
) -> Callable[[F], F]: ...
def action(
    name: Any = None,
    /,
    *,
    permission_classes: Sequence[Any] = (),
    throttle_classes: Sequence[Any] = (),
    pagination_class: Any = None,
    concurrent: bool = False,
    timeout: float | timedelta | None = None,
    deprecated: bool = False,
    enabled: bool = True,
    errors: Sequence[type[ConsumerError]] = (),
) -> Any:
    """Mark a method as one that clients may call.

    Args:
        name: the wire name; the method's own by default.
        permission_classes: checked besides the consumer's.
        throttle_classes: counted besides the consumer's.
        pagination_class: how its results are paged, in place of the consumer's.
        concurrent: run beside the connection's other actions, at most ``max_concurrent_actions`` at a time.
        timeout: seconds after which the action is cancelled and answered with the error ``timeout``.
        deprecated: say so in the schema, and log each use.
        enabled: ``False`` refuses it with ``action_disabled`` (``action_deprecated`` if it is deprecated too).
        errors: classes of the errors that it answers with of its own accord, such as ``[NotFound]``, for the
            documentation; each has a ``default_code``. What the framework may answer is there without being named.

    Payload parameters are validated by pydantic from their annotations; parameters that FastAPI would inject
    (``Depends``, ``Header``, ``Query``, ``Path``, ``Cookie``, ``WebSocket``) are injected.
    """
    if callable(name):
        return action()(name)
    mark = make_mark(
        name, permission_classes, throttle_classes, pagination_class, concurrent, timeout, deprecated, enabled, errors
    )

    def decorate(function: Any) -> Any:
        return _mark(function, ACTION_MARK, mark, "@action")

    return decorate


def make_mark(
    name: Any,
    permission_classes: Sequence[Any],
    throttle_classes: Sequence[Any],
    pagination_class: Any,
    concurrent: bool,
    timeout: Any,
    deprecated: bool,
    enabled: bool,
    errors: Sequence[Any],
) -> ActionMark:
    """The mark for these options, mistakes included: they are the metaclass's to report."""
    mistakes: list[str] = []
    if name is not None and (not isinstance(name, str) or not name or len(name) > 128):
        mistakes.append(f"the name {name!r}, where text of 1 to 128 characters is expected")
        name = None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and seconds > 0 and math.isfinite(seconds)):
        mistakes.append(f"timeout={timeout!r}, where a number of seconds above 0 or a timedelta is expected")
        seconds = None
    lists: list[tuple[Any, ...]] = []
    for option, value in (("permission_classes", permission_classes), ("throttle_classes", throttle_classes)):
        if isinstance(value, str | bytes) or not isinstance(cast(object, value), Sequence):
            mistakes.append(f"{option}={value!r}, where a list is expected")
            value = ()
        lists.append(tuple(value))
    error_classes = _error_classes(errors, mistakes)
    for option, flag in (("concurrent", concurrent), ("deprecated", deprecated), ("enabled", enabled)):
        if not isinstance(cast(object, flag), bool):
            mistakes.append(f"{option}={flag!r}, where True or False is expected")
    return ActionMark(
        name=name,
        permission_classes=lists[0],
        throttle_classes=lists[1],
        pagination_class=pagination_class,
        concurrent=bool(concurrent),
        timeout=None if seconds is None else float(seconds),
        deprecated=bool(deprecated),
        enabled=bool(enabled),
        errors=error_classes,
        mistakes=tuple(mistakes),
    )


def _error_classes(errors: Any, mistakes: list[str]) -> tuple[type[ConsumerError], ...]:
    """The classes, if clients can tell them apart by their codes."""
    if isinstance(errors, str | bytes) or not isinstance(errors, Sequence):
        mistakes.append(f"errors={errors!r:.200}, where a list of classes derived from ConsumerError is expected")
        return ()
    found: dict[str, type[ConsumerError]] = {}
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, ConsumerError)):
            mistakes.append(f"errors with {error!r:.200}, where a class derived from ConsumerError is expected")
        elif not error.default_code or error.default_code == ConsumerError.default_code:
            mistakes.append(f"errors with {error.__name__}, where a class with a default_code of its own is expected")
        elif found.setdefault(error.default_code, error) is not error:
            names = f"{found[error.default_code].__name__} and {error.__name__}"
            mistakes.append(f"errors with {names}, both {error.default_code!r}, where each code is expected once")
    return tuple(found.values())


@overload
def event(function: F, /) -> F: ...
@overload
def event(type: str | None = None, /) -> Callable[[F], F]: ...
def event(type: Any = None, /) -> Any:
    """Mark a method as the one that a channel layer message of this ``type`` calls.

    Only marked methods can be reached by name. Without an argument the method's own name is the type, and so is that
    name with dots in place of underscores: ``chat_message`` hears ``chat.message`` too, as in Django Channels.
    """
    if callable(type):
        return event()(type)
    if type is not None and (not isinstance(type, str) or not type):
        raise TypeError(f"@event takes the message's type, as in @event('chat.message'); found {type!r}")

    def decorate(function: Any) -> Any:
        name = getattr(function, "__name__", "")
        return _mark(function, EVENT_MARK, name if type is None else type, "@event")

    return decorate


@dataclass(frozen=True, slots=True)
class ScheduleMark:
    """What ``every`` or ``cron`` was given: a decorator for methods, and a value that says when something is due."""

    decorator: str
    #: ``None`` if it is one of the mistakes.
    timing: Timing | None
    name: str | None = None
    timeout: float | None = None
    take_over: bool = True
    #: What is wrong; reported where it is used.
    problems: tuple[Problem, ...] = field(default=(), compare=False)

    def __call__(self, function: T) -> T:
        marked: T = _mark(function, SCHEDULE_MARK, self, self.decorator)
        return marked


def every(
    interval: float | str | timedelta,
    /,
    *,
    name: str | None = None,
    timeout: float | timedelta | None = None,
    take_over: bool = True,
) -> ScheduleMark:
    """Mark a class method as one that runs every so often, once over all processes.

    ::

        @every("30s")
        @classmethod
        async def tick(cls, group: str, consumers: Consumers) -> None: ...

    With a parameter ``group`` it runs once for each group that has members of the class, without one once for the
    class. It is given what it names: ``group``, ``consumers`` and ``run``, a ``ScheduledRun``.

    It runs at the multiples of the interval since 1970: every hour means at the full hour.

    Args:
        interval: seconds, a ``timedelta``, or text such as ``"30s"``, ``"5m"`` or ``"1h30m"``. 1 s to 366 days.
        name: what the schedule is called; by default the class's and the method's, such as ``Room.tick``.
        timeout: seconds after which a run is cancelled.
        take_over: whether another process runs it again if the one that did died meanwhile, or was stopped.
    """
    return _schedule_mark("@every", lambda: Every(interval), name, timeout, take_over)


def cron(
    text: str,
    /,
    *,
    tz: str | ZoneInfo = "UTC",
    name: str | None = None,
    timeout: float | timedelta | None = None,
    take_over: bool = True,
) -> ScheduleMark:
    """The same as ``every``, at the times that a line of cron says: ``@cron("0 9 * * 1-5", tz="Europe/Berlin")``.

    Needs the extra ``schedules``.

    Args:
        text: minute, hour, day of the month, month, day of the week; a sixth field in front is for seconds.
        tz: the time zone that these are in.
    """
    return _schedule_mark("@cron", lambda: Cron(text, tz), name, timeout, take_over)


def _schedule_mark(
    decorator: str, timing: Callable[[], Timing], name: Any, timeout: Any, take_over: Any
) -> ScheduleMark:
    problems: list[Problem] = []
    made: Timing | None = None
    try:
        made = timing()
    except BadTiming as error:
        problems.append(error.problem)
    if name is not None and not _is_schedule_name(name):
        expected = f"text of 1 to {MAX_SCHEDULE_NAME} printable characters"
        problems.append(Problem("bad-schedule-name", "", f"name={name!r:.200}", expected, "choose another name"))
        name = None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and seconds > 0 and math.isfinite(seconds)):
        expected, fix = "a number of seconds above 0, or a timedelta", "write timeout=60"
        problems.append(Problem("bad-schedule-timeout", "", f"timeout={timeout!r}", expected, fix))
        seconds = None
    if not isinstance(take_over, bool):
        expected, fix = "True or False", "write take_over=False"
        problems.append(Problem("bad-take-over", "", f"take_over={take_over!r}", expected, fix))
    return ScheduleMark(
        decorator, made, name, None if seconds is None else float(seconds), bool(take_over), tuple(problems)
    )


def _is_schedule_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= MAX_SCHEDULE_NAME and name.isprintable()


def _mark(function: Any, attribute: str, value: Any, decorator: str) -> Any:
    if isinstance(function, staticmethod | classmethod | property):
        # Wrapped the wrong way round. The mark goes on what is inside, where the metaclass finds and reports it.
        inner = function.fget if isinstance(function, property) else function.__func__
        setattr(inner, attribute, value)
        return function
    if not callable(function) or isinstance(function, type) or not hasattr(function, "__dict__"):
        raise TypeError(f"{decorator} marks a function; found {function!r}")
    setattr(function, attribute, value)
    return function
