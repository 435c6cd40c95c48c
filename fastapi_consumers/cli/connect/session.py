"""One conversation with a server, over as many sockets as it takes."""

import asyncio
import random
from typing import Any, NamedTuple, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ...types import CloseCode
from .handshake import HandshakeFailed, open_socket
from .pairing import Answer, Positions, Requests, message_of
from .target import Target

#: Close codes after which coming back makes no sense: the page about the protocol has their meaning.
FINAL = {
    CloseCode.NORMAL,
    CloseCode.UNSUPPORTED_DATA,
    CloseCode.POLICY_VIOLATION,
    CloseCode.MESSAGE_TOO_BIG,
    CloseCode.BAD_FRAMES,
    CloseCode.NOT_AUTHENTICATED,
    CloseCode.FORBIDDEN,
    CloseCode.REPLACED,
}
#: Seconds before the first attempt to come back, and at most before any; half to one and a half times as long.
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0


class End(NamedTuple):
    """How it ended: the close code and reason, and how many requests had no answer."""

    code: int
    reason: str
    unanswered: int


class View(Protocol):
    """What shows a conversation, to people or to programs."""

    def opened(self, target: Target, subprotocol: str | None, again: bool) -> None: ...

    def received(self, frame: str | bytes, message: dict[str, Any] | None, answer: Answer | None) -> None: ...

    def closed(self, end: End) -> None: ...

    def waiting(self, seconds: float, failure: HandshakeFailed | None) -> None: ...


class Session:
    """Reads a socket until it ends, and opens the next one if it is to reconnect.

    ``errors`` counts requests that were answered with an error, and errors that answer no request; ``unanswered``
    those whose socket ended before.
    """

    def __init__(self, target: Target, view: View, *, reconnect: bool) -> None:
        self.target = target
        self.requests = Requests()
        self.errors = 0
        self.unanswered = 0
        #: Names of actions that the server has answered for: they exist.
        self.known_actions: set[str] = set()
        #: Set while there is a socket, and when all are answered.
        self.is_open = asyncio.Event()
        self.all_answered = asyncio.Event()
        self.all_answered.set()
        self._view = view
        self._reconnect = reconnect
        self._positions = Positions()
        self._socket: ClientConnection | None = None
        self._stopped = False
        self._hurry = asyncio.Event()
        #: Seconds that the server asked to wait for before coming back.
        self._after = 0.0

    async def run(self) -> End:
        """Until the conversation has ended. Raises ``HandshakeFailed`` if it cannot begin, or go on."""
        try:
            return await self._run()
        finally:
            if self._socket is not None:  # Cancelled, or what shows the frames cannot.
                await self._socket.close(CloseCode.GOING_AWAY)

    async def _run(self) -> End:
        socket = await open_socket(self.target, {})
        again = False
        while True:
            self._socket = socket
            if self._stopped:
                await socket.close()
            self._view.opened(self.target, socket.subprotocol, again)
            self.is_open.set()
            try:
                async for frame in socket:
                    self._receive(frame)
            except ConnectionClosed:
                pass
            finally:
                self.is_open.clear()
            code = socket.close_code if socket.close_code is not None else int(CloseCode.ABNORMAL)
            end = End(code, socket.close_reason or "", self.requests.forget())
            self.unanswered += end.unanswered
            self.all_answered.set()
            self._view.closed(end)
            if self._stopped or not self._reconnect or code in FINAL:
                return end
            found = await self._come_back()
            if found is None:
                return end
            socket, again = found, True

    async def _come_back(self) -> ClientConnection | None:
        """The next socket; ``None`` if it was stopped meanwhile."""
        delay, after, failure = FIRST_DELAY, self._after, None
        self._after = 0.0
        while True:
            seconds = max(after, delay * (0.5 + random.random()))
            self._view.waiting(seconds, failure)
            try:
                async with asyncio.timeout(seconds):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            if self._stopped:
                return None
            try:
                return await open_socket(self.target, self._positions.of)
            except HandshakeFailed as error:
                if not error.retry:
                    raise
                failure, after = error, error.after
            delay = min(delay * 2, LONGEST_DELAY)

    def hurry(self) -> None:
        """Do not wait any longer before coming back."""
        self._hurry.set()

    async def drop(self) -> None:
        """Close the socket as if the network had: it is opened again if it is to reconnect."""
        if self._socket is not None:
            await self._socket.close(CloseCode.GOING_AWAY)
        self.hurry()

    async def send(self, frame: str) -> bool:
        """Whether it was handed to the socket. ``False`` if there is none, or none any more."""
        if self._socket is None or not self.is_open.is_set():
            return False
        self.requests.sent(frame)
        if len(self.requests):
            self.all_answered.clear()
        try:
            await self._socket.send(frame)
        except ConnectionClosed:
            return False
        return True

    async def stop(self) -> None:
        """Close for good, and do not come back."""
        self._stopped = True
        self._hurry.set()
        if self._socket is not None:
            await self._socket.close(CloseCode.NORMAL)

    def _receive(self, frame: str | bytes) -> None:
        message, answer = message_of(frame), None
        if message is not None:
            self._positions.learn(message)
            answer = self.requests.answered(message)
            self._learn(message, answer)
        self._view.received(frame, message, answer)
        if not len(self.requests):
            self.all_answered.set()

    def _learn(self, message: dict[str, Any], answer: Answer | None) -> None:
        error = message.get("error") if message.get("type") in ("reply", "error") else None
        if error is not None:
            self.errors += 1
        if answer is not None and (not isinstance(error, dict) or error.get("code") != "action_not_found"):
            self.known_actions.add(answer.action)
        after = message.get("after")
        if message.get("type") == "closing" and isinstance(after, int | float):
            self._after = min(max(0.0, float(after)), LONGEST_DELAY)
