"""The API's kind of route: whatever goes wrong in its endpoints is told as consumers tell it."""

from collections.abc import Mapping
from typing import Any

from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from ..answering import answer_consumer_error
from ..dependencies import error_from_dependency
from ..exceptions import ConsumerError, NotFound
from ..types import Receive, Scope, Send

#: Headers of an exception that say how its own body is written, and ours is another.
_OF_THE_BODY = frozenset({"content-length", "content-type"})


class APIErrorRoute(APIRoute):
    """A route that answers every error with ``{"error": …}``, whatever handlers the application has for others.

    An ``HTTPException`` keeps its status and its headers. One that is no error, such as a redirect to a login, is left
    as it is. Handlers that the application has for exception classes of its own are called all the same.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Handlers, and not a `try` around the endpoint: dependencies with `yield` must see what was raised.
        handlers: Mapping[Any, Any] = scope.get("starlette.exception_handlers", ({}, {}))[0]
        ours = dict.fromkeys((ConsumerError, HTTPException, StarletteHTTPException, RequestValidationError), _answer)
        await super().handle({**scope, "starlette.exception_handlers": ({**handlers, **ours}, {})}, receive, send)


async def _answer(request: Request, error: Exception) -> Response:
    headers: Mapping[str, str] = getattr(error, "headers", None) or {}
    if isinstance(error, StarletteHTTPException) and error.status_code < 400:
        return await http_exception_handler(request, error)
    told = error if isinstance(error, ConsumerError) else error_from_dependency(error)
    response = await answer_consumer_error(request, told or error)
    assert response is not None
    for name, value in headers.items():
        if name.lower() == "vary":
            response.headers.add_vary_header(value)
        elif name.lower() not in _OF_THE_BODY:
            response.headers[name] = value
    return response


async def check_path(connection: HTTPConnection) -> None:
    """Refuse a path that ends with a line feed: routes match it, and the name in it would lose its last character."""
    if connection.path_params and connection.scope["path"].endswith("\n"):
        raise NotFound
