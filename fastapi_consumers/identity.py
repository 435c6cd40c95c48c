"""Who is at the other end: the anonymous user, whether a user is known, and by what name limits count them.

Used by authentication, permissions and throttling, which know nothing of each other. Nothing here trusts a user
object to be of any class: Django's, Starlette's, a dataclass, a string and the claims of a token all serve.
"""

import inspect
import ipaddress
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any

from .types import Scope

_MISSING: Any = object()

#: Where the scope has the client's address, if it was found out otherwise than by asking the server.
CLIENT_KEY = "fastapi_consumers.client"


class AnonymousUser:
    """The user of a connection that nobody authenticated. Holds no state, so that :data:`ANONYMOUS` can be shared."""

    __slots__ = ()

    is_authenticated = False
    #: As Django's has it.
    is_anonymous = True
    id = None
    username = ""

    def __repr__(self) -> str:
        return "AnonymousUser()"


#: The one anonymous user that the framework itself hands out.
ANONYMOUS = AnonymousUser()


def is_authenticated(user: Any) -> bool:
    """Whether ``user`` is somebody. ``None`` is not; an object without ``is_authenticated`` is.

    ``is_authenticated`` may be a method, as it was in old Django.

    Raises:
        TypeError: ``is_authenticated`` is an async method: its coroutine would count as true for everybody.
    """
    known = getattr(user, "is_authenticated", _MISSING)
    if known is True or known is False:
        return known
    if known is _MISSING:
        if hasattr(type(user), "is_authenticated"):
            # A property whose own code raised AttributeError. Reading it again lets the error out: taking the
            # attribute for missing would let everybody in.
            return bool(user.is_authenticated)
        return user is not None
    if callable(known):
        known = known()
    if inspect.isawaitable(known):
        if inspect.iscoroutine(known):
            known.close()
        raise TypeError(
            f"{type(user).__qualname__}.is_authenticated is async; expected a bool or a plain method that returns one. "
            "Look it up in authenticate(), which may be async, and keep the answer on the user."
        )
    return bool(known)


def user_id(user: Any) -> Hashable | None:
    """What tells this user from others, on every connection alike; ``None`` for an anonymous user.

    The first of ``id``, ``pk`` and ``username`` that is neither ``None`` nor empty (0 is an id), otherwise
    ``str(user)``. Of a mapping, such as the claims of a token, the keys of these names or ``"sub"``. ``None`` too
    where nothing but the object's address in memory would tell, as it is another one on the next connection.
    """
    if not is_authenticated(user):
        return None
    if isinstance(user, Mapping):
        for name in ("id", "pk", "username", "sub"):
            if (value := user.get(name)) is not None and value != "":
                return value  # type: ignore[no-any-return]  # a user's own
        return None
    for name in ("id", "pk", "username"):
        if (value := getattr(user, name, None)) is not None and value != "":
            return value  # type: ignore[no-any-return]  # a user's own
    kind: Any = type(user)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        return None
    return str(user)


def client_address(scope: Scope) -> str:
    """The address that a client is counted by; ``""`` if the server names none (a Unix socket, a bare test).

    IPv6 addresses count by their /64 (``"2001:db8:0:1::/64"``), as one subscriber has all of it; IPv4 addresses
    mapped into IPv6 count as the IPv4 address. Behind a proxy this is the proxy's, unless the server is told to
    trust its headers (uvicorn: ``--proxy-headers --forwarded-allow-ips``), or the application (``trusted_proxies``).
    """
    client = scope.get("client")
    host = scope[CLIENT_KEY] if CLIENT_KEY in scope else client[0] if client else None
    if not host:
        return ""
    return _network(host) if ":" in host else str(host)


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        # All of IPv4 lies in one /64 when mapped: without this, every IPv4 client of a dual-stack socket is one.
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
