"""Groups with history: every event is delivered in the order of its offset, once, and what is missing is read back.

The hub hands each packet that has a position to its topic's ``Stream``, which says whether it is the next one. If
something is missing it is read from the store before anything later is delivered, so that all members of a topic in
this process always stand at one and the same position. Who joins with a position of its own is given what it missed.

A join with recovery goes as in Centrifuge: hold what comes, register, read, merge by offset, go live.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from .backlog import UNCOUNTED
from .exceptions import ConsumerError
from .fanning import Fanning, Held, Member, gap_frame, push_together
from .history import History, HistoryStore, Stored
from .messages import Frame, Notice, Position
from .observing import Observing
from .packets import BadPacket, decode_packet
from .replaying import Replaying
from .stream import Stream, continues

logger = logging.getLogger(__name__)

#: Events that are read at a time when something is missing.
HEAL_BATCH = 256
#: Seconds between two looks at the store for groups in which nothing happened, since a lost last event shows no gap.
CHECK_INTERVAL = 25.0
#: Seconds before a store that does not answer is asked again, doubled each time up to the second figure.
RETRY, MAX_RETRY = 0.1, 2.0
#: How often a join reads again because more came meanwhile than could be held.
JOIN_TRIES = 3
#: Seconds that a join waits for its stream to find out that a new epoch has begun.
EPOCH_TIMEOUT = 1.0


class Recovery(NamedTuple):
    """What a client asks to recover, and how much it may be: ``position`` is ``None`` if it could not be read."""

    position: Position | None
    max_events: int
    max_bytes: int


class Streams:
    """The streams of one process.

    Args:
        store: where the events are.
        hand_on: gives one packet to the members of a group, in the order of the calls.
        tell: sends a notice to the members of a group.
        settle: hands on at once what is on its way to a group.
    """

    def __init__(
        self,
        store: HistoryStore,
        hand_on: Callable[[str, Fanning], Awaitable[None]],
        tell: Callable[[str, Notice], None],
        settle: Callable[[str], None],
        observing: Observing | None = None,
    ) -> None:
        self.store = store
        self._observing = observing if observing is not None else Observing()
        self._hand_on = hand_on
        self._tell = tell
        self._settle = settle
        self._streams: dict[str, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening, self._is_open = asyncio.Lock(), False
        self._checking: asyncio.Task[None] | None = None
        self._replaying = Replaying(self._streams)
        #: How often events were missing and read back, how many were, and how often they were not there any more.
        self.heals = self.healed = self.gaps = 0
        #: Packets that came twice, or late.
        self.duplicates = 0
        #: Joins that asked for recovery: those that got it, and those that were told that it is impossible.
        self.recovered = self.not_recovered = 0

    @property
    def counters(self) -> dict[str, int]:
        """All of them by name, for metrics."""
        names = ("heals", "healed", "gaps", "duplicates", "recovered", "not_recovered")
        return {name: getattr(self, name) for name in names}

    async def open(self) -> None:
        """Open the store. Nothing happens if it is open."""
        async with self._opening:
            if not self._is_open:
                await self.store.open()
                self._is_open = True

    async def close(self) -> None:
        tasks = {*self._tasks, self._checking} - {None}
        self._checking = None
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
        self._streams.clear()
        self._is_open = False
        await self.store.close()

    # -- membership ------------------------------------------------------------------------------------------------

    def stream(self, group: str, history: History, *, had_others: bool = False, last: Position | None = None) -> Stream:
        """The group's stream; made for the first member here that comes with a history.

        Args:
            had_others: whether there are members already, which came without.
            last: the last event that those have had, if they had one.
        """
        found = self._streams.get(group)
        if found is None:
            found = self._streams[group] = Stream(group, history, had_others, last)
            if self._checking is None:
                self._checking = asyncio.get_running_loop().create_task(self._check_always())
        return found

    def forget(self, group: str) -> None:
        """Nobody here is a member any more."""
        stream = self._streams.pop(group, None)
        if stream is not None:
            self.restart(stream)
        if not self._streams and self._checking is not None:
            self._checking.cancel()
            self._checking = None

    def restart(self, stream: Stream) -> None:
        """Nobody here listens, or did until now: where the stream is has to be asked anew."""
        if stream.healing is not None:
            stream.healing.cancel()
            stream.healing = None
        stream.again = False
        stream.begin(None, 0)

    async def enter(self, stream: Stream, member: Member, held: Held, recovery: Recovery | None) -> None:
        """Tell a new member where it joined, and give it what it missed.

        It is a member already, and ``held`` stands in ``late``. Raises ``BrokerUnavailable`` if the store cannot be
        asked.
        """
        if stream.epoch is None:
            await self._start(stream)
        missed: tuple[list[Stored], int] | None = None
        if recovery is not None and recovery.position is not None:
            missed = await self._read_missed(stream, held, recovery.position, recovery)
        framer = member.framer
        if stream.late.get(member.channel) is not held or framer is None:
            return  # It has left meanwhile, and may have come back.
        # Nothing is awaited from here on, so that nothing comes in between.
        after = stream.position
        if missed is not None and recovery is not None and recovery.position is not None:
            if recovery.position.epoch == stream.epoch and continues(held, missed[1]):
                after = recovery.position
            else:
                missed = None
        fields = {"group": stream.group, "epoch": after.epoch, "offset": after.offset}
        frames: list[Frame] = []
        if recovery is not None:
            fields["recovered"] = missed is not None
            if missed is not None:
                frames = self._replaying.frames_for(member, stream, framer, missed[0])
                fields |= {"missed": len(frames), "top": missed[1]}
                self.recovered += 1
            else:
                self.not_recovered += 1
            self._observing.tell("recovered", stream.group, missed is not None)
        member.push(framer.notice(Notice("joined", fields)), None)
        end = after.offset
        # What was missed and what was held have bounds of their own, and come all at once.
        push_together(member, frames)
        if missed is not None:
            end = missed[1]
        for offset, held_frame in held.frames:
            if offset is None or offset > end:
                if held_frame is not None:
                    member.push(held_frame, UNCOUNTED)
                end = end if offset is None else offset
        if held.overflowed:
            # What has an offset is behind this position. What has none is lost.
            member.push(gap_frame(framer, stream.group), None)
        stream.late[member.channel] = end

    async def _start(self, stream: Stream) -> None:
        async with stream.starting:
            if stream.epoch is None:
                epoch, offset = await self.store.position(stream.group, stream.history)
                first = stream.missed_from
                if first is not None and first.epoch == epoch and first.offset <= offset:
                    offset, stream.again = first.offset - 1, True
                stream.missed_from = None
                stream.begin(epoch, offset)
                if stream.again:
                    self.heal(stream)

    async def _read_missed(
        self, stream: Stream, held: Held, position: Position, recovery: Recovery
    ) -> tuple[list[Stored], int] | None:
        """All events after the position and the offset of the last one, or ``None`` if one of them is gone."""
        for _ in range(JOIN_TRIES):
            held.clear()
            found = await self.store.read(stream.group, after=position.offset, limit=recovery.max_events + 1)
            if found.epoch != stream.epoch:
                self.heal(stream)
                if found.epoch == position.epoch and stream.healing is not None:
                    # The client knows of the new epoch already.
                    await asyncio.wait({stream.healing}, timeout=EPOCH_TIMEOUT)
                    continue
            entries, count = found.entries, found.top - position.offset
            is_whole = found.epoch == position.epoch and len(entries) == count <= recovery.max_events
            if not is_whole or sum(len(entry.packet) for entry in entries) > recovery.max_bytes:
                return None
            if entries and entries[0].offset != position.offset + 1:
                return None
            if not held.overflowed:
                return entries, found.top
        return None

    # -- delivery --------------------------------------------------------------------------------------------------

    def take(self, stream: Stream, position: Position) -> bool:
        """Whether a packet that came in is delivered now. If something before it is missing, that is read."""
        is_next = stream.is_next(position)
        if is_next is None:
            if stream.epoch is None and stream.had_others and stream.missed_from is None:
                stream.missed_from = position
            self.heal(stream)
        elif not is_next:
            self.duplicates += 1
        return is_next is True

    def heal(self, stream: Stream) -> None:
        """Read what is missing, if anything is, and deliver it; until then nothing else is delivered."""
        stream.again = True
        if stream.healing is None and self._streams.get(stream.group) is stream:
            task = stream.healing = asyncio.get_running_loop().create_task(self._heal(stream))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _heal(self, stream: Stream) -> None:
        delay = RETRY
        try:
            # What was let through before.
            self._settle(stream.group)
            while stream.again and _is_healed_here(stream):
                stream.again = False
                try:
                    if stream.epoch is None:
                        await self._start(stream)
                    while _is_healed_here(stream) and await self._heal_some(stream):
                        pass
                except ConsumerError as error:
                    logger.warning(
                        "the history of %r cannot be read, its events wait: %s",
                        stream.group,
                        error,
                        extra={"group": stream.group},
                    )
                    stream.again = True
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                    delay = min(delay * 2, MAX_RETRY)
        except Exception:
            # The next event of the group tries again.
            logger.exception("what is missing of %r could not be read", stream.group, extra={"group": stream.group})
        finally:
            if _is_healed_here(stream):
                stream.healing = None

    async def _heal_some(self, stream: Stream) -> bool:
        """Read once, and deliver. Whether there is more to read."""
        found = await self.store.read(stream.group, after=stream.offset, limit=HEAL_BATCH)
        if not _is_healed_here(stream):
            return False
        if found.epoch != stream.epoch or found.top < stream.offset:
            # The stream began anew, or its store lost the newest events: nobody can say what was lost of the old one.
            offset = found.top if found.epoch == stream.epoch else 0
            epoch = found.epoch or (await self.store.position(stream.group, stream.history)).epoch
            if not _is_healed_here(stream):
                return False
            stream.begin(epoch, offset)
            self._gap(stream)
            self._tell(stream.group, Notice("joined", {"group": stream.group, "epoch": epoch, "offset": offset}))
            return True
        if found.entries:
            self.heals += 1
        for entry in found.entries:
            if entry.offset != stream.offset + 1:
                self._gap(stream)
            stream.offset = entry.offset
            try:
                fanning = Fanning(decode_packet(entry.packet), stream.group, entry.offset, stream.late)
            except BadPacket as error:
                logger.warning(
                    "event %d of %r in the store cannot be read: %s",
                    entry.offset,
                    stream.group,
                    error,
                    extra={"group": stream.group},
                )
                self._gap(stream)
                continue
            self.healed += 1
            await self._hand_on(stream.group, fanning)
            if not _is_healed_here(stream):
                return False
        if not found.entries and found.top > stream.offset:
            # All of it has been trimmed.
            stream.offset = found.top
            self._gap(stream)
        return found.top > stream.offset

    def _gap(self, stream: Stream) -> None:
        self.gaps += 1
        self._observing.tell("gap", stream.group)
        self._tell(stream.group, Notice("gap", {"group": stream.group}))

    # -- looking after quiet groups --------------------------------------------------------------------------------

    async def _check_always(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL * random.uniform(0.75, 1.25))
            try:
                await self.check()
            except ConsumerError as error:
                logger.warning("the positions of quiet groups could not be looked up: %s", error)
            except Exception:
                logger.exception("the positions of quiet groups could not be looked up")

    async def check(self) -> None:
        """Compare the position of groups in which nothing happened lately with the store's, and heal what differs."""
        quiet: list[Stream] = []
        for stream in self._streams.values():
            if not stream.is_fresh and stream.epoch is not None and stream.healing is None:
                quiet.append(stream)
            stream.is_fresh = False
        self._replaying.forget()
        if quiet:
            positions = await self.store.positions([stream.group for stream in quiet])
            for stream in quiet:
                if positions.get(stream.group) != stream.position:
                    self.heal(stream)

    def heal_all(self, groups: Iterable[str]) -> None:
        """The transport may have lost packets of these groups."""
        for group in groups:
            stream = self._streams.get(group)
            if stream is not None:
                self.heal(stream)


def _is_healed_here(stream: Stream) -> bool:
    """Whether this task is still the one that heals the stream.

    It is cancelled when it is not, but a store may not hear it: up to Python 3.11 ``asyncio.wait_for``, through which
    redis-py sends, gives back what was just done in place of the cancellation.
    """
    return stream.healing is asyncio.current_task()
