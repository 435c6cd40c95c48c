"""The routing table: which consumer answers which path."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from fastapi import APIRouter
from starlette.routing import WebSocketRoute, compile_path
from starlette.websockets import WebSocket

from .consumers import Consumer, ConsumerApp
from .consumers.running import serve
from .dependencies import Dependencies
from .exceptions import ImproperlyConfigured, Problem

#: An endpoint's attribute that holds its ``ConsumerApp``. On the endpoint, because routers copy routes.
CONSUMER_APP = "consumer_app"


class ChannelRoute(NamedTuple):
    """One line of ``channel_routes``: made by :func:`path`."""

    path: str
    app: ConsumerApp
    name: str
    dependencies: tuple[Any, ...] = ()

    @property
    def consumer_class(self) -> type[Consumer]:
        return self.app.consumer_class


def path(
    path: str, consumer: type[Consumer] | ConsumerApp, *, name: str | None = None, dependencies: Sequence[Any] = ()
) -> ChannelRoute:
    """A route for ``channel_routes``.

    Args:
        path: as in Starlette, with parameters such as ``/chat/{room}`` or ``/item/{id:int}``.
        consumer: a consumer class, or what its ``as_asgi()`` returned.
        name: for ``url_path_for``; the class's name by default.
        dependencies: ``Depends(...)`` that are solved at connect, before those of the class.

    Raises ``ImproperlyConfigured`` for a wrong path or consumer. Group templates are checked against the whole path
    when the route is added.
    """
    app = consumer if isinstance(consumer, ConsumerApp) else None
    if app is None and isinstance(consumer, type) and issubclass(consumer, Consumer):
        app = ConsumerApp(consumer)
    problems: list[Problem] = []
    if app is None:
        problems.append(
            Problem(
                "route-consumer",
                f"path({path!r}, …)",
                repr(consumer),
                "a class derived from Consumer, or what its as_asgi() returns",
                "name the class itself, not an instance or a function",
            )
        )
        raise ImproperlyConfigured(f"The route {path!r}", problems)
    problems += _check_class(path, app.consumer_class) + _check_path(path)
    if problems:
        raise ImproperlyConfigured(f"The route {path!r}", problems)
    return ChannelRoute(path, app, name or app.consumer_class.__name__, tuple(dependencies))


def _check_class(path: str, cls: type[Consumer]) -> list[Problem]:
    options = cls.resolve()
    if options.abstract:
        return [
            Problem(
                "route-abstract-consumer",
                f"path({path!r}, {cls.__qualname__})",
                "a class declared with abstract=True",
                "a class that is meant to be used",
                "derive a class from it and route that",
            )
        ]
    return []


def _check_path(path: str) -> list[Problem]:
    try:
        if not path.startswith("/"):
            raise ValueError("it does not begin with /")
        compile_path(path)
    except (ValueError, AssertionError) as error:
        return [Problem("route-path", f"path({path!r}, …)", repr(path), "a path such as /chat/{room}", str(error))]
    return []


def check_groups(route: ChannelRoute, full_path: str) -> list[Problem]:
    """Group templates whose parameters the path does not have."""
    known = set(compile_path(full_path)[2])
    return [
        Problem(
            "route-group-parameter",
            f"path({route.path!r}, {route.consumer_class.__qualname__})",
            f"the group template {template.text!r} with the parameter{'s' if len(unknown) > 1 else ''} "
            + ", ".join(sorted(unknown)),
            f"parameters of the path {full_path!r} ({', '.join(sorted(known)) or 'it has none'})",
            "mend the template or the path",
        )
        for template in route.consumer_class.resolve().groups
        if (unknown := template.parameters - known)
    ]


def check_routes(channel_routes: Sequence[ChannelRoute], prefix: str | None) -> None:
    """Raises ``ImproperlyConfigured`` with the mistakes of all routes; group templates need the prefix to be known."""
    problems: list[Problem] = []
    for route in channel_routes:
        if not isinstance(cast(object, route), ChannelRoute):
            problems.append(
                Problem(
                    "route-type", "channel_routes", repr(route), "what path() returns", "write path('/…', Consumer)"
                )
            )
        elif prefix is not None:
            problems += check_groups(route, prefix + route.path)
    if problems:
        raise ImproperlyConfigured("channel_routes", problems)


def app_route(route: ChannelRoute, app_dependencies: Sequence[Any]) -> WebSocketRoute:
    """A route straight to the consumer, for an application. The app's own dependencies are solved at connect."""
    dependencies = [*app_dependencies, *route.dependencies]
    endpoint = ConsumerApp(route.consumer_class, Dependencies.of_list(dependencies) if dependencies else None)
    setattr(endpoint, CONSUMER_APP, endpoint)
    return WebSocketRoute(route.path, endpoint, name=route.name)


def add_routes(router: APIRouter, channel_routes: Sequence[ChannelRoute]) -> None:
    """Put routes on an ``APIRouter``, under its prefix and dependencies.

    The app that includes the router needs ``add_consumers``; otherwise its consumers run in memory.
    """
    # The prefixes of including routers are not known yet, so that parameters may come from there.
    check_routes(channel_routes, None)
    for route in channel_routes:
        router.add_api_websocket_route(
            route.path, _endpoint(route.app), name=route.name, dependencies=list(route.dependencies)
        )


def _endpoint(app: ConsumerApp) -> Callable[[WebSocket], Any]:
    async def endpoint(websocket: WebSocket) -> None:
        await serve(app.consumer_class, websocket, None)

    setattr(endpoint, CONSUMER_APP, app)
    return endpoint
