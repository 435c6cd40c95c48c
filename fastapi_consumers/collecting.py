"""From a class's own dictionaries to its ``ConsumerOptions``: pure functions that collect mistakes and raise none."""

import difflib
import inspect
from collections.abc import Callable
from types import FunctionType, MappingProxyType
from typing import Any

from pydantic import BaseModel

from .action_pagination import check_pagination, with_pagination
from .actions import Action, Unresolved, compile_action
from .attributes import OPTION_NAMES, Attributes, action_permissions, action_throttles
from .authentication import authentication_of
from .exceptions import Problem
from .marked_methods import Declared, Method, mark_of, marked_methods, where_of
from .marks import ACTION_MARK, EVENT_MARK
from .options import ConsumerOptions, EventHandler
from .permissions import compile_permissions
from .scheduled_methods import scheduled_methods
from .serializers import ResponseSerializer
from .signatures import innermost
from .throttling import compile_throttles

#: Where function-style actions and handlers are kept in a class's own dictionary.
REGISTERED_ACTIONS = "_registered_actions"
REGISTERED_HANDLERS = "_registered_handlers"

HANDLER_NAMES = ("join", "leave")

#: Hooks that are awaited, and call verbs that have to be.
COROUTINE_HOOKS = ("connect", "receive", "receive_json", "disconnect")

#: Hooks whose override changes how frames travel.
HOOKS = (
    "receive",
    "receive_json",
    "decode_json",
    "encode_json",
    "get_groups",
    "check_group_permissions",
    "get_language",
    "on_join",
    "on_leave",
    "on_overflow",
    "lifespan",
)


def collect(declared: Declared) -> tuple[ConsumerOptions, list[Problem]]:
    """The class's options and its mistakes. With mistakes the options are not to be used."""
    problems: list[Problem] = []
    unresolved: list[tuple[str, str]] = []
    cls = declared.cls
    for name, first, second in declared.duplicates:
        problems.append(
            Problem(
                "action-defined-twice",
                f"{cls.__qualname__}.{name}, line {second}",
                f"a second marked method named {name!r} in one class body; the one on line {first} is lost",
                "one method of each name",
                "rename one of them",
            )
        )
    _check_names(declared, problems)
    _check_codec(declared, problems)
    _check_hooks(declared, problems)
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
    get = Attributes(declared.mro, problems)
    # Two classes of one name in two modules do not share their counts.
    scope = f"{cls.__module__}.{cls.__qualname__}"
    if variant := vars(cls).get("_variant"):
        scope += f"~{variant}"
    options = ConsumerOptions(
        name=cls.__qualname__,
        module=cls.__module__,
        file=declared.file,
        line=declared.line,
        abstract=declared.abstract,
        actions=MappingProxyType(actions),
        events=MappingProxyType(_events(declared, problems)),
        handlers=MappingProxyType(_handlers(declared)),
        event_models=MappingProxyType(dict(get.event_models())),
        schedules=MappingProxyType(scheduled_methods(declared, problems)),
        groups=get.groups(),
        history=get.history(),
        authentications=get.policies("authentication_classes", lambda entries: tuple(map(authentication_of, entries))),
        permissions=get.policies("permission_classes", compile_permissions),
        throttles=get.policies("throttle_classes", lambda entries: compile_throttles(entries, scope)),
        connection_throttles=get.policies(
            "connection_throttle_classes", lambda entries: compile_throttles(entries, f"{scope}:connect")
        ),
        action_permissions=MappingProxyType(action_permissions(actions, problems)),
        action_throttles=MappingProxyType(action_throttles(actions, scope, problems)),
        pagination=check_pagination(actions, get.pagination(), problems),
        dependencies=get.dependencies(),
        request_serializer_class=get.serializer("request_serializer_class", BaseModel),
        response_serializer_class=get.serializer("response_serializer_class", ResponseSerializer),
        exception_handlers=MappingProxyType(get.exception_handlers()),
        allowed_origins=get.strings("allowed_origins"),
        accept_refused=get.boolean("accept_refused"),
        presence=get.presence(),
        limits=MappingProxyType(get.limits()),
        overridden=frozenset(hook for hook in HOOKS if any(hook in vars(klass) for klass in declared.own)),
        unresolved=tuple(unresolved),
    )
    if options.presence is not None and not hasattr(cls, "get_presence"):
        fix = "derive the class from GroupConsumer"
        problems.append(
            Problem("presence-out-of-reach", cls.__qualname__, "presence on it", "presence on a GroupConsumer", fix)
        )
    return options, problems


# -- actions -----------------------------------------------------------------------------------------------------------


def _actions(declared: Declared, problems: list[Problem], unresolved: list[tuple[str, str]]) -> dict[str, Action]:
    compiled = _compiled(declared)
    actions: dict[str, Action] = {}
    for wire, method in _by_wire_name(declared, problems).items():
        owner = method.owner.__qualname__
        key = (id(method.function), id(method.mark), method.name, owner)
        action = compiled.get(key)
        if action is None:
            where = where_of(method.owner, method.name, method.function)
            try:
                action = compile_action(
                    method.function,
                    method.mark,
                    method=method.name,
                    owner=owner,
                    where=where,
                    localns=_names(declared, method),
                    problems=problems,
                )
                if action is not None:
                    action = with_pagination(action, where, problems)
            except Unresolved as error:
                unresolved.append((where, str(error)))
        if action is not None:
            actions[wire] = action
    return actions


def _compiled(declared: Declared) -> dict[tuple[int, int, str, str], Action]:
    """The actions of the classes of the MRO that are finished: an inherited one is the same object everywhere."""
    finished = [options for klass in declared.mro if isinstance(options := vars(klass).get("_meta"), ConsumerOptions)]
    actions = [action for options in finished for action in options.actions.values()]
    return {
        (id(action.function), id(action.mark), action.method, action.owner): action
        for action in [*actions, *declared.compiled]
    }


def _names(declared: Declared, method: Method) -> dict[str, Any]:
    """The names that a function's annotations may use besides those of its module."""
    # Functions and properties are left out: after a method named `list` the type is still meant.
    names = {
        name: value
        for name, value in vars(method.owner).items()
        if not (value is None or inspect.isroutine(value) or isinstance(value, property))
    }
    found: dict[str, Any] = {}
    for around in (*declared.locals, *(vars(method.owner).get("_locals") or ())):
        found |= around.of(method.function)
    return {**found, **names}


def _by_wire_name(declared: Declared, problems: list[Problem]) -> dict[str, Method]:
    """Wire name to method or registered function, bases first; nearer classes replace what is registered."""
    methods = marked_methods(declared, ACTION_MARK, "@action", problems)
    chosen: dict[str, Method] = {}
    for klass in reversed(declared.mro):
        own = [method for method in methods.values() if method.owner is klass]
        own += [
            Method(klass, getattr(function, "__name__", type(function).__name__), function, mark, True)
            for function, mark in vars(klass).get(REGISTERED_ACTIONS, ())
        ]
        removed = {name for name, value in vars(klass).items() if value is None}
        for wire in [wire for wire, method in chosen.items() if method.is_registered and method.name in removed]:
            del chosen[wire]
        for method in own:
            wire = method.mark.name or method.name
            other = chosen.pop(wire, None)
            if other is None or (other.owner is not klass and (other.is_registered or method.is_registered)):
                chosen[wire] = method
                continue
            chosen[wire] = other
            problems.append(
                Problem(
                    "action-name-taken",
                    where_of(klass, method.name, method.function),
                    f"the wire name {wire!r}, which {where_of(other.owner, other.name, other.function)} has too",
                    "one action per wire name",
                    f"give one of them another name, or set `{other.name} = None` to remove an inherited one",
                )
            )
    return chosen


# -- events and handlers -----------------------------------------------------------------------------------------------


def _events(declared: Declared, problems: list[Problem]) -> dict[str, str]:
    events: dict[str, str] = {}
    for name, method in marked_methods(declared, EVENT_MARK, "@event", problems).items():
        where = where_of(method.owner, name, method.function)
        if mark_of(method.function, ACTION_MARK) is not None:
            problems.append(
                Problem(
                    "action-and-event",
                    where,
                    "@action and @event on one method",
                    "a method that either clients or the channel layer may call",
                    "write two methods",
                )
            )
        elif method.mark in events:
            problems.append(
                Problem(
                    "event-type-taken",
                    where,
                    f"the message type {method.mark!r}, which {events[method.mark]}() handles too",
                    "one method per message type",
                    "give one of them another type",
                )
            )
        events[method.mark] = name
    return events


def _handlers(declared: Declared) -> dict[str, tuple[EventHandler, ...]]:
    handlers: dict[str, tuple[EventHandler, ...]] = {}
    for klass in reversed(declared.mro):
        registered: dict[str, tuple[Callable[..., Any], ...]] = vars(klass).get(REGISTERED_HANDLERS, {})
        for name, functions in registered.items():
            handlers[name] = (*handlers.get(name, ()), *functions)
    return handlers


# -- misspelt options --------------------------------------------------------------------------------------------------


def _check_names(declared: Declared, problems: list[Problem]) -> None:
    """An attribute that looks like a misspelt option would be ignored in silence, and with it a policy or a limit."""
    for klass in declared.own:
        for name, value in vars(klass).items():
            if name in OPTION_NAMES or name.startswith("_") or callable(value):
                continue
            looks_like_one = name.startswith("max_") or name.endswith(("_classes", "_class", "_origins", "_timeout"))
            near = difflib.get_close_matches(name, OPTION_NAMES, n=1, cutoff=0.85 if looks_like_one else 0.9)
            if near and (looks_like_one or len(name) > 8):
                problems.append(
                    Problem(
                        "unknown-option",
                        f"{klass.__qualname__}.{name}",
                        f"the attribute {name!r}, which no consumer has",
                        "an option, or a name that cannot be taken for one",
                        f"did you mean {near[0]!r}?",
                    )
                )


def _check_codec(declared: Declared, problems: list[Problem]) -> None:
    """An event is encoded once for all members, when there is no instance to ask."""
    for klass in declared.own:
        for name in ("decode_json", "encode_json"):
            value = vars(klass).get(name)
            if value is not None and not isinstance(value, classmethod | staticmethod):
                problems.append(
                    Problem(
                        "codec-not-classmethod",
                        where_of(klass, name, value),
                        f"{name}() as a method of an instance",
                        "a class method, as in JSONConsumer: what is encoded once is sent to many",
                        f"write @classmethod above it, and `cls` as its first parameter: `def {name}(cls, …)`",
                    )
                )


def _check_hooks(declared: Declared, problems: list[Problem]) -> None:
    """A plain function, as in Channels' synchronous consumers, could not await what it calls.

    One that says what it returns, a lambda and a wrapper of a coroutine function may return something to await.
    """
    for klass in declared.own:
        for name in COROUTINE_HOOKS:
            value = vars(klass).get(name)
            if not isinstance(value, FunctionType) or value.__name__ == "<lambda>":
                continue
            if mark_of(value, ACTION_MARK) is not None or mark_of(value, EVENT_MARK) is not None:
                continue  # A mistake of its own.
            returns_nothing = value.__annotations__.get("return") in (None, "None")
            if returns_nothing and not inspect.iscoroutinefunction(innermost(value)):
                problems.append(
                    Problem(
                        "hook-not-async",
                        where_of(klass, name, value),
                        f"{name}() as a plain function",
                        "a coroutine function: it is awaited, and so are the verbs that it calls",
                        f"write `async def {name}`, and `await` before self.accept(), self.send_json() and the like",
                    )
                )
