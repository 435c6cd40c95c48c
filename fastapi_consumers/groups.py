"""Names of groups: what is a valid one, and templates that make them from a path's parameters."""

import re
from collections.abc import Mapping
from functools import lru_cache
from string import Formatter
from typing import Any, NamedTuple
from urllib.parse import quote

from .exceptions import InvalidGroup
from .texts import gettext_lazy as _

#: Longest name of a group, in characters.
MAX_GROUP_NAME = 255
#: What an encoded value is made of. Where it stands between two parameters, nobody can say where the first one ends.
_ENCODED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_%")

#: Longest value from a path that goes into a group's name, in characters once it is percent-encoded.
MAX_GROUP_VALUE = 128
#: Values that stand for themselves.
_PLAIN = re.compile(rf"[A-Za-z0-9_-]{{0,{MAX_GROUP_VALUE}}}")


def check_group(name: Any) -> str:
    """``name`` if it can be a group's name, that is 1 to 255 printable characters. Raises ``InvalidGroup``."""
    if isinstance(name, str) and 0 < len(name) <= MAX_GROUP_NAME and name.isprintable():
        return name
    if not isinstance(name, str):
        found = _("a value of type {type}", type=type(name).__name__)
    elif not name:
        found = _("an empty name")
    elif len(name) > MAX_GROUP_NAME:
        found = _("{count} characters", count=len(name))
    else:
        found = _("a character that is not printable")
    raise InvalidGroup(
        _(
            "A group's name is text of 1 to {maximum} printable characters; found {found}.",
            maximum=MAX_GROUP_NAME,
            found=found,
        )
    )


def encode_value(value: Any) -> str:
    """A path's value as it stands in a group's name: ASCII letters, digits, ``-`` and ``_``, the rest percent-encoded.

    The dot is encoded too, so that a value cannot reach another level of the template. Raises ``InvalidGroup`` for a
    value that is too long.
    """
    text = str(value)
    if _PLAIN.fullmatch(text) is not None:  # As most are, and taken apart for nothing.
        return text
    encoded = quote(text, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    if len(encoded) > MAX_GROUP_VALUE:
        raise InvalidGroup(
            _(
                "A value in a group's name has at most {maximum} characters once encoded; found {count}.",
                maximum=MAX_GROUP_VALUE,
                count=len(encoded),
            )
        )
    return encoded


class GroupTemplate(NamedTuple):
    """A template such as ``"chat.{room}"``, taken apart: ``pieces`` are (literal text, parameter or ``None``)."""

    text: str
    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> "GroupTemplate":
        """Raises ``ValueError`` for what is not a template of plain names, each apart from the next."""
        pieces: list[tuple[str, str | None]] = []
        for literal, field, spec, conversion in Formatter().parse(text):
            if field is not None and (not field.isidentifier() or spec or conversion):
                raise ValueError(f"{{{field}}} is not the plain name of a path parameter")
            if pieces and pieces[-1][1] is not None and field is not None and _ENCODED.issuperset(literal):
                raise ValueError(
                    f"nothing tells where {{{pieces[-1][1]}}} ends and {{{field}}} begins: separate them by a dot"
                )
            pieces.append((literal, field))
        if not pieces:
            raise ValueError("the template is empty")
        literals = "".join(literal for literal, _ in pieces)
        if len(literals) > MAX_GROUP_NAME or not literals.isprintable():
            raise ValueError(f"a group's name has at most {MAX_GROUP_NAME} characters, all of them printable")
        return cls(text, tuple(pieces))

    @property
    def parameters(self) -> frozenset[str]:
        return frozenset(field for _, field in self.pieces if field is not None)

    @property
    def pattern(self) -> re.Pattern[str]:
        """What the names of its groups match."""
        parts = [re.escape(literal) + ("" if field is None else "[A-Za-z0-9_%-]*") for literal, field in self.pieces]
        return re.compile("".join(parts))

    def format(self, path_params: Mapping[str, Any]) -> str:
        """The group's name for these parameters. Raises ``InvalidGroup`` if one is missing or too long."""
        name = ""
        for literal, field in self.pieces:
            name += literal
            if field is not None:
                if field not in path_params:
                    raise InvalidGroup(
                        _(
                            "The group {group} needs the path parameter {parameter}.",
                            group=repr(self.text),
                            parameter=repr(field),
                        )
                    )
                name += encode_value(path_params[field])
        return check_group(name)


@lru_cache(maxsize=256)
def _parsed(template: str) -> GroupTemplate:
    return GroupTemplate.parse(template)


def group_name(template: str, /, **values: Any) -> str:
    """The group that a consumer with this template joins for these values: ``group_name("inbox.{user}", user=7)``.

    For whoever publishes from elsewhere. Values are encoded as those of a path are: ASCII letters, digits, ``-`` and
    ``_`` stay, the rest becomes ``%20`` and the like, so that no value reaches into another group.

    Raises ``ValueError`` for what is no template, ``TypeError`` for values that the template does not name, or lacks,
    or that are ``None``, and ``InvalidGroup`` for one that is too long.
    """
    parsed = _parsed(template)
    given = {name for name, value in values.items() if value is not None}
    if given != parsed.parameters or given != values.keys():
        expected = ", ".join(sorted(parsed.parameters)) or "no values"
        found = ", ".join(f"{name}=None" if value is None else name for name, value in values.items()) or "none"
        raise TypeError(f"the template {template!r} takes {expected}; found {found}")
    return parsed.format(values)
