"""``routes`` and ``inspect``: what an application has, without starting it."""

import json
from typing import Any

import click
from starlette.applications import Starlette

from ..actions import Action
from ..naming import name_of, names_of
from ..options import ConsumerOptions
from ..routing import RoutedConsumer
from .applications import actions_of, app_argument, consumers_of, load_app, schema_of
from .commands import json_option


@click.command()
@app_argument
@json_option
def routes(app: str, factory: bool, as_json: bool) -> None:
    """Print which consumer answers which URL.

    The application is imported, not started: MODULE:APP is what uvicorn takes.

    \b
      fastapi-consumers routes main:app
    """
    found = consumers_of(load_app(app, factory=factory), app)
    if as_json:
        click.echo(json.dumps([_route_as_dict(route) for route in found], indent=2))
        return
    rows = [(route.path, _name_of(route.consumer_class), route.name) for route in found]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for path, consumer, name in rows:
        click.echo(f"{path:<{widths[0]}}  {consumer:<{widths[1]}}  {name}".rstrip())


@click.command(short_help="Print what the consumers of an application declare.")
@app_argument
@json_option
def inspect(app: str, factory: bool, as_json: bool) -> None:
    """Print everything that the consumers of an application declare.

    Their groups, actions, policies, history, presence and limits. With --json also the framework's own actions and,
    as JSON Schema, what each action takes.
    """
    loaded = load_app(app, factory=factory)
    paths: dict[type[Any], list[str]] = {}
    for route in consumers_of(loaded, app):
        paths.setdefault(route.consumer_class, []).append(route.path)
    if as_json:
        click.echo(json.dumps([_consumer_as_dict(loaded, cls, where) for cls, where in paths.items()], indent=2))
        return
    texts = [f"{', '.join(where)}\n{cls._meta.describe()}" for cls, where in paths.items()]
    click.echo("\n\n".join(texts))


def _route_as_dict(route: RoutedConsumer) -> dict[str, Any]:
    options: Any = route.consumer_class._meta
    return {
        "path": route.path,
        "name": route.name,
        "consumer": _name_of(route.consumer_class),
        "groups": [template.text for template in options.groups],
        "actions": list(options.actions),
    }


def _consumer_as_dict(app: Starlette, cls: type[Any], paths: list[str]) -> dict[str, Any]:
    options: ConsumerOptions = cls._meta

    def texts(values: Any) -> list[str] | None:
        """What each is; ``None`` where the application's default holds."""
        return None if values is None else names_of(values)

    return {
        "consumer": _name_of(cls),
        "file": options.file,
        "line": options.line,
        "paths": paths,
        "groups": [template.text for template in options.groups],
        "history": None if options.history is None else repr(options.history),
        "presence": None if options.presence is None else repr(options.presence),
        "actions": [_action_as_dict(name, action, options) for name, action in actions_of(app, cls).items()],
        "events": dict(options.events),
        "schedules": {name: repr(each) for name, each in options.schedules.items()},
        "authentication": texts(options.authentications),
        "permissions": texts(options.permissions),
        "throttles": texts(options.throttles),
        "connection_throttles": texts(options.connection_throttles),
        "pagination": None if options.pagination is None else name_of(options.pagination),
        "allowed_origins": None if options.allowed_origins is None else list(options.allowed_origins),
        "limits": dict(options.limits),
    }


def _action_as_dict(name: str, action: Action, options: ConsumerOptions) -> dict[str, Any]:
    return {
        "name": name,
        "description": action.description,
        "builtin": name not in options.actions,
        "streams": action.stream,
        "concurrent": action.concurrent,
        "timeout": action.timeout,
        "deprecated": action.deprecated,
        "enabled": action.enabled,
        "errors": [error.default_code for error in action.errors],
        "permissions": names_of(options.action_permissions.get(name, ())),
        "throttles": names_of(options.action_throttles.get(name, ())),
        "data": schema_of(action),
    }


def _name_of(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
