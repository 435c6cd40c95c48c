"""The bounded queue between whoever sends and one socket. Owned by the connection; it is the only writer.

A frame is handed to the server at once as long as that takes it without waiting and nothing is queued: written to the
server's transport where there is a lane to it, otherwise by stepping the server's ``send`` coroutine in place. Only
when the server waits (its buffer is full) does a task start, which writes what has piled up and ends. So a healthy
connection costs no task, no queue and no wake-up per message.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, NamedTuple, Protocol

from .backlog import Backlog, Droppable, Entries, Full, Overflow
from .gathering import NO_TURN, LoopTurn
from .lanes import NEVER, Lane, Transport, Writable
from .messages import Frame
from .stepping import Resumed
from .types import Send

#: Writes that are put aside before they are done, and bytes of one that takes those before it along at once.
MAX_ASIDE, LARGE = 16, 4096
#: Bytes from which on no more of what was held back goes into a write: about what a server takes at once.
TOGETHER = 32 * 1024


class OutboxBounds(NamedTuple):
    """What an outbox may hold, the same for all connections of a class.

    ``max_messages`` and ``max_bytes`` may wait. ``overflow``: what happens to more; ``disconnect`` gives the connection
    up, the others drop events. ``write_timeout``: seconds that one message may take to be written once the server has
    begun to wait; only under ``disconnect``, where more gives the connection up too.
    """

    overflow: Overflow
    max_messages: int
    max_bytes: int
    write_timeout: float


class Owner(Protocol):
    """Who is told what becomes of an outbox. None of these may raise."""

    def on_overflow(self) -> None:
        """Called once, when nothing more can wait and nothing can be dropped, and when something had to be dropped on
        a lane that is closing."""

    def on_lost(self, error: BaseException) -> None:
        """Called once, when the server refuses to send, as it does when the peer has gone."""

    def on_dropped(self) -> None:
        """Called for each event that is dropped for want of room."""

    def catch_up(self) -> None:
        """Called before something is pushed while events wait that go before it, to have those delivered."""


class Outbox:
    """What one connection still has to send.

    Args:
        send: the server's ASGI ``send``.
        turn: at whose end events are delivered that go before what is pushed.

    Frames leave in the order in which they were pushed. After ``abort``, an overflow or a lost peer everything is
    dropped. ``sent``, ``dropped``, ``coalesced``, ``waiting`` and the one that is being written add up to what was
    pushed and to the notices of what was dropped, of which two may become one while they wait. What is put aside
    until the turn ends counts as sent.
    """

    __slots__ = (
        "_aside", "_backlog", "_bounds", "_bytes_before", "_dead", "_gathers", "_held", "_lane_bytes",
        "_lost_frames", "_owner", "_sealed", "_send", "_sent_before", "_task", "_transport", "_turn", "_writable",
        "is_idle", "on_drained", "sent",
    )  # fmt: skip

    #: Bytes of the messages that were handed to the server; ``None``: nobody counts.
    sent_bytes: int | None = None
    #: Whether somebody does; then those that go by the lane are added up in ``_lane_bytes``.
    _is_counting = False

    def __init__(self, send: Send, owner: Owner, bounds: OutboxBounds, turn: LoopTurn | None = None) -> None:
        self._send = send
        #: ``None`` once nobody is to be told any more.
        self._owner: Owner | None = owner
        self._bounds = bounds
        self._turn = turn if turn is not None else NO_TURN
        self._gathers = self._turn.gathers
        #: The lane's; ``None`` where there is none.
        self._transport: Transport | None = None
        self._writable: Writable = NEVER
        #: What was put aside until the turn ends, while it is gathered; and what had been sent before.
        self._aside: list[bytes] | None = None
        self._sent_before = self._bytes_before = 0
        self._lane_bytes = 0
        #: Made when something has to wait for the first time.
        self._backlog: Backlog | None = None
        self._task: asyncio.Task[None] | None = None
        self._held = True
        self._sealed = False
        self._dead = False
        #: Whether a frame would go straight to the server: open, nothing waits, nothing is being written.
        self.is_idle = False
        #: Called once, and then forgotten, when all that waited has been written.
        self.on_drained: Callable[[], None] | None = None
        #: Messages handed to the server.
        self.sent = 0
        #: Frames dropped because the socket was gone.
        self._lost_frames = 0

    @property
    def waiting(self) -> int:
        """Messages that wait to be written."""
        return len(self._backlog) if self._backlog is not None else 0

    @property
    def dropped(self) -> int:
        """Messages dropped: because the socket was gone, or events for want of room."""
        return self._lost_frames + (self._backlog.dropped if self._backlog is not None else 0)

    @property
    def coalesced(self) -> int:
        """Events replaced, while they waited, by a newer one of the same key."""
        return self._backlog.coalesced if self._backlog is not None else 0

    @property
    def is_dead(self) -> bool:
        return self._dead

    def open(self, lane: Lane | None = None) -> None:
        """Begin to send. Until the socket is accepted everything is held back, in order."""
        if self._held and not self._dead:
            self._held = False
            if lane is not None:
                self._writable, self._transport, gathers = lane
                if gathers is not None:
                    self._gathers = gathers
            self.is_idle = not self._sealed
            if self._backlog is not None and self._sealed:
                self._lost_frames += self._backlog.clear()
            elif self._backlog is not None:
                if lane is not None:
                    self._write_held(self._backlog, lane.writable, lane.transport)
                # Until the server waits too; then its task goes on.
                while self._task is None and (frame := self._backlog.next()) is not None:
                    self._push_now(frame)
                if self._task is None:
                    self._drained()

    def _write_held(self, backlog: Backlog, writable: Writable, transport: Transport) -> None:
        """Write what was held back, such as all that a client has missed, in as few writes as may be."""
        while writable.is_set() and not transport.is_closing():
            wires: list[bytes] = []
            size = payload = 0
            while size < TOGETHER and (frame := backlog.next()) is not None:
                wires.append(frame.wire)
                size += len(frame.wire)
                payload += frame.size
            if not wires:
                return
            try:
                transport.write(b"".join(wires))
            except Exception as error:
                self._lost_frames += len(wires)
                self._lose(error)
                return
            self.sent += len(wires)
            self._lane_bytes += payload

    def push(self, frame: Frame, droppable: Droppable | None = None) -> None:
        """Send ``frame`` after the events that go before it, now or when the turn ends. Never waits, never raises."""
        is_due = self._turn.is_due
        # Only what the server would take now may be put aside.
        if self._aside is None and self.is_idle and self._writable.is_set() and self._gathers(self, is_due):
            self._sent_before, self._bytes_before = self.sent, self._lane_bytes
            if not is_due:
                self._aside = [frame.wire]
                self.sent += 1
                if self._is_counting:
                    self._lane_bytes += frame.size
                if frame.size > LARGE:
                    self.release()
                return
            # Begun before the events, which then go along.
            self._aside = []
        if is_due and self._owner is not None:
            self._owner.catch_up()
        self.deliver(frame, droppable)

    def deliver(self, frame: Frame, droppable: Droppable | None = None) -> None:
        """Send ``frame`` now if the server takes it at once, else queue it. Never waits, never raises."""
        if self.is_idle:
            transport = self._transport
            if transport is None or transport.is_closing() or not self._writable.is_set():
                self._push_now(frame)
                return
            try:
                if self._aside is None:
                    transport.write(frame.wire)
                else:
                    self._put_aside(frame.wire)
            except Exception as error:
                self._lost_frames += 1
                self._lose(error)
            else:
                self.sent += 1
                if self._is_counting:
                    self._lane_bytes += frame.size
        else:
            self._enqueue(frame, droppable)

    def deliver_all(self, entries: Entries, wire: bytes) -> None:
        """Send several frames, whose bytes together are ``wire``, at once if the server takes them."""
        transport = self._transport
        if not self.is_idle or transport is None or transport.is_closing() or not self._writable.is_set():
            for frame, droppable in entries:
                self.deliver(frame, droppable)
            return
        try:
            if self._aside is None:
                transport.write(wire)
            else:
                self._put_aside(wire)
        except Exception as error:
            self._lost_frames += len(entries)
            self._lose(error)
        else:
            self.sent += len(entries)
            if self._is_counting:
                self._lane_bytes += sum(frame.size for frame, _ in entries)

    # -- what is put aside until the turn ends ---------------------------------------------------------------------

    def _put_aside(self, wire: bytes) -> None:
        aside = self._aside
        assert aside is not None
        aside.append(wire)
        if len(aside) == MAX_ASIDE or len(wire) > LARGE:
            self._write_aside()

    def release(self) -> None:
        """Write what was put aside. Never raises."""
        if self._aside is not None:
            try:
                self._write_aside()
            except Exception as error:
                self._lose(error)

    def _write_aside(self) -> None:
        aside, transport = self._aside, self._transport
        self._aside = None
        if aside and transport is not None:
            try:
                # The server has given the socket up: it would complain about what is written.
                if transport.is_closing():
                    raise ConnectionResetError("the server is closing the socket")
                transport.write(aside[0] if len(aside) == 1 else b"".join(aside))
            except Exception:
                self._lose_aside()
                raise

    def _lose_aside(self) -> None:
        self._lost_frames += self.sent - self._sent_before
        self.sent, self._lane_bytes = self._sent_before, self._bytes_before

    # -- the server's send, and what waits for it ------------------------------------------------------------------

    def _push_now(self, frame: Frame) -> None:
        if self._aside is not None:
            self.release()
            if self._dead:
                self._lost_frames += 1
                return
        try:
            # A copy, since a middleware may change what it is given, and the frame is everybody's.
            coroutine: Any = self._send(frame.message.copy())
            if type(coroutine) is not CoroutineType and not hasattr(coroutine, "send"):
                coroutine = _awaited(coroutine)  # An awaitable that is no coroutine, as some servers return.
            waited_for = coroutine.send(None)
        except StopIteration:
            self.sent += 1
        except BaseException as error:
            self._lost_frames += 1
            self._lose(error)
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise
        else:
            self.is_idle = False
            self._task = asyncio.get_running_loop().create_task(self._write_all(Resumed(coroutine, waited_for)))

    def _enqueue(self, frame: Frame, droppable: Droppable | None) -> None:
        if self._dead or self._sealed:
            self._lost_frames += 1
            return
        backlog = self._backlog
        if backlog is None:
            backlog = self._new_backlog()
        before = backlog.dropped
        try:
            backlog.put(frame, droppable)
        except Full:
            self._lost_frames += 1
            self._give_up()
        else:
            if backlog.dropped == before:
                return
            if self._owner is not None:
                for _ in range(backlog.dropped - before):
                    self._owner.on_dropped()
            if self._transport is not None and self._transport.is_closing():
                # The server has given it up, as uvicorn does when no pong comes, and cannot even say so: its buffer
                # is not taken either.
                self._give_up()

    def _new_backlog(self) -> Backlog:
        backlog = self._backlog = Backlog(self._bounds.overflow, self._bounds.max_messages, self._bounds.max_bytes)
        return backlog

    async def _write_all(self, current: Awaitable[None]) -> None:
        """Finish the send that waits, then write what was queued meanwhile."""
        timeout = self._bounds.write_timeout if self._bounds.overflow == "disconnect" else None
        limit = asyncio.timeout(timeout)
        try:
            while True:
                async with limit:
                    await current
                self.sent += 1
                frame = self._backlog.next() if self._backlog is not None else None
                if frame is None:
                    break
                current = self._send(frame.message.copy())
                limit = asyncio.timeout(timeout)
        except TimeoutError as error:
            if limit.expired():
                self._give_up()
            else:
                self._lose(error)
        except Exception as error:
            self._lose(error)
        except asyncio.CancelledError:
            self.abort()
            raise
        else:
            self._task = None
            self.is_idle = not self._sealed
            self._drained()

    def _drained(self) -> None:
        if self.on_drained is not None:
            drained, self.on_drained = self.on_drained, None
            drained()

    async def flush(self) -> None:
        """Wait until all that was pushed before has been handed to the server, or will never be.

        Where nothing can be sent any more others get a turn, so that who sends in a loop does not keep them from
        stopping it.
        """
        if self._task is not None:
            backlog = self._backlog if self._backlog is not None else self._new_backlog()
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            backlog.mark(done)
            await done
        elif self._dead or self._sealed:
            await asyncio.sleep(0)

    def seal(self) -> None:
        """Take no more. What waits is still written."""
        if self._turn.is_due and self._owner is not None:
            self._owner.catch_up()
        self.release()
        self._sealed = True
        self.is_idle = False

    def abort(self) -> None:
        """Drop what waits and what is being written, and take no more."""
        self._dead = True
        self.is_idle = False
        if self._aside is not None:
            self._aside = None
            self._lose_aside()
        task, self._task = self._task, None
        if task is not None:
            self._lost_frames += 1
            if task is not asyncio.current_task():
                task.cancel()
        if self._backlog is not None:
            self._lost_frames += self._backlog.clear()

    def end(self) -> None:
        """Drop everything, for good, and tell nobody of anything any more."""
        self.abort()
        self._owner = self.on_drained = None

    def _give_up(self) -> None:
        self.abort()
        if self._owner is not None:
            self._owner.on_overflow()

    def _lose(self, error: BaseException) -> None:
        self.abort()
        if self._owner is not None:
            self._owner.on_lost(error)


async def _awaited(awaitable: Awaitable[None]) -> None:
    await awaitable
