"""What an application is made of, for people: routes with their consumers, and the settings in force.

Without secrets, as ``naming`` has it.
"""

import dataclasses
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..naming import name_of, names_of
from ..options import Limits
from ..plan import ActionPlan, Plan
from ..routing import routed_consumers
from ..runtime import Consumers
from .gathering import key_after, next_cursor
from .models import ActionItem, RouteItem, RouteList, Settings


def routes_of(app: Any, consumers: Consumers) -> list[RouteItem]:
    """The consumers that an application routes."""
    return [_route(each.path, each.name, consumers.plan(each.consumer_class)) for each in routed_consumers(app)]


def list_routes(
    app: Any, consumers: Consumers, *, limit: int | None = None, cursor: str | None = None, search: str | None = None
) -> RouteList:
    """The same, page by page. ``search`` looks into path, name, consumer and groups. Raises ``InvalidCursor``."""
    after, text = key_after(cursor, "routes", (int,)), (search or "").casefold()
    found = [
        ((place,), route)
        for place, route in enumerate(routes_of(app, consumers))
        if any(text in part.casefold() for part in (route.path, route.name, route.consumer, *route.groups))
    ]
    rest = [each for each in found if after is None or each[0][0] > after[0]]
    limit = len(rest) if limit is None else limit
    return RouteList(
        results=[route for _, route in rest[:limit]],
        next=next_cursor(rest, limit, "routes", (int,)),
        total=len(found),
    )


def _route(path: str, name: str, plan: Plan) -> RouteItem:
    options = plan.options
    return RouteItem(
        path=path,
        name=name,
        consumer=options.name,
        module=options.module,
        line=options.line,
        groups=[template.text for template in options.groups],
        actions=[_action(wire_name, action) for wire_name, action in plan.actions.items()],
        authentication=names_of(plan.authentications),
        permissions=names_of(plan.permissions),
        throttles=names_of(plan.throttles),
        connection_throttles=names_of(plan.connection_throttles),
        pagination=name_of(plan.pagination) if plan.pagination is not None else None,
        history=repr(options.history) if options.history is not None else None,
        presence=repr(options.presence) if options.presence is not None else None,
        limits=_limits(plan.limits),
    )


def _action(name: str, plan: ActionPlan) -> ActionItem:
    action = plan.action
    return ActionItem(
        name=name,
        method=action.method,
        streams=bool(action.stream),
        concurrent=action.concurrent,
        timeout=action.timeout,
        deprecated=action.deprecated,
        enabled=action.enabled,
        permissions=names_of(plan.permissions),
        throttles=names_of(plan.throttles),
    )


def settings_of(consumers: Consumers) -> Settings:
    """What this process runs with."""
    defaults, hub = consumers.defaults, consumers.hub
    streams = hub.streams
    try:
        release = version("fastapi-consumers")
    except PackageNotFoundError:
        release = "unknown"
    return Settings(
        version=release,
        process=hub.process,
        transport=name_of(hub.transport),
        is_distributed=hub.transport.is_distributed,
        history=name_of(streams.store) if streams is not None else None,
        presence=name_of(consumers.presence_store) if consumers.presence_store is not None else None,
        limiter=name_of(consumers.buckets),
        schedules=name_of(consumers.schedules.store) if consumers.schedules.store is not None else None,
        authentication=names_of(defaults.authentications),
        permissions=names_of(defaults.permissions),
        throttles=names_of(defaults.throttles),
        connection_throttles=names_of(defaults.connection_throttles),
        pagination=name_of(defaults.pagination) if defaults.pagination is not None else None,
        allowed_origins=list(defaults.allowed_origins) if defaults.allowed_origins is not None else None,
        accept_refused=defaults.accept_refused,
        trusted_proxies=defaults.trusted_proxies is not None,
        query_token_key=defaults.token_keys.query,
        cookie_token_key=defaults.token_keys.cookie,
        max_connections_per_process=consumers.admission.max_connections,
        max_connection_rate=[f"{count}/{seconds:g} s" for count, seconds in consumers.admission.rates],
        drain_timeout=consumers.draining.timeout,
        statistics=consumers.observing.counts,
        observers=[type(observer).__qualname__ for observer in consumers.observing.observers],
        languages=sorted(defaults.localization.languages),
        limits=_limits(defaults.limits),
    )


def _limits(limits: Limits) -> dict[str, Any]:
    return {field.name: getattr(limits, field.name) for field in dataclasses.fields(limits)}
