"""Catalogs of translated messages: those that the package brings along, and those of users.

They are the ``.mo`` files of gettext, in folders as gettext has them: ``de/LC_MESSAGES/messages.mo``. How the package's
own are made is said in ``docs/translations.md``.
"""

import functools
import gettext
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Formatter
from typing import IO, Any

from .exceptions import Problem
from .languages import canonical
from .texts import LazyText, gettext_lazy

__all__ = ["LazyText", "Translations", "gettext_lazy"]

#: The language that messages are written in.
SOURCE = "en"
#: The package's own catalogs: canonical tag to folder.
BUNDLED = {"de": "de", "es": "es", "fr": "fr", "ja": "ja", "zh-Hans": "zh_Hans", "zh-Hant": "zh_Hant"}
#: The domain of the package's own catalogs; of a user's it is ``messages``, as Babel has it, unless said otherwise.
DOMAIN = "fastapi_consumers"

#: English message to its translation.
Catalog = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Translations:
    """Where an application keeps catalogs of its own, for ``add_consumers(translations=[…])``.

    Args:
        path: the folder in which ``<language>/LC_MESSAGES/<domain>.mo`` are.
        domain: the name of the files, without ``.mo``.
    """

    path: str | os.PathLike[str]
    domain: str = "messages"


@functools.cache
def bundled_catalog(tag: str) -> Catalog:
    """The package's own catalog of a canonical tag; an empty one if there is none."""
    if tag not in BUNDLED:
        return {}
    with files(__package__).joinpath("locale", BUNDLED[tag], "LC_MESSAGES", f"{DOMAIN}.mo").open("rb") as file:
        return _read(file)


def user_catalogs(entry: object, problems: list[Problem]) -> dict[str, Catalog]:
    """Canonical tag to catalog, of one entry of ``translations``. What is wrong with it goes into ``problems``."""
    translations = Translations(entry) if isinstance(entry, str | os.PathLike) else entry
    if not isinstance(translations, Translations) or not isinstance(translations.path, str | os.PathLike):
        fix = 'write translations=["locale"]'
        problems.append(_problem(repr(entry), "the path of a folder, or a Translations", fix))
        return {}
    folder, domain = os.fspath(translations.path), translations.domain
    expected = f"a folder with <language>/LC_MESSAGES/{domain}.mo"
    if not os.path.isdir(folder):
        problems.append(_problem(f"{folder!r}, which is no folder", expected, "mend the path"))
        return {}
    found: dict[str, Catalog] = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name, "LC_MESSAGES", f"{domain}.mo")
        if not os.path.isfile(path):
            continue
        tag = canonical(name)
        if tag is None or tag in found:
            what = "is no language" if tag is None else f"is {tag} once more"
            problems.append(_problem(f"{path!r}, whose folder {what}", expected, "rename the folder, as in pt_BR"))
            continue
        found[tag] = _checked(path, problems)
    if not found and not problems:
        fix = "compile the catalogs, or name their domain: Translations(path, domain=…)"
        problems.append(_problem(f"{folder!r} without such a file", expected, fix))
    return found


def _checked(path: str, problems: list[Problem]) -> Catalog:
    try:
        with open(path, "rb") as file:
            catalog = _read(file)
    except Exception as error:  # A damaged file makes gettext raise anything: OSError, struct.error, UnicodeError …
        fix = f"compile it again; it says: {str(error) or type(error).__name__}"
        problems.append(_problem(repr(path), "a compiled catalog of gettext", fix))
        return {}
    for message, translation in catalog.items():
        if not placeholders_fit(message, translation):
            expected = f"no other placeholders than those of {message!r}"
            problems.append(_problem(f"{translation!r} in {path!r}", expected, "mend the translation"))
    return catalog


def _read(file: IO[bytes]) -> Catalog:
    # The one thing of a catalog that gettext keeps to itself; it has been there, and a dict, in all versions of Python.
    entries: dict[Any, str] = vars(gettext.GNUTranslations(file))["_catalog"]
    return {message: text for message, text in entries.items() if isinstance(message, str) and message and text}


def placeholders_fit(message: str, translation: str) -> bool:
    """Whether the translation can be filled with the values of the message.

    It need not use all of them. A placeholder is a plain name: no attribute, index, conversion or format.
    """
    try:
        wanted = {name for name, _ in _placeholders(message)}
    except ValueError:
        return True  # It is no template, so nothing is put into it.
    if not wanted:
        return True
    try:
        return all(plain and name in wanted for name, plain in _placeholders(translation))
    except ValueError:
        return False


def _placeholders(template: str) -> Iterator[tuple[str, bool]]:
    """Every placeholder, and whether it is a plain one. Raises ``ValueError`` for what is no template."""
    for _, name, form, conversion in Formatter().parse(template):
        if name is not None:
            yield name, name.isidentifier() and not form and not conversion


def _problem(found: str, expected: str, fix: str) -> Problem:
    return Problem("bad-translations", "add_consumers()", found, expected, fix)


def merged(catalogs: Sequence[Mapping[str, Catalog]], tags: Sequence[str]) -> Catalog:
    """One catalog of many: the nearer tag counts more, then the earlier source."""
    messages: dict[str, str] = {}
    for tag in reversed(tags):
        for source in reversed(catalogs):
            messages.update(source.get(tag, {}))
    return messages
