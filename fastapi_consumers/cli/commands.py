"""What all commands share: the options that several have, and what the package's errors become."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from ..exceptions import BrokerUnavailable, ConsumerError, ImproperlyConfigured

T = TypeVar("T")


class Commands(click.Group):
    """Commands whose errors of this package become a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ImproperlyConfigured as error:
            raise click.UsageError(str(error)) from None
        except BrokerUnavailable as error:
            raise click.ClickException("\n".join([str(error), *getattr(error, "__notes__", ())])) from None
        except ConsumerError as error:
            raise click.UsageError(str(error)) from None


class Seconds(click.FloatRange):
    """A finite time; a range alone lets ``nan`` pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{seconds} is not a finite number of seconds.", param, ctx)
        return seconds


url_option = click.option(
    "--url",
    envvar="FASTAPI_CONSUMERS_URL",
    show_envvar=True,
    required=True,
    help="The broker that the application uses, such as redis://localhost:6379/0. Others on this machine can read what "
    "stands on a command line: put passwords into the variable.",
)
history_url_option = click.option(
    "--history-url",
    envvar="FASTAPI_CONSUMERS_HISTORY_URL",
    show_envvar=True,
    help="Where the application keeps the history of its groups, if that is not the broker.",
)
timeout_option = click.option(
    "--timeout",
    type=Seconds(min=0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it may take.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def usage(function: Callable[..., T], *arguments: Any) -> T:
    """Call it; a ``ValueError`` is the user's mistake."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@contextmanager
def needs(extra: str, *names: str) -> Iterator[None]:
    """Around imports: if one of these modules is not installed, name the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in names:
            raise
        text = f"This needs {name}, which is not installed: pip install 'fastapi-consumers[{extra}]'"
        raise click.ClickException(text) from None
