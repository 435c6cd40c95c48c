"""``asyncapi``: the document, on the command line."""

import json
import sys

import pytest
import yaml
from fastapi import FastAPI

from fastapi_consumers.asyncapi import asyncapi_document
from tests.asyncapi.app import app


def test_it_prints_the_document_as_json_and_as_yaml(call):
    expected = json.loads(json.dumps(asyncapi_document(app)))
    result = call("asyncapi", "tests.asyncapi.app:app")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out) == expected
    assert call("asyncapi", "tests.asyncapi.app:app", "--json") == result
    assert call("asyncapi", "tests.asyncapi.app:app", "--json", "--yaml").code == 2
    result = call("asyncapi", "tests.asyncapi.app:app", "--yaml")
    assert (result.code, result.err) == (0, "")
    assert yaml.safe_load(result.out) == expected


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("tests.asyncapi.app:Room", 2, "expected a FastAPI or Starlette application"),
        ("tests.asyncapi.app:bare", 1, "routes no consumers"),
    ],
)
def test_what_has_no_document_is_told_with_an_exit_code(call, monkeypatch, name, code, text):
    monkeypatch.setattr(sys.modules["tests.asyncapi.app"], "bare", FastAPI(), raising=False)
    result = call("asyncapi", name)
    assert (result.code, result.out) == (code, "")
    assert text in result.err


def test_without_pyyaml_it_names_the_extra(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    result = call("asyncapi", "tests.asyncapi.app:app", "--yaml")
    assert (result.code, result.out) == (1, "")
    assert "pip install 'fastapi-consumers[yaml]'" in result.err
