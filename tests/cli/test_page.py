"""What the page about the command line shows is what happens: its commands are run, in order."""

import importlib
import re
import shlex
import subprocess
import sys
import uuid

import pytest
from websockets.sync.client import connect

from fastapi_consumers.cli import cli
from fastapi_consumers.cli.demo.app import app as demo
from tests.cli.conftest import PATIENCE, ROOT, serving
from tests.transports.conftest import broker, make_broker

__all__ = ["broker", "make_broker"]

PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")


def commands_of(mark):
    """The commands below this mark, and what each of them prints."""
    found = []
    for block in re.findall(rf"^<!-- {mark} -->\n```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def check(call, command, expected):
    """Call it; ``…`` stands for any text in what is expected of it."""
    feeding, _, command = command.rpartition(" | ")
    given = subprocess.run(feeding, shell=True, capture_output=True, text=True, check=True).stdout if feeding else ""
    program, *arguments = shlex.split(command)
    assert program == "fastapi-consumers"
    result = call(*arguments, input=given)
    shown = result.out or result.err
    pattern = ".*?".join(map(re.escape, expected.split("…")))
    assert re.fullmatch(pattern, shown, re.DOTALL), f"{command}\n{shown}"


def test_what_it_shows_of_the_demo_happens(call):
    commands = commands_of("run")
    assert len(commands) == 6
    with serving(demo) as port:
        for command, expected in commands:
            host = f"127.0.0.1:{port}"
            check(
                call, command.replace("127.0.0.1:8000", host), re.sub(r"(?<!as ws://)127\.0\.0\.1:8000", host, expected)
            )


def test_what_it_shows_of_a_running_application_happens(call, broker, tmp_path, monkeypatch):
    [source] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "main.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("FASTAPI_CONSUMERS_URL", f"{broker.url}?prefix={uuid.uuid4().hex}:")
    monkeypatch.delitem(sys.modules, "main", raising=False)
    commands = commands_of("run: broker")
    assert len(commands) == 10
    try:
        with serving(importlib.import_module("main").app) as port:
            with connect(f"ws://127.0.0.1:{port}/chat/lobby?name=ann", open_timeout=PATIENCE) as ann:
                ann.send('{"action": "presence", "request_id": 1}')
                while '"reply"' not in ann.recv(PATIENCE):
                    pass  # Then she is there.
                for command, expected in commands:
                    check(call, command, expected)
    finally:
        sys.modules.pop("main", None)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_each_command_has_its_place_on_the_page(name):
    assert f"[`{name}" in PAGE
    for option in cli.commands[name].params:
        if name == "connect" and option.opts[0].startswith("--") and option.opts[0] not in ("--factory",):
            assert option.opts[0] in PAGE or option.secondary_opts[0] in PAGE
