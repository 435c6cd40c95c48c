"""Pages: by cursor, by offset, by number; of lists, of async iterables, of streams. Queries: test_pagination_sql."""

import asyncio
import base64
import json
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, NamedTuple
from uuid import UUID

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from fastapi_consumers import (
    CursorPagination,
    GroupConsumer,
    ImproperlyConfigured,
    InvalidCursor,
    InvalidData,
    InvalidPage,
    JSONConsumer,
    LimitOffsetPagination,
    PageNumberPagination,
    action,
    add_consumers,
    path,
)
from fastapi_consumers.codecs import encode_json
from fastapi_consumers.history import GroupHistory, History, HistoryStore, MemoryHistoryStore
from fastapi_consumers.packets import Packet, encode_packet
from fastapi_consumers.pagination import (
    BasePagination,
    CountedPage,
    CountedSource,
    CursorParams,
    LimitOffsetParams,
    Page,
    Pageable,
    PageData,
    PageNumberParams,
    PageParams,
    PageRequest,
    StreamPage,
    pagination_for,
    pagination_for_streams,
    pagination_of,
)
from fastapi_consumers.pagination.cursors import MAX_CURSOR, Cursor, decode_cursor, encode_cursor
from fastapi_consumers.testing import CallError, WebsocketCommunicator


class Entry(NamedTuple):
    offset: int


class Found(NamedTuple):
    epoch: str
    events: list[Entry]


class Stream:
    """A stream in memory, as a history is one."""

    def __init__(self, count: int = 0, epoch: str = "e1") -> None:
        self.epoch = epoch
        self.entries = [Entry(number) for number in range(1, count + 1)]
        self.top = count

    def append(self) -> None:
        self.top += 1
        self.entries.append(Entry(self.top))

    async def read(self, *, after: int | None, before: int | None, limit: int, newest_first: bool) -> Found:
        assert limit >= 1
        found = [
            entry
            for entry in self.entries
            if (after is None or entry.offset > after) and (before is None or entry.offset < before)
        ]
        return Found(self.epoch, (found[::-1] if newest_first else found)[:limit])


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


async def walk(
    pagination: BasePagination,
    source: Callable[[], Any],
    params: Callable[[Any], PageParams],
    first: PageParams,
    between: Callable[[], None] = lambda: None,
) -> tuple[list[list[Any]], list[list[Any]]]:
    """All pages by ``next``, and all by ``previous`` from the last one on, both in the order of the listing."""
    page = await pagination.paginate(source(), first)
    forwards = [page.results]
    while page.next is not None:
        between()
        assert len(page.results) == pagination.get_page_size(first)
        page = await pagination.paginate(source(), params(page.next))
        forwards.append(page.results)
    backwards = [page.results]
    while page.previous is not None:
        page = await pagination.paginate(source(), params(page.previous))
        backwards.insert(0, page.results)
    return forwards, backwards


def flat(pages: Sequence[Sequence[Any]]) -> list[Any]:
    return [result for page in pages for result in page]


counts = st.integers(0, 60)
sizes = st.integers(1, 20)


# -- every page, there and back ----------------------------------------------------------------------------------------


async def counting(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


SEQUENCES: dict[str, Callable[[int], Any]] = {
    "list": lambda count: list(range(count)),
    "tuple": lambda count: tuple(range(count)),
    "range": range,
    "deque": lambda count: deque(range(count)),
    "async generator": counting,
}


#: A class, and its parameters for the first page of some size, and for one that a page names.
WAYS: dict[str, tuple[BasePagination, Callable[..., PageParams]]] = {
    "cursor": (CursorPagination(), lambda size, cursor=None: CursorParams(limit=size, cursor=cursor)),
    "offset": (LimitOffsetPagination(), lambda size, offset=0: LimitOffsetParams(limit=size, offset=offset)),
    "number": (PageNumberPagination(), lambda size, page=1: PageNumberParams(page_size=size, page=page)),
}


@pytest.mark.parametrize("make", SEQUENCES.values(), ids=SEQUENCES)
@pytest.mark.parametrize("way", WAYS)
@given(count=counts, size=sizes)
def test_a_sequence_is_walked_there_and_back(make: Callable[[int], Any], way: str, count: int, size: int) -> None:
    pagination, params = WAYS[way]
    forwards, backwards = run(walk(pagination, lambda: make(count), partial(params, size), params(size)))
    assert flat(forwards) == list(range(count))
    assert backwards == forwards


@pytest.mark.parametrize("newest_first", [True, False])
@given(count=counts, size=sizes)
def test_a_stream_is_walked_there_and_back(newest_first: bool, count: int, size: int) -> None:
    stream = Stream(count)
    forwards, backwards = run(
        walk(
            CursorPagination(ordering=() if newest_first else "offset"),
            lambda: stream,
            lambda cursor: CursorParams(limit=size, cursor=cursor),
            CursorParams(limit=size),
        )
    )
    assert flat(forwards) == (stream.entries[::-1] if newest_first else stream.entries)
    assert backwards == forwards


@given(count=counts, size=sizes, added=st.integers(1, 5))
def test_what_a_stream_gets_meanwhile_hides_and_repeats_nothing(count: int, size: int, added: int) -> None:
    stream = Stream(count)
    before = stream.entries[::-1]

    def between() -> None:
        for _ in range(added):
            stream.append()

    forwards, backwards = run(
        walk(
            CursorPagination(),
            lambda: stream,
            lambda cursor: CursorParams(limit=size, cursor=cursor),
            CursorParams(limit=size),
            between,
        )
    )
    assert flat(forwards) == before
    # The way back goes on to what is new.
    assert flat(backwards) == (stream.entries[::-1] if len(forwards) > 1 else before)


@given(count=st.integers(10, 60), size=st.integers(1, 5), gone=st.integers(1, 5))
def test_what_a_stream_drops_meanwhile_is_gone_and_nothing_else(count: int, size: int, gone: int) -> None:
    stream = Stream(count)
    before = stream.entries[::-1]

    async def walk_while_it_drops() -> list[Any]:
        page = await CursorPagination().paginate(stream, CursorParams(limit=size))
        seen = page.results
        while page.next is not None:
            del stream.entries[:gone]
            page = await CursorPagination().paginate(stream, CursorParams(limit=size, cursor=page.next))
            seen += page.results
        return seen

    seen = run(walk_while_it_drops())
    assert seen == before[: len(seen)]
    # All that is missing had been dropped when its turn came.
    assert {*before[len(seen) :]}.isdisjoint(stream.entries)


async def test_a_page_whose_neighbours_are_gone_leads_back_to_what_is_there() -> None:
    pagination, stream = CursorPagination(page_size=2), Stream(4)
    first = await pagination.paginate(stream)
    stream.entries = stream.entries[2:]
    emptied = await pagination.paginate(stream, CursorParams(cursor=first.next))
    assert (emptied.results, emptied.next) == ([], None)
    back = await pagination.paginate(stream, CursorParams(cursor=emptied.previous))
    assert (back.results, back.next, back.previous) == ([Entry(4), Entry(3)], None, None)
    stream.entries = []
    nothing = await pagination.paginate(stream, CursorParams(cursor=back.next or first.next))
    assert nothing.results == []
    stream.entries = [Entry(1), Entry(2), Entry(3)]
    last = await pagination.paginate(stream, CursorParams(cursor=nothing.previous))
    assert last.results == [Entry(2), Entry(1)]
    stream.entries = [Entry(1), Entry(2)]
    none_before = await pagination.paginate(stream, CursorParams(cursor=last.previous))
    assert (none_before.results, none_before.previous) == ([], None)
    again = await pagination.paginate(stream, CursorParams(cursor=none_before.next))
    assert (again.results, again.previous) == ([Entry(2), Entry(1)], None)


class Clamped(Stream):
    """Gives no more than three at once, and begins anew after so many reads."""

    max_read = 3
    lives: int | None = None

    async def read(self, *, after: int | None, before: int | None, limit: int, newest_first: bool) -> Found:
        assert limit <= self.max_read
        if self.lives is not None:
            self.lives -= 1
            if self.lives < 0:
                return Found("e2", [])
        return await super().read(after=after, before=before, limit=limit, newest_first=newest_first)


@given(count=counts, size=sizes)
def test_a_stream_that_gives_few_at_once_is_read_in_parts(count: int, size: int) -> None:
    stream = Clamped(count)
    forwards, backwards = run(
        walk(
            CursorPagination(),
            lambda: stream,
            lambda cursor: CursorParams(limit=size, cursor=cursor),
            CursorParams(limit=size),
        )
    )
    assert flat(forwards) == stream.entries[::-1]
    assert backwards == forwards


async def test_a_stream_that_begins_anew_between_two_parts_ends() -> None:
    stream = Clamped(10)
    stream.lives = 2
    page = await CursorPagination().paginate(stream)
    assert ([entry.offset for entry in page.results], page.next, page.epoch) == ([10, 9, 8, 7, 6, 5], None, "e1")


async def test_a_list_that_shrinks_ends_early() -> None:
    pagination, items = CursorPagination(page_size=2), [1, 2, 3, 4]
    page = await pagination.paginate(items)
    del items[:]
    page = await pagination.paginate(items, CursorParams(cursor=page.next))
    assert (page.results, page.next) == ([], None)


async def test_an_offset_past_the_end_is_an_empty_page() -> None:
    page = await LimitOffsetPagination(page_size=10).paginate(range(25), LimitOffsetParams(offset=10**30))
    assert page == CountedPage[Any](results=[], next=None, previous=15, count=25)
    page = await LimitOffsetPagination().paginate([], LimitOffsetParams(offset=3))
    assert page == CountedPage[Any](results=[], next=None, previous=None, count=0)


async def test_a_page_that_is_not_there_is_refused() -> None:
    pagination = PageNumberPagination(page_size=10)
    assert (await pagination.paginate([], PageNumberParams(page=1))).results == []
    for page in (4, 10**30):
        with pytest.raises(InvalidPage, match="the last one is 3"):
            await pagination.paginate(range(25), PageNumberParams(page=page))


@pytest.mark.parametrize(
    ("pagination", "params"),
    [
        (CursorPagination(page_size=5, max_page_size=7), lambda size: CursorParams(limit=size)),
        (LimitOffsetPagination(page_size=5, max_page_size=7), lambda size: LimitOffsetParams(limit=size)),
        (PageNumberPagination(page_size=5, max_page_size=7), lambda size: PageNumberParams(page_size=size)),
    ],
)
async def test_sizes_are_clamped(pagination: BasePagination, params: Callable[[int | None], PageParams]) -> None:
    for asked, got in ((None, 5), (1, 1), (7, 7), (8, 7), (10**40, 7)):
        assert len((await pagination.paginate(range(100), params(asked))).results) == got


async def test_an_async_iterable_is_bounded_and_closed() -> None:
    class Few(CursorPagination):
        max_items = 10

    assert len((await Few().paginate(counting(10))).results) == 10
    endless = counting(11)
    with pytest.raises(ValueError, match="more than 10 items"):
        await Few().paginate(endless)
    assert [item async for item in endless] == []

    class Bare:
        def __aiter__(self) -> AsyncIterator[int]:
            return counting(3)

    assert (await Few().paginate(Bare())).results == [0, 1, 2]


@pytest.mark.parametrize("source", ["text", b"bytes", {"a": 1}, {1, 2}, iter([1]), 5, None])
async def test_what_cannot_be_paged_is_a_mistake_of_the_server(source: Any) -> None:
    with pytest.raises(TypeError, match="cannot be paged"):
        await CursorPagination().paginate(source)


async def test_a_session_is_for_queries_only() -> None:
    with pytest.raises(TypeError, match="session= is for"):
        await CursorPagination().paginate([1], session=object())


async def test_a_stream_has_no_numbers_and_a_counted_source_no_keys() -> None:
    assert isinstance(Stream(), Pageable)
    for pagination in (LimitOffsetPagination(), PageNumberPagination()):
        with pytest.raises(TypeError, match="CursorPagination"):
            await pagination.paginate(Stream(3))

    class Counted(CountedSource):
        async def count(self) -> int:
            return 3

        async def slice(self, start: int, stop: int) -> list[Any]:
            return [0, 1, 2][start:stop]

    assert (await PageNumberPagination(page_size=2).paginate(Counted(), PageNumberParams(page=2))).results == [2]
    with pytest.raises(TypeError, match="no keys"):
        await CursorPagination().paginate(Counted())


async def test_a_page_of_a_stream_names_its_epoch() -> None:
    page = await CursorPagination().paginate(Stream(1, "kq3f"))
    assert page == StreamPage[Any](results=[Entry(1)], next=None, previous=None, epoch="kq3f")


# -- cursors -----------------------------------------------------------------------------------------------------------


async def code_of_cursor(source: Any, cursor: Any) -> None:
    with pytest.raises(InvalidCursor) as caught:
        await CursorPagination().paginate(source, CursorParams(cursor=cursor))
    assert caught.value.code == "invalid_cursor"
    assert isinstance(caught.value, InvalidData)


def text_of(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "", " ", "=", "a", "ä", "\n", "WzEs\n", "../..", "A" * (MAX_CURSOR + 1), "null",
        text_of(None), text_of([]), text_of({}), text_of(b"\xff"), text_of(b"[" * 1000), text_of(5),
        text_of(["2", "after", "position", [1]]), text_of(["1", "around", "position", [1]]),
        text_of(["1", "after", "other", [1]]), text_of(["1", "after", "position", ["1"]]),
        text_of(["1", "after", "position", [True]]), text_of(["1", "after", "position", [1.5]]),
        text_of(["1", "after", "position", [None]]), text_of(["1", "after", "position", [1, 2]]),
        text_of(["1", "after", "position", []]), text_of(["1", "after", "position", [2**63]]),
        text_of(["1", "after", "position", 1]), text_of(["1", "after", "position"]),
        text_of(["1", "after", "position", [1], 1]), text_of(b'["1","after","position",[NaN]]'),
        text_of(["1", "after", 5, [1]]), text_of([1, "after", "position", [1]]),
    ],
)  # fmt: skip
async def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    await code_of_cursor(list(range(50)), cursor)


@given(st.text() | st.binary().map(text_of) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["after", "before"]),
    lambda inner: st.lists(inner, max_size=5),
).map(text_of))  # fmt: skip
@settings(max_examples=300)
def test_no_text_breaks_the_reader_of_cursors(text: str) -> None:
    try:
        cursor = decode_cursor(text, (int, str))
    except InvalidCursor:
        return
    assert cursor.key is None or [type(value) for value in cursor.key] == [int, str]


@pytest.mark.parametrize("place", [-(2**63), -1, 49, 50, 10**9, 2**63 - 1])
@pytest.mark.parametrize("direction", ["after", "before"])
async def test_a_forged_place_in_a_list_reads_nothing_else(place: int, direction: str) -> None:
    cursor = text_of(["1", direction, "position", [place]])
    page = await CursorPagination(page_size=5).paginate(list(range(50)), CursorParams(cursor=cursor))
    items = list(range(50))
    if direction == "after":
        assert page.results == items[max(place + 1, 0) :][:5]
    else:
        assert page.results == items[: max(place, 0)][-5:]


async def test_a_cursor_of_another_epoch_order_or_kind_is_refused() -> None:
    cursor = (await CursorPagination(page_size=1).paginate(Stream(3, "a"))).next
    assert (await CursorPagination().paginate(Stream(3, "a"), CursorParams(cursor=cursor))).results
    await code_of_cursor(Stream(3, "b"), cursor)
    await code_of_cursor([1, 2, 3], cursor)
    with pytest.raises(InvalidCursor):
        await CursorPagination(ordering="offset").paginate(Stream(3, "a"), CursorParams(cursor=cursor))


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


KEYS: list[tuple[type, st.SearchStrategy[Any]]] = [
    (int, st.integers(-(2**63), 2**63 - 1)),
    (str, st.text(max_size=100)),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, st.booleans()),
    (bytes, st.binary(max_size=100)),
    (datetime, st.datetimes(timezones=st.none() | st.just(UTC))),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas(timedelta(days=-(10**6)), timedelta(days=10**6))),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=6)),
    (UUID, st.uuids()),
    (Colour, st.sampled_from(Colour)),
]


@given(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4).flatmap(
    lambda kinds: st.tuples(st.just([kind for kind, _ in kinds]), st.tuples(*[values for _, values in kinds]))
), st.booleans())  # fmt: skip
def test_a_cursor_keeps_every_key_exactly(made: tuple[list[type], tuple[Any, ...]], backward: bool) -> None:
    types, key = made
    text = encode_cursor(Cursor(backward, "mark", key), types)
    assert text == base64.urlsafe_b64encode(base64.urlsafe_b64decode(text + "==")).rstrip(b"=").decode()
    found = decode_cursor(text, types)
    assert found == Cursor(backward, "mark", key)
    assert found.key is not None
    assert [type(value) for value in found.key] == types


def test_a_key_that_is_null_or_too_long_is_a_mistake_of_the_server() -> None:
    with pytest.raises(TypeError, match="none of them None"):
        encode_cursor(Cursor(False, "m", (None,)), (int,))
    with pytest.raises(TypeError, match="expected values of the types"):
        encode_cursor(Cursor(False, "m", ("5",)), (int,))
    with pytest.raises(ValueError, match="Order by shorter"):
        encode_cursor(Cursor(False, "m", ("x" * MAX_CURSOR,)), (str,))


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"page_size": 0}, "page_size"),
        ({"page_size": -1}, "page_size"),
        ({"page_size": True}, "page_size"),
        ({"page_size": "5"}, "page_size"),
        ({"page_size": 2.5}, "page_size"),
        ({"max_page_size": 0}, "max_page_size"),
        ({"page_size": 500}, "page_size"),
        ({"page_size": 50, "max_page_size": 20}, "page_size"),
        ({"ordering": ["-"]}, "ordering"),
        ({"ordering": "id; drop"}, "ordering"),
        ({"ordering": [5]}, "ordering"),
        ({"ordering": 5}, "ordering"),
        ({"ordering": b"id"}, "ordering"),
    ],
)
def test_a_wrong_setting_is_refused_on_instance_and_subclass(settings: dict[str, Any], setting: str) -> None:
    for make in (lambda: CursorPagination(**settings), lambda: type("Mine", (CursorPagination,), settings)):
        with pytest.raises(ImproperlyConfigured) as caught:
            make()
        (problem,) = caught.value.problems
        assert problem.code == "bad-pagination-setting"
        assert problem.where.endswith(f".{setting}")


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"max_items": 0}, "bad-pagination-setting"),
        ({"cursor_param": ""}, "bad-pagination-setting"),
        ({"cursor_param": 5}, "bad-pagination-setting"),
        ({"default_limit": 5}, "unknown-pagination-setting"),
        ({"cursor_query_param": "after"}, "unknown-pagination-setting"),
    ],
)
def test_a_wrong_attribute_of_a_subclass_is_refused(attributes: dict[str, Any], code: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        type("Mine", (CursorPagination,), attributes)
    assert [problem.code for problem in caught.value.problems] == [code]


def test_two_parameters_of_one_name_are_refused() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        type("Mine", (CursorPagination,), {"cursor_param": "limit"})
    assert len(caught.value.problems) == 2


class Short(CursorPagination):
    page_size = 3


class Renamed(CursorPagination):
    page_size = 4
    limit_param = "first"
    cursor_param = "after"


class Angry(CursorPagination):
    def __init__(self) -> None:
        raise RuntimeError("not today")


def test_a_pagination_class_is_a_class_or_an_instance() -> None:
    instance = CursorPagination(page_size=7)
    assert pagination_of(instance) is instance
    assert pagination_of(Short).page_size == 3
    assert repr(instance) == "CursorPagination(page_size=7, max_page_size=100)"


@pytest.mark.parametrize("entry", ["cursor", 5, object, BasePagination, Angry, [CursorPagination]])
def test_what_is_no_pagination_class_is_refused_everywhere(entry: Any) -> None:
    def on_a_consumer() -> None:
        type("Room", (GroupConsumer,), {"pagination_class": entry, "__module__": __name__})

    def on_an_action() -> None:
        class Room(JSONConsumer):
            @action(pagination_class=entry)
            async def read(self, data: CursorParams) -> None: ...

    def registered() -> None:
        class Room(JSONConsumer): ...

        @Room.action(pagination_class=entry)
        async def read(consumer: Room, data: CursorParams) -> None: ...

    def on_the_app() -> None:
        add_consumers(FastAPI(), [], pagination_class=entry)

    for use in (on_a_consumer, on_an_action, registered, on_the_app):
        with pytest.raises(ImproperlyConfigured) as caught:
            use()
        assert [problem.code for problem in caught.value.problems] == ["bad-pagination-class"], use


def test_an_action_cannot_be_called_as_the_attribute_is() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:

        class Room(JSONConsumer):
            @action
            async def pagination_class(self) -> None: ...

            @action
            async def paginate(self) -> None: ...

    assert [problem.code for problem in caught.value.problems] == ["action-shadows-attribute"] * 2


def test_an_instance_whose_settings_were_broken_later_is_refused() -> None:
    class Late(CursorPagination):
        def __init__(self) -> None:
            super().__init__(page_size=500)

    with pytest.raises(ImproperlyConfigured) as caught:
        type("Room", (GroupConsumer,), {"pagination_class": Late, "__module__": __name__})
    assert [problem.code for problem in caught.value.problems] == ["bad-pagination-setting"]


def test_parameters_find_their_paginator() -> None:
    short, numbers = Short(), PageNumberPagination()
    assert pagination_for(CursorParams(), short) is short
    assert type(pagination_for(CursorParams(), numbers)) is CursorPagination
    assert type(pagination_for(PageNumberParams(), short)) is PageNumberPagination
    assert type(pagination_for(LimitOffsetParams(), None)) is LimitOffsetPagination
    assert type(pagination_for(PageRequest(), None)) is CursorPagination
    assert pagination_for(PageRequest(), numbers) is numbers
    assert type(pagination_for(Renamed.Params(), numbers)) is Renamed
    with pytest.raises(TypeError, match="belongs to no pagination class"):
        pagination_for(PageParams(), None)


async def test_another_classes_parameters_are_a_mistake_of_the_server() -> None:
    with pytest.raises(TypeError, match=r"Take CursorPagination\.Params"):
        await CursorPagination().paginate([], PageNumberParams())


def test_streams_are_paged_by_cursor_whatever_the_consumer_says() -> None:
    short = Short()
    assert pagination_for_streams(short, CursorPagination) is short
    assert pagination_for_streams(None, CursorPagination).page_size == CursorPagination.page_size
    made = pagination_for_streams(PageNumberPagination(page_size=7, max_page_size=9), CursorPagination)
    assert (type(made), made.page_size, made.max_page_size) == (CursorPagination, 7, 9)


# -- in a consumer -----------------------------------------------------------------------------------------------------


class Item(BaseModel):
    number: int


class Filtered(CursorPagination.Params):
    odd: bool = False


class Shelf(JSONConsumer):
    pagination_class: ClassVar[Any] = CursorPagination(page_size=5, max_page_size=8)

    @action
    async def read(self, data: Filtered) -> Page[Item]:
        numbers = range(1, 20, 2) if data.odd else range(20)
        return await self.paginate([SimpleNamespace(number=number) for number in numbers], data)

    @action(pagination_class=PageNumberPagination(page_size=6))
    async def numbered(self, page: Annotated[PageNumberPagination.Params, Field()]) -> CountedPage[int]:
        return await self.paginate(range(20), page)

    @action(pagination_class=Renamed)
    async def renamed(self, data: Renamed.Params) -> Page[int]:
        return await self.paginate(range(20), data)

    @action
    async def any_kind(self, page: PageRequest) -> Any:
        return await self.paginate(range(20), page)

    @action
    async def by_hand(self, limit: int = 2) -> Any:
        return await self.paginate(range(20), CursorParams(limit=limit))


class Plain(JSONConsumer):
    @action
    async def any_kind(self, page: PageRequest) -> Any:
        return await self.paginate(range(20), page)

    @action
    async def offset(self, data: LimitOffsetParams) -> CountedPage[int]:
        return await self.paginate(range(200), data)


@Plain.action("late", pagination_class=Short)
async def late(consumer: Plain, data: CursorParams) -> Page[int]:
    return await consumer.paginate(range(20), data)


def app_of(**options: Any) -> FastAPI:
    app = FastAPI()
    add_consumers(app, [path("/shelf", Shelf), path("/plain", Plain)], **options)
    return app


async def test_an_action_pages_in_one_line() -> None:
    async with WebsocketCommunicator(app_of(), "/shelf") as client:
        page = await client.call("read", {"limit": 2, "odd": True})
        assert page["results"] == [{"number": 1}, {"number": 3}]
        assert set(page) == {"results", "next", "previous"}
        page = await client.call("read", {"limit": 2, "odd": True, "cursor": page["next"]})
        assert page["results"] == [{"number": 5}, {"number": 7}]
        page = await client.call("read", {"limit": 100})
        assert len(page["results"]) == 8
        assert len((await client.call("read"))["results"]) == 5


async def test_the_nearest_pagination_class_wins() -> None:
    app = app_of(pagination_class=LimitOffsetPagination(page_size=11))
    async with WebsocketCommunicator(app, "/shelf") as client:
        assert await client.call("numbered", {"page": 4}) == {
            "results": [18, 19], "next": None, "previous": 3, "count": 20}  # fmt: skip
        assert len((await client.call("any_kind"))["results"]) == 5
        assert (await client.call("by_hand"))["results"] == [0, 1]
    async with WebsocketCommunicator(app, "/plain") as client:
        assert (await client.call("any_kind", {"offset": 15}))["results"] == list(range(15, 20))
        assert len((await client.call("offset"))["results"]) == 11
        assert len((await client.call("late"))["results"]) == 3
    async with WebsocketCommunicator(app_of(pagination_class=Short), "/plain") as client:
        assert len((await client.call("any_kind"))["results"]) == 3
        assert len((await client.call("offset"))["results"]) == LimitOffsetPagination.page_size


async def test_parameters_can_be_called_otherwise() -> None:
    async with WebsocketCommunicator(app_of(), "/shelf") as client:
        page = await client.call("renamed", {"cursor": "ignored", "limit": 1})
        assert page["results"] == [0, 1, 2, 3]
        page = await client.call("renamed", {"after": page["next"], "first": 2})
        assert page["results"] == [4, 5]


BAD = [0, -1, True, False, "5", 1.0, 1.5, [1], {}, "NaN"]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize(
    ("name", "field"), [("read", "limit"), ("numbered", "page"), ("numbered", "page_size"), ("any_kind", "offset")]
)
async def test_what_is_no_number_of_that_kind_is_invalid_data(name: str, field: str, value: Any) -> None:
    if (field, value) == ("offset", 0) and value is not False:
        return
    async with WebsocketCommunicator(app_of(), "/shelf") as client:
        with pytest.raises(CallError) as caught:
            await client.call(name, {field: value})
        assert caught.value.code == "invalid_data"
        assert [detail["loc"] for detail in caught.value.details] == [[field]]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "1" + "0" * 5000])
async def test_numbers_that_are_none_are_refused_and_the_socket_stays(number: str) -> None:
    async with WebsocketCommunicator(app_of(), "/shelf") as client:
        await client.send_to(f'{{"action": "read", "request_id": 1, "data": {{"limit": {number}}}}}')
        assert (await client.receive_json_from())["error"]["code"] in ("invalid_data", "invalid_frame")
        assert len((await client.call("read"))["results"]) == 5


async def test_a_wrong_cursor_or_page_has_a_code_of_its_own() -> None:
    async with WebsocketCommunicator(app_of(), "/shelf") as client:
        for name, data, code in (
            ("read", {"cursor": "x"}, "invalid_cursor"),
            ("numbered", {"page": 5}, "invalid_page"),
            ("numbered", {"page": 10**30}, "invalid_page"),
            ("read", {"cursor": 5}, "invalid_data"),
        ):
            with pytest.raises(CallError) as caught:
                await client.call(name, data)
            assert caught.value.code == code


def test_the_pages_shape_and_parameters_are_in_the_schema() -> None:
    read = Shelf._meta.actions["read"]
    assert set(TypeAdapter(read.payload.annotation).json_schema()["properties"]) == {"limit", "cursor", "odd"}
    renamed = Shelf._meta.actions["renamed"]
    assert set(TypeAdapter(renamed.payload.annotation).json_schema()["properties"]) == {"first", "after"}
    assert set(TypeAdapter(Page[Item]).json_schema()["$defs"]) == {"Item"}


def test_a_class_describes_how_it_pages() -> None:
    assert "pagination:           CursorPagination(page_size=5, max_page_size=8)" in Shelf._meta.describe()


def test_pagination_is_inherited_and_overridden() -> None:
    class Below(Shelf): ...

    class Other(Shelf):
        pagination_class = Short

    class Nothing(Shelf):
        pagination_class = None

    assert Below._meta.pagination is Shelf.pagination_class
    assert isinstance(Other._meta.pagination, Short)
    assert Nothing._meta.pagination is None
    assert Below._meta.actions["numbered"] is Shelf._meta.actions["numbered"]


def test_a_consumers_pagination_has_to_fit_its_actions() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:

        class Room(JSONConsumer):
            pagination_class = PageNumberPagination

            @action
            async def read(self, data: CursorParams) -> None: ...

            @action(pagination_class=CursorPagination)
            async def fits(self, data: CursorParams) -> None: ...

    (problem,) = caught.value.problems
    assert problem.code == "action-pagination"
    assert "Room.read" in problem.where


def test_an_actions_pagination_needs_its_parameters() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:

        class Room(JSONConsumer):
            @action(pagination_class=CursorPagination)
            async def none(self) -> None: ...

            @action(pagination_class=CursorPagination)
            async def fields(self, limit: int, cursor: str) -> None: ...

            @action(pagination_class=CursorPagination)
            async def other(self, data: PageNumberParams) -> None: ...

            @action(pagination_class=Renamed)
            async def not_renamed(self, data: CursorParams) -> None: ...

            @action(pagination_class=CursorPagination)
            async def optional(self, data: CursorParams | None = None) -> None: ...

    assert [problem.code for problem in caught.value.problems] == ["action-pagination"] * 5


# -- of one's own ------------------------------------------------------------------------------------------------------


class Enveloped(PageNumberPagination):
    def get_paginated_response(self, page: PageData) -> Any:
        return {"items": page.results, "more": page.next is not None}

    def get_page_size(self, params: Any) -> int:
        return 2


class EveryOther(BasePagination):
    class Params(PageParams):
        start: int = 0

    async def get_page(self, source: Any, params: Any) -> PageData:
        results = await source.slice(params.start, params.start + 2 * self.get_page_size(params))
        return PageData(results[::2], None, None)


async def test_an_envelope_and_a_way_to_page_of_ones_own() -> None:
    class Room(JSONConsumer):
        pagination_class = EveryOther(page_size=3)

        @action(pagination_class=Enveloped)
        async def enveloped(self, data: PageNumberParams) -> Any:
            return await self.paginate([1, 2, 3], data)

        @action
        async def every_other(self, data: EveryOther.Params) -> Page[int]:
            return await self.paginate(range(20), data)

    app = FastAPI()
    add_consumers(app, [path("/", Room)])
    async with WebsocketCommunicator(app, "/") as client:
        assert await client.call("enveloped") == {"items": [1, 2], "more": True}
        assert (await client.call("every_other", {"start": 1}))["results"] == [1, 3, 5]
    assert type(pagination_for(EveryOther.Params(), None)) is EveryOther
    assert PageParams.pagination_class is None


async def test_a_groups_history_is_a_stream_that_can_be_paged() -> None:
    store, kept = MemoryHistoryStore(), History(size=5)
    await store.open()

    async def ready() -> HistoryStore:
        return store

    async def say(text: str) -> None:
        await store.append("room", encode_packet(Packet("event", encode_json({"text": text}), name="said")), kept)

    try:
        for number in range(7):
            await say(str(number))
        history, pagination = GroupHistory("room", kept, ready), CursorPagination(page_size=3)
        page = await pagination.paginate(history)
        assert [(event.offset, event.data["text"]) for event in page.results] == [(7, "6"), (6, "5"), (5, "4")]
        await say("new")
        older = await pagination.paginate(history, CursorParams(cursor=page.next))
        assert ([event.offset for event in older.results], older.next) == ([4], None)
        newer = await pagination.paginate(history, CursorParams(cursor=older.previous))
        newest = await pagination.paginate(history, CursorParams(cursor=newer.previous))
        assert [event.offset for event in [*newest.results, *newer.results]] == [8, 7, 6, 5]
        await history.purge()
        await say("of another epoch")
        with pytest.raises(InvalidCursor):
            await pagination.paginate(history, CursorParams(cursor=page.next))
    finally:
        await store.close()


async def test_a_page_of_a_history_may_be_larger_than_one_read_of_it() -> None:
    store, kept = MemoryHistoryStore(), History(size=3000)
    await store.open()

    async def ready() -> HistoryStore:
        return store

    for _ in range(2500):
        await store.append("room", encode_packet(Packet("event", name="said")), kept)
    history, pagination = GroupHistory("room", kept, ready), CursorPagination(page_size=1200, max_page_size=1200)
    page = await pagination.paginate(history)
    offsets = [event.offset for event in page.results]
    while page.next is not None:
        page = await pagination.paginate(history, CursorParams(cursor=page.next))
        offsets += [event.offset for event in page.results]
    assert offsets == list(range(2500, 0, -1))
    await store.close()


def test_sqlalchemy_is_imported_only_by_those_who_use_it() -> None:
    code = (
        "import sys, asyncio, fastapi_consumers as f; asyncio.run(f.CursorPagination().paginate([1]));"
        "sys.exit('sqlalchemy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
