"""The command line, as a program: what an application routes, and how mistakes are told."""

import json
import sys

import click
import pytest

from fastapi_consumers.cli import cli

SHOP = '''
from fastapi import APIRouter, FastAPI
from fastapi_consumers import Consumer, GroupConsumer, action, add_consumers, add_routes, every, path


class Counter(GroupConsumer):
    """Counts."""

    groups = ["counter.{name}"]

    @action
    async def count(self, to: int) -> int:
        return to

    @every("1h")
    @classmethod
    async def tick(cls) -> None: ...


class Raw(Consumer):
    pass


app = FastAPI()
add_consumers(app, [path("/counter/{name}", Counter, name="counter"), path("/raw", Raw)])

router = APIRouter(prefix="/router")
add_routes(router, [path("/{name}", Counter, name="included")])
app.include_router(router, prefix="/v1")

inner = FastAPI()
add_consumers(inner, [path("/raw", Raw, name="inner")])
app.mount("/inner", inner)
app.mount("/direct", Raw.as_asgi())


@app.get("/plain")
async def plain() -> None: ...


empty = FastAPI()
text = "text"


def make_app() -> FastAPI:
    return inner


def broken_factory() -> FastAPI:
    return app.nothing


class Namespace:
    app = inner
'''


@pytest.fixture
def look(call, tmp_path, monkeypatch):
    """Calls a command in a folder with applications, whose modules are forgotten afterwards."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "main.py").write_text(SHOP)
    (tmp_path / "failing.py").write_text("import shop\n\n1 / 0\n")
    (tmp_path / "missing.py").write_text("import there_is_no_such_package\n")
    (tmp_path / "mistaken.py").write_text(
        "from fastapi_consumers import GroupConsumer\n\nclass Bad(GroupConsumer):\n    groups = 7\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    yield call
    for name in [name for name in sys.modules if name.partition(".")[0] in {"shop", "failing", "missing", "mistaken"}]:
        del sys.modules[name]


def test_routes_prints_which_consumer_answers_which_url(look):
    result = look("routes", "shop.main:app")
    assert (result.code, result.err) == (0, "")
    assert [line.split() for line in result.out.splitlines()] == [
        ["/counter/{name}", "shop.main.Counter", "counter"],
        ["/raw", "shop.main.Raw", "Raw"],
        ["/v1/router/{name}", "shop.main.Counter", "included"],
        ["/inner/raw", "shop.main.Raw", "inner"],
        ["/direct", "shop.main.Raw"],
    ]


def test_routes_prints_json_for_programs(look):
    result = look("routes", "shop.main:app", "--json")
    assert json.loads(result.out)[0] == {
        "path": "/counter/{name}",
        "name": "counter",
        "consumer": "shop.main.Counter",
        "groups": ["counter.{name}"],
        "actions": ["count"],
    }


def test_inspect_prints_what_each_class_declares_once(look):
    result = look("inspect", "shop.main:app")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("Counter (shop.main, line ") == 1
    assert "/counter/{name}, /v1/router/{name}\n" in result.out
    assert "counter.{name}" in result.out
    assert "count -> Counter.count(), line " in result.out


@pytest.mark.parametrize("arguments", [("shop.main:make_app", "--factory"), ("shop.main:Namespace.app",)])
def test_an_app_may_be_made_by_a_function_or_lie_deeper(look, arguments):
    assert look("routes", *arguments).out.split() == ["/raw", "shop.main.Raw", "inner"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["shop.main"], 2, "Expected MODULE:APP"),
        (["nothing.main:app"], 2, "There is no module 'nothing'"),
        (["shop.nothing:app"], 2, "There is no module 'shop.nothing'"),
        (["shop.main:ap"], 2, "has no 'ap'. There is app and empty and inner."),
        (["shop.main:text"], 2, "is 'text'; expected a FastAPI or Starlette application"),
        (["shop.main:make_app"], 2, "add --factory"),
        (["shop.main:text", "--factory"], 2, "expected a function that makes the application"),
        (["shop.main:empty"], 1, "routes no consumers"),
        (["shop.main:broken_factory", "--factory"], 1, "'FastAPI' object has no attribute 'nothing'"),
        (["shop.main:Counter", "--factory"], 2, "expected a FastAPI or Starlette application"),
        (["failing:app"], 1, "ZeroDivisionError"),
        (["missing:app"], 1, "No module named 'there_is_no_such_package'"),
        (["mistaken:app"], 2, "has 1 mistake"),
    ],
)
def test_an_app_that_cannot_be_looked_at_is_told_with_an_exit_code(look, arguments, code, text):
    result = look("routes", *arguments)
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert "importlib" not in result.err
    assert "fastapi_consumers" not in result.err


def test_inspect_prints_json_for_programs(look):
    found = {each["consumer"]: each for each in json.loads(look("inspect", "shop.main:app", "--json").out)}
    counter = found["shop.main.Counter"]
    assert (counter["paths"], counter["groups"]) == (["/counter/{name}", "/v1/router/{name}"], ["counter.{name}"])
    actions = {each["name"]: each for each in counter["actions"]}
    assert (actions["count"]["builtin"], actions["cancel"]["builtin"]) == (False, True)
    assert actions["count"]["data"]["properties"] == {"to": {"title": "To", "type": "integer"}}
    assert actions["count"]["data"]["required"] == ["to"]
    assert "tick" in str(counter["schedules"])
    assert found["shop.main.Raw"]["actions"] == []


VAULT = """
from fastapi import FastAPI
from fastapi_consumers import GroupConsumer, action, add_consumers, path
from fastapi_consumers.permissions import BasePermission, IsAuthenticated


class Secretive(BasePermission):
    key = "hush"

    def __repr__(self):
        return f"Secretive({self.key})"

    def has_permission(self, consumer, action=None):
        return True


class Vault(GroupConsumer):
    groups = ["vault"]
    permission_classes = [IsAuthenticated & Secretive]
    throttle_classes = ["5/second; 100/minute"]

    @action(permission_classes=[Secretive])
    async def unlock(self) -> None: ...


app = FastAPI()
add_consumers(app, [path("/vault", Vault)])
"""


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_what_the_policies_of_others_say_of_themselves_is_not_printed(call, tmp_path, monkeypatch, more):
    (tmp_path / "vault.py").write_text(VAULT)
    monkeypatch.chdir(tmp_path)
    result = call("inspect", "vault:app", *more)
    assert result.code == 0
    assert "hush" not in result.out
    for told in ("(IsAuthenticated & Secretive)", "5/second; 100/minute"):
        assert told in result.out


def test_without_what_it_is_built_on_it_names_the_extra(run):
    code = "import sys; sys.modules['click'] = None; from fastapi_consumers.__main__ import main; main()"
    result = run(command=("-c", code))
    assert result.returncode == 1
    assert result.stderr == (
        "The command line needs click, which is not installed: pip install 'fastapi-consumers[cli]'\n"
    )


@pytest.mark.parametrize(("module", "arguments"), [("websockets", ["connect", "ws://x"]), ("uvicorn", ["demo"])])
def test_what_a_command_needs_is_named_with_its_extra(call, monkeypatch, module, arguments):
    for name in [name for name in sys.modules if name.startswith(("fastapi_consumers.cli.connect.", module + "."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    result = call(*arguments)
    extra = "cli" if module == "websockets" else "server"
    assert (result.code, result.out) == (1, "")
    assert f"needs {module}, which is not installed: pip install 'fastapi-consumers[{extra}]'" in result.err


def test_without_arguments_it_tells_what_there_is(run):
    result = run()
    told = result.stdout + result.stderr
    for name in ("connect", "demo", "publish", "history", "presence", "routes", "inspect", "asyncapi"):
        assert f"\n  {name} " in told


@pytest.mark.parametrize("name", ["connect", "demo", "publish", "history", "presence", "routes", "inspect", "asyncapi"])
def test_each_command_explains_itself_and_its_options(call, name):
    result = call(name, "--help")
    assert result.code == 0
    options = [line for line in result.out.splitlines() if line.startswith("  -")]
    assert options
    assert all(option.help for option in cli.commands[name].params if isinstance(option, click.Option))
