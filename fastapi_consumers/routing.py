"""The routing table: which consumer answers which path."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from fastapi import APIRouter
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute, compile_path
from starlette.websockets import WebSocket, WebSocketState

from .consumers import Consumer, ConsumerApp
from .consumers.running import run
from .dependencies import Dependencies
from .exceptions import ImproperlyConfigured, Problem
from .metaclass import resolve
from .options import ConsumerOptions

#: An endpoint's attribute that holds its ``ConsumerApp``. On the endpoint, because routers copy routes.
CONSUMER_APP = "consumer_app"


class ChannelRoute(NamedTuple):
    """One line of ``channel_routes``: made by :func:`path`."""

    path: str
    app: ConsumerApp
    name: str
    dependencies: tuple[Any, ...] = ()
    tags: tuple[str, ...] = ()
    include_in_schema: bool = True

    @property
    def consumer_class(self) -> type[Consumer]:
        return self.app.consumer_class


def path(
    path: str,
    consumer: type[Consumer] | ConsumerApp,
    *,
    name: str | None = None,
    dependencies: Sequence[Any] = (),
    tags: Sequence[str] = (),
    include_in_schema: bool = True,
) -> ChannelRoute:
    """A route for ``channel_routes``.

    Args:
        path: as in Starlette, with parameters such as ``/chat/{room}`` or ``/item/{id:int}``. It may be empty on a
            router that has a prefix.
        consumer: a consumer class, or what its ``as_asgi()`` returned.
        name: for ``url_path_for``; the class's name by default.
        dependencies: ``Depends(...)`` that are solved at connect, before those of the class.
        tags: for the documentation.
        include_in_schema: ``False`` leaves the route out of the documentation.

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
    problems += _check_class(path, app.consumer_class) + _check_path(path) + _check_dependencies(path, dependencies)
    if isinstance(cast(object, tags), str) or not all(isinstance(cast(object, tag), str) for tag in tags):
        problems.append(
            Problem("route-tags", f"path({path!r}, …)", f"tags={tags!r}", "a list of texts", 'write tags=["chat"]')
        )
    if problems:
        raise ImproperlyConfigured(f"The route {path!r}", problems)
    name = name or app.consumer_class.__name__
    return ChannelRoute(path, app, name, tuple(dependencies), tuple(tags), include_in_schema)


def _check_class(path: str, cls: type[Consumer]) -> list[Problem]:
    options = resolve(cls)
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
        if path and not path.startswith("/"):
            raise ValueError("it does not begin with /")
        compile_path(path)
    except (ValueError, AssertionError) as error:
        return [Problem("route-path", f"path({path!r}, …)", repr(path), "a path such as /chat/{room}", str(error))]
    return []


def _check_dependencies(path: str, dependencies: Sequence[Any]) -> list[Problem]:
    try:
        Dependencies.of_list(dependencies)
    except Exception as error:  # FastAPI raises AssertionError, FastAPIError and more for a wrong one.
        where = f"path({path!r}, …, dependencies=…)"
        return [Problem("route-dependencies", where, repr(dependencies), "a list of Depends(...)", str(error))]
    return []


def check_groups(cls: type[Consumer], path: str, full_path: str) -> list[Problem]:
    """Group templates whose parameters the path does not have."""
    if "get_groups" in resolve(cls).overridden:
        return []  # What it does with them is its own business.
    known = set(compile_path(full_path)[2])
    return [
        Problem(
            "route-group-parameter",
            f"path({path!r}, {cls.__qualname__})",
            f"the group template {template.text!r} with the parameter{'s' if len(unknown) > 1 else ''} "
            + ", ".join(sorted(unknown)),
            f"parameters of the path {full_path!r} ({', '.join(sorted(known)) or 'it has none'})",
            "mend the template or the path",
        )
        for template in resolve(cls).groups
        if (unknown := template.parameters - known)
    ]


def route_problems(channel_routes: Any, prefix: str | None) -> list[Problem]:
    """The mistakes of all routes. Group templates can only be checked where the prefix is known."""
    # A generator would be used up by these very checks. A route is a tuple.
    if isinstance(channel_routes, str | bytes | ChannelRoute) or not isinstance(channel_routes, Sequence):
        return [
            Problem(
                "routes-type",
                "channel_routes",
                repr(channel_routes),
                "a list of what path() returns",
                "write [path('/…', Consumer)]",
            )
        ]
    problems: list[Problem] = []
    taken: dict[str, ChannelRoute] = {}
    for route in channel_routes:
        if not isinstance(route, ChannelRoute):
            problems.append(
                Problem(
                    "route-type", "channel_routes", repr(route), "what path() returns", "write path('/…', Consumer)"
                )
            )
            continue
        if (other := taken.setdefault(route.path, route)) is not route:
            problems.append(
                Problem(
                    "route-path-taken",
                    f"path({route.path!r}, {route.consumer_class.__qualname__})",
                    f"the path of {other.consumer_class.__qualname__}, which comes first",
                    "one consumer for each path",
                    "give one of them another path: the second would never be reached",
                )
            )
        if prefix == route.path == "":
            problems.append(
                Problem(
                    "route-path",
                    f"path('', {route.consumer_class.__qualname__})",
                    "an empty path",
                    "a path such as /chat/{room}",
                    "an empty one is only for a router with a prefix",
                )
            )
        elif prefix is not None:
            problems += check_groups(route.consumer_class, route.path, prefix + route.path)
    return problems


def app_route(route: ChannelRoute, app_dependencies: Sequence[Any]) -> WebSocketRoute:
    """A route straight to the consumer, for an application. The app's own dependencies are solved at connect."""
    endpoint = _app_of(route, [*app_dependencies, *route.dependencies])
    setattr(endpoint, CONSUMER_APP, endpoint)
    return WebSocketRoute(route.path, endpoint, name=route.name)


def add_routes(router: APIRouter, channel_routes: Sequence[ChannelRoute]) -> None:
    """Put routes on an ``APIRouter``, under its prefix and dependencies.

    The router's dependencies are FastAPI's to solve, before the consumer is made. The app that includes the router
    needs ``add_consumers``; otherwise its consumers run in memory. Raises ``ImproperlyConfigured`` for wrong routes;
    group templates are checked when the app starts, because parameters may come from the prefix of an including router.
    """
    problems = route_problems(channel_routes, None)
    if problems:
        raise ImproperlyConfigured("add_routes()", problems)
    for route in channel_routes:
        endpoint = endpoint_of(_app_of(route, route.dependencies))
        router.add_api_websocket_route(route.path, endpoint, name=route.name)


def _app_of(route: ChannelRoute, dependencies: Sequence[Any]) -> ConsumerApp:
    compiled = Dependencies.of_list(dependencies) if dependencies else None
    return ConsumerApp(route.consumer_class, compiled, tags=route.tags, include_in_schema=route.include_in_schema)


def endpoint_of(app: ConsumerApp) -> Callable[[WebSocket], Any]:
    """A WebSocket endpoint that runs the consumer, for a router."""

    async def endpoint(websocket: WebSocket) -> None:
        # A dependency of the router may have accepted the socket.
        await run(
            app.consumer_class,
            websocket.scope,
            websocket.receive,
            websocket.send,
            dependencies=app.dependencies,
            connected=websocket.client_state is not WebSocketState.CONNECTING,
            accepted=websocket.application_state is WebSocketState.CONNECTED,
        )

    setattr(endpoint, CONSUMER_APP, app)
    return endpoint


def check_included(app: Starlette) -> list[ConsumerOptions]:
    """The options of all classes that an app routes, included routers too.

    Raises ``ImproperlyConfigured`` for group templates that do not fit their routes.
    """
    problems: list[Problem] = []
    found: list[ConsumerOptions] = []
    for full_path, endpoint in _endpoints(app.router.routes):
        consumer_app = getattr(endpoint, CONSUMER_APP, None)
        if isinstance(consumer_app, ConsumerApp):
            problems += check_groups(consumer_app.consumer_class, full_path, full_path)
            found.append(consumer_app.consumer_class._meta)
    if problems:
        raise ImproperlyConfigured("The application's routes", problems)
    return found


class RoutedConsumer(NamedTuple):
    """A consumer class, and where an application answers with it."""

    path: str
    name: str
    consumer_class: type[Consumer]
    tags: tuple[str, ...] = ()
    include_in_schema: bool = True
    #: The application whose ``Consumers`` it has: this one, or one that is mounted in it.
    app: Any = None


def routed_consumers(app: Any, prefix: str = "", owner: Any = None) -> Iterator[RoutedConsumer]:
    """All consumers that an application routes, those of included routers and mounted applications too."""
    inner = app.app if isinstance(app, Mount) else app
    owner = inner if owner is None or isinstance(inner, Starlette) else owner
    for route in _flattened(getattr(app, "routes", None) or ()):
        path, name = getattr(route, "path", None) or "", getattr(route, "name", None) or ""
        found = getattr(getattr(route, "endpoint", None), CONSUMER_APP, None)
        mount = getattr(route, "original_route", route)
        if found is None and isinstance(mount, Mount):
            if not isinstance(mount.app, ConsumerApp):
                yield from routed_consumers(mount, prefix + path, owner)
                continue
            found = mount.app
        if isinstance(found, ConsumerApp):
            yield RoutedConsumer(prefix + path, name, found.consumer_class, found.tags, found.include_in_schema, owner)


def shows_statistics(app: Starlette) -> bool:
    """Whether a route of this very application shows what connections count, as the admin's page does."""
    return any(
        getattr(each.consumer_class, "_shows_statistics", False) for each in routed_consumers(app) if each.app is app
    )


def _endpoints(routes: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Path and endpoint of each route, those of included routers too."""
    for route in _flattened(routes):
        path, endpoint = getattr(route, "path", None), getattr(route, "endpoint", None)
        if isinstance(path, str) and endpoint is not None:
            yield path, endpoint


def _flattened(routes: Sequence[Any]) -> Iterable[Any]:
    """The routes, with those of included routers in place of these."""
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:  # FastAPI before it kept included routers: they are flattened.
        return routes
    return iter_route_contexts(routes)
