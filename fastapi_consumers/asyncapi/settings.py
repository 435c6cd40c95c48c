"""``AsyncAPI``: what the documentation says of the application, and where it is found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from ..exceptions import Problem

#: The standard component to show a document with, in the version that the page was tried with.
COMPONENT = "https://cdn.jsdelivr.net/npm/@asyncapi/react-component@3.2.1"


@dataclass(frozen=True)
class AsyncAPI:
    """Settings of the documentation, for ``add_consumers(…, asyncapi=AsyncAPI(…))``.

    Args:
        url: where the document is, a path that ends in ``.json``; its YAML is beside it if PyYAML is installed, in the
            extra ``yaml``. ``None`` for neither document nor page.
        docs_url: where the page is; ``None`` for no page.
        title: of the application; by default, as with all that follow up to ``description``, FastAPI's own.
        version: of the application's interface.
        description: in Markdown.
        servers: name to a Server Object of AsyncAPI 3.0, such as ``{"host": "example.com", "protocol": "wss"}``. By
            default the one that the document is fetched from.
        tags: Tag Objects, such as ``{"name": "chat", "description": "…"}``.
        page: ``light`` is the package's own, which loads nothing from elsewhere and has a console to try things with;
            ``react`` shows the standard AsyncAPI component.
        component_js_url: where a browser gets that component's script; put a copy of it on a host of your own where
            pages may load nothing from others.
        component_css_url: the same for its style.
    """

    url: str | None = "/asyncapi.json"
    docs_url: str | None = "/asyncapi"
    title: str | None = None
    version: str | None = None
    description: str | None = None
    servers: Mapping[str, Mapping[str, Any]] | None = None
    tags: Sequence[Mapping[str, Any]] = ()
    page: Literal["light", "react"] = "light"
    component_js_url: str = f"{COMPONENT}/browser/standalone/index.js"
    component_css_url: str = f"{COMPONENT}/styles/default.min.css"

    @property
    def yaml_url(self) -> str | None:
        """Where the document is as YAML."""
        return None if self.url is None else self.url.removesuffix(".json") + ".yaml"


def settings_of(given: Any, app: Any, problems: list[Problem]) -> AsyncAPI | None:
    """The settings that ``asyncapi=`` stands for; ``None`` for no documentation. What is wrong goes into ``problems``.

    By default an application has it that shows FastAPI's own: who hides the one will want to hide the other.
    """
    if given is None:
        return AsyncAPI() if getattr(app, "openapi_url", "") is not None else None
    if isinstance(given, bool):
        return AsyncAPI() if given else None

    def add(name: str, value: Any, expected: str, fix: str) -> None:
        problems.append(Problem("bad-asyncapi", "add_consumers()", f"{name}={value!r:.200}", expected, fix))

    if not isinstance(given, AsyncAPI):
        add("asyncapi", given, "an AsyncAPI, True or False", "write asyncapi=AsyncAPI(title=…)")
        return None
    for name, url in (("url", given.url), ("docs_url", given.docs_url)):
        if url is not None and not (isinstance(cast(object, url), str) and url.startswith("/") and len(url) > 1):
            add(f"AsyncAPI.{name}", url, "a path such as /asyncapi, or None", "begin it with a slash")
    if isinstance(given.url, str) and not given.url.endswith(".json"):
        add("AsyncAPI.url", given.url, "a path that ends in .json", 'write url="/asyncapi.json"')
    if isinstance(given.docs_url, str) and (given.docs_url.endswith("/") or given.docs_url == given.url):
        add("AsyncAPI.docs_url", given.docs_url, "a path of its own without a slash at the end", "mend the path")
    if given.page not in ("light", "react"):
        add("AsyncAPI.page", given.page, "'light' or 'react'", 'write page="light"')
    for key, server in (given.servers or {}).items():
        if not isinstance(cast(object, server), Mapping) or not {"host", "protocol"} <= set(server):
            fix = 'write servers={"production": {"host": "example.com", "protocol": "wss"}}'
            add(f"AsyncAPI.servers[{key!r}]", server, "a dict with host and protocol", fix)
    return given
