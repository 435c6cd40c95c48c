"""The metaclass of consumers. It finds what a class declares, hands it to pure functions, and attaches the result."""

import sys
from abc import ABCMeta
from types import FrameType, MappingProxyType
from typing import Any, cast

from .collecting import Declared, collect
from .exceptions import ImproperlyConfigured, Problem
from .marks import ACTION_MARK
from .options import ConsumerOptions


class _Body(dict[str, Any]):
    """The namespace of a class body, which notices a second action under one name."""

    def __init__(self) -> None:
        super().__init__()
        self.duplicates: list[str] = []

    def __setitem__(self, name: str, value: Any) -> None:
        if hasattr(self.get(name), ACTION_MARK) and hasattr(value, ACTION_MARK):
            self.duplicates.append(name)
        super().__setitem__(name, value)


class ConsumerMeta(ABCMeta):
    """Gathers actions, events, policies and limits of a consumer class into one frozen ``_meta``.

    Raises ``ImproperlyConfigured`` with all mistakes of the class at once. Annotations that name something not defined
    yet are tried again by :meth:`resolve` when the class is routed or first used.
    """

    _meta: ConsumerOptions
    #: The names around the class statement, kept only while an annotation waits for one of them.
    _localns: MappingProxyType[str, Any] | None

    @classmethod
    def __prepare__(mcs, name: str, bases: tuple[type, ...], /, **kwargs: Any) -> _Body:
        return _Body()

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, abstract: bool = False, **kwargs: Any
    ) -> "ConsumerMeta":
        cls = super().__new__(mcs, name, bases, dict(namespace), **kwargs)
        duplicates = tuple(namespace.duplicates) if isinstance(namespace, _Body) else ()
        localns = _caller_locals()
        cls._attach(abstract, localns, duplicates)
        return cls

    def _attach(cls, abstract: bool, localns: dict[str, Any], duplicates: tuple[str, ...] = ()) -> None:
        mro = tuple(cls.__mro__)
        own = tuple(
            klass for klass in mro if klass is not object and not klass.__dict__.get("_is_framework_class", False)
        )
        options, problems = collect(Declared(cls, mro, own, abstract, localns, duplicates))
        if problems:
            raise ImproperlyConfigured(_subject(options), problems)
        cls._meta = options
        cls._localns = MappingProxyType(localns) if options.unresolved else None

    def resolve(cls) -> ConsumerOptions:
        """``_meta`` with every annotation resolved. Raises ``ImproperlyConfigured`` for one that still cannot be."""
        if cls._meta.unresolved:
            cls._attach(cls._meta.abstract, dict(cls._localns or {}))
            if cls._meta.unresolved:
                raise ImproperlyConfigured(
                    _subject(cls._meta),
                    [
                        Problem(
                            "annotation-unresolved",
                            where,
                            message,
                            "a name that exists when the class is first used",
                            "import it in the module, not under `if TYPE_CHECKING`, or define it before",
                        )
                        for where, message in cls._meta.unresolved
                    ],
                )
        return cls._meta

    def refresh(cls) -> None:
        """Gather anew, here and in all subclasses, after something was registered on the class.

        Raises ``ImproperlyConfigured``; then some of the classes may have been refreshed already.
        """
        cls._attach(cls._meta.abstract, dict(cls._localns or {}))
        children: Any = type.__subclasses__(cast(Any, cls))
        for child in children:
            child.refresh()


def _subject(options: ConsumerOptions) -> str:
    place = f" ({options.module}, line {options.line})" if options.line else f" ({options.module})"
    return options.name + place


def _caller_locals() -> dict[str, Any]:
    """The local names where the class statement stands, if that is inside a function.

    Annotations written as text may name them, and nothing else remembers them; pydantic looks there too.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    if frame is None or frame.f_locals is frame.f_globals:
        return {}
    return dict(frame.f_locals)
