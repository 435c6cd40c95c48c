"""The documents of all examples, of the tests' applications and of those in the docs, as JSON: name to document.

Run as a program, since the snippets of the docs are executed for it, and leave things behind.
"""

import importlib
import json
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from fastapi_consumers import ImproperlyConfigured
from fastapi_consumers.asyncapi import AsyncAPI, asyncapi_document

ROOT = Path(__file__).resolve().parents[2]
APPS = [
    *sorted(f"examples.{file.parent.name}.app" for file in ROOT.glob("examples/*/app.py")),
    "tests.asyncapi.app",
    "tests.authentication.served",
    "tests.presence.app",
    "tests.server.app",
]


def of_applications() -> dict[str, Any]:
    """Those of the examples and of the tests, one of them also with a server, which makes URLs absolute."""
    found = {name: asyncapi_document(importlib.import_module(name).app) for name in APPS}
    settings = AsyncAPI(servers={"this": {"host": "localhost:8000", "protocol": "ws", "pathname": "/api"}})
    with_server = asyncapi_document(importlib.import_module("tests.asyncapi.app").app, settings)
    return {**found, "tests.asyncapi.app, with a server": with_server}


def of_snippets() -> Iterator[tuple[str, Any]]:
    """Those of each application that a page of the docs has. The tutorial's are left out: its steps are files."""
    from tests.test_docs import MODULES

    for number, snippets in enumerate(each for each in MODULES if not each.file):
        module = types.ModuleType(f"snippets_{number}")
        sys.modules[module.__name__] = module  # where pydantic looks names up
        exec(compile(snippets.source, str(snippets), "exec"), vars(module))
        for name, value in tuple(vars(module).items()):
            if isinstance(value, Starlette):
                try:
                    document = asyncapi_document(value)
                except ImproperlyConfigured:
                    continue  # The page shows a mistake.
                if document["channels"]:
                    yield f"{snippets} {name}", document


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        target.write_text(json.dumps({**of_applications(), **dict(of_snippets())}), encoding="utf-8")
