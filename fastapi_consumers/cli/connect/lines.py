"""What people type, as frames: ``say text=hi`` is ``{"action": "say", "request_id": 1, "data": {"text": "hi"}}``."""

import json
import re
from typing import Any

#: An action, as it may be typed without quotes.
_WORD = re.compile(r"\S+")
_FIELD = re.compile(r"([^\s=\"{\[]+)=")
_DECODER = json.JSONDecoder()

SYNTAX = """\
  ACTION                      call an action
  ACTION name=value …         with fields: values are JSON, or text up to the next space
  ACTION JSON                 with any data: say {"text": "hi there"}
  {"action": …}               send this frame as it is"""


class LineError(ValueError):
    """A line that cannot be meant. Its text says what is expected."""


def frame_of(line: str, request_id: int) -> str:
    """The frame that a line means; one that it calls an action with gets this id. Raises ``LineError``."""
    line = line.strip()
    if line.startswith(("{", "[", '"')):
        return line
    match = _WORD.match(line)
    if match is None:
        raise LineError("Expected an action.")
    request: dict[str, Any] = {"action": match[0], "request_id": request_id}
    if rest := line[match.end() :].strip():
        request["data"] = _fields_of(rest) if _FIELD.match(rest) else _value_of(rest)
    return json.dumps(request, ensure_ascii=False)


def _value_of(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        raise LineError(
            f"Expected JSON or name=value after the action; found {text[:60]!r}. "
            'Text with spaces stands in quotes: text="hi there".'
        ) from None


def _fields_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    position = 0
    while position < len(text):
        match = _FIELD.match(text, position)
        if match is None:
            raise LineError(
                f'Expected name=value; found {text[position:][:60]!r}. Text with spaces stands in quotes: "hi there".'
            )
        value, position = _read_value(text, match.end())
        found[match[1]] = value
        while position < len(text) and text[position].isspace():
            position += 1
    return found


def _read_value(text: str, start: int) -> tuple[Any, int]:
    """The value that begins here, and where it ends: JSON if it is any, the text up to the next space if not."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        if text[start : start + 1] in ('"', "{", "["):
            raise LineError(f"This is not closed, or no JSON: {text[start:][:60]}") from None
    else:
        is_number = isinstance(value, float) and (value != value or value in (float("inf"), float("-inf")))
        if (end == len(text) or text[end].isspace()) and not is_number:
            return value, end
    match = _WORD.match(text, start)
    return (match[0], match.end()) if match else ("", start)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
