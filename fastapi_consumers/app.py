"""``add_consumers``: the one call that sets up an application."""

import dataclasses
import inspect
import logging
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Literal, cast

from broadcaster import Broadcast
from starlette.applications import Starlette

from .action_pagination import checked_pagination
from .answering import answer_consumer_error
from .asyncapi import AsyncAPI
from .asyncapi.endpoints import add_documentation
from .asyncapi.settings import settings_of
from .authentication import TokenKeys, compile_authentications
from .backends import (
    HistoryBackend,
    ScheduleBackend,
    history_backend,
    presence_store,
    rate_buckets,
    schedule_backend,
)
from .draining import DRAIN_TIMEOUT
from .exceptions import ConsumerError, ImproperlyConfigured, Problem
from .history import HistoryStore
from .localization import localization_of
from .observing import Observer
from .options import ExceptionHandler, Limits
from .permissions import compile_permissions
from .plan import Defaults
from .presence import PresenceStore
from .routing import ChannelRoute, app_route, check_included, route_problems, shows_statistics
from .runtime import Consumers
from .schedule_stores import ScheduleStore
from .settings import (
    check_app,
    check_count,
    check_options,
    check_throttle_failure,
    check_token_keys,
    chosen_transport,
    compiled,
    connection_rates_of,
    drain_timeout_of,
    observing_of,
    proxies_of,
    throttles_of,
)
from .throttling import Buckets, FailureMode
from .translations import Translations
from .transports import Transport
from .transports.urls import seconds_of
from .workers import several_workers

logger = logging.getLogger(__name__)


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
    schedules_url: str | ScheduleStore | None = None,
    throttle_failure: FailureMode = "memory",
    broker_timeout: float | timedelta = 1.0,
    authentication_classes: Sequence[Any] = (),
    permission_classes: Sequence[Any] = (),
    throttle_classes: Sequence[Any] = (),
    connection_throttle_classes: Sequence[Any] = (),
    max_connection_rate: str | None = None,
    max_connections_per_process: int | None = None,
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
    language_query_key: str | None = "lang",
    language_cookie_key: str | None = None,
    translations: Sequence[str | os.PathLike[str] | Translations] = (),
    direct_writes: bool = True,
    observers: Sequence[Observer] = (),
    statistics: bool | None = None,
    access_log: bool | Literal["actions"] = True,
    drain_timeout: float | timedelta = DRAIN_TIMEOUT,
    asyncapi: AsyncAPI | bool | None = None,
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
        authentication_classes: who clients are, for consumers whose classes do not say how to know; so with the other
            policies.
        permission_classes: what they may do.
        throttle_classes: how often they may call actions.
        connection_throttle_classes: how often they may connect.
        history_url: where groups with ``history`` keep it, if not at ``url``: ``redis://…``,
            ``sqlite+aiosqlite:///chat.db``, ``postgresql://…``, or a ``HistoryStore`` of your own.
        pagination_class: how consumers page that do not say otherwise: a class, or an instance with other settings.
        presence_url: a Redis or Valkey server where processes share who is there, how many, and who has a seat where
            ``max_connections`` is set, if not at ``url``; ``memory://`` if each process may know its own connections
            only; or a ``PresenceStore`` of your own.
        limiter_url: a Redis or Valkey server where processes count requests together, if not at ``url``; ``memory://``
            if each process may count by itself, as it does where ``url`` is no Redis; or ``Buckets`` of your own.
        schedules_url: where schedules are kept, if not where history is: as ``history_url``, or a ``ScheduleStore`` of
            your own. With it a process takes part in schedules from the start, also if its own code has none.
        throttle_failure: what becomes of requests while that server is away: ``memory`` has each process count by
            itself, ``open`` lets all of them pass, ``closed`` refuses them with ``limiter_unavailable``.
        max_connection_rate: how fast connections may come to one process, such as ``"100/second"``; more are refused
            before anything else is asked, with ``too_many_connections``.
        max_connections_per_process: how many connections one process holds, of all classes; more are refused with
            ``too_many_connections``, 503 and close code 1013.
        trusted_proxies: networks such as ``10.0.0.0/8`` whose ``X-Forwarded-For`` says where a client is. Leave it out
            where the server is told so, as uvicorn is by ``--forwarded-allow-ips``.
        exception_handlers: exception class to ``async def handler(consumer, exc) -> ConsumerError | None``.
        add_exception_handlers: let HTTP endpoints answer a ``ConsumerError`` with its HTTP status as JSON, and other
            WebSocket endpoints close with its code. ``False`` leaves that to handlers of your own.
        allowed_origins: such as ``https://*.example.com``; by default pages of the same host only.
        accept_refused: accept refused sockets, tell them why, and close, so that a browser can show the reason.
        query_token_key: the query parameter in which authentications that read tokens look for one; off by default, as
            queries end up in logs. In the lines of uvicorn and hypercorn its value is ``***`` while the app runs.
        cookie_token_key: the same for a cookie.
        language: the language of errors for clients that ask for none of those that there are.
        languages: those to choose from, such as ``["en", "de"]``; by default all that there is a catalog of.
        language_query_key: the query parameter in which a client may name its language; one that there is not is passed
            over. ``None``: none.
        language_cookie_key: the same for a cookie; off by default.
        translations: folders with catalogs of your own, which come before the package's: paths, or ``Translations``.
        direct_writes: write frames straight to the server's transport where that is known to be the same as its
            ``send``, which it is under uvicorn on connections without compression. ``False``: always ``send``.
        observers: instances of :class:`~fastapi_consumers.observing.Observer`, which are told what connections and
            their consumers do, for metrics and traces; without any, no message pays for it.
        statistics: count messages and bytes of each connection, for
            :func:`~fastapi_consumers.facts.facts_of`; some observers switch it on too. By default it is done if the app
            includes an ``admin_router``.
        access_log: log a line for each connection when it has ended, to ``fastapi_consumers.access`` at level INFO;
            ``"actions"``: one for each action too.
        drain_timeout: seconds that the process takes at the most, once it is told to stop, to close its sockets; 5 by
            default. One after another where others may take them over, each when what it asked for has been answered.
            0: the server closes all of them at once.
        asyncapi: where the AsyncAPI document and its page are, and what they say; ``False`` for neither. By default
            ``/asyncapi.json`` and ``/asyncapi``, unless FastAPI's own document is off (``openapi_url=None``).
        limits: the fields of :class:`~fastapi_consumers.options.Limits`, such as ``max_message_size=4096``.

    Returns the app's ``Consumers``, also found as ``app.state.consumers``. Raises ``ImproperlyConfigured`` with all
    mistakes at once; then the app is unchanged.
    """
    if not isinstance(cast(object, app), Starlette):
        fix = "write add_consumers(app, channel_routes); for an APIRouter there is add_routes()"
        problem = Problem("bad-app", "add_consumers()", repr(app), "a FastAPI or Starlette application", fix)
        raise ImproperlyConfigured("add_consumers()", [problem])
    problems = check_app(app, limits, inspect.signature(add_consumers).parameters)
    flags = {"accept_refused": accept_refused, "direct_writes": direct_writes}
    flags |= {"statistics": statistics} if statistics is not None else {}
    problems += check_options(exception_handlers, allowed_origins, flags)
    problems += check_token_keys(query_token_key=query_token_key, cookie_token_key=cookie_token_key)
    language_keys = {"language_query_key": language_query_key, "language_cookie_key": language_cookie_key}
    mistakes: list[Problem] = []
    localization = localization_of(language, languages, translations, language_keys, mistakes)
    problems += [*mistakes, *route_problems(channel_routes, "")]
    defaults = Defaults(
        authentications=compiled(compile_authentications, authentication_classes, "authentication_classes", problems),
        permissions=compiled(compile_permissions, permission_classes, "permission_classes", problems),
        throttles=compiled(throttles_of("app"), throttle_classes, "throttle_classes", problems),
        connection_throttles=compiled(
            throttles_of("app:connect"), connection_throttle_classes, "connection_throttle_classes", problems
        ),
        pagination=checked_pagination(pagination_class, "add_consumers()", problems),
        exception_handlers={} if problems else dict(exception_handlers or {}),
        allowed_origins=tuple(allowed_origins) if allowed_origins is not None else None,
        accept_refused=accept_refused,
        token_keys=TokenKeys(query_token_key, cookie_token_key),
        trusted_proxies=proxies_of(trusted_proxies, problems),
        limits=Limits() if problems else dataclasses.replace(Limits(), **limits),
        localization=localization,
    )
    chosen = chosen_transport(url, transport, broadcast, broker_timeout, problems)
    history, presence, buckets, schedules = HistoryBackend(None), None, None, ScheduleBackend(None)
    connection_rates = connection_rates_of(max_connection_rate, problems)
    drain_seconds = drain_timeout_of(drain_timeout, problems)
    check_count("max_connections_per_process", max_connections_per_process, problems)
    check_throttle_failure(throttle_failure, problems)
    observing = observing_of(observers, statistics, access_log, problems)
    documentation = settings_of(asyncapi, app, problems)
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
            schedules = schedule_backend(chosen, schedules_url, history.store, timeout=seconds_of(broker_timeout))
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
        observing=observing,
        drain_timeout=drain_seconds,
        max_connections=max_connections_per_process,
        schedules=schedules,
        counts=partial(shows_statistics, app) if statistics is None else None,
    )
    for route in channel_routes:
        consumers.declared_events.add(route.consumer_class._meta)
        consumers.add_history(route.consumer_class._meta)
        consumers.check_presence(route.consumer_class._meta)
        consumers.schedules.add_class(route.consumer_class._meta)

    app.state.consumers = consumers
    app.router.routes.extend(routes)
    add_documentation(app, consumers, documentation)
    _wrap_lifespan(app, consumers)
    if add_exception_handlers and ConsumerError not in app.exception_handlers:
        app.add_exception_handler(ConsumerError, cast(Any, answer_consumer_error))
    return consumers


def _wrap_lifespan(app: Starlette, consumers: Consumers) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        for options in check_included(app):
            consumers.declared_events.add(options)
            consumers.add_history(options)
            consumers.check_presence(options)
            consumers.schedules.add_class(options)
        consumers.schedules.waits = True
        if not consumers.is_distributed and (count := several_workers(sys.argv, os.environ)) is not None:
            logger.warning(
                "this is one of %d workers, and each of them broadcasts to its own sockets only: with "
                'add_consumers(…, url="redis://…") they reach each other\'s',
                count,
            )
        async with consumers, inner(app) as state:
            consumers.check()
            await consumers.schedules.start()
            try:
                yield state
            finally:
                # While what the app's own lifespan opened is there: runs, and the hooks of open sockets, may need it.
                await consumers.schedules.stop()
                await consumers.close_sockets()

    app.router.lifespan_context = lifespan
