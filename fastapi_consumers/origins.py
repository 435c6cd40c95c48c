"""Which web pages may open a socket: browsers send cookies with cross-site handshakes, and CORS does not apply."""

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
#: Longest origin and host that are compared, in characters: a host's name has at most 253 (RFC 1035, section 2.3.4).
_LONGEST = 300


def is_allowed_origin(headers: Iterable[tuple[bytes, bytes]], scheme: str, allowed: tuple[str, ...] | None) -> bool:
    """Whether the handshake's ``Origin`` may connect.

    Args:
        headers: as the scope has them.
        scheme: the socket's, ``ws`` or ``wss``. A socket that is known to be secure takes no insecure pages of its own
            host; one that is not may have a proxy before it that is, and takes both.
        allowed: origins such as ``https://example.com``, or hosts for any scheme. ``*`` stands for any part of a host
            or for any port, and by itself for all origins. ``None`` for the same host and port.

    A handshake without ``Origin`` comes from no browser, and passes.
    """
    origin = _header(headers, b"origin")
    if origin is None:
        return True
    if allowed is not None:
        return any(_pattern(pattern).fullmatch(origin) is not None for pattern in allowed)
    host = _header(headers, b"host") or ""
    return len(origin) <= _LONGEST and len(host) <= _LONGEST and _is_same_host(origin, host, scheme)


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    """The first one of this name, in lower case. Names come so from the server."""
    for name, value in headers:
        if name == wanted:
            return value.decode("latin-1").lower()
    return None


@lru_cache(maxsize=256)
def _is_same_host(origin: str, host: str, scheme: str) -> bool:
    try:
        page, here = urlsplit(origin), urlsplit(f"//{host}")
        port = page.port if page.port is not None else _PORTS.get(page.scheme)
        ports = {here.port} if here.port is not None else {443} if scheme == "wss" else {80, 443}
        return page.scheme in _PORTS and bool(page.hostname) and page.hostname == here.hostname and port in ports
    except ValueError:  # A port that is no number.
        return False


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    if text == "*":
        return re.compile(".*", re.DOTALL)
    scheme = "" if "://" in text or text == "null" else r"[a-z][a-z0-9+.-]*://"
    # A wildcard crosses dots, so that it covers the subdomains of subdomains, but nothing else that an origin has.
    pieces = text.lower().rstrip("/").split("*")
    return re.compile(scheme + r"[^/:@\s?#\\]*".join(map(re.escape, pieces)))
