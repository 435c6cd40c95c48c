"""``routes`` and ``inspect``: what an application has, without starting it."""

import json
from typing import Any

import click

from ..routing import RoutedConsumer
from .applications import app_argument, consumers_of
from .commands import json_option


@click.command()
@app_argument
@json_option
def routes(app: str, factory: bool, as_json: bool) -> None:
    """Print which consumer answers which URL."""
    found = consumers_of(app, factory)
    if as_json:
        click.echo(json.dumps([_as_dict(route) for route in found], indent=2))
        return
    rows = [(route.path, _name_of(route.consumer_class), route.name) for route in found]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for path, consumer, name in rows:
        click.echo(f"{path:<{widths[0]}}  {consumer:<{widths[1]}}  {name}".rstrip())


@click.command()
@app_argument
def inspect(app: str, factory: bool) -> None:
    """Print everything that the consumers of an application declare."""
    paths: dict[type[Any], list[str]] = {}
    for route in consumers_of(app, factory):
        paths.setdefault(route.consumer_class, []).append(route.path)
    texts = [f"{', '.join(where)}\n{cls._meta.describe()}" for cls, where in paths.items()]
    click.echo("\n\n".join(texts))


def _as_dict(route: RoutedConsumer) -> dict[str, Any]:
    options: Any = route.consumer_class._meta
    return {
        "path": route.path,
        "name": route.name,
        "consumer": _name_of(route.consumer_class),
        "groups": [template.text for template in options.groups],
        "actions": list(options.actions),
    }


def _name_of(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
