"""The application of ``test_served.py``, and the process that serves it: every logger at its lowest level.

Run as a script with the file descriptor of a listening socket.
"""

import logging
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.middleware.sessions import SessionMiddleware

from fastapi_consumers import Consumer, GroupConsumer, action, add_consumers, path
from fastapi_consumers.authentication import (
    Credential,
    FirstMessageAuthentication,
    SessionAuthentication,
    TokenAuthentication,
)
from fastapi_consumers.permissions import IsAuthenticated


class Tokens(TokenAuthentication):
    async def get_user(self, token: str, connection: Any) -> Any:
        if token == "s3cret/crash":
            raise LookupError(token)
        return ("ann", Credential(token_id="id")) if token.startswith("s3cret/good") else None


class Room(GroupConsumer):
    groups = ["room"]
    authentication_classes = [Tokens]
    permission_classes = [IsAuthenticated]

    @action
    async def who(self, secret: str = "") -> str:
        return str(self.user)


class Late(Room):
    authentication_classes = [FirstMessageAuthentication(Tokens())]


class Sessions(SessionAuthentication):
    async def get_user(self, session: Any, connection: Any) -> Any:
        return session.get("user")


class Visited(Room):
    authentication_classes = [Sessions]


class Raw(Consumer):
    authentication_classes = [Tokens]

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        await self.send(str(self.user))


app = FastAPI()
app.add_middleware(SessionMiddleware, secret_key="s3cret-signing-key-of-thirty-two-bytes")
add_consumers(
    app,
    [path("/room", Room), path("/late", Late), path("/visited", Visited), path("/raw", Raw)],
    query_token_key="token",
    cookie_token_key="token",
)


@app.get("/")
async def page() -> Response:
    return Response("<!doctype html><title>page</title>", media_type="text/html")


@app.get("/cookie")
async def cookie() -> Response:
    response = Response("<!doctype html><title>page</title>", media_type="text/html")
    response.set_cookie("token", "s3cret/good", httponly=True, samesite="strict")
    return response


@app.get("/login")
async def login(request: Request) -> None:
    request.session["user"] = "ann"


@app.post("/revoke")
async def revoke() -> None:
    await app.state.consumers.revoke("id")


def main() -> None:
    logging.basicConfig(level=1, format="%(levelname)s %(name)s %(message)s")
    config = uvicorn.Config(app, log_config=None, log_level="trace", access_log=True)
    try:
        uvicorn.Server(config).run([socket.socket(fileno=int(sys.argv[1]))])
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
