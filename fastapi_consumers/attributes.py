"""The option attributes of a consumer class, read from its MRO's own dictionaries and checked."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import FunctionType
from typing import Any

from pydantic import BaseModel

from .action_pagination import checked_pagination
from .actions import Action
from .authentication import authentication_of
from .dependencies import Dependencies
from .event_models import EventModel, event_models_of
from .exceptions import Problem
from .groups import GroupTemplate
from .history import History
from .marks import ACTION_MARK, EVENT_MARK
from .options import LIMIT_NAMES, limit_mistake
from .pagination import BasePagination
from .permissions import BasePermission, compile_permissions, permission_of
from .presence import Presence
from .throttling import BaseThrottle, compile_throttles, throttle_of

POLICY_LISTS = ("authentication_classes", "permission_classes", "throttle_classes", "connection_throttle_classes")

#: Every attribute that this module reads.
OPTION_NAMES = (
    *POLICY_LISTS,
    *LIMIT_NAMES,
    "groups",
    "history",
    "pagination_class",
    "dependencies",
    "request_serializer_class",
    "response_serializer_class",
    "exception_handlers",
    "allowed_origins",
    "accept_refused",
    "presence",
    "events",
)


def action_permissions(actions: Mapping[str, Action], problems: list[Problem]) -> dict[str, tuple[BasePermission, ...]]:
    found: dict[str, tuple[BasePermission, ...]] = {}
    for name, action in actions.items():
        where = f"{action.owner}.{action.method}, line {action.line}"
        entries = _checked(action.mark.permission_classes, permission_of, "permission_classes", where, problems)
        if compiled := compile_permissions(entries):
            found[name] = compiled
    return found


def action_throttles(
    actions: Mapping[str, Action], scope: str, problems: list[Problem]
) -> dict[str, tuple[BaseThrottle, ...]]:
    found: dict[str, tuple[BaseThrottle, ...]] = {}
    for name, action in actions.items():
        where = f"{action.owner}.{action.method}, line {action.line}"
        entries = _checked(action.mark.throttle_classes, throttle_of, "throttle_classes", where, problems)
        if compiled := compile_throttles(entries, f"{scope}.{action.name}"):
            found[name] = compiled
    return found


def _checked(
    entries: Sequence[Any], convert: Callable[[Any], Any], option: str, where: str, problems: list[Problem]
) -> list[Any]:
    """What ``convert`` makes of the entries; those that it refuses are mistakes."""
    valid: list[Any] = []
    for entry in entries:
        try:
            valid.append(convert(entry))
        except Exception as error:  # The __init__ of a policy class may raise anything.
            message = str(error) or type(error).__name__
            code = f"bad-{option.replace('_', '-')}"
            problems.append(Problem(code, where, f"{option} with {entry!r}", _EXPECTED[option], message))
    return valid


_EXPECTED = {
    "permission_classes": "classes or instances of BasePermission, expressions of them, True, False or callables",
    "throttle_classes": 'rate strings such as "20/second", or classes or instances of BaseThrottle',
    "connection_throttle_classes": 'rate strings such as "20/second", or classes or instances of BaseThrottle',
    "authentication_classes": "classes or instances of BaseAuthentication",
}
_CONVERT: dict[str, Callable[[Any], Any]] = {
    "permission_classes": permission_of,
    "throttle_classes": throttle_of,
    "connection_throttle_classes": throttle_of,
    "authentication_classes": authentication_of,
}


class Attributes:
    """The option attributes of one class. What is wrong goes into ``problems``."""

    def __init__(self, mro: Sequence[type], problems: list[Problem]) -> None:
        self._mro = mro
        self._problems = problems

    def _find(self, name: str) -> tuple[Any, str]:
        """The value of the nearest class that sets it, and where that is; nothing if it is a marked method.

        A method that stands in an option's way is a mistake of its own, which is told elsewhere.
        """
        for klass in self._mro:
            if name in vars(klass):
                value = vars(klass)[name]
                if isinstance(value, FunctionType) and (hasattr(value, ACTION_MARK) or hasattr(value, EVENT_MARK)):
                    break
                return value, f"{klass.__qualname__}.{name}"
        return None, ""

    def _mistake(self, name: str, where: str, value: Any, expected: str, fix: str) -> None:
        self._problems.append(Problem(f"bad-{name.replace('_', '-')}", where, repr(value), expected, fix))

    def _list(self, name: str, expected: str) -> tuple[Sequence[Any] | None, str]:
        value, where = self._find(name)
        if value is None:
            return None, where
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            entry = value.__name__ if isinstance(value, type) else repr(value)
            self._mistake(name, where, value, f"a list of {expected}", f"write `{name} = [{entry}]`")
            return (), where
        return value, where

    def policies(self, name: str, compile_all: Callable[[Sequence[Any]], Any]) -> Any:
        entries, where = self._list(name, _EXPECTED[name])
        if entries is None:
            return None
        return compile_all(_checked(entries, _CONVERT[name], name, where, self._problems))

    def groups(self) -> tuple[GroupTemplate, ...]:
        entries, where = self._list("groups", "group names or templates")
        templates: list[GroupTemplate] = []
        for entry in entries or ():
            try:
                if not isinstance(entry, str):
                    raise ValueError("it is not text")
                templates.append(GroupTemplate.parse(entry))
            except ValueError as error:
                self._mistake(
                    "groups",
                    where,
                    entry,
                    'text with plain path parameters, such as "chat.{room}"',
                    f"mend the template: {error}",
                )
        return tuple(templates)

    def history(self) -> History | None:
        value, where = self._find("history")
        if value is not None and not isinstance(value, History):
            self._mistake("history", where, value, "a History, or None", "write `history = History(size=1000)`")
            return None
        return value

    def strings(self, name: str) -> tuple[str, ...] | None:
        entries, where = self._list(name, "texts")
        if entries is None:
            return None
        for entry in entries:
            if not isinstance(entry, str):
                self._mistake(name, where, entry, "text", "write it in quotes")
        return tuple(entry for entry in entries if isinstance(entry, str))

    def boolean(self, name: str) -> bool | None:
        value, where = self._find(name)
        if value is not None and not isinstance(value, bool):
            self._mistake(name, where, value, "True or False", f"write `{name} = True`")
            return None
        return value

    def pagination(self) -> BasePagination | None:
        value, where = self._find("pagination_class")
        return checked_pagination(value, where, self._problems)

    def presence(self) -> Presence | None:
        value, where = self._find("presence")
        if value is not None and not isinstance(value, Presence):
            fix = "write `presence = Presence(key=lambda consumer: consumer.user.id)`"
            self._mistake("presence", where, value, "an instance of fastapi_consumers.presence.Presence", fix)
            return None
        return value

    def event_models(self) -> Mapping[str, EventModel]:
        value, where = self._find("events")
        if value is None:
            return {}
        expected, fix = "a list of classes marked with @event_model, or a dict of event name to type", "write a list"
        if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str | bytes)):
            try:
                return event_models_of(value)
            except (TypeError, ValueError) as error:
                fix = str(error)
        self._mistake("events", where, value, expected, fix)
        return {}

    def dependencies(self) -> Dependencies | None:
        entries, where = self._list("dependencies", "Depends(...)")
        if not entries:
            return None
        try:
            return Dependencies.of_list(entries)
        except Exception as error:  # FastAPI raises AssertionError, FastAPIError and more for a wrong one.
            self._mistake("dependencies", where, list(entries), "Depends(...) as in a FastAPI route", str(error))
            return None

    def serializer(self, name: str, base: type[BaseModel]) -> Any:
        value, where = self._find(name)
        if value is None:
            return None
        if not (isinstance(value, type) and issubclass(value, base)):
            self._mistake(
                name, where, value, f"a class derived from {base.__name__}", f"derive it from {base.__name__}"
            )
            return None
        if base is BaseModel and "action" not in value.model_fields:
            self._mistake(name, where, value, "a model with a field `action`", "declare `action: str`")
            return None
        return value

    def exception_handlers(self) -> dict[type[Exception], Any]:
        value, where = self._find("exception_handlers")
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self._mistake("exception_handlers", where, value, "a dict of exception class to function", "write a dict")
            return {}
        for kind, handler in value.items():
            if not (isinstance(kind, type) and issubclass(kind, Exception) and callable(handler)):
                self._mistake(
                    "exception_handlers", where, {kind: handler}, "exception classes as keys, functions as values",
                    "write `{MyError: handler}`",
                )  # fmt: skip
        return dict(value)

    def limits(self) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        for name in LIMIT_NAMES:
            value, where = self._find(name)
            if where and value is not None:
                expected = limit_mistake(name, value)
                if expected is not None:
                    self._mistake(name, where, value, expected, f"mend `{name}`")
                limits[name] = value.total_seconds() if isinstance(value, timedelta) else value
        return limits
