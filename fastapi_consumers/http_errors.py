"""What an HTTP exception of FastAPI's or Starlette's means to the client of a socket."""

import math
from collections.abc import Mapping
from typing import Any

from .exceptions import ConsumerError, HTTPError, InvalidData, NotAuthenticated, NotFound, PermissionDenied, Throttled


def http_error(status: int, detail: Any, headers: Mapping[str, str] | None = None) -> ConsumerError:
    """The ``ConsumerError`` that says what an ``HTTPException`` of this status and detail says."""
    message = detail if isinstance(detail, str) else None
    details = None if isinstance(detail, str) else detail
    if status == 429:
        return Throttled(_seconds(headers), message, details=details)
    if status == 401:
        return NotAuthenticated(message, details=details, challenge=_header(headers, "www-authenticate"))
    kinds: dict[int, type[PermissionDenied | NotFound | InvalidData]]
    kinds = {403: PermissionDenied, 404: NotFound, 422: InvalidData}
    if kind := kinds.get(status):
        return kind(message, details=details)
    error = HTTPError(status, message, details=details)
    error.http_retry_after = _seconds(headers)
    return error


def _header(headers: Mapping[str, str] | None, wanted: str) -> str | None:
    return next((value for name, value in (headers or {}).items() if name.lower() == wanted), None)


def _seconds(headers: Mapping[str, str] | None) -> float | None:
    try:
        seconds = float(_header(headers, "retry-after") or "nan")
    except ValueError:  # It may be a date too.
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
