"""Pages of SQLAlchemy queries, on SQLite: by key without OFFSET, by position in a total order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, cast

import pytest
from fastapi import Depends, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import JSON, Column, ForeignKey, Integer, MetaData, String, Table, create_engine, func, select, union
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, joinedload, mapped_column, relationship
from sqlalchemy.pool import StaticPool
from sqlalchemy.types import NullType

from fastapi_consumers import (
    CursorPagination,
    InvalidCursor,
    JSONConsumer,
    LimitOffsetPagination,
    PageNumberPagination,
    action,
    add_consumers,
    path,
)
from fastapi_consumers.pagination import (
    BasePagination,
    CursorParams,
    LimitOffsetParams,
    Page,
    PageNumberParams,
    PageParams,
)
from fastapi_consumers.pagination.cursors import Cursor, encode_cursor
from fastapi_consumers.pagination.sql import SelectSource
from fastapi_consumers.testing import CallError, WebsocketCommunicator


class Base(DeclarativeBase): ...


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    messages: Mapped[list["Message"]] = relationship(back_populates="author")


class Message(Base):
    __tablename__ = "message"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    created: Mapped[datetime]
    note: Mapped[str | None]
    extra: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author | None] = relationship(back_populates="messages")


class Vote(Base):
    __tablename__ = "vote"
    poll: Mapped[int] = mapped_column(primary_key=True)
    voter: Mapped[str] = mapped_column(primary_key=True)


loose = Table("loose", Base.metadata, Column("number", Integer, nullable=False), Column("name", String))

DAY = datetime(2026, 1, 1)


def message(number: int, **values: Any) -> Message:
    return Message(text=f"text {number % 3}", created=DAY + timedelta(days=number // 2), **values)


@asynccontextmanager
async def database(*rows: Base) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all(rows)
            await session.commit()
        yield engine
    finally:
        await engine.dispose()


class Spy:
    """A session that keeps the SQL, as PostgreSQL would get it, of what it executes."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.seen: list[str] = []

    async def execute(self, statement: Any) -> Any:
        compiled = statement.compile(dialect=postgresql.dialect())
        self.seen.append(" ".join(str(compiled).split()))
        return await self.session.execute(statement)


async def walk(
    pagination: BasePagination, statement: Any, session: Any, size: int, between: Any = None
) -> tuple[list[list[Any]], list[list[Any]]]:
    """All pages by ``next``, and all by ``previous`` from the last one on, both in the order of the listing."""

    def params(place: Any) -> PageParams:
        if isinstance(pagination, CursorPagination):
            return CursorParams(limit=size, cursor=place)
        if isinstance(pagination, LimitOffsetPagination):
            return LimitOffsetParams(limit=size, offset=place or 0)
        return PageNumberParams(page_size=size, page=place or 1)

    page = await pagination.paginate(statement, params(None), session=session)
    forwards = [page.results]
    while page.next is not None:
        if between is not None:
            await between()
        page = await pagination.paginate(statement, params(page.next), session=session)
        forwards.append(page.results)
    backwards = [page.results]
    while page.previous is not None:
        page = await pagination.paginate(statement, params(page.previous), session=session)
        backwards.insert(0, page.results)
    return forwards, backwards


def flat(pages: list[list[Any]]) -> list[Any]:
    return [result for page in pages for result in page]


PAGINATIONS = [CursorPagination(), LimitOffsetPagination(), PageNumberPagination()]

#: Statements, and how Python sorts the same: by a key, all in one direction or not.
ORDERS: dict[str, tuple[Any, Any]] = {
    "primary key by default": (select(Message), lambda m: m.id),
    "unique": (select(Message).order_by(Message.id), lambda m: m.id),
    "unique, descending": (select(Message).order_by(Message.id.desc()), lambda m: -m.id),
    "not unique": (select(Message).order_by(Message.text), lambda m: (m.text, m.id)),
    "two, mixed": (
        select(Message).order_by(Message.text, Message.created.desc(), Message.id),
        lambda m: (m.text, -m.created.toordinal(), m.id),
    ),
    "by name": (select(Message).order_by("text", "id"), lambda m: (m.text, m.id)),
    "nulls last": (select(Message).order_by(Message.text.asc().nulls_last(), Message.id), lambda m: (m.text, m.id)),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pagination", PAGINATIONS, ids=lambda pagination: type(pagination).__name__)
@given(count=st.integers(0, 25), size=st.integers(1, 10))
@settings(max_examples=8)
def test_a_query_is_walked_there_and_back(pagination: BasePagination, order: str, count: int, size: int) -> None:
    statement, key = ORDERS[order]

    async def go() -> None:
        async with database(*map(message, range(count))) as engine, AsyncSession(engine) as session:
            forwards, backwards = await walk(pagination, statement, session, size)
            expected = sorted((await session.scalars(select(Message))).all(), key=key)
            assert flat(forwards) == expected
            assert all(len(page) == size for page in forwards[:-1])
            assert backwards == forwards

    asyncio.run(go())


@given(count=st.integers(1, 25), size=st.integers(1, 10))
@settings(max_examples=10)
def test_inserts_at_the_head_and_deletes_hide_and_repeat_nothing(count: int, size: int) -> None:
    async def go() -> None:
        async with database(*map(message, range(count))) as engine, AsyncSession(engine) as session:
            newest_first = select(Message).order_by(Message.created.desc(), Message.id.desc())
            before = list((await session.scalars(newest_first)).all())

            async def between() -> None:
                session.add_all([message(1000), message(1001)])
                await session.flush()

            forwards, backwards = await walk(CursorPagination(), newest_first, session, size, between)
            assert flat(forwards) == before
            if len(forwards) > 1:
                assert flat(backwards) == list((await session.scalars(newest_first)).all())

            # The very row that the cursor stands at may go.
            await between()
            page = await CursorPagination().paginate(newest_first, CursorParams(limit=1), session=session)
            await session.delete(page.results[0])
            await session.flush()
            rest = await CursorPagination(max_page_size=1000).paginate(
                newest_first, CursorParams(limit=1000, cursor=page.next), session=session
            )
            assert rest.results == list((await session.scalars(newest_first)).all())

    asyncio.run(go())


async def test_a_cursor_is_read_by_key_and_by_bound_parameters() -> None:
    async with database(*map(message, range(9))) as engine, AsyncSession(engine) as session:
        spy, pagination = Spy(session), CursorPagination(page_size=2)
        statement = select(Message.id).order_by(Message.text)
        page = await pagination.paginate(statement, session=spy)
        await pagination.paginate(statement, CursorParams(cursor=page.next), session=spy)
    start = "SELECT message.id, message.text AS _page_key_0, message.id AS _page_key_1 FROM message "
    end = "ORDER BY message.text ASC, message.id ASC LIMIT %(param_1)s"
    where = (
        "WHERE message.text >= %(text_1)s AND (message.text > %(text_2)s "
        "OR message.text = %(text_3)s AND message.id > %(id_1)s) "
    )
    types = [text.replace("::VARCHAR", "").replace("::INTEGER", "") for text in spy.seen]
    assert types == [start + end, start + where + end]


@pytest.mark.parametrize("text", ["' OR 1=1 --", "\0", "\ud7ff", "%", "x" * 500])
async def test_a_forged_key_is_a_value_and_nothing_else(text: str) -> None:
    async with database(*map(message, range(9))) as engine, AsyncSession(engine) as session:
        statement = select(Message.id).order_by(Message.text)
        page = await CursorPagination(page_size=2).paginate(statement, session=session)
        source = SelectSource(statement, session, ())
        assert page.next == encode_cursor(Cursor(False, source.mark, ("text 0", 4)), source.key_types)
        forged = encode_cursor(Cursor(False, source.mark, (text, 2**63 - 1)), source.key_types)
        found = await CursorPagination().paginate(statement, CursorParams(cursor=forged), session=session)
        every = (await session.execute(select(Message.id, Message.text).order_by(Message.text, Message.id))).all()
        assert found.results == [row.id for row in every if row.text > text]


async def test_a_cursor_of_another_order_or_table_is_refused() -> None:
    async with database(*map(message, range(9)), Author(name="ann"), Author(name="bob")) as engine:
        async with AsyncSession(engine) as session:
            pagination = CursorPagination(page_size=1)
            page = await pagination.paginate(select(Message).order_by(Message.id), session=session)
            params = CursorParams(cursor=page.next)
            # An alias is the same table.
            alias = aliased(Message)
            assert (await pagination.paginate(select(alias), params, session=session)).results[0].id == 2
            for statement in (select(Message).order_by(Message.id.desc()), select(Author), select(Vote)):
                with pytest.raises(InvalidCursor):
                    await pagination.paginate(statement, params, session=session)


async def test_what_a_driver_makes_of_a_forged_value_is_an_invalid_cursor() -> None:
    class Failing:
        def __init__(self, error: Exception) -> None:
            self.error = error

        async def execute(self, statement: Any) -> Any:
            raise self.error

    statement = select(Message)
    async with database(*map(message, range(9))) as engine, AsyncSession(engine) as session:
        page = await CursorPagination(page_size=1).paginate(statement, session=session)
    bad, gone = StatementError("x", None, None, ValueError()), OperationalError("x", None, ValueError())
    with pytest.raises(InvalidCursor):
        await CursorPagination().paginate(statement, CursorParams(cursor=page.next), session=Failing(bad))
    with pytest.raises(OperationalError):
        await CursorPagination().paginate(statement, CursorParams(cursor=page.next), session=Failing(gone))
    with pytest.raises(StatementError):
        await CursorPagination().paginate(statement, session=Failing(bad))


async def test_a_statement_without_an_order_takes_that_of_the_class() -> None:
    async with database(*map(message, range(9))) as engine, AsyncSession(engine) as session:
        for pagination in (CursorPagination(ordering="-text"), LimitOffsetPagination(ordering=["-text"])):
            found: Any = (await pagination.paginate(select(Message), session=session)).results
            assert [row.text for row in found] == ["text 2"] * 3 + ["text 1"] * 3 + ["text 0"] * 3
            found = (await pagination.paginate(select(Message.__table__), session=session)).results
            assert [row.text for row in found] == ["text 2"] * 3 + ["text 1"] * 3 + ["text 0"] * 3
            found = (await pagination.paginate(select(Message).order_by(Message.id), session=session)).results
            assert [row.id for row in found] == list(range(1, 10))
        page = await CursorPagination(ordering="-text").paginate(select(Message), session=session)
        assert [row.id for row in page.results[:3]] == [9, 6, 3]
        with pytest.raises(TypeError, match="no column 'nothing'"):
            await CursorPagination(ordering="nothing").paginate(select(Message), session=session)
        with pytest.raises(TypeError, match="no column 'metadata'"):
            await CursorPagination(ordering="metadata").paginate(select(Message), session=session)


async def test_rows_entities_and_single_columns() -> None:
    ann = Author(name="ann")
    async with database(*[message(number, author=ann) for number in range(3)]) as engine:
        async with AsyncSession(engine) as session:
            for pagination in PAGINATIONS:
                rows = (await pagination.paginate(select(Message.id, Message.text), session=session)).results
                assert [(row.id, row.text) for row in rows] == [(1, "text 0"), (2, "text 1"), (3, "text 2")]
                ids = (await pagination.paginate(select(Message.id), session=session)).results
                assert ids == [1, 2, 3]
                joined = select(Message, Author).join(Author).order_by(Author.name)
                pairs = (await pagination.paginate(joined, session=session)).results
                assert [(one.id, other.name) for one, other in pairs] == [(1, "ann"), (2, "ann"), (3, "ann")]
                authors = select(Author).options(joinedload(Author.messages))
                (author,) = (await pagination.paginate(authors, session=session)).results
                assert len(author.messages) == 3
                listed = (await pagination.paginate(author.messages)).results
                assert [one.id for one in listed] == [1, 2, 3]
                alias = aliased(Message)
                two = select(alias, Author.name).join(Author, alias.author_id == Author.id)
                pairs = (await pagination.paginate(two, session=session)).results
                assert [(one.id, name) for one, name in pairs] == [(1, "ann"), (2, "ann"), (3, "ann")]
                subquery = select(Message.id, Message.text).subquery()
                assert len((await pagination.paginate(select(subquery), session=session)).results) == 3
        async with engine.connect() as connection:
            for pagination in PAGINATIONS:
                rows = (await pagination.paginate(select(Message), session=connection)).results
                assert [row.text for row in rows] == ["text 0", "text 1", "text 2"]


async def test_a_composite_primary_key() -> None:
    votes = [Vote(poll=poll, voter=voter) for poll in range(4) for voter in "abc"]
    async with database(*votes) as engine, AsyncSession(engine) as session:
        for pagination in PAGINATIONS:
            forwards, backwards = await walk(pagination, select(Vote).order_by(Vote.voter), session, 5)
            assert [(vote.voter, vote.poll) for vote in flat(forwards)] == [(v, p) for v in "abc" for p in range(4)]
            assert backwards == forwards


async def test_distinct_is_kept_distinct() -> None:
    async with database(*map(message, range(9))) as engine, AsyncSession(engine) as session:
        texts = select(Message.text).distinct().order_by(Message.text)
        for pagination in PAGINATIONS[1:]:
            forwards, _ = await walk(pagination, texts, session, 2)
            assert forwards == [["text 0", "text 1"], ["text 2"]]
        with pytest.raises(TypeError, match=r"DISTINCT and does not select message\.id"):
            await CursorPagination().paginate(texts, session=session)
        both = select(Message.text, Message.id).distinct()
        assert len(flat((await walk(CursorPagination(), both, session, 2))[0])) == 9


def test_a_sync_session_is_used_in_a_thread(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'messages.db'}", connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(map(message, range(9)))
        session.commit()
        for pagination in PAGINATIONS:
            forwards, backwards = asyncio.run(walk(pagination, select(Message), session, 4))
            assert [row.id for row in flat(forwards)] == list(range(1, 10))
            assert backwards == forwards
    with engine.connect() as connection:
        assert len(asyncio.run(CursorPagination().paginate(select(Message.id), session=connection)).results) == 9
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (select(Message).order_by(Message.note), "may be null"),
        (select(Message).order_by(func.lower(Message.text)), "no column of a table"),
        (select(Message).order_by(Message.extra), "cannot be in a cursor"),
        (select(loose).order_by(loose.c.number), "without a primary key"),
    ],
)
async def test_an_order_that_cannot_be_read_by_key_is_a_mistake_of_the_server(statement: Any, message: str) -> None:
    async with database() as engine, AsyncSession(engine) as session:
        with pytest.raises(TypeError, match=message):
            await CursorPagination().paginate(statement, session=session)
        assert (await LimitOffsetPagination().paginate(statement, session=session)).results == []


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (select(Message.text, func.count()).group_by(Message.text), "GROUP BY"),
        (select(func.count()).having(func.count() > 1), "HAVING"),
        (select(Message).limit(5), "LIMIT"),
        (select(Message).limit(5).offset(5), "LIMIT"),
        (select(Message).fetch(5), "FETCH"),
        (union(select(Message.id), select(Author.id)), "expected a select"),
    ],
)
async def test_a_statement_that_cannot_be_read_in_parts_is_a_mistake_of_the_server(
    statement: Any, message: str
) -> None:
    async with database() as engine, AsyncSession(engine) as session:
        for pagination in PAGINATIONS:
            with pytest.raises(TypeError, match=message):
                await pagination.paginate(statement, session=session)


async def test_a_column_of_an_unknown_type_cannot_be_in_a_cursor() -> None:
    table = Table("strange", MetaData(), Column("id", NullType(), primary_key=True))
    with pytest.raises(TypeError, match="cannot be in a cursor"):
        await CursorPagination().paginate(select(table), session=Spy(cast(Any, None)))


async def test_a_query_needs_a_session() -> None:
    with pytest.raises(TypeError, match="session is None"):
        await CursorPagination().paginate(select(Message))


async def test_an_offset_that_no_database_can_read_is_not_sent_to_one() -> None:
    async with database(*map(message, range(3))) as engine, AsyncSession(engine) as session:
        page = await LimitOffsetPagination().paginate(select(Message), LimitOffsetParams(offset=2**70), session=session)
        assert (page.results, page.count) == ([], 3)


# -- on PostgreSQL, which is stricter about values than SQLite ---------------------------------------------------------


@pytest.fixture
async def postgres_session(postgres_url: str) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(postgres_url.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    try:
        async with AsyncSession(engine) as session:
            session.add_all(map(message, range(11)))
            await session.commit()
            yield session
    finally:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
        await engine.dispose()


async def test_postgres_is_walked_there_and_back(postgres_session: AsyncSession) -> None:
    for pagination in PAGINATIONS:
        for statement, key in ORDERS.values():
            forwards, backwards = await walk(pagination, statement, postgres_session, 3)
            assert flat(forwards) == sorted((await postgres_session.scalars(select(Message))).all(), key=key)
            assert backwards == forwards
        distinct = select(Message.text, Message.id).distinct()
        assert len(flat((await walk(pagination, distinct, postgres_session, 4))[0])) == 11


@pytest.mark.parametrize(
    ("column", "value", "refused"),
    [
        (Message.text, "\0", True),
        (Message.text, "'; DROP TABLE message; --", False),
        (Message.created, DAY.replace(tzinfo=UTC), True),
        (Message.created, datetime.max, False),
        (Message.created, datetime.min, False),
        (Message.id, 2**63 - 1, True),
    ],
)
async def test_postgres_takes_a_forged_value_or_the_cursor_is_invalid(
    postgres_session: AsyncSession, column: Any, value: Any, refused: bool
) -> None:
    statement = select(Message).order_by(column.desc())
    source = SelectSource(statement, postgres_session, ())
    key = (value, 1)[: len(source.key_types)]
    params = CursorParams(cursor=encode_cursor(Cursor(False, source.mark, key), source.key_types))
    if refused:
        with pytest.raises(InvalidCursor):
            await CursorPagination().paginate(statement, params, session=postgres_session)
        await postgres_session.rollback()
    else:
        await CursorPagination().paginate(statement, params, session=postgres_session)
    assert len((await CursorPagination().paginate(statement, session=postgres_session)).results) == 11


class MessageOut(BaseModel):
    id: int
    text: str


async def test_an_action_pages_a_query_in_one_line() -> None:
    async with database(*map(message, range(5))) as engine:

        async def get_db() -> AsyncIterator[AsyncSession]:
            async with AsyncSession(engine) as session:
                yield session

        class Room(JSONConsumer):
            @action
            async def messages(
                self, data: CursorPagination.Params, db: Annotated[AsyncSession, Depends(get_db)]
            ) -> Page[MessageOut]:
                return await self.paginate(select(Message).order_by(Message.id), data, session=db)

        app = FastAPI()
        add_consumers(app, [path("/", Room)])
        async with WebsocketCommunicator(app, "/") as client:
            page = await client.call("messages", {"limit": 3})
            assert page["results"] == [{"id": number, "text": f"text {number - 1}"} for number in (1, 2, 3)]
            assert page["previous"] is None
            page = await client.call("messages", {"limit": 3, "cursor": page["next"]})
            assert [result["id"] for result in page["results"]] == [4, 5]
            assert page["next"] is None
            page = await client.call("messages", {"limit": 3, "cursor": page["previous"]})
            assert [result["id"] for result in page["results"]] == [1, 2, 3]
            with pytest.raises(CallError) as caught:
                await client.call("messages", {"cursor": "WzEsMV0"})
            assert caught.value.code == "invalid_cursor"
