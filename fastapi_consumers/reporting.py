"""What a process tells of itself when it is asked: see :mod:`.asking` for how, and ``admin`` for who asks.

Answers are bounded: a list holds the first items of an order, behind the item that the asker had last. So who merges
the lists of all processes has the first items of all of them. Lists of thousands are gone through in pieces, between
which others get their turn.
"""

import asyncio
import heapq
import logging
import os
import platform
import socket
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .addressing import GROUP
from .asking import Answerer
from .connection import Connection
from .exceptions import InvalidData, NotFound
from .facts import address_of, facts_of, user_of
from .guessing import guesses_of
from .identity import client_address
from .plan import Plan
from .stepping import settled
from .throttling import BaseThrottle

if TYPE_CHECKING:
    from .runtime import Consumers

#: Items of one answer.
MAX_ITEMS = 200
#: Connections or groups that are looked at before the event loop gets its turn: about a millisecond.
CHUNK = 500
#: Groups of a connection that are listed, and characters of a text that is shown.
MAX_GROUPS, MAX_TEXT = 8, 200
#: The only loggers whose level is changed from outside.
LOGGER = "fastapi_consumers"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "NOTSET")

#: By which connections are ordered: the greatest first, but for ``oldest``.
CONNECTION_ORDERS: Mapping[str, Callable[[Connection], float]] = {
    "newest": lambda connection: -connection.opened_at,
    "oldest": lambda connection: connection.opened_at,
    "queued": lambda connection: -connection.outbox.waiting,
    "sent": lambda connection: -connection.outbox.sent,
    "dropped": lambda connection: -connection.outbox.dropped,
}
GROUP_ORDERS = ("name", "size")


def answerers(consumers: "Consumers") -> dict[str, Answerer]:
    """What one application's process answers, by question."""
    report = _Reports(consumers)
    return {
        "sample": report.sample,
        "process": report.process,
        "connections": report.connections,
        "groups": report.groups,
        "group_counts": report.group_counts,
        "log_level": report.log_level,
        "set_log_level": report.set_log_level,
        "reset_throttles": report.reset_throttles,
    }


class _Reports:
    def __init__(self, consumers: "Consumers") -> None:
        self._consumers = consumers

    async def sample(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The numbers that are drawn. None of them goes by name, so that there are always as many."""
        consumers, queued = self._consumers, 0
        # Read before the others are: who ends meanwhile is counted with the next sample.
        sent, dropped = consumers.past["sent"], consumers.past["dropped"]
        for connections in _pieces(list(consumers.connections)):
            for connection in connections:
                queued += connection.outbox.waiting
                sent += connection.outbox.sent
                dropped += connection.outbox.dropped
            await asyncio.sleep(0)
        health = consumers.health()
        return {
            "connections": health["connections"],
            "groups": health["groups"],
            "queued": queued,
            "sent": sent,
            "dropped": dropped,
            "overflows": sum(health["overflows"].values()),
            "healthy": health["healthy"],
        }

    async def process(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        consumers = self._consumers
        opened_at = consumers.asking.opened_at
        return {
            "host": socket.gethostname()[:MAX_TEXT],
            "pid": os.getpid(),
            "python": platform.python_version(),
            "opened_at": opened_at,
            "consumers": dict(Counter(_name(connection.plan) for connection in list(consumers.connections))),
            "health": consumers.health(),
        }

    # -- lists -----------------------------------------------------------------------------------------------------

    async def connections(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """``order``, ``limit``, ``after``; ``group``, ``user``, ``address``, ``consumer``, ``channel``, ``search``."""
        order = CONNECTION_ORDERS.get(str(arguments.get("order")), CONNECTION_ORDERS["newest"])
        matches = _filter(arguments)
        total = 0
        best: list[tuple[float, str, Connection]] = []
        after, limit = _key(arguments.get("after"), (float, str)), _limit(arguments)
        for connections in _pieces(list(self._consumers.connections)):
            found = [
                (order(connection), connection.channel_name, connection)
                for connection in connections
                if connection.is_accepted and not connection.is_closing and matches(connection)
            ]
            total += len(found)
            rest = (item for item in found if after is None or item[:2] > after)
            best = heapq.nsmallest(limit, [*best, *rest], key=_place)
            await asyncio.sleep(0)
        return {"total": total, "items": [[[*item[:2]], describe(item[2])] for item in best]}

    async def groups(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """``order``, ``limit``, ``after``, ``search``: names, with how many connections they have here."""
        by_size, text = arguments.get("order") == "size", _text(arguments, "search").casefold()
        limit, total = _limit(arguments), 0
        kinds = (float, str) if by_size else (str,)
        after = _key(arguments.get("after"), kinds)
        hub = self._consumers.hub
        best: list[tuple[tuple[Any, ...], int]] = []
        for topics in _pieces([topic for topic in hub.topics() if topic.startswith(GROUP)]):
            found = []
            for topic in topics:
                name, count = topic[len(GROUP) :], hub.count(topic)
                if count and (not text or text in name.casefold()):
                    total += 1
                    key: tuple[Any, ...] = (-count, name) if by_size else (name,)
                    if after is None or key > after:
                        found.append((key, count))
            best = heapq.nsmallest(limit, [*best, *found])
            await asyncio.sleep(0)
        return {"total": total, "items": [[[*key], count] for key, count in best]}

    async def group_counts(self, arguments: Mapping[str, Any]) -> dict[str, int]:
        """How many connections the groups of these ``names`` have here."""
        names = arguments.get("names")
        listed = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        return {name: count for name in listed[:1000] if (count := self._consumers.hub.count(GROUP + name))}

    # -- commands --------------------------------------------------------------------------------------------------

    async def log_level(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """The level of each of our loggers that has one of its own, and of the one above them all."""
        loggers = [logging.getLogger(LOGGER), *map(logging.getLogger, _own_loggers())]
        found = {logger.name: logging.getLevelName(logger.level) for logger in loggers if logger.level}
        return {LOGGER: logging.getLevelName(loggers[0].getEffectiveLevel()), **found}

    async def set_log_level(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """``logger`` and ``level``. Loggers of others, and names that no module has, are refused."""
        name, level = _text(arguments, "logger"), arguments.get("level")
        if name != LOGGER and name not in _own_loggers():
            raise NotFound
        if level not in LEVELS:
            raise InvalidData
        logging.getLogger(name).setLevel(str(level))
        return await self.log_level({})

    async def reset_throttles(self, arguments: Mapping[str, Any]) -> dict[str, int]:
        """``user`` or ``address``: what was counted of them is forgotten. How many buckets were not full."""
        user, address = _text(arguments, "user"), _text(arguments, "address")
        # As throttles count it: IPv6 by /64.
        counted_by = client_address({"client": (address, 0)})
        idents: list[Hashable] = [("address", counted_by), guesses_of(counted_by)] if address else []
        if user:
            idents += [("user", ident) for ident in _user_ids(user)]
        buckets, count = self._consumers.buckets, 0
        counted = {(each.scope, each.rates, each.local) for each in _throttles(self._consumers.plans)}
        counted |= {(scope, rates, False) for scope, rates in self._consumers.http_limits}
        for scope, rates, local in counted:
            place = getattr(buckets, "local", buckets) if local else buckets
            if (forget := getattr(place, "forget", None)) is None:
                continue  # Buckets of somebody's own.
            for ident in idents:
                count += bool(await settled(forget((scope, ident), rates)))
        return {"reset": count}


def describe(connection: Connection) -> dict[str, Any]:
    """A connection as it is listed. What nobody counts is left out."""
    facts = facts_of(connection)
    counted = {
        "last_seen": facts["last_seen"],
        "received": facts["messages_in"],
        "received_bytes": facts["bytes_in"],
        "sent_bytes": facts["bytes_out"],
    }
    return {
        "channel": facts["connection"],
        "consumer": facts["consumer"],
        "path": facts["path"][:MAX_TEXT],
        "user": facts["user"][:MAX_TEXT] if facts["user"] is not None else None,
        "address": facts["address"],
        "opened_at": facts["opened_at"],
        "groups": facts["groups"][:MAX_GROUPS],
        "group_count": len(facts["groups"]),
        "queued": facts["outbox"],
        "sent": facts["messages_out"],
        "dropped": facts["dropped"],
        **{name: value for name, value in counted.items() if value is not None},
    }


def _filter(arguments: Mapping[str, Any]) -> Callable[[Connection], bool]:
    group, user, address, consumer, channel, search = (
        _text(arguments, name) for name in ("group", "user", "address", "consumer", "channel", "search")
    )
    topic, text = GROUP + group, search.casefold()

    def matches(connection: Connection) -> bool:
        return (
            (not group or topic in connection.member.topics)
            and (not user or user_of(connection) == user)
            and (not address or address_of(connection.scope) == address)
            and (not consumer or _name(connection.plan) == consumer)
            and (not channel or connection.channel_name == channel)
            and (not text or any(text in part.casefold() for part in _searched(connection)))
        )

    return matches


def _searched(connection: Connection) -> Iterable[str]:
    yield user_of(connection) or ""
    yield address_of(connection.scope)
    yield connection.channel_name
    yield str(connection.scope.get("path", ""))
    for topic in connection.member.topics:
        if topic.startswith(GROUP):
            yield topic[len(GROUP) :]


def _name(plan: Plan) -> str:
    return plan.options.name


def _place(item: tuple[float, str, Connection]) -> tuple[float, str]:
    return item[:2]


def _pieces(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _text(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name)
    return value if isinstance(value, str) else ""


def _limit(arguments: Mapping[str, Any]) -> int:
    limit = arguments.get("limit")
    return min(max(limit, 1), MAX_ITEMS) if isinstance(limit, int) else MAX_ITEMS


def _key(value: Any, kinds: tuple[type, ...]) -> tuple[Any, ...] | None:
    """The place behind which a list goes on. Raises ``InvalidData`` for what cannot be one."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != len(kinds):
        raise InvalidData
    for part, kind in zip(value, kinds, strict=True):
        if not isinstance(part, (int, float) if kind is float else kind):
            raise InvalidData
    return tuple(value)


def _user_ids(text: str) -> Iterable[Any]:
    """The ids that are written so: throttles count users by the id itself, which may be a number or a UUID."""
    yield text
    kinds: tuple[Callable[[str], Any], ...] = (int, UUID)
    for kind in kinds:
        try:
            found = kind(text[:MAX_TEXT])
        except ValueError:
            continue
        if str(found) == text:
            yield found


def _own_loggers() -> list[str]:
    found = list(logging.root.manager.loggerDict.items())
    return sorted(
        name for name, logger in found if name.startswith(f"{LOGGER}.") and isinstance(logger, logging.Logger)
    )


def _throttles(plans: Iterable[Plan]) -> Iterable[BaseThrottle]:
    for plan in plans:
        yield from plan.throttles
        yield from plan.connection_throttles
        for action in plan.actions.values():
            yield from action.throttles
