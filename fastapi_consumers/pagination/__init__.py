"""Which slice of many things a client gets: pagination classes in the manner of Django REST Framework."""

from .base import BasePagination, PageData, pagination_for, pagination_for_streams, pagination_of
from .classes import CursorPagination, LimitOffsetPagination, PageNumberPagination
from .pages import (
    CountedPage,
    CursorParams,
    LimitOffsetParams,
    Page,
    PageNumberParams,
    PageParams,
    PageRequest,
    StreamPage,
)
from .sources import CountedSource, Entry, Keyed, KeysetSource, Pageable, Stretch

__all__ = [
    "BasePagination",
    "CountedPage",
    "CountedSource",
    "CursorPagination",
    "CursorParams",
    "Entry",
    "Keyed",
    "KeysetSource",
    "LimitOffsetPagination",
    "LimitOffsetParams",
    "Page",
    "PageData",
    "PageNumberPagination",
    "PageNumberParams",
    "PageParams",
    "PageRequest",
    "Pageable",
    "StreamPage",
    "Stretch",
    "pagination_for",
    "pagination_for_streams",
    "pagination_of",
]
