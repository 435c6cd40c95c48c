"""Lists of all processes, merged. Used by the API and by the page alike."""

import heapq
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..asking import Gathered
from ..exceptions import InvalidCursor, InvalidData, NotFound
from ..pagination.cursors import Cursor, decode_cursor, encode_cursor
from ..runtime import Consumers
from .models import (
    ConnectionItem,
    ConnectionOrder,
    ConnectionPage,
    GroupItem,
    GroupOrder,
    GroupPage,
    LogLevels,
    Numbers,
    Processes,
    ProcessItem,
    ProcessList,
    ThrottleResetAnswer,
)

logger = logging.getLogger(__name__)

M = TypeVar("M")

#: Items of a page at most.
MAX_PAGE = 100
#: Bytes of names in one question, which a broker has to carry in one packet.
MAX_NAMES = 4000

_Counts: TypeAdapter[dict[str, int]] = TypeAdapter(dict[str, int])
_Levels: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])
_Sample = TypeAdapter(Numbers)


class Gathering:
    """Asks all processes of an application, and makes one answer of theirs.

    Args:
        timeout: seconds that a process has to answer.

    Nothing here raises because another process is slow, old or broken: it is named in ``processes`` then.
    """

    def __init__(self, consumers: Consumers, timeout: float) -> None:
        self._consumers = consumers
        self._timeout = timeout

    async def _ask(self, question: str, **arguments: Any) -> Gathered:
        given = {name: value for name, value in arguments.items() if value is not None}
        if not self._consumers.is_open:
            await self._consumers.open()
        return await self._consumers.asking.ask(question, given, timeout=self._timeout)

    async def connections(
        self,
        *,
        order: ConnectionOrder = "newest",
        limit: int = 50,
        cursor: str | None = None,
        **filters: str | None,
    ) -> ConnectionPage:
        """Raises ``InvalidCursor``."""
        mark = f"connections:{order}"
        after = key_after(cursor, mark, (float, str))
        found = await self._ask("connections", order=order, limit=limit + 1, after=after, **filters)
        total, lists = 0, []
        for process, answer in list(found.answers.items()):
            try:
                total += int(answer["total"])
                lists.append(
                    [((float(key[0]), str(key[1])), _connection(process, item)) for key, item in answer["items"]]
                )
            except (KeyError, TypeError, ValueError, IndexError):
                _misread(found, process)
        page = list(heapq.merge(*lists, key=_key_of))[: limit + 1]
        return ConnectionPage(
            results=[item for _, item in page[:limit]],
            next=next_cursor(page, limit, mark, (float, str)),
            total=total,
            processes=processes_of(found),
        )

    async def groups(
        self, *, order: GroupOrder = "name", limit: int = 50, cursor: str | None = None, search: str | None = None
    ) -> GroupPage:
        """Groups by name are counted exactly. The largest are those among the largest of each process.

        Raises ``InvalidCursor``.
        """
        mark = f"groups:{order}"
        after = key_after(cursor, mark, (str,))
        if order == "size" and after is not None:
            raise InvalidData
        found = await self._ask("groups", order=order, limit=limit + 1, after=after, search=search)
        counts: Counter[str] = Counter()
        totals = []
        for process, answer in list(found.answers.items()):
            try:
                own = {str(key[-1]): int(count) for key, count in answer["items"]}
                totals.append(int(answer["total"]))
                counts.update(own)
            except (KeyError, TypeError, ValueError, IndexError):
                _misread(found, process)
        if order == "size":
            if len(totals) > 1:
                counts = await self._counts(counts)
            largest = heapq.nsmallest(limit, counts.items(), key=lambda item: (-item[1], item[0]))
            results, following = [GroupItem(name=name, connections=count) for name, count in largest], None
        else:
            page = [((name,), GroupItem(name=name, connections=counts[name])) for name in sorted(counts)[: limit + 1]]
            results, following = [item for _, item in page[:limit]], next_cursor(page, limit, mark, (str,))
        has_several = len([total for total in totals if total]) > 1
        return GroupPage(
            results=results,
            next=following,
            total=None if has_several else sum(totals),
            processes=processes_of(found),
        )

    async def count(self, group: str) -> tuple[int, Processes]:
        """How many connections a group has."""
        found = await self._ask("group_counts", names=[group])
        return sum(counts.get(group, 0) for counts in _read(found, _Counts).values()), processes_of(found)

    async def _counts(self, names: Iterable[str]) -> Counter[str]:
        """The counts of these groups in all processes, asked for in as many questions as brokers make necessary."""
        counts: Counter[str] = Counter()
        batch: list[str] = []
        size = 0
        for name in [*names, None]:
            if name is None or size + 4 * len(name) > MAX_NAMES:
                if batch:
                    for own in _read(await self._ask("group_counts", names=batch), _Counts).values():
                        counts.update(own)
                batch, size = [], 0
            if name is not None:
                batch.append(name)
                size += 4 * len(name) + 3
        return counts

    async def processes(
        self, *, limit: int | None = None, cursor: str | None = None, search: str | None = None
    ) -> ProcessList:
        """By name, all of them without a ``limit``. ``search`` looks into name, host and pid.

        Raises ``InvalidCursor``.
        """
        after, text = key_after(cursor, "processes", (str,)), (search or "").casefold()
        found, now = await self._ask("process"), time.time()
        results = []
        for process, answer in sorted(found.answers.items()):
            try:
                started = float(answer["opened_at"])
                fields = {**answer, "process": process, "opened_at": _utc(started), "uptime": max(now - started, 0.0)}
                results.append(ProcessItem.model_validate(fields))
            except (KeyError, TypeError, ValueError):
                _misread(found, process)
        some = [each for each in results if any(text in part.casefold() for part in _searched(each))]
        rest = [((each.process,), each) for each in some if after is None or each.process > after[0]]
        limit = len(rest) if limit is None else limit
        return ProcessList(
            results=[each for _, each in rest[:limit]],
            next=next_cursor(rest, limit, "processes", (str,)),
            total=len(some),
            processes=processes_of(found),
        )

    async def numbers(self) -> Numbers:
        """The sums of all processes."""
        found = await self._ask("sample")
        samples = list(_read(found, _Sample).values())
        sums = Counter[str]()
        for sample in samples:
            sums.update({name: int(value) for name, value in sample.model_dump(exclude={"healthy"}).items()})
        return Numbers(
            **{**sums, "processes": len(samples), "silent": found.silent},
            healthy=all(sample.healthy for sample in samples),
        )

    async def log_levels(self, logger: str | None = None, level: str | None = None) -> LogLevels:
        """The levels, once one is set if ``level`` is given. Raises ``NotFound`` for a logger that no process has."""
        question = "log_level" if level is None else "set_log_level"
        found = await self._ask(question, logger=logger, level=level)
        if not found.answers and "not_found" in found.errors.values():
            raise NotFound
        return LogLevels(levels=_read(found, _Levels), processes=processes_of(found))

    async def reset_throttles(self, user: str | None, address: str | None) -> ThrottleResetAnswer:
        found = await self._ask("reset_throttles", user=user, address=address)
        return ThrottleResetAnswer(
            reset=sum(counts.get("reset", 0) for counts in _read(found, _Counts).values()),
            processes=processes_of(found),
        )


def processes_of(found: Gathered) -> Processes:
    """Who answered a question."""
    return Processes(answered=sorted(found.answers), errors=found.errors, missing=found.missing, silent=found.silent)


def _read(found: Gathered, adapter: TypeAdapter[M]) -> dict[str, M]:
    """The answers by process, without those that are none."""
    answers: dict[str, M] = {}
    for process, answer in list(found.answers.items()):
        try:
            answers[process] = adapter.validate_python(answer)
        except ValidationError:
            _misread(found, process)
    return answers


def _misread(found: Gathered, process: str) -> None:
    """An answer is not what was asked for, as of another version of this."""
    logger.warning("the answer of the process %r could not be read", process)
    found.answers.pop(process, None)
    found.errors[process] = "unreadable"


def _connection(process: str, fields: Mapping[str, Any]) -> ConnectionItem:
    times = {name: _utc(fields[name]) for name in ("opened_at", "last_seen") if fields.get(name) is not None}
    return ConnectionItem.model_validate({**fields, **times, "process": process})


def _searched(process: ProcessItem) -> tuple[str, ...]:
    return process.process, process.host, str(process.pid)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _key_of(item: tuple[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    return item[0]


def key_after(cursor: str | None, mark: str, types: tuple[type, ...]) -> list[Any] | None:
    """The key in a cursor. Raises ``InvalidCursor``."""
    if cursor is None:
        return None
    found = decode_cursor(cursor, types)
    if found.mark != mark or found.key is None:
        raise InvalidCursor
    return list(found.key)


def next_cursor(page: list[tuple[tuple[Any, ...], Any]], limit: int, mark: str, types: tuple[type, ...]) -> str | None:
    """The cursor behind ``limit`` items of a page of (key, item), if there are more."""
    return encode_cursor(Cursor(False, mark, page[limit - 1][0]), types) if len(page) > limit else None
