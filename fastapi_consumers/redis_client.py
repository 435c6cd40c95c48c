"""A client of one Redis or Valkey server, shared by all that use it: bounded in connections, and in time.

The URL is redis-py's: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` for TLS, ``unix:///path.sock``;
``valkey://`` and ``valkeys://`` mean the same as ``redis://`` and ``rediss://``. Options follow as a query: those of
redis-py's connections (``ssl_ca_certs``, ``client_name``, …), and

- ``prefix``: what the names of all channels and keys begin with, ``fc:`` by default;
- ``max_connections``: how many connections commands may use at a time, 16 by default.

No message and no log entry made here holds credentials.
"""

import asyncio
import ssl
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError

from .exceptions import BrokerUnavailable, ImproperlyConfigured, Problem

#: What a URL may begin with, and what redis-py calls it.
SCHEMES = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
DEFAULT_PREFIX = "fc:"
#: Connections for commands. Who finds all of them in use waits, and no longer than ``timeout``.
MAX_CONNECTIONS = 16
#: What goes wrong on a connection. ``OSError`` includes ``TimeoutError``.
FAILURES = (RedisError, OSError)

#: Query parameters whose values may be shown.
_SHOWN = {"db", "prefix", "max_connections", "client_name", "ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs"}
#: Query parameters that are decided here.
_RESERVED = {"connection_class", "decode_responses", "protocol", "retry_on_timeout", "timeout"}
_EXPECTED = "redis://host:6379/0, rediss://… for TLS, or unix:///path/to.sock (valkey:// and valkeys:// too)"


def safe_url(url: object) -> str:
    """The URL without user, password and whatever else could be secret: for messages and logs."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "(a URL that cannot be read)"
    if not parts.scheme:
        return "(a URL without a scheme)"
    if "@" in parts.path + parts.query + parts.fragment:
        # A password that is not percent-encoded: it could be anywhere.
        return f"{parts.scheme}://(credentials that are not percent-encoded)"
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    user = "***@" if "@" in parts.netloc else ""
    query = [
        (name, value if name in _SHOWN else "***") for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    shown = urlencode(query, safe=":/*")
    if not (user or host or port):  # A path has only one slash where there is no host, and three are what was written.
        return f"{parts.scheme}://{parts.path}{f'?{shown}' if shown else ''}"
    return urlunsplit((parts.scheme, f"{user}{host}{port}", parts.path, shown, ""))


class RedisClient:
    """Commands over a bounded pool, and connections of their own for those who subscribe.

    ``open`` and ``close`` are counted: whoever shares the client opens it before use and closes it after. Raises
    ``ImproperlyConfigured`` for a URL that cannot be meant.

    Args:
        timeout: seconds that a command may take in all: waiting for a connection, connecting, sending, the answer.
            Nothing is tried twice, since what is lost on the way back has been done.
    """

    def __init__(self, url: str, *, timeout: float = 1.0, max_connections: int = MAX_CONNECTIONS) -> None:
        options = _options_of(url)
        self.url = safe_url(url)
        self.timeout = timeout
        self.prefix = str(options.pop("prefix", DEFAULT_PREFIX))
        self._max_connections = int(options.pop("max_connections", max_connections))
        self._connection_class: type[Connection] = options.pop("connection_class", Connection)
        if self._connection_class.__name__ == "SSLConnection" and options.get("ssl_cert_reqs") != "none":
            options.setdefault("ssl_check_hostname", True)  # Not the default of every redis-py.
        self._options = {
            "socket_keepalive": True,
            **options,
            "decode_responses": False,
            # Pushes of version 3 would have to be told from answers.
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
        }
        if "path" in self._options:
            del self._options["socket_keepalive"]
        try:
            self.new_connection()
        except (TypeError, ValueError, RedisError) as error:
            # Its text names options; it could hold a value only if that is one of few known words.
            raise _bad_url(url, f"an option that redis-py does not take: {error}", "mend the part after ?") from None
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._redis: Redis | None = None

    def __repr__(self) -> str:
        return f"RedisClient({self.url!r})"

    @property
    def redis(self) -> Redis:
        """redis-py's client. Raises ``BrokerUnavailable`` if this is not open."""
        if self._redis is None:
            raise BrokerUnavailable
        return self._redis

    def new_connection(self) -> Connection:
        """A connection outside the pool, not connected yet, that the caller closes. It never reconnects for a retry."""
        return self._connection_class(**self._options)

    async def open(self) -> None:
        """Begin to use it; connects nothing yet. What is left of another event loop is forgotten."""
        loop = asyncio.get_running_loop()
        if self._redis is None or self._loop is not loop:
            pool: BlockingConnectionPool = BlockingConnectionPool(
                max_connections=self._max_connections,
                timeout=self.timeout,
                connection_class=self._connection_class,
                **self._options,
            )
            self._users, self._loop, self._redis = 0, loop, Redis(connection_pool=pool)
        self._users += 1

    async def close(self) -> None:
        """End one use; the last one disconnects."""
        if self._redis is None or self._loop is not asyncio.get_running_loop():
            return
        self._users -= 1
        if self._users <= 0:
            redis, self._redis = self._redis, None
            try:
                await redis.connection_pool.disconnect()
            except FAILURES:
                pass  # It does not answer, and is not needed any more.

    async def drop_idle(self) -> None:
        """Disconnect what nobody uses: after the server was gone, commands would fail on what is left of before."""
        if self._redis is not None:
            try:
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            except FAILURES:
                pass  # It is closed, though not in order.

    async def execute(self, *command: Any) -> Any:
        """Run one command. Raises ``BrokerUnavailable`` within ``timeout``; then it may have been done or not."""
        redis: Any = self.redis
        try:
            async with asyncio.timeout(self.timeout):
                return await redis.execute_command(*command)
        except FAILURES as error:
            raise BrokerUnavailable from error

    async def run_script(self, script: str, keys: Sequence[str | bytes], args: Sequence[Any] = ()) -> Any:
        """Run a Lua script, which a server is sent once and knows by its hash from then on (``EVALSHA``).

        All keys are named in ``keys``, and in a cluster they share a slot: they have one and the same ``{hash tag}``.

        Args:
            script: the text; a constant of the program, since servers keep every script that they are sent.
            args: text, bytes or numbers.

        Raises ``BrokerUnavailable`` within ``timeout``, an error in the script included; then it may have run or not.
        """
        redis: Any = self.redis
        try:
            async with asyncio.timeout(self.timeout):
                try:
                    return await redis.execute_command("EVALSHA", _hash_of(script), len(keys), *keys, *args)
                except NoScriptError:  # It has not run: a new server, or one that was restarted.
                    return await redis.execute_command("EVAL", script, len(keys), *keys, *args)
        except FAILURES as error:
            raise BrokerUnavailable from error

    async def check(self, channel: str | bytes) -> None:
        """For the startup: whether the server answers, is of a kind that is supported, and lets this client publish.

        Raises what :meth:`startup_error` makes. An empty message goes to ``channel``.
        """
        redis: Any = self.redis
        try:
            async with asyncio.timeout(self.timeout):
                mode = await _mode_of(redis)
                await redis.execute_command("PUBLISH", channel, b"")
        except FAILURES as error:
            raise self.startup_error(error) from error
        if mode in ("cluster", "sentinel"):
            problem = Problem(
                f"broker-{mode}",
                self.url,
                f"a server in {mode} mode",
                "one Redis or Valkey server, with replicas or without",
                f"{mode.capitalize()} is not supported yet: name a server that stands alone",
            )
            raise ImproperlyConfigured("The broker", [problem])

    def startup_error(self, error: BaseException) -> Exception:
        """The error to start with: ``ImproperlyConfigured`` if waiting would not help, else ``BrokerUnavailable``.

        The latter's notes tell what was tried, and its message, which clients may see, does not.
        """
        found = str(error) or f"no answer within {self.timeout:g} s"
        if isinstance(error, AuthenticationError | ResponseError):
            fix = "check user and password in the URL (percent-encoded), the database, and the user's ACL"
            problem = Problem("broker-refused", self.url, found, "a server that lets this client in", fix)
            return ImproperlyConfigured("The broker", [problem])
        if _is_tls(error):
            fix = "name the CA with ?ssl_ca_certs=/path/ca.pem, and the server as its certificate names it"
            problem = Problem("broker-tls", self.url, found, "a certificate that can be verified", fix)
            return ImproperlyConfigured("The broker", [problem])
        unavailable = BrokerUnavailable()
        unavailable.add_note(f"tried:    {self.url}")
        unavailable.add_note(f"found:    {found}")
        unavailable.add_note(f"expected: a Redis or Valkey server that answers within {self.timeout:g} s")
        unavailable.add_note("fix:      start it, or mend the URL; rediss:// is for servers with TLS, redis:// without")
        return unavailable


@lru_cache(maxsize=256)
def _hash_of(script: str) -> str:
    # Redis names scripts by SHA-1; nothing depends on its strength.
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


async def _mode_of(redis: Any) -> str:
    try:
        answer = await redis.execute_command("HELLO")
    except AuthenticationError:
        raise
    except ResponseError:
        return ""  # An old server, or a proxy.
    pairs = answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=False))
    mode = pairs.get(b"mode", pairs.get("mode", b""))
    return mode.decode() if isinstance(mode, bytes) else str(mode)


def _options_of(url: object) -> dict[str, Any]:
    if not isinstance(url, str):
        raise _bad_url(url, f"a value of type {type(url).__name__}", "write the URL as text")
    try:
        parts = urlsplit(url)
        scheme = SCHEMES.get(parts.scheme)
        # Its errors may quote what they could not read: a part of the password.
        options: dict[str, Any] = dict(parse_url(urlunsplit(parts._replace(scheme=scheme)))) if scheme else {}
    except ValueError:
        fix = "percent-encode what has a meaning in URLs, such as / ? # @ : in a password, and check host and port"
        raise _bad_url(url, "a URL that cannot be read", fix) from None
    if scheme is None:
        fix = (
            "Sentinel and Cluster are not supported yet: name one server" if "+" in parts.scheme else "mend the scheme"
        )
        raise _bad_url(url, "a URL of another kind", fix)
    if (found := _mistake(parts, scheme, options)) is not None:
        raise _bad_url(url, found, "mend the URL")
    return options


def _mistake(parts: SplitResult, scheme: str, options: dict[str, Any]) -> str | None:
    if "," in parts.netloc.rpartition("@")[2]:
        return "several hosts, where one server is supported yet"
    if "@" in parts.path or parts.fragment:
        return "credentials that are not percent-encoded, or a fragment"
    if scheme == "unix" and not parts.path.strip("/"):
        return "no path of a socket"
    if scheme != "unix" and parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        return "a path that is no number of a database"
    if reserved := sorted(_RESERVED & {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}):
        return f"options that are decided here: {', '.join(reserved)}"
    if options.get("max_connections", 1) < 1:
        return "max_connections below 1"
    return None


def _bad_url(url: object, found: str, fix: str) -> ImproperlyConfigured:
    return ImproperlyConfigured("The broker", [Problem("bad-url", safe_url(url), found, _EXPECTED, fix)])


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
