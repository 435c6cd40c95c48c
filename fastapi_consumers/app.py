"""``add_consumers``: the one call that sets up an application."""

import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from .action_pagination import checked_pagination
from .authentication import TokenKeys, compile_authentications
from .backends import HistoryBackend, history_backend, presence_store, rate_buckets
from .codecs import encode_json
from .exceptions import ConsumerError, ImproperlyConfigured, Problem
from .history import HistoryStore
from .localization import Localization, localization_of
from .options import LIMIT_NAMES, ExceptionHandler, Limits, limit_mistake
from .permissions import compile_permissions
from .plan import Defaults
from .presence import PresenceStore
from .proxies import TrustedProxies
from .routing import ChannelRoute, app_route, check_included, route_problems
from .runtime import Consumers
from .throttling import FAILURE_MODES, Buckets, FailureMode, Rate, compile_throttles, parse_rate
from .translations import Translations
from .transports import Transport
from .transports.broadcaster import BroadcasterTransport
from .transports.urls import seconds_of, transport_of
from .types import close_reason


def add_consumers(
    app: Starlette,
    channel_routes: Sequence[ChannelRoute] = (),
    *,
    url: str = "memory://",
    transport: Transport | None = None,
    broadcast: Broadcast | None = None,
    history_url: str | HistoryStore | None = None,
    presence_url: str | PresenceStore | None = None,
    limiter_url: str | Buckets | None = None,
    throttle_failure: FailureMode = "memory",
    broker_timeout: float | timedelta = 1.0,
    authentication_classes: Sequence[Any] = (),
    permission_classes: Sequence[Any] = (),
    throttle_classes: Sequence[Any] = (),
    connection_throttle_classes: Sequence[Any] = (),
    max_connection_rate: str | None = None,
    trusted_proxies: Sequence[str] | None = None,
    pagination_class: Any = None,
    exception_handlers: Mapping[type[Exception], ExceptionHandler] | None = None,
    add_exception_handlers: bool = True,
    allowed_origins: Sequence[str] | None = None,
    accept_refused: bool = False,
    query_token_key: str | None = None,
    cookie_token_key: str | None = None,
    language: str = "en",
    languages: Sequence[str] | None = None,
    language_query_key: str | None = None,
    language_cookie_key: str | None = None,
    translations: Sequence[str | os.PathLike[str] | Translations] = (),
    direct_writes: bool = True,
    **limits: Any,
) -> Consumers:
    """Set up an application: routes, transport, policies that hold where a class says nothing else.

    Args:
        app: FastAPI or Starlette. Its lifespan is wrapped: what is needed here opens before it and closes after it; in
            a mounted app, whose lifespan nobody runs, it opens at first use.
        channel_routes: made by :func:`path`.
        url: ``memory://``, for one process; for many, ``redis://host:6379/0``, ``rediss://…`` with TLS or
            ``unix:///path/to.sock``: a Redis or Valkey server that all of them use; or ``postgresql://…``.
        transport: a transport of your own, in place of ``url``.
        broadcast: a ``broadcaster.Broadcast`` of your own, in place of ``url``. It is connected and disconnected here
            only if you have not connected it.
        broker_timeout: seconds that publishing, joining a group and connecting at startup may take at the broker. A
            ``transport`` of your own has its own.
        history_url: where groups with ``history`` keep it, if not at ``url``: ``redis://…``,
            ``sqlite+aiosqlite:///chat.db``, ``postgresql://…``, or a ``HistoryStore`` of your own.
        pagination_class: how consumers page that do not say otherwise: a class, or an instance with other settings.
        presence_url: a Redis or Valkey server where processes share who is there, how many, and who has a seat where
            ``max_connections`` is set, if not at ``url``; ``memory://`` if each process may know its own connections
            only; or a ``PresenceStore`` of your own.
        limiter_url: a Redis or Valkey server where processes count requests together, if not at ``url``; ``memory://``
            if each process may count by itself, as it does where ``url`` is no Redis; or ``Buckets`` of your own.
        throttle_failure: what becomes of requests while that server is away: ``memory`` has each process count by
            itself, ``open`` lets all of them pass, ``closed`` refuses them with ``limiter_unavailable``.
        max_connection_rate: how fast connections may come to one process, such as ``"100/second"``; more are refused
            before anything else is asked, with ``too_many_connections``.
        trusted_proxies: networks such as ``10.0.0.0/8`` whose ``X-Forwarded-For`` says where a client is. Leave it out
            where the server is told so, as uvicorn is by ``--forwarded-allow-ips``.
        exception_handlers: exception class to ``async def handler(consumer, exc) -> ConsumerError | None``.
        add_exception_handlers: let HTTP endpoints answer a ``ConsumerError`` with its HTTP status as JSON, and other
            WebSocket endpoints close with its code. ``False`` leaves that to handlers of your own.
        allowed_origins: such as ``https://*.example.com``; by default pages of the same host only.
        accept_refused: accept refused sockets, tell them why, and close, so that a browser can show the reason.
        query_token_key: the query parameter in which authentications that read tokens look for one; off by default, as
            queries end up in logs.
        cookie_token_key: the same for a cookie.
        language: the language of errors for clients that ask for none of those that there are.
        languages: those to choose from, such as ``["en", "de"]``; by default all that there is a catalog of.
        language_query_key: the query parameter in which a client may name its language; off by default.
        language_cookie_key: the same for a cookie.
        translations: folders with catalogs of your own, which come before the package's: paths, or ``Translations``.
        direct_writes: write frames straight to the server's transport where that is known to be the same as its
            ``send``, which it is under uvicorn on connections without compression. ``False``: always ``send``.
        limits: the fields of :class:`~fastapi_consumers.options.Limits`, such as ``max_message_size=4096``.

    Returns the app's ``Consumers``, also found as ``app.state.consumers``. Raises ``ImproperlyConfigured`` with all
    mistakes at once; then the app is unchanged.
    """
    if not isinstance(cast(object, app), Starlette):
        fix = "write add_consumers(app, channel_routes); for an APIRouter there is add_routes()"
        problem = Problem("bad-app", "add_consumers()", repr(app), "a FastAPI or Starlette application", fix)
        raise ImproperlyConfigured("add_consumers()", [problem])
    problems = _check(app, limits)
    flags = {"accept_refused": accept_refused, "direct_writes": direct_writes}
    problems += _check_options(exception_handlers, allowed_origins, flags)
    problems += _check_token_keys(query_token_key=query_token_key, cookie_token_key=cookie_token_key)
    language_keys = {"language_query_key": language_query_key, "language_cookie_key": language_cookie_key}
    mistakes: list[Problem] = []
    localization = localization_of(language, languages, translations, language_keys, mistakes)
    problems += [*mistakes, *route_problems(channel_routes, "")]
    defaults = Defaults(
        authentications=_compiled(compile_authentications, authentication_classes, "authentication_classes", problems),
        permissions=_compiled(compile_permissions, permission_classes, "permission_classes", problems),
        throttles=_compiled(_throttles("app"), throttle_classes, "throttle_classes", problems),
        connection_throttles=_compiled(
            _throttles("app:connect"), connection_throttle_classes, "connection_throttle_classes", problems
        ),
        pagination=checked_pagination(pagination_class, "add_consumers()", problems),
        exception_handlers={} if problems else dict(exception_handlers or {}),
        allowed_origins=tuple(allowed_origins) if allowed_origins is not None else None,
        accept_refused=accept_refused,
        token_keys=TokenKeys(query_token_key, cookie_token_key),
        trusted_proxies=_proxies(trusted_proxies, problems),
        limits=Limits() if problems else dataclasses.replace(Limits(), **limits),
        localization=localization,
    )
    chosen = _transport(url, transport, broadcast, broker_timeout, problems)
    history, presence, buckets = HistoryBackend(None), None, None
    connection_rates = _connection_rates(max_connection_rate, problems)
    if throttle_failure not in FAILURE_MODES:
        expected = f"one of {', '.join(map(repr, FAILURE_MODES))}"
        fix = 'write throttle_failure="open"'
        problems.append(Problem("bad-throttle-failure", "add_consumers()", repr(throttle_failure), expected, fix))
    if chosen is not None:
        try:
            # What is at the same server shares the transport's connections, and appending publishes there by itself.
            default_url = url if transport is None and broadcast is None else None
            history = history_backend(chosen, None if history_url == default_url else history_url)
            presence = presence_store(
                chosen, None if presence_url == default_url else presence_url, timeout=seconds_of(broker_timeout)
            )
            buckets = rate_buckets(
                chosen,
                None if limiter_url == default_url else limiter_url,
                failure=throttle_failure,
                timeout=seconds_of(broker_timeout),
            )
        except ImproperlyConfigured as error:
            problems.extend(error.problems)
    if problems or chosen is None:
        raise ImproperlyConfigured("add_consumers()", problems)
    routes = [app_route(route, getattr(app.router, "dependencies", None) or ()) for route in channel_routes]
    consumers = Consumers(
        chosen,
        defaults,
        history=history,
        presence=presence,
        direct_writes=direct_writes,
        buckets=buckets,
        connection_rates=connection_rates,
    )
    for route in channel_routes:
        consumers.add_history(route.consumer_class._meta)
        consumers.check_presence(route.consumer_class._meta)

    app.state.consumers = consumers
    app.router.routes.extend(routes)
    _wrap_lifespan(app, consumers)
    if add_exception_handlers and ConsumerError not in app.exception_handlers:
        app.add_exception_handler(ConsumerError, cast(Any, answer_consumer_error))
    return consumers


def _check_options(handlers: Any, origins: Any, flags: Mapping[str, Any]) -> list[Problem]:
    """What type checkers see too, and what would otherwise fail late or, worse, let everybody in."""
    problems: list[Problem] = []

    def add(name: str, value: Any, expected: str, fix: str) -> None:
        problems.append(Problem(f"bad-{name.replace('_', '-')}", "add_consumers()", repr(value), expected, fix))

    if handlers is not None and not isinstance(handlers, Mapping):
        add("exception_handlers", handlers, "a dict of exception class to function", "write {MyError: handler}")
    for kind, handler in handlers.items() if isinstance(handlers, Mapping) else ():
        if not (isinstance(kind, type) and issubclass(kind, Exception) and callable(handler)):
            expected = "exception classes as keys, functions as values"
            add("exception_handlers", {kind: handler}, expected, "write {MyError: handler}")
    if origins is not None:
        is_list = isinstance(origins, Sequence) and not isinstance(origins, str | bytes)
        if not is_list or not all(isinstance(origin, str) for origin in origins):
            add("allowed_origins", origins, "a list of origins as text", 'write ["https://example.com"]')
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            add(name, flag, "True or False", f"write {name}=True")
    return problems


def _check_token_keys(**keys: Any) -> list[Problem]:
    return [
        Problem(
            f"bad-{name.replace('_', '-')}", "add_consumers()", repr(key), "a name, or None", f'write {name}="token"'
        )
        for name, key in keys.items()
        if key is not None and not (isinstance(key, str) and key)
    ]


def _check(app: Any, limits: Mapping[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    found = getattr(app.state, "consumers", None)
    if isinstance(found, Consumers):
        problems.append(
            Problem(
                "consumers-added-twice",
                "app.state.consumers",
                "the Consumers of an earlier call",
                "one call of add_consumers per application",
                "put all routes into one call, or more of them on a router with add_routes()",
            )
        )
    elif found is not None:
        fix = "keep your own under another name"
        problems.append(Problem("state-taken", "app.state.consumers", repr(found), "nothing of that name", fix))
    for name, value in limits.items():
        if name not in LIMIT_NAMES:
            problems.append(
                Problem(
                    "unknown-argument",
                    "add_consumers()",
                    f"the argument {name!r}",
                    f"one of its arguments, or a limit ({', '.join(LIMIT_NAMES)})",
                    "look for a misspelling",
                )
            )
        elif (expected := limit_mistake(name, value)) is not None:
            problems.append(Problem("bad-limit", "add_consumers()", f"{name}={value!r}", expected, f"mend {name}"))
    return problems


def _throttles(scope: str) -> Callable[[Any], Any]:
    return lambda entries: compile_throttles(entries, scope)


def _compiled(
    compile_all: Callable[[Any], tuple[Any, ...]], entries: Sequence[Any], name: str, problems: list[Problem]
) -> tuple[Any, ...]:
    try:
        return compile_all(entries)
    except (TypeError, ValueError) as error:
        problems.append(
            Problem(f"bad-{name.replace('_', '-')}", "add_consumers()", repr(entries), f"a list of {name}", str(error))
        )
        return ()


def _proxies(networks: Any, problems: list[Problem]) -> TrustedProxies | None:
    try:
        return None if networks is None else TrustedProxies(networks)
    except (TypeError, ValueError) as error:
        expected = "a list of addresses and networks"
        fix = f'write trusted_proxies=["10.0.0.0/8"]: {error}'
        problems.append(Problem("bad-trusted-proxies", "add_consumers()", repr(networks), expected, fix))
        return None


def _connection_rates(rate: Any, problems: list[Problem]) -> tuple[Rate, ...]:
    try:
        return () if rate is None else parse_rate(rate)
    except (AttributeError, TypeError, ValueError) as error:
        expected = 'a rate such as "100/second"'
        problems.append(Problem("bad-max-connection-rate", "add_consumers()", repr(rate), expected, str(error)))
        return ()


def _transport(
    url: str,
    transport: Transport | None,
    broadcast: Broadcast | None,
    broker_timeout: float | timedelta,
    problems: list[Problem],
) -> Transport | None:
    if transport is not None and broadcast is not None:
        problems.append(
            Problem(
                "two-transports", "add_consumers()", "transport= and broadcast=", "one of them", "leave one of them out"
            )
        )
        return None
    if transport is not None:
        if isinstance(cast(object, transport), Transport):
            return transport
        problems.append(
            Problem(
                "bad-transport",
                "add_consumers()",
                repr(transport),
                "an instance of Transport",
                "derive it from Transport",
            )
        )
        return None
    try:
        seconds = seconds_of(broker_timeout)
        if broadcast is None:
            return transport_of(url, broker_timeout=seconds)
        if isinstance(cast(object, broadcast), Broadcast):
            return BroadcasterTransport(broadcast, broker_timeout=seconds)
    except ImproperlyConfigured as error:
        problems.extend(error.problems)
        return None
    expected, fix = "a broadcaster.Broadcast", 'write broadcast=Broadcast("memory://")'
    problems.append(Problem("bad-broadcast", "add_consumers()", repr(broadcast), expected, fix))
    return None


def _wrap_lifespan(app: Starlette, consumers: Consumers) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        for options in check_included(app):
            consumers.add_history(options)
            consumers.check_presence(options)
        async with consumers, inner(app) as state:
            consumers.check()
            try:
                yield state
            finally:
                # While what the app's own lifespan opened is there: the hooks of open sockets may need it.
                await consumers.close_sockets()

    app.router.lifespan_context = lifespan


async def answer_consumer_error(connection: HTTPConnection, error: Exception) -> Response | None:
    """Handles a ``ConsumerError`` outside of consumers: HTTP is answered in JSON, a socket refused or closed."""
    assert isinstance(error, ConsumerError)
    if not isinstance(connection, WebSocket):
        return _response(connection, error)
    if connection.application_state is WebSocketState.CONNECTING and _can_deny(connection):
        await connection.send_denial_response(_response(connection, error))
    elif connection.application_state is not WebSocketState.DISCONNECTED:
        await connection.close(error.close_code, close_reason(error.code))
    return None


def _response(connection: HTTPConnection, error: ConsumerError) -> Response:
    consumers = getattr(getattr(connection.scope.get("app"), "state", None), "consumers", None)
    localization = consumers.defaults.localization if isinstance(consumers, Consumers) else Localization()
    language = localization.language_of(connection.scope, connection.scope.get("user"))
    told = localization.translate(error, language)
    headers = {**told.http_headers(), "content-language": language, "vary": "accept-language"}
    return Response(encode_json({"error": told.body()}), told.http_status, headers, "application/json")


def _can_deny(websocket: WebSocket) -> bool:
    return "websocket.http.response" in (websocket.scope.get("extensions") or {})


answer_consumer_error.is_default = True  # type: ignore[attr-defined]
