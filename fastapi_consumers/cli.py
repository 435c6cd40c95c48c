"""The command line: publish to an application, and look at what one routes.

Exit codes: 0 for done; 1 if it could not be done, such as without a broker; 2 if what was asked for cannot be meant.
Results go to the standard output, everything else to the standard error.

A command is a function. What it raises of this package's errors becomes a message and an exit code.
"""

import asyncio
import difflib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import click
from pydantic_core import from_json
from starlette.applications import Starlette

from .addressing import Addressed, event_for, event_for_group
from .exceptions import BrokerUnavailable, ConsumerError, ImproperlyConfigured
from .publisher import Publisher
from .routing import RoutedConsumer, routed_consumers


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ImproperlyConfigured as error:
            raise click.UsageError(str(error)) from None
        except BrokerUnavailable as error:
            raise click.ClickException("\n".join([str(error), *getattr(error, "__notes__", ())])) from None
        except ConsumerError as error:
            raise click.UsageError(str(error)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fastapi-consumers")
def cli() -> None:
    """Reach the consumers of an application, and look at them."""


_url = click.option(
    "--url",
    envvar="FASTAPI_CONSUMERS_URL",
    show_envvar=True,
    required=True,
    help="The broker that the application uses, such as redis://localhost:6379/0. Others on this machine can read what "
    "stands on a command line: put passwords into the variable.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@cli.command()
@click.argument("words", nargs=-1, required=True, metavar="[GROUP] EVENT [DATA]")
@_url
@click.option("--user", help="Send to all connections of this user; then there is no GROUP.")
@click.option("--channel", help="Send to this one connection; then there is no GROUP.")
@click.option("--timeout", default=1.0, show_default=True, help="Seconds that the broker may take.")
@_as_json
def publish(
    words: Sequence[str], url: str, user: str | None, channel: str | None, timeout: float, as_json: bool
) -> None:
    """Send an EVENT to the members of a GROUP.

    DATA is JSON, by default null; "-" reads it from the standard input.

    \b
      fastapi-consumers publish chat.lobby said '{"text": "hi"}'
      echo '[1, 2]' | fastapi-consumers publish --user ann numbers -
    """
    if user is not None and channel is not None:
        raise click.UsageError("Name one receiver: --user or --channel.")
    group = None
    if user is None and channel is None:
        if len(words) < 2:
            raise click.UsageError("Expected GROUP EVENT [DATA], or --user or --channel with EVENT [DATA].")
        group, *words = words
    if len(words) > 2:
        raise click.UsageError(f"Expected one DATA after the event {words[0]!r}; found {len(words) - 1}. Quote it.")
    event, data = words[0], _data(words[1]) if len(words) == 2 else None
    if group is not None:
        addressed: Addressed | None = event_for_group(group, event, data)
    else:
        addressed = event_for(event, data, user=user, channel=channel)
    if addressed is None:
        raise click.UsageError(f"{channel!r} cannot be a channel: it is what a consumer has as its channel_name.")
    asyncio.run(_publish(url, timeout, addressed))
    receiver = {"group": group, "user": user, "channel": channel}
    [(kind, name)] = [item for item in receiver.items() if item[1] is not None]
    click.echo(json.dumps({"event": event, kind: name}) if as_json else f"published {event} to {kind} {name}")


async def _publish(url: str, timeout: float, addressed: Addressed) -> None:
    async with Publisher(url, broker_timeout=timeout) as publisher:
        await publisher.publish(addressed)


def _data(text: str) -> Any:
    try:
        return from_json(sys.stdin.buffer.read() if text == "-" else text, allow_inf_nan=False)
    except ValueError as error:
        raise click.UsageError(f"DATA is not JSON: {error}. Text stands in quotes of its own: '\"hi\"'.") from None


def _app_argument(command: Callable[..., None]) -> Callable[..., None]:
    factory = click.option("--factory", is_flag=True, help="APP is a function that makes the application.")
    argument = click.argument("app", metavar="MODULE:APP")
    return argument(factory(command))


@cli.command()
@_app_argument
@_as_json
def routes(app: str, factory: bool, as_json: bool) -> None:
    """Print which consumer answers which URL."""
    found = _consumers_of(app, factory)
    if as_json:
        click.echo(json.dumps([_as_dict(route) for route in found], indent=2))
        return
    rows = [(route.path, _name_of(route.consumer_class), route.name) for route in found]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for path, consumer, name in rows:
        click.echo(f"{path:<{widths[0]}}  {consumer:<{widths[1]}}  {name}".rstrip())


@cli.command()
@_app_argument
def inspect(app: str, factory: bool) -> None:
    """Print everything that the consumers of an application declare."""
    paths: dict[type[Any], list[str]] = {}
    for route in _consumers_of(app, factory):
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


def _consumers_of(text: str, factory: bool) -> list[RoutedConsumer]:
    found = list(routed_consumers(load_app(text, factory=factory)))
    if not found:
        raise click.ClickException(f"{text} routes no consumers: add them with add_consumers() or add_routes().")
    return found


def load_app(text: str, *, factory: bool = False) -> Starlette:
    """The application that ``module:attribute`` names, imported as from the working directory.

    Raises ``click.UsageError`` if it is not there, ``click.ClickException`` with a traceback if its module fails.
    """
    module_name, _, attribute = text.partition(":")
    if not module_name or not attribute:
        raise click.UsageError(f"Expected MODULE:APP, such as main:app or shop.main:app; found {text!r}.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name)
    found: Any = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise click.UsageError(f"The module {module_name!r} has no {attribute!r}.{_hint(attribute, module)}")
        found = getattr(found, name)
    if factory:
        if not callable(found):
            raise click.UsageError(f"{text} is {found!r:.200}; expected a function that makes the application.")
        found = found()
    if isinstance(found, Starlette):
        return found
    if not factory and callable(found) and not hasattr(found, "app"):
        fix = "If it is a function that makes one, add --factory."
    else:
        fix = "Name the application itself, not a middleware around it or a router."
    raise click.UsageError(f"{text} is {found!r:.200}; expected a FastAPI or Starlette application. {fix}")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImproperlyConfigured:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise click.UsageError(
                f"There is no module {error.name!r}, neither in {os.getcwd()} nor among the installed packages. "
                "Run this where the application lies, and write its module as in an import."
            ) from None
        raise click.ClickException(_failure(name, error)) from None
    except Exception as error:
        raise click.ClickException(_failure(name, error)) from None


def _failure(name: str, error: Exception) -> str:
    """The traceback, from where the module begins."""
    where = error.__traceback__
    while where is not None and ("importlib" in (file := where.tb_frame.f_code.co_filename) or file == __file__):
        where = where.tb_next
    text = "".join(traceback.format_exception(type(error), error, where))
    return f"The module {name!r} could not be imported.\n{text.rstrip()}"


def _hint(attribute: str, module: Any) -> str:
    apps = [name for name, value in vars(module).items() if isinstance(value, Starlette)]
    close = difflib.get_close_matches(attribute, list(vars(module)), 1)
    names = sorted({*apps, *close})
    return f" There is {' and '.join(names)}." if names else ""
