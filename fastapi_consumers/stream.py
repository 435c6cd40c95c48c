"""Where one group with history stands in this process, and what its new members wait for. ``streams`` moves it."""

import asyncio

from .fanning import Held, Late
from .history import History
from .messages import Frame, Position
from .protocols import Framer


class Stream:
    """One group's position in this process: all its members here have had what is up to it, and nothing beyond."""

    __slots__ = (
        "again",
        "epoch",
        "frames",
        "group",
        "had_others",
        "healing",
        "history",
        "is_fresh",
        "late",
        "missed_from",
        "offset",
        "starting",
    )

    def __init__(self, group: str, history: History, had_others: bool = False, last: Position | None = None) -> None:
        self.group = group
        self.history = history
        #: ``None`` until the store was asked for the first time.
        self.epoch: str | None = None
        self.offset = 0
        #: Whether there are members that came without a history, before the stream was there; and what the first event
        #: is that is kept from them until it has started.
        self.had_others = had_others
        self.missed_from = Position(last.epoch, last.offset + 1) if last is not None else None
        self.late: Late = {}
        self.starting = asyncio.Lock()
        #: Reads what is missing; while it runs nothing else is delivered. ``again``: something came in meanwhile.
        self.healing: asyncio.Task[None] | None = None
        self.again = False
        #: Whether an event came since the last look at the store.
        self.is_fresh = True
        #: Of events that were missed: for each the channel that is left out, and the frame.
        self.frames: dict[tuple[Framer, int], tuple[str | None, Frame]] = {}

    def begin(self, epoch: str | None, offset: int) -> None:
        """It is at another place than those before and after it. What was held of another epoch is of no use."""
        self.epoch, self.offset = epoch, offset
        self.frames.clear()
        for channel, state in tuple(self.late.items()):
            if isinstance(state, Held):
                state.frames = [entry for entry in state.frames if entry[0] is None]
            else:
                del self.late[channel]

    @property
    def position(self) -> Position:
        return Position(self.epoch or "", self.offset)

    def is_next(self, position: Position) -> bool | None:
        """Whether this is the next event; ``None`` if one before it is missing. All but the next one are dropped."""
        if self.epoch != position.epoch:
            return None
        if self.healing is None and position.offset == self.offset + 1:
            self.offset = position.offset
            self.is_fresh = True
            return True
        return False if position.offset <= self.offset else None


def continues(held: Held, end: int) -> bool:
    """Whether what is held goes on where the read ended, without a hole."""
    if held.overflowed:
        return False
    for offset, _ in held.frames:
        if offset is not None and offset > end:
            if offset != end + 1:
                return False
            end = offset
    return True
