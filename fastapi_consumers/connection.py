"""A connection: one socket. It owns identity, inbox, outbox and the close; consumers ask it, and never touch ASGI."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

from starlette.datastructures import Headers
from starlette.websockets import WebSocket, WebSocketDisconnect

from .authentication import Lifetime, denial_headers
from .codecs import encode_json
from .denial import can_deny, deny
from .exceptions import ConsumerError
from .fanning import Member
from .identity import ANONYMOUS
from .idling import Idle
from .inbox import Disconnected, Inbox
from .inbox import Owner as InboxOwner
from .lanes import stop_reading, unwrapped
from .localization import ClientLanguage, told_to
from .measured import CountingInbox, CountingOutbox
from .messages import Frame, Notice
from .outbox import Outbox
from .outbox import Owner as OutboxOwner
from .overflowing import Overflowing
from .plan import Plan
from .protocols import JSON_FRAMER
from .socket_view import SocketView, raw_headers
from .types import FLOODS, REASONS, CloseCode, Message, Receive, Scope, Send, close_reason
from .working import Working

logger = logging.getLogger(__name__)

#: Seconds that a close frame gets on a socket that was too slow for what it had to take.
LAST_WORD_TIMEOUT = 1.0


class Connection(Working, InboxOwner, OutboxOwner):
    """One WebSocket. Made per handshake; consumers reach it as ``self.connection``.

    Everything that a client sends comes through ``inbox``, everything that it is sent goes through ``outbox``, and the
    socket is closed here, once, whoever asks for it.
    """

    __consumer_parameter__ = "connection"

    #: The language that its client is told of errors in, such as ``zh-Hans``.
    language = ClientLanguage()

    # What most connections never change is the class's: an idle one is small, and a short one is made fast.
    user: Any = ANONYMOUS
    auth: Any = None
    lifetime = Lifetime()
    #: The groups without which there would be no connection.
    handshake_groups: Sequence[str] = ()
    #: Whether its first message is to say who it is, so that nobody else may look into what it sends.
    awaits_token = False
    subprotocol: str | None = None
    is_accepted = False
    close_code: int | None = None
    close_reason = ""
    #: When all of it had ended, in Unix time.
    closed_at: float | None = None
    #: Whether the server said that it cannot send any more.
    is_lost = False
    #: Whether sending failed although the client is there.
    is_broken = False
    #: Whether everything of this connection has ended.
    has_ended = False
    #: What sees the frames that come in while an action runs, and the layer's messages; set by the consumer's run.
    dispatcher: Any = None
    _websocket: SocketView | None = None
    #: Keeps what comes for it until it is let in; ``None`` if it was, or if nothing can come yet.
    early: Any = None
    #: Whether the server was given the accept, or the close; it may be waiting to write it.
    _accept_sent = _close_sent = False
    _ended: asyncio.Future[None] | None = None
    _idle: Idle | None = None
    _overflowing: Overflowing | None = None

    def __init__(self, plan: Plan, scope: Scope, receive: Receive, send: Send, consumers: Any) -> None:
        limits = plan.limits
        self.plan = plan
        self.scope = scope
        self.consumers = consumers
        self.opened_at = time.time()  # When its handshake came. More is in ``facts``.
        self._send = send = unwrapped(send)
        self.begin()
        self.channel_name: str = consumers.hub.new_channel()
        counts = consumers.observing.counts
        self.outbox = (CountingOutbox if counts else Outbox)(send, self, plan.outbox_bounds, consumers.hub.turn)
        if limits.idle_timeout is not None:
            close = partial(self.shut, CloseCode.TIMEOUT, "idle_timeout")
            self._idle = Idle(receive, consumers.deadlines, limits.idle_timeout, self._is_busy, close)
            receive = self._idle.receive
        self.inbox = (CountingInbox if counts else Inbox)(receive, consumers.watch, self, plan.inbox_bounds)
        take, take_all, limit = self.outbox.deliver, self.outbox.deliver_all, limits.max_groups
        self.member = Member(self.channel_name, take, self._receive_message, self.shut, limit, take_all)

    @property
    def headers(self) -> Headers:
        """The handshake's headers."""
        return Headers(scope=self.scope)

    @property
    def path_params(self) -> Mapping[str, Any]:
        """The values that the route found in the path."""
        return cast(Mapping[str, Any], self.scope.get("path_params", {}))

    @property
    def websocket(self) -> WebSocket:
        """A Starlette ``WebSocket`` for reading headers, cookies and state. It cannot take frames from the consumer."""
        if self._websocket is None:
            self._websocket = SocketView(self)
        return self._websocket

    @property
    def ended(self) -> asyncio.Future[None]:
        """Done once everything of this connection has ended."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
            if self.has_ended:
                self._ended.set_result(None)
        return self._ended

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to say: the client has its close or its refusal, or has gone."""
        return self._closing or self.is_lost or self.inbox.gone is not None

    # -- sending ---------------------------------------------------------------------------------------------------

    async def send_frame(self, frame: Frame) -> None:
        """Send, and wait while the client takes its time. Nothing is sent once the socket is closing."""
        self.outbox.push(frame)
        self.outbox.release()
        if not self.outbox.is_idle and self.is_accepted:
            await self.outbox.flush()

    # -- opening and closing ---------------------------------------------------------------------------------------

    async def accept(self, subprotocol: str | None = None, headers: Any = None) -> None:
        """Accept the handshake. Nothing happens if it is accepted or refused already.

        Raises ``Disconnected`` if the client has gone meanwhile.
        """
        if self.is_accepted or self._closing:
            return
        chosen = subprotocol if subprotocol is not None else self.subprotocol
        # Whoever was stopped while the server took its time has accepted all the same.
        if not self._accept_sent:
            self._accept_sent = True
            try:
                await self._send({"type": "websocket.accept", "subprotocol": chosen, "headers": raw_headers(headers)})
            except (OSError, WebSocketDisconnect) as error:
                self.is_lost = self.is_closing = True
                self.close_code = CloseCode.ABNORMAL
                raise Disconnected(CloseCode.ABNORMAL) from error
            except Exception:
                self._accept_sent = False
                raise
        if chosen != self.subprotocol:
            self.agree_on(chosen)
        self.mark_accepted()

    def let_in(self) -> None:
        """What was kept for it meanwhile goes to its outbox, unless it is being closed. Nothing if it was let in."""
        early, self.early = self.early, None
        if early is not None and not self.is_closing:
            early.release()

    def agree_on(self, subprotocol: str | None) -> None:
        """Read and write what this subprotocol means from now on."""
        self.subprotocol = subprotocol
        if self.member.framer is not None:
            self.member.framer = self.plan.framer(subprotocol)
        if self.dispatcher is not None:
            self.dispatcher.start()

    def mark_accepted(self) -> None:
        """The handshake is done: what was held back goes out."""
        self.is_accepted = True
        if self._websocket is not None:
            self._websocket.show_accepted()
        self.outbox.open(self.consumers.find_lane(self._send))
        if self._idle is not None:
            self._idle.start()

    async def refuse(self, error: ConsumerError) -> None:
        """Refuse the handshake for this reason.

        With ``accept_refused`` it is accepted and closed, since a browser shows its page no other reason. Otherwise it
        is answered with HTTP, by the server's denial response where it has one.
        """
        if self.is_accepted or self._accept_sent or self.plan.accept_refused:
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
        if self._closing or self.has_ended:
            return
        self.is_closing = True
        if self.close_code is None:
            self.close_code = code
            self.close_reason = close_reason(reason or REASONS.get(code, ""))
        if not (gently and self._working):
            self._interrupt()

    async def end_socket(self) -> None:
        """Close, if that is still to be done."""
        is_over, self._closing = self.is_over, True
        if is_over:
            return
        if self.close_code is None:
            self.close_code = CloseCode.NORMAL
        await self._send_close()

    async def finish(self) -> None:
        """End everything of the connection. The consumer has been torn down."""
        if self.lifetime.expires_at is not None:
            self.consumers.expiries.discard(self)
        self.outbox.end()
        past = self.consumers.past
        past["sent"] += self.outbox.sent
        past["dropped"] += self.outbox.dropped
        if self._idle is not None:
            self._idle.stop()
        try:
            # These and the connection refer to each other: cut, so that it is freed as soon as nobody has it.
            self.member.detach()
            await self.inbox.close()
            self._overflowing = self._websocket = self.dispatcher = self._idle = self.early = None
        finally:
            self.has_ended = True
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(None)

    # -- what the inbox and the outbox tell ------------------------------------------------------------------------

    def _is_busy(self) -> bool:
        return self._working or (self.dispatcher is not None and self.dispatcher.is_running)

    def on_gone(self, code: int) -> None:
        # Seen by the pump. If nobody works, get() raises Disconnected by itself.
        if self._working:
            self._interrupt()

    def on_lost(self, error: BaseException) -> None:
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

    def on_overflow(self) -> None:
        self._overflows().disconnected()
        self.consumers.observing.tell("event_dropped", self, "disconnect")
        self.shut(CloseCode.TRY_AGAIN_LATER, "slow_consumer")

    def catch_up(self) -> None:
        self.consumers.hub.catch_up(self.member)

    def on_dropped(self) -> None:
        self.consumers.observing.tell("event_dropped", self, self.plan.limits.overflow)
        if (overflowing := self._overflows()).dropped():
            self.outbox.on_drained = overflowing.over

    def _overflows(self) -> Overflowing:
        if self._overflowing is None:
            is_told = "on_overflow" in self.plan.options.overridden and self.member.consumer is not None
            hook = self.member.consumer.on_overflow if is_told else None
            self._overflowing = Overflowing(self.plan.limits.overflow, self.consumers.overflows, hook)
        return self._overflowing

    def peek(self, frame: str | bytes) -> Any:
        return frame if self.dispatcher is None or self.awaits_token else self.dispatcher.peek(frame)

    def _receive_message(self, message: dict[str, Any], trace: str | None = None) -> None:
        if self.dispatcher is not None:
            self.dispatcher.receive_message(message, trace)
