"""The whole document: what an application's consumers say and hear, as AsyncAPI 3.0 has it.

https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

import importlib
from collections.abc import Mapping
from typing import Any

from ..plan import Plan
from ..routing import RoutedConsumer, routed_consumers
from ..runtime import Consumers
from .channels import Channel, key_of
from .envelopes import SHARED
from .schemas import Schema, Schemas
from .security import SecuritySchemes, with_absolute_urls
from .settings import AsyncAPI

SPECIFICATION = "3.0.0"


def asyncapi_document(app: Any, settings: AsyncAPI | None = None) -> dict[str, Any]:
    """The AsyncAPI document of an application, as JSON has it, made anew at each call.

    Args:
        app: FastAPI or Starlette, with ``add_consumers`` or with included routers that have consumers.
        settings: in place of those that ``add_consumers`` was given.

    There are ``servers`` in it only if the settings name some. A relative URL, such as FastAPI's ``tokenUrl``, is
    resolved against the first of them. Without any, what needs it is described as a bearer token. Raises
    ``ImproperlyConfigured`` for a class whose annotations do not resolve.
    """
    settings = settings if settings is not None else _settings_of(app)
    return with_absolute_urls(make_document(app, settings), next(iter((settings.servers or {}).values()), None))


def make_document(app: Any, settings: AsyncAPI) -> dict[str, Any]:
    """The same, but for relative URLs."""
    channels: dict[str, Channel] = {}
    schemes = SecuritySchemes()
    for route in routes_of(app):
        plan = _plan(route)
        key = key_of(route.name or route.consumer_class.__name__, channels)
        channels[key] = Channel(key, route, plan, schemes.add(plan))
    schemas = Schemas(wanted for channel in channels.values() for wanted in channel.wanted())
    described = {key: channel.describe(schemas) for key, channel in channels.items()}
    document: dict[str, Any] = {
        "asyncapi": SPECIFICATION,
        "info": _info(app, settings),
        "defaultContentType": "application/json",
    }
    if settings.servers:
        document["servers"] = {key_of(name, {}): dict(server) for name, server in settings.servers.items()}
    document["channels"] = {key: each.channel for key, each in described.items()}
    document["operations"] = {name: found for each in described.values() for name, found in each.operations.items()}
    components = {"schemas": {**schemas.definitions, **SHARED}, "securitySchemes": schemes.found}
    document["components"] = {name: found for name, found in components.items() if found}
    return document


def as_yaml(document: dict[str, Any]) -> str:
    """A document as YAML. Raises ``ImportError`` without PyYAML, which the extra ``yaml`` brings."""
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        raise ImportError("YAML needs PyYAML. Install the extra: pip install 'fastapi-consumers[yaml]'") from None

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # an optional package, imported late
        """Says everything where it stands: an anchor helps nobody who reads it."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    text: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def routes_of(app: Any) -> list[RoutedConsumer]:
    """What the document of an application is about."""
    return [route for route in routed_consumers(app) if route.include_in_schema]


def _settings_of(app: Any) -> AsyncAPI:
    consumers = getattr(app.state, "consumers", None)
    settings = consumers.asyncapi if isinstance(consumers, Consumers) else None
    return settings if isinstance(settings, AsyncAPI) else AsyncAPI()


def _plan(route: RoutedConsumer) -> Plan:
    consumers = getattr(getattr(route.app, "state", None), "consumers", None)
    # Without add_consumers they would be made at first use, with no settings at all.
    return (consumers if isinstance(consumers, Consumers) else Consumers()).plan(route.consumer_class)


def _info(app: Any, settings: AsyncAPI) -> Schema:
    """What FastAPI's own document says of the application."""

    def of_app(name: str) -> Any:
        return getattr(app, name, None)

    info: Schema = {
        "title": settings.title or of_app("title") or "Application",
        "version": settings.version or of_app("version") or "0.1.0",
    }
    description = settings.description or of_app("description") or of_app("summary")
    if description:
        info["description"] = description
    if of_app("terms_of_service"):
        info["termsOfService"] = of_app("terms_of_service")
    for name, source, keys in (
        ("contact", "contact", ("name", "url", "email")),
        ("license", "license_info", ("name", "url")),
    ):
        found = of_app(source)
        if isinstance(found, Mapping) and found:
            info[name] = {key: found[key] for key in keys if key in found}
    if settings.tags:
        info["tags"] = [dict(tag) for tag in settings.tags]
    return info
