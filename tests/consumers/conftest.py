"""Apps whose consumers are looked after: when a test ends, nothing of any socket may be left behind."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_consumers import Consumers, add_consumers

MakeApp = Callable[..., FastAPI]


def leftovers(consumers: Consumers) -> list[Any]:
    """Connections, channels and topics that are still known."""
    return [*consumers.connections, *consumers.hub._channels, *consumers.hub.topics()]


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """``make_app(*routes, **arguments of add_consumers)``. ``app=`` for an app of your own."""
    made: list[tuple[Any, Any]] = []

    def make(*routes: Any, app: FastAPI | None = None, **arguments: Any) -> FastAPI:
        app = app or FastAPI()
        consumers = add_consumers(app, routes, **arguments)
        # When the app has stopped, it has new ones.
        made.append((consumers.hub, consumers.connections))
        return app

    yield make
    for hub, connections in made:
        assert not connections
        assert not hub._channels
        assert not list(hub.topics())


@pytest.fixture
def nothing_left() -> Callable[[FastAPI], bool]:
    """Whether no connection, channel or topic of the app is left, while it runs."""
    return lambda app: not leftovers(app.state.consumers)
