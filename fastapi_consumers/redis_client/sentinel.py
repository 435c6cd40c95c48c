"""The server that sentinels call the master, which is another one after a failover.

Clients ask sentinels for its address, and ask a server that they connect to whether it is the master, as Redis'
guidelines for Sentinel clients say. A server that stops being the master is told by the sentinels to close its
connections.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from redis.asyncio import Connection
from redis.exceptions import ConnectionError as LostConnection

from ..exceptions import Problem
from .servers import NobodyServes, Node, Servers, WrongServers, ask_each, worst_of
from .urls import Target


class Sentinels(Servers):
    """Asks all of the sentinels, and believes most of those that answer.

    Args:
        connect_to: makes a connection to a sentinel.
        timeout: seconds that a sentinel has to answer.
    """

    def __init__(self, target: Target, connect_to: Callable[[Node], Connection], timeout: float) -> None:
        self._target = target
        self._connect_to = connect_to
        self._timeout = timeout
        self._master: Node | None = None

    def node_of(self, key: bytes) -> Node:
        if self._master is None:
            raise NobodyServes(f"no sentinel has named the master of {self._target.service!r}")
        return self._master

    def nodes(self) -> set[Node]:
        return set() if self._master is None else {self._master}

    async def refresh(self) -> None:
        sentinels = [Node(*host) for host in self._target.hosts]
        named: Counter[Node | None] = Counter()

        def take(_: int, answer: Any) -> bool:
            node = Node(answer[0].decode(), int(answer[1])) if answer else None
            named[node] += 1
            return named[node] * 2 > len(sentinels)

        connections = [self._connect_to(sentinel) for sentinel in sentinels]
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._target.service)
        failures = await ask_each(connections, self._timeout, *command, take=take)
        # One that knows nothing of the service may be about to learn of it.
        for node, _ in named.most_common():
            if node is not None:
                self._master = node
                return
        if named:
            fix = "name the service as the sentinels' configuration does: sentinel monitor NAME …"
            found, expected = f"sentinels that know no {self._target.service!r}", "the name of one of their masters"
            raise WrongServers(Problem("broker-no-such-service", self._target.shown, found, expected, fix))
        found, expected = "a server that is no sentinel", "sentinels, whose port is 26379 by default"
        fix = "name the sentinels, or write redis:// or redis+cluster:// for what these are"
        raise worst_of(failures, Problem("broker-not-sentinel", self._target.shown, found, expected, fix))


async def connect_to_master(connection: Connection) -> None:
    """What redis-py calls when it has connected. Raises ``ConnectionError`` if the server is not the master."""
    unchecked = cast(Any, connection)
    await unchecked.on_connect()
    await unchecked.send_command("ROLE")
    async with asyncio.timeout(unchecked.socket_timeout):
        answer = await unchecked.read_response()
    if answer[0] not in (b"master", "master"):
        raise LostConnection("the server is not the master any more, or not yet")
