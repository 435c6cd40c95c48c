"""Users who logged in over HTTP, and whose session came along with the handshake."""

from abc import abstractmethod
from collections.abc import Mapping, MutableMapping
from typing import Any

from ..stepping import settled
from .base import BaseAuthentication, known_pair


class SessionAuthentication(BaseAuthentication):
    """Reads the session of Starlette's ``SessionMiddleware``; :meth:`get_user` says whose it is.

    Browsers send cookies with cross-site handshakes too: it is the check of the origin, which comes before, that keeps
    other people's pages out. Changes of the session are not saved, as an open socket sets no cookies.
    """

    @abstractmethod
    def get_user(self, session: MutableMapping[str, Any], connection: Any) -> Any:
        """The user, or ``(user, auth)``; ``None`` if nobody has logged in, so that the next authentication is asked.

        Sync or async.
        """

    def get_security_schemes(self, token_keys: Any) -> Mapping[str, Mapping[str, Any]]:
        """Override it if ``SessionMiddleware`` was given another ``session_cookie``."""
        description = "The session of a login over HTTP."
        return {"session": {"type": "httpApiKey", "in": "cookie", "name": "session", "description": description}}

    async def authenticate(self, connection: Any) -> tuple[Any, Any] | None:
        """Raises ``RuntimeError`` without a session in the scope."""
        session = connection.scope.get("session")
        if session is None:
            raise RuntimeError(
                f"{type(self).__qualname__} found no session in the scope; expected the one of SessionMiddleware. "
                "Write: app.add_middleware(SessionMiddleware, secret_key=…)"
            )
        result = await settled(self.get_user(session, connection))
        if result is None:
            return None
        return known_pair(self, result if type(result) is tuple else (result, None), "get_user")
