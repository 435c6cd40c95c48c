"""JSON Web Tokens (RFC 7519), verified by PyJWT, which the extra ``jwt`` brings."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import ModuleType
from typing import Any

from ..stepping import settled
from .credentials import MAX_TOKEN_ID, Credential, expired, invalid
from .tokens import TokenAuthentication

#: Called with the token's header, which nobody has verified yet; returns the key for it, or ``None`` for no such key.
FindKey = Callable[[Mapping[str, Any]], Any]


class JWTAuthentication(TokenAuthentication):
    """Verifies a JSON Web Token wherever :class:`TokenAuthentication` finds one.

    ::

        authentication_classes = [JWTAuthentication(PUBLIC_KEY, algorithms=["RS256"], audience="chat")]

    The user is a dict of the token's claims, whose id is ``sub``; override :meth:`get_user_for` for another. ``exp``
    ends the connection, ``jti`` is what ``consumers.revoke`` takes, and ``self.auth.claims`` has all claims.

    Args:
        key: a secret, a public key as PEM or as an object of ``cryptography``, a ``jwt.PyJWK``; or a function, sync or
            async, that returns one of these for the header of a token, such as by its ``kid``. The header is the
            client's word: look keys up by it, and never fetch what it names.
        algorithms: those that are accepted, such as ``["RS256"]``; the token has no say.
        audience: what ``aud`` has to hold. Without it a token that has an ``aud`` is refused.
        issuer: what ``iss`` has to be, or the ones that it may be.
        leeway: seconds that clocks may differ by, or a ``timedelta``.
        require: claims that a token has to have. Without ``exp`` among them a token may be good for ever.

    Raises ``ImportError`` without PyJWT, ``ValueError`` for algorithms that verify nothing or mix secrets with public
    keys, and ``TypeError`` or ``ValueError`` for a key that does not fit them or is too short.
    """

    def __init__(
        self,
        key: Any,
        *,
        algorithms: Sequence[str],
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway: float | timedelta = 0,
        require: Sequence[str] = ("exp",),
    ) -> None:
        self._jwt = _pyjwt()
        if isinstance(algorithms, str | bytes) or not algorithms:
            raise ValueError(f'algorithms is {algorithms!r}; expected a list of names, such as ["HS256"]')
        self._algorithms = tuple(algorithms)
        self._find_key: FindKey | None = key if callable(key) and not isinstance(key, self._jwt.PyJWK) else None
        self._key = key
        self._check_algorithms()
        for name in self._algorithms if self._find_key is None else ():
            self._check_key(key, name)
        #: Seconds.
        self._leeway = leeway.total_seconds() if isinstance(leeway, timedelta) else leeway
        self._options = {"require": list(require), "enforce_minimum_key_length": True}
        self._claims = {"audience": audience, "issuer": issuer, "leeway": self._leeway}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(algorithms={list(self._algorithms)})"

    def get_security_schemes(self, token_keys: Any) -> Mapping[str, Mapping[str, Any]]:
        schemes = super().get_security_schemes(token_keys)
        return {
            name: {**scheme, "bearerFormat": "JWT"} if scheme["type"] == "http" else scheme
            for name, scheme in schemes.items()
        }

    def get_user_for(self, claims: Mapping[str, Any], connection: Any) -> Any:
        """The user whom verified claims are about; ``None`` refuses the token. Sync or async.

        ``(user, auth)`` where ``auth`` shall be something else than the ``Credential`` that is made of the claims.
        """
        return claims

    async def get_user(self, token: str, connection: Any) -> Any:
        claims = self._verify(token, await self._key_for(token))
        user = await settled(self.get_user_for(claims, connection))
        if user is None:
            return None
        if type(user) is tuple:
            return user
        expires_at = claims.get("exp")
        return user, Credential(None if expires_at is None else expires_at + self._leeway, claims.get("jti"), claims)

    async def _key_for(self, token: str) -> Any:
        if self._find_key is None:
            return self._key
        try:
            header = self._jwt.get_unverified_header(token)
        except (self._jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            raise invalid() from None
        if header.get("alg") not in self._algorithms:
            raise invalid()
        key = await settled(self._find_key(header))
        if key is None:
            raise invalid()
        # A key that cannot be used is the server's mistake, and must not look like the client's.
        self._check_key(key, header["alg"])
        return key

    def _verify(self, token: str, key: Any) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = self._jwt.decode(
                token, key, algorithms=list(self._algorithms), options=self._options, **self._claims
            )
        except self._jwt.ExpiredSignatureError:
            raise expired() from None
        except (self._jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            # The key has been checked, so it is the token; PyJWT lets some of what is wrong with numbers through.
            raise invalid() from None
        _check_claims(claims)
        return claims

    def _check_algorithms(self) -> None:
        families = set()
        for name in self._algorithms:
            try:
                algorithm = self._jwt.get_algorithm_by_name(name)
            except NotImplementedError:
                raise ValueError(
                    f"{name!r} is no algorithm that PyJWT knows; install pyjwt[crypto] for RS and ES"
                ) from None
            if name.lower() == "none":
                raise ValueError("the algorithm 'none' verifies nothing: everybody could write a token")
            families.add(isinstance(algorithm, self._jwt.algorithms.HMACAlgorithm))
        if len(families) > 1:
            raise ValueError(
                f"algorithms are {list(self._algorithms)}: a public key could be taken for a secret. Expected either "
                "HS… or the others. Make two authentications"
            )

    def _check_key(self, key: Any, name: str) -> None:
        if isinstance(key, self._jwt.PyJWK):
            algorithm, key = key.Algorithm, key.key
        else:
            algorithm = self._jwt.get_algorithm_by_name(name)
        try:
            problem = algorithm.check_key_length(algorithm.prepare_key(key))
        except self._jwt.PyJWTError as error:
            raise ValueError(f"the key does not fit {name}: {error}") from None
        if problem:
            raise ValueError(f"the key is too short for {name}: {problem}")


def _check_claims(claims: Mapping[str, Any]) -> None:
    """What PyJWT lets pass, and the connection could not use. Raises ``NotAuthenticated``."""
    token_id = claims.get("jti")
    if token_id is not None and not (isinstance(token_id, str) and 0 < len(token_id) <= MAX_TOKEN_ID):
        raise invalid()
    expires_at = claims.get("exp")
    try:
        if expires_at is not None and (isinstance(expires_at, bool) or float(expires_at) != expires_at):
            raise invalid()
    except (ValueError, TypeError, OverflowError):
        raise invalid() from None


def _pyjwt() -> ModuleType:
    # Imported late: PyJWT is an extra, and who does not use it need not have it.
    try:
        import jwt
        import jwt.algorithms
    except ImportError:
        raise ImportError(
            "JWTAuthentication needs PyJWT. Install the extra: pip install 'fastapi-consumers[jwt]'"
        ) from None
    return jwt
