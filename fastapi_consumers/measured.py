"""The inbox and the outbox of an application that counts messages and bytes: the plain ones, and they count."""

import time
from collections.abc import Awaitable

from .gathering import LoopTurn
from .inbox import Inbox, InboxBounds, Watch
from .inbox import Owner as InboxOwner
from .outbox import Outbox, OutboxBounds
from .outbox import Owner as OutboxOwner
from .types import Message, Receive, Send


class CountingInbox(Inbox):
    """An inbox that counts what comes in."""

    __slots__ = ("last_seen", "received", "received_bytes")

    received: int
    received_bytes: int

    def __init__(self, receive: Receive, watch: Watch, owner: InboxOwner, bounds: InboxBounds) -> None:
        super().__init__(receive, watch, owner, bounds)
        self.received = self.received_bytes = 0
        self.last_seen: float | None = None

    def take(self, message: Message) -> str | bytes:
        text: str | None = message.get("text")
        # What most messages are, here: a text that is short enough whatever its characters.
        if text is None or len(text) * 4 > self._max_size:
            frame = super().take(message)
            self.received_bytes += len(frame) if isinstance(frame, bytes) else _size(frame)
        else:
            frame = text
            self.received_bytes += len(text) if text.isascii() else _size(text)
        self.received += 1
        self.last_seen = time.time()
        return frame


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


class CountingOutbox(Outbox):
    """An outbox that counts the bytes of what it hands to the server."""

    __slots__ = ("_bytes",)

    _is_counting = True

    def __init__(self, send: Send, owner: OutboxOwner, bounds: OutboxBounds, turn: LoopTurn | None = None) -> None:
        # Not counted on itself: what it calls would refer to it, and it to that.
        total = self._bytes = [0]

        def counting(message: Message) -> Awaitable[None]:
            text = message.get("text")
            if text is None:
                total[0] += len(message.get("bytes") or b"")
            else:
                total[0] += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
            return send(message)

        super().__init__(counting, owner, bounds, turn)

    @property
    def sent_bytes(self) -> int:  # type: ignore[override]
        return self._bytes[0] + self._lane_bytes
