"""A real server, and the command line: called in this process, which is fast, or run in one of its own."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn

from fastapi_consumers.cli import cli
from tests.cli.app import app as tested_app

ROOT = Path(__file__).resolve().parent.parent.parent
#: Seconds that anything may take on a slow machine.
PATIENCE = 60.0


class Result(NamedTuple):
    code: int
    out: str
    err: str


@contextmanager
def serving(app: Any) -> Iterator[int]:
    """uvicorn in a thread; the port that it listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="websockets-sansio"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def port() -> Iterator[int]:
    with serving(tested_app) as port:
        yield port


@pytest.fixture
def url(port: int) -> str:
    return f"ws://127.0.0.1:{port}"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Result]:
    """Runs a command to its end, with this text as its standard input."""

    def call(*arguments: str, input: str = "") -> Result:
        file = tmp_path / "standard input"
        file.write_text(input, encoding="utf-8")
        capsys.readouterr()
        with file.open() as stdin, monkeypatch.context() as patch:
            patch.setattr("sys.stdin", stdin)
            with pytest.raises(SystemExit) as ended:
                cli.main(list(arguments), prog_name="fastapi-consumers")
        code = ended.value.code
        assert isinstance(code, int)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def command_environment() -> dict[str, str]:
    """For processes of their own: this package's source, if it is not installed."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}


@pytest.fixture
def run(command_environment: dict[str, str], tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs the program in a process of its own."""

    def run(
        *arguments: str, command: tuple[str, ...] = ("-m", "fastapi_consumers"), input: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *command, *arguments], cwd=tmp_path, text=True, capture_output=True, timeout=4 * PATIENCE,
            check=False, env=command_environment, input=input,
        )  # fmt: skip

    return run
