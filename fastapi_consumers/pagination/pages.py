"""What a client sends to name a page, and what it is sent: models, so that both are in an action's schema."""

from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, Field, PrivateAttr

T = TypeVar("T")

# Strict, so that true is not 1 and "5" is not 5. What is too large is the paginator's to clamp.
_Size = Annotated[int | None, Field(strict=True, ge=1)]


class PageParams(BaseModel):
    """What a client sends to name a page. Filters of one's own are added by deriving from a subclass of it."""

    #: The pagination class that these parameters belong to.
    pagination_class: ClassVar[Any] = None
    #: The paginator of the action that these were validated for, if it has one of its own.
    _paginator: Any = PrivateAttr(default=None)


class CursorParams(PageParams):
    """``limit`` and ``cursor``: ``next`` or ``previous`` of another page; without it, the first page."""

    limit: _Size = None
    cursor: str | None = None


class LimitOffsetParams(PageParams):
    """``limit`` and ``offset``: how many to leave out."""

    limit: _Size = None
    offset: Annotated[int, Field(strict=True, ge=0)] = 0


class PageNumberParams(PageParams):
    """``page``, counted from 1, and ``page_size``."""

    page: Annotated[int, Field(strict=True, ge=1)] = 1
    page_size: _Size = None


class PageRequest(CursorParams, LimitOffsetParams, PageNumberParams):
    """The parameters of all pagination classes: for actions that leave it to the ``pagination_class`` in force.

    It takes its own and ignores the others. Without any it is cursor pagination.
    """


class Page(BaseModel, Generic[T]):
    """One page. ``next`` and ``previous`` are what the client sends back to get those pages, ``None`` at the ends.

    They are the ``cursor`` of :class:`CursorParams`, the ``offset`` of :class:`LimitOffsetParams` or the ``page`` of
    :class:`PageNumberParams`.
    """

    results: list[T]
    next: str | int | None = None
    previous: str | int | None = None


class CountedPage(Page[T], Generic[T]):
    """A page of something whose length is known: ``count`` is the number of results on all pages together."""

    count: int


class StreamPage(Page[T], Generic[T]):
    """A page of a stream. ``epoch`` names the stream's life, within which offsets mean something."""

    epoch: str
