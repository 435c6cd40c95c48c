"""The documents of the examples, and of the docs, as AsyncAPI's own schema and its official parser see them.

The parser is a package of npm, and not installed for the tests: they ask it where ``ASYNCAPI_PARSER`` names its bundle
for browsers. See docs/asyncapi.md for the way to get it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.asyncapi.documents import APPS, ROOT, of_applications
from tests.asyncapi.test_document import mistakes

PARSER = os.environ.get("ASYNCAPI_PARSER")


def findings(documents: dict[str, Any], folder: Path) -> dict[str, list[str]]:
    """What the official parser says of these documents, but that there is a newer version."""
    assert PARSER is not None
    file = folder / "documents.json"
    file.write_text(json.dumps(documents), encoding="utf-8")
    command = [shutil.which("node") or "node", str(Path(__file__).with_name("parse.js")), PARSER, str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    found: dict[str, list[str]] = json.loads(result.stdout)
    return {name: [each for each in said if "asyncapi-latest-version" not in each] for name, said in found.items()}


@pytest.mark.once
@pytest.mark.timeout(180)
def test_the_documents_of_the_docs_are_valid(tmp_path: Path) -> None:
    file = tmp_path / "documents.json"
    command = [sys.executable, "-m", "tests.asyncapi.documents", str(file)]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    documents = json.loads(file.read_text(encoding="utf-8"))
    assert documents.keys() > set(APPS)
    assert {name: found for name, document in documents.items() if (found := mistakes(document))} == {}


@pytest.mark.once
@pytest.mark.timeout(180)
@pytest.mark.skipif(PARSER is None, reason="ASYNCAPI_PARSER names no bundle of @asyncapi/parser")
def test_the_official_parser_has_nothing_to_say(tmp_path: Path) -> None:
    documents = of_applications()
    # That it would say something.
    documents["broken"] = {**documents["tests.asyncapi.app"], "info": {"title": "No version"}}
    found = findings(documents, tmp_path)
    assert any(each.startswith("error") for each in found.pop("broken"))
    assert {name: said for name, said in found.items() if said} == {}
    assert found.keys() == documents.keys() - {"broken"}
