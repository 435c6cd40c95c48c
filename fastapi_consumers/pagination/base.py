"""``BasePagination``: the settings of a pagination class, and the way from a source and parameters to a page."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias, cast

from pydantic import Field, create_model

from ..exceptions import ImproperlyConfigured, Problem
from .pages import CountedPage, Page, PageParams, StreamPage
from .sources import source_of

_NAME = re.compile(r"-?[A-Za-z_][A-Za-z0-9_]*")
_SIZES = ("page_size", "max_page_size", "max_items")

#: Attributes of Django REST Framework's classes, which would be ignored in silence, and what they are called here.
_ELSEWHERE = {
    "default_limit": "page_size",
    "max_limit": "max_page_size",
    "limit_query_param": "limit_param",
    "offset_query_param": "offset_param",
    "cursor_query_param": "cursor_param",
    "page_query_param": "page_param",
    "page_size_query_param": "page_size_param, or limit_param",
}


class PageData(NamedTuple):
    """A page before it has a shape. ``count`` is known where positions count, ``epoch`` where a stream was read."""

    results: list[Any]
    next: str | int | None
    previous: str | int | None
    count: int | None = None  # type: ignore[assignment]  # hides tuple.count, which nobody asks of a page
    epoch: str | None = None


class BasePagination(ABC):
    """A way to page. Derive from it, or from a subclass, and override :meth:`get_page`, or an attribute.

    An instance serves all connections: keep no state of a page in it.

    Args:
        page_size: how many results a page has if the client does not say.
        max_page_size: how many it has at most. A client that asks for more gets this many, as in Django REST Framework.
        ordering: names of columns, for a query without an ``order_by`` of its own; ``-`` in front: descending.

    Each is a class attribute too. Raises ``ImproperlyConfigured`` for values that cannot be, also for a subclass.
    """

    page_size: int = 20
    max_page_size: int = 100
    ordering: str | Sequence[str] = ()
    #: How many items an async iterable may have: they are all read.
    max_items: int = 10_000
    #: The model of what the client sends.
    Params: TypeAlias = PageParams
    #: Field of ``Params`` to the attribute that says what it is called on the wire.
    param_names: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse(cls.__qualname__, [*_setting_problems(cls), *_name_problems(cls)])
        if "Params" not in vars(cls) and not {*cls.param_names.values()}.isdisjoint(vars(cls)):
            # An alias of a type cannot be assigned to, say type checkers, and only an alias can be an annotation.
            setattr(cls, "Params", _renamed(cls))  # noqa: B010 -- an assignment would need another ignore
        if "Params" in vars(cls) and "pagination_class" not in vars(cls.Params):
            cls.Params.pagination_class = cls

    def __init__(
        self,
        *,
        page_size: int | None = None,
        max_page_size: int | None = None,
        ordering: str | Sequence[str] | None = None,
    ) -> None:
        if page_size is not None:
            self.page_size = page_size
        if max_page_size is not None:
            self.max_page_size = max_page_size
        if ordering is not None:
            self.ordering = ordering
        _refuse(type(self).__qualname__, _setting_problems(self))

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}(page_size={self.page_size}, max_page_size={self.max_page_size})"

    async def paginate(self, source: Any, params: PageParams | None = None, *, session: Any = None) -> Any:
        """One page of ``source``, in the shape that :meth:`get_paginated_response` gives it.

        Args:
            source: a sequence, an async iterable (read to its end), a ``select()`` of SQLAlchemy, a
                :class:`~fastapi_consumers.pagination.Pageable`, or a source of your own.
            params: an instance of ``Params``; without it, the first page.
            session: for a ``select()``: an ``AsyncSession``, an ``AsyncConnection``, or a sync one of these, which is
                used in a thread.

        Raises:
            InvalidCursor: the cursor is not one of this listing.
            InvalidPage: there is no such page.
            TypeError: the source cannot be paged in this way, or the parameters are another class's.
        """
        params = self.Params() if params is None else params
        if not isinstance(params, self.Params):
            raise TypeError(
                f"{type(self).__qualname__} pages by {self.Params.__qualname__}; found {type(params).__qualname__}. "
                f"Take {type(self).__qualname__}.Params, or a model derived from it, as the action's data."
            )
        ordering = (self.ordering,) if isinstance(self.ordering, str) else tuple(self.ordering)
        page = await self.get_page(await source_of(source, session, ordering, self.max_items), params)
        return self.get_paginated_response(page)

    def bind(self, params: PageParams) -> PageParams:
        """Have these parameters paged by this paginator, whatever the consumer's is."""
        params._paginator = self
        return params

    @abstractmethod
    async def get_page(self, source: Any, params: Any) -> PageData:
        """Read one page.

        Args:
            source: a ``CountedSource``, a ``KeysetSource``, or both.
            params: an instance of ``Params``.
        """

    def get_page_size(self, params: Any) -> int:
        """How many results the page is to have: what the client asks for, within the bounds."""
        asked: int | None = getattr(params, "limit", None)
        return self.page_size if asked is None else min(asked, self.max_page_size)

    def get_paginated_response(self, page: PageData) -> Any:
        """The page as the action returns it. Override it for an envelope of your own."""
        shape: dict[str, Any] = {"results": page.results, "next": page.next, "previous": page.previous}
        if page.count is not None:
            return CountedPage[Any](**shape, count=page.count)
        if page.epoch is not None:
            return StreamPage[Any](**shape, epoch=page.epoch)
        return Page[Any](**shape)


def _refuse(subject: str, problems: list[Problem]) -> None:
    if problems:
        raise ImproperlyConfigured(subject, problems)


def _setting_problems(pagination: Any) -> list[Problem]:
    """Of a class or of an instance."""
    name = pagination.__qualname__ if isinstance(pagination, type) else type(pagination).__qualname__
    problems: list[Problem] = []

    def add(setting: str, expected: str, fix: str) -> None:
        found = repr(getattr(pagination, setting))
        problems.append(Problem("bad-pagination-setting", f"{name}.{setting}", found, expected, fix))

    for setting in _SIZES:
        value = getattr(pagination, setting)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            add(setting, "a whole number above 0", f"mend {setting}")
    if not problems and pagination.page_size > pagination.max_page_size:
        add("page_size", f"at most max_page_size, which is {pagination.max_page_size}", "raise max_page_size too")
    ordering = (pagination.ordering,) if isinstance(pagination.ordering, str) else pagination.ordering
    is_list = isinstance(ordering, Sequence) and not isinstance(ordering, bytes)
    if not is_list or not all(isinstance(entry, str) and _NAME.fullmatch(entry) for entry in ordering):
        add("ordering", 'names of columns, such as "-created"', 'write ordering = ["-created", "id"]')
    return problems


def _name_problems(cls: type[BasePagination]) -> list[Problem]:
    problems = [
        Problem(
            "unknown-pagination-setting",
            f"{cls.__qualname__}.{name}",
            f"the attribute {name!r}, which would be ignored in silence",
            f"what it is called here: {here}",
            f"write {here.partition(',')[0]}",
        )
        for name, here in _ELSEWHERE.items()
        if name in vars(cls)
    ]
    names = [getattr(cls, attribute) for attribute in cls.param_names.values()]
    for attribute, name in zip(cls.param_names.values(), names, strict=True):
        if not isinstance(name, str) or not name or names.count(name) > 1:
            expected = "text, and another one for each parameter"
            where = f"{cls.__qualname__}.{attribute}"
            problems.append(Problem("bad-pagination-setting", where, repr(name), expected, f"mend {attribute}"))
    return problems


def _renamed(cls: type[BasePagination]) -> type[PageParams]:
    """The parameters of a class that calls them otherwise on the wire."""
    fields: dict[str, Any] = {}
    for field, attribute in cls.param_names.items():
        info = cls.Params.model_fields[field]
        kind: Any = Annotated[(info.annotation, *info.metadata, Field(alias=getattr(cls, attribute)))]
        fields[field] = (kind, info.default)
    return create_model(f"{cls.__name__}Params", __base__=cls.Params, __module__=cls.__module__, **fields)


def pagination_of(entry: Any) -> BasePagination:
    """The paginator that a ``pagination_class`` stands for: a class or an instance.

    Raises:
        ImproperlyConfigured: its settings are wrong.
        TypeError: it is none of these, or an abstract class.
    """
    if isinstance(entry, BasePagination):
        return entry
    if isinstance(entry, type) and issubclass(entry, BasePagination):
        return entry()
    raise TypeError("derive it from fastapi_consumers.pagination.BasePagination")


def pagination_for(params: PageParams, default: BasePagination | None) -> BasePagination:
    """The paginator for these parameters: the action's own, ``default`` if they are its, or the one they belong to."""
    if params._paginator is not None:
        return cast(BasePagination, params._paginator)
    if default is not None and isinstance(params, default.Params):
        return default
    if params.pagination_class is None:
        raise TypeError(f"{type(params).__qualname__} belongs to no pagination class; derive it from one's Params.")
    return cast(BasePagination, params.pagination_class())


def pagination_for_streams(pagination: BasePagination | None, default: type[BasePagination]) -> BasePagination:
    """``pagination`` if it is a ``default``, otherwise a ``default`` with its sizes: streams have no page numbers."""
    if pagination is None:
        return default()
    if isinstance(pagination, default):
        return pagination
    return default(page_size=pagination.page_size, max_page_size=pagination.max_page_size)
