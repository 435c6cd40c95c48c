"""The command line: talk to consumers, publish to an application, see who is there and what an application routes.

Exit codes: 0 for done; 1 if it could not be done, such as without a broker; 2 if what was asked for cannot be meant;
3 if a request that ``connect`` sent was answered with an error; 130 if Ctrl-C ended it. Results go to the standard
output, everything else to the standard error.

A command is a function, in a module of its family. What it raises of this package's errors becomes a message and an
exit code. Nothing else in the package imports this one.
"""

import click

from .asyncapi import asyncapi
from .commands import Commands
from .connect import connect
from .demo import demo
from .history import history
from .inspect import inspect, routes
from .presence import presence
from .publish import publish


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fastapi-consumers")
def cli() -> None:
    """Talk to the consumers of an application, reach their groups, and look at what there is.

    Each command explains itself: fastapi-consumers COMMAND --help.
    """


for command in (connect, demo, publish, history, presence, routes, inspect, asyncapi):
    cli.add_command(command)
