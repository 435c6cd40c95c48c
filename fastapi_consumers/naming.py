"""How policies and stores are called in what people read: listings, the admin API, the command line.

Without secrets. Our own have no password in their ``repr``, and of what somebody else wrote only the name is told,
since what its ``repr`` holds is not known.
"""

import re
from collections.abc import Iterable
from typing import Any

from .permissions import BasePermission

PACKAGE = __name__.partition(".")[0]
_NAME = re.compile(r"[\w.<>]+")


def names_of(things: Iterable[Any]) -> list[str]:
    return [name_of(thing) for thing in things]


def name_of(thing: Any) -> str:
    """Our own things as they describe themselves, those of others by the name of their class."""
    kind = type(thing)
    operands = getattr(thing, "operands", None)
    if isinstance(operands, tuple) and _is_ours(kind.__module__):
        names = names_of(operands)
        return f"~{names[0]}" if len(names) == 1 else f"({getattr(thing, '_sign', ', ').join(names)})"
    if not _is_ours(getattr(kind.__repr__, "__module__", None)):
        return kind.__qualname__
    if isinstance(thing, BasePermission) and not _NAME.fullmatch(repr(thing)):
        return "a callable"  # Such as a partial, whose text holds its arguments.
    return repr(thing)


def _is_ours(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == PACKAGE
