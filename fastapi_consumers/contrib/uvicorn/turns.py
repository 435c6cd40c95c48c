"""Writes of many connections put together: what all of them say in one turn of the event loop goes out at its end.

A loop first reads all sockets that are ready, and then runs the applications whose messages came. If each answer were
written by itself, a peer on the same machine, such as a proxy, would be woken for each one, and go to sleep again
before the next: on a busy server that costs more than all else about a write. Several frames of one connection become
one write, too.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from ...gathering import Gathered

#: Seconds that an answer may wait for the others of its turn.
MAX_WAIT = 0.001
#: Bytes of one connection that may wait.
MAX_BYTES = 64 * 1024


class Turn:
    """What the connections of one server have to do in a turn of its event loop."""

    __slots__ = ("_began", "_loop", "woken", "writers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        #: Those that wait.
        self.writers: list[Gathered] = []
        self._began = 0.0
        #: Applications that were woken by a message and have not run since. Only while there are some, writes wait.
        self.woken = 0

    def takes(self, writer: Gathered, is_due: bool) -> bool:
        """Whether what a connection is about to write is put aside, and then written with the others.

        Args:
            is_due: something else waits for the end of the turn, so that it comes at once.
        """
        if not self.woken and not is_due:
            # The last one to run in this turn, or the only one.
            if self.writers:
                self.flush()
            return False
        return self.put(writer)

    def put(self, writer: Gathered) -> bool:
        """Have a connection written with the others. ``False`` if they have waited too long, and all were just now."""
        now = perf_counter()
        if not self.writers:
            self._began = now
            # If those who were woken have nothing to say.
            self._loop.call_soon(self.flush)
        self.writers.append(writer)
        if now - self._began > MAX_WAIT:
            self.flush()
            return False
        return True

    def flush(self) -> None:
        writers, self.writers = self.writers, []
        for writer in writers:
            try:
                writer.release()
            except Exception as error:
                self._loop.call_exception_handler({"message": "writing to a WebSocket failed", "exception": error})


class Writer:
    """A transport whose writes may wait until the end of the turn. In all else it is the one that it is given."""

    __slots__ = (
        "_is_past", "_parts", "_size", "_transport", "_turn", "_write", "is_closing", "pause_reading", "resume_reading",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport, turn: Turn) -> None:
        self._transport = transport
        self._turn = turn
        self._write = transport.write
        self._parts: list[bytes] = []
        self._size = 0
        #: Whether somebody writes to the transport itself.
        self._is_past = False
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        turn = self._turn
        if self._is_past:
            self._write(data)
            return
        if not turn.woken:
            # The last one to run in this turn, or the only one.
            if turn.writers:
                turn.flush()
            self._write(data)
            return
        parts = self._parts
        parts.append(data)
        self._size += len(data)
        if self._size > MAX_BYTES:
            self.release()
        elif len(parts) == 1:
            turn.put(self)

    def through(self) -> tuple[asyncio.Transport, Callable[[Gathered, bool], bool]]:
        """The transport itself, and ``takes``, for who puts writes aside by itself.

        What waits is written first, and nothing waits here any more: it would be overtaken.
        """
        self.release()
        self._is_past = True
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
