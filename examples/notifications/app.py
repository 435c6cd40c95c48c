"""Notifications of jobs that run in other processes.

``BROKER_URL`` names the Redis or Valkey server that the application and its workers share, ``SESSION_SECRET`` what
sessions are signed with; without it they end with the process. Run ``uvicorn examples.notifications.app:app`` and open
http://127.0.0.1:8000/.
"""

import hmac
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.middleware.sessions import SessionMiddleware

from fastapi_consumers import (
    Consumers,
    CursorPagination,
    GroupConsumer,
    action,
    add_consumers,
    get_consumers,
    path,
)
from fastapi_consumers.authentication import SessionAuthentication
from fastapi_consumers.history import History
from fastapi_consumers.permissions import IsAuthenticated
from fastapi_consumers.throttling import RateLimit

from .jobs import Jobs, Run, in_process

STATIC = Path(__file__).parent / "static"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}

#: Names and passwords, which everybody knows: a table of your database, with hashes.
ACCOUNTS = {"ann": "tea", "bob": "milk"}
#: Events that are notifications. ``started`` and ``read`` are in the history too, and are none.
NOTIFICATIONS = ("finished", "failed")
MAX_JOBS = 2


class User(BaseModel):
    id: str


def find_user(session: Mapping[str, Any]) -> User | None:
    name = session.get("user")
    return User(id=name) if name in ACCOUNTS else None


# -- over the socket ---------------------------------------------------------------------------------------------------


class Sessions(SessionAuthentication):
    def get_user(self, session: Any, connection: Any) -> User | None:
        return find_user(session)


class Inbox(GroupConsumer):
    """What one person is told, on all of their devices. What they have read is told there too."""

    # Named, so that workers know that these groups have a history; which one it is, the session says.
    groups = ["inbox.{user}"]
    authentication_classes = [Sessions]
    permission_classes = [IsAuthenticated]
    throttle_classes = ["30/10 seconds"]
    history = History(size=200, ttl=timedelta(days=30))
    pagination_class = CursorPagination(page_size=100)
    max_message_size = 1024
    # A browser tells its page nothing of a refused handshake. So it is accepted, told why, and closed.
    accept_refused = True

    def get_groups(self) -> list[str]:
        return [f"inbox.{self.user.id}"]

    @action
    async def read(self, up_to: Annotated[int, Field(ge=1)]) -> None:
        """Everything up to this offset has been read. Nobody can read what has not come yet."""
        newest = (await self.consumers.history(self.group_names[0]).position()).offset
        await self.broadcast("read", {"up_to": min(up_to, newest)})


# -- over HTTP ---------------------------------------------------------------------------------------------------------


class Login(BaseModel):
    name: Annotated[str, Field(max_length=30)]
    password: Annotated[str, Field(max_length=100)]


class NewJob(BaseModel):
    below: Annotated[int, Field(ge=10, le=10**9)]


def current_user(request: Request) -> User:
    user = find_user(request.session)
    if user is None:
        raise HTTPException(401, "Log in first.")
    return user


CurrentUser = Annotated[User, Depends(current_user)]
Found = Annotated[Consumers, Depends(get_consumers)]


def make_app(url: str, run: Run | None = None, secret: str | None = None) -> FastAPI:
    """The app.

    Args:
        url: of the broker.
        run: how a job is run, by default in a process of its own.
        secret: what sessions are signed with.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await jobs.close()

    app = FastAPI(title="Notifications", lifespan=lifespan)
    # In production with https_only=True.
    app.add_middleware(SessionMiddleware, secret_key=secret or secrets.token_hex(), same_site="strict")
    jobs = Jobs(run or in_process(url), add_consumers(app, [path("/ws", Inbox, name="inbox")], url=url))

    @app.post("/login", dependencies=[Depends(RateLimit("10/minute"))])
    async def login(login: Login, request: Request) -> User:
        password = ACCOUNTS.get(login.name, "")
        if not hmac.compare_digest(password.encode(), login.password.encode()) or not password:
            raise HTTPException(403, "There is no such name, or this is not its password.")
        request.session["user"] = login.name
        return User(id=login.name)

    @app.post("/logout", status_code=204)
    async def logout(user: CurrentUser, request: Request, consumers: Found) -> None:
        """Ends the session here. All sockets of the user close; those with a session of their own come back."""
        request.session.clear()
        await consumers.disconnect(user=user.id, code=4401, reason="logged_out")

    @app.get("/me")
    async def me(request: Request) -> User | None:
        """Who is logged in, if somebody is."""
        return find_user(request.session)

    @app.post("/jobs", status_code=202)
    async def start(job: NewJob, user: CurrentUser) -> dict[str, str]:
        if jobs.count(user.id) >= MAX_JOBS:
            raise HTTPException(429, f"No more than {MAX_JOBS} jobs at once.")
        return {"job": (await jobs.start(user.id, job.below)).id}

    @app.get("/unread")
    async def unread(user: CurrentUser, consumers: Found) -> int:
        """How many notifications have not been read: for a page without a socket, or an e-mail."""
        found = await consumers.history(f"inbox.{user.id}").read(limit=200, newest_first=True)
        read = max((event.data["up_to"] for event in found.events if event.event == "read"), default=0)
        return sum(event.event in NOTIFICATIONS and event.offset > read for event in found.events)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


app = make_app(
    os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/0"),
    secret=os.environ.get("SESSION_SECRET"),
)
