"""An application that is named on the command line, and the consumers that it routes."""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click
from pydantic.errors import PydanticInvalidForJsonSchema
from starlette.applications import Starlette

from ..actions import Action
from ..exceptions import ImproperlyConfigured
from ..routing import RoutedConsumer, routed_consumers
from ..runtime import Consumers


def app_argument(command: Callable[..., None]) -> Callable[..., None]:
    factory = click.option("--factory", is_flag=True, help="APP is a function that makes the application.")
    argument = click.argument("app", metavar="MODULE:APP")
    return argument(factory(command))


def consumers_of(app: Starlette, text: str) -> list[RoutedConsumer]:
    """All consumers that an application routes. Raises ``click.ClickException`` if there are none."""
    found = list(routed_consumers(app))
    if not found:
        raise click.ClickException(f"{text} routes no consumers: add them with add_consumers() or add_routes().")
    return found


def actions_of(app: Starlette, cls: type[Any]) -> dict[str, Action]:
    """What clients may call, by wire name; the framework's own actions too, where the application is set up."""
    consumers = getattr(app.state, "consumers", None)
    if not isinstance(consumers, Consumers):
        return dict(cls._meta.actions)
    return {name: plan.action for name, plan in consumers.plan(cls).actions.items()}


def schema_of(action: Action) -> dict[str, Any] | None:
    """JSON Schema of an action's payload; ``None`` if it takes none, or one that JSON Schema cannot describe."""
    if action.payload.adapter is None:
        return None
    try:
        return action.payload.adapter.json_schema()
    except PydanticInvalidForJsonSchema:
        return None


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
        try:
            found = found()
        except ImproperlyConfigured:
            raise
        except Exception as error:
            raise click.ClickException(_failure(f"{text}() failed.", error)) from None
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
        raise click.ClickException(_failure(f"The module {name!r} could not be imported.", error)) from None
    except Exception as error:
        raise click.ClickException(_failure(f"The module {name!r} could not be imported.", error)) from None


def _failure(what: str, error: Exception) -> str:
    """The traceback, from where the application's own code begins."""
    where = error.__traceback__
    while where is not None and ("importlib" in (file := where.tb_frame.f_code.co_filename) or file == __file__):
        where = where.tb_next
    text = "".join(traceback.format_exception(type(error), error, where))
    return f"{what}\n{text.rstrip()}"


def _hint(attribute: str, module: Any) -> str:
    apps = [name for name, value in vars(module).items() if isinstance(value, Starlette)]
    close = difflib.get_close_matches(attribute, list(vars(module)), 1)
    names = sorted({*apps, *close})
    return f" There is {' and '.join(names)}." if names else ""
