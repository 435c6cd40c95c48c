"""Notifications of jobs that run in other processes.

``BROKER_URL`` names the Redis or Valkey server that the application and its workers share, ``TOKEN_SECRET`` what tokens
are signed with, at least 32 bytes; without it logins end with the process. Run
``uvicorn examples.notifications.app:app`` and open http://127.0.0.1:8000/.
"""

import hmac
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import Cookie, Depends, FastAPI, HTTPException, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from fastapi_consumers import (
    CursorPagination,
    GroupConsumer,
    NotAuthenticated,
    action,
    add_consumers,
    group_name,
    path,
)
from fastapi_consumers.authentication import Credential
from fastapi_consumers.history import History
from fastapi_consumers.permissions import BasePermission, IsAuthenticated
from fastapi_consumers.throttling import RateLimit

from .jobs import Jobs, Run, in_process
from .logins import ACCOUNTS, LIFETIME, Logins, User

STATIC = Path(__file__).parent / "static"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}

#: Events that are notifications. ``started`` and ``read`` are in the history too, and are none.
NOTIFICATIONS = ("finished", "failed")
MAX_JOBS = 2


# -- over the socket ---------------------------------------------------------------------------------------------------


class IsOwnInbox(BasePermission):
    """The path says whose inbox it is, and anybody may write a path."""

    message = "This is somebody else's inbox."

    def has_group_permission(self, consumer: Any, group: str) -> bool:
        return group == group_name("inbox.{user}", user=consumer.user.id)


class Inbox(GroupConsumer):
    """What one person is told, on all of their devices. What they have read is told there too."""

    groups = ["inbox.{user}"]
    permission_classes = [IsAuthenticated, IsOwnInbox]
    throttle_classes = ["30/10 seconds"]
    history = History(size=200, ttl=timedelta(days=30))
    pagination_class = CursorPagination(page_size=100)
    max_message_size = 1024
    # A browser tells its page nothing of a refused handshake. So it is accepted, told why, and closed.
    accept_refused = True
    # Seconds to bring the next token when one has ended: a page in the background is slow.
    authentication_grace = 60

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


class Renewed(BaseModel):
    """The token is for the socket that is open; the cookie, which no script can read, for all else."""

    token: str
    expires_in: float


class Current(NamedTuple):
    """Who asks, and by which token."""

    user: User
    credential: Credential


Token = Annotated[str | None, Cookie()]


def make_app(url: str, run: Run | None = None, secret: str | None = None) -> FastAPI:
    """The app.

    Args:
        url: of the broker.
        run: how a job is run, by default in a process of its own.
        secret: what tokens are signed with.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await jobs.close()

    app = FastAPI(title="Notifications", lifespan=lifespan)
    logins = Logins(secret or secrets.token_hex())
    routes = [path("/ws/{user}", Inbox, name="inbox")]
    consumers = add_consumers(app, routes, url=url, authentication_classes=[logins], cookie_token_key="token")
    jobs = Jobs(run or in_process(url), consumers)

    def give(response: Response, token: str) -> None:
        # In production with secure=True, and the name "__Host-token".
        response.set_cookie("token", token, max_age=LIFETIME, httponly=True, samesite="strict")

    async def current(token: Token = None) -> Current:
        """By the same token as the socket's. Raises ``NotAuthenticated``, which is answered with 401."""
        if token is None:
            raise NotAuthenticated("Log in first.")
        return Current(*await logins.authenticate_token(token, None))

    CurrentLogin = Annotated[Current, Depends(current)]

    @app.post("/login", dependencies=[Depends(RateLimit("10/minute"))])
    async def login(login: Login, response: Response) -> User:
        password = ACCOUNTS.get(login.name, "")
        if not hmac.compare_digest(password.encode(), login.password.encode()) or not password:
            raise HTTPException(403, "There is no such name, or this is not its password.")
        give(response, logins.begin(login.name))
        return User(id=login.name)

    @app.post("/token")
    async def renew(current: CurrentLogin, response: Response) -> Renewed:
        """The login's next token, before the one that there is ends."""
        token = logins.renew(current.credential.claims)
        give(response, token)
        return Renewed(token=token, expires_in=LIFETIME)

    @app.post("/logout", status_code=204)
    async def logout(current: CurrentLogin, everywhere: bool = False) -> None:
        """Ends this login, or all of the user's. First its tokens are worth nothing, then its sockets are closed."""
        if everywhere:
            logins.end_everywhere(current.user.id)
            await consumers.disconnect(user=current.user.id, code=4401, reason="logged_out")
        else:
            login = current.credential.claims["jti"]
            logins.end(login)
            await consumers.revoke(login)

    @app.get("/me")
    async def me(token: Token = None) -> User | None:
        """Who is logged in, if somebody is."""
        try:
            return (await current(token)).user
        except NotAuthenticated:
            return None

    @app.post("/jobs", status_code=202)
    async def start(job: NewJob, current: CurrentLogin) -> dict[str, str]:
        user = current.user.id
        if jobs.count(user) >= MAX_JOBS:
            raise HTTPException(429, f"No more than {MAX_JOBS} jobs at once.")
        return {"job": (await jobs.start(user, job.below)).id}

    @app.get("/unread")
    async def unread(current: CurrentLogin) -> int:
        """How many notifications have not been read: for a page without a socket, or an e-mail."""
        found = await consumers.history(f"inbox.{current.user.id}").read(limit=200, newest_first=True)
        read = max((event.data["up_to"] for event in found.events if event.event == "read"), default=0)
        return sum(event.event in NOTIFICATIONS and event.offset > read for event in found.events)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


app = make_app(
    os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/0"),
    secret=os.environ.get("TOKEN_SECRET"),
)
