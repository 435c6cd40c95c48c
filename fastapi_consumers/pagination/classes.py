"""The pagination classes: by cursor, by offset, by number."""

from typing import Any, TypeAlias

from ..exceptions import InvalidCursor, InvalidPage
from ..texts import gettext_lazy as _
from .base import BasePagination, PageData
from .cursors import Cursor, decode_cursor, encode_cursor
from .pages import CursorParams, LimitOffsetParams, PageNumberParams
from .sources import CountedSource, Keyed, KeysetSource


class CursorPagination(BasePagination):
    """Pages by place: ``limit`` results after, or before, the one where another page ended.

    A query is read by key, never with OFFSET: a page costs the same however deep it is, and what is inserted or
    deleted meanwhile neither repeats nor hides any other result. A query is ordered by its ``order_by``, else by
    ``ordering``, else by the primary key; the primary key is added to make the order total. A stream is ordered by
    offset, newest first; with ``ordering = "offset"`` oldest first. A sequence is paged by position, which stays the
    same only while nothing is inserted before it.

    ``previous`` of a page that was reached by ``next`` is always there.
    """

    Params: TypeAlias = CursorParams
    limit_param = "limit"
    cursor_param = "cursor"
    param_names = {"limit": "limit_param", "cursor": "cursor_param"}

    async def get_page(self, source: Any, params: Any) -> PageData:
        if not isinstance(source, KeysetSource):
            raise TypeError(f"{type(source).__name__} has no keys, so it cannot be paged by cursor.")
        size = self.get_page_size(params)
        types = source.key_types
        cursor = Cursor(False, "", None) if params.cursor is None else decode_cursor(params.cursor, types)
        if params.cursor is not None and source.mark is not None:
            _check_mark(cursor, source.mark)
        found = await source.read(cursor.key, size + 1, backward=cursor.backward)
        if params.cursor is not None:
            _check_mark(cursor, found.mark)
        results = source.shown(found.results[:size])
        onward = _onward(cursor, found, size)
        # Where this page was come to from. A page that begins at an end, of either side, has nothing there.
        back = (
            None
            if cursor.key is None
            else Cursor(not cursor.backward, found.mark, found.keys[0] if found.keys else None)
        )
        if cursor.backward:
            results.reverse()
            onward, back = back, onward
        return PageData(
            results,
            None if onward is None else encode_cursor(onward, types),
            None if back is None else encode_cursor(back, types),
            epoch=found.epoch,
        )


def _check_mark(cursor: Cursor, mark: str) -> None:
    if cursor.mark != mark:
        raise InvalidCursor


def _onward(cursor: Cursor, found: Keyed, size: int) -> Cursor | None:
    """The next place in the direction of the read, if anything is there."""
    return Cursor(cursor.backward, found.mark, found.keys[size - 1]) if len(found.results) > size else None


class LimitOffsetPagination(BasePagination):
    """Pages by position: ``limit`` results after the first ``offset``. An offset past the end is an empty page."""

    Params: TypeAlias = LimitOffsetParams
    limit_param = "limit"
    offset_param = "offset"
    param_names = {"limit": "limit_param", "offset": "offset_param"}

    async def get_page(self, source: Any, params: Any) -> PageData:
        counted = _counted(source)
        size, offset = self.get_page_size(params), params.offset
        count = await counted.count()
        # No query for what is not there: the offset may be larger than a database can read.
        results = await counted.slice(offset, offset + size) if offset < count else []
        following = offset + size if offset + size < count else None
        previous = max(min(offset, count) - size, 0) if offset and count else None
        return PageData(results, following, previous, count)


class PageNumberPagination(BasePagination):
    """Pages by number, from 1 on, of ``page_size`` results each. Only the first may be empty."""

    Params: TypeAlias = PageNumberParams
    page_param = "page"
    page_size_param = "page_size"
    param_names = {"page": "page_param", "page_size": "page_size_param"}

    def get_page_size(self, params: Any) -> int:
        return self.page_size if params.page_size is None else min(params.page_size, self.max_page_size)

    async def get_page(self, source: Any, params: Any) -> PageData:
        counted = _counted(source)
        size, number = self.get_page_size(params), params.page
        count = await counted.count()
        last = max(-(-count // size), 1)
        if number > last:
            raise InvalidPage(_("There is no such page: the last one is {last}.", last=last))
        results = await counted.slice((number - 1) * size, number * size)
        return PageData(results, number + 1 if number < last else None, number - 1 if number > 1 else None, count)


def _counted(source: Any) -> CountedSource:
    if isinstance(source, CountedSource):
        return source
    raise TypeError("A stream has neither page numbers nor a count; page it with CursorPagination.")
