"""``Dashboard``: the consumer behind the page. One of our own, let in by the dependencies of its router."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ..backlog import Droppable
from ..codecs import encode_json
from ..consumers import JSONConsumer
from ..exceptions import ConsumerError, InvalidData, PermissionDenied
from ..marks import action
from ..messages import Event
from ..origins import is_allowed_origin
from ..texts import gettext_lazy as _
from . import models
from .describing import list_routes, settings_of
from .endpoints import broadcast, disconnect, read_history, read_presence
from .sampling import Board
from .scheduling import NewSchedule, ScheduleList, create_schedule, delete_schedule, list_schedules
from .viewing import Page, View, delta, read, whole
from .watching import Watch

logger = logging.getLogger(__name__)

#: Seconds after which lists are looked at again, and after which it is asked again who may look.
REFRESH, RECHECK = 2.0, 60.0
#: Lists and groups of one page.
MAX_VIEWS, MAX_WATCHES = 4, 4
#: Messages that may wait for a page; with more it is told nothing new.
MAX_WAITING = 8

Name = Annotated[str, Field(min_length=1, max_length=128)]
Group = Annotated[str, Field(min_length=1, max_length=255)]


class Dashboard(JSONConsumer):
    """One page that is open, let in by the router's dependencies: at the handshake, and again each minute."""

    authentication_classes = []
    permission_classes = []
    throttle_classes = []
    connection_throttle_classes = []
    # Checked in connect(): what the application allows for its own sockets is not meant for this one.
    allowed_origins = ["*"]
    accept_refused = False
    overflow = "coalesce"
    max_message_size = 256 * 1024

    #: So that the connections of an application with this on a route count what it shows.
    _shows_statistics: ClassVar[bool] = True
    board: ClassVar[Board]

    def __init__(self) -> None:
        super().__init__()
        self._views: dict[str, tuple[View, Page]] = {}
        self._watches: dict[str, Watch] = {}

    async def connect(self) -> None:
        scheme = self.scope.get("scheme", "ws")
        if not is_allowed_origin(self.scope["headers"], scheme, self.board.allowed_origins):
            raise PermissionDenied(_("Pages of this origin may not connect."), code="origin_not_allowed")
        await self.accept()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        sampler = self.board.join(self.consumers, self._take)
        self._tell("samples", list(sampler.samples))
        tasks = [
            asyncio.create_task(self._refresh(), name="fastapi_consumers: a dashboard's lists"),
            asyncio.create_task(self._check_access(), name="fastapi_consumers: a dashboard's access"),
        ]
        try:
            yield
        finally:
            self.board.leave(self.consumers, self._take)
            for task in tasks:
                task.cancel()
            for watch in self._watches.values():
                await watch.close()

    # -- what comes by itself --------------------------------------------------------------------------------------

    def _take(self, sample: dict[str, Any]) -> None:
        self._tell("numbers", sample)
        for watch in self._watches.values():
            if skipped := watch.skipped():
                self._tell("skipped", {"group": watch.group, "count": skipped})

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH)
            if self.connection.outbox.waiting > MAX_WAITING:
                continue
            for ident, (view, before) in list(self._views.items()):
                try:
                    after = await read(self.board.gathering(self.consumers), view)
                except ConsumerError as error:
                    logger.debug("a list of the dashboard could not be read: %r", error)
                    continue
                # It may have been replaced meanwhile.
                if self._views.get(ident) == (view, before):
                    self._views[ident] = view, after
                    if changes := delta(before, after):
                        self._tell("view", {"id": ident, **changes}, droppable=False)

    async def _check_access(self) -> None:
        """A page may stay open for days, and longer than somebody is an operator."""
        while True:
            await asyncio.sleep(RECHECK)
            try:
                async with AsyncExitStack() as stack:
                    await self.board.guards.solve(self.connection.websocket, stack, self.scope.get("app"))
            except Exception as failure:
                error = await self.connection.dispatcher.explain(failure, "the check of access")
                # What fails by itself, such as a database that is away, says nothing of who this is.
                if error.http_status < 500 and not error.retryable:
                    self.connection.shut(error.close_code, error.code)
                    return

    def _tell(self, event: str, data: Any, *, droppable: bool = True) -> None:
        framer = self.connection.member.framer
        assert framer is not None
        note = Droppable(None, event if event == "numbers" else None) if droppable else None
        self.connection.outbox.push(framer.event(Event(event, encode_json(data))), note)

    # -- what the page asks for ------------------------------------------------------------------------------------

    @action(concurrent=True)
    async def view(self, data: View) -> dict[str, Any]:
        """Show a list, and what changes in it, until another of this ``id`` is asked for or it is hidden."""
        if data.id not in self._views and len(self._views) >= MAX_VIEWS:
            raise InvalidData
        page = await read(self.board.gathering(self.consumers), data)
        self._views[data.id] = data, page
        return whole(page)

    @action
    async def hide(self, id: str) -> None:
        """Show this list no more."""
        self._views.pop(id, None)

    @action
    async def routes(self) -> models.RouteList:
        return list_routes(self.scope["app"], self.consumers)

    @action("settings")
    async def show_settings(self) -> models.Settings:
        return settings_of(self.consumers)

    @action
    async def watch(self, group: Group) -> dict[str, Any]:
        """Show what a group is told. The answer says how many connections it has, and whether it has a history."""
        if group not in self._watches:
            if len(self._watches) >= MAX_WATCHES:
                raise InvalidData
            watch = self._watches[group] = Watch(self.consumers.hub, group, self._show)
            try:
                await watch.open()
            except BaseException:
                del self._watches[group]
                raise
        count, _processes = await self.board.gathering(self.consumers).count(group)
        history = self.consumers.histories.of(group)
        return {"group": group, "connections": count, "history": repr(history) if history is not None else None}

    def _show(self, message: dict[str, Any]) -> None:
        self._tell("watched", message)

    @action
    async def unwatch(self, group: Group) -> None:
        watch = self._watches.pop(group, None)
        if watch is not None:
            await watch.close()

    @action("send")
    async def send_told(self, data: models.Broadcast) -> models.BroadcastAnswer:
        return await broadcast(self.consumers, data)

    @action("disconnect")
    async def close_others(self, data: models.Disconnect) -> None:
        await disconnect(self.consumers, data)

    @action("history", concurrent=True)
    async def past(
        self,
        group: Group,
        limit: Annotated[int, Field(ge=1, le=100)] = 20,
        before: Annotated[int, Field(ge=1)] | None = None,
    ) -> models.HistoryPage:
        return await read_history(self.consumers, group, limit, before)

    @action
    async def purge(self, group: Group) -> None:
        await self.consumers.history(group).purge()

    @action("presence", concurrent=True)
    async def who(self, group: Group) -> models.PresenceAnswer:
        return await read_presence(self.consumers, group, 100)

    @action(concurrent=True)
    async def log_levels(self) -> models.LogLevels:
        return await self.board.gathering(self.consumers).log_levels()

    @action(concurrent=True)
    async def set_log_level(self, data: models.LogLevel) -> models.LogLevels:
        return await self.board.gathering(self.consumers).log_levels(data.logger, data.level)

    @action(concurrent=True)
    async def reset_throttles(self, data: models.ThrottleReset) -> models.ThrottleResetAnswer:
        return await self.board.gathering(self.consumers).reset_throttles(data.user, data.address)

    @action(concurrent=True)
    async def schedules(
        self,
        search: Annotated[str, Field(max_length=255)] | None = None,
        limit: Annotated[int, Field(ge=1, le=100)] = 50,
        cursor: Annotated[str, Field(max_length=2048)] | None = None,
    ) -> ScheduleList:
        return await list_schedules(self.consumers, search=search, limit=limit, cursor=cursor)

    @action(concurrent=True)
    async def create_schedule(self, data: NewSchedule) -> None:
        await create_schedule(self.consumers, data)

    @action(concurrent=True)
    async def pause_schedule(self, name: Name, paused: bool) -> None:
        schedules = self.consumers.schedules
        await (schedules.pause(name) if paused else schedules.resume(name))

    @action(concurrent=True)
    async def run_schedule(self, name: Name) -> None:
        await self.consumers.schedules.run_now(name)

    @action(concurrent=True)
    async def delete_schedule(self, name: Name) -> None:
        await delete_schedule(self.consumers, name)
