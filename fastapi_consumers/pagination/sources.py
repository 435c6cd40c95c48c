"""What can be paged, behind two narrow interfaces: by position and count, or by key.

A sequence and a SQL query have both, a stream only keys.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable


class Entry(Protocol):
    """One event of a stream."""

    @property
    def offset(self) -> int:
        """Its place: unique within an epoch, and rising."""
        ...


class Stretch(Protocol):
    """Some events of a stream."""

    @property
    def epoch(self) -> str:
        """Names the life of the stream that the offsets belong to."""
        ...

    @property
    def events(self) -> Sequence[Entry]:
        """In the order that was asked for."""
        ...


@runtime_checkable
class Pageable(Protocol):
    """A stream that cursor pagination reads, such as a group's history. Events may be added and removed any time."""

    async def read(self, *, after: int | None, before: int | None, limit: int, newest_first: bool) -> Stretch:
        """The events with ``after < offset < before``: the first ``limit`` of them in the order asked for.

        ``None`` sets no bound. Epoch and events are of one moment. ``after`` and ``before`` come from the client: any
        whole number of 64 bits. It may return fewer than ``limit``; only none at all mean that there are no more. A
        stream that takes no larger limit than so many says so with an attribute ``max_read``.
        """
        ...


class Keyed(NamedTuple):
    """What a keyset read found: results in the direction of the read, the key of each, and the mark of the listing."""

    results: list[Any]
    keys: list[tuple[Any, ...]]
    mark: str
    #: The stream's epoch, if it is a stream.
    epoch: str | None = None


class KeysetSource(ABC):
    """A listing whose results have keys by which it is ordered: read from a key on, in either direction."""

    #: The types of a key's values. Cursors are validated by them.
    key_types: tuple[type, ...]
    #: What cursors have to bear to be for this listing. ``None``: only a read says it.
    mark: str | None = None

    @abstractmethod
    async def read(self, key: tuple[Any, ...] | None, limit: int, *, backward: bool) -> Keyed:
        """The ``limit`` results after ``key``, or ``backward`` those before it, nearest first.

        Without a key: from the beginning on, or ``backward`` from the end.
        """

    def shown(self, results: list[Any]) -> list[Any]:
        """What a page has of these results, which may be fewer: all of them, but for an override."""
        return results


class CountedSource(ABC):
    """A listing with a length, of which any part can be read."""

    @abstractmethod
    async def count(self) -> int:
        """How many results there are."""

    @abstractmethod
    async def slice(self, start: int, stop: int) -> list[Any]:
        """The results from position ``start`` up to, not including, ``stop``. ``0 <= start <= stop``."""


class SequenceSource(KeysetSource, CountedSource):
    """A list, a tuple, or whatever has a length and slices. The key of a result is its position."""

    key_types = (int,)
    mark = "position"

    def __init__(self, items: Any) -> None:
        self._items = items

    async def read(self, key: tuple[Any, ...] | None, limit: int, *, backward: bool) -> Keyed:
        count = len(self._items)
        if backward:
            stop = count if key is None else min(max(key[0], 0), count)
            places = range(max(stop - limit, 0), stop)
        else:
            start = 0 if key is None else min(max(key[0] + 1, 0), count)
            places = range(start, min(start + limit, count))
        results = list(self._items[places.start : places.stop])
        keys: list[tuple[Any, ...]] = [(place,) for place in places]
        if backward:
            results.reverse()
            keys.reverse()
        return Keyed(results, keys, self.mark)

    async def count(self) -> int:
        return len(self._items)

    async def slice(self, start: int, stop: int) -> list[Any]:
        return list(self._items[start:stop])


class StreamSource(KeysetSource):
    """A :class:`Pageable`, newest first unless it is asked for by ``offset``. The key of an event is its offset."""

    key_types = (int,)

    def __init__(self, stream: Pageable, *, newest_first: bool) -> None:
        self._stream = stream
        self._newest_first = newest_first

    def shown(self, results: list[Any]) -> list[Any]:
        """Without those that are ``withheld``: they hold a place, and nothing else is to be known of them."""
        return [event for event in results if not getattr(event, "withheld", False)]

    async def read(self, key: tuple[Any, ...] | None, limit: int, *, backward: bool) -> Keyed:
        downwards = self._newest_first is not backward
        bound = None if key is None else key[0]
        most = getattr(self._stream, "max_read", limit)
        epoch: str | None = None
        events: list[Any] = []
        while len(events) < limit:
            found = await self._stream.read(
                after=None if downwards else bound,
                before=bound if downwards else None,
                limit=min(limit - len(events), most),
                newest_first=downwards,
            )
            if epoch is None:
                epoch = found.epoch
            if not found.events or found.epoch != epoch:
                break
            events += found.events
            bound = events[-1].offset
        mark = f"{'newest' if self._newest_first else 'oldest'}:{epoch}"
        return Keyed(events, [(event.offset,) for event in events], mark, epoch)


async def source_of(source: Any, session: Any, ordering: Sequence[str], max_items: int) -> Any:
    """What ``source`` offers: a :class:`KeysetSource`, a :class:`CountedSource`, or both.

    Raises:
        TypeError: it cannot be paged.
        ValueError: it is an async iterable of more than ``max_items``.
    """
    if isinstance(source, KeysetSource | CountedSource):
        return source
    # Before the question for SQL: what a relationship of SQLAlchemy holds is a list.
    is_sequence = _is_sequence(source)
    if not is_sequence and _is_sql(source):
        from .sql import SelectSource  # SQLAlchemy is optional, and here already.

        return SelectSource(source, session, ordering)
    if session is not None:
        raise TypeError(f"session= is for SQLAlchemy's select(); found {type(source).__name__} as the source.")
    if is_sequence:
        return SequenceSource(list(source) if isinstance(source, deque) else source)  # a deque has no slices
    if isinstance(source, AsyncIterable):
        return SequenceSource(await _collect(source, max_items))
    if isinstance(source, Pageable):
        return StreamSource(source, newest_first=tuple(ordering) != ("offset",))
    raise TypeError(
        f"{type(source).__name__} cannot be paged; expected a list, a tuple or another sequence, an async iterable, a "
        "select() of SQLAlchemy, or a Pageable."
    )


def _is_sql(source: Any) -> bool:
    return any(klass.__module__.partition(".")[0] == "sqlalchemy" for klass in type(source).__mro__)


def _is_sequence(source: Any) -> bool:
    if isinstance(source, str | bytes | bytearray | Mapping):
        return False
    return hasattr(type(source), "__len__") and hasattr(type(source), "__getitem__")


async def _collect(source: AsyncIterable[Any], max_items: int) -> list[Any]:
    items: list[Any] = []
    try:
        async for item in source:
            if len(items) >= max_items:
                raise ValueError(
                    f"The async iterable has more than {max_items} items (max_items), and all of them have to be read. "
                    "Page a sequence or a query, or raise max_items of the pagination class."
                )
            items.append(item)
    finally:
        aclose = getattr(source, "aclose", None)
        if aclose is not None:
            await cast(Any, aclose)()
    return items
