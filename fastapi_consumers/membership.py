"""The one way into a group and out of it, whoever asks: the hub, seats, presence and counts hear of it here."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from .addressing import GROUP
from .counting import Counts
from .exceptions import ImproperlyConfigured, Problem
from .fanning import Member
from .groups import check_group
from .history import History
from .hub import Hub
from .keeping import Keeper
from .options import Limits
from .presence import Presence, PresenceStore
from .streams import Recovery
from .tracking import Tracker

#: Seconds that the store gets to hear of the last leaves when the application stops.
CLOSE_TIMEOUT = 2.0


class Membership:
    """Who is in the groups, of one process.

    Args:
        store: where processes share who is there; ``None`` if nothing that they have can serve.
    """

    def __init__(self, hub: Hub, store: PresenceStore | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._hub = hub
        self._store = store
        self.keeper = Keeper(clock)
        #: Whether other processes see what the store holds.
        self.is_shared = is_shared = store is not None and store.is_distributed
        is_distributed = hub.transport.is_distributed
        self.tracker = Tracker(hub, store, self.keeper, local=is_distributed and not is_shared)
        self._counts: Counts | None = None
        if store is not None and is_shared and is_distributed:  # In one process the hub knows.
            self._counts = Counts(hub, store, self.keeper)

    async def open(self) -> None:
        """Raises what the store raises."""
        if self._store is not None:
            await self._store.open()
        self.keeper.start()

    async def close(self) -> None:
        await self.keeper.stop()
        if self._store is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                self.tracker.close()
                await self.keeper.run_due()
                if self._counts is not None:
                    await self._counts.close()
        except TimeoutError:
            pass
        finally:
            await self._store.close()

    async def join(
        self,
        group: str,
        member: Member,
        limits: Limits,
        history: History | None = None,
        recovery: Recovery | None = None,
    ) -> bool:
        """Make it a member; ``False`` if it is one already. Raises as ``Hub.join`` does, and ``InvalidGroup``.

        Where processes share a store, ``max_connections`` bounds the members of all of them.
        """
        topic, limit = GROUP + check_group(group), limits.max_connections
        if limit is None or not self.tracker.has_seats:
            joined = await self._hub.join(topic, member, limit, history, recovery)
        elif topic in member.topics or member.has_left:
            return False
        else:
            await self.tracker.take_seat(group, member.channel, limit, limits.lease_timeout)
            try:
                joined = await self._hub.join(topic, member, None, history, recovery)
            except BaseException:
                self.tracker.leave(group, member.channel)
                raise
            if not joined and topic not in member.topics:
                self.tracker.leave(group, member.channel)
        if joined and self._counts is not None:
            self._counts.note(group)
        return joined

    async def leave(self, group: str, member: Member) -> bool:
        """``False`` if it was no member."""
        topic = GROUP + check_group(group)
        if topic not in member.topics:
            return False
        try:
            left = await self._hub.leave(topic, member)
            await self.tracker.give_back(group, member.channel)
            return left
        finally:
            # It is none from the first moment on, whatever became of the rest.
            if topic not in member.topics:
                self._note_leave(group, member)

    async def leave_all(self, member: Member) -> None:
        """Take it out of everything, for good."""
        groups = [topic[len(GROUP) :] for topic in member.topics if topic.startswith(GROUP)]
        try:
            await self._hub.leave_all(member)
        finally:
            for group in groups:
                self._note_leave(group, member)

    def _note_leave(self, group: str, member: Member) -> None:
        self.tracker.leave(group, member.channel)
        if self._counts is not None:
            self._counts.note(group)

    async def count(self, group: str) -> int:
        """How many connections the group has, in all processes if there is a way to know."""
        if self._counts is not None:
            return await self._counts.of(check_group(group))
        return self._hub.count(GROUP + check_group(group))

    async def presence(self, group: str, *, count_only: bool = False) -> dict[str, Any]:
        """Who is in a group. Raises ``InvalidGroup``, ``BrokerUnavailable`` and ``ImproperlyConfigured``."""
        check_group(group)
        if problems := self.problems_of("get_presence()", needs="presence"):
            raise ImproperlyConfigured("The application", problems)
        return await self.tracker.read(group, count_only)

    def problems_of(self, where: str, *, needs: str) -> list[Problem]:
        """The mistake of asking for something that needs a store where there is none that can serve."""
        if self._store is not None:
            return []
        return [
            Problem(
                "no-presence-store",
                where,
                f"{needs} over {type(self._hub.transport).__name__}, which reaches several processes and keeps nothing",
                "a place where all processes see the same",
                'add_consumers(…, presence_url="redis://…"), or "memory://" if each process may know only its own',
            )
        ]

    async def enter(self, group: str, member: Member, presence: Presence, consumer: Any) -> None:
        """Show a member to the others, as ``presence`` says. Raises what its functions raise."""
        await self.tracker.enter(group, member, presence, consumer)
