"""Who is in which group, as other processes see it: presence and seats, kept by leases in a store.

Members come and go through here, one at a time or thousands. What changes in a group is gathered for a moment and
told to the store in one step; what comes of it, the joins and leaves of all processes that are due, is announced to the
group's members. A lease is renewed for each group and process, not for each connection.

Of the ``ttl`` that users are promised a lease takes seven tenths and its renewal, which also finds the leases of others
that have run out, comes every two tenths: so a process may miss two renewals, and is missed in time if it dies.
"""

import asyncio
import logging
import math
import random
from collections import deque
from typing import Any

from pydantic_core import from_json

from .addressing import GROUP
from .codecs import encode_json
from .exceptions import BrokerUnavailable, GroupFull
from .fanning import Member
from .hub import Hub
from .keeping import Job, Keeper
from .packets import Packet
from .presence import Change, Entry, Outcome, Presence, PresenceStore, Present

logger = logging.getLogger(__name__)

#: Seconds that changes of a group are gathered for.
WINDOW = 0.075
#: Which part of the ttl a lease lasts, and after which it is renewed.
LEASE, INTERVAL = 0.7, 0.2
#: Changes in one step.
BATCH = 500
#: Bytes of joins and leaves in one notice, if there is more than one: outboxes are bounded in messages and in bytes.
NOTICE_SIZE = 16 * 1024
#: Seconds by which a look at what is away comes late, so that it does not come early by the store's clock.
SLACK = 0.005


class _Group(Job):
    """What this process has in one group: as it should be, and what the store does not know yet."""

    def __init__(self, tracker: "Tracker", name: str) -> None:
        super().__init__()
        self.tracker = tracker
        self.name = name
        self.ttl = math.inf
        self.presence: Presence | None = None
        #: Connections that are shown, by channel, and those that are not but look on.
        self.members: dict[str, Entry] = {}
        self.onlookers: set[str] = set()
        self.seats: dict[str, None] = {}
        self.entering: dict[str, Entry] = {}
        self.leaving: dict[str, None] = {}
        self.freeing: dict[str, None] = {}
        self.reseating: dict[str, None] = {}
        #: Held while the store is told; later changes wait, and are told together.
        self.lock = asyncio.Lock()
        #: Seats that are being asked for, and how many are at it or wait for the lock.
        self.asking = 0
        self.users = 0
        #: Whether the store has answered before: then it should know us.
        self.known = False
        self.failed = False
        self.flush_at = self.renew_at = math.inf
        #: When connections of ours that are away will have left.
        self.sweeps: deque[float] = deque()
        #: What is to be announced, by key and ref.
        self.joins: dict[tuple[str, str], bytes] = {}
        self.leaves: dict[tuple[str, str], bytes] = {}
        #: How many keys there are, and how many were announced, in groups that are only counted.
        self.size: int | None = None
        self.told: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing of this process is in the group any more."""
        return not (self.members or self.onlookers or self.seats or self.asking)

    @property
    def has_changes(self) -> bool:
        return bool(self.entering or self.leaving or self.freeing or self.reseating)

    @property
    def has_news(self) -> bool:
        return bool(self.joins or self.leaves)

    async def run(self) -> None:
        await self.tracker._run(self)


class Tracker:
    """Presence and seats of one process, over one hub.

    Args:
        store: ``None`` where there is none that can serve: then nothing is tracked, and no seat taken.
        local: announce to the members of this process only, as the store knows no others.
    """

    def __init__(self, hub: Hub, store: PresenceStore | None, keeper: Keeper, *, local: bool = False) -> None:
        self._hub = hub
        self._store = store
        self._keeper = keeper
        self._local = local
        self._groups: dict[str, _Group] = {}

    @property
    def has_seats(self) -> bool:
        """Whether ``max_connections`` is a matter of the store. Otherwise it is the hub's."""
        return self._store is not None and self._store.is_distributed

    # -- presence --------------------------------------------------------------------------------------------------

    async def enter(self, name: str, member: Member, presence: Presence, consumer: Any) -> None:
        """Show a member of a group. It is told to the store, and to others, within a moment.

        Raises what the functions of ``presence`` raise, and ``TypeError`` or ``ValueError`` for what they return.
        """
        assert self._store is not None
        channel = member.channel
        entry = await presence.entry(consumer, channel)
        if member.has_left or GROUP + name not in member.topics:
            return  # While its key or info was awaited.
        if entry is None and not self._store.is_distributed:
            return
        group = self._group(name, presence.ttl)
        group.presence = presence
        if entry is None:
            group.onlookers.add(channel)
            return
        group.leaving.pop(channel, None)
        group.members[channel] = group.entering[channel] = entry
        self._plan_flush(group)

    async def flush(self, name: str) -> None:
        """Tell the store what it does not know of the group. Raises ``BrokerUnavailable``.

        Others hear of it when its window ends: if each of many who come at once and ask had all told by itself, every
        member would be sent a notice for each of them.
        """
        group = self._groups.get(name)
        if group is not None and (group.has_changes or group.users):
            await self._sync(group, announces=False)
            if group.has_news:
                self._plan_flush(group)

    async def read(self, name: str, count_only: bool = False) -> dict[str, Any]:
        """Who is in a group: ``{"count": …, "members": {key: {"metas": […]}}}``, or the count alone.

        Raises ``BrokerUnavailable``.
        """
        assert self._store is not None
        await self.flush(name)
        size, members = await self._store.read(name, count_only=count_only)
        if count_only:
            return {"count": size}
        listed = _listed({(present.key, present.ref): present.info for present in members})
        return {"count": size, "members": listed}

    # -- seats -----------------------------------------------------------------------------------------------------

    async def take_seat(self, name: str, channel: str, limit: int, ttl: float) -> None:
        """Raises ``GroupFull``, and ``BrokerUnavailable`` if nobody can say whether it is."""
        group = self._group(name, ttl)
        group.asking += 1
        free = tuple(group.freeing)
        try:
            outcome = await self._tell(group, Change(free=free, seat=channel, limit=limit))
            if outcome.seated:
                group.seats[channel] = None
                group.freeing.pop(channel, None)
        except BaseException:
            # It may have been taken all the same.
            group.freeing[channel] = None
            self._plan_flush(group)
            raise
        finally:
            group.asking -= 1
            self._forget(group)
        for freed in free:
            group.freeing.pop(freed, None)
        if group.has_news or group.has_changes:
            self._plan_flush(group)
        if not outcome.seated:
            raise GroupFull

    async def give_back(self, name: str, channel: str) -> None:
        """Give back a seat, if there is one. If the store is away, it hears of it later."""
        group = self._groups.get(name)
        if group is None or channel not in group.seats:
            return
        del group.seats[channel]
        group.freeing[channel] = None
        self._plan_flush(group)
        try:
            await self._sync(group)
        except BrokerUnavailable:
            pass

    # -- leaving ---------------------------------------------------------------------------------------------------

    def leave(self, name: str, channel: str) -> None:
        """The channel is shown no more, and its seat, if it is left by then, is free in a moment."""
        group = self._groups.get(name)
        if group is None:
            return
        group.onlookers.discard(channel)
        delay = WINDOW
        if group.members.pop(channel, None) is not None:
            group.entering.pop(channel, None)
            group.leaving[channel] = None
            if self._grace(group):
                # Nothing is announced yet, and whoever comes back elsewhere should find that it is away.
                delay = 0.0
        if channel in group.seats:
            del group.seats[channel]
            group.freeing[channel] = None
            delay = 0.0  # Somebody may be waiting for it.
        self._plan_flush(group, delay)

    def close(self) -> None:
        """Plan to tell the store all that it does not know yet, at once. What it is not told leases find out."""
        for group in self._groups.values():
            if group.has_changes or group.has_news:
                self._plan_flush(group, 0.0)

    # -- keeping ---------------------------------------------------------------------------------------------------

    def _group(self, name: str, ttl: float) -> _Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(self, name)
        if ttl < group.ttl:
            group.ttl = ttl
            assert self._store is not None
            if self._store.is_distributed:
                # The first one at random, so that not all processes come at once after a restart.
                group.renew_at = self._keeper.clock() + INTERVAL * ttl * (0.5 + random.random() / 2)
                self._keeper.call_at(group, group.renew_at)
        return group

    def _plan_flush(self, group: _Group, delay: float = WINDOW) -> None:
        if not group.failed:
            group.flush_at = min(group.flush_at, self._keeper.clock() + delay)
            self._keeper.call_at(group, group.flush_at)

    async def _run(self, group: _Group) -> None:
        """The keeper's turn: something is to be flushed, renewed or swept, or all of it."""
        if self._groups.get(group.name) is not group:
            return
        now = self._keeper.clock()
        while group.sweeps and group.sweeps[0] <= now:
            group.sweeps.popleft()
        if group.renew_at <= now:
            group.renew_at = now + INTERVAL * group.ttl
        group.flush_at = math.inf
        try:
            await self._sync(group)
        except BrokerUnavailable as error:
            if not group.failed:
                cause, extra = error.__cause__ or error, {"group": group.name}
                logger.warning("could not keep who is in %r: %r", group.name, cause, extra=extra)
            group.failed = True
            group.flush_at = self._keeper.clock() + random.uniform(0.5, 1.0) * min(2.0, INTERVAL * group.ttl)
        if self._groups.get(group.name) is group:
            due = min(group.flush_at, group.renew_at, group.sweeps[0] if group.sweeps else math.inf)
            if due < math.inf:
                self._keeper.call_at(group, due)

    async def _sync(self, group: _Group, *, announces: bool = True) -> None:
        """Tell the store all changes of a group, and the group what came of them. Raises ``BrokerUnavailable``."""
        group.users += 1
        try:
            async with group.lock:
                while True:
                    await self._tell_some(group)
                    if not group.has_changes:
                        break
                if announces:
                    await self._announce(group)
                group.failed = False
        finally:
            group.users -= 1
        self._forget(group)

    async def _tell_some(self, group: _Group) -> None:
        entering = [group.entering.pop(channel) for channel in tuple(group.entering)[:BATCH]]
        leaving = _take(group.leaving, BATCH)
        freeing, reseating = _take(group.freeing, BATCH), _take(group.reseating, BATCH)
        change = Change(leaving, entering, freeing, reseating, done=group.is_done)
        try:
            await self._tell(group, change)
        except BaseException:
            self._undo(group, change)
            raise
        if leaving and (grace := self._grace(group)):
            group.sweeps.append(self._keeper.clock() + grace + SLACK)
            self._keeper.call_at(group, group.sweeps[-1])

    async def _tell(self, group: _Group, change: Change) -> Outcome:
        assert self._store is not None
        # Where nobody else could find out that this process has died, there is nothing to renew.
        lease = LEASE * group.ttl if self._store.is_distributed else math.inf
        outcome = await self._store.update(group.name, self._hub.process, change, lease=lease, grace=self._grace(group))
        if group.known and not outcome.known:
            # Others took us for dead, or the store has lost everything.
            group.entering = {**group.members, **group.entering}
            group.reseating = dict(group.seats)
        group.known = not change.done and (outcome.known or outcome.seated)
        group.size = outcome.size
        for present in outcome.leaves:
            _merge(group.leaves, group.joins, present)
        for present in outcome.joins:
            _merge(group.joins, group.leaves, present)
        return outcome

    def _undo(self, group: _Group, change: Change) -> None:
        """The store may have heard of it or not: it is told again, but for what has changed since."""
        group.entering = {entry.channel: entry for entry in change.enter} | group.entering
        group.entering = {channel: entry for channel, entry in group.entering.items() if channel in group.members}
        for channel in change.leave:
            if channel not in group.members:
                group.leaving[channel] = None
        for channel in change.free:
            if channel not in group.seats:
                group.freeing[channel] = None
        group.reseating |= {channel: None for channel in change.reseat if channel in group.seats}

    def _grace(self, group: _Group) -> float:
        return group.presence.grace if group.presence is not None else 0.0

    def _forget(self, group: _Group) -> None:
        is_over = group.is_done and not (group.has_changes or group.has_news or group.sweeps or group.users)
        if is_over and group.flush_at == math.inf and self._groups.get(group.name) is group:
            del self._groups[group.name]
            group.renew_at = math.inf

    # -- announcing ------------------------------------------------------------------------------------------------

    async def _announce(self, group: _Group) -> None:
        if group.presence is not None and group.presence.count_only:
            group.joins.clear()
            group.leaves.clear()
            if group.size != group.told:
                await self._publish(group, {"count": group.size})
                group.told = group.size
                # Another process may have told an older number a moment later. Whoever told the last one looks again.
                self._plan_flush(group)
            return
        while group.has_news:
            joins, leaves = _take_some(group.joins, group.leaves)
            try:
                await self._publish(group, {"joins": _listed(joins), "leaves": _listed(leaves)})
            except BaseException:
                group.joins, group.leaves = {**joins, **group.joins}, {**leaves, **group.leaves}
                raise

    async def _publish(self, group: _Group, fields: dict[str, Any]) -> None:
        packet = Packet("notice", encode_json({"group": group.name, **fields}), "presence")
        publish = self._hub.publish_here if self._local else self._hub.publish
        await publish(GROUP + group.name, packet)


def _take(waiting: dict[str, None], count: int) -> list[str]:
    taken = list(waiting)[:count]
    for channel in taken:
        del waiting[channel]
    return taken


def _merge(into: dict[tuple[str, str], bytes], other: dict[tuple[str, str], bytes], present: Present) -> None:
    """What came and went before anybody was told is nothing."""
    if other.pop((present.key, present.ref), None) is None:
        into[present.key, present.ref] = present.info


def _take_some(*changes: dict[tuple[str, str], bytes]) -> list[dict[tuple[str, str], bytes]]:
    """As much of each as goes into one notice, taken out of it."""
    size = 0
    taken: list[dict[tuple[str, str], bytes]] = []
    for change in changes:
        some: dict[tuple[str, str], bytes] = {}
        for (key, ref), info in tuple(change.items()):
            size += len(key) + len(ref) + len(info) + 32
            if size > NOTICE_SIZE and (some or any(taken)):
                break
            some[key, ref] = change.pop((key, ref))
        taken.append(some)
    return taken


def _listed(presents: dict[tuple[str, str], bytes]) -> dict[str, Any]:
    """Key to metas, one for each connection."""
    listed: dict[str, Any] = {}
    for (key, ref), info in presents.items():
        listed.setdefault(key, {"metas": []})["metas"].append({**from_json(info), "ref": ref})
    return listed
