"""Text of strangers, made fit for a terminal, and styled pieces of text."""

import json
from collections.abc import Sequence
from typing import Any

import click

#: A kind of text, and the text. The kinds are the keys of ``STYLES``.
Piece = tuple[str, str]

#: How each kind is shown where there are colours: the options of ``click.style``.
STYLES: dict[str, dict[str, Any]] = {
    "": {},
    "dim": {"fg": "bright_black"},
    "sent": {"fg": "bright_black"},
    "name": {"bold": True},
    "ok": {"fg": "green"},
    "event": {"fg": "cyan"},
    "notice": {"fg": "yellow"},
    "error": {"fg": "red"},
}


def visible(text: str) -> str:
    """``text`` with what cannot be seen written out: what a server sends must not steer the terminal.

    >>> visible("a" + chr(27) + "[2J" + chr(0x202E) + "é")
    'a\\\\x1b[2J\\\\u202eé'
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def compact(value: Any) -> str:
    """``value`` as JSON on one line, fit for a terminal."""
    return visible(json.dumps(value, ensure_ascii=False))


def styled(pieces: Sequence[Piece], color: bool) -> str:
    """The pieces as one text, with the terminal's colours if there are to be any."""
    if not color:
        return "".join(text for _, text in pieces)
    return "".join(click.style(text, **STYLES[kind]) if kind else text for kind, text in pieces)
