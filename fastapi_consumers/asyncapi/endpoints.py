"""Where browsers and tools find the documentation: the document, the page, and the files of the page."""

import html
import importlib.util
import json
import posixpath
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..runtime import Consumers
from .document import as_yaml, make_document, routes_of
from .security import with_absolute_urls
from .settings import AsyncAPI

#: The files of the pages, and what they are.
ASSETS = {
    "console.js": "text/javascript",
    "document.js": "text/javascript",
    "dom.js": "text/javascript",
    "form.js": "text/javascript",
    "main.js": "text/javascript",
    "react.js": "text/javascript",
    "reference.js": "text/javascript",
    "samples.js": "text/javascript",
    "style.css": "text/css",
}


def add_documentation(app: Starlette, consumers: Consumers, settings: AsyncAPI | None) -> None:
    """Add the routes that the settings ask for. The document is made when it is first fetched."""
    consumers.asyncapi = settings
    if settings is None or settings.url is None:
        return
    document = Document(app, settings)
    _add(app, settings.url, document.as_json, "asyncapi")
    if settings.yaml_url is not None and importlib.util.find_spec("yaml") is not None:
        _add(app, settings.yaml_url, document.as_yaml, "asyncapi_yaml")
    if settings.docs_url is not None:
        page = _Page(settings.url, settings.docs_url, settings)
        _add(app, settings.docs_url, page.show, "asyncapi_docs")
        _add(app, settings.docs_url + "/{name}", page.asset, "asyncapi_docs_assets")


def _add(app: Starlette, path: str, endpoint: Callable[[Request], Awaitable[Response]], name: str) -> None:
    app.router.routes.append(Route(path, endpoint, name=name, include_in_schema=False))


class Document:
    """The document of one application, kept until something is routed or registered that it does not know."""

    def __init__(self, app: Starlette, settings: AsyncAPI) -> None:
        self._app = app
        self._settings = settings
        self._known: list[Any] | None = None
        self._document: dict[str, Any] = {}

    def get(self) -> dict[str, Any]:
        """Nobody may change it. Relative URLs are as they are."""
        # What is registered on a class later makes another `_meta`.
        found = [(route, route.consumer_class._meta) for route in routes_of(self._app)]
        if found != self._known:
            self._document = make_document(self._app, self._settings)
            self._known = found
        return self._document

    def _for(self, request: Request) -> dict[str, Any]:
        """With the server that was asked, if the settings name none."""
        document = self.get()
        if "servers" in document:
            return with_absolute_urls(document, next(iter(document["servers"].values())))
        server = {
            "host": request.url.netloc,
            "protocol": "wss" if request.url.scheme == "https" else "ws",
            "x-this": True,
        }
        if root_path := request.scope.get("root_path"):
            server["pathname"] = root_path
        head = {key: document[key] for key in ("asyncapi", "info", "defaultContentType")}
        return with_absolute_urls({**head, "servers": {"this": server}, **document}, server)

    async def as_json(self, request: Request) -> Response:
        return _text(json.dumps(self._for(request), ensure_ascii=False), "application/json")

    async def as_yaml(self, request: Request) -> Response:
        return _text(as_yaml(self._for(request)), "application/yaml")


class _Page:
    def __init__(self, url: str, docs_url: str, settings: AsyncAPI) -> None:
        folder, name = posixpath.split(docs_url)
        #: Relative, so that it holds behind a proxy that cuts off a prefix, and in a mounted application.
        self._links = {"document": posixpath.relpath(url, folder), "files": name, "path": url}
        self._settings = settings

    async def show(self, request: Request) -> Response:
        settings = self._settings
        is_light = settings.page == "light"
        values = {
            **self._links,
            "title": settings.title or getattr(request.app, "title", None) or "AsyncAPI",
            "script": settings.component_js_url,
            "style": settings.component_css_url,
        }
        page = Template(_read("light.html" if is_light else "react.html"))
        text = page.substitute({name: html.escape(value) for name, value in values.items()})
        policy = self._policy() if is_light else None
        return _text(text, "text/html", {"Content-Security-Policy": policy} if policy else {})

    def _policy(self) -> str:
        """The page loads nothing from elsewhere, has no inline code, and connects to the servers that it shows."""
        servers = (self._settings.servers or {}).values()
        hosts = {f"{server['protocol']}://{server['host']}" for server in servers if "{" not in server["host"]}
        # What is no plain address of a host stays out: a policy has a syntax of its own.
        connect = " ".join(["'self'", *sorted(host for host in hosts if _is_plain(host))])
        return (
            f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src {connect}; img-src 'self' data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        )

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            return Response("Not Found", 404, media_type="text/plain")
        return _text(_read(name), ASSETS[name])


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("ws", "wss") and parts.path == "" and not set(url) & set(" ;,'\"")
    except ValueError:
        return False


@cache
def _read(name: str) -> str:
    return files(__package__).joinpath("static", name).read_text(encoding="utf-8")


def _text(text: str, media_type: str, headers: dict[str, str] | None = None) -> Response:
    common = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(text, media_type=media_type, headers={**common, **(headers or {})})
