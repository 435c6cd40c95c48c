"""One connection: which frames are read here, which by uvicorn's own class, and how much may wait."""

import logging
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from ...messages import frame_head
from .base import State, WebSocketsSansIOProtocol
from .turns import Turn, Writer

try:
    from websockets.speedups import apply_mask
except ImportError:  # where websockets was installed without its C extension
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
    from uvicorn.config import Config
    from uvicorn.server import ServerState
    from websockets.frames import Frame

_TEXT, _BINARY = 0x81, 0x82
_CONTINUATION, _DATA, _OPCODES = 0x0, (0x1, 0x2), frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection.

    Up to ``--ws-max-queue`` messages, or ``max_waiting_bytes``, wait for the application. What was read beyond that,
    one read of the transport, is kept as it came, and the socket is not read until the application has taken all.
    """

    #: Bytes of messages that may wait before the socket is read no further. One that is larger waits alone.
    max_waiting_bytes = 64 * 1024

    def __init__(
        self,
        config: "Config",
        server_state: "ServerState",
        app_state: dict[str, Any],
        _loop: "asyncio.AbstractEventLoop | None" = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        #: Shared by all connections of a server.
        self._turn = _turn_of(server_state)
        self._writer: Writer | None = None
        #: Events that wait for the application, and their bytes since there were none.
        self._waiting = self.queue = cast("Any", _Waiting(self._turn))
        self._max_messages = max(1, config.ws_max_queue)
        max_size = cast("int | None", config.ws_max_size)
        self._max_size = sys.maxsize if max_size is None else max_size
        #: Whether frames are not extended, so that there is a shorter way for them.
        self._is_plain = False
        #: What was read and is not parsed yet, and from where on.
        self._rest = b""
        self._at = 0
        #: Bytes of the frame that the library has begun to read.
        self._left = 0
        #: Whether the library is between the fragments of a message.
        self._in_fragments = False
        #: The answer to the last ping that came while the client took nothing.
        self._pong = b""
        #: Seconds that the socket was not read since the last ping was sent, and since when it has not been.
        self._unread = 0.0
        self._unread_since: float | None = None

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        """Put the writer of this turn before the transport."""
        super().connection_made(transport)
        self._writer = Writer(self.transport, self._turn)
        self.transport = cast("asyncio.Transport", self._writer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what was to be written."""
        if self._writer is not None:
            self._writer.drop()
        super().connection_lost(exc)

    # -- in ------------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse as many messages as may wait; keep the rest as it is."""
        if not self.handshake_initiated:
            # The head of the request, which uvicorn gives in one piece.
            super().data_received(data)
            return
        if self._rest:
            data = self._rest[self._at :] + data
            self._rest = b""
        if not self.handshake_complete or self.read_paused:
            # Before the client may send, or on its way here when reading was paused.
            self._rest, self._at = data, 0
            if len(data) >= self.max_waiting_bytes:
                self._pause()
        elif not self._read(data, 0):
            self._pause()

    def _read(self, data: bytes, at: int) -> bool:
        """Take the frames out of what was read, from ``at`` on; ``False`` if no more may wait for now."""
        if self.conn.state is not State.OPEN:
            self._read_end(data[at:])
            return True
        size, max_messages, max_bytes = len(data), self._max_messages, self.max_waiting_bytes
        waiting = self._waiting
        events = waiting.events
        is_short = self._is_plain and not self._left and not self._in_fragments
        while at < size:
            if len(events) >= max_messages or waiting.size >= max_bytes:
                self._rest, self._at = data, at
                break
            if is_short and size - at >= 6:
                first, length = data[at], data[at + 1] - 0x80
                if (first == _TEXT or first == _BINARY) and length >= 0:  # noqa: SIM109  # a tuple would cost more
                    start = at + 6
                    if length == 126:
                        start = at + 8
                        length = data[at + 2] << 8 | data[at + 3]
                    elif length == 127:
                        start = at + 14
                        length = int.from_bytes(data[at + 2 : at + 10])
                    end = start + length
                    if end <= size and length <= self._max_size:
                        payload = apply_mask(data[start:end], data[start - 4 : start])
                        try:
                            events.append(
                                {"type": "websocket.receive", "text": payload.decode()}
                                if first == _TEXT
                                else {"type": "websocket.receive", "bytes": payload}
                            )
                        except UnicodeDecodeError:
                            pass
                        else:
                            waiting.size += length
                            at = end
                            continue
            at = self._pass_on(data, at)
            is_short = self._is_plain and not self._left and not self._in_fragments and self.conn.state is State.OPEN
        if events:
            waiting.wake()
        return len(events) < max_messages and waiting.size < max_bytes

    def _pass_on(self, data: bytes, at: int) -> int:
        """Have the library read one frame, or what has come of it; where the next one begins."""
        if self.conn.state is not State.OPEN:
            self._read_end(data[at:])
            return len(data)
        if not self._left:
            size = _frame_size(data, at)
            if size is None:
                self._rest, self._at = data[at:], 0
                return len(data)
            self._left = size
            opcode, is_final = data[at] & 0x0F, data[at] >= 0x80
            if opcode in _DATA:
                self._in_fragments = not is_final
            elif opcode == _CONTINUATION and is_final:
                self._in_fragments = False
        part = data[at : at + self._left]
        self._left -= len(part)
        super().data_received(part)
        return at + len(part)

    def _read_end(self, data: bytes) -> None:
        """What comes after a close frame: the answer to it, or nothing that counts."""
        if not self.transport.is_closing():
            super().data_received(data)

    def handle_cont(self, event: "Frame") -> None:
        """Take a fragment."""
        # In one piece, so that fragments of a byte, or of none, take no more memory than their message.
        parts: list[Any] = self.frames
        whole = parts[0] if isinstance(parts[0], bytearray) else bytearray(parts[0])
        whole += event.data
        parts[0] = bytes(whole) if event.fin else whole
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        """Hand on a message that the library has put together."""
        # Uvicorn stops reading after each message, unless it has stopped already.
        is_paused, self.read_paused = self.read_paused, True
        super().send_receive_event_to_app()
        self.read_paused = is_paused

    def handle_ping(self) -> None:
        """Answer a ping, or keep the answer while the client takes nothing."""
        if self.writable.is_set():
            super().handle_ping()
        elif output := b"".join(self.conn.data_to_send()):
            # Only the last of several pings has to be answered (RFC 6455, section 5.5.3): they would pile up.
            self._pong = output

    def resume_writing(self) -> None:
        """Send the answer that was kept."""
        super().resume_writing()
        pong, self._pong = self._pong, b""
        if pong and self.conn.state is State.OPEN:
            self.transport.write(pong)

    async def receive(self) -> "ASGIReceiveEvent":
        """The next event for the application. Reading goes on once all are taken."""
        waiting = self._waiting
        events = waiting.events
        while not events:
            waiter = self.loop.create_future()
            waiting.waiters.append(waiter)
            try:
                is_message = await waiter
            except BaseException:
                waiting.forget(waiter)
                raise
            self._turn.woken -= is_message
        event: ASGIReceiveEvent = events.popleft()
        if not events:
            waiting.size = 0
            if self.read_paused:
                self._go_on()
        return event

    # -- how much of it ------------------------------------------------------------------------------------------------

    def _pause(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self._unread_since = self.loop.time()
            self.transport.pause_reading()

    def _go_on(self) -> None:
        """Parse what was kept, and read on if there is room then."""
        if self.transport.is_closing():
            return
        rest, self._rest = self._rest, b""
        if not self._read(rest, self._at):
            self._pause()
        elif self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self._unread = self._unread_time()
            self._unread_since = None
            self.transport.resume_reading()

    def _unread_time(self) -> float:
        return self._unread + (0.0 if self._unread_since is None else self.loop.time() - self._unread_since)

    def send_keepalive_ping(self) -> None:
        """Send a ping. What was not read before counts no more."""
        self._unread = 0.0
        if self._unread_since is not None:
            self._unread_since = self.loop.time()
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """The client has not answered a ping in time; nobody is closed for an answer that was not read.

        Seconds in which the application took nothing do not count, unless it is the client that keeps it waiting.
        """
        unread = self._unread_time()
        if unread > 0 and self.writable.is_set() and not self.transport.is_closing():
            self._unread = 0.0
            if self._unread_since is not None:
                self._unread_since = self.loop.time()
            self.pong_timer = self.loop.call_later(unread, self.keepalive_timeout)
        else:
            super().keepalive_timeout()

    # -- out -----------------------------------------------------------------------------------------------------------

    async def send(self, message: "ASGISendEvent") -> None:
        """Send what the application says; whole frames without the library."""
        if message["type"] == "websocket.send":
            if self._is_plain and self.writable.is_set() and not self.disconnected and self.conn.state is State.OPEN:
                data, text = message.get("bytes"), message.get("text")
                if data is not None:
                    self.transport.write(frame_head(_BINARY, len(data)) + data)
                    return
                if text is not None:
                    data = text.encode()
                    self.transport.write(frame_head(_TEXT, len(data)) + data)
                    return
            await super().send(message)
            return
        await super().send(message)
        if message["type"] == "websocket.accept":
            # Frames that are extended, or shown in the log, are the library's.
            self._is_plain = not self.conn.extensions and not self.logger.isEnabledFor(logging.DEBUG)
        if self._rest and self.handshake_complete:
            # Of a client that sent before it was accepted; or what came before its answer to our close frame.
            self._go_on()


class _Waiting:
    """Events that wait for the application, in the place of the :class:`asyncio.Queue` of uvicorn's class."""

    __slots__ = ("events", "size", "turn", "waiters")

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.events: deque[Any] = deque()
        #: Bytes of the messages that came since there were none.
        self.size = 0
        #: Who waits for events, in the order in which they came; nearly always one.
        self.waiters: list[asyncio.Future[bool]] = []

    def put_nowait(self, event: Any) -> None:
        """Put an event that is not a whole frame's. Uvicorn's class calls it."""
        self.events.append(event)
        self.size += len(event.get("text") or event.get("bytes") or ())
        self.wake(event["type"] == "websocket.receive")

    def wake(self, is_message: bool = True) -> None:
        """Have one of those who wait look for events. For a message it is expected to have an answer in this turn."""
        while self.waiters:
            waiter = self.waiters.pop(0)
            if not waiter.done():
                self.turn.woken += is_message
                waiter.set_result(is_message)
                return

    def forget(self, waiter: "asyncio.Future[bool]") -> None:
        """One who waited is cancelled. If it was woken, another one has to look."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)
        elif waiter.done() and not waiter.cancelled():
            self.turn.woken -= waiter.result()
            if self.events:
                self.wake()


def _turn_of(server_state: "ServerState") -> Turn:
    """The turn that all connections of a server share. It is kept where uvicorn keeps what they share."""
    shared = vars(server_state)
    if "fastapi_consumers_turn" not in shared:
        shared["fastapi_consumers_turn"] = Turn()
    turn: Turn = shared["fastapi_consumers_turn"]
    return turn


def _frame_size(data: bytes, at: int) -> int | None:
    """Bytes of the frame that begins at ``at`` with its head; ``None`` if that cannot be told yet.

    Of one that breaks the rules in its first two bytes it is all that is there: the library sees it at once.
    """
    there = len(data) - at
    if there < 2:
        return None
    if data[at] & 0x0F not in _OPCODES or data[at + 1] < 0x80:
        return there
    length = data[at + 1] & 0x7F
    if length < 126:
        return 6 + length
    more = 2 if length == 126 else 8
    if there < 2 + more:
        return None
    return 6 + more + int.from_bytes(data[at + 2 : at + 2 + more])
