"""``asyncapi``: the AsyncAPI document of an application, without starting it."""

import json

import click

from ..asyncapi import asyncapi_document
from ..asyncapi.document import as_yaml
from .applications import app_argument, consumers_of, load_app


@click.command(short_help="Print the AsyncAPI document of an application.")
@app_argument
@click.option("--json", "in_json", is_flag=True, help="Print JSON, as it does by default.")
@click.option("--yaml", "in_yaml", is_flag=True, help="Print YAML, in place of JSON.")
def asyncapi(app: str, factory: bool, in_json: bool, in_yaml: bool) -> None:
    """Print the AsyncAPI 3.0 document of an application: what its consumers say and hear.

    It is what the application serves at /asyncapi.json, but for the server, which only a request tells; those that
    the application names are in it.

    \b
      fastapi-consumers asyncapi main:app > asyncapi.json
    """
    if in_json and in_yaml:
        raise click.UsageError("Ask for one of them: --json or --yaml.")
    loaded = load_app(app, factory=factory)
    consumers_of(loaded, app)
    document = asyncapi_document(loaded)
    if in_yaml:
        try:
            click.echo(as_yaml(document), nl=False)
        except ImportError as error:
            raise click.ClickException(str(error)) from None
    else:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
