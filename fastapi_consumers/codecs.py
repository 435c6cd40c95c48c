"""Bytes and text to values and back: JSON and MessagePack.

JSON is pydantic-core's. Coming in, NaN and Infinity are refused and so is a number too large for a float; going out
they become ``null``. MessagePack carries the same values, and ``bytes`` besides.
"""

import dataclasses
import math
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json, to_json, to_jsonable_python

from .exceptions import InvalidFrame
from .texts import gettext_lazy as _
from .types import JSON

#: How deep a frame's lists and objects may be nested. It is what pydantic-core's JSON parser takes.
MAX_DEPTH = 200


class EncodedJSON(bytes):
    """JSON text that has been made already, where otherwise a value would be encoded."""


def encode_json(value: Any) -> bytes:
    """Any value that pydantic can serialise, as JSON. Raises ``PydanticSerializationError`` for one that it cannot."""
    return to_json(value, inf_nan_mode="null", by_alias=True)


def decode_json(text: str | bytes) -> Any:
    """Raises ``InvalidFrame`` for what is not JSON, nested over 200 levels, or holds a number that is not finite."""
    try:
        value = from_json(text, allow_inf_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidFrame(_("The frame is not valid JSON: {reason}", reason=_short(error))) from None
    # A literal such as 1e999 overflows to infinity without being spelt so.
    if find_not_finite(value) is not None:
        raise InvalidFrame(_("The frame is not valid JSON: a number is too large."))
    return value


def find_not_finite(value: Any) -> tuple[int | str, ...] | None:
    """Where in ``value`` a number is infinite or not a number; ``None`` if all are finite. It looks into models too."""
    # Nearly always there is nothing to find, and then no place has to be kept.
    return None if _is_finite(value) else _place_of_not_finite(value)


def _is_finite(value: Any) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is str or kind is int or item is None:
            continue
        if isinstance(item, float):
            if not math.isfinite(item):
                return False
        elif isinstance(item, dict):
            stack.extend(item.values())
            stack.extend(key for key in item if isinstance(key, float))
        elif isinstance(item, list | tuple | set | frozenset):
            stack.extend(item)
        elif isinstance(item, BaseModel):
            stack.extend(item.__dict__.values())
            stack.append(item.__pydantic_extra__)
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            stack.extend([getattr(item, field.name, None) for field in dataclasses.fields(item)])
    return True


def _place_of_not_finite(value: Any) -> tuple[int | str, ...] | None:
    stack: list[tuple[tuple[int | str, ...], Any]] = [((), value)]
    while stack:
        place, item = stack.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return place
        elif isinstance(item, dict):
            stack += [((*place, str(key)), inner) for key, inner in item.items()]
            stack += [((*place, str(key)), key) for key in item if isinstance(key, float)]
        elif isinstance(item, list | tuple | set | frozenset):
            stack += [((*place, index), inner) for index, inner in enumerate(item)]
        elif isinstance(item, BaseModel):
            stack.append((place, item.__dict__))
            stack.append((place, item.__pydantic_extra__))
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            stack += [((*place, field.name), getattr(item, field.name, None)) for field in dataclasses.fields(item)]
    return None


def _short(error: BaseException) -> str:
    # Text that cannot be made UTF-8: pydantic-core sees no text in it at all.
    if isinstance(error, UnicodeEncodeError | TypeError):
        return _("it holds half of a surrogate pair.")
    return str(error)[:200].rstrip(".") + "."


def encode_msgpack(value: Any) -> bytes:
    """``value`` as MessagePack. Everything that is not a MessagePack type becomes what it would be in JSON."""
    return _ormsgpack().packb(plain(value), option=_ormsgpack().OPT_NON_STR_KEYS)  # type: ignore[no-any-return]  # an optional package, imported late


def decode_msgpack(data: bytes) -> Any:
    """Raises ``InvalidFrame`` for what is not MessagePack, has keys that are not text, or what JSON may not hold."""
    value = unpack_msgpack(data)
    level: list[Any] = [value]
    for _level in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            # It was made by the decoder just now: nothing is of another class than these.
            kind = type(item)
            if kind is dict:
                below += item.values()
            elif kind is list:
                below += item
            elif kind is float and not math.isfinite(item):
                raise InvalidFrame(_("The frame is not valid MessagePack: a number is not finite."))
        if not below:
            return value
        level = below
    # What walks over values recurses: nothing deeper than JSON goes further than here.
    raise InvalidFrame(_("The frame is not valid MessagePack: it is nested over {maximum} levels.", maximum=MAX_DEPTH))


def unpack_msgpack(data: bytes) -> Any:
    """Whatever is in there, also what :func:`decode_msgpack` refuses. Raises ``InvalidFrame`` if it cannot be read."""
    try:
        return _ormsgpack().unpackb(data)
    except (ValueError, TypeError, RecursionError) as error:
        reason = str(error)[:200].rstrip(".") + "."
        raise InvalidFrame(_("The frame is not valid MessagePack: {reason}", reason=reason)) from None


def plain(value: Any) -> Any:
    """``value`` made of dict, list, str, int, finite float, bool, None and bytes only."""
    # What nearly all values are, first.
    kind = type(value)
    if kind is str or value is None or kind is bool or kind is bytes:
        return value
    if isinstance(value, dict):
        return {key if type(key) is str else _plain_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, str | bytes):
        return to_jsonable_python(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        # MessagePack has 64 bits; a larger number goes as the text that JSON would show.
        return int(value) if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return plain(to_jsonable_python(value, by_alias=True, inf_nan_mode="null"))


def _plain_key(key: Any) -> str:
    """A key as it would be in JSON."""
    name: str = next(iter(to_jsonable_python({key: None}, inf_nan_mode="null")))
    return name


def has_bytes(value: Any) -> bool:
    """Whether ``value`` holds bytes anywhere, that is, cannot go through JSON."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, bytes):
            return True
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False


def msgpack_available() -> bool:
    """Whether the extra ``msgpack`` is installed."""
    try:
        _ormsgpack()
    except ImportError:
        return False
    return True


def _ormsgpack() -> Any:
    # Imported late: MessagePack is an extra, and who does not use it need not have it.
    import ormsgpack

    return ormsgpack


__all__ = [
    "JSON",
    "EncodedJSON",
    "decode_json",
    "decode_msgpack",
    "encode_json",
    "encode_msgpack",
    "has_bytes",
    "msgpack_available",
    "plain",
    "unpack_msgpack",
]
