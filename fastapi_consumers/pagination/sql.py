"""Queries of SQLAlchemy 2 as sources. Only imported when one is given: SQLAlchemy is optional."""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import anyio.to_thread
from sqlalchemy import Column, Select, and_, func, or_, select
from sqlalchemy.engine import result_tuple
from sqlalchemy.exc import DataError, DBAPIError, StatementError
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression

from ..exceptions import InvalidCursor
from .cursors import can_be_key
from .sources import CountedSource, Keyed, KeysetSource

# SQLAlchemy has no public way to ask a statement for these.
_IN_THE_WAY = {
    "_group_by_clauses": "GROUP BY",
    "_having_criteria": "HAVING",
    "_limit_clause": "LIMIT",
    "_offset_clause": "OFFSET",
    "_fetch_clause": "FETCH",
}
_MODIFIERS = (operators.asc_op, operators.desc_op, operators.nulls_first_op, operators.nulls_last_op)


class Term(NamedTuple):
    """A column that a query is ordered by."""

    column: Any
    descending: bool = False

    @property
    def clause(self) -> Any:
        return self.column.desc() if self.descending else self.column.asc()


class SelectSource(KeysetSource, CountedSource):
    """A ``select()``. The key of a row is the values of the columns that it is ordered by, the primary key among them.

    A statement that selects one thing gives these things, any other gives its rows.

    Args:
        session: an ``AsyncSession`` or ``AsyncConnection``, or a sync one of these, which is used in a thread.
        ordering: names of columns, for a statement without an ``order_by``.

    Raises:
        TypeError: it is no ``select()``, there is no session, or a clause is in the way of reading parts of it.
    """

    def __init__(self, statement: Any, session: Any, ordering: Sequence[str]) -> None:
        if not isinstance(statement, Select):
            raise TypeError(
                f"{type(statement).__name__} cannot be paged; expected a select(). Around a union, write "
                "select(union.subquery())."
            )
        if not hasattr(session, "execute"):
            raise TypeError(
                f"session is {session!r}; expected an AsyncSession, an AsyncConnection, a Session or a Connection. "
                "Write self.paginate(statement, params, session=session)."
            )
        for attribute, name in _IN_THE_WAY.items():
            clause = getattr(statement, attribute, None)
            if clause is not None and clause != ():
                raise TypeError(
                    f"A statement with {name} cannot be paged. Write select(statement.subquery()) around it, or leave "
                    "it out."
                )
        self._statement: Select[Any] = statement
        self._session = session
        given = tuple(getattr(statement, "_order_by_clauses", ()))
        self._given = given or tuple(_named(statement, name.lstrip("-"), name[0] == "-") for name in ordering)

    # -- by key ----------------------------------------------------------------------------------------------------

    @cached_property
    def _terms(self) -> list[Term]:
        """The order, made total. Raises ``TypeError`` for one that cannot be read by key."""
        terms = [_unwrapped(self._statement, clause) for clause in self._given]
        ties = _primary_key(self._statement)
        if not ties:
            raise TypeError("The statement selects from something without a primary key, so no order of it is total.")
        seen = {term.column for term in terms}
        # In the direction of the last, so that one index serves both.
        descending = terms[-1].descending if terms else False
        terms += [Term(column, descending) for column in ties if column not in seen]
        for term in terms:
            _check_column(self._statement, term.column)
        return terms

    @cached_property
    def key_types(self) -> tuple[type, ...]:  # type: ignore[override]  # an attribute of the protocol, made at first use
        return tuple(term.column.type.python_type for term in self._terms)

    @cached_property
    def mark(self) -> str:  # type: ignore[override]  # an attribute of the protocol, made at first use
        """Table, column and direction of each term. Hashed, so that a cursor does not tell what tables there are."""
        text = ",".join(f"{_name(term.column)} {'desc' if term.descending else 'asc'}" for term in self._terms)
        return hashlib.blake2s(text.encode(), digest_size=6).hexdigest()

    async def read(self, key: tuple[Any, ...] | None, limit: int, *, backward: bool) -> Keyed:
        terms = [Term(term.column, term.descending is not backward) for term in self._terms]
        statement = self._statement.order_by(None).order_by(*(term.clause for term in terms)).limit(limit)
        if key is not None:
            statement = statement.where(_beyond(terms, key))
        labels = [term.column.label(f"_page_key_{number}") for number, term in enumerate(terms)]
        try:
            results, keys = await self._run(statement.add_columns(*labels), len(labels))
        except StatementError as error:
            # What a driver makes of a value that no row can have. That a server is gone is another matter.
            if key is not None and type(error) in (StatementError, DBAPIError, DataError):
                raise InvalidCursor from error
            raise
        return Keyed(results, keys, self.mark)

    # -- by position -----------------------------------------------------------------------------------------------

    async def count(self) -> int:
        statement = select(func.count()).select_from(self._statement.order_by(None).subquery())
        results, _ = await self._run(statement, 0)
        return int(results[0])

    async def slice(self, start: int, stop: int) -> list[Any]:
        # In an order that is total: otherwise a row may be on two pages, and another one on none.
        seen = {_unwrapped(self._statement, clause).column for clause in self._given}
        ties = [column for column in _primary_key(self._statement) if column not in seen]
        if _is_distinct(self._statement):
            ties = [column for column in ties if _is_selected(self._statement, column)]
        statement = self._statement.order_by(None).order_by(*self._given, *ties)
        results, _ = await self._run(statement.offset(start).limit(stop - start), 0)
        return results

    # -- running ---------------------------------------------------------------------------------------------------

    async def _run(self, statement: Any, keys: int) -> tuple[list[Any], list[tuple[Any, ...]]]:
        """The statement's results, and apart from them the values of its last ``keys`` columns."""
        execute: Callable[[Any], Any] = self._session.execute
        if inspect.iscoroutinefunction(execute):
            return _load(await execute(statement), keys)
        # Waits for the thread if it is cancelled: a session may not be used by two at once.
        return await anyio.to_thread.run_sync(lambda: _load(execute(statement), keys))


def _load(result: Any, keys: int) -> tuple[list[Any], list[tuple[Any, ...]]]:
    if getattr(result, "_unique_filter_state", None) is not None:
        # Collections are loaded by a join: SQLAlchemy wants to hear that their rows are to become one.
        result = result.unique()
    names = list(result.keys())
    rows = result.all()
    if not rows:
        return [], []
    width = len(rows[0]) - keys
    found = [tuple(row[width:]) for row in rows] if keys else []
    if width == 1:
        return [row[0] for row in rows], found
    if not keys:
        return list(rows), found
    # An alias without a name has none in the row either: then it is a plain tuple.
    narrowed: Callable[[Any], Any] = result_tuple(names[:width]) if len(names) == len(rows[0]) else tuple
    return [narrowed(row[:width]) for row in rows], found


def _beyond(terms: Sequence[Term], key: Sequence[Any]) -> Any:
    """What comes after ``key`` in this order: spelt out, as not every database compares tuples, in mixed directions."""
    alternatives = []
    for number, (column, descending) in enumerate(terms):
        equal = [terms[before].column == key[before] for before in range(number)]
        further = column < key[number] if descending else column > key[number]
        alternatives.append(and_(*equal, further))
    first, descending = terms[0]
    # Follows from the rest. It is there so that a database sees where in an index to begin.
    bound = first <= key[0] if descending else first >= key[0]
    return and_(bound, or_(*alternatives))


def _named(statement: Any, name: str, descending: bool = False) -> Any:
    """The column that a name means: an attribute of the first entity, or a column of the result."""
    for description in statement.column_descriptions:
        column = getattr(description.get("entity"), name, None)
        if column is not None and hasattr(column, "__clause_element__"):
            return Term(column.__clause_element__(), descending).clause
    column = statement.selected_columns.get(name)
    if column is None:
        raise TypeError(f"The statement has no column {name!r} to order by.")
    return Term(column, descending).clause


def _unwrapped(statement: Any, clause: Any) -> Term:
    descending = False
    while isinstance(clause, UnaryExpression) and clause.modifier in _MODIFIERS:
        descending = descending or clause.modifier is operators.desc_op
        clause = clause.element
    if isinstance(getattr(clause, "element", None), str):  # order_by("name")
        inner = _unwrapped(statement, _named(statement, clause.element))
        return Term(inner.column, descending)
    return Term(clause, descending)


def _primary_key(statement: Any) -> list[Any]:
    """The primary keys of everything that is selected from. A table that is only joined adds none."""
    return [column for source in statement.columns_clause_froms for column in source.primary_key]


def _check_column(statement: Any, column: Any) -> None:
    fix = "Order by columns of tables that are not null, or use LimitOffsetPagination."
    if not isinstance(column, Column):
        raise TypeError(f"The statement is ordered by {column}, which is no column of a table. {fix}")
    if column.nullable:
        # NULL compares with nothing, so that these rows would be on no page.
        raise TypeError(f"The statement is ordered by {column}, which may be null. {fix}")
    try:
        valid = can_be_key(column.type.python_type)
    except NotImplementedError:
        valid = False
    if not valid:
        raise TypeError(
            f"The statement is ordered by {column}, whose type {column.type!r} cannot be in a cursor. {fix}"
        )
    if _is_distinct(statement) and not _is_selected(statement, column):
        raise TypeError(
            f"The statement is DISTINCT and does not select {column}, which it is ordered by. Select it too."
        )


def _is_distinct(statement: Any) -> bool:
    return bool(getattr(statement, "_distinct", False))


def _is_selected(statement: Any, column: Any) -> bool:
    return bool(statement.selected_columns.contains_column(column))


def _name(column: Any) -> str:
    """The same in every process: an alias has a name of its own in each statement."""
    base = next(iter(column.base_columns))
    return f"{getattr(base.table, 'name', '')}.{column.name}"
