"""What a client asks to recover, read from the query of its handshake. Nothing in there refuses the handshake."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from starlette.datastructures import QueryParams

from .messages import Position

#: ``recover=<epoch>:<offset>``, or ``recover.<group>=…`` for one of several groups.
PARAMETER = "recover"
_POSITION = re.compile(r"([A-Za-z0-9_-]{1,64}):([0-9]{1,16})")


def recoveries_of(scope: Mapping[str, Any], groups: Sequence[str]) -> dict[str, Position | None]:
    """The groups that a handshake's query asks to recover, with the position, ``None`` if that cannot be read.

    Args:
        groups: those that are joined at connect. The parameter without a group is for the only one of them.
    """
    asked: dict[str, Position | None] = {}
    query = scope.get("query_string") or b""
    if b"recover" in query:
        params = QueryParams(query)
        for group in groups:
            value = params.get(f"{PARAMETER}.{group}")
            if value is None and len(groups) == 1:
                value = params.get(PARAMETER)
            if value is not None:
                asked[group] = read_position(value)
    return asked


def read_position(text: str) -> Position | None:
    """``"<epoch>:<offset>"``, or ``None`` if it is malformed."""
    found = _POSITION.fullmatch(text)
    return Position(found[1], int(found[2])) if found is not None else None


def is_position(value: Any) -> bool:
    """Whether this is a position, of whatever stream."""
    if not isinstance(value, Position):
        return False
    epoch, offset = cast(tuple[Any, Any], value)
    return isinstance(epoch, str) and isinstance(offset, int) and not isinstance(offset, bool)
