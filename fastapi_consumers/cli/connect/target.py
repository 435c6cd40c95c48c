"""Where ``connect`` connects to and what it offers there: the options of the command line, checked."""

import base64
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import click

from ...messages import Position
from ...protocols import JSON_SUBPROTOCOL, MSGPACK_SUBPROTOCOL

#: What the name of a header and a subprotocol may hold (RFC 9110, section 5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: What no value of a header may hold (RFC 9110, section 5.5).
_UNFIT = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Target:
    """One endpoint, and how to ask for it. ``timeout`` is in seconds."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    subprotocols: tuple[str, ...] = (JSON_SUBPROTOCOL,)
    origin: str | None = None
    insecure: bool = False
    timeout: float = 10.0

    @property
    def shown(self) -> str:
        """The URL without what may be secret: the query and a password."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def path(self) -> str:
        return urlsplit(self.url).path or "/"

    def url_from(self, positions: Mapping[str, Position]) -> str:
        """The URL that asks to go on from these positions of groups, in place of those that it names itself."""
        if not positions:
            return self.url
        parts = urlsplit(self.url)
        kept = [pair for pair in parts.query.split("&") if pair and not _asks_for_recovery(pair)]
        asked = [f"recover.{quote(group, safe='')}={epoch}:{offset}" for group, (epoch, offset) in positions.items()]
        return urlunsplit(parts._replace(query="&".join([*kept, *asked])))

    def tls(self) -> ssl.SSLContext | None:
        """How certificates are checked; ``None`` where there are none."""
        if not self.url.startswith("wss:"):
            return None
        context = ssl.create_default_context()
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _asks_for_recovery(pair: str) -> bool:
    name = pair.partition("=")[0]
    return name == "recover" or name.startswith("recover.")


def check_url(url: str) -> str:
    """``url`` if a WebSocket can be opened to it. Raises ``click.UsageError``, without its query and password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise click.UsageError(f"URL cannot be read: {error}.") from None
    if parts.scheme in ("ws", "wss") and host and not parts.fragment and url.isprintable() and " " not in url:
        return url
    rest = parts.netloc.rpartition("@")[2] + parts.path
    hint = ""
    if parts.scheme in ("http", "https") and host:
        hint = f" Did you mean {parts.scheme.replace('http', 'ws')}://{rest}?"
    elif parts.fragment:
        hint = " It cannot have a fragment: write %23 for a # in it."
    elif "://" not in url and "@" not in url:
        rest = url.partition("?")[0]
        hint = f" Did you mean ws://{rest.lstrip('/')}?"
    shown = f"{parts.scheme}://{rest}" if "://" in url else rest
    raise click.UsageError(f"Expected a URL such as ws://127.0.0.1:8000/chat/lobby or wss://…; found {shown!r}.{hint}")


def check_headers(headers: Sequence[str], cookies: Sequence[str]) -> list[tuple[str, str]]:
    """``NAME: VALUE`` and ``NAME=VALUE`` as pairs; the cookies are one header. Raises ``click.UsageError``."""
    found = []
    for text in headers:
        name, colon, value = text.partition(":")
        if not colon or not _TOKEN.fullmatch(name.strip()) or _UNFIT.search(value):
            raise click.UsageError(f"Expected --header 'NAME: VALUE'; found {text.partition(':')[0]!r} as its name.")
        found.append((name.strip(), value.strip()))
    for text in cookies:
        name, equals, value = text.partition("=")
        if not equals or not _TOKEN.fullmatch(name) or _UNFIT.search(value) or ";" in value:
            raise click.UsageError(f"Expected --cookie NAME=VALUE; found {name!r} as its name.")
    if cookies:
        found.append(("Cookie", "; ".join(cookies)))
    return found


def check_subprotocols(subprotocols: Sequence[str]) -> list[str]:
    """What is offered, which is the native protocol unless something is. Raises ``click.UsageError``."""
    for name in subprotocols:
        if name == MSGPACK_SUBPROTOCOL:
            raise click.UsageError(f"connect speaks JSON, not MessagePack: offer {JSON_SUBPROTOCOL}.")
        if not _TOKEN.fullmatch(name):
            raise click.UsageError(f"{name!r} cannot be a subprotocol: it may hold no spaces, commas or slashes.")
    return list(dict.fromkeys(subprotocols)) or [JSON_SUBPROTOCOL]


def token_header(token: str) -> tuple[str, str]:
    """The header that carries a token. Raises ``click.UsageError`` for one that no header can hold."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise click.UsageError("The token has characters that no header can hold: try --token-in subprotocol.")
    return "Authorization", f"Bearer {token}"


def token_offer(token: str) -> str:
    """The subprotocol that carries a token, encoded if it has to be."""
    if _TOKEN.fullmatch(token):
        return f"bearer.{token}"
    return "bearer64." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
