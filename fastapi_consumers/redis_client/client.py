"""Commands over bounded pools, and connections of their own for those who subscribe."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from hashlib import sha1
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError

from ..exceptions import BrokerUnavailable, ImproperlyConfigured, Problem
from .cluster import Cluster, redirection_of
from .sentinel import Sentinels, connect_to_master
from .servers import FAILURES, NobodyServes, Node, Servers, Single, WrongServers
from .urls import Target, bad_url, read_url

#: Connections for commands, to each node. Who finds all of them in use waits, and no longer than ``timeout``.
MAX_CONNECTIONS = 16
#: How often a command follows a slot that is being moved.
MAX_REDIRECTIONS = 5
#: Seconds in which a node that fails does not have everybody who uses it ask anew who serves what.
REFRESH_PAUSE = 0.1
#: Seconds before a command is tried again whose keys are on their way from one node to another.
TRY_AGAIN_PAUSE = 0.02


class RedisClient:
    """One server, the master that sentinels name, or a cluster.

    ``open`` and ``close`` are counted: whoever shares the client opens it before use and closes it after. Raises
    ``ImproperlyConfigured`` for a URL that cannot be meant.

    Args:
        url: see :mod:`.urls`.
        timeout: seconds that a command may take in all: waiting for a connection, connecting, sending, the answer.
            Nothing is tried twice, since what is lost on the way back has been done; only what a node of a cluster
            refused, because another one has the key.
    """

    def __init__(self, url: str, *, timeout: float = 1.0, max_connections: int = MAX_CONNECTIONS) -> None:
        target = read_url(url)
        self.url = target.shown
        self.timeout = timeout
        self.prefix = target.prefix
        self.mode = target.mode
        #: Called when it was found that other servers serve some keys, or may do so.
        self.listeners: list[Callable[[], None]] = []
        self._target = target
        self._max_connections = max_connections if target.max_connections is None else target.max_connections
        self._options = _connection_options(target, timeout)
        self._servers = self._new_servers()
        try:
            for node in map(Node._make, target.hosts or [("", 0)]):
                self.new_connection(node)
        except (TypeError, ValueError, RedisError) as error:
            # Its text names options; it could hold a value only if that is one of few known words.
            raise bad_url(url, f"an option that redis-py does not take: {error}", "mend the part after ?") from None
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pools: dict[Node, Redis] = {}
        #: Nodes that failed since it was last asked who serves what, when that was, and the task that asks.
        self._suspects: set[Node] = set()
        self._refreshed_at = 0.0
        self._refreshing: asyncio.Task[Exception | None] | None = None

    def __repr__(self) -> str:
        return f"RedisClient({self.url!r})"

    def _new_servers(self) -> Servers:
        target, patience = self._target, self.timeout / 2
        if target.mode == "sentinel":
            return Sentinels(target, self._new_sentinel_connection, patience)
        if target.mode == "cluster":
            return Cluster(target, self.new_connection, patience)
        return Single(Node(*target.hosts[0]) if target.hosts else Node())

    @property
    def is_sharded(self) -> bool:
        """Whether it is a cluster, in which publishing and subscribing are sharded: ``SPUBLISH``, ``SSUBSCRIBE``."""
        return self.mode == "cluster"

    @property
    def can_move(self) -> bool:
        """Whether other servers may come to serve what these serve."""
        return self._servers.can_change

    def node_of(self, key: str | bytes) -> Node:
        """Who serves a key or channel, as far as is known. Raises ``BrokerUnavailable`` if that is nobody."""
        try:
            return self._servers.node_of(key.encode() if isinstance(key, str) else key)
        except NobodyServes as error:
            raise BrokerUnavailable from error

    def new_connection(self, node: Node) -> Connection:
        """A connection outside the pools, not connected yet, that the caller closes. It never reconnects for a retry.

        Connecting fails if the node is to be the master that sentinels name, and is not.
        """
        return self._target.connection_class(**_options_for(self._options, node))

    def _new_sentinel_connection(self, node: Node) -> Connection:
        own = {name: value for name, value in self._options.items() if name not in _ONLY_FOR_DATA}
        return self._target.connection_class(**_options_for({**own, **self._target.sentinel_options}, node))

    async def open(self) -> None:
        """Begin to use it; connects nothing yet. What is left of another event loop is forgotten."""
        loop = asyncio.get_running_loop()
        if self._users == 0 or self._loop is not loop:
            self._users, self._loop, self._pools = 0, loop, {}
            self._servers, self._suspects, self._refreshing, self._refreshed_at = self._new_servers(), set(), None, 0.0
        self._users += 1

    async def close(self) -> None:
        """End one use; the last one disconnects."""
        if self._users == 0 or self._loop is not asyncio.get_running_loop():
            return
        self._users -= 1
        if self._users > 0:
            return
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait((self._refreshing,))
        pools, self._pools = self._pools, {}
        for redis in pools.values():
            await _disconnect(redis, everything=True)

    async def suspect(self, node: Node) -> None:
        """Disconnect what nobody uses: after a server was gone, commands would fail on what is left of before."""
        self._suspects.add(node)
        if (redis := self._pools.get(node)) is not None:
            await _disconnect(redis, everything=False)

    async def refresh(self) -> None:
        """Ask who serves what; many who want to know at a time ask once. Raises one of ``FAILURES``."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh(), name="fastapi_consumers: Redis topology")
        failure = await asyncio.shield(self._refreshing)
        if failure is not None:
            raise failure

    async def _refresh(self) -> Exception | None:
        suspects = set(self._suspects)
        try:
            await self._servers.refresh()
        except FAILURES as error:
            return error
        self._suspects -= suspects
        self._refreshed_at = time.monotonic()
        for listener in tuple(self.listeners):
            listener()
        for node in self._pools.keys() - self._servers.nodes():
            await _disconnect(self._pools.pop(node), everything=True)
        return None

    async def execute(self, *command: Any, key: str | bytes | None = None) -> Any:
        """Run one command. Raises ``BrokerUnavailable`` within ``timeout``; then it may have been done or not.

        Args:
            key: by which a cluster finds the node; by default what follows the command's name, which is a key for most.
        """
        if key is None:
            key = command[1] if len(command) > 1 and isinstance(command[1], str | bytes) else b""
        return await self._run(key, lambda redis, asking: _call(redis, asking, *command))

    async def run_script(self, script: str, keys: Sequence[str | bytes], args: Sequence[Any] = ()) -> Any:
        """Run a Lua script, which a server is sent once and knows by its hash from then on (``EVALSHA``).

        All keys are named in ``keys``, and in a cluster they share a slot: they have one and the same ``{hash tag}``.

        Args:
            script: the text; a constant of the program, since servers keep every script that they are sent.
            args: text, bytes or numbers.

        Raises ``BrokerUnavailable`` within ``timeout``, an error in the script included; then it may have run or not.
        """

        async def run(redis: Any, asking: bool) -> Any:
            try:
                return await _call(redis, asking, "EVALSHA", _hash_of(script), len(keys), *keys, *args)
            except NoScriptError:  # It has not run: a new server, or one that was restarted.
                return await _call(redis, asking, "EVAL", script, len(keys), *keys, *args)

        return await self._run(keys[0] if keys else b"", run)

    async def _run(self, key: str | bytes, call: Callable[[Any, bool], Awaitable[Any]]) -> Any:
        if self._users == 0:
            raise BrokerUnavailable
        # Python 3.11's wait_for, which redis-py sends with, may swallow a cancellation.
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelling = task.cancelling()
        try:
            async with asyncio.timeout(self.timeout):
                found = await self._run_where_it_is(key.encode() if isinstance(key, str) else key, call)
        except FAILURES as error:
            if task.cancelling() > cancelling:
                raise asyncio.CancelledError from error
            raise BrokerUnavailable from error
        if task.cancelling() > cancelling:
            raise asyncio.CancelledError
        return found

    async def _run_where_it_is(self, key: bytes, call: Callable[[Any, bool], Awaitable[Any]]) -> Any:
        node, asking = await self._find(key), False
        for left in reversed(range(MAX_REDIRECTIONS)):
            try:
                return await call(self._pool(node), asking)
            except ResponseError as error:
                if not self.can_move:
                    raise
                redirection = redirection_of(error, node)
                if redirection is not None and left:
                    node, asking = redirection.node, not redirection.is_lasting
                    if redirection.is_lasting:
                        self._servers.moved(redirection.slot, node)
                elif left and "TRYAGAIN" in f"{type(error).__name__} {error}".upper():
                    await asyncio.sleep(TRY_AGAIN_PAUSE)
                else:
                    self._suspects.add(node)  # Such as a cluster that is down, or a server that has become read-only.
                    raise
            except (*FAILURES, asyncio.CancelledError):  # It is cancelled when the time is up.
                if self.can_move:
                    self._suspects.add(node)
                raise
        raise NobodyServes("a slot was moved on and on")

    async def _find(self, key: bytes) -> Node:
        if self.can_move:
            try:
                node = self._servers.node_of(key)
            except NobodyServes:
                pass
            else:
                if node not in self._suspects or time.monotonic() - self._refreshed_at < REFRESH_PAUSE:
                    return node
            await self.refresh()
        return self._servers.node_of(key)

    def _pool(self, node: Node) -> Redis:
        redis = self._pools.get(node)
        if redis is None:
            pool: BlockingConnectionPool = BlockingConnectionPool(
                max_connections=self._max_connections,
                timeout=self.timeout,
                connection_class=self._target.connection_class,
                **_options_for(self._options, node),
            )
            redis = self._pools[node] = Redis(connection_pool=pool)
        return redis

    async def check(self, channel: str | bytes) -> None:
        """For the startup: whether the servers answer, are of the kind that the URL says, and let this client publish.

        Raises what :meth:`startup_error` makes. An empty message goes to ``channel``.
        """
        key = channel.encode() if isinstance(channel, str) else channel
        try:
            async with asyncio.timeout(self.timeout):
                await self.refresh()
                redis = cast(Any, self._pool(self._servers.node_of(key)))
                if self.mode == "single" and (other := _OTHER_MODES.get(await _mode_of(redis))) is not None:
                    found, fix = f"a server of another kind: {other[0]}", f"write {other[1]}, with rediss for TLS"
                    expected = "a server that stands alone, with replicas or without, as the URL says"
                    raise WrongServers(Problem(other[2], self.url, found, expected, fix))
                await redis.execute_command("SPUBLISH" if self.is_sharded else "PUBLISH", channel, b"")
        except FAILURES as error:
            raise self.startup_error(error) from error

    def startup_error(self, error: BaseException) -> Exception:
        """The error to start with: ``ImproperlyConfigured`` if waiting would not help, else ``BrokerUnavailable``.

        The latter's notes tell what was tried, and its message, which clients may see, does not.
        """
        if isinstance(error, WrongServers):
            return ImproperlyConfigured("The broker", [error.problem])
        found = str(error) or f"no answer within {self.timeout:g} s"
        if isinstance(error, AuthenticationError | ResponseError) and "CLUSTERDOWN" not in found:
            fix = "check user and password in the URL (percent-encoded), the database, and the user's ACL"
            if self.is_sharded:
                fix += "; publishing in a cluster needs Redis 7 or Valkey"
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
        fix = "start it, or mend the URL; rediss:// is for servers with TLS, redis:// without"
        if not str(error):
            fix += "; a server that is only slow gets more seconds by broker_timeout"
        unavailable.add_note(f"fix:      {fix}")
        return unavailable


#: What a server says of itself that the URL takes for one server: what it is, what to write, and the problem's code.
_OTHER_MODES = {
    "cluster": ("a node of a cluster", "redis+cluster://host:6379", "broker-cluster"),
    "sentinel": ("a sentinel", "redis+sentinel://host:26379?service=mymaster", "broker-sentinel"),
}
#: Options that mean nothing to a sentinel, or are others for it.
_ONLY_FOR_DATA = {"db", "username", "password", "redis_connect_func", "client_name"}


def _connection_options(target: Target, timeout: float) -> dict[str, Any]:
    options = {
        "socket_keepalive": True,
        **target.options,
        "decode_responses": False,
        # Pushes of version 3 would have to be told from answers.
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
    }
    if target.connection_class.__name__ == "SSLConnection" and options.get("ssl_cert_reqs") != "none":
        options.setdefault("ssl_check_hostname", True)  # Not the default of every redis-py.
    if target.mode == "sentinel":
        options["redis_connect_func"] = connect_to_master
    if "path" in options:
        del options["socket_keepalive"]
    return options


def _options_for(options: dict[str, Any], node: Node) -> dict[str, Any]:
    return {**options, "host": node.host, "port": node.port} if node.host else options


async def _call(redis: Any, asking: bool, *command: Any) -> Any:
    if not asking:
        return await redis.execute_command(*command)
    # A node that is about to be given the slot does it for the next command of this connection only.
    pipeline = redis.pipeline(transaction=False)
    pipeline.execute_command("ASKING")
    pipeline.execute_command(*command)
    return (await pipeline.execute())[1]


async def _disconnect(redis: Redis, *, everything: bool) -> None:
    try:
        await redis.connection_pool.disconnect(inuse_connections=everything)
    except FAILURES:
        pass  # It is closed, though not in order.


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


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
