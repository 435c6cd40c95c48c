"""Which language a client is answered in, and its errors in that language."""

import inspect
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, TypeGuard, TypeVar, overload

from starlette.requests import HTTPConnection

from .exceptions import ConsumerError, Problem
from .languages import accepted, best_match, canonical, widened
from .texts import LazyText, translate_text
from .translations import BUNDLED, SOURCE, Catalog, bundled_catalog, merged, user_catalogs

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=ConsumerError)


class Localization:
    """The languages of one application, and how a client says which one it wants.

    Args:
        default: for who says nothing, or nothing that there is. A canonical tag.
        languages: those to choose from, canonical; all that there are by default.
        catalogs: the user's own, the most important first: canonical tag to catalog.
        query_key: the query parameter that names a language; ``None`` for none.
        cookie_key: the same for a cookie.
    """

    def __init__(
        self,
        default: str = SOURCE,
        languages: Sequence[str] | None = None,
        catalogs: Sequence[Mapping[str, Catalog]] = (),
        *,
        query_key: str | None = None,
        cookie_key: str | None = None,
    ) -> None:
        self.default = default
        self.languages = tuple(languages) if languages is not None else available(catalogs)
        self._catalogs = catalogs
        self._query_key, self._cookie_key = query_key, cookie_key
        #: One entry per language at most; made when it is first needed.
        self._messages: dict[str, Catalog] = {}

    def messages(self, language: str) -> Catalog:
        """Everything that can be said in one of the languages."""
        found = self._messages.get(language)
        if found is None:
            tags = widened(language)
            bundled = {tag: bundled_catalog(tag) for tag in tags}
            found = self._messages[language] = merged([*self._catalogs, bundled], tags)
        return found

    def match(self, wanted: object) -> str | None:
        """The language that serves who wants this one."""
        return best_match(wanted, self.languages)

    def language_of(self, scope: Any, user: Any, own: Any = None) -> str:
        """The language of a handshake or an HTTP request.

        The first that there is of: ``own``, the query parameter, the cookie, the user's ``language``, what
        ``Accept-Language`` lists, and the default. Never raises.
        """
        connection = HTTPConnection(scope)
        for wanted in self._chosen(connection, user, own):
            if (language := self.match(wanted)) is not None:
                return language
        for wanted in accepted(",".join(connection.headers.getlist("accept-language"))):
            if wanted == "*":
                break
            if (language := self.match(wanted)) is not None:
                return language
        return self.default

    def _chosen(self, connection: HTTPConnection, user: Any, own: Any) -> Iterator[Any]:
        yield own
        if self._query_key is not None:
            yield connection.query_params.get(self._query_key)
        if self._cookie_key is not None:
            yield connection.cookies.get(self._cookie_key)
        yield _language_of_user(user)

    def told_by_http(self, connection: HTTPConnection, error: E) -> tuple[E, dict[str, str]]:
        """The error in the language of who asked by HTTP, and the headers of the answer."""
        language = self.language_of(connection.scope, connection.scope.get("user"))
        told = self.translate(error, language)
        return told, {**told.http_headers(), "content-language": language, "vary": "accept-language"}

    def translate(self, error: E, language: str) -> E:
        """The error as it is told in this language: a copy of it, if that is not the very same."""
        messages = self.messages(language)
        if not messages:
            return error

        def gettext(text: str) -> str:
            return messages.get(text, text)

        message = error.message
        if isinstance(message, str):
            message = translate_text(message, gettext)
        details = _translated_details(error.details, gettext)
        if message == error.message and details is error.details:
            return error
        # Not copy.copy(), which calls __init__: a subclass's may take anything.
        twin = type(error).__new__(type(error))
        twin.__dict__.update(error.__dict__)
        twin.args, twin.message, twin.details = error.args, message, details
        return twin


def _translated_details(details: Any, gettext: Any) -> Any:
    """The list of what is wrong with a payload, where the framework has said some of it itself."""
    if not isinstance(details, list) or not any(
        isinstance(item, dict) and isinstance(item.get("message"), LazyText) for item in details
    ):
        return details
    return [
        {**item, "message": translate_text(item["message"], gettext)}
        if isinstance(item, dict) and isinstance(item.get("message"), LazyText)
        else item
        for item in details
    ]


def _language_of_user(user: Any) -> Any:
    try:
        return user.get("language") if isinstance(user, Mapping) else getattr(user, "language", None)
    except Exception:  # An attribute may be a property that asks a database.
        logger.exception("the language of a user of type %s could not be read", type(user).__qualname__)
        return None


class ClientLanguage:
    """``connection.language``: a tag such as ``zh-Hans``, negotiated when it is first asked for.

    It is negotiated again when the connection becomes another user's. Setting it decides.
    """

    @overload
    def __get__(self, connection: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, connection: Any, owner: Any) -> str: ...
    def __get__(self, connection: Any, owner: Any) -> Any:
        if connection is None:
            return self
        user, known = connection.user, connection.__dict__.get("_language")
        if known is None or not (known[0] is user or known[0] is _SET):
            localization: Localization = connection.consumers.defaults.localization
            known = user, localization.language_of(connection.scope, user, _ask(connection.member.consumer))
            connection.__dict__["_language"] = known
        return known[1]

    def __set__(self, connection: Any, language: str) -> None:
        """Raises ``ValueError`` for a language that there is not."""
        localization: Localization = connection.consumers.defaults.localization
        found = localization.match(language)
        if found is None:
            raise ValueError(f"there is no language {language!r}; expected one of {', '.join(localization.languages)}")
        connection.__dict__["_language"] = _SET, found


#: In place of the user for whom a language was negotiated: it was set, and holds for whoever the connection becomes.
_SET = object()


def _ask(consumer: Any) -> Any:
    """What the consumer's ``get_language()`` says. Errors have to be told even if it fails."""
    if consumer is None:
        return None
    try:
        language = consumer.get_language()
        if inspect.iscoroutine(language):
            language.close()
            raise TypeError("get_language() is async; expected a plain method. Look the language up in connect()")
    except Exception:
        logger.exception("%s.get_language() failed", type(consumer).__qualname__)
        return None
    return language


def told_to(connection: Any, error: E) -> E:
    """The error in the language of a connection's client."""
    localization: Localization = connection.consumers.defaults.localization
    return localization.translate(error, connection.language)


def available(catalogs: Sequence[Mapping[str, Catalog]]) -> tuple[str, ...]:
    """English, the languages of the package, and those of the catalogs."""
    return tuple(dict.fromkeys([SOURCE, *BUNDLED, *(tag for catalog in catalogs for tag in catalog)]))


def localization_of(
    language: object,
    languages: object,
    translations: object,
    keys: Mapping[str, Any],
    problems: list[Problem],
) -> Localization:
    """What ``add_consumers`` was told of languages. Mistakes go into ``problems``."""

    def problem(name: str, value: object, expected: str, fix: str) -> None:
        problems.append(Problem(f"bad-{name.replace('_', '-')}", "add_consumers()", repr(value), expected, fix))

    entries = list(translations) if _is_list(translations) else []
    if not _is_list(translations):
        problem("translations", translations, "a list of paths of folders", 'write translations=["locale"]')
    # One list each: that one folder is empty is a mistake whatever the others are.
    mistakes: list[list[Problem]] = [[] for _ in entries]
    catalogs = [user_catalogs(entry, found) for entry, found in zip(entries, mistakes, strict=True)]
    problems.extend(mistake for found in mistakes for mistake in found)
    known = available(catalogs)
    expected = f"one of {', '.join(known)}"
    chosen: list[str] | None = None
    if languages is not None:
        chosen = []
        if not _is_list(languages) or not languages:
            problem("languages", languages, "a list of languages", 'write languages=["en", "de"]')
        for entry in languages if _is_list(languages) else ():
            tag = canonical(entry)
            if tag in known:
                chosen.append(tag)
            else:
                problem("languages", entry, expected, "mend the tag, or add a catalog with translations=[…]")
    default = canonical(language)
    if default not in known or (chosen and default not in chosen):
        expected = f"one of {', '.join(chosen or known)}"
        problem("language", language, expected, "mend the tag, or add a catalog with translations=[…]")
    for name, key in keys.items():
        if key is not None and not (isinstance(key, str) and key):
            problem(name, key, "a name, or None", f'write {name}="lang"')
    if problems or default is None:
        return Localization()
    return Localization(
        default,
        chosen,
        catalogs,
        query_key=keys["language_query_key"],
        cookie_key=keys["language_cookie_key"],
    )


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | os.PathLike)
