"""Schedules, for the API and the page: to see, create, pause, run and delete."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..exceptions import ImproperlyConfigured, InvalidCursor, InvalidData, NotFound
from ..marks import cron, every
from ..pagination.cursors import Cursor, decode_cursor, encode_cursor
from ..runtime import Consumers
from ..schedule_status import ScheduleStatus
from ..schedules import Schedules
from .models import Data, GroupName, Model

_MARK = "schedules"


class ScheduleList(Model):
    """Schedules by name. ``next`` is the cursor of the next page."""

    results: list[ScheduleStatus]
    next: str | None
    total: int


class NewSchedule(BaseModel):
    """An event for a group, at the times that ``every`` or ``cron`` says."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=128)]
    #: Such as ``30s`` or ``1h30m``.
    every: Annotated[str, Field(min_length=1, max_length=32)] | None = None
    #: Such as ``0 9 * * 1-5``; needs the extra ``schedules``.
    cron: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    tz: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    group: GroupName
    event: Annotated[str, Field(min_length=1, max_length=255)]
    data: Data = None
    #: Put it in the place of one of this name that was created before.
    replace: bool = False

    @model_validator(mode="after")
    def _one(self) -> "NewSchedule":
        if (self.every is None) == (self.cron is None):
            raise ValueError("say either every or cron")
        return self


class ScheduleRun(BaseModel):
    """``group``: of a schedule that runs for each group, only this one."""

    model_config = ConfigDict(extra="forbid")

    group: GroupName | None = None


def schedules_of(consumers: Consumers) -> Schedules:
    """Raises ``NotFound`` where there is no place to keep schedules that all processes share."""
    if consumers.schedules.store is None:
        raise NotFound
    return consumers.schedules


async def list_schedules(
    consumers: Consumers, *, search: str | None = None, limit: int = 50, cursor: str | None = None
) -> ScheduleList:
    """Raises ``NotFound`` as :func:`schedules_of` does, ``InvalidCursor`` and ``BrokerUnavailable``."""
    found = await schedules_of(consumers).list()
    if search:
        found = [each for each in found if search.casefold() in each.name.casefold()]
    total = len(found)
    if cursor is not None:
        place = decode_cursor(cursor, (str,))
        if place.mark != _MARK or place.key is None:
            raise InvalidCursor
        found = [each for each in found if each.name > place.key[0]]
    following = encode_cursor(Cursor(False, _MARK, (found[limit - 1].name,)), (str,)) if len(found) > limit else None
    return ScheduleList(results=found[:limit], next=following, total=total)


async def create_schedule(consumers: Consumers, told: NewSchedule) -> ScheduleStatus:
    """Raises ``InvalidData`` for what cannot be one, with what is wrong; ``NotFound`` as :func:`schedules_of`
    does, ``InvalidGroup``, ``BrokerUnavailable``.
    """
    schedules = schedules_of(consumers)
    try:
        when = every(told.every) if told.every is not None else cron(told.cron or "", tz=told.tz)
        return await schedules.create(
            told.name, when, group=told.group, event=told.event, data=told.data, replace=told.replace
        )
    except ImproperlyConfigured as error:
        details = [
            {"loc": ["body"], "type": each.code, "message": f"found {each.found}; expected {each.expected}"}
            for each in error.problems
        ]
        raise InvalidData(details=details) from None


async def delete_schedule(consumers: Consumers, name: str) -> None:
    """Raises ``NotFound``, and ``InvalidData`` for one that is in the code."""
    try:
        await schedules_of(consumers).delete(name)
    except ValueError as error:
        raise InvalidData(details=[{"loc": ["path", "name"], "type": "value_error", "message": str(error)}]) from None
