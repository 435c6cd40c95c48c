"""The command line: publish to an application, read a group's history, and look at what an application routes.

Exit codes: 0 for done; 1 if it could not be done, such as without a broker; 2 if what was asked for cannot be meant.
Results go to the standard output, everything else to the standard error.

A command is a function. What it raises of this package's errors becomes a message and an exit code.
"""

import asyncio
import dataclasses
import difflib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click
from pydantic_core import from_json
from starlette.applications import Starlette

from .addressing import Addressed, event_for, event_for_group
from .backends import history_backend
from .exceptions import BrokerUnavailable, ConsumerError, ImproperlyConfigured, Problem
from .groups import check_group
from .history import GroupHistory, History, HistorySlice, HistoryStore
from .history.base import check_idempotency_key
from .history.view import MAX_READ
from .messages import Position
from .publisher import Publisher
from .routing import RoutedConsumer, routed_consumers
from .transports.urls import seconds_of, transport_of

T = TypeVar("T")


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
_history_url = click.option(
    "--history-url",
    envvar="FASTAPI_CONSUMERS_HISTORY_URL",
    show_envvar=True,
    help="Where the application keeps the history of its groups, if that is not the broker.",
)
_timeout = click.option("--timeout", default=1.0, show_default=True, help="Seconds that it may take.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@cli.command()
@click.argument("words", nargs=-1, required=True, metavar="[GROUP] EVENT [DATA]")
@_url
@click.option("--user", help="Send to all connections of this user; then there is no GROUP.")
@click.option("--channel", help="Send to this one connection; then there is no GROUP.")
@click.option("--idempotency-key", help="In a group with history: send nothing if it had an event with this key.")
@_history_url
@_timeout
@_as_json
def publish(
    words: Sequence[str],
    url: str,
    user: str | None,
    channel: str | None,
    idempotency_key: str | None,
    history_url: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Send an EVENT to the members of a GROUP.

    DATA is JSON, by default null; "-" reads it from the standard input. In a group with history the event's position
    is printed, its epoch and offset.

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
    if idempotency_key is not None:
        if group is None:
            raise click.UsageError("Only groups have a history, which is where idempotency keys are kept.")
        _usage(check_idempotency_key, idempotency_key)
    event, data = words[0], _data(words[1]) if len(words) == 2 else None
    if group is not None:
        addressed: Addressed | None = event_for_group(group, event, data)
    else:
        addressed = event_for(event, data, user=user, channel=channel)
    if addressed is None:
        raise click.UsageError(f"{channel!r} cannot be a channel: it is what a consumer has as its channel_name.")
    publishing = _publish(url, history_url, timeout, addressed, idempotency_key)
    position = _usage(asyncio.run, publishing)
    receiver = {"group": group, "user": user, "channel": channel}
    [(kind, name)] = [item for item in receiver.items() if item[1] is not None]
    place = position._asdict() if position is not None else {}
    if as_json:
        click.echo(json.dumps({"event": event, kind: name, **place}))
    else:
        at = f" at {position.epoch}:{position.offset}" if position is not None else ""
        click.echo(f"published {event} to {kind} {name}{at}")


async def _publish(
    url: str, history_url: str | None, timeout: float, addressed: Addressed, idempotency_key: str | None
) -> Position | None:
    async with Publisher(url, history_url=history_url, broker_timeout=timeout) as publisher:
        return await publisher.publish(addressed, idempotency_key)


def _usage(function: Callable[..., T], *arguments: Any) -> T:
    """Call it; a ``ValueError`` is the user's mistake."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@cli.command()
@click.argument("group")
@_url
@_history_url
@click.option("--limit", type=click.IntRange(1, MAX_READ), default=20, show_default=True, help="How many at most.")
@_timeout
@_as_json
def history(group: str, url: str, history_url: str | None, limit: int, timeout: float, as_json: bool) -> None:
    """Print the newest events of a GROUP with history, the newest last.

    Each with its offset, its time, its name and its data.
    """
    found = asyncio.run(_read_history(check_group(group), url, history_url, limit, timeout))
    events = [{**dataclasses.asdict(event), "at": event.at.isoformat()} for event in reversed(found.events)]
    if as_json:
        click.echo(json.dumps({"epoch": found.epoch or None, "top": found.top, "results": events}))
        return
    for event in events:
        click.echo(f"{event['offset']}  {event['at']}  {event['event']}  {json.dumps(event['data'])}")
    if not events:
        click.echo(f"There are no events of the group {group!r}.", err=True)


async def _read_history(group: str, url: str, history_url: str | None, limit: int, timeout: float) -> HistorySlice:
    store = history_backend(
        transport_of(url, broker_timeout=timeout),
        None if history_url == url else history_url,
        timeout=seconds_of(timeout),
    ).store
    if store is None or not store.is_distributed:
        found, fix = "a broker that keeps no history", "name where the application keeps it: --history-url"
        problem = Problem("no-history-store", "--url", found, "a place where the application keeps its history", fix)
        raise ImproperlyConfigured("The history", [problem])
    try:
        await store.open()
        # How much is kept does not matter to who reads.
        return await GroupHistory(group, History(), _ready(store)).read(limit=limit, newest_first=True)
    finally:
        await store.close()


def _ready(store: HistoryStore) -> Callable[[], Awaitable[HistoryStore]]:
    async def ready() -> HistoryStore:
        return store

    return ready


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
