"""The marked methods of a class: where they stand in its MRO's own dictionaries, and which of them stand wrongly.

A mark is found on functions only, and as with any attribute, the nearest class that has a name decides.
"""

from typing import Any, NamedTuple

from .actions import Action
from .exceptions import Problem
from .marks import ACTION_MARK, EVENT_MARK, ActionMark
from .signatures import line_of


class Locals(NamedTuple):
    """The local names of a function. Annotations written as text may name them, and nothing else remembers them."""

    module: str
    qualname: str
    names: dict[str, Any]

    def of(self, function: Any) -> dict[str, Any]:
        """Those that ``function`` may use, which are none if it was not written inside."""
        is_inside = str(getattr(function, "__qualname__", "")).startswith(f"{self.qualname}.<locals>.")
        return self.names if is_inside and getattr(function, "__module__", None) == self.module else {}


class Declared(NamedTuple):
    """A class, as the metaclass found it."""

    cls: type
    mro: tuple[type, ...]
    #: The classes of the MRO that are not the framework's.
    own: tuple[type, ...]
    abstract: bool = False
    file: str = ""
    line: int = 0
    #: The functions that the class statement, and what was said about the class later, stand in.
    locals: tuple[Locals, ...] = ()
    #: What one class body defined twice: name, and the lines of both.
    duplicates: tuple[tuple[str, int, int], ...] = ()
    #: Actions besides those of the MRO that are compiled already.
    compiled: tuple[Action, ...] = ()


class Method(NamedTuple):
    """A marked function, and where it was found."""

    owner: type
    name: str
    function: Any
    mark: Any
    #: Whether it was registered and is no attribute of the class.
    is_registered: bool = False


def where_of(owner: type, name: str, function: Any = None) -> str:
    line = line_of(function)
    return f"{owner.__qualname__}.{name}" + (f", line {line}" if line else "")


def marked_methods(declared: Declared, attribute: str, decorator: str, problems: list[Problem]) -> dict[str, Method]:
    """The methods that bear a mark, bases first. As with any attribute, the nearest class that has a name decides."""
    holders: dict[str, list[tuple[type, Any]]] = {}
    for klass in declared.mro:
        for name, value in vars(klass).items():
            holders.setdefault(name, []).append((klass, value))
    framework = [klass for klass in declared.mro if klass not in declared.own]
    found: dict[str, Method] = {}
    for klass in reversed(declared.mro):
        for name, value in vars(klass).items():
            nearest = holders[name][0][0]
            if klass is not nearest and not (nearest in framework and klass in declared.own):
                continue
            mark = mark_of(value, attribute)
            inner = inner_of(value)
            if inner is not None and mark_of(inner, attribute) is not None:
                problems.append(_wrong_order(klass, name, inner, value, decorator))
            elif mark is not None and any(declares(base, name) for base in framework):
                problems.append(_shadowing(klass, name, value, mark, decorator))
            elif mark is not None:
                found[name] = Method(klass, name, value, mark)
            elif value is not None and klass is nearest and klass in declared.own:
                base = next((base for base, other in holders[name][1:] if mark_of(other, attribute) is not None), None)
                if base is not None and mark_of(value, ACTION_MARK) is mark_of(value, EVENT_MARK) is None:
                    problems.append(_unmarked_override(klass, name, value, base, decorator))
    return found


def mark_of(value: Any, attribute: str) -> Any:
    """The mark on a function; ``None`` for anything else, also for objects that have every attribute."""
    if not callable(value) or isinstance(value, type | staticmethod | classmethod):
        return None
    mark = getattr(value, attribute, None)
    return mark if isinstance(mark, ActionMark if attribute == ACTION_MARK else str) else None


def inner_of(value: Any) -> Any:
    """The function in a staticmethod, classmethod or property."""
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    return value.fget if isinstance(value, property) else None


def declares(klass: type, name: str) -> bool:
    return klass is not object and (name in vars(klass) or name in vars(klass).get("__annotations__", {}))


def _shadowing(klass: type, name: str, function: Any, mark: Any, decorator: str) -> Problem:
    kind = decorator.removeprefix("@")
    wire = (mark.name if isinstance(mark, ActionMark) else mark) or name
    return Problem(
        f"{kind}-shadows-attribute",
        where_of(klass, name, function),
        f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} whose method is named {name!r}, which means something else on "
        "a consumer",
        "a method name of its own; the name that others call it by may be anything",
        f'write `{decorator}("{wire}")` on a method with another name, for example `{name}_{kind}`',
    )


def _wrong_order(klass: type, name: str, inner: Any, value: Any, decorator: str) -> Problem:
    wrapper = type(value).__name__
    return Problem(
        "decorator-order",
        where_of(klass, name, inner),
        f"{decorator} together with @{wrapper}",
        "a plain method: it is called with the consumer",
        f"remove @{wrapper}, and take self as the first parameter",
    )


def _unmarked_override(klass: type, name: str, value: Any, base: type, decorator: str) -> Problem:
    return Problem(
        "override-without-mark",
        where_of(klass, name, value),
        f"something that overrides the method that {base.__qualname__} marked with {decorator}, without a mark",
        f"{decorator} on the override, so that what can be reached from outside is always written down",
        f"put {decorator} on it, or set `{name} = None` and use another name",
    )
