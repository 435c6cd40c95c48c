"""``admin_router``: the API and the page, behind the application's own dependencies."""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from ..consumers import ConsumerApp
from ..dependencies import Dependencies
from ..exceptions import ImproperlyConfigured, PermissionDenied, Problem
from ..origins import is_allowed_origin
from ..routing import endpoint_of
from ..texts import gettext_lazy as _
from .dashboard import Dashboard
from .endpoints import Endpoints
from .pages import file, page
from .routes import APIErrorRoute, check_path
from .sampling import Board

#: Methods that change nothing, so that it does not matter which page they come from.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def admin_router(
    *,
    dependencies: Sequence[Any] = (),
    prefix: str = "/admin",
    allowed_origins: Sequence[str] | None = None,
    timeout: float | timedelta = 2.0,
    tags: Sequence[str] = ("admin",),
    include_in_schema: bool = True,
) -> APIRouter:
    """The admin API and its page, to be included: ``app.include_router(admin_router(dependencies=[Depends(…)]))``.

    Args:
        dependencies: who may come in: ``Depends(require_admin)``, which raises for everybody else. They stand before
            every route, the page's socket included, to which its handshake is shown as the GET request that it is.
        prefix: where it is. May be empty if ``include_router`` is given one.
        allowed_origins: pages that may use it, such as ``https://ops.example.com``; by default those of the same host.
        timeout: seconds that other processes have to answer; what did not answer is named.
        tags: of the OpenAPI document.
        include_in_schema: whether it is in the OpenAPI document.

    Raises ``ImproperlyConfigured`` without dependencies, with something that is none, or with one that cannot stand
    before HTTP and WebSocket alike.
    """
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    guards = _checked(dependencies, seconds)
    origins = tuple(allowed_origins) if allowed_origins is not None else None

    async def check_origin(connection: HTTPConnection) -> None:
        """Browsers send cookies and passwords with what other pages send here."""
        if connection.scope.get("method") in _SAFE:
            return
        scheme = "wss" if connection.scope.get("scheme") in ("https", "wss") else "ws"
        if not is_allowed_origin(connection.headers.raw, scheme, origins):
            raise PermissionDenied(_("Pages of this origin may not connect."), code="origin_not_allowed")

    router = APIRouter(prefix=prefix, tags=list(tags), include_in_schema=include_in_schema, route_class=APIErrorRoute)
    # The socket comes before the router has dependencies, since FastAPI would show them a WebSocket, and most of them
    # take a Request. It has the same ones, solved at its handshake.
    board = Board(float(seconds), origins, guards)
    socket = Dashboard.as_asgi(board=board)
    router.add_api_websocket_route("/socket", endpoint_of(ConsumerApp(socket.consumer_class, guards)), name="dashboard")
    # From here on nothing that is ever put on it goes without.
    router.dependencies = [*dependencies, Depends(check_origin), Depends(check_path)]
    # Whoever opens the page is a person: what the application shows them when they may not, it shows here too.
    for path, endpoint, name in (("", page, "admin"), ("/static/{name}", file, "admin_static")):
        router.add_api_route(
            path, endpoint, methods=["GET"], include_in_schema=False, name=name, route_class_override=APIRoute
        )
    Endpoints(float(seconds)).add_to(router)
    return router


def _checked(dependencies: Any, timeout: Any) -> Dependencies:
    problems: list[Problem] = []
    guards: Dependencies | None = None
    is_list = isinstance(dependencies, Sequence) and not isinstance(dependencies, str | bytes)
    if not is_list or not dependencies:
        problems.append(
            Problem(
                "admin-without-access",
                "admin_router(dependencies=…)",
                repr(dependencies),
                "at least one dependency that says who may come in",
                "write admin_router(dependencies=[Depends(require_admin)])",
            )
        )
    else:
        try:
            guards = Dependencies.of_guards(dependencies)
        except Exception as error:  # FastAPI raises AssertionError, FastAPIError and more for a wrong one.
            where = "admin_router(dependencies=…)"
            problems.append(
                Problem("bad-dependencies", where, repr(dependencies), "a list of Depends(...)", str(error))
            )
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not is_number or not 0 < timeout < math.inf:
        expected = "seconds above 0, or a timedelta"
        problems.append(Problem("bad-timeout", "admin_router(timeout=…)", repr(timeout), expected, "write timeout=2.0"))
    if problems or guards is None:
        raise ImproperlyConfigured("admin_router()", problems)
    return guards
