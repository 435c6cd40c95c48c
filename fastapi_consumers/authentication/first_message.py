"""A token in the first message, for clients that can put it nowhere else."""

from collections.abc import Mapping
from typing import Any

from .tokens import TokenAuthentication


class FirstMessageAuthentication(TokenAuthentication):
    """Has the client send its token as the first message, if no other authentication knows it.

    The socket is accepted and joins nothing; until the action ``authenticate`` has brought a good token, everything
    else is refused with ``not_authenticated``. After ``authentication_timeout`` seconds it closes with 4401.

    Derive a class with a ``get_user``, or hand in the authentication whose tokens these are::

        tokens = JWTAuthentication(SECRET, algorithms=["HS256"])
        authentication_classes = [tokens, FirstMessageAuthentication(tokens)]
    """

    sources = ()
    waits_for_message = True

    def __init__(self, tokens: TokenAuthentication | None = None) -> None:
        """Raises ``TypeError`` if there is nobody to say whose a token is."""
        if tokens is None and type(self).get_user is FirstMessageAuthentication.get_user:
            raise TypeError(
                f"{type(self).__qualname__} does not know whose a token is; expected a get_user() in a class derived "
                "from it, or an authentication that reads tokens. Write: FirstMessageAuthentication(tokens)"
            )
        if tokens is not None and not isinstance(tokens, TokenAuthentication):
            raise TypeError(f"{tokens!r} reads no tokens; expected an instance of TokenAuthentication")
        self._tokens = tokens

    def get_security_schemes(self, token_keys: Any) -> Mapping[str, Mapping[str, Any]]:
        description = 'A token in the first message: the action `authenticate` with the data `{"token": …}`.'
        return {
            "firstMessage": {"type": "apiKey", "in": "password", "description": description, "x-first-message": True}
        }

    async def get_user(self, token: str, connection: Any) -> Any:
        assert self._tokens is not None
        return await self._tokens.authenticate_token(token, connection)
