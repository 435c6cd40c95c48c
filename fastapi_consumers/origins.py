"""Which web pages may open a socket: browsers send cookies with cross-site handshakes, and CORS does not apply."""

from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from starlette.datastructures import Headers

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


def is_allowed_origin(headers: Headers, scheme: str, allowed: tuple[str, ...] | None) -> bool:
    """Whether the handshake's ``Origin`` may connect.

    Args:
        scheme: the socket's, ``ws`` or ``wss``.
        allowed: origins such as ``https://example.com``, with ``*`` as a wildcard; ``None`` for the same host.

    A handshake without ``Origin`` comes from no browser, and passes.
    """
    origin = headers.get("origin")
    if origin is None:
        return True
    origin = origin.lower()
    if allowed is not None:
        return any(fnmatchcase(origin, pattern.lower()) for pattern in allowed)
    try:
        page, here = urlsplit(origin), urlsplit(f"//{headers.get('host', '').lower()}")
        default = _PORTS.get(scheme)
        return bool(page.hostname) and (page.hostname, page.port or _PORTS.get(page.scheme)) == (
            here.hostname,
            here.port or default,
        )
    except ValueError:  # A port that is no number.
        return False
