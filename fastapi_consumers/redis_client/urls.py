"""What a URL of Redis or Valkey says.

One server: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` for TLS, ``unix:///path.sock``.
Sentinel: ``redis+sentinel://[[user]:password@]host[:port][,host[:port]…][/db]?service=mymaster`` names the sentinels.
Cluster: ``redis+cluster://[[user]:password@]host[:port][,host[:port]…]`` names some of its nodes.

``rediss`` in place of ``redis`` means TLS throughout; ``valkey`` and ``valkeys`` mean the same as ``redis`` and
``rediss``. Options follow as a query: those of redis-py's connections (``ssl_ca_certs``, ``client_name``, …), and

- ``prefix``: what the names of all channels and keys begin with, ``fc:`` by default;
- ``max_connections``: how many connections commands may use at a time, to each node, 16 by default;
- ``service``: what the sentinels call the server; ``service_name``, as in redis-py, and ``master_name``, as in Celery
  and channels_redis, mean the same;
- ``sentinel_username``, ``sentinel_password``: for the sentinels, which are asked without a password otherwise.

No message made here holds credentials.
"""

import re
from typing import Any, Literal, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio import Connection
from redis.asyncio.connection import parse_url

from ..exceptions import ImproperlyConfigured, Problem

Mode = Literal["single", "sentinel", "cluster"]


class _Scheme(NamedTuple):
    base: str  #: What redis-py calls it.
    mode: Mode


_BASES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
#: What a URL may begin with.
SCHEMES = {
    **{name: _Scheme(base, "single") for name, base in _BASES.items()},
    "unix": _Scheme("unix", "single"),
    **{f"{name}+sentinel": _Scheme(base, "sentinel") for name, base in _BASES.items()},
    **{f"{name}+cluster": _Scheme(base, "cluster") for name, base in _BASES.items()},
}
DEFAULT_PREFIX = "fc:"
SENTINEL_PORT, PORT = 26379, 6379

#: Query parameters whose values may be shown.
_SHOWN = {
    *("db", "prefix", "max_connections", "client_name", "service", "service_name", "master_name"),
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs"),
}
#: Query parameters that are decided here.
_RESERVED = {
    *("connection_class", "decode_responses", "protocol", "retry_on_timeout", "timeout"),
    *("host", "port", "path", "redis_connect_func"),
}
_SERVICE = ("service", "service_name", "master_name")
_EXPECTED = (
    "redis://host:6379/0, unix:///path/to.sock, redis+sentinel://host:26379,host:26379/0?service=mymaster or "
    "redis+cluster://host:6379,host:6379; rediss for TLS; valkey and valkeys mean the same"
)
_PARTS = re.compile(r"([^:/?#]+://)(?:([^/?#]*)@)?([^/?#@]*)(.*)", re.DOTALL)


class Target(NamedTuple):
    """A URL, read."""

    shown: str  #: Without its secrets.
    mode: Mode
    hosts: tuple[tuple[str, int], ...]  #: Those that it names, in order; none for a Unix socket.
    service: str
    prefix: str
    max_connections: int | None
    connection_class: type[Connection]
    options: dict[str, Any]  #: redis-py's, without host and port.
    sentinel_options: dict[str, Any]


def read_url(url: object) -> Target:
    """Raises ``ImproperlyConfigured`` for a URL that cannot be meant."""
    if not isinstance(url, str):
        raise bad_url(url, f"a value of type {type(url).__name__}", "write the URL as text")
    try:
        first, others = _one_host(url)
        parts = urlsplit(first)
        scheme = SCHEMES.get(parts.scheme)
        # Its errors may quote what they could not read: a part of the password.
        read = parse_url(urlunsplit(parts._replace(scheme=scheme.base))) if scheme else {}
        port = SENTINEL_PORT if scheme and scheme.mode == "sentinel" else PORT
        hosts = [(parts.hostname or "localhost", parts.port or port), *[_host_of(other, port) for other in others]]
    except ValueError:
        fix = "percent-encode what has a meaning in URLs, such as / ? # @ : in a password, and check host and port"
        raise bad_url(url, "a URL that cannot be read", fix) from None
    if scheme is None:
        raise bad_url(url, "a URL of another kind", "mend the scheme")
    options: dict[str, Any] = dict(read)
    if (mistake := _mistake(parts, scheme, others, options)) is not None:
        raise bad_url(url, *mistake)
    for name in ("host", "port"):
        options.pop(name, None)
    names = [options.pop(name) for name in _SERVICE if name in options]
    sentinel_options = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    limit = options.pop("max_connections", None)
    return Target(
        shown=safe_url(url),
        mode=scheme.mode,
        hosts=() if scheme.base == "unix" else tuple(hosts),
        service=str(names[0]) if names else "",
        prefix=str(options.pop("prefix", DEFAULT_PREFIX)),
        max_connections=None if limit is None else int(limit),
        connection_class=options.pop("connection_class", Connection),
        options=options,
        sentinel_options=sentinel_options,
    )


def safe_url(url: object) -> str:
    """The URL without user, password and whatever else could be secret: for messages and logs."""
    try:
        first, others = _one_host(url if isinstance(url, str) else "")
        parts = urlsplit(first)
        hosts = [_shown_host(parts.hostname or "", parts.port)] if parts.netloc else [""]
        for other in others:
            split = urlsplit(f"//{other}")
            hosts.append(_shown_host(split.hostname or "", split.port))
    except ValueError:
        return "(a URL that cannot be read)"
    if not parts.scheme:
        return "(a URL without a scheme)"
    if "@" in parts.path + parts.query + parts.fragment:
        # A password that is not percent-encoded: it could be anywhere.
        return f"{parts.scheme}://(credentials that are not percent-encoded)"
    user = "***@" if "@" in parts.netloc else ""
    query = [
        (name, value if name in _SHOWN else "***") for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    shown = urlencode(query, safe=":/*")
    netloc = f"{user}{','.join(hosts)}"
    if not netloc:  # A path has only one slash where there is no host, and three are what was written.
        return f"{parts.scheme}://{parts.path}{f'?{shown}' if shown else ''}"
    return urlunsplit((parts.scheme, netloc, parts.path, shown, ""))


def bad_url(url: object, found: str, fix: str) -> ImproperlyConfigured:
    """The error for a URL that cannot be meant."""
    return ImproperlyConfigured("The broker", [Problem("bad-url", safe_url(url), found, _EXPECTED, fix)])


def _one_host(url: str) -> tuple[str, list[str]]:
    """The URL with the first of its hosts alone, as the standard library reads it, and the others."""
    match = _PARTS.fullmatch(url)
    if match is None:
        return url, []
    scheme, user, hosts, rest = match.groups()
    first, *others = hosts.split(",")
    return f"{scheme}{'' if user is None else f'{user}@'}{first}{rest}", others


def _host_of(text: str, default_port: int) -> tuple[str, int]:
    split = urlsplit(f"//{text}")
    if not split.hostname:
        raise ValueError("a host is missing")
    return split.hostname, split.port or default_port


def _shown_host(host: str, port: int | None) -> str:
    return f"{f'[{host}]' if ':' in host else host}{'' if port is None else f':{port}'}"


def _mistake(parts: SplitResult, scheme: _Scheme, others: list[str], options: dict[str, Any]) -> tuple[str, str] | None:
    """What was found, and how to mend it."""
    mend, mode = "mend the URL", scheme.mode
    if others and mode == "single":
        fix = "name one server, or write redis+sentinel:// or redis+cluster://, whichever these are"
        return "several hosts, where one server is meant", fix
    if "@" in parts.path or parts.fragment:
        return "credentials that are not percent-encoded, or a fragment", mend
    if scheme.base == "unix" and not parts.path.strip("/"):
        return "no path of a socket", mend
    if scheme.base != "unix" and (path := parts.path.strip("/")) and not path.isdecimal():
        fix = "name the server that is meant with ?service=…" if mode == "sentinel" else mend
        return "a path that is no number of a database", fix
    if mode == "cluster" and options.get("db"):
        return "the number of a database, of which a cluster has one", "leave it out"
    names = [name for name in _SERVICE if name in options]
    if mode == "sentinel" and (len(names) != 1 or not options[names[0]]):
        fix = "write ?service= and what the sentinels call it, for example redis+sentinel://host:26379?service=mymaster"
        return "nothing that says which of the sentinels' servers is meant", fix
    if mode != "sentinel" and (names or any(name.startswith("sentinel_") for name in options)):
        return "options for Sentinel", "write redis+sentinel://, or leave them out"
    if reserved := sorted(_RESERVED & {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}):
        return f"options that are decided here: {', '.join(reserved)}", mend
    try:
        limit = int(options.get("max_connections", 1))
    except ValueError:
        limit = 0
    return ("max_connections below 1", mend) if limit < 1 else None
