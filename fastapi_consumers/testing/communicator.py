"""An in-process client of one websocket, with the names and meanings of Django Channels' communicator.

For asyncio, and for any ASGI app: no server, no socket, no thread.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from types import EllipsisType, TracebackType
from typing import Any, ClassVar, Self

from ..types import ASGIApp, CloseCode, Message
from . import registry
from .errors import CallError, Denial, HandshakeRefused, SocketClosed
from .inbox import Inbox, Timeout
from .lifespans import ensure_lifespan
from .server import MSGPACK_SUBPROTOCOL, Headers, Output, Server, make_scope, ormsgpack


class WebsocketCommunicator:
    """A client of one websocket of ``app``, used on the event loop that it connects on.

    ::

        async with WebsocketCommunicator(app, "/chat/lobby") as alice:
            await alice.send_json_to({"action": "say", "data": {"text": "hi"}})
            assert await alice.receive_json_from() == {...}

    Timeouts are seconds; ``None`` waits for ever, and without one ``default_timeout`` holds, which a suite may set on
    this class. **A timeout never cancels the app**: it raises ``TimeoutError`` with what was awaited and what the app
    sent instead, and the app goes on. What the app sends is kept, in order, until it is received. The app's own
    exception is raised by the call that waits for it, and otherwise by ``disconnect``.

    The app's lifespan is run if nobody did, and kept for the whole test.

    Args:
        app: any ASGI app.
        path: percent-encoded or not, with or without a query string.
        headers: pairs or a mapping, str or bytes. ``Host: testserver`` is added; there is no ``Origin``.
        subprotocols: what the client offers.
        client: the client's address and port.
        scope: more keys of the ASGI scope, or other values for it. ``communicator.scope`` can also be changed until
            ``connect``.
        denial_response: offer the app the extension ``websocket.http.response``, so that it can refuse the handshake
            with an HTTP response. Without, apps refuse with a close code.
        max_unread: a slow client: the app's ``send`` waits while more frames than this have not been received.
        run_lifespan: ``False`` leaves the app's lifespan to the test.
    """

    #: How long a call waits that is not told, in seconds. Generous: only a test that fails waits that long, and a busy
    #: machine stalls for a second now and then.
    default_timeout: ClassVar[float | None] = 5

    def __init__(
        self,
        app: ASGIApp,
        path: str,
        headers: Headers | None = None,
        subprotocols: Sequence[str] | None = None,
        *,
        client: tuple[str, int] | None = ("testclient", 50000),
        scope: Mapping[str, Any] | None = None,
        denial_response: bool = False,
        max_unread: int | None = None,
        run_lifespan: bool = True,
    ) -> None:
        self.app = app
        self.path = path
        self.scope = {**make_scope(path, headers, subprotocols, client, denial_response), **(scope or {})}
        #: The pytest plugin disconnects it.
        self.managed = False
        self._run_lifespan = run_lifespan
        self._server = Server(app, self.scope, max_unread)
        self._request_ids = itertools.count(1)
        self._inbox = Inbox(self._server, path, self.default_timeout)

    def __repr__(self) -> str:
        return f"<WebsocketCommunicator {self.path} {self._server.phase.value}>"

    @property
    def subprotocol(self) -> str | None:
        """What the app accepted, or ``None``."""
        return self._server.subprotocol

    @property
    def accept_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that the app accepted with."""
        return self._server.accept_headers

    @property
    def close_code(self) -> int | None:
        """The code that the app closed or refused with, known at once, even if frames before it are unread."""
        return self._server.close_code

    @property
    def close_reason(self) -> str | None:
        """The reason that the app closed or refused with, often empty; ``None`` if it did not."""
        return self._server.close_reason

    @property
    def denial(self) -> Denial | None:
        """The HTTP response that the app refused with, or ``None``."""
        return self._server.denial if self._server.is_closed else None

    @property
    def is_running(self) -> bool:
        """The app runs: it was connected to and has not returned."""
        return self._server.task is not None and not self._server.ended

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that it was connected on."""
        return self._inbox.loop

    @property
    def is_connected(self) -> bool:
        """Neither side has ended the socket, and the app runs."""
        return self.is_running and not self._server.over

    # Connecting

    async def connect(self, timeout: Timeout = ...) -> tuple[bool, str | int | None]:
        """Open the socket. ``(True, subprotocol)``, or ``(False, close_code)`` if the app refuses it; with a denial
        response ``(False, status)``.

        ``timeout`` is for the handshake; the lifespan, if it must be started, has 10 s of its own.
        After a ``TimeoutError``, ``connect`` may be called again to wait on.

        Raises what the app raises before it accepts, what its startup raises, and ``RuntimeError`` if the app returns
        without having accepted or closed.
        """
        server = self._server
        if server.decided:
            raise RuntimeError(f"{self.path} has been connected before; make a new communicator for a new socket")
        if server.task is None:
            self._inbox.loop = asyncio.get_running_loop()
            state = await ensure_lifespan(self.app) if self._run_lifespan else {}
            self.scope["state"] = {**state, **self.scope.get("state", {})}
            running = registry.current().communicators
            # Records of the log have the name of the task, and are not to have what a query may hold.
            server.start(f"app under test: websocket {self.path.partition('?')[0]}", lambda: running.pop(self, None))
            running[self] = None
        await self._inbox.until(lambda: server.decided or server.over, timeout, "the app to accept or to close")
        if server.accepted:
            return True, server.subprotocol
        if server.is_closed:
            return False, server.denial.status if server.denial is not None else server.close_code
        if server.left is not None:
            raise SocketClosed(server.left, explanation="this side disconnected before the app had accepted")
        self._inbox.raise_error()
        raise RuntimeError(f"the app returned without having accepted or closed {self.path}")

    async def __aenter__(self) -> Self:
        """Connect. Raises :class:`HandshakeRefused` if the app refuses, and what ``connect`` raises.

        When this fails there is nobody left to end the app, so it is ended here.
        """
        try:
            accepted, code = await self.connect()
            if not accepted:
                raise HandshakeRefused(self.path, int(code or 0), self.close_reason or "", self.denial)
        except BaseException as error:
            await self.tear_down()
            if isinstance(error, HandshakeRefused) and self._server.error is not None:
                error.add_note(f"and then the app raised {self._server.error!r}")
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disconnect. When the block raised, that is what the test sees, and the app's exception is a note to it."""
        if error is None:
            await self.disconnect()
            return
        try:
            await self.disconnect()
        except Exception as other:
            error.add_note(f"and then, when {self.path} was disconnected: {other!r}")

    # Sending

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send one frame: text (empty text is text) or bytes. Does not wait for the app to take it.

        Raises ``TypeError`` unless exactly one is given, :class:`SocketClosed` on a closed socket, or what the app
        raised.
        """
        if (text_data is None) == (bytes_data is None):
            raise TypeError(f"send_to() takes either text_data or bytes_data; got {text_data=!r} and {bytes_data=!r}")
        if text_data is not None and not isinstance(text_data, str):
            raise TypeError(f"text_data must be str; got {text_data!r}. Bytes are sent as bytes_data")
        if bytes_data is not None and not isinstance(bytes_data, bytes | bytearray):
            raise TypeError(f"bytes_data must be bytes; got {bytes_data!r}. Text is sent as text_data")
        self._inbox.check_loop()
        if self._server.over:
            raise self._inbox.end()
        if not self._server.is_open:
            raise RuntimeError(f"{self.path} is not open: the app has not accepted it")
        if text_data is not None:
            self._server.put({"type": "websocket.receive", "text": text_data})
        else:
            self._server.put({"type": "websocket.receive", "bytes": bytes_data})

    async def send_json_to(self, data: Any) -> None:
        """Send ``data`` as JSON text; as MessagePack where the app accepted ``fc.v1.msgpack``. inf and nan are sent."""
        if self.subprotocol == MSGPACK_SUBPROTOCOL:
            await self.send_to(bytes_data=ormsgpack().packb(data))
        else:
            await self.send_to(json.dumps(data))

    async def send_input(self, message: Message) -> None:
        """Hand any ASGI message to the app, to see what it does with it. :meth:`disconnect` is the usual way to end."""
        self._inbox.check_loop()
        if message["type"] == "websocket.disconnect":
            self._server.leave(message.get("code", CloseCode.ABNORMAL))
        else:
            self._server.put(message)

    # Receiving

    async def receive_output(self, timeout: Timeout = ...) -> Message:
        """The next ASGI message of the app after it accepted: ``websocket.send`` or ``websocket.close``.

        Raises what the app raised, or :class:`SocketClosed`, if none can come any more.
        """
        return (await self._inbox.take(lambda output: True, timeout, "a message")).message

    async def receive_from(self, timeout: Timeout = ...) -> str | bytes:
        """The next frame, text or bytes.

        Raises :class:`SocketClosed` if the app closed the socket, and what the app raised if it failed.
        """
        return (await self._inbox.take_frame(timeout)).frame

    async def receive_json_from(self, timeout: Timeout = ...) -> Any:
        """The next frame, decoded: a text frame of JSON; a binary one of MessagePack under ``fc.v1.msgpack``.

        Raises as :meth:`receive_from` does, and ``ValueError`` for a frame of the other kind, or unreadable.
        """
        return (await self._inbox.take_frame(timeout)).decode()

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """Whether the app sends nothing, and does not close, for ``timeout`` seconds.

        ``False`` at once if something is there or comes, ``True`` at once if the app has ended; raises what it failed
        with. ``interval`` is Channels' and not used: nothing is polled.
        """
        return await self._inbox.coming(lambda output: True, timeout) is None

    # Ending

    async def disconnect(self, code: int = CloseCode.NORMAL, timeout: Timeout = ...) -> None:
        """Disconnect, and wait for the app to end. May be called twice, unconnected, and after the app closed.

        Raises what the app raised, unless a call before has; Starlette's ``WebSocketDisconnect`` is no error here.
        """
        if self._server.task is None:
            return
        self._inbox.check_loop()
        self._server.leave(int(code))
        await self._inbox.until(
            lambda: self._server.ended, timeout, f"the app to end after a disconnect with code {code}"
        )
        if not self._inbox.raised:
            self._inbox.raise_error()

    async def wait(self, timeout: Timeout = ...) -> None:
        """Wait for the app to end by itself. Raises what it raised, each time."""
        self._inbox.check_loop()
        await self._inbox.until(lambda: self._server.ended, timeout, "the app to end")
        self._inbox.raise_error()

    async def cancel(self, timeout: Timeout = ...) -> None:
        """Cancel the app, as a server does that is killed, and wait for it to end. Raises what it raised then."""
        if self._server.task is not None:
            self._inbox.check_loop()
            self._server.task.cancel()
            await self._inbox.until(lambda: self._server.ended, timeout, "the app to end after it was cancelled")
            if not self._inbox.raised:
                self._inbox.raise_error()

    async def tear_down(self, timeout: Timeout = ...) -> None:
        """End the app, whatever it takes: disconnect, after ``timeout`` seconds cancel. Raises nothing of the app."""
        task = self._server.task
        if task is None:
            return
        self._server.leave(CloseCode.GOING_AWAY)
        seconds = self._inbox.seconds(timeout)
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=seconds)
        if task.done() and not task.cancelled():
            task.exception()  # retrieved: asyncio need not log it
        self._inbox.raised = True

    async def ends(self, timeout: float) -> bool:
        """Whether the app ends in time, if the socket is closed; nothing else would end it."""
        if self._server.task is not None and not self.is_connected:
            await asyncio.wait([self._server.task], timeout=timeout)
        return not self.is_running

    # The native wire protocol

    async def call(self, action: str, data: Any = None, *, timeout: Timeout = ...) -> Any:
        """Send a request and return the data of its final reply.

        The request has a ``request_id`` of its own; ``data`` is left out where it is ``None``. Frames that come
        meanwhile, partial replies too, stay where they are, in order, for later calls.

        Raises :class:`CallError` if the reply is an error, :class:`SocketClosed` if the socket closes before it.
        """
        request_id = await self._request(action, data)
        return (await self._reply(action, request_id, ("ok", "error"), timeout))["data"]

    async def stream(self, action: str, data: Any = None, *, timeout: Timeout = ...) -> AsyncIterator[Any]:
        """Send a request and iterate over the data of its partial replies, until the final one.

        The request is sent when the iteration begins; ``timeout`` is for each reply. Leaving the loop early leaves the
        request running: its other replies are ordinary frames. Raises as :meth:`call` does.
        """
        request_id = await self._request(action, data)
        while True:
            reply = await self._reply(action, request_id, ("partial", "ok", "error"), timeout)
            if reply["status"] == "ok":
                return
            yield reply["data"]

    async def assert_event(
        self, event: str, data: Any = ..., group: str | EllipsisType | None = ..., *, timeout: Timeout = ...
    ) -> dict[str, Any]:
        """The next event must be ``event``, with this ``data`` and ``group`` where they are given. Returns its frame.

        Takes the first frame of type ``event``; frames of other types before it (replies, ``joined``, …) stay where
        they are, in order, for later calls.

        Raises ``AssertionError`` if it is another one, ``TimeoutError`` if none comes.
        """
        output = await self._inbox.take(
            lambda output: output.peek().get("type") == "event", timeout, f"event {event!r}"
        )
        frame = output.peek()
        expected = {"event": event, "data": data, "group": group}
        wrong = [key for key, value in expected.items() if value is not ... and frame.get(key) != value]
        if wrong:
            lines = [f"  {key}: expected {expected[key]!r}, got {frame.get(key)!r}" for key in wrong]
            lines.append(f"  frame: {frame!r}")
            raise AssertionError("\n".join([f"the next event of {self.path} is another one", *lines]))
        return frame

    async def assert_no_event(
        self, event: str | None = None, group: str | EllipsisType | None = ..., *, timeout: float = 0.1
    ) -> None:
        """No event must be there or come for ``timeout`` seconds; none of this name or group, where they are given.

        Frames of other types (``joined``, replies, …) and other events do not matter, and stay where they are.

        Raises ``AssertionError`` with the event that there is, or what the app failed with.
        """
        expected = {"type": "event", **({} if event is None else {"event": event}), "group": group}
        keys = [key for key, value in expected.items() if value is not ...]
        found = await self._inbox.coming(
            lambda output: all(output.peek().get(key) == expected[key] for key in keys), timeout
        )
        if found is not None:
            raise AssertionError(f"expected no such event for {self.path}\n  frame: {found.peek()!r}")

    async def assert_closed(self, code: int | None = None, *, timeout: Timeout = ...) -> int:
        """The app must close the socket, with ``code`` where it is given. Returns the code.

        Frames before the close may be unread; they can still be received. An app that returns without closing has
        closed with 1006, as the peer of a server sees it.

        Raises ``AssertionError`` for another code, ``TimeoutError`` if it stays open, or what the app raised.
        """
        self._inbox.check_loop()
        server = self._server
        await self._inbox.until(
            lambda: server.is_closed or server.ended,
            timeout,
            "the app to close the socket" + (f" with code {code}" if code is not None else ""),
        )
        if not server.is_closed:
            self._inbox.raise_error()
        found = self._inbox.close_code
        if code is not None and found != code:
            raise AssertionError(
                f"expected {self.path} to be closed with code {code}, got {found} {server.close_reason or ''!r}"
                + self._inbox.unread()
            )
        return found

    # Behind them

    async def _request(self, action: str, data: Any) -> str:
        request_id = f"call-{next(self._request_ids)}"
        request = {"action": action, "request_id": request_id}
        await self.send_json_to(request if data is None else {**request, "data": data})
        return request_id

    async def _reply(self, action: str, request_id: str, statuses: tuple[str, ...], timeout: Timeout) -> dict[str, Any]:
        def matches(output: Output) -> bool:
            frame = output.peek()
            return (
                frame.get("type") == "reply"
                and frame.get("request_id") == request_id
                and frame.get("status") in statuses
            )

        frame = (await self._inbox.take(matches, timeout, f"the reply to {action!r} ({request_id})")).peek()
        if frame["status"] == "error":
            raise CallError(frame)
        return {"data": None, **frame}
