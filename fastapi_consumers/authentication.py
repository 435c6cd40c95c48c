"""Who the client is. Authentications are tried in order; the first that knows the client names them."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

from .identity import ANONYMOUS, AnonymousUser, is_authenticated

__all__ = [
    "ANONYMOUS",
    "AnonymousUser",
    "BaseAuthentication",
    "authenticate_with",
    "authentication_of",
    "compile_authentications",
    "is_authenticated",
]


class BaseAuthentication(ABC):
    """One way to find out who the client is. One instance serves all connections: keep no state of a connection."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def authenticate(self, connection: Any) -> tuple[Any, Any] | Awaitable[tuple[Any, Any] | None] | None:
        """``(user, auth)``, or ``None`` if there is nothing here to go by, so that the next one is asked.

        Sync or async. ``auth`` is whatever the consumer shall find as ``self.auth``, for example the token.

        Raise :class:`~fastapi_consumers.exceptions.NotAuthenticated`, or any other ``ConsumerError``, when there
        are credentials and they are wrong: it refuses the client, and no other authentication is asked.
        """


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
            user, auth = _pair(authentication, result)
            return _known(user), auth
    scope = connection.scope
    return _known(scope.get("user")), scope.get("auth")


def _pair(authentication: BaseAuthentication, result: Any) -> tuple[Any, Any]:
    where = f"{type(authentication).__qualname__}.authenticate()"
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
    return result


def _known(user: Any) -> Any:
    if user is None or (not is_authenticated(user) and not hasattr(user, "id")):
        return ANONYMOUS
    return user
