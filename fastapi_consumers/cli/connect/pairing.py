"""Which answer belongs to which request, and how far the client has read in each group."""

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ...messages import Position

#: Requests without an answer that are remembered. What is sent beyond them is not paired: memory stays bounded.
MAX_WAITING = 100_000


class Answer(NamedTuple):
    """What answers a request of ours: its action, and how many seconds it took."""

    action: str
    seconds: float


def message_of(frame: str | bytes) -> dict[str, Any] | None:
    """The frame as an object of the wire protocol, ``None`` if it is none."""
    if isinstance(frame, bytes):
        return None
    try:
        found = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class Requests:
    """Requests that wait for a final answer. Nothing stops a client from using an id twice: each waits by itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[int | str, list[tuple[str, float]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def sent(self, frame: str) -> None:
        """Remember the request, if it has an id and so will have an answer."""
        message = message_of(frame)
        if message is None or self._count >= MAX_WAITING:
            return
        request_id, action = message.get("request_id"), message.get("action")
        # A bool is an int in Python, and no id in the protocol.
        if isinstance(request_id, int | str) and not isinstance(request_id, bool) and isinstance(action, str):
            self._waiting.setdefault(request_id, []).append((action, self._clock()))
            self._count += 1

    def answered(self, message: dict[str, Any]) -> Answer | None:
        """Whose answer this is; a final one ends its waiting."""
        request_id = message.get("request_id")
        if message.get("type") != "reply" or not isinstance(request_id, int | str):
            return None
        waiting = self._waiting.get(request_id)
        if not waiting:
            return None
        action, since = waiting[0]
        if message.get("status") != "partial":
            del waiting[0]
            self._count -= 1
            if not waiting:
                del self._waiting[request_id]
        return Answer(action, self._clock() - since)

    def forget(self) -> int:
        """Give up on all that wait, and say how many they were: answers do not outlive their socket."""
        lost, self._count = self._count, 0
        self._waiting.clear()
        return lost


class Positions:
    """Where the client stands in groups with history, so that it can recover what it misses."""

    def __init__(self) -> None:
        self.of: dict[str, Position] = {}

    def learn(self, message: dict[str, Any]) -> None:
        kind, group, offset = message.get("type"), message.get("group"), message.get("offset")
        if not isinstance(group, str) or not isinstance(offset, int):
            return
        if kind == "joined" and isinstance(epoch := message.get("epoch"), str):
            self.of[group] = Position(epoch, offset)
        elif kind == "event" and group in self.of:
            self.of[group] = self.of[group]._replace(offset=offset)
