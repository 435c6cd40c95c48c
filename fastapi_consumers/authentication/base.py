"""The base of all authentications, and how a list of them is asked."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ..exceptions import ConsumerError, NotAuthenticated
from ..identity import ANONYMOUS, is_authenticated


class BaseAuthentication(ABC):
    """One way to find out who the client is. One instance serves all connections: keep no state of a connection."""

    #: Whether it can judge a token that the client sends over the open socket, by ``authenticate_token``.
    takes_tokens: ClassVar[bool] = False
    #: Whether it waits for the first message, if nobody else knows the client.
    waits_for_message: ClassVar[bool] = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def authenticate(self, connection: Any) -> tuple[Any, Any] | Awaitable[tuple[Any, Any] | None] | None:
        """``(user, auth)``, or ``None`` if there is nothing here to go by, so that the next one is asked.

        Sync or async. ``auth`` is whatever the consumer shall find as ``self.auth``, for example the token.

        Raise :class:`~fastapi_consumers.exceptions.NotAuthenticated`, or any other ``ConsumerError``, when there
        are credentials and they are wrong: it refuses the client, and no other authentication is asked.

        What ``auth`` has as ``expires_at`` and ``token_id`` is the lifetime of the connection (see
        :class:`~fastapi_consumers.authentication.Credential`).
        """

    def authenticate_token(self, token: str, connection: Any) -> Any:
        """The same for a token that came over the open socket; only called where ``takes_tokens`` is true."""
        # Not abstract: most ways take none.
        raise NotImplementedError(f"{type(self).__qualname__} takes no tokens over an open socket")

    def authenticate_header(self, connection: Any) -> str | None:
        """The ``WWW-Authenticate`` of a refused handshake (RFC 9110, section 11.6.1), or ``None`` for none."""
        return None

    def get_security_schemes(self, token_keys: Any) -> Mapping[str, Mapping[str, Any]]:
        """How a client shows who it is, for the documentation: name to a Security Scheme Object of AsyncAPI 3.0.

        Args:
            token_keys: the query parameter and the cookie that ``add_consumers`` named, a ``TokenKeys``.
        """
        return {}


def authentication_of(entry: Any) -> BaseAuthentication:
    """The authentication that an entry of ``authentication_classes`` stands for: a class or an instance.

    Raises:
        TypeError: it is neither, or a class that cannot be made without arguments (list an instance then).
    """
    if isinstance(entry, BaseAuthentication):
        return entry
    if isinstance(entry, type) and issubclass(entry, BaseAuthentication):
        return entry()
    raise TypeError(
        f"{entry!r} is no authentication; expected a class that derives from BaseAuthentication, or an instance of "
        "one. Derive it from fastapi_consumers.authentication.BaseAuthentication."
    )


def compile_authentications(entries: object) -> tuple[BaseAuthentication, ...]:
    """The authentications of a whole list, in its order.

    Raises:
        TypeError: an entry is no authentication, or ``entries`` is no list.
    """
    if isinstance(entries, str | bytes | type | BaseAuthentication) or not isinstance(entries, Iterable):
        raise TypeError(
            f"found {entries!r}; expected a list of authentications. Put it into a list: "
            f"[{entries.__qualname__ if isinstance(entries, type) else repr(entries)}]."
        )
    return tuple([authentication_of(entry) for entry in entries])


async def authenticate_with(authentications: Sequence[BaseAuthentication], connection: Any) -> tuple[Any, Any]:
    """``(user, auth)`` from the first authentication that knows the client. The user is never ``None``.

    If none does: the user that Starlette's ``AuthenticationMiddleware`` left in the scope, with its credentials;
    otherwise ``(ANONYMOUS, None)``. An unauthenticated user without an ``id`` is replaced by ``ANONYMOUS``, since
    consumers may read ``self.user.id`` of everybody.

    Raises:
        ConsumerError: an authentication refused the client.
        TypeError: an authentication returned neither a pair nor ``None``.
    """
    for authentication in authentications:
        result: Any = authentication.authenticate(connection)
        while inspect.isawaitable(result):
            result = await result
        if result is not None:
            return known_pair(authentication, result)
    scope = connection.scope
    return _known(scope.get("user")), scope.get("auth")


def denial_headers(
    error: ConsumerError, authentications: Iterable[BaseAuthentication], connection: Any
) -> dict[str, str]:
    """The headers of the HTTP response that refuses a handshake, in lower case.

    For ``NotAuthenticated`` that is its own challenge, or that of the first authentication that has one.
    """
    headers = error.http_headers()
    if isinstance(error, NotAuthenticated) and not headers:
        challenges = (authentication.authenticate_header(connection) for authentication in authentications)
        challenge = next(filter(None, challenges), None)
        if challenge is None:
            return {}
        # RFC 6750, section 3.1: one error for tokens that are expired, revoked, malformed or wrong in any other way.
        is_wrong = challenge == "Bearer" and error.code in ("invalid_token", "expired")
        return {"www-authenticate": 'Bearer error="invalid_token"' if is_wrong else challenge}
    return headers


def known_pair(authentication: BaseAuthentication, result: Any, method: str = "authenticate") -> tuple[Any, Any]:
    """``result`` as ``(user, auth)`` with a user that is never ``None``. Raises ``TypeError`` for any other shape."""
    where = f"{type(authentication).__qualname__}.{method}()"
    if not isinstance(result, tuple) or len(result) != 2:
        found = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"{type(result).__qualname__}"
        raise TypeError(
            f"{where} returned {found}; expected (user, auth), or None to let the next authentication try. "
            "Write: return user, None"
        )
    user = result[0]
    # A user without is_authenticated counts as authenticated. These two never are a user, and would let everybody in.
    if inspect.isawaitable(user):
        if inspect.iscoroutine(user):
            user.close()
        raise TypeError(f"{where} returned a user that was not awaited; expected the user itself. Add the await.")
    if isinstance(user, bool):
        raise TypeError(f"{where} returned {user!r} as the user; expected a user object, or None for an anonymous one.")
    return _known(user), result[1]


def _known(user: Any) -> Any:
    if user is None or (not is_authenticated(user) and not hasattr(user, "id")):
        return ANONYMOUS
    return user
