"""The decorators ``@action`` and ``@event``: they only mark a function, the metaclass reads the mark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast, overload

F = TypeVar("F", bound=Callable[..., Any])

ACTION_MARK = "__consumer_action__"
EVENT_MARK = "__consumer_event__"


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

    Payload parameters are validated by pydantic from their annotations; parameters that FastAPI would inject
    (``Depends``, ``Header``, ``Query``, ``Path``, ``Cookie``, ``WebSocket``) are injected.
    """
    if callable(name):
        return action()(name)
    mark = make_mark(
        name, permission_classes, throttle_classes, pagination_class, concurrent, timeout, deprecated, enabled
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
        mistakes=tuple(mistakes),
    )


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
