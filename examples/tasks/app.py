"""A list of tasks that several people edit at once, kept in a database.

Run ``uvicorn examples.tasks.app:app`` and open http://127.0.0.1:8000/ in two windows. The tasks are in a file of
SQLite, ``tasks.db`` where one started it or what ``TASKS_DB`` names.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.exc import StaleDataError
from starlette.requests import HTTPConnection

from fastapi_consumers import ConsumerError, GroupConsumer, NotFound, action, add_consumers, path
from fastapi_consumers.history import History

STATIC = Path(__file__).parent / "static"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}
#: How many tasks a list may have.
LIMIT = 200

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]

# -- the database ----------------------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Task(Base):
    __tablename__ = "tasks"

    #: Made by the page, so that adding a task twice adds it once.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    list_name: Mapped[str] = mapped_column(index=True)
    text: Mapped[str]
    done: Mapped[bool] = mapped_column(default=False)
    #: Tasks are ordered by it, and where it is equal by their ids.
    position: Mapped[float]
    #: Grows with each change. A change to a version that is no longer the newest raises ``StaleDataError``.
    version: Mapped[int] = mapped_column()

    __mapper_args__ = {"version_id_col": version}


async def get_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """A session for one action. What it has not committed is rolled back."""
    async with connection.state.sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


async def tasks_of(session: AsyncSession, name: str) -> Sequence[Task]:
    query = select(Task).where(Task.list_name == name).order_by(Task.position, Task.id)
    return (await session.scalars(query)).all()


# -- what goes over the wire -----------------------------------------------------------------------------------------


class TaskOut(BaseModel):
    """A task as everybody sees it. Of two with the same id the one with the higher version is the newer."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    text: str
    done: bool
    position: float
    version: int


# -- the consumer ----------------------------------------------------------------------------------------------------


class Conflict(ConsumerError):
    default_code = "conflict"
    default_message = "Somebody else has just changed this."
    retryable = True


def explain(consumer: Any, error: Exception) -> Conflict:
    """Somebody was faster between our reading and our writing. Nothing was done, and asking again will do it."""
    return Conflict()


class TaskList(GroupConsumer):
    """One list. Every action may be sent again if its answer was lost: it changes nothing then, and tells it again,
    since the first time may have come no further than the database.
    """

    groups = ["list.{name}"]
    # Whoever comes back within a day, and has missed no more than 500 changes, is given just these.
    history = History(size=500, ttl=timedelta(days=1))
    throttle_classes = ["60/10 seconds"]
    max_message_size = 4096
    exception_handlers = {StaleDataError: explain, IntegrityError: explain}

    @action
    async def read(self, session: Session) -> list[TaskOut]:
        return [TaskOut.model_validate(task) for task in await tasks_of(session, self.path_params["name"])]

    @action
    async def add(self, id: UUID, text: Text, session: Session) -> list[TaskOut]:
        name = self.path_params["name"]
        if await session.get(Task, id) is not None:
            return await self.tell(session, await self.find(session, id))
        query = select(func.count(), func.coalesce(func.max(Task.position), 0)).where(Task.list_name == name)
        count, last = (await session.execute(query)).one()
        if count >= LIMIT:
            raise ConsumerError("list_full", f"A list has at most {LIMIT} tasks. Remove one first.")
        task = Task(id=id, list_name=name, text=text, done=False, position=last + 1)
        session.add(task)
        return await self.tell(session, task)

    @action
    async def rename(self, id: UUID, text: Text, session: Session) -> list[TaskOut]:
        task = await self.find(session, id)
        task.text = text
        return await self.tell(session, task)

    @action
    async def check(self, id: UUID, done: bool, session: Session) -> list[TaskOut]:
        task = await self.find(session, id)
        task.done = done
        return await self.tell(session, task)

    @action
    async def move(self, id: UUID, session: Session, after: UUID | None = None) -> list[TaskOut]:
        """Put it behind another one, or to the front."""
        task = await self.find(session, id)
        if after == id:
            return [TaskOut.model_validate(task)]
        others = [other for other in await tasks_of(session, self.path_params["name"]) if other is not task]
        index = 0 if after is None else others.index(await self.find(session, after)) + 1
        low = others[index - 1].position if index > 0 else (others[0].position - 2 if others else 0)
        high = others[index].position if index < len(others) else low + 2
        task.position = (low + high) / 2
        if low < task.position < high:
            return await self.tell(session, task)
        # There is no number left between these two.
        others.insert(index, task)
        for number, each in enumerate(others, 1):
            each.position = number
        return await self.tell(session, *others)

    @action
    async def remove(self, id: UUID, session: Session) -> None:
        task = await session.get(Task, id)
        if task is not None:
            await session.delete(await self.find(session, id))
            await session.commit()
        await self.broadcast("removed", {"id": id})

    async def find(self, session: AsyncSession, id: UUID) -> Task:
        task = await session.get(Task, id)
        if task is None or task.list_name != self.path_params["name"]:
            raise NotFound("Somebody has removed this task.")
        return task

    async def tell(self, session: AsyncSession, *tasks: Task) -> list[TaskOut]:
        """Commit, and only then tell everybody. Two who commit one after another may tell in the other order, which is
        why tasks have versions.
        """
        await session.commit()
        changed = [TaskOut.model_validate(task) for task in tasks]
        await self.broadcast("changed", {"tasks": changed})
        return changed


# -- the application -------------------------------------------------------------------------------------------------


def make_app(database: str | os.PathLike[str]) -> FastAPI:
    """The app, with its tasks in this file; it is made when the app starts, in a folder that is there."""
    url = f"sqlite+aiosqlite:///{Path(database).resolve()}"

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        engine = create_async_engine(url)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            yield {"sessions": async_sessionmaker(engine, expire_on_commit=False)}
        finally:
            await engine.dispose()

    app = FastAPI(title="Tasks", lifespan=lifespan)
    add_consumers(app, [path("/ws/{name}", TaskList, name="list")])

    @app.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse("/lists/home")

    @app.get("/lists/{name}", include_in_schema=False)
    async def page(name: str) -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


app = make_app(os.environ.get("TASKS_DB") or "tasks.db")
