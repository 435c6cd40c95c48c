"""Tokens: where a client can put one, and what is done with it. What makes a token good is a subclass's to say."""

import base64
import json
import traceback
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import quote, quote_plus

from starlette.datastructures import Headers

from ..exceptions import ConsumerError
from ..stepping import settled
from .base import BaseAuthentication, known_pair
from .credentials import invalid

Source = Literal["header", "subprotocol", "query", "cookie"]

#: A subprotocol of this name means nothing. Who speaks no other offers it, so that there is one to choose: a browser
#: ends a handshake in which the server chooses none of those that it offered.
BEARER_SUBPROTOCOL = "bearer"
#: Before a token in the list of offered subprotocols: one whose characters a subprotocol may have, and any other,
#: encoded in base64url without padding (RFC 4648, section 5).
PLAIN_PREFIX, ENCODED_PREFIX = "bearer.", "bearer64."


class TokenKeys(NamedTuple):
    """The names of the query parameter and of the cookie that hold a token; ``None`` where neither may."""

    query: str | None = None
    cookie: str | None = None


class TokenAuthentication(BaseAuthentication):
    """Reads a token from wherever the client could put it; :meth:`get_user` says whose it is.

    Asked in this order, the first that is there counts: the header ``Authorization: Bearer …``, the subprotocols
    ``bearer.…`` and ``bearer64.…``, the query parameter and the cookie that ``add_consumers`` names by
    ``query_token_key`` and ``cookie_token_key``. A client without any passes on to the next authentication.
    """

    takes_tokens = True
    #: Where a token is looked for.
    sources: ClassVar[Iterable[Source]] = ("header", "subprotocol", "query", "cookie")
    #: Longest token, in characters. A longer one is refused before anybody looks into it.
    max_token_size: ClassVar[int] = 8192

    @abstractmethod
    def get_user(self, token: str, connection: Any) -> Any:
        """Whose token this is: the user, or ``(user, auth)``; ``None`` if it is nobody's.

        Sync or async. Look secrets up by their hash, or compare them with ``hmac.compare_digest``. An ``auth``
        with ``expires_at`` and ``token_id``, such as a :class:`~fastapi_consumers.authentication.Credential`, ends the
        connection when it ends.
        """

    async def authenticate(self, connection: Any) -> tuple[Any, Any] | None:
        token = find_token(connection, self.sources)
        return None if token is None else await self.authenticate_token(token, connection)

    async def authenticate_token(self, token: str, connection: Any) -> tuple[Any, Any]:
        """``(user, auth)`` of a token. Raises ``NotAuthenticated`` for one that is not good."""
        if not token or len(token) > self.max_token_size:
            raise invalid()
        try:
            result = await settled(self.get_user(token, connection))
        except ConsumerError:
            raise
        except Exception as error:
            if not _holds("".join(traceback.format_exception(error)), token):
                raise
            # It will be logged, such as the KeyError of a dict of tokens. Where it was raised is all that may be told.
            told = RuntimeError(f"get_user() raised {type(error).__qualname__}, whose text holds the token")
            raise told.with_traceback(error.__traceback__) from None
        if result is None:
            raise invalid()
        return known_pair(self, result if type(result) is tuple else (result, None), "get_user")

    def authenticate_header(self, connection: Any) -> str | None:
        return "Bearer"

    def get_security_schemes(self, token_keys: Any) -> Mapping[str, Mapping[str, Any]]:
        schemes: dict[str, dict[str, Any]] = {}
        ways = {
            "header": "the header `Authorization: Bearer …`",
            "subprotocol": f"an offered subprotocol `{PLAIN_PREFIX}…`, or `{ENCODED_PREFIX}…` in base64url",
        }
        sources = frozenset[str](self.sources)
        told = [text for source, text in ways.items() if source in sources]
        if told:
            schemes["bearer"] = {"type": "http", "scheme": "bearer", "description": f"A token, in {' or '.join(told)}."}
            if "subprotocol" in sources:
                schemes["bearer"]["x-subprotocol"] = PLAIN_PREFIX
        for source, key in (("query", token_keys.query), ("cookie", token_keys.cookie)):
            if key is not None and source in sources:
                description = f"A token, in the {'query parameter' if source == 'query' else 'cookie'} `{key}`."
                schemes[f"{source}.{key}"] = {
                    "type": "httpApiKey", "in": source, "name": key, "description": description
                }  # fmt: skip
        return schemes


class BearerTokenAuthentication(TokenAuthentication):
    """The same, but never from the query or a cookie: neither ends up in a log, nor is sent by a browser by itself."""

    sources = ("header", "subprotocol")


def find_token(connection: Any, sources: Iterable[Source]) -> str | None:
    """The token of a handshake, from the first of ``sources`` that has one; empty if that is malformed."""
    keys: TokenKeys = connection.plan.token_keys
    for source in sources:
        token: str | None = None
        if source == "header":
            token = _from_header(connection.headers)
        elif source == "subprotocol":
            token = _from_subprotocols(connection.scope.get("subprotocols") or ())
        elif source == "query" and keys.query is not None:
            token = connection.websocket.query_params.get(keys.query)
        elif source == "cookie" and keys.cookie is not None:
            token = connection.websocket.cookies.get(keys.cookie)
        if token is not None:
            return token
    return None


def _holds(text: str, token: str) -> bool:
    """Whether a token can be read in a text: as it is, as a literal or JSON has it, or as a URL does."""
    written = {token, repr(token)[1:-1], ascii(token)[1:-1], json.dumps(token)[1:-1]}
    # A lone surrogate, which a first message may hold, is in no URL.
    urls = {quote(token, safe=safe, errors="surrogatepass") for safe in ("", "/", "~-_.!*'()")}
    return any(each in text for each in (*written, *urls, quote_plus(token, errors="surrogatepass")))


def _from_header(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _from_subprotocols(offered: Iterable[str]) -> str | None:
    for name in offered:
        if name.startswith(PLAIN_PREFIX):
            return name[len(PLAIN_PREFIX) :]
        if name.startswith(ENCODED_PREFIX):
            encoded = name[len(ENCODED_PREFIX) :]
            try:
                return base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True).decode()
            except ValueError:
                return ""
    return None
