"""Exceptions, and lines of the server, as a log may have them: without what a client sent.

The text of a validation error holds the values that it is about. A log gets the same traceback, and what was wrong with
which field, but not the values.

A server logs what was asked for with its query. Where tokens may be in queries, its lines get ``***`` in their place.
"""

import logging
import re
from typing import Any

from fastapi.exceptions import ValidationException
from pydantic import ValidationError

#: Loggers of servers that may name a query. A filter of a logger sees what is logged by this very one only.
SERVER_LOGGERS = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi", "hypercorn.error", "hypercorn.access")

#: Errors that are named; characters of a field's name.
MAX_ERRORS, MAX_NAME = 20, 64


def without_input(error: BaseException) -> BaseException:
    """The error itself; or its likeness, where a validation error is among its causes and what it was raised during.

    Meant for ``exc_info``. The likeness has the name, the traceback and the notes of the error, and is of no other use.
    """
    return _likeness(error, {}) if any(map(_is_validation, _family(error))) else error


def _is_validation(error: BaseException) -> bool:
    return isinstance(error, ValidationError | ValidationException)


def _family(error: BaseException) -> list[BaseException]:
    found: dict[int, BaseException] = {}
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is not None and id(each) not in found:
            found[id(each)] = each
            todo += [each.__cause__, each.__context__]
            todo += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return list(found.values())


def _likeness(error: BaseException, made: dict[int, BaseException]) -> BaseException:
    if id(error) in made:
        return made[id(error)]
    kind: type[BaseException] = type(error)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    if isinstance(error, BaseExceptionGroup):
        parts = [_likeness(part, made) for part in error.exceptions]
        told: BaseException = type(kind.__name__, (BaseExceptionGroup,), names)(error.message, parts)
    else:
        told = type(kind.__name__, (Exception,), names)(_text(error))
    made[id(error)] = told
    told.__traceback__ = error.__traceback__
    if error.__cause__ is not None:
        told.__cause__ = _likeness(error.__cause__, made)
    if error.__context__ is not None:
        told.__context__ = _likeness(error.__context__, made)
    told.__suppress_context__ = error.__suppress_context__
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told


def _text(error: BaseException) -> str:
    if _is_validation(error):
        return _summary(error)
    text = str(error)
    for each in _family(error):
        # Such as `raise LookupError(str(error)) from error`.
        if _is_validation(each) and str(each) in text:
            text = text.replace(str(each), _summary(each))
    return text


def _summary(error: Any) -> str:
    options = {"include_url": False, "include_context": False, "include_input": False}
    found: Any = error.errors(**options) if isinstance(error, ValidationError) else error.errors()
    lines = [f"{_where(each)}: {each.get('msg', '')} [{each.get('type', '')}]" for each in found[:MAX_ERRORS]]
    many = "s" if len(found) != 1 else ""
    return "\n".join([f"{len(found)} validation error{many} for {getattr(error, 'title', 'a request')}", *lines])


def _where(error: dict[str, Any]) -> str:
    *names, last = error.get("loc") or ("",)
    if error.get("type") == "extra_forbidden":
        last = "…"  # The client thought of it.
    return ".".join(str(name)[:MAX_NAME] for name in (*names, last))


class QueryRedaction(logging.Filter):
    """Puts ``***`` in the place of one query parameter's value in the lines of servers, at all levels.

    Each application has one of its own: several do not disturb each other.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        # A client may write any character of the name in percent-encoding, and it is read as the same name.
        name = "".join(f"(?:{re.escape(each)}|{_encoded(each)})" for each in key)
        # Values end where the query or the line's word does. What has been cut before is left with the quote behind it.
        self._pattern = re.compile(rf"""(?<![^\s?&='"])({name})=(?!\*\*\*(?:[\s&'"]|$))[^\s&]*""", re.ASCII)

    def __repr__(self) -> str:
        return f"QueryRedaction({self._pattern.pattern!r})"

    def install(self) -> None:
        """Begin. It does no harm to call it twice."""
        for name in SERVER_LOGGERS:
            logging.getLogger(name).addFilter(self)

    def remove(self) -> None:
        """End, if it has begun."""
        for name in SERVER_LOGGERS:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Always lets the record pass."""
        if isinstance(record.args, tuple):
            # One by one: the formatter of uvicorn's access log goes by their places.
            record.args = tuple(self._told(each) if isinstance(each, str) else each for each in record.args)
        try:
            message = record.getMessage()
        except Exception:
            return True  # The handler says that the arguments do not fit.
        if (told := self._told(message)) != message:
            record.msg, record.args = told, None
        return True

    def _told(self, text: str) -> str:
        return self._pattern.sub(r"\1=***", text)


def _encoded(character: str) -> str:
    """What else may stand for a character in a query: a pattern."""
    escapes = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    return rf"(?i:{escapes})" if character != " " else rf"(?i:{escapes})|\+"
