"""Where the document and its page are found."""

import importlib
import importlib.util
import re
import subprocess
import sys
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI
from starlette.applications import Starlette

from fastapi_consumers import ImproperlyConfigured, JSONConsumer, action, add_consumers, add_routes, path
from fastapi_consumers.asyncapi import AsyncAPI, asyncapi_document
from fastapi_consumers.asyncapi.document import as_yaml
from fastapi_consumers.asyncapi.endpoints import ASSETS


class Room(JSONConsumer):
    @action
    async def ping(self) -> str:
        return "pong"


def made(app: Any = None, **arguments: Any) -> Any:
    app = FastAPI() if app is None else app
    add_consumers(app, [path("/room", Room)], **arguments)
    return app


async def get(app: Any, url: str, root_path: str = "", base_url: str = "http://example.com") -> httpx.Response:
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url=base_url) as client:
        return await client.get(url)


async def test_the_document_is_served_with_the_server_that_was_asked() -> None:
    app = made()
    answer = await get(app, "/asyncapi.json", root_path="/api", base_url="https://example.com:8443")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["servers"] == {
        "this": {"host": "example.com:8443", "protocol": "wss", "x-this": True, "pathname": "/api"}
    }
    answer = await get(app, "/asyncapi.json")
    assert answer.json()["servers"] == {"this": {"host": "example.com", "protocol": "ws", "x-this": True}}
    assert {key: value for key, value in answer.json().items() if key != "servers"} == asyncapi_document(app)


async def test_servers_that_are_named_stand_in_its_place() -> None:
    servers = {"production": {"host": "ws.example.com", "protocol": "wss"}}
    answer = await get(made(asyncapi=AsyncAPI(servers=servers)), "/asyncapi.json")
    assert answer.json()["servers"] == servers


async def test_as_yaml_it_says_the_same() -> None:
    app = made()
    answer = await get(app, "/asyncapi.yaml")
    assert answer.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(answer.text) == (await get(app, "/asyncapi.json")).json()
    # No anchors: each reader sees each part where it stands.
    assert not re.search(r": [&*]", answer.text)


async def test_without_pyyaml_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == "yaml" else find_spec(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    app = made()
    assert (await get(app, "/asyncapi.yaml")).status_code == 404
    assert (await get(app, "/asyncapi.json")).status_code == 200
    import_module = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return import_module(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ImportError, match=r"fastapi-consumers\[yaml\]"):
        as_yaml({})


async def test_it_is_made_once_and_anew_when_something_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi_consumers.asyncapi import endpoints

    class Later(JSONConsumer):
        pass

    times: list[Any] = []
    make = endpoints.make_document
    monkeypatch.setattr(endpoints, "make_document", lambda *given: times.append(given) or make(*given))
    app = FastAPI()
    add_consumers(app, [path("/later", Later)])
    assert times == []
    for _ in range(2):
        assert "Later.ping" not in (await get(app, "/asyncapi.json")).json()["operations"]
    assert len(times) == 1

    @Later.action("ping")
    async def ping(consumer: Later) -> str:
        return "pong"

    assert "Later.ping" in (await get(app, "/asyncapi.json")).json()["operations"]
    add_routes(app.router, [path("/more", Later, name="more")])
    assert "more.ping" in (await get(app, "/asyncapi.json")).json()["operations"]
    assert len(times) == 3


# -- the page ----------------------------------------------------------------------------------------------------------


async def test_the_page_loads_nothing_from_elsewhere_and_has_no_inline_code() -> None:
    app = made(FastAPI(title='<b>"Tea"'))
    page = await get(app, "/asyncapi")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        in (page.headers["content-security-policy"])
    )
    assert "&lt;b&gt;&quot;Tea&quot;" in page.text
    assert not re.search(r"https?://|<script(?![^>]* src=)|<style|\son\w+=|style=", page.text)
    files = re.findall(r'(?:src|href)="(asyncapi/[^"]+)"', page.text)
    assert files == ["asyncapi/style.css", "asyncapi/main.js"]
    for name, media_type in ASSETS.items():
        answer = await get(app, f"/asyncapi/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, f"{media_type}; charset=utf-8")
        assert name == "samples.js" or not re.search(r"https?://", answer.text), name
        for imported in re.findall(r'from "\./([^"]+)"', answer.text):
            assert imported in ASSETS
    assert (await get(app, "/asyncapi/light.html")).status_code == 404
    assert (await get(app, "/asyncapi/..%2fdocument.py")).status_code == 404


async def test_links_are_relative_wherever_the_page_is() -> None:
    app = made(asyncapi=AsyncAPI(url="/schema/ws.json", docs_url="/docs/ws/live"))
    page = await get(app, "/docs/ws/live")
    assert 'data-document="../../schema/ws.json" data-path="/schema/ws.json"' in page.text
    assert 'src="live/main.js"' in page.text
    assert (await get(app, "/docs/ws/live/main.js")).status_code == 200
    assert (await get(app, "/schema/ws.yaml")).status_code == 200


async def test_the_page_may_connect_to_the_servers_that_it_shows() -> None:
    servers = {
        "a": {"host": "ws.example.com:444", "protocol": "wss"},
        "b": {"host": "{region}.example.com", "protocol": "wss"},
        "c": {"host": "x; script-src *", "protocol": "wss"},
        "d": {"host": "broker.example.com", "protocol": "kafka"},
        "e": {"host": "[", "protocol": "ws"},
    }
    page = await get(made(asyncapi=AsyncAPI(servers=servers)), "/asyncapi")
    assert "connect-src 'self' wss://ws.example.com:444; img-src" in page.headers["content-security-policy"]


async def test_the_standard_component_is_pinned_and_can_be_hosted_by_oneself() -> None:
    page = await get(made(asyncapi=AsyncAPI(page="react")), "/asyncapi")
    assert re.search(r'<script defer src="https://[^"]+/@asyncapi/react-component@\d+\.\d+\.\d+/[^"]+\.js">', page.text)
    assert "content-security-policy" not in page.headers
    own = AsyncAPI(page="react", component_js_url="/own/index.js", component_css_url="/own/style.css")
    page = await get(made(asyncapi=own), "/asyncapi")
    assert re.findall(r'(?:src|href)="([^"]+\.(?:js|css))"', page.text) == [
        "/own/style.css", "/own/index.js", "asyncapi/react.js"
    ]  # fmt: skip


# -- whether there is any ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "asyncapi", "found"),
    [
        (FastAPI(), None, (200, 200)),
        (Starlette(), None, (200, 200)),
        (FastAPI(openapi_url=None), None, (404, 404)),
        (FastAPI(openapi_url=None), True, (200, 200)),
        (FastAPI(), False, (404, 404)),
        (FastAPI(), AsyncAPI(url=None), (404, 404)),
        (FastAPI(), AsyncAPI(docs_url=None), (200, 404)),
    ],
)
async def test_it_can_be_switched_off_and_is_off_where_fastapi_s_own_is(app: Any, asyncapi: Any, found: Any) -> None:
    made(app, asyncapi=asyncapi)
    answers = [await get(app, url) for url in ("/asyncapi.json", "/asyncapi")]
    assert tuple(answer.status_code for answer in answers) == found
    # It is no part of FastAPI's own document.
    assert not isinstance(app, FastAPI) or app.openapi()["paths"] == {}


@pytest.mark.parametrize(
    "asyncapi",
    [
        "yes",
        AsyncAPI(url="asyncapi.json"),
        AsyncAPI(url="/asyncapi"),
        AsyncAPI(docs_url="/"),
        AsyncAPI(docs_url="/docs/"),
        AsyncAPI(docs_url="/asyncapi.json"),
        AsyncAPI(page="swagger"),  # type: ignore[arg-type]
        AsyncAPI(servers={"a": {"host": "example.com"}}),
    ],
)
def test_wrong_settings_are_refused(asyncapi: Any) -> None:
    app = FastAPI()
    routes = len(app.routes)
    with pytest.raises(ImproperlyConfigured) as raised:
        made(app, asyncapi=asyncapi)
    assert {problem.code for problem in raised.value.problems} == {"bad-asyncapi"}
    assert len(app.routes) == routes


def test_tags_of_a_route_are_a_list() -> None:
    with pytest.raises(ImproperlyConfigured, match="route-tags"):
        path("/room", Room, tags="chat")


def test_nothing_is_made_and_no_yaml_is_read_when_the_package_is_imported() -> None:
    code = "import sys, fastapi_consumers; print('yaml' in sys.modules, 'jsonschema' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "False"]
