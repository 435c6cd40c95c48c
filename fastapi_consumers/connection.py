"""A connection: one socket. It owns identity, inbox, outbox and the close; consumers ask it, and never touch ASGI."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from .authentication import Lifetime, denial_headers
from .codecs import encode_json
from .denial import can_deny, deny
from .exceptions import ConsumerError
from .fanning import Member
from .identity import ANONYMOUS
from .idling import Idle
from .inbox import CountingInbox, Disconnected, Inbox
from .lanes import stop_reading
from .localization import ClientLanguage, told_to
from .messages import Frame, Notice, bytes_frame, text_frame
from .outbox import CountingOutbox, Outbox
from .overflowing import Overflowing
from .plan import Plan
from .protocols import JSON_FRAMER
from .socket_view import SocketView, no_receive, raw_headers
from .types import FLOODS, REASONS, CloseCode, Message, Receive, Scope, Send, close_reason

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that a close frame gets on a socket that was too slow for what it had to take.
LAST_WORD_TIMEOUT = 1.0


class Interrupted(Exception):
    """What the connection was doing has been stopped, because the socket is gone or has to be closed."""


class Connection:
    """One WebSocket. Made per handshake; consumers reach it as ``self.connection``.

    Everything that a client sends comes through ``inbox``, everything that it is sent goes through ``outbox``, and the
    socket is closed here, once, whoever asks for it.
    """

    __consumer_parameter__ = "connection"

    #: The language that its client is told of errors in, such as ``zh-Hans``.
    language = ClientLanguage()

    def __init__(self, plan: Plan, scope: Scope, receive: Receive, send: Send, consumers: Any) -> None:
        limits = plan.limits
        self.plan = plan
        self.scope = scope
        self.consumers = consumers
        self.user: Any = ANONYMOUS
        self.auth: Any = None
        self.lifetime = Lifetime()
        #: The groups without which there would be no connection.
        self.handshake_groups: Sequence[str] = ()
        #: Whether its first message is to say who it is, so that nobody else may look into what it sends.
        self.awaits_token = False
        self.subprotocol: str | None = None
        self.is_accepted = False
        self.close_code: int | None = None
        self.close_reason = ""
        #: When its handshake came, and when all of it had ended, in Unix time. More is in ``facts``.
        self.opened_at = time.time()
        self.closed_at: float | None = None
        #: Whether the socket is closed, gone or about to be closed, so that nothing more is read from it.
        self.is_closing = False
        #: Whether the server said that it cannot send any more.
        self.is_lost = False
        self._send = send
        self._websocket: WebSocket | None = None
        self._working = self._interrupted = False
        #: Whether sending failed although the client is there.
        self.is_broken = False
        #: Whether the server was given the close; it may be waiting to write it.
        self._close_sent = False
        #: Whether the close, or the refusal, has been sent or given up.
        self._closing = False
        #: The task that runs the consumer, until teardown begins.
        self.task = asyncio.current_task()
        #: Cancellations that the task had before, as where serve() is called in an endpoint that swallowed one.
        self.cancelling = self.task.cancelling() if self.task is not None else 0
        #: Done once everything of this connection has ended.
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.channel_name: str = consumers.hub.new_channel()
        #: What sees the frames that come in while an action runs, and the layer's messages; set by the consumer's run.
        self.dispatcher: Any = None
        counts = consumers.observing.counts
        self.outbox = (CountingOutbox if counts else Outbox)(
            send,
            max_messages=limits.max_outbox,
            max_bytes=limits.max_outbox_bytes,
            write_timeout=limits.write_timeout,
            on_overflow=self._overflowed,
            on_lost=self._lost,
            overflow=limits.overflow,
            on_dropped=self._dropped,
            pending=consumers.hub.turn,
            catch_up=lambda: consumers.hub.catch_up(self.member),
        )
        self.overflowing = Overflowing(limits.overflow, consumers.overflows)
        self._idle: Idle | None = None
        if limits.idle_timeout is not None:
            close = partial(self.shut, CloseCode.TIMEOUT, "idle_timeout")
            self._idle = Idle(receive, consumers.deadlines, limits.idle_timeout, self._is_busy, close)
            receive = self._idle.receive
        self.inbox = (CountingInbox if counts else Inbox)(
            receive,
            consumers.watch,
            max_size=limits.max_message_size,
            max_messages=limits.max_inbox,
            timeout=limits.inbox_timeout,
            peek=self._peek,
            on_gone=self._gone,
            on_stuck=self.shut,
        )
        take, take_all, limit = self.outbox.deliver, self.outbox.deliver_all, limits.max_groups
        self.member: Member = Member(self.channel_name, take, self._receive_message, self.shut, limit, take_all)

    @property
    def headers(self) -> Headers:
        """The handshake's headers."""
        return Headers(scope=self.scope)

    @property
    def path_params(self) -> Mapping[str, Any]:
        """The values that the route found in the path."""
        found: Mapping[str, Any] = self.scope.get("path_params", {})
        return found

    @property
    def websocket(self) -> WebSocket:
        """A Starlette ``WebSocket`` for reading headers, cookies and state. It cannot take frames from the consumer."""
        if self._websocket is None:
            self._websocket = SocketView(self.scope, no_receive, self._send_for_view)
            # Its websocket.connect has been received.
            self._websocket.client_state = WebSocketState.CONNECTED
            if self.is_accepted:
                self._websocket.application_state = WebSocketState.CONNECTED
        return self._websocket

    # -- sending ---------------------------------------------------------------------------------------------------

    async def send_frame(self, frame: Frame) -> None:
        """Send, and wait while the client takes its time. Nothing is sent once the socket is closing."""
        self.outbox.push(frame)
        if not self.outbox.is_idle and self.is_accepted:
            await self.outbox.flush()

    async def _send_for_view(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.send":
            text = message.get("text")
            await self.send_frame(text_frame(text) if text is not None else bytes_frame(message.get("bytes") or b""))
        elif kind == "websocket.accept":
            await self.accept(message.get("subprotocol"), message.get("headers"))
        elif kind == "websocket.close":
            await self.close(message.get("code", CloseCode.NORMAL), message.get("reason") or "")

    # -- opening and closing ---------------------------------------------------------------------------------------

    async def accept(self, subprotocol: str | None = None, headers: Any = None) -> None:
        """Accept the handshake. Nothing happens if it is accepted or refused already.

        Raises ``Disconnected`` if the client has gone meanwhile.
        """
        if self.is_accepted or self._closing:
            return
        chosen = subprotocol if subprotocol is not None else self.subprotocol
        try:
            await self._send({"type": "websocket.accept", "subprotocol": chosen, "headers": raw_headers(headers)})
        except (OSError, WebSocketDisconnect) as error:
            self.is_lost = self.is_closing = True
            self.close_code = CloseCode.ABNORMAL
            raise Disconnected(CloseCode.ABNORMAL) from error
        if chosen != self.subprotocol and self.member.framer is not None:
            self.member.framer = self.plan.framer(chosen)
        self.subprotocol = chosen
        self.mark_accepted()

    def mark_accepted(self) -> None:
        """The handshake is done: what was held back goes out."""
        self.is_accepted = True
        if self._websocket is not None:
            self._websocket.application_state = WebSocketState.CONNECTED
        self.outbox.open(self.consumers.find_lane(self._send))
        if self._idle is not None:
            self._idle.start()

    async def refuse(self, error: ConsumerError) -> None:
        """Refuse the handshake for this reason.

        With ``accept_refused`` it is accepted and closed, since a browser shows its page no other reason. Otherwise it
        is answered with HTTP, by the server's denial response where it has one.
        """
        if self.is_accepted or self.plan.accept_refused:
            await self.accept()
            await self.fail(error)
            return
        self._closing = self.is_closing = True
        self.close_code, self.close_reason = error.close_code, error.code
        if can_deny(self.scope):
            body = encode_json({"error": told_to(self, error).body()})
            headers = denial_headers(error, self.plan.authentications, self)
            await deny(self._try_send, error.http_status, body, headers)
        else:
            await self._try_send({"type": "websocket.close", "code": error.close_code, "reason": error.code})

    async def fail(self, error: ConsumerError) -> None:
        """Tell the client of an error that no request caused, and close."""
        framer = self.member.framer or JSON_FRAMER
        self.outbox.push(framer.notice(Notice("error", {"error": told_to(self, error).body()})))
        await self.close(error.close_code, error.code)

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Send what waits, then close. Only the first close counts; before accept the handshake is refused.

        Whoever runs the consumer is stopped, unless it is the caller itself.
        """
        if self._closing:
            return
        self._closing = self.is_closing = True
        if self.close_code is None:
            self.close_code, self.close_reason = code, close_reason(reason)
        try:
            await self._send_close()
        except asyncio.CancelledError:
            # It is for teardown to close it then.
            self._closing = False
            raise
        if asyncio.current_task() is not self.task:
            self._interrupt()

    async def _send_close(self) -> None:
        message = {"type": "websocket.close", "code": self.close_code, "reason": self.close_reason}
        if not self.is_accepted:
            await self._try_send(message)
            return
        timeout = self.plan.limits.write_timeout
        if self.outbox.is_dead:
            timeout = min(timeout, LAST_WORD_TIMEOUT)
        self.outbox.seal()
        try:
            async with asyncio.timeout(timeout):
                await self.outbox.flush()
                if not self.is_lost and self.inbox.gone is None and not self._close_sent:
                    self._close_sent = True
                    await self._send(message)
                    if self.close_code in FLOODS:
                        stop_reading(self._send)
        except TimeoutError:
            # The socket takes no bytes, so a close frame cannot arrive either; the server drops the connection.
            self.outbox.abort()
        except Exception as error:
            logger.debug("the socket was lost while it was closed: %r", error)

    async def _try_send(self, message: Message) -> None:
        try:
            await self._send(message)
        except Exception as error:
            logger.debug("the client went during the handshake: %r", error)

    def shut(self, code: int, reason: str = "", *, gently: bool = False) -> None:
        """Have the connection closed by whoever runs it, from anywhere and at once.

        ``gently``: once what the consumer works on has ended, and its answer has been sent.
        """
        if self._closing or self.ended.done():
            return
        self.is_closing = True
        if self.close_code is None:
            self.close_code = code
            self.close_reason = close_reason(reason or REASONS.get(code, ""))
        if not (gently and self._working):
            self._interrupt()

    async def end_socket(self) -> None:
        """Close, if that is still to be done. From here on nothing interrupts the task, for teardown runs."""
        self.release()
        self.is_closing = True
        if self._closing or self.inbox.gone is not None or self.is_lost:
            self._closing = True
            return
        self._closing = True
        if self.close_code is None:
            self.close_code = CloseCode.NORMAL
        await self._send_close()

    async def finish(self) -> None:
        """End everything of the connection. The consumer has been torn down."""
        self.consumers.expiries.discard(self)
        self.consumers.past.update(sent=self.outbox.sent, dropped=self.outbox.dropped)
        if self._idle is not None:
            self._idle.stop()
        try:
            self.outbox.abort()
            await self.inbox.close()
            # What these refer to refers to them. Without that the connection, and the server's end of it, are freed as
            # soon as nobody has them, and not when the garbage collector comes round.
            self.outbox.detach()
            self.member.detach()
            self.overflowing.hook = self._websocket = self.dispatcher = self._idle = None
        finally:
            if not self.ended.done():
                self.ended.set_result(None)

    # -- what happens to the socket while somebody works -----------------------------------------------------------

    async def work(self, awaitable: Awaitable[T]) -> T:
        """Await it with the socket being read meanwhile. Raises ``Interrupted`` if that ends or has to be closed."""
        self.inbox.begin()
        self._working = True
        try:
            result = await awaitable
        except asyncio.CancelledError:
            self.check_interrupted()
            raise
        finally:
            self._working = False
            self.inbox.end()
        if self._interrupted:
            # It was cancelled and went on all the same.
            self.check_interrupted()
        return result

    def begin(self) -> None:
        """The same as ``work`` in pieces, for the hot path."""
        self._working = True
        self.inbox.begin()

    def end(self) -> None:
        """Nothing of the consumer runs any more: nothing is read from now on, and nothing interrupts."""
        self._working = False
        self.inbox.end()

    def check_interrupted(self) -> None:
        """Turn the connection's own cancellation of its task into ``Interrupted``; leave anybody else's alone."""
        if self._interrupted:
            self._interrupted = False
            if self.task is None or self.task.uncancel() <= self.cancelling:
                raise Interrupted from None

    def _interrupt(self) -> None:
        """Stop the task that runs the consumer, whether it works or waits for the next frame."""
        task = self.task
        if task is None or self._interrupted or task.done():
            return
        if task is asyncio.current_task():
            # Its own doing, such as a broadcast that is too much for its own client. What it runs goes on to its next
            # step, and is stopped where it waits.
            asyncio.get_running_loop().call_soon(self._interrupt_later)
            return
        self._interrupted = True
        task.cancel()

    def _interrupt_later(self) -> None:
        if not self._closing:
            self._interrupt()

    def release(self) -> None:
        """Nothing interrupts the task from here on, for teardown runs."""
        task, self.task = self.task, None
        if task is not None and self._interrupted:
            # It was cancelled and went on all the same.
            self._interrupted = False
            task.uncancel()

    def _is_busy(self) -> bool:
        return self._working or (self.dispatcher is not None and self.dispatcher.is_running)

    def _gone(self, code: int) -> None:
        # Seen by the pump. If nobody works, get() raises Disconnected by itself.
        if self._working:
            self._interrupt()

    def _lost(self, error: BaseException) -> None:
        if isinstance(error, ValueError | TypeError):
            # It is not the client: the server cannot send this, such as half of a surrogate pair.
            extra = {"connection": self.channel_name}
            logger.error("the server refused a frame of %s", self.plan.options.name, exc_info=error, extra=extra)
            self.shut(CloseCode.INTERNAL_ERROR, "internal_error")
            return
        # The server refuses to send, so the client has gone. What still works for it stops; otherwise the disconnect,
        # which says with what code it went, is the next thing to be received.
        logger.debug("the socket was lost while it was written to: %r", error)
        self.is_lost = True
        # Starlette says RuntimeError for a client that has gone too; then a disconnect is the next thing received.
        self.is_broken = not isinstance(error, OSError | WebSocketDisconnect)
        if self._working:
            if self.close_code is None:
                self.close_code = CloseCode.ABNORMAL
            self._interrupt()

    def _overflowed(self) -> None:
        self.overflowing.disconnected()
        self.consumers.observing.tell("event_dropped", self, "disconnect")
        self.shut(CloseCode.TRY_AGAIN_LATER, "slow_consumer")

    def _dropped(self) -> None:
        self.consumers.observing.tell("event_dropped", self, self.plan.limits.overflow)
        if self.overflowing.dropped():
            self.outbox.on_drained = self.overflowing.over

    def _peek(self, frame: str | bytes) -> Any:
        return frame if self.dispatcher is None or self.awaits_token else self.dispatcher.peek(frame)

    def _receive_message(self, message: dict[str, Any], trace: str | None = None) -> None:
        if self.dispatcher is not None:
            self.dispatcher.receive_message(message, trace)
