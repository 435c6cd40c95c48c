"""Logins: a token that is good for some minutes, is renewed while somebody is there, and may end before."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

import jwt
from pydantic import BaseModel

from fastapi_consumers.authentication import JWTAuthentication

#: Names and passwords, which everybody knows: a table of your database, with hashes.
ACCOUNTS = {"ann": "tea", "bob": "milk"}
#: Seconds that a token is good for, unless it is renewed.
LIFETIME = 15 * 60
AUDIENCE = "notifications"


class User(BaseModel):
    id: str


class Logins(JWTAuthentication):
    """Writes tokens, and reads them, for sockets and for HTTP alike.

    A token's ``jti`` names the login: it stays when the token is renewed, so ``consumers.revoke`` closes all that one
    browser has open. Which logins are over is known to this process alone; in production that is a table.

    Args:
        secret: what tokens are signed with, at least 32 bytes.
    """

    def __init__(self, secret: str) -> None:
        super().__init__(secret, algorithms=["HS256"], audience=AUDIENCE, require=["exp", "jti", "sub", "began"])
        self._secret = secret
        #: When a login ended, and when all logins of a user did. Nothing older than a token need be known.
        self._ended: dict[str, float] = {}
        self._ended_everywhere: dict[str, float] = {}

    def begin(self, user: str) -> str:
        """The first token of a login."""
        return self._write(user, secrets.token_hex(8), time.time())

    def renew(self, claims: Mapping[str, Any]) -> str:
        """The next token of the login that a token with these claims is of."""
        return self._write(claims["sub"], claims["jti"], claims["began"])

    def end(self, login: str) -> None:
        """From here on, no token of this login is good for anything."""
        now = time.time()
        self._ended = {each: at for each, at in self._ended.items() if at > now - LIFETIME} | {login: now}

    def end_everywhere(self, user: str) -> None:
        """The same of all logins that this user has now."""
        self._ended_everywhere[user] = time.time()

    def get_user_for(self, claims: Mapping[str, Any], connection: Any) -> User | None:
        user = claims["sub"]
        is_over = claims["jti"] in self._ended or claims["began"] <= self._ended_everywhere.get(user, 0)
        return None if is_over or user not in ACCOUNTS else User(id=user)

    def _write(self, user: str, login: str, began: float) -> str:
        claims = {"sub": user, "jti": login, "began": began, "aud": AUDIENCE, "exp": time.time() + LIFETIME}
        return jwt.encode(claims, self._secret, "HS256")
