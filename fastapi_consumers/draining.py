"""A planned stop: the sockets of one process are closed one after another, each once what it asked for is done.

A server closes all sockets in the moment in which it is told to stop, and tells the application only when they are
gone. So this begins at the signal, ahead of the server.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from .exceptions import Throttled
from .facts import log_extra
from .messages import Notice
from .signals import before_stop
from .texts import gettext_lazy as _
from .types import CloseCode

logger = logging.getLogger(__name__)

#: Seconds by default.
DRAIN_TIMEOUT = 5.0
#: The part of the time over which closing is spread, and the part after which what still runs is cancelled. The rest is
#: for tearing down.
SPREAD, CUT = 0.8, 0.9
#: Connections that are closed in a second at the least: to spread fewer helps nobody.
MIN_RATE = 10.0
#: Seconds between the notice and the close, in which a request may come that crossed with the notice.
LINGER = 0.2
#: Seconds between two batches at the most.
BATCH = 0.2
#: Seconds that a client is asked to stay away at the most; and how long it takes at the least until a process is there
#: again that has no other beside it.
AFTER, RESTART = 3.0, 1.0

REASON = "service_restart"


class Draining:
    """The drain of one application in one process, which happens once.

    Args:
        connections: those that there are, kept up to date by whoever owns them.
        timeout: seconds that it may take; with 0 signals are left alone.
        spreads: whether clients find another process meanwhile. Otherwise a client that is sent away early is only away
            for longer, and all are closed as soon as they are done.
        beside: called when it begins; what it returns is waited for too.
    """

    def __init__(
        self, connections: set[Any], timeout: float, *, spreads: bool, beside: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._beside = beside
        self._connections = connections
        self.timeout = timeout
        self._spreads = spreads
        self._disarm: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._leaving: dict[Any, asyncio.Task[None]] = {}

    @property
    def has_begun(self) -> bool:
        """Whether no new sockets are let in."""
        return self._task is not None

    def arm(self) -> None:
        """Drain before the server of this process stops, where it can be told."""
        if self.timeout and self._disarm is None:
            self._disarm = before_stop(self.drain)

    def close(self) -> None:
        """Leave signals as they were, and stop."""
        if self._disarm is not None:
            disarm, self._disarm = self._disarm, None
            disarm()
        if self._task is not None and not self._task.get_loop().is_closed():
            self._task.cancel()

    def check(self) -> None:
        """Raises ``Throttled`` with the code ``service_restart`` and status 503 once the drain has begun."""
        if self._task is not None:
            message = _("This server is about to restart.")
            error = Throttled(self._pause(AFTER), message, code=REASON, close_code=CloseCode.SERVICE_RESTART)
            error.http_status = 503
            raise error

    async def drain(self, timeout: float | None = None) -> None:
        """Begin, unless somebody has, and wait for the end, which comes after ``timeout`` seconds at the latest."""
        if self._task is None:
            seconds = self.timeout if timeout is None else timeout
            self._task = asyncio.get_running_loop().create_task(self._drain(seconds))
        # Whoever stops waiting does not stop the others.
        await asyncio.wait([self._task])

    def _pause(self, longest: float) -> float:
        """Seconds that a client is to stay away, at random, so that not all come back in one moment."""
        return random.uniform(0, longest) if self._spreads else RESTART + random.uniform(0, AFTER)

    async def _drain(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        began, total = loop.time(), len(self._connections)
        logger.info("draining %d connections, for %s s at the most; another signal stops at once", total, timeout)
        beside = loop.create_task(self._beside())
        try:
            try:
                async with asyncio.timeout_at(began + CUT * timeout):
                    await self._close_all(began, min(SPREAD * timeout, total / MIN_RATE) if self._spreads else 0.0)
            except TimeoutError:
                logger.info("%d connections are cut short", len(self._connections))
            for connection in tuple(self._connections):
                if connection not in self._leaving:
                    self._tell(connection, AFTER)
                connection.shut(CloseCode.SERVICE_RESTART, REASON)
            ending = [connection.ended for connection in tuple(self._connections)]
            await asyncio.wait([beside, *ending], timeout=max(0.0, began + timeout - loop.time()))
            logger.info("drained in %.1f s; %d connections have not ended", loop.time() - began, len(self._connections))
        finally:
            for task in (*self._leaving.values(), beside):
                task.cancel()

    async def _close_all(self, began: float, spread: float) -> None:
        loop = asyncio.get_running_loop()
        longest = min(AFTER, spread / 4)
        waiting = [connection for connection in self._connections if connection.is_accepted]
        random.shuffle(waiting)
        for index, connection in enumerate(waiting):
            early = began + spread * index / len(waiting) - loop.time()
            if early > 0:
                # A batch: what falls due meanwhile follows without another wait.
                await asyncio.sleep(early + random.uniform(0, min(BATCH, spread / 10)))
            elif not index % 64:
                await asyncio.sleep(0)
            self._send_off(connection, longest)
        while self._connections:
            # Those that shook hands meanwhile, or still do.
            for connection in tuple(self._connections):
                if connection.is_accepted and connection not in self._leaving:
                    self._send_off(connection, longest)
            if self._leaving:
                await asyncio.wait(self._leaving.values(), timeout=BATCH)
            else:
                await asyncio.sleep(BATCH / 10)

    def _send_off(self, connection: Any, longest: float) -> None:
        task = asyncio.get_running_loop().create_task(self._see_off(connection, longest))
        self._leaving[connection] = task
        # It has ended by then, and is to be freed.
        task.add_done_callback(lambda _: self._leaving.pop(connection, None))

    async def _see_off(self, connection: Any, longest: float) -> None:
        """Say that the end is near, let what runs or waits end, and close."""
        if self._tell(connection, longest):
            await asyncio.wait([connection.ended], timeout=LINGER)
        if connection.dispatcher is not None and (running := connection.dispatcher.running()):
            await asyncio.wait(running)
        while connection.inbox.waiting and not connection.ended.done():
            await asyncio.wait([connection.ended], timeout=BATCH / 10)
        connection.shut(CloseCode.SERVICE_RESTART, REASON, gently=True)
        await asyncio.wait([connection.ended])

    def _tell(self, connection: Any, longest: float) -> bool:
        """Send the notice; ``False`` if there is nobody to send it to."""
        framer = connection.member.framer
        # Who has no actions speaks a protocol of their own, or relays that of others.
        speaks = framer is not None and getattr(connection.plan.cls, "_has_actions", False)
        if not speaks or connection.is_closing or not connection.is_accepted:
            return False
        fields = {"code": int(CloseCode.SERVICE_RESTART), "reconnect": True, "after": round(self._pause(longest), 3)}
        try:
            connection.outbox.push(framer.notice(Notice("closing", fields)))
        except Exception:
            text = "the notice of the close could not be encoded by %s"
            logger.exception(text, connection.plan.options.name, extra=log_extra(connection))
            return False
        return True
