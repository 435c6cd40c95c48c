"""What the API takes and returns: the models of its OpenAPI document. Times are in UTC, durations in seconds."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from ..codecs import MAX_DEPTH, encode_json, find_not_finite

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "NOTSET"]
ConnectionOrder = Literal["newest", "oldest", "queued", "sent", "dropped"]
GroupOrder = Literal["name", "size"]
#: As ``check_group`` has it; what is not printable is refused there.
GroupName = Annotated[str, Field(min_length=1, max_length=255)]


def _within(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _check_data(value: Any) -> Any:
    """What a client could send in a frame too. Before pydantic looks at it, which names each level of what is deep.

    Raises ``ValueError``.
    """
    if find_not_finite(value) is not None:
        raise ValueError("a number is not finite")
    level, depth = [value], 0
    while level := [inner for each in level for inner in _within(each)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested over {MAX_DEPTH} levels")
    try:
        encode_json(value)
    except ValueError:
        raise ValueError("a text holds half of a surrogate pair") from None
    return value


#: The data of an event.
Data = Annotated[JsonValue, BeforeValidator(_check_data)]


class Model(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ErrorBody(Model):
    code: str
    message: str
    details: JsonValue = None
    retryable: bool | None = None
    retry_after: float | None = None
    #: Of an ``HTTPException`` whose status has no error of its own.
    status: int | None = None


class ErrorAnswer(Model):
    """An error, as consumers send it."""

    error: ErrorBody


class Processes(Model):
    """Who answered. What a list says of the processes that did not is not in it."""

    answered: list[str]
    #: The code of the error that a process answered with.
    errors: dict[str, str] = {}
    #: Known processes that did not answer in time.
    missing: list[str] = []
    #: How many did not answer in time, the nameless included.
    silent: int = 0


# -- routes and settings -------------------------------------------------------------------------------------------


class ActionItem(Model):
    name: str
    method: str
    streams: bool
    concurrent: bool
    timeout: float | None
    deprecated: bool
    enabled: bool
    permissions: list[str]
    throttles: list[str]


class RouteItem(Model):
    """A consumer, and the path that it answers at. Policies and limits are those in force."""

    path: str
    name: str
    consumer: str
    module: str
    line: int
    groups: list[str]
    actions: list[ActionItem]
    authentication: list[str]
    permissions: list[str]
    throttles: list[str]
    connection_throttles: list[str]
    pagination: str | None
    history: str | None
    presence: str | None
    limits: dict[str, JsonValue]


class RouteList(Model):
    """Routes in their order. ``next`` is the cursor of the next page, ``total`` how many there are of this filter."""

    results: list[RouteItem]
    next: str | None
    total: int


class Settings(Model):
    """What is in force where a class says nothing else, and where things are kept. URLs are without passwords."""

    version: str
    process: str
    transport: str
    is_distributed: bool
    history: str | None
    presence: str | None
    limiter: str
    #: Where schedules are kept.
    schedules: str | None
    authentication: list[str]
    permissions: list[str]
    throttles: list[str]
    connection_throttles: list[str]
    pagination: str | None
    allowed_origins: list[str] | None
    accept_refused: bool
    trusted_proxies: bool
    #: The query parameter and the cookie that may hold a token.
    query_token_key: str | None
    cookie_token_key: str | None
    languages: list[str]
    #: Of each process; rates such as ``100/1 s``.
    max_connections_per_process: int | None
    max_connection_rate: list[str]
    #: Seconds; 0 where nothing is drained.
    drain_timeout: float
    #: Whether messages and bytes are counted, and what looks on: logs, metrics, traces.
    statistics: bool
    observers: list[str]
    limits: dict[str, JsonValue]


# -- processes -----------------------------------------------------------------------------------------------------


class ProcessItem(Model):
    process: str
    host: str
    pid: int
    python: str
    opened_at: datetime
    uptime: float
    #: Consumer class to connections.
    consumers: dict[str, int]
    #: As the health endpoint has it.
    health: dict[str, JsonValue]


class ProcessList(Model):
    """Those that answered, by name. ``next`` is the cursor of the next page, ``total`` how many there are of this
    filter.
    """

    results: list[ProcessItem]
    next: str | None
    total: int
    processes: Processes


# -- connections and groups ----------------------------------------------------------------------------------------


class ConnectionItem(Model):
    """One socket. What is ``None`` is not known, or not counted."""

    channel: str
    process: str
    consumer: str
    path: str
    user: str | None
    address: str
    opened_at: datetime
    #: When its last message came.
    last_seen: datetime | None = None
    #: The first of them by name; ``group_count`` says how many there are.
    groups: list[str]
    group_count: int
    #: Messages that wait to be written, that were written, and events that were dropped.
    queued: int
    sent: int
    dropped: int
    received: int | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None


class ConnectionPage(Model):
    results: list[ConnectionItem]
    #: The cursor of the next page.
    next: str | None
    #: How many there are of this filter, in the processes that answered.
    total: int
    processes: Processes


class GroupItem(Model):
    name: str
    connections: int


class GroupPage(Model):
    results: list[GroupItem]
    #: The cursor of the next page. The largest groups have one page only.
    next: str | None
    #: How many there are of this filter; ``None`` where several processes have groups, since they may be the same.
    total: int | None
    processes: Processes


class Position(Model):
    epoch: str
    offset: int


class GroupDetail(Model):
    name: str
    connections: int
    #: ``None``: it has no history.
    history: str | None
    position: Position | None
    processes: Processes


class PresenceAnswer(Model):
    """Key to ``metas``, one for each connection, in the order of keys. ``count`` is of all members."""

    group: str
    count: int
    members: dict[str, JsonValue]
    #: The cursor of the next page.
    next: str | None = None


# -- history and commands ------------------------------------------------------------------------------------------


class HistoryItem(Model):
    event: str
    data: JsonValue
    offset: int
    at: datetime


class HistoryPage(Model):
    """Events, the newest first. ``next`` is the ``before`` of the next page."""

    group: str
    epoch: str
    top: int
    results: list[HistoryItem]
    next: int | None


class Broadcast(BaseModel):
    model_config = ConfigDict(extra="forbid")

    group: GroupName
    event: Annotated[str, Field(min_length=1, max_length=255)]
    data: Data = None
    idempotency_key: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    coalesce_key: Annotated[str, Field(max_length=255)] | None = None


class BroadcastAnswer(Model):
    #: ``None`` in a group without history.
    position: Position | None


class Disconnect(BaseModel):
    """Just one of ``channel``, ``user`` and ``group``."""

    model_config = ConfigDict(extra="forbid")

    #: Such as ``0c4f91ab77d2!17``: of which process, and which of its connections.
    channel: Annotated[str, Field(pattern="^.+!.+$", max_length=255)] | None = None
    user: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    group: GroupName | None = None
    code: Annotated[int, Field(ge=1000, le=4999)] = 4409
    reason: Annotated[str, Field(max_length=120)] = "disconnected"

    @model_validator(mode="after")
    def _one(self) -> "Disconnect":
        if sum(value is not None for value in (self.channel, self.user, self.group)) != 1:
            raise ValueError("name one of channel, user and group")
        return self


class DisconnectAnswer(Model):
    """How many connections there were of those that are told to close, in the processes that answered.

    All are told, those of processes that did not answer too.
    """

    connections: int
    processes: Processes


class LogLevel(BaseModel):
    model_config = ConfigDict(extra="forbid")

    #: ``fastapi_consumers``, or a module of it.
    logger: Annotated[str, Field(pattern=r"^fastapi_consumers(\.[a-z0-9_]+)*$", max_length=100)] = "fastapi_consumers"
    #: ``NOTSET``: that of the logger above.
    level: Level


class LogLevels(Model):
    #: By process, then by logger.
    levels: dict[str, dict[str, str]]
    processes: Processes


class ThrottleReset(BaseModel):
    """Whose requests are forgotten: a user's, an address's, or both."""

    model_config = ConfigDict(extra="forbid")

    user: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    address: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _some(self) -> "ThrottleReset":
        if self.user is None and self.address is None:
            raise ValueError("name a user or an address")
        return self


class ThrottleResetAnswer(Model):
    #: Buckets that were not full, in all processes.
    reset: int
    processes: Processes


class Numbers(Model):
    """The numbers that are drawn, summed over the processes that answered. ``sent`` and ``dropped`` only rise."""

    connections: int = 0
    groups: int = 0
    queued: int = 0
    sent: int = 0
    dropped: int = 0
    overflows: int = 0
    processes: int = 0
    silent: int = 0
    healthy: bool = True
