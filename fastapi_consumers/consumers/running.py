"""The life of one consumer: handshake, loop, teardown. Whatever happens in between, teardown runs to its end."""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketState

from ..connection import Connection
from ..dispatch import FAIR_SHARE, Dispatcher
from ..early import Early, refuse_as_shut
from ..exceptions import (
    AcceptConnection,
    ConsumerError,
    DenyConnection,
    InternalError,
    InvalidFrame,
    InvalidGroup,
    PermissionDenied,
    StopConsumer,
)
from ..explaining import is_handled, log_failure
from ..facts import log_extra
from ..finding import consumers_of
from ..identifying import identify, wait_for_token
from ..identity import CLIENT_KEY, is_authenticated
from ..inbox import Disconnected, TooBig
from ..observed import ObservedDispatcher
from ..origins import is_allowed_origin
from ..permissions import check_permissions, is_delivered
from ..recoveries import recoveries_of
from ..runtime import Consumers
from ..stepping import settled
from ..texts import gettext_lazy as _
from ..types import CloseCode, Receive, Scope, Send
from ..working import Interrupted
from .announcing import announce

if TYPE_CHECKING:
    from .base import Consumer

logger = logging.getLogger(__name__)


async def serve(cls: "type[Consumer]", websocket: WebSocket, groups: Sequence[str] | None) -> None:
    """Run a consumer on a Starlette ``WebSocket``, in whatever state that is."""
    await run(
        cls,
        websocket.scope,
        websocket.receive,
        websocket.send,
        groups=groups,
        connected=websocket.client_state is not WebSocketState.CONNECTING,
        accepted=websocket.application_state is WebSocketState.CONNECTED,
    )


def run(
    cls: "type[Consumer]",
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    groups: Sequence[str] | None = None,
    dependencies: Any = None,
    connected: bool = False,
    accepted: bool = False,
) -> Awaitable[None]:
    """Run one consumer from handshake to teardown.

    Args:
        groups: joined instead of those of the class.
        dependencies: the route's, solved before the class's own.
        connected: ``websocket.connect`` has been received.
        accepted: ``websocket.accept`` has been sent.
    """
    return _Life(cls, groups, dependencies).run(scope, receive, send, connected, accepted)


class _Life:
    """One consumer's way from handshake to teardown."""

    __slots__ = (
        "_cls",
        "_connected",
        "_consumer",
        "_consumers",
        "_dependencies",
        "_groups",
        "_lifespan",
        "_opened",
        "_stack",
        "connection",
    )

    connection: Connection
    _consumers: Consumers

    def __init__(self, cls: "type[Consumer]", groups: Sequence[str] | None, dependencies: Any) -> None:
        self._cls = cls
        self._groups = groups
        self._dependencies = dependencies
        self._consumer: Consumer | None = None
        #: Whether connect() was called, so that disconnect() has to be.
        self._connected = False
        #: Whether observers were told that it is open.
        self._opened = False
        self._stack: AsyncExitStack | None = None
        self._lifespan: AsyncExitStack | None = None

    async def run(self, scope: Scope, receive: Receive, send: Send, connected: bool, accepted: bool) -> None:
        consumers = self._consumers = consumers_of(scope)
        if not consumers.is_open:
            await consumers.open()
        plan = consumers.plan(self._cls)
        if plan.options.history is not None:
            await consumers.prepare_history()
        if not connected and (await receive())["type"] != "websocket.connect":
            return
        connection = self.connection = Connection(plan, scope, receive, send, consumers)
        consumers.connections.add(connection)
        consumers.hub.register(connection.member)
        outcome: BaseException | None = None
        try:
            if await self._begin(accepted):
                assert self._consumer is not None
                await self._loop(self._consumer)
        except (Disconnected, Interrupted):
            pass
        except TooBig:
            connection.shut(CloseCode.MESSAGE_TOO_BIG)
        except asyncio.CancelledError as error:
            try:
                connection.check_interrupted()
                outcome = error
            except Interrupted:
                pass
        except BaseException as error:
            outcome = error
        await self._tear_down(outcome)

    async def _begin(self, accepted: bool) -> bool:
        """The handshake and the hooks that belong to it. Whether there is a socket to read from now."""
        connection = self.connection
        try:
            await self._prepare(accepted)
        except (Disconnected, Interrupted, StopConsumer):
            if connection.is_closing:
                await refuse_as_shut(connection)
            else:
                connection.shut(CloseCode.NORMAL)
            return False
        except TooBig:
            raise
        except Exception as failure:
            error = await self._explain(failure)
            if connection.is_accepted:
                await connection.fail(error)
            else:
                await connection.refuse(error)
            return False
        return True

    async def _prepare(self, accepted: bool) -> None:
        """Make the consumer and all that belongs to it, then open it."""
        connection, plan = self.connection, self.connection.plan
        consumer = self._consumer = self._cls()
        consumer._connection = connection
        consumer._groups = {}
        member = connection.member
        member.consumer = consumer
        if plan.deliveries:
            member.permits = partial(is_delivered, plan.deliveries, consumer)
        # First of all, so that a refusal too is told in a language that was agreed on.
        if not accepted and (offered := connection.scope.get("subprotocols")):
            connection.subprotocol = plan.choose_subprotocol(list(offered))
        if plan.frames_events:
            member.framer = plan.framer(connection.subprotocol)
        make = ObservedDispatcher if self._consumers.observing.calls else Dispatcher
        connection.dispatcher = make(consumer, connection)
        if accepted:
            connection.mark_accepted()
        try:
            if connection.dispatcher.turn is None:
                await self._open(consumer)
            else:
                async with connection.dispatcher.turn:
                    await self._open(consumer)
        except asyncio.CancelledError:
            connection.check_interrupted()
            raise

    async def _explain(self, failure: Exception) -> ConsumerError:
        if isinstance(failure, DenyConnection):
            return PermissionDenied()
        if self.connection.dispatcher is None:
            log_failure(logger, failure, self.connection, "%s could not be made", self._cls.__qualname__)
            return InternalError()
        error: ConsumerError = await self.connection.dispatcher.explain(failure, "the handshake")
        return error

    # -- handshake -------------------------------------------------------------------------------------------------

    async def _open(self, consumer: "Consumer") -> None:
        connection, plan = self.connection, self.connection.plan
        scope, admission = connection.scope, self._consumers.admission
        # Before all that may refuse: the log names whom.
        if (proxies := self._consumers.defaults.trusted_proxies) is not None:
            scope[CLIENT_KEY] = proxies.address_of(scope)
        self._consumers.draining.check()
        if admission.is_bounded:
            admission.knock(connection)
        if not is_allowed_origin(scope["headers"], scope.get("scheme", "ws"), plan.allowed_origins):
            self._consumers.tell_of_origin(connection.headers["origin"])
            raise PermissionDenied(_("Pages of this origin may not connect."), code="origin_not_allowed")
        if plan.is_counted:
            admission.take_address(connection)
        await identify(consumer, connection)
        if plan.waits_for_message and not is_authenticated(connection.user):
            await wait_for_token(consumer, connection)
        elif plan.permissions:
            await check_permissions(plan.permissions, consumer)
        if plan.is_counted:
            admission.take_user(connection)
        if self._dependencies is not None or plan.options.dependencies is not None:
            await self._solve_dependencies()
        if not (plan.accept_refused or connection.is_accepted):
            connection.let_in()
        elif connection.early is None:
            # Whoever is refused from here on is told so over the open socket, and nothing else.
            connection.early = Early(connection)
        await self._join(consumer)
        # Whoever was cancelled, and went on all the same, does not open what is to be closed.
        connection.check_interrupted()
        self._connected = True
        await connection.work(self._enter(consumer))

    async def _solve_dependencies(self) -> None:
        """The route's and the class's ``dependencies``; what they open stays open until the consumer is torn down."""
        connection = self.connection
        for dependencies in (self._dependencies, connection.plan.options.dependencies):
            if dependencies is not None:
                if self._stack is None:
                    self._stack = AsyncExitStack()
                await dependencies.solve(connection.websocket, self._stack, connection.scope.get("app"))

    async def _join(self, consumer: "Consumer") -> None:
        """Become a member before the socket is accepted: whoever is accepted hears everything from then on."""
        connection, plan = self.connection, self.connection.plan
        found = self._groups if self._groups is not None else consumer.get_groups()
        groups = found if isinstance(found, list) else list(await settled(found))
        connection.handshake_groups = groups
        asked = recoveries_of(connection.scope, groups) if plan.options.history is not None else {}
        try:
            if plan.asks_about_groups:
                # All of them first: a handshake that is refused leaves no trace in any group.
                for group in dict.fromkeys(groups):
                    await consumer.check_group_permissions(group)
            for group in groups:
                await consumer._join(group, asked.get(group), recovers=group in asked)
        except InvalidGroup as error:
            extra = log_extra(connection)
            logger.warning("%s cannot join a group: %s", type(consumer).__qualname__, error, extra=extra)
            raise

    async def _enter(self, consumer: "Consumer") -> None:
        connection = self.connection
        try:
            await consumer.connect()
        except AcceptConnection:
            await connection.accept()
        connection.check_interrupted()
        if not connection.is_accepted:
            if not connection.is_closing:
                logger.error(
                    "%s.connect() ended without self.accept() or self.close(): the socket is refused",
                    type(consumer).__qualname__,
                    extra=log_extra(connection),
                )
                raise InternalError
            return
        connection.let_in()
        self._opened = True
        self._consumers.observing.tell("connection_opened", connection)
        if "lifespan" in connection.plan.options.overridden and consumer.lifespan is not None:
            lifespan = consumer.lifespan
            if inspect.isasyncgenfunction(lifespan):
                lifespan = asynccontextmanager(lifespan)
            self._lifespan = AsyncExitStack()
            await self._lifespan.enter_async_context(lifespan())
        for group, announced in tuple(consumer._groups.items()):
            if not announced:
                await announce(consumer, "join", group)

    # -- loop ------------------------------------------------------------------------------------------------------

    async def _loop(self, consumer: "Consumer") -> None:
        connection, inbox = self.connection, self.connection.inbox
        receive = inbox.receive
        handle = self._receive_raw if connection.plan.reads_raw else connection.dispatcher.handle
        count = 0
        while not connection.is_closing:
            frame = inbox.take(await receive()) if inbox.is_direct else await inbox.get()
            if connection.is_broken:
                # The client is there, and it is the server, or what stands before it, that cannot send.
                connection.is_lost = False
                connection.shut(CloseCode.INTERNAL_ERROR, "internal_error")
                return
            count += 1
            if not count % FAIR_SHARE:
                await asyncio.sleep(0)
            coroutine = handle(frame)
            # Most actions end without waiting: then nobody else ran, and there was nothing to watch over.
            try:
                waited_for = coroutine.send(None)
            except StopIteration:
                continue
            await connection.watch_over(coroutine, waited_for)

    async def _receive_raw(self, frame: str | bytes) -> None:
        dispatcher = self.connection.dispatcher
        if dispatcher.turn is None:
            await self._receive(frame)
        else:
            async with dispatcher.turn:
                await self._receive(frame)

    async def _receive(self, frame: str | bytes) -> None:
        consumer, connection = self._consumer, self.connection
        assert consumer is not None
        try:
            if connection.plan.throttles and connection.plan.counts_frames:
                try:
                    await connection.dispatcher.count()
                except ConsumerError as refusal:
                    if await self._refuse_request(frame, refusal):
                        return
                    raise
            if isinstance(frame, str):
                await consumer.receive(text_data=frame)
            else:
                await consumer.receive(bytes_data=frame)
        except StopConsumer:
            await connection.close(CloseCode.NORMAL)
        except Exception as failure:
            error = await connection.dispatcher.explain(failure, "receive()")
            if isinstance(error, InternalError) and not type(consumer)._has_actions:
                # Its client speaks a protocol of its own, in which nobody has said what this means.
                await connection.close(error.close_code, error.code)
            else:
                await connection.dispatcher.tell(error)

    async def _refuse_request(self, frame: str | bytes, refusal: ConsumerError) -> bool:
        """Answer the request in a frame with an error; ``False`` if there is none, or no way to know."""
        consumer: Any = self._consumer
        if not isinstance(frame, str) or not consumer._has_actions:
            return False
        try:
            content = await settled(consumer.decode_json(frame))
        except (ValueError, InvalidFrame):
            return False
        await self.connection.dispatcher.refuse(content, refusal)
        return True

    # -- teardown --------------------------------------------------------------------------------------------------

    async def _tear_down(self, outcome: BaseException | None) -> None:
        """Run every step, whatever those before it raised; then raise the outcome, unless it is an ``Exception``."""
        connection, consumer = self.connection, self._consumer
        if isinstance(outcome, Exception):
            log_failure(logger, outcome, connection, "%s failed", self._cls.__qualname__)
            connection.shut(CloseCode.INTERNAL_ERROR, "internal_error")
        elif outcome is not None:
            connection.shut(CloseCode.GOING_AWAY, "going_away")
        code = connection.close_code if connection.inbox.gone is None else connection.inbox.gone
        connection.release()
        steps: list[Callable[[], Awaitable[Any]]] = []
        if connection.dispatcher is not None and connection.dispatcher.running():
            steps.append(connection.dispatcher.stop)
        steps.append(partial(self._consumers.membership.leave_all, connection.member))
        if consumer is not None and self._connected:
            # Before the close handshake, which a peer that is half gone can make last.
            announced = [group for group, is_announced in consumer._groups.items() if is_announced]
            steps += [partial(announce, consumer, "leave", group) for group in announced]
        steps.append(connection.end_socket)
        if self._lifespan is not None:
            steps.append(self._lifespan.aclose)
        if consumer is not None and self._connected:
            steps.append(partial(consumer.disconnect, CloseCode.NORMAL if code is None else code))
        if self._stack is not None:
            # Opened first, closed last: disconnect() may still use what the dependencies opened.
            steps.append(self._stack.aclose)
        steps.append(connection.finish)
        for step in steps:
            try:
                await step()
            except asyncio.CancelledError as error:
                outcome = outcome or error
            except StopConsumer:
                pass
            except Exception as failure:
                if not await is_handled(failure, consumer, connection):
                    text = "%s failed while it was torn down"
                    log_failure(logger, failure, connection, text, self._cls.__qualname__)
            except BaseException as error:
                outcome = error
        connection.closed_at = time.time()
        self._consumers.observing.tell("connection_closed" if self._opened else "connection_refused", connection)
        self._consumers.connections.discard(connection)
        self._consumers.admission.leave(connection)
        if outcome is not None and not isinstance(outcome, Exception):
            raise outcome
