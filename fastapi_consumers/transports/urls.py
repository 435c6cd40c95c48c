"""Which transport a URL means. All that take a URL ask here, so that they take the same ones."""

import math
from datetime import timedelta
from functools import partial
from typing import cast
from urllib.parse import parse_qsl, urlencode, urlsplit

from broadcaster import Broadcast

from ..exceptions import ImproperlyConfigured, Problem
from ..redis_client import DEFAULT_PREFIX, SCHEMES, safe_url
from .base import Transport
from .broadcaster import BroadcasterTransport
from .memory import MemoryTransport
from .redis import RedisTransport

#: What goes through ``broadcaster``, and the extra of this package that brings what the backend needs.
BROADCASTER_SCHEMES = {"postgresql": "postgres", "postgres": "postgres", "kafka": "kafka"}
_EXPECTED = "memory://, redis://, rediss://, unix://, redis+sentinel://, redis+cluster://, postgresql:// or kafka://"


def transport_of(url: str, *, broker_timeout: float | timedelta = 1.0, reaches_others: bool = False) -> Transport:
    """A transport for this URL, not opened yet.

    Args:
        url: ``memory://``; a Redis or Valkey server (see :mod:`fastapi_consumers.redis_client`);
            ``postgresql://user:password@host/database`` or ``kafka://host:9092``, through ``broadcaster``, both with
            ``?prefix=``, by which several apps on one server are kept apart.
        broker_timeout: seconds that publishing, subscribing and connecting may take.
        reaches_others: whether ``memory://`` is left out of what an error recommends.

    Raises ``ImproperlyConfigured`` with the code ``bad-url``, ``bad-broker-timeout``, or ``missing-extra`` if what the
    backend needs is not installed. Its text holds no credentials.
    """
    seconds = seconds_of(broker_timeout)
    try:
        scheme = urlsplit(url).scheme if isinstance(cast(object, url), str) else ""
    except ValueError:  # Its text may quote the password.
        scheme = ""
    if scheme == "memory":
        return MemoryTransport()
    if scheme in SCHEMES:
        return RedisTransport(url, broker_timeout=seconds)
    if scheme in BROADCASTER_SCHEMES:
        return _over_broadcaster(url, scheme, seconds)
    problem = Problem(
        "bad-url",
        f"url={safe_url(url)!r}",
        "a URL of another kind" if scheme else "a URL that cannot be read",
        _EXPECTED.removeprefix("memory://, ") if reaches_others else _EXPECTED,
        "write one of these; other brokers are not supported",
    )
    raise ImproperlyConfigured("The broker", [problem])


def seconds_of(broker_timeout: float | timedelta) -> float:
    """The timeout in seconds. Raises ``ImproperlyConfigured`` unless it is a finite time above 0."""
    seconds = broker_timeout.total_seconds() if isinstance(broker_timeout, timedelta) else broker_timeout
    is_number = isinstance(cast(object, seconds), int | float) and not isinstance(cast(object, seconds), bool)
    if is_number and math.isfinite(seconds) and seconds > 0:
        return float(seconds)
    problem = Problem(
        "bad-broker-timeout",
        "broker_timeout",
        repr(broker_timeout),
        "seconds above 0, or a timedelta",
        "write broker_timeout=1.0",
    )
    raise ImproperlyConfigured("The broker", [problem])


def _over_broadcaster(url: str, scheme: str, seconds: float) -> Transport:
    url, prefix = _without_prefix(url)
    if (found := _mistake(url, scheme)) is not None:
        fix = "mend the URL; percent-encode what has a meaning in URLs, such as / ? # @ : in a password"
        raise ImproperlyConfigured("The broker", [Problem("bad-url", f"url={safe_url(url)!r}", found, _EXPECTED, fix)])
    extra = BROADCASTER_SCHEMES[scheme]
    try:
        return BroadcasterTransport(partial(Broadcast, url), prefix=prefix, broker_timeout=seconds, name=safe_url(url))
    except ImportError as error:
        problem = Problem(
            "missing-extra",
            f"url={safe_url(url)!r}",
            f"the package {error.name or 'that it needs'} is not installed",
            f"what the extra {extra!r} installs",
            f"pip install 'fastapi-consumers[{extra}]'",
        )
        raise ImproperlyConfigured("The broker", [problem]) from None


def _without_prefix(url: str) -> tuple[str, str]:
    """The URL without our own option, which the backend would not know, and that option."""
    start, mark, query = url.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    prefixes = [value for name, value in options if name == "prefix"]
    if not prefixes:
        return url, DEFAULT_PREFIX
    rest = urlencode([(name, value) for name, value in options if name != "prefix"])
    return f"{start}{mark if rest else ''}{rest}", prefixes[-1]


def _mistake(url: str, scheme: str) -> str | None:
    parts = urlsplit(url)
    if "@" in parts.path or parts.fragment:
        return "credentials that are not percent-encoded, or a fragment"
    if scheme == "kafka" and "@" in parts.netloc:
        return "credentials, which broadcaster does not hand on to Kafka"
    if scheme == "kafka" and not parts.netloc:
        return "no host"
    return None
