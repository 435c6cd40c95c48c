"""The command line: talk to consumers, publish to an application, see who is there and what an application routes.

Exit codes: 0 for done; 1 if it could not be done, such as without a broker; 2 if what was asked for cannot be meant.
Results go to the standard output, everything else to the standard error.

A command is a function in a module of its own. What it raises of this package's errors becomes a message and an exit
code. Nothing in the package imports this one.
"""

import click

from .commands import Commands
from .history import history
from .inspect import inspect, routes
from .publish import publish


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fastapi-consumers")
def cli() -> None:
    """Reach the consumers of an application, and look at them."""


for command in (publish, history, routes, inspect):
    cli.add_command(command)
