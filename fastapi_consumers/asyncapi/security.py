"""How clients show who they are: the Security Scheme Objects of a document."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..plan import Plan
from .schemas import Schema

#: What AsyncAPI 3.0 wants absolute, and OpenAPI, as FastAPI writes it, may have relative to the server.
_URLS = ("authorizationUrl", "tokenUrl", "refreshUrl", "openIdConnectUrl")


class SecuritySchemes:
    """The schemes of all classes. Two that differ never share a name."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}

    def add(self, plan: Plan) -> list[str]:
        """The names of a class's own, in the order in which it asks them."""
        names: list[str] = []
        for authentication in plan.authentications:
            for given, scheme in authentication.get_security_schemes(plan.token_keys).items():
                name, number = re.sub(r"[^\w.-]", "_", given, flags=re.ASCII), 1
                while self.found.setdefault(name, dict(scheme)) != scheme:
                    number += 1
                    name = f"{given}_{number}"
                if name not in names:
                    names.append(name)
        return names


def with_absolute_urls(document: dict[str, Any], server: Mapping[str, Any] | None) -> dict[str, Any]:
    """The document with the relative URLs of its schemes resolved against a server, which may not be known."""
    components: dict[str, Any] = document.get("components", {})
    schemes: dict[str, Schema] = components.get("securitySchemes", {})
    if not any(_relative(scheme) for scheme in schemes.values()):
        return document
    base = _base(server) if server is not None else None
    absolute = {name: _absolute(scheme, base) for name, scheme in schemes.items()}
    return {**document, "components": {**components, "securitySchemes": absolute}}


def _base(server: Mapping[str, Any]) -> str | None:
    """The URL of a server's HTTP; ``None`` if it has variables."""
    scheme = "https" if server["protocol"] in ("wss", "https") else "http"
    url = f"{scheme}://{server['host']}{server.get('pathname') or ''}"
    return None if "{" in url else url.rstrip("/") + "/"


def _parts(scheme: Schema) -> list[Schema]:
    """The objects in a scheme that may have URLs."""
    return [scheme, *scheme.get("flows", {}).values()]


def _relative(scheme: Schema) -> list[str]:
    urls = [part[key] for part in _parts(scheme) for key in _URLS if key in part]
    return [url for url in urls if not urlsplit(url).scheme]


def _absolute(scheme: Schema, base: str | None) -> Schema:
    relative = _relative(scheme)
    if not relative:
        return scheme
    if base is None:
        # What is sent in the handshake is the same, whoever issues it.
        places = ", ".join(f"`{url}`" for url in relative)
        description = scheme.get("description") or f"A token of {scheme['type']}, from {places} on this server."
        return {"type": "http", "scheme": "bearer", "description": description}
    found = {key: urljoin(base, value) if key in _URLS else value for key, value in scheme.items()}
    if "flows" in scheme:
        found["flows"] = {
            name: {key: urljoin(base, value) if key in _URLS else value for key, value in flow.items()}
            for name, flow in scheme["flows"].items()
        }
    return found
