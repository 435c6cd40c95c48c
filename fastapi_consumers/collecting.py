"""From a class's own dictionaries to its ``ConsumerOptions``: pure functions that collect mistakes and raise none."""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel

from .actions import Action, Unresolved, compile_action
from .authentication import authentication_of
from .dependencies import Dependencies
from .exceptions import Problem
from .groups import GroupTemplate
from .marks import ACTION_MARK, EVENT_MARK, ActionMark
from .options import LIMIT_NAMES, ConsumerOptions, EventHandler, limit_mistake
from .permissions import BasePermission, compile_permissions, permission_of
from .serializers import ResponseSerializer
from .throttling import BaseThrottle, compile_throttles, throttle_of

#: Where function-style actions and handlers are kept in a class's own dictionary.
REGISTERED_ACTIONS = "_registered_actions"
REGISTERED_HANDLERS = "_registered_handlers"

HANDLER_NAMES = ("join", "leave")

#: Hooks whose override changes how frames travel.
HOOKS = ("receive", "receive_json", "decode_json", "encode_json", "get_groups", "on_join", "on_leave", "lifespan")

_POLICY_LISTS = ("authentication_classes", "permission_classes", "throttle_classes", "connection_throttle_classes")
_OPTIONS = (
    *_POLICY_LISTS,
    *LIMIT_NAMES,
    "groups",
    "dependencies",
    "request_serializer_class",
    "response_serializer_class",
    "exception_handlers",
    "allowed_origins",
    "accept_refused",
)


class Declared(NamedTuple):
    """A class, as the metaclass found it. ``own`` says which classes of the MRO are not the framework's."""

    cls: type
    mro: tuple[type, ...]
    own: tuple[type, ...]
    abstract: bool
    localns: dict[str, Any]
    #: Names that one class body defined twice as actions.
    duplicates: tuple[str, ...]


def collect(declared: Declared) -> tuple[ConsumerOptions, list[Problem]]:
    """The class's options and its mistakes. With mistakes the options are not to be used."""
    problems: list[Problem] = []
    unresolved: list[tuple[str, str]] = []
    cls = declared.cls
    for name in declared.duplicates:
        problems.append(
            Problem(
                "action-defined-twice",
                f"{cls.__qualname__}.{name}",
                f"two actions named {name!r} in one class body, of which the first is lost",
                "one action of each name",
                "rename one of them",
            )
        )
    _check_names(declared, problems)
    actions = _actions(declared, problems, unresolved)
    if actions and not getattr(cls, "_has_actions", True):
        problems.append(
            Problem(
                "actions-out-of-reach",
                cls.__qualname__,
                f"the actions {', '.join(map(repr, actions))} on a consumer whose frames are not requests",
                "actions on a JSONConsumer or a GroupConsumer",
                "derive the class from one of these",
            )
        )
    file, line = _place(cls)
    get = _Attributes(declared, problems)
    # Two classes of one name in two modules do not share their counts.
    scope = f"{cls.__module__}.{cls.__qualname__}"
    options = ConsumerOptions(
        name=cls.__qualname__,
        module=cls.__module__,
        file=file,
        line=line,
        abstract=declared.abstract,
        actions=MappingProxyType(actions),
        events=MappingProxyType(_events(declared, problems)),
        handlers=MappingProxyType(_handlers(declared)),
        groups=get.groups(),
        authentications=get.policies("authentication_classes", lambda entries: tuple(map(authentication_of, entries))),
        permissions=get.policies("permission_classes", _permissions),
        throttles=get.policies("throttle_classes", lambda entries: compile_throttles(entries, scope)),
        connection_throttles=get.policies(
            "connection_throttle_classes", lambda entries: compile_throttles(entries, f"{scope}:connect")
        ),
        action_permissions=MappingProxyType(_action_permissions(actions, problems)),
        action_throttles=MappingProxyType(_action_throttles(actions, scope, problems)),
        dependencies=get.dependencies(),
        request_serializer_class=get.serializer("request_serializer_class", BaseModel),
        response_serializer_class=get.serializer("response_serializer_class", ResponseSerializer),
        exception_handlers=MappingProxyType(get.exception_handlers()),
        allowed_origins=get.strings("allowed_origins"),
        accept_refused=get.boolean("accept_refused"),
        limits=MappingProxyType(get.limits()),
        overridden=frozenset(hook for hook in HOOKS if any(hook in vars(klass) for klass in declared.own)),
        unresolved=tuple(unresolved),
    )
    return options, problems


def _place(cls: type) -> tuple[str, int]:
    try:
        return inspect.getsourcefile(cls) or "", inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return "", 0


def _where(owner: type, name: str, function: Any = None) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    line = f", line {code.co_firstlineno}" if code is not None else ""
    return f"{owner.__qualname__}.{name}{line}"


def _marked(declared: Declared, mark: str) -> Iterator[tuple[type, str, Any]]:
    """Class, name and value of all that stands in the MRO, bases first, under a name that bears this mark anywhere."""
    for klass in reversed(declared.mro):
        for name, value in vars(klass).items():
            yield klass, name, value


def _inner(value: Any) -> Any:
    """The function in a staticmethod, classmethod or property."""
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    return value.fget if isinstance(value, property) else None


def _actions(declared: Declared, problems: list[Problem], unresolved: list[tuple[str, str]]) -> dict[str, Action]:
    found: dict[str, tuple[type, Any, ActionMark]] = {}
    reserved = _reserved(declared)
    for klass, name, value in _marked(declared, ACTION_MARK):
        mark = getattr(value, ACTION_MARK, None) if inspect.isroutine(value) or callable(value) else None
        inner = _inner(value)
        if inner is not None and hasattr(inner, ACTION_MARK):
            problems.append(_wrong_order(klass, name, inner, value, "@action"))
        elif isinstance(mark, ActionMark) and not isinstance(value, type):
            if name in reserved:
                problems.append(_shadowing(klass, name, value, mark))
            else:
                found.pop(name, None)
                found[name] = (klass, value, mark)
        elif name in found:
            if value is None:
                del found[name]
            elif callable(value):
                problems.append(_unmarked_override(klass, name, value, found[name][0], "@action"))
    functions: dict[str, tuple[type, Any, ActionMark]] = {}
    for klass in reversed(declared.mro):
        for wire, (function, mark) in vars(klass).get(REGISTERED_ACTIONS, {}).items():
            functions[wire] = (klass, function, mark)

    actions: dict[str, Action] = {}
    for name, (klass, function, mark) in [*found.items(), *functions.items()]:
        where = _where(klass, getattr(function, "__name__", name), function)
        try:
            action = compile_action(
                function,
                mark,
                method=getattr(function, "__name__", name) if name in functions else name,
                owner=klass.__qualname__,
                where=where,
                localns={**declared.localns, **dict(vars(klass))},
                problems=problems,
            )
        except Unresolved as error:
            unresolved.append((where, str(error)))
            continue
        if action is None:
            continue
        if (other := actions.get(action.name)) is not None:
            problems.append(
                Problem(
                    "action-name-taken",
                    where,
                    f"the wire name {action.name!r}, which {other.owner}.{other.method} (line {other.line}) has too",
                    "one action per wire name",
                    f"give one of them another name, or set `{other.method} = None` to remove the other",
                )
            )
            continue
        actions[action.name] = action
    return actions


def _reserved(declared: Declared) -> frozenset[str]:
    """The names that the framework's own classes give a meaning to."""
    return frozenset(
        name
        for klass in declared.mro
        if klass not in declared.own and klass is not object
        for name in [*vars(klass), *vars(klass).get("__annotations__", {})]
    )


def _shadowing(klass: type, name: str, function: Any, mark: ActionMark) -> Problem:
    wire = mark.name or name
    return Problem(
        "action-shadows-attribute",
        _where(klass, name, function),
        f"an action whose method is named {name!r}, which every consumer has with another meaning",
        "a method name of its own; the wire name may be anything",
        f'write `@action("{wire}")` on a method with another name, for example `{name}_action`',
    )


def _wrong_order(klass: type, name: str, inner: Any, value: Any, decorator: str) -> Problem:
    wrapper = type(value).__name__
    return Problem(
        "decorator-order",
        _where(klass, name, inner),
        f"{decorator} together with @{wrapper}",
        "a plain method: it is called with the consumer",
        f"remove @{wrapper}, and take self as the first parameter",
    )


def _unmarked_override(klass: type, name: str, value: Any, base: type, decorator: str) -> Problem:
    return Problem(
        "override-without-mark",
        _where(klass, name, value),
        f"a method that overrides the one that {base.__qualname__} marked with {decorator}, without a mark of its own",
        f"{decorator} on the override, so that what clients can reach is always written down",
        f"put {decorator} on it, or set `{name} = None` and use another name",
    )


def _events(declared: Declared, problems: list[Problem]) -> dict[str, str]:
    found: dict[str, tuple[type, Any, str]] = {}
    reserved = _reserved(declared)
    for klass, name, value in _marked(declared, EVENT_MARK):
        inner = _inner(value)
        if inner is not None and hasattr(inner, EVENT_MARK):
            problems.append(_wrong_order(klass, name, inner, value, "@event"))
            continue
        mark = getattr(value, EVENT_MARK, None) if inspect.isfunction(value) else None
        if isinstance(mark, str):
            if name in reserved:
                problems.append(
                    Problem(
                        "event-shadows-attribute",
                        _where(klass, name, value),
                        f"an event method named {name!r}, which every consumer has with another meaning",
                        "a method name of its own",
                        f'write `@event("{mark}")` on a method with another name',
                    )
                )
            elif hasattr(value, ACTION_MARK):
                problems.append(
                    Problem(
                        "action-and-event",
                        _where(klass, name, value),
                        "@action and @event on one method",
                        "a method that either clients or the channel layer may call",
                        "write two methods",
                    )
                )
            else:
                found[name] = (klass, value, mark)
        elif name in found:
            if value is None:
                del found[name]
            elif callable(value):
                problems.append(_unmarked_override(klass, name, value, found[name][0], "@event"))
    events: dict[str, str] = {}
    for name, (klass, value, mark) in found.items():
        if mark in events:
            problems.append(
                Problem(
                    "event-type-taken",
                    _where(klass, name, value),
                    f"the message type {mark!r}, which {events[mark]}() handles too",
                    "one method per message type",
                    "give one of them another type",
                )
            )
        events[mark] = name
    return events


def _handlers(declared: Declared) -> dict[str, tuple[EventHandler, ...]]:
    handlers: dict[str, tuple[EventHandler, ...]] = {}
    for klass in reversed(declared.mro):
        for name, functions in vars(klass).get(REGISTERED_HANDLERS, {}).items():
            handlers[name] = (*handlers.get(name, ()), *functions)
    return handlers


def _check_names(declared: Declared, problems: list[Problem]) -> None:
    """An attribute that looks like a misspelt option would be ignored in silence, and with it a policy."""
    for klass in declared.own:
        for name in vars(klass):
            if name in _OPTIONS or name.startswith("_") or not name.endswith(("_classes", "_class", "_origins")):
                continue
            near = difflib.get_close_matches(name, _OPTIONS, n=1, cutoff=0.85)
            if near:
                problems.append(
                    Problem(
                        "unknown-option",
                        f"{klass.__qualname__}.{name}",
                        f"the attribute {name!r}, which no consumer has",
                        f"one of {', '.join(repr(option) for option in _POLICY_LISTS)} or another option",
                        f"did you mean {near[0]!r}?",
                    )
                )


def _permissions(entries: Sequence[Any]) -> tuple[BasePermission, ...]:
    return compile_permissions(entries)


def _action_permissions(
    actions: Mapping[str, Action], problems: list[Problem]
) -> dict[str, tuple[BasePermission, ...]]:
    found: dict[str, tuple[BasePermission, ...]] = {}
    for name, action in actions.items():
        where = f"{action.owner}.{action.method}, line {action.line}"
        entries = _checked(action.mark.permission_classes, permission_of, "permission_classes", where, problems)
        if compiled := compile_permissions(entries):
            found[name] = compiled
    return found


def _action_throttles(
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
    """The entries that ``convert`` takes; the others are mistakes."""
    valid: list[Any] = []
    for entry in entries:
        try:
            convert(entry)
        except (TypeError, ValueError) as error:
            problems.append(_bad_policy(option, where, entry, error))
        else:
            valid.append(entry)
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


def _bad_policy(option: str, where: str, entry: Any, error: Exception) -> Problem:
    return Problem(f"bad-{option.replace('_', '-')}", where, f"{option} with {entry!r}", _EXPECTED[option], str(error))


class _Attributes:
    """The option attributes of one class, read from its MRO's dictionaries and checked."""

    def __init__(self, declared: Declared, problems: list[Problem]) -> None:
        self._declared = declared
        self._problems = problems

    def _find(self, name: str) -> tuple[Any, str]:
        """The value of the nearest class that sets it, and where that is; ``None`` if only the framework does."""
        for klass in self._declared.mro:
            if name in vars(klass):
                return vars(klass)[name], f"{klass.__qualname__}.{name}"
        return None, ""

    def _mistake(self, name: str, where: str, value: Any, expected: str, fix: str) -> None:
        self._problems.append(Problem(f"bad-{name.replace('_', '-')}", where, repr(value), expected, fix))

    def _list(self, name: str, expected: str) -> tuple[Sequence[Any] | None, str]:
        value, where = self._find(name)
        if value is None:
            return None, where
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            self._mistake(name, where, value, f"a list of {expected}", f"write `{name} = [{value!r}]`")
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
                limits[name] = value
        return limits
