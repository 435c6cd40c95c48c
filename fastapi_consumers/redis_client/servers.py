"""Which server is asked about which key: the question that each way of running Redis answers differently."""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from redis.asyncio import Connection
from redis.exceptions import RedisError, ResponseError

from ..exceptions import Problem

#: What goes wrong on a connection. ``OSError`` includes ``TimeoutError``.
FAILURES = (RedisError, OSError)


class Node(NamedTuple):
    """Where a server listens. Both are empty for a Unix socket."""

    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if host else "a Unix socket"


class WrongServers(RedisError):
    """The URL leads to something, and not to what it says. Waiting will not help."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.found)
        self.problem = problem


class NobodyServes(RedisError):
    """No server is known for a key at present."""


class Servers(ABC):
    """What is known about who serves what."""

    #: Whether ``refresh`` can find anything new.
    can_change = True

    @abstractmethod
    def node_of(self, key: bytes) -> Node:
        """Raises :class:`NobodyServes`."""

    @abstractmethod
    def nodes(self) -> set[Node]:
        """Those that serve anything, or may come to."""

    @abstractmethod
    async def refresh(self) -> None:
        """Ask. Raises one of ``FAILURES`` if nobody could tell; then what was known is kept."""

    def moved(self, slot: int, node: Node) -> None:
        """A server said of a slot that another one has it now."""
        return None


class Single(Servers):
    """One server, for all keys and for ever."""

    can_change = False

    def __init__(self, node: Node) -> None:
        self._node = node

    def node_of(self, key: bytes) -> Node:
        return self._node

    def nodes(self) -> set[Node]:
        return {self._node}

    async def refresh(self) -> None:
        return None


async def ask(connection: Connection, timeout: float, *command: Any) -> Any:
    """The answer to one command on a connection that is made for it. Raises one of ``FAILURES`` within ``timeout``."""
    unchecked = cast(Any, connection)
    try:
        async with asyncio.timeout(timeout):
            await unchecked.connect()
            await unchecked.send_command(*command)
            return await unchecked.read_response()
    finally:
        await disconnect(connection)


async def ask_each(
    connections: list[Connection], timeout: float, *command: Any, take: Callable[[int, Any], bool]
) -> list[Exception]:
    """Ask all at once, and give ``take`` the number of each that answers with its answer, until it returns true.

    Returns what the others failed with.
    """
    failures: list[Exception] = []

    async def one(number: int, connection: Connection) -> tuple[int, Any]:
        return number, await ask(connection, timeout, *command)

    tasks = [asyncio.create_task(one(*each)) for each in enumerate(connections)]
    try:
        for task in asyncio.as_completed(tasks):
            try:
                if take(*await task):
                    break
            except FAILURES as error:
                failures.append(error)
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return failures


def worst_of(failures: list[Exception], wrong_servers: Problem) -> Exception:
    """Of what those that were asked failed with, what is raised: rather what can be mended than what may pass.

    Args:
        wrong_servers: what it means that a server does not know the command.
    """
    worst = min(failures, key=lambda error: not isinstance(error, ResponseError))
    if isinstance(worst, ResponseError) and re.search("unknown command|support disabled", str(worst), re.IGNORECASE):
        raise WrongServers(wrong_servers) from worst
    return worst


async def disconnect(connection: Connection) -> None:
    """Close it, at once."""
    try:
        await connection.disconnect(nowait=True)
    except FAILURES:
        pass  # It is closed, though not in order.
