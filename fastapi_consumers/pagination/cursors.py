"""Cursors: a place between two results, as opaque, URL-safe text that the client sends back.

A cursor is JSON in base64url (RFC 4648, section 5) without padding: the version of this format, the direction, the
mark of what it belongs to, and the key of the result beside it, or null for the very beginning or end. It is not
signed. It may say only what the client may ask for anyway, "what comes after this key", and its values are validated
by their types before they become bound parameters of a query.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from pydantic import AllowInfNan, ConfigDict, Field, TypeAdapter, ValidationError

from ..exceptions import InvalidCursor

#: Longest cursor, in characters. Longer ones are not made, and not looked at.
MAX_CURSOR = 2048

_VERSION = "1"
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_Integer = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]  # what databases can compare with
_FIELDS: dict[type, Any] = {int: _Integer, float: Annotated[float, AllowInfNan(False)]}
_PLAIN = (bool, str, bytes, datetime, date, time, timedelta, Decimal, UUID)


class Cursor(NamedTuple):
    """A place in a listing: just after ``key``, or just before it if ``backward``.

    Without a key it is the beginning, or the end if ``backward``. ``mark`` names what the place is in: another listing
    or another order has another mark.
    """

    backward: bool
    mark: str
    key: tuple[Any, ...] | None


def can_be_key(kind: type) -> bool:
    """Whether values of this type can stand in a cursor."""
    return kind in _FIELDS or kind in _PLAIN or issubclass(kind, Enum)


@lru_cache(maxsize=256)
def _adapter(types: tuple[type, ...]) -> TypeAdapter[tuple[str, str, str, tuple[Any, ...] | None]]:
    fields = tuple(_FIELDS.get(kind, kind) for kind in types)
    key: Any = tuple.__class_getitem__(fields)
    shape: Any = tuple[Literal[_VERSION], Literal["after", "before"], str, key | None]  # type: ignore[valid-type]  # made at run time
    return TypeAdapter(shape, config=ConfigDict(strict=True, ser_json_bytes="base64", val_json_bytes="base64"))


def encode_cursor(cursor: Cursor, types: Sequence[type]) -> str:
    """The cursor as text.

    Raises:
        TypeError: a value of the key is not of its type.
        ValueError: the text would be longer than ``MAX_CURSOR``.
    """
    content = (_VERSION, "before" if cursor.backward else "after", cursor.mark, cursor.key)
    adapter = _adapter(tuple(types))
    try:
        raw = adapter.dump_json(adapter.validate_python(content))
    except ValidationError:
        kinds = ", ".join(kind.__name__ for kind in types)
        raise TypeError(
            f"A result's place in the order is {cursor.key!r}; expected values of the types ({kinds}), none of them "
            "None. Order by columns that are never null."
        ) from None
    text = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    if len(text) > MAX_CURSOR:
        raise ValueError(
            f"A cursor of {len(text)} characters is needed; at most {MAX_CURSOR} are allowed. Order by shorter values."
        )
    return text


def decode_cursor(text: str, types: Sequence[type]) -> Cursor:
    """The cursor that this text is. Raises ``InvalidCursor``, whatever is wrong with it."""
    if len(text) > MAX_CURSOR or not _BASE64URL.fullmatch(text):
        raise InvalidCursor
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        _, direction, mark, key = _adapter(tuple(types)).validate_json(raw)
    except (binascii.Error, ValidationError):
        raise InvalidCursor from None
    return Cursor(direction == "before", mark, key)
