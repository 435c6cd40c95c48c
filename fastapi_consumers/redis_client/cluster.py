"""A cluster: each of 16384 slots is served by one node, and slots move between nodes.

What is known of it comes from ``CLUSTER SLOTS``; a node that is asked about a slot that it does not have names the one
that has it, by the errors ``MOVED`` and ``ASK`` of the Redis cluster specification.
"""

import random
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from redis.asyncio import Connection
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, ResponseError

from ..exceptions import Problem
from .servers import NobodyServes, Node, Servers, ask_each, worst_of
from .urls import Target

SLOTS = 16384
#: How many nodes are asked at a time who serves what.
ASKED_AT_ONCE = 3

_REDIRECTION = re.compile(r"\b(MOVED|ASK) (\d+) (\S*):(\d+)")


class Redirection(NamedTuple):
    """What a node said about a slot that it does not have, or is about to give away."""

    is_lasting: bool  #: False: this once, and after ``ASKING``.
    slot: int
    node: Node


def slot_of(key: bytes) -> int:
    """The slot of a key or channel; only of what is between the first ``{`` and ``}``, if there is anything."""
    slot: int = key_slot(key)
    return slot


def redirection_of(error: BaseException, asked: Node) -> Redirection | None:
    """What the error that ``asked`` answered with says, if it is one of these two."""
    if isinstance(error, AskError):
        return Redirection(
            isinstance(error, MovedError), error.slot_id, Node(_host(error.host) or asked.host, error.port)
        )
    if isinstance(error, ResponseError) and (match := _REDIRECTION.search(str(error))) is not None:
        # Older redis-py, which tells them apart only in its own client for clusters.
        return Redirection(match[1] == "MOVED", int(match[2]), Node(_host(match[3]) or asked.host, int(match[4])))
    return None


class Cluster(Servers):
    """Asks some of the nodes that are known, those of the URL among them.

    Args:
        connect_to: makes a connection to a node.
        timeout: seconds that a node has to answer.
    """

    def __init__(self, target: Target, connect_to: Callable[[Node], Connection], timeout: float) -> None:
        self._target = target
        self._connect_to = connect_to
        self._timeout = timeout
        self._named = [Node(*host) for host in target.hosts]
        self._nodes: set[Node] = set()
        self._slots: list[Node | None] = [None] * SLOTS

    def node_of(self, key: bytes) -> Node:
        slot = slot_of(key)
        node = self._slots[slot]
        if node is None:
            raise NobodyServes(f"no node is known to serve slot {slot}")
        return node

    def nodes(self) -> set[Node]:
        return self._nodes

    def moved(self, slot: int, node: Node) -> None:
        self._slots[slot] = node
        self._nodes.add(node)

    async def refresh(self) -> None:
        nodes = list({*self._named, *self._nodes})
        random.shuffle(nodes)
        failures: list[Exception] = []
        for at in range(0, len(nodes), ASKED_AT_ONCE):
            asked = nodes[at : at + ASKED_AT_ONCE]
            found: list[tuple[Node, Any]] = []

            def take(number: int, answer: Any, asked: list[Node] = asked, found: list[Any] = found) -> bool:
                found.append((asked[number], answer))
                return bool(answer)  # A node that was thrown out of the cluster knows of no slots.

            connections = [self._connect_to(node) for node in asked]
            failures += await ask_each(connections, self._timeout, "CLUSTER", "SLOTS", take=take)
            for node, answer in found:
                if answer:
                    self._learn(node, answer)
                    return
        if not failures:
            raise NobodyServes("no node knows of any slot")
        found_else, expected = "a server that is no node of a cluster", "nodes of a Redis or Valkey cluster"
        fix = "write redis:// for one server, redis+sentinel://…?service=… for sentinels"
        raise worst_of(failures, Problem("broker-not-cluster", self._target.shown, found_else, expected, fix))

    def _learn(self, asked: Node, answer: Iterable[Any]) -> None:
        slots: list[Node | None] = [None] * SLOTS
        nodes = set()
        for first, last, master, *replicas in answer:
            # Replicas are asked too when the masters are gone.
            for host, port, *_ in (master, *replicas):
                nodes.add(Node(_host(host) or asked.host, int(port)))
            owner = Node(_host(master[0]) or asked.host, int(master[1]))
            slots[first : last + 1] = [owner] * (last - first + 1)
        self._slots, self._nodes = slots, nodes


def _host(host: bytes | str | None) -> str:
    """Empty where the node does not know how it is reached: then by the address by which it was."""
    text = host.decode() if isinstance(host, bytes) else host or ""
    return "" if text == "?" else text
