"""What comes in from one socket, and the promise that a socket is always read.

Normally the connection receives straight from the server, with no queue in between. But uvicorn stops reading a socket
after one unread message, pongs included, and a disconnect or a ``cancel`` must be seen while an action runs. So when
an action is still running after a moment, a pump takes over and receives into a bounded queue until the action ends.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from .redaction import without_input
from .types import CloseCode, Message, Receive

logger = logging.getLogger(__name__)


class Disconnected(Exception):
    """The client, or the server, ended the connection. ``code`` is the close code."""

    @property
    def code(self) -> int:
        code: int = self.args[0]
        return code


class TooBig(Exception):
    """The client sent a larger message than it may."""


class Watch:
    """One timer for all connections: it finds those whose action is still running a moment later.

    Args:
        interval: seconds between two looks; a pump starts one to two intervals after an action began.
    """

    def __init__(self, interval: float = 0.05) -> None:
        self._interval = interval
        self._busy: set[Inbox] = set()
        self._seen: dict[Inbox, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, inbox: "Inbox") -> None:
        self._busy.add(inbox)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)

    def discard(self, inbox: "Inbox") -> None:
        self._busy.discard(inbox)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        seen, self._seen = self._seen, {}
        for inbox in self._busy:
            if seen.get(inbox) == inbox.turn:
                inbox.start_pump()
            elif not inbox.is_pumping:
                self._seen[inbox] = inbox.turn
        if self._seen:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)


class Owner(Protocol):
    """Who is told what becomes of an inbox."""

    def peek(self, frame: str | bytes) -> Any:
        """Sees each frame while an action runs, and says what is queued: the frame, what it read in it, or nothing
        (``None``) if it has dealt with it."""

    def on_gone(self, code: int) -> None:
        """Called with the close code when the client goes while an action runs."""

    def shut(self, code: int) -> None:
        """Called with the close code when no more can be received: the inbox stayed full, a frame that came meanwhile
        is too big, or receiving failed."""


class InboxBounds(NamedTuple):
    """What an inbox may hold, the same for all connections of a class.

    ``max_size``: bytes that one frame may have; ``get`` raises ``TooBig`` for a larger one. ``max_messages``: frames
    that may wait; a full inbox stops receiving, so that TCP slows the client down. ``timeout``: seconds that it may
    stay full before it is stuck.
    """

    max_size: int
    max_messages: int
    timeout: float


class Inbox:
    """Frames of one socket, in order.

    Args:
        receive: the server's ASGI ``receive``.
    """

    __slots__ = (
        "_bounds",
        "_max_size",
        "_owner",
        "_pump",
        "_queue",
        "_room",
        "_waiter",
        "_watch",
        "gone",
        "is_direct",
        "receive",
        "turn",
    )

    #: Messages and their bytes that came, and when the last one did, in Unix time; ``None``: nobody counts.
    received: int | None = None
    received_bytes: int | None = None
    last_seen: float | None = None

    def __init__(self, receive: Receive, watch: Watch, owner: Owner, bounds: InboxBounds) -> None:
        self.receive = receive
        self._watch = watch
        self._owner = owner
        self._bounds = bounds
        #: Looked at for every frame.
        self._max_size = bounds.max_size
        self._queue: deque[Any] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Event | None = None
        #: Whether nothing stands between the server and ``get``, which is ``take(await receive())`` then. Whoever does
        #: that has a coroutine less for each message.
        self.is_direct = True
        #: The close code, once the client has gone.
        self.gone: int | None = None
        #: Counts what was begun, so that the watch can tell one long action from many short ones.
        self.turn = 0

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return len(self._queue) if self._queue else 0

    def queued(self) -> Iterable[Any]:
        """What waits, as ``peek`` returned it."""
        return self._queue or ()

    @property
    def is_pumping(self) -> bool:
        return self._pump is not None

    async def get(self) -> Any:
        """The next frame, or what ``peek`` made of it. Raises ``Disconnected`` and ``TooBig``. For one task only."""
        while True:
            if self._queue:
                frame = self._queue.popleft()
                if self._room is not None:
                    self._room.set()
                return frame
            if self.gone is not None:
                raise Disconnected(self.gone)
            if self._pump is None:
                self.is_direct = True
                return self.take(await self.receive())
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def take(self, message: Message) -> str | bytes:
        """The frame in a message of the server's. Raises as ``get``."""
        if message["type"] == "websocket.receive":
            text: str | None = message.get("text")
            if text is None:
                data: bytes = message.get("bytes") or b""
                if len(data) > self._max_size:
                    raise TooBig
                return data
            # A character takes one to four bytes: only texts in between need to be measured.
            if len(text) * 4 > self._max_size and len(text.encode("utf-8", "surrogatepass")) > self._max_size:
                raise TooBig
            return text
        self.gone = code = int(message.get("code") or CloseCode.NORMAL)
        raise Disconnected(code)

    def begin(self) -> None:
        """Something starts to run, and while it does nobody calls ``get``."""
        self.turn += 1
        self._watch.add(self)

    def end(self) -> None:
        """It has ended."""
        self._watch.discard(self)

    def start_pump(self) -> None:
        """Receive in the background until ``get`` is called again and served."""
        if self._pump is None and self.gone is None:
            self.is_direct = False
            self._pump = asyncio.get_running_loop().create_task(self._run_pump())

    async def _run_pump(self) -> None:
        try:
            while True:
                frame: Any = self.take(await self.receive())
                if self._waiter is None:
                    frame = self._owner.peek(frame)
                    if frame is None:
                        continue
                if self._queue is None:
                    self._queue = deque()
                if len(self._queue) >= self._bounds.max_messages and not await self._wait_for_room(self._queue):
                    self._owner.shut(CloseCode.TOO_MANY_REQUESTS)
                    return
                self._queue.append(frame)
                if self._waiter is not None:
                    # The action has ended and somebody waits: from here on it receives for itself again. The pump is
                    # not cancelled at the action's end, for a cancelled receive() may lose a message.
                    return
        except Disconnected as error:
            self._owner.on_gone(error.code)
        except TooBig:
            self._owner.shut(CloseCode.MESSAGE_TOO_BIG)
        except Exception as error:
            logger.error("receiving while an action runs failed", exc_info=without_input(error))
            self._owner.shut(CloseCode.INTERNAL_ERROR)
        finally:
            self._pump = None
            self._wake()

    async def _wait_for_room(self, queue: deque[Any]) -> bool:
        self._room = asyncio.Event()
        try:
            async with asyncio.timeout(self._bounds.timeout):
                while len(queue) >= self._bounds.max_messages:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            return False
        finally:
            self._room = None
        return True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def close(self) -> None:
        """End the pump. Nothing is received any more, and nobody is told of anything."""
        self._watch.discard(self)
        pump = self._pump
        if pump is not None and pump is not asyncio.current_task():
            pump.cancel()
            await asyncio.wait([pump])
        self._owner = _NOBODY


class _Nobody:
    """The owner of an inbox that is closed."""

    def peek(self, _: object) -> None:
        return None

    on_gone = shut = peek


_NOBODY = _Nobody()
