"""The command line, as a program: what an application routes, and how mistakes are told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SHOP = '''
from fastapi import APIRouter, FastAPI
from fastapi_consumers import Consumer, GroupConsumer, action, add_consumers, add_routes, path


class Counter(GroupConsumer):
    """Counts."""

    groups = ["counter.{name}"]

    @action
    async def count(self, to: int) -> int:
        return to


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
def run(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "main.py").write_text(SHOP)
    (tmp_path / "failing.py").write_text("import shop\n\n1 / 0\n")
    (tmp_path / "missing.py").write_text("import there_is_no_such_package\n")
    (tmp_path / "mistaken.py").write_text(
        "from fastapi_consumers import GroupConsumer\n\nclass Bad(GroupConsumer):\n    groups = 7\n"
    )

    def run(*arguments, command=("-m", "fastapi_consumers")):
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return subprocess.run(
            [sys.executable, *command, *arguments], cwd=tmp_path, text=True, capture_output=True, timeout=40,
            check=False, env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
        )  # fmt: skip

    return run


def test_routes_prints_which_consumer_answers_which_url(run):
    result = run("routes", "shop.main:app")
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["/counter/{name}", "shop.main.Counter", "counter"],
        ["/raw", "shop.main.Raw", "Raw"],
        ["/v1/router/{name}", "shop.main.Counter", "included"],
        ["/inner/raw", "shop.main.Raw", "inner"],
        ["/direct", "shop.main.Raw"],
    ]


def test_routes_prints_json_for_programs(run):
    result = run("routes", "shop.main:app", "--json")
    assert json.loads(result.stdout)[0] == {
        "path": "/counter/{name}",
        "name": "counter",
        "consumer": "shop.main.Counter",
        "groups": ["counter.{name}"],
        "actions": ["count"],
    }


def test_inspect_prints_what_each_class_declares_once(run):
    result = run("inspect", "shop.main:app")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("Counter (shop.main, line ") == 1
    assert "/counter/{name}, /v1/router/{name}\n" in result.stdout
    assert "counter.{name}" in result.stdout
    assert "count -> Counter.count(), line " in result.stdout


@pytest.mark.parametrize("arguments", [("shop.main:make_app", "--factory"), ("shop.main:Namespace.app",)])
def test_an_app_may_be_made_by_a_function_or_lie_deeper(run, arguments):
    assert run("routes", *arguments).stdout.split() == ["/raw", "shop.main.Raw", "inner"]


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
        (["failing:app"], 1, "ZeroDivisionError"),
        (["missing:app"], 1, "No module named 'there_is_no_such_package'"),
        (["mistaken:app"], 2, "has 1 mistake"),
    ],
)
def test_an_app_that_cannot_be_looked_at_is_told_with_an_exit_code(run, arguments, code, text):
    result = run("routes", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert text in result.stderr
    assert "importlib" not in result.stderr
    assert "fastapi_consumers" not in result.stderr


def test_without_what_it_is_built_on_it_names_the_extra(run):
    code = "import sys; sys.modules['click'] = None; from fastapi_consumers.__main__ import main; main()"
    result = run(command=("-c", code))
    assert result.returncode == 1
    assert result.stderr == (
        "The command line needs click, which is not installed: pip install 'fastapi-consumers[cli]'\n"
    )


def test_without_arguments_it_tells_what_there_is(run):
    result = run()
    assert "publish" in result.stdout + result.stderr
    assert "routes" in result.stdout + result.stderr
