"""Who the client is. Authentications are tried in order; the first that knows the client names them."""

from ..identity import ANONYMOUS, AnonymousUser, is_authenticated
from .api_keys import APIClient, APIKeyAuthentication
from .base import (
    BaseAuthentication,
    authenticate_with,
    authentication_of,
    compile_authentications,
    denial_headers,
    known_pair,
)
from .credentials import Credential, Lifetime, expired, invalid, lifetime_of
from .first_message import FirstMessageAuthentication
from .injected import DependsAuthentication
from .jwt import JWTAuthentication
from .sessions import SessionAuthentication
from .tokens import BEARER_SUBPROTOCOL, BearerTokenAuthentication, TokenAuthentication, TokenKeys

__all__ = [
    "ANONYMOUS",
    "BEARER_SUBPROTOCOL",
    "APIClient",
    "APIKeyAuthentication",
    "AnonymousUser",
    "BaseAuthentication",
    "BearerTokenAuthentication",
    "Credential",
    "DependsAuthentication",
    "FirstMessageAuthentication",
    "JWTAuthentication",
    "Lifetime",
    "SessionAuthentication",
    "TokenAuthentication",
    "TokenKeys",
    "authenticate_with",
    "authentication_of",
    "compile_authentications",
    "denial_headers",
    "expired",
    "invalid",
    "is_authenticated",
    "known_pair",
    "lifetime_of",
]
