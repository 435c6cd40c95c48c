"""``Consumers``: all that one application keeps for its consumers. There is one for each app, found on its state."""

import asyncio
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from starlette.requests import HTTPConnection

from .actions import Action
from .codecs import encode_json
from .dispatch import BUILTINS
from .exceptions import ImproperlyConfigured, Problem
from .groups import check_group
from .hub import GROUP, USER, Hub
from .identity import user_id
from .inbox import Watch
from .layer import ChannelLayer
from .messages import Position
from .packets import Packet
from .plan import Defaults, Plan
from .throttling import TokenBuckets
from .transports import MemoryTransport, Transport
from .types import CloseCode, close_reason

logger = logging.getLogger(__name__)

#: Seconds that open sockets get to end when the application stops.
SHUTDOWN_TIMEOUT = 5.0


class Consumers:
    """The consumers of one application: its hub, its policies' defaults, and ways to reach its sockets.

    ``add_consumers`` makes it and puts it on ``app.state.consumers``. All methods may be called from HTTP endpoints and
    background tasks of the same event loop.
    """

    __consumer_parameter__ = "consumers"

    def __init__(self, transport: Transport | None = None, defaults: Defaults | None = None) -> None:
        self.defaults = defaults if defaults is not None else Defaults()
        self.buckets = TokenBuckets()
        self.watch = Watch()
        self.connections: set[Any] = set()
        self._transport = transport if transport is not None else MemoryTransport()
        self.hub = Hub(self._transport)
        self.layer = ChannelLayer(self.hub)
        self._plans: dict[type[Any], Plan] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Lock | None = None

    @property
    def is_open(self) -> bool:
        """Whether its resources are open in the running event loop, or in any if none runs."""
        if self._loop is None:
            return False
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return not self._loop.is_closed()

    async def open(self) -> None:
        """Open the transport. Called by the app's lifespan; at the first connection where nobody runs that."""
        if self.is_open:
            return
        if self._loop is not None:
            # Opened at first use in an event loop that is gone, as in a test without lifespan: nothing of it is left.
            self.hub = Hub(self._transport)
            self.layer = ChannelLayer(self.hub)
            self.watch, self.connections, self._opening = Watch(), set(), None
        self._loop = asyncio.get_running_loop()
        self._opening = self._opening or asyncio.Lock()
        async with self._opening:
            await self.hub.open()

    async def close(self) -> None:
        """Close what is open: sockets with 1012, then the transport."""
        if not self.is_open:
            return
        for connection in tuple(self.connections):
            connection.shut(CloseCode.SERVICE_RESTART, "service_restart")
        ending = [connection.ended for connection in tuple(self.connections)]
        if ending:
            _, pending = await asyncio.wait(ending, timeout=SHUTDOWN_TIMEOUT)
            if pending:
                logger.warning("%d connections did not end within %s s", len(pending), SHUTDOWN_TIMEOUT)
        self.watch.close()
        await self.hub.close()
        self._loop = None

    async def __aenter__(self) -> "Consumers":
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def plan(self, cls: type[Any]) -> Plan:
        """Everything decided for one class. Raises ``ImproperlyConfigured`` for annotations that do not resolve."""
        plan = self._plans.get(cls)
        if plan is None or plan.options is not cls._meta:
            builtins: Mapping[str, Action] = BUILTINS if getattr(cls, "_has_actions", False) else {}
            plan = self._plans[cls] = Plan(cls, self.defaults, builtins)
        return plan

    async def broadcast(
        self, group: str, event: str, data: Any = None, *, exclude: str | None = None
    ) -> Position | None:
        """Send an event to all members of a group.

        Args:
            data: anything that pydantic can serialise to JSON. It is serialised once.
            exclude: a channel name that is left out.

        Raises ``InvalidGroup``, and ``BrokerUnavailable`` if the event cannot be handed on.
        """
        await self.hub.publish(GROUP + check_group(group), Packet("event", encode_json(data), event, exclude))
        return None

    async def send(self, event: str, data: Any = None, *, user: Any = None, channel: str | None = None) -> None:
        """Send an event to all connections of a user (an id, or an object with one), or to one channel."""
        packet = Packet("event", encode_json(data), event)
        await self._send_to(packet, user, channel, None)

    async def disconnect(
        self,
        *,
        user: Any = None,
        channel: str | None = None,
        group: str | None = None,
        code: int = CloseCode.REPLACED,
        reason: str = "disconnected",
    ) -> None:
        """Close all sockets of a user, one by its channel, or all of a group."""
        packet = Packet("close", encode_json([int(code), close_reason(reason)]))
        await self._send_to(packet, user, channel, group)

    async def _send_to(self, packet: Packet, user: Any, channel: str | None, group: str | None) -> None:
        given = [name for name, value in (("user", user), ("channel", channel), ("group", group)) if value is not None]
        if len(given) != 1:
            raise TypeError(f"name one receiver: user=… or channel=… (found {', '.join(given) or 'none'})")
        if channel is not None:
            await self.hub.send(channel, packet)
        elif group is not None:
            await self.hub.publish(GROUP + check_group(group), packet)
        else:
            await self.hub.publish(USER + _user_key(user), packet)

    async def get_connection_count(self, group: str) -> int:
        """How many connections are in a group."""
        return self.hub.count(GROUP + check_group(group))


def _user_key(user: Any) -> str:
    """A user, or a user's id, as text."""
    return str(user if isinstance(user, str | int) else user_id(user))


def get_consumers(connection: HTTPConnection) -> Consumers:
    """The application's ``Consumers``, as a dependency of HTTP endpoints: ``Depends(get_consumers)``."""
    found = getattr(connection.app.state, "consumers", None)
    if not isinstance(found, Consumers):
        raise ImproperlyConfigured(
            "The application",
            [
                Problem(
                    "no-consumers",
                    "app.state.consumers",
                    "nothing" if found is None else repr(found),
                    "the Consumers that add_consumers() makes",
                    "call add_consumers(app, channel_routes)",
                )
            ],
        )
    return found


def consumers_of(scope: Any) -> Consumers:
    """The ``Consumers`` of the app that a scope belongs to; made in memory if nobody called ``add_consumers``."""
    state = getattr(scope.get("app"), "state", None)
    if state is None:
        raise ImproperlyConfigured(
            "The application",
            [
                Problem(
                    "no-application",
                    "scope['app']",
                    "no FastAPI or Starlette application around the consumer",
                    "one that keeps the state of its consumers",
                    "mount the consumer in a FastAPI or Starlette app",
                )
            ],
        )
    found = getattr(state, "consumers", None)
    if not isinstance(found, Consumers):
        found = state.consumers = Consumers()
    return found
