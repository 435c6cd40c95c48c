"""What is shown of a conversation: lines for people, JSON Lines for programs."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from .handshake import HandshakeFailed
from .pairing import Answer
from .session import End
from .target import Target
from .text import Piece, compact, visible

#: Bytes of a binary frame that are shown to people.
SHOWN_BYTES = 32


class JSONView:
    """Frames on the standard output, one per line; what else happens on the standard error, one object per line.

    A text frame of JSON is written as it came, any other as a string, a binary one as ``{"binary": base64}``.
    """

    def opened(self, target: Target, subprotocol: str | None, again: bool) -> None:
        self.tell({"type": "opened", "url": target.shown, "subprotocol": subprotocol, "again": again})

    def received(self, frame: str | bytes, message: Mapping[str, Any] | None, answer: Answer | None) -> None:
        if isinstance(frame, bytes):
            line = json.dumps({"binary": base64.b64encode(frame).decode()})
        elif "\n" not in frame and "\r" not in frame and (message is not None or _is_json(frame)):
            line = frame
        else:
            line = json.dumps(json.loads(frame) if _is_json(frame) else frame)
        click.echo(line)

    def closed(self, end: End) -> None:
        self.tell({"type": "closed", "code": end.code, "reason": end.reason, "unanswered": end.unanswered})

    def waiting(self, seconds: float, failure: HandshakeFailed | None) -> None:
        told = {"failed": failure.as_dict()} if failure is not None else {}
        self.tell({"type": "reconnecting", "after": round(seconds, 3), **told})

    @staticmethod
    def tell(what: Mapping[str, Any]) -> None:
        click.echo(json.dumps(what), err=True)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class PeopleView:
    """One line or a few for each frame. ``write`` puts a line where people see it, ``tell`` what else happens."""

    def __init__(
        self,
        write: Callable[[Sequence[Piece]], None],
        tell: Callable[[Sequence[Piece]], None],
        *,
        raw: bool = False,
    ) -> None:
        self._write = write
        self._tell = tell
        self._raw = raw

    def opened(self, target: Target, subprotocol: str | None, again: bool) -> None:
        speaking = f", speaking {visible(subprotocol)}" if subprotocol else ""
        self._tell([("dim", f"{'connected again' if again else 'connected'} to {visible(target.shown)}{speaking}")])

    def received(self, frame: str | bytes, message: dict[str, Any] | None, answer: Answer | None) -> None:
        if isinstance(frame, bytes):
            more = "…" if len(frame) > SHOWN_BYTES else ""
            self._write([("event", f"{len(frame)} bytes "), ("", frame[:SHOWN_BYTES].hex(" ") + more)])
        elif message is None or self._raw:
            self._write([("", visible(frame))])
        else:
            for line in lines_of(message, answer):
                self._write(line)

    def closed(self, end: End) -> None:
        reason = f" {visible(end.reason)}" if end.reason else ""
        meaning = {1000: "", 1006: " (the connection was lost)", 1012: " (the server restarts)"}.get(end.code, "")
        self._tell([("notice" if end.code != 1000 else "dim", f"closed: {end.code}{reason}{meaning}")])
        if end.unanswered:
            text = f"{end.unanswered} request{'s have' if end.unanswered > 1 else ' has'} no answer"
            self._tell([("error", text + ", and may have run or not")])

    def waiting(self, seconds: float, failure: HandshakeFailed | None) -> None:
        if failure is not None:
            self._tell([("dim", failure.message)])
        self._tell([("dim", f"connecting again in {seconds:.1f} s")])


def lines_of(message: dict[str, Any], answer: Answer | None) -> list[list[Piece]]:
    """A message of the protocol, as lines. What is not known is shown as it came."""
    kind = message.get("type")
    if kind == "reply":
        return _reply(message, answer)
    if kind == "error":
        return _error(message)
    if isinstance(kind, str) and kind in _ONE_LINE:
        return [_ONE_LINE[kind](message)]
    return [[("", compact(message))]]


def _reply(message: dict[str, Any], answer: Answer | None) -> list[list[Piece]]:
    status = message.get("status")
    action = message.get("action") or (answer.action if answer is not None else "?")
    request_id = message.get("request_id")
    head: list[Piece] = []
    if request_id is not None:
        head.append(("dim", f"#{visible(str(request_id))} "))
    head.append(("name", f"{visible(str(action))} "))
    took = f" ({_duration(answer.seconds)})" if answer is not None and status != "partial" else ""
    if status == "error":
        return _error(message, head, took)
    head.append(("ok" if status == "ok" else "event", visible(str(status))))
    if (data := message.get("data")) is not None:
        head.append(("", f" {compact(data)}"))
    return [[*head, ("dim", took)]]


def _error(message: dict[str, Any], head: Sequence[Piece] = (), took: str = "") -> list[list[Piece]]:
    found = message.get("error")
    error: dict[str, Any] = found if isinstance(found, dict) else {}
    code, text = visible(str(error.get("code"))), visible(str(error.get("message", "")))
    lines: list[list[Piece]] = [[*head, ("error", f"error {code}"), ("", f": {text}"), ("dim", took)]]
    if (after := error.get("retry_after")) is not None:
        lines.append([("", f"    try again after {visible(str(after))} s")])
    details = error.get("details")
    for detail in details if isinstance(details, list) else [details] if details is not None else []:
        if isinstance(detail, dict) and isinstance(detail.get("loc"), list):
            place = ".".join(str(part) for part in detail["loc"]) or "data"
            lines.append([("", f"    {visible(place)}: {visible(str(detail.get('message')))}")])
        else:
            lines.append([("", f"    {compact(detail)}")])
    return lines


def _event(message: dict[str, Any]) -> list[Piece]:
    offset = f" @{message['offset']}" if isinstance(message.get("offset"), int) else ""
    group = f" {visible(str(message['group']))}" if message.get("group") is not None else ""
    head: list[Piece] = [("event", visible(str(message.get("event")))), ("dim", f"{group}{offset}")]
    return [*head, ("", f" {compact(message.get('data'))}")]


def _joined(message: dict[str, Any]) -> list[Piece]:
    place = f"{visible(str(message.get('epoch')))}:{visible(str(message.get('offset')))}"
    told = {True: ", recovering what was missed", False: ", what was missed cannot be recovered"}
    text = f"joined {visible(str(message.get('group')))} at {place}"
    text += told[recovered] if isinstance(recovered := message.get("recovered"), bool) else ""
    return [("notice", text + (f": {missed}" if isinstance(missed := message.get("missed"), int) else ""))]


def _gap(message: dict[str, Any]) -> list[Piece]:
    return [("notice", f"gap in {visible(str(message.get('group')))}: events may have been missed")]


def _presence(message: dict[str, Any]) -> list[Piece]:
    head = f"presence {visible(str(message.get('group')))}"
    if isinstance(message.get("count"), int):
        return [("notice", f"{head}: {message['count']}")]
    changes = [
        f"{sign}{visible(str(key))}"
        for sign, name in (("+", "joins"), ("-", "leaves"))
        if isinstance(message.get(name), dict)
        for key in message[name]
    ]
    return [("notice", f"{head}: {' '.join(changes)}")]


_ONE_LINE: dict[str, Callable[[dict[str, Any]], list[Piece]]] = {
    "event": _event,
    "joined": _joined,
    "gap": _gap,
    "presence": _presence,
}


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
