"""How many connections a group has in all processes.

Each process says how many it has, in batches, under one lease: a process that died is not counted once that has run
out. Asking adds up what the others said and what this process has itself.
"""

import logging
import random

from .addressing import GROUP
from .exceptions import BrokerUnavailable
from .hub import Hub
from .keeping import Job, Keeper
from .presence import PresenceStore

logger = logging.getLogger(__name__)

#: Seconds that changes are gathered for.
WINDOW = 0.1
#: Seconds that what a process said holds; and after which it is said again.
LEASE, INTERVAL = 15.0, 5.0
#: Groups in one command.
BATCH = 1000


class Counts(Job):
    """What this process says of its groups, as a job of the keeper's."""

    def __init__(self, hub: Hub, store: PresenceStore, keeper: Keeper) -> None:
        super().__init__()
        self._hub = hub
        self._store = store
        self._keeper = keeper
        self._changed: set[str] = set()
        #: The groups of which a number above 0 was said.
        self._said: set[str] = set()
        self._known = False
        self._failed = False

    def note(self, group: str) -> None:
        """A member of the group has come or gone."""
        self._changed.add(group)
        if not self._failed:
            self._keeper.call_at(self, self._keeper.clock() + WINDOW)

    async def of(self, group: str) -> int:
        """How many connections the group has: here at this moment, elsewhere as it was said last."""
        elsewhere = await self._store.read_count(group, without=self._hub.process)
        return elsewhere + self._hub.count(GROUP + group)

    async def run(self) -> None:
        if not (self._changed or self._said):
            return
        try:
            await self._write()
        except BrokerUnavailable as error:
            if not self._failed:
                logger.warning("could not say how many connections there are: %r", error.__cause__ or error)
            self._failed = True
            self._keeper.call_at(self, self._keeper.clock() + 1.0 + random.random())
            return
        self._failed = False
        delay = WINDOW if self._changed else INTERVAL * (0.5 + random.random() / 2)
        self._keeper.call_at(self, self._keeper.clock() + delay)

    async def _write(self) -> None:
        while True:
            batch = list(self._changed)[:BATCH]
            counts = {group: self._hub.count(GROUP + group) for group in batch}
            self._changed.difference_update(batch)
            try:
                known = await self._store.write_counts(self._hub.process, counts, lease=LEASE)
            except BaseException:
                self._changed.update(batch)
                raise
            self._said.update(group for group, count in counts.items() if count)
            self._said.difference_update(group for group, count in counts.items() if not count)
            if not known and self._known:
                # The lease ran out, or the store lost it: all of it has to be said again.
                self._changed |= self._said
            self._known = True
            if not self._changed:
                return

    async def close(self) -> None:
        """Say that there are none any more."""
        if self._said or self._changed:
            try:
                await self._store.forget_counts(self._hub.process)
            except BrokerUnavailable:
                pass  # Its lease runs out.
