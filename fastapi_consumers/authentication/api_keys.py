"""Services that know a shared secret."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..stepping import settled
from .base import BaseAuthentication, known_pair
from .credentials import Credential, invalid

#: Longest key, in characters.
MAX_KEY_SIZE = 1024


@dataclass(frozen=True, slots=True)
class APIClient:
    """A service that is known by its key. ``id`` is the name that the key has on the server."""

    id: str


class APIKeyAuthentication(BaseAuthentication):
    """A key in a header, one of a few that are known by heart.

    ::

        authentication_classes = [APIKeyAuthentication({"billing": os.environ["BILLING_KEY"]})]

    Keys are compared by their hashes, all of them and in constant time. The key's name is the ``token_id``, so that
    ``consumers.revoke("billing")`` closes its sockets. Override :meth:`get_user` for users of your own.

    Args:
        keys: name to key.
        header: where the client puts it.

    Raises ``ValueError`` without keys, and for one that is empty or too long.
    """

    def __init__(self, keys: Mapping[str, str], *, header: str = "X-API-Key") -> None:
        if not keys:
            raise ValueError("APIKeyAuthentication has no keys; expected a dict of name to key")
        for name, key in keys.items():
            if not isinstance(cast(object, key), str) or not 0 < len(key) <= MAX_KEY_SIZE:
                raise ValueError(f"the key {name!r} is empty, too long or no text; expected 1 to {MAX_KEY_SIZE}")
        self._header = header
        self._digests = {name: _digest(key) for name, key in keys.items()}

    def get_security_schemes(self, token_keys: Any) -> Mapping[str, Mapping[str, Any]]:
        description = f"A key, in the header `{self._header}`."
        return {
            f"header.{self._header}": {
                "type": "httpApiKey", "in": "header", "name": self._header, "description": description
            }
        }  # fmt: skip

    def get_user(self, name: str, connection: Any) -> Any:
        """The user, or ``(user, auth)``, behind the key of this name; ``None`` refuses it. Sync or async."""
        return APIClient(name)

    async def authenticate(self, connection: Any) -> tuple[Any, Any] | None:
        key = connection.headers.get(self._header)
        if key is None:
            return None
        name = self._find(key) if len(key) <= MAX_KEY_SIZE else None
        result = await settled(self.get_user(name, connection)) if name is not None else None
        if result is None:
            raise invalid()
        return known_pair(self, result if type(result) is tuple else (result, Credential(token_id=name)), "get_user")

    def _find(self, key: str) -> str | None:
        given, found = _digest(key), None
        for name, digest in self._digests.items():
            # No early end: how long it takes says nothing of which key it was.
            if hmac.compare_digest(given, digest):
                found = name
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
