"""Which ``Consumers`` a connection belongs to: those on the state of its application."""

from typing import Any

from starlette.requests import HTTPConnection

from .exceptions import ImproperlyConfigured, Problem
from .runtime import Consumers


def get_consumers(connection: HTTPConnection) -> Consumers:
    """The application's ``Consumers``, as a dependency of HTTP endpoints: ``Depends(get_consumers)``."""
    if getattr(connection.app.state, "consumers", None) is None:
        raise _misplaced("app.state.consumers", "nothing", "call add_consumers(app, channel_routes)")
    return consumers_of(connection.scope)


def consumers_of(scope: Any) -> Consumers:
    """The ``Consumers`` of the app that a scope belongs to; made in memory if nobody called ``add_consumers``."""
    state = getattr(scope.get("app"), "state", None)
    if state is None:
        raise ImproperlyConfigured(
            "The application",
            [
                Problem(
                    "no-application",
                    "scope['app']",
                    "no FastAPI or Starlette application around the consumer",
                    "one that keeps the state of its consumers",
                    "mount the consumer in a FastAPI or Starlette app",
                )
            ],
        )
    found = getattr(state, "consumers", None)
    if isinstance(found, Consumers):
        return found
    if found is not None:
        raise _misplaced("app.state.consumers", repr(found), "keep your own under another name")
    made = state.consumers = Consumers()
    return made


def _misplaced(where: str, found: str, fix: str) -> ImproperlyConfigured:
    expected = "the Consumers that add_consumers() makes"
    return ImproperlyConfigured("The application", [Problem("no-consumers", where, found, expected, fix)])
