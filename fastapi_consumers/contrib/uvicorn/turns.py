"""Writes of many connections put together: what all of them say in one turn of the event loop goes out at its end.

A loop first reads all sockets that are ready, and then runs the applications whose messages came. If each answer were
written by itself, a peer on the same machine, such as a proxy, would be woken for each one, and go to sleep again
before the next: on a busy server that costs more than all else about a write. Several frames of one connection become
one write, too.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from ...gathering import Gathered, Gathering

#: Bytes of one connection that may wait.
MAX_BYTES = 64 * 1024


class Turn(Gathering):
    """What the connections of one server have to write in a turn of its event loop.

    A server need not guess how many answer in a turn: it has woken them.
    """

    __slots__ = ("woken",)

    def __init__(self) -> None:
        super().__init__()
        #: Applications that were woken by a message and have not run since. Only while there are some, writes wait.
        self.woken = 0

    def takes(self, who: Gathered, is_due: bool) -> bool:
        """As ``Gathering.takes``."""
        if not self.woken and not is_due:
            # The last one to run in this turn, or the only one.
            self.release()
            return False
        return self.put(who)


class Writer:
    """A transport whose writes may wait until the end of the turn. In all else it is the one that it is given."""

    __slots__ = (
        "_is_bypassed", "_parts", "_size", "_transport", "_turn", "_write", "is_closing", "pause_reading",
        "resume_reading",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport, turn: Turn) -> None:
        self._transport = transport
        self._turn = turn
        self._write = transport.write
        self._parts: list[bytes] = []
        self._size = 0
        #: Whether somebody writes to the transport itself.
        self._is_bypassed = False
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._is_bypassed:
            self._write(data)
            return
        parts = self._parts
        parts.append(data)
        self._size += len(data)
        turn = self._turn
        is_asked = len(parts) == 1 or not turn.woken
        if self._size > MAX_BYTES or (is_asked and not turn.takes(self, False)):
            self.release()

    def through(self) -> tuple[asyncio.Transport, Callable[[Gathered, bool], bool]]:
        """The transport itself, and ``takes``, for who puts writes aside by itself.

        What waits is written first, and nothing waits here any more: it would be overtaken.
        """
        self.release()
        self._is_bypassed = True
        return self._transport, self._turn.takes

    def release(self) -> None:
        """Write what waits."""
        parts = self._parts
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            self._parts, self._size = [], 0
            self._write(data)

    def close(self) -> None:
        self.release()
        self._transport.close()

    def abort(self) -> None:
        self.drop()
        self._transport.abort()

    def drop(self) -> None:
        """Forget what waits: there is nobody to write it to."""
        self._parts, self._size = [], 0
