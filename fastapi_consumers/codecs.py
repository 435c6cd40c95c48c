"""Bytes and text to values and back: JSON and MessagePack.

JSON is pydantic-core's. Coming in, NaN and Infinity are refused and so is a number too large for a float; going out
they become ``null``. MessagePack carries the same values, and ``bytes`` besides.
"""

import math
from typing import Any

from pydantic_core import from_json, to_json, to_jsonable_python

from .exceptions import InvalidFrame
from .types import JSON


def encode_json(value: Any) -> bytes:
    """Any value that pydantic can serialise, as JSON. Raises ``PydanticSerializationError`` for one that it cannot."""
    return to_json(value, inf_nan_mode="null", by_alias=True)


def decode_json(text: str | bytes) -> Any:
    """Raises ``InvalidFrame`` for what is not JSON, nested over 200 levels, or holds a number that is not finite."""
    try:
        value = from_json(text, allow_inf_nan=False)
    except (ValueError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidFrame(f"The frame is not valid JSON: {_short(error)}") from None
    if _has_infinity(value):
        raise InvalidFrame("The frame is not valid JSON: a number is too large.")
    return value


def _has_infinity(value: Any) -> bool:
    """A literal such as 1e999 overflows to infinity without being spelt so."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float):
            if math.isinf(item):
                return True
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
    return False


def _short(error: BaseException) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "it holds half of a surrogate pair."
    return str(error)[:200].rstrip(".") + "."


def encode_msgpack(value: Any) -> bytes:
    """``value`` as MessagePack. Everything that is not a MessagePack type becomes what it would be in JSON."""
    return _ormsgpack().packb(plain(value), option=_ormsgpack().OPT_NON_STR_KEYS)  # type: ignore[no-any-return]


def decode_msgpack(data: bytes) -> Any:
    """Raises ``InvalidFrame`` for what is not MessagePack or has keys that are not text."""
    try:
        value = _ormsgpack().unpackb(data)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidFrame(f"The frame is not valid MessagePack: {_short(error)}") from None
    if _has_not_finite(value):
        raise InvalidFrame("The frame is not valid MessagePack: a number is not finite.")
    return value


def _has_not_finite(value: Any) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return True
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
    return False


def plain(value: Any) -> Any:
    """``value`` made of dict, list, str, int, finite float, bool, None and bytes only."""
    if value is None or isinstance(value, str | bool | bytes):
        return value if type(value) in (type(None), str, bool, bytes) else to_jsonable_python(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        # MessagePack has 64 bits; a larger number goes as the text that JSON would show.
        return int(value) if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return plain(to_jsonable_python(value, by_alias=True, inf_nan_mode="null"))


def has_bytes(value: Any) -> bool:
    """Whether ``value`` holds bytes anywhere, that is, cannot go through JSON."""
    if isinstance(value, bytes):
        return True
    if isinstance(value, dict):
        return any(has_bytes(item) for item in value.values())
    return isinstance(value, list) and any(has_bytes(item) for item in value)


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
    "decode_json",
    "decode_msgpack",
    "encode_json",
    "encode_msgpack",
    "has_bytes",
    "msgpack_available",
    "plain",
]
