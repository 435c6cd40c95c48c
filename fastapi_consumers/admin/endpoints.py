"""The endpoints of the API. None of them guards itself: the router that they are put on does."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AfterValidator

from ..event_models import InvalidEvent
from ..exceptions import InvalidData, NotFound
from ..finding import get_consumers
from ..groups import check_group
from ..history.base import check_idempotency_key
from ..runtime import Consumers
from ..schedule_status import ScheduleStatus
from . import models
from .describing import list_routes, settings_of
from .gathering import MAX_PAGE, Gathering, key_after, next_cursor
from .scheduling import (
    NewSchedule,
    ScheduleList,
    ScheduleRun,
    create_schedule,
    delete_schedule,
    list_schedules,
    schedules_of,
)


def check_printable(name: str) -> str:
    """No schedule has another name, and not every store takes all characters. Raises ``ValueError``."""
    if not name.isprintable():
        raise ValueError("it holds a character that is not printable")
    return name


App = Annotated[Consumers, Depends(get_consumers)]
Group = Annotated[str, Path(min_length=1, max_length=255)]
Name = Annotated[str, Path(min_length=1, max_length=128), AfterValidator(check_printable)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str | None, Query(max_length=2048)]
Text = Annotated[str | None, Query(max_length=255)]


class Endpoints:
    """The endpoints, with what the router was told.

    Args:
        timeout: seconds that other processes have to answer.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    def add_to(self, router: APIRouter) -> None:
        """Put them on a router, which has its dependencies by now."""

        def add(method: str, path: str, endpoint: Any, model: Any, *errors: int, **options: Any) -> None:
            # Dependencies of the router may have parameters of their own, which can be wrong at every route.
            told: dict[int | str, Any] = {status: {"model": models.ErrorAnswer} for status in (401, 403, 422, *errors)}
            router.add_api_route(path, endpoint, methods=[method], response_model=model, responses=told, **options)

        add("GET", "/routes", self.routes, models.RouteList)
        add("GET", "/settings", self.settings, models.Settings)
        add("GET", "/processes", self.processes, models.ProcessList)
        add("GET", "/numbers", self.numbers, models.Numbers)
        add("GET", "/connections", self.connections, models.ConnectionPage)
        add("GET", "/groups", self.groups, models.GroupPage)
        add("GET", "/groups/{group:path}", self.group, models.GroupDetail, 400, 404, 503)
        add("GET", "/presence/{group:path}", self.presence, models.PresenceAnswer, 400, 404, 503)
        add("GET", "/history/{group:path}", self.history, models.HistoryPage, 400, 404, 503)
        add("DELETE", "/history/{group:path}", self.purge, None, 400, 404, 503, status_code=204)
        add("POST", "/events", self.broadcast, models.BroadcastAnswer, 400, 413, 503)
        add("POST", "/disconnect", self.disconnect, models.DisconnectAnswer, 400, 503, status_code=202)
        add("GET", "/log-level", self.log_level, models.LogLevels)
        add("PUT", "/log-level", self.set_log_level, models.LogLevels, 404)
        add("POST", "/throttles/reset", self.reset_throttles, models.ThrottleResetAnswer)

        add("GET", "/schedules", self.schedules, ScheduleList, 404, 503)
        add("POST", "/schedules", self.create_schedule, ScheduleStatus, 400, 404, 503, status_code=201)
        add("GET", "/schedules/{name:path}", self.schedule, ScheduleStatus, 404, 503)
        add("DELETE", "/schedules/{name:path}", self.delete_schedule, None, 404, 503, status_code=204)
        add("POST", "/schedules/{name:path}/pause", self.pause_schedule, ScheduleStatus, 404, 503)
        add("POST", "/schedules/{name:path}/resume", self.resume_schedule, ScheduleStatus, 404, 503)
        add("POST", "/schedules/{name:path}/run", self.run_schedule, None, 400, 404, 503, status_code=202)

    async def routes(
        self, request: Request, consumers: App, limit: Limit = 50, cursor: Cursor = None, search: Text = None
    ) -> models.RouteList:
        """The consumers that are routed, with the policies and limits in force for each.

        ``search`` looks into path, name, consumer and groups.
        """
        return list_routes(request.app, consumers, limit=limit, cursor=cursor, search=search)

    async def settings(self, consumers: App) -> models.Settings:
        """What this process runs with, without secrets."""
        return settings_of(consumers)

    async def processes(
        self, consumers: App, limit: Limit = 50, cursor: Cursor = None, search: Text = None
    ) -> models.ProcessList:
        """The processes of the application, and how each is. ``search`` looks into name, host and pid."""
        return await Gathering(consumers, self.timeout).processes(limit=limit, cursor=cursor, search=search)

    async def numbers(self, consumers: App) -> models.Numbers:
        """Connections, groups and messages of all processes in a few sums."""
        return await Gathering(consumers, self.timeout).numbers()

    async def connections(
        self,
        consumers: App,
        order: models.ConnectionOrder = "newest",
        limit: Limit = 50,
        cursor: Cursor = None,
        group: Text = None,
        user: Text = None,
        address: Text = None,
        consumer: Text = None,
        channel: Text = None,
        search: Text = None,
    ) -> models.ConnectionPage:
        """Open sockets of all processes. ``search`` looks into user, address, path, channel and groups."""
        filters = {"group": group, "user": user, "address": address, "consumer": consumer, "channel": channel}
        gathering = Gathering(consumers, self.timeout)
        return await gathering.connections(order=order, limit=limit, cursor=cursor, search=search, **filters)

    async def groups(
        self,
        consumers: App,
        order: models.GroupOrder = "name",
        limit: Limit = 50,
        cursor: Cursor = None,
        search: Text = None,
    ) -> models.GroupPage:
        """Groups that have connections. With ``order=size`` the largest, on one page."""
        gathering = Gathering(consumers, self.timeout)
        return await gathering.groups(order=order, limit=limit, cursor=cursor, search=search)

    async def group(self, group: Group, consumers: App) -> models.GroupDetail:
        """How many connections a group has, and where its history stands."""
        count, processes = await Gathering(consumers, self.timeout).count(check_group(group))
        history = consumers.histories.of(group)
        position = None
        if history is not None:
            # Read, and not asked for, which would begin a history where there is none.
            found = await consumers.history(group).read(limit=1, newest_first=True)
            position = models.Position(epoch=found.epoch, offset=found.top) if found.epoch else None
        return models.GroupDetail(
            name=group,
            connections=count,
            history=repr(history) if history is not None else None,
            position=position,
            processes=processes,
        )

    async def presence(
        self,
        group: Group,
        consumers: App,
        count_only: bool = False,
        limit: Limit = 50,
        cursor: Cursor = None,
        search: Text = None,
    ) -> models.PresenceAnswer:
        """Who is in a group. ``search`` looks into keys."""
        if consumers.presence_store is None:
            raise NotFound  # Nothing that processes share keeps it.
        if count_only:
            found = await consumers.get_presence(group, count_only=True)
            return models.PresenceAnswer(group=group, count=found["count"], members={})
        return await read_presence(consumers, group, limit, cursor, search)

    async def history(
        self, group: Group, consumers: App, limit: Limit = 50, before: Annotated[int | None, Query(ge=1)] = None
    ) -> models.HistoryPage:
        """What a group's history keeps, the newest first."""
        return await read_history(consumers, group, limit, before)

    async def purge(self, group: Group, consumers: App) -> Response:
        """Forget a group's history. Its next event begins a new epoch."""
        await consumers.history(group).purge()
        return Response(status_code=204)

    async def broadcast(self, told: models.Broadcast, consumers: App) -> models.BroadcastAnswer:
        """Send an event to all members of a group."""
        return await broadcast(consumers, told)

    async def disconnect(self, told: models.Disconnect, consumers: App) -> models.DisconnectAnswer:
        """Close a connection, all of a user, or all of a group. They are told so, and closed a moment later.

        The answer says how many there were just before.
        """
        if told.group is not None:
            check_group(told.group)
        # Nobody answers who was told to close. The page of one is for the sum beside it.
        found = await Gathering(consumers, self.timeout).connections(
            limit=1, channel=told.channel, user=told.user, group=told.group
        )
        await disconnect(consumers, told)
        return models.DisconnectAnswer(connections=found.total, processes=found.processes)

    async def log_level(self, consumers: App) -> models.LogLevels:
        """The levels of our loggers in each process."""
        return await Gathering(consumers, self.timeout).log_levels()

    async def set_log_level(self, told: models.LogLevel, consumers: App) -> models.LogLevels:
        """Set the level of one of our loggers in all processes, until they end."""
        return await Gathering(consumers, self.timeout).log_levels(told.logger, told.level)

    async def reset_throttles(self, told: models.ThrottleReset, consumers: App) -> models.ThrottleResetAnswer:
        """Forget what throttles counted of a user or an address, in all processes."""
        return await Gathering(consumers, self.timeout).reset_throttles(told.user, told.address)

    async def schedules(
        self, consumers: App, limit: Limit = 50, cursor: Cursor = None, search: Text = None
    ) -> ScheduleList:
        """What runs by itself, in whatever process, and how it went."""
        return await list_schedules(consumers, search=search, limit=limit, cursor=cursor)

    async def create_schedule(self, told: NewSchedule, consumers: App) -> ScheduleStatus:
        """Have an event sent to a group again and again."""
        return await create_schedule(consumers, told)

    async def schedule(self, name: Name, consumers: App) -> ScheduleStatus:
        """One schedule."""
        return await schedules_of(consumers).get(name)

    async def delete_schedule(self, name: Name, consumers: App) -> Response:
        """Forget a schedule that was created, or that is in no code any more."""
        await delete_schedule(consumers, name)
        return Response(status_code=204)

    async def pause_schedule(self, name: Name, consumers: App) -> ScheduleStatus:
        """Begin no run until it is resumed, in any process."""
        return await schedules_of(consumers).pause(name)

    async def resume_schedule(self, name: Name, consumers: App) -> ScheduleStatus:
        """Go on with the next moment."""
        return await schedules_of(consumers).resume(name)

    async def run_schedule(self, name: Name, consumers: App, told: ScheduleRun | None = None) -> Response:
        """Have it run once, besides its moments. Answers before it has."""
        group = told.group if told is not None else None
        await schedules_of(consumers).run_now(name, check_group(group) if group is not None else None)
        return Response(status_code=202)


# What the page does too.


async def read_history(consumers: Consumers, group: str, limit: int, before: int | None) -> models.HistoryPage:
    """Events of a group, the newest first. Raises ``InvalidGroup``, ``NotFound``, ``HistoryUnavailable``."""
    found = await consumers.history(group).read(before=before, limit=limit, newest_first=True)
    results = [
        models.HistoryItem(event=each.event, data=each.data, offset=each.offset, at=each.at) for each in found.events
    ]
    following = results[-1].offset if len(results) == limit and results[-1].offset > 1 else None
    return models.HistoryPage(group=group, epoch=found.epoch, top=found.top, results=results, next=following)


async def read_presence(
    consumers: Consumers, group: str, limit: int, cursor: str | None = None, search: str | None = None
) -> models.PresenceAnswer:
    """Members of a group by their keys. Raises as ``Consumers.get_presence`` does, and ``InvalidCursor``."""
    after = key_after(cursor, "presence", (str,))
    found = await consumers.get_presence(group)
    members, text = found["members"], (search or "").casefold()
    keys = sorted(key for key in members if (after is None or key > after[0]) and text in key.casefold())
    page = [((key,), key) for key in keys[: limit + 1]]
    return models.PresenceAnswer(
        group=group,
        count=found["count"],
        members={key: members[key] for key in keys[:limit]},
        next=next_cursor(page, limit, "presence", (str,)),
    )


async def broadcast(consumers: Consumers, told: models.Broadcast) -> models.BroadcastAnswer:
    """Raises as ``Consumers.broadcast`` does; ``InvalidData`` for an idempotency key that is of no use, and for data
    that a class of the group declares otherwise.
    """
    key = told.idempotency_key
    if key is not None:
        try:
            check_idempotency_key(key)
        except ValueError as error:
            raise _invalid("idempotency_key", str(error)) from None
        if consumers.histories.of(check_group(told.group)) is None:
            text = f"The group {told.group!r} has no history, which is where idempotency keys are kept."
            raise _invalid("idempotency_key", text)
    try:
        position = await consumers.broadcast(
            told.group, told.event, told.data, idempotency_key=key, coalesce_key=told.coalesce_key
        )
    except InvalidEvent as error:
        raise _invalid("data", str(error)) from None
    found = models.Position(epoch=position.epoch, offset=position.offset) if position is not None else None
    return models.BroadcastAnswer(position=found)


async def disconnect(consumers: Consumers, told: models.Disconnect) -> None:
    """Raises ``InvalidGroup``, ``BrokerUnavailable``, and ``InvalidData`` for a code that may not be sent."""
    try:
        await consumers.disconnect(
            user=told.user, channel=told.channel, group=told.group, code=told.code, reason=told.reason
        )
    except ValueError as error:
        raise _invalid("code", str(error)) from None


def _invalid(field: str, message: str) -> InvalidData:
    """A field of the body that is wrong in a way that its model does not see."""
    return InvalidData(details=[{"loc": ["body", field], "type": "value_error", "message": message}])
