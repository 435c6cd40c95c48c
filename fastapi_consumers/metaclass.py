"""The metaclass of consumers. It finds what a class declares, hands it to pure functions, and attaches the result.

What else is done with a class stands beside it as functions: a method of a metaclass would be shadowed by a user's
action of the same name.
"""

import inspect
import sys
from abc import ABCMeta
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

from .actions import Action
from .collecting import HANDLER_NAMES, REGISTERED_ACTIONS, REGISTERED_HANDLERS, collect
from .exceptions import ImproperlyConfigured, Problem
from .marked_methods import Declared, Locals
from .marks import ACTION_MARK, EVENT_MARK, ActionMark
from .options import ConsumerOptions
from .scheduled_methods import schedule_mark_of
from .signatures import line_of


class _Body(dict[str, Any]):
    """The namespace of a class body, which notices a second marked method under one name."""

    def __init__(self) -> None:
        super().__init__()
        self.duplicates: list[tuple[str, int, int]] = []

    def __setitem__(self, name: str, value: Any) -> None:
        former = self.get(name)
        if former is not value and _is_marked(former) and _is_marked(value):
            self.duplicates.append((name, line_of(former), line_of(value)))
        super().__setitem__(name, value)


def _is_marked(value: Any) -> bool:
    if schedule_mark_of(value) is not None:
        return True
    return inspect.isfunction(value) and (hasattr(value, ACTION_MARK) or hasattr(value, EVENT_MARK))


class ConsumerMeta(ABCMeta):
    """Gathers actions, events, policies and limits of a consumer class into one frozen ``_meta``.

    Raises ``ImproperlyConfigured`` with all mistakes of the class at once. Annotations that name something not defined
    yet are tried again by :func:`resolve` when the class is routed or first used.
    """

    _meta: ConsumerOptions
    #: The functions that the class statement stands in, kept only while an annotation waits for a name.
    _locals: tuple[Locals, ...]

    @classmethod
    def __prepare__(mcs, name: str, bases: tuple[type, ...], /, **kwargs: Any) -> _Body:
        return _Body()

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, abstract: bool = False, **kwargs: Any
    ) -> "ConsumerMeta":
        cls = super().__new__(mcs, name, bases, dict(namespace), **kwargs)
        frame = _caller()
        around = _around(frame)
        options = _gather(
            cls,
            abstract=abstract,
            file=frame.f_code.co_filename if frame is not None else "",
            line=frame.f_lineno if frame is not None else 0,
            locals=around,
            duplicates=tuple(namespace.duplicates) if isinstance(namespace, _Body) else (),
        )
        _attach(cls, options, around)
        return cls


def _gather(cls: ConsumerMeta, **found: Any) -> ConsumerOptions:
    mro = tuple(cls.__mro__)
    own = tuple(klass for klass in mro if klass is not object and not vars(klass).get("_is_framework_class", False))
    options, problems = collect(Declared(cls, mro, own, **found))
    if problems:
        raise ImproperlyConfigured(_subject(options), problems)
    return options


def _gather_again(cls: ConsumerMeta, around: tuple[Locals, ...], compiled: tuple[Action, ...] = ()) -> ConsumerOptions:
    former = cls._meta
    place = {"abstract": former.abstract, "file": former.file, "line": former.line}
    return _gather(cls, **place, locals=around, compiled=compiled)


def _attach(cls: ConsumerMeta, options: ConsumerOptions, around: tuple[Locals, ...]) -> None:
    cls._meta = options
    cls._locals = (*around, *vars(cls).get("_locals", ())) if options.unresolved else ()


def resolve(cls: Any) -> ConsumerOptions:
    """``_meta`` with every annotation resolved. Raises ``ImproperlyConfigured`` for one that still cannot be."""
    options: ConsumerOptions = cls._meta
    if not options.unresolved:
        return options
    options = _gather_again(cls, _around(_caller()))
    if options.unresolved:
        raise ImproperlyConfigured(
            _subject(options),
            [
                Problem(
                    "annotation-unresolved",
                    where,
                    message,
                    "a name that exists when the class is first used",
                    "import it in the module, not under `if TYPE_CHECKING`, or define it before",
                )
                for where, message in options.unresolved
            ],
        )
    _attach(cls, options, ())
    return options


def register_action(cls: Any, function: Callable[..., Any], mark: ActionMark) -> None:
    """Add a function as an action, here and in all subclasses that exist.

    Raises ``ImproperlyConfigured`` if it does not fit one of them; then all of them are what they were.
    """
    _register(cls, REGISTERED_ACTIONS, (*vars(cls).get(REGISTERED_ACTIONS, ()), (function, mark)))


def register_handler(cls: Any, name: str, function: Callable[..., Any]) -> None:
    """Add a function to those called on ``"join"`` or ``"leave"``, here and in all subclasses that exist."""
    if name not in HANDLER_NAMES:
        raise ValueError(f"on_event takes one of {', '.join(map(repr, HANDLER_NAMES))}; found {name!r}")
    if not callable(function):
        raise TypeError(f"a handler is a function of (consumer, group); found {function!r}")
    registered = vars(cls).get(REGISTERED_HANDLERS, {})
    _register(cls, REGISTERED_HANDLERS, {**registered, name: (*registered.get(name, ()), function)})


def _register(cls: ConsumerMeta, attribute: str, value: Any) -> None:
    former = vars(cls).get(attribute)
    setattr(cls, attribute, value)
    around = _around(_caller())
    gathered: list[tuple[ConsumerMeta, ConsumerOptions]] = []
    try:
        for klass in _family(cls):
            # The first is the class itself: those below share the action that was made for it.
            compiled = tuple(gathered[0][1].actions.values()) if gathered else ()
            gathered.append((klass, _gather_again(klass, around, compiled)))
    except Exception:
        if former is None:
            delattr(cls, attribute)
        else:
            setattr(cls, attribute, former)
        raise
    for klass, options in gathered:
        _attach(klass, options, around)


def _family(cls: ConsumerMeta) -> list[ConsumerMeta]:
    """The class and all classes below it, each once."""
    family = [cls]
    for klass in family:
        children: list[Any] = type.__subclasses__(cast(Any, klass))
        # A class whose creation failed lives on until it is collected; it has no options and needs none.
        family += [child for child in children if "_meta" in vars(child) and child not in family]
    return family


def _subject(options: ConsumerOptions) -> str:
    place = f" ({options.module}, line {options.line})" if options.line else f" ({options.module})"
    return options.name + place


def _caller() -> FrameType | None:
    """The frame outside of this package that asked, for example the one of a class statement."""
    package = __name__.partition(".")[0]
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == package:
        frame = frame.f_back
    return frame


def _around(frame: FrameType | None) -> tuple[Locals, ...]:
    """The local names in this frame, if it is in a function, and in those around it, if it is a class body."""
    names: dict[str, Any] = {}
    while frame is not None and frame.f_locals is not frame.f_globals:
        names = {**frame.f_locals, **names}
        if frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            return (Locals(str(frame.f_globals.get("__name__", "")), frame.f_code.co_qualname, names),)
        frame = frame.f_back
    return ()
