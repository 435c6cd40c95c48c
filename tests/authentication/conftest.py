"""Handshakes for authentications that are tested by themselves."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.websockets import WebSocket

from fastapi_consumers import Consumers, add_consumers
from fastapi_consumers.authentication import TokenKeys

MakeApp = Callable[..., FastAPI]


@pytest.fixture
def handshake() -> Callable[..., Any]:
    """``handshake(headers, subprotocols=…, query=…, keys=TokenKeys(…), **scope)``: what authentications are given."""

    def make(
        headers: dict[str, str] | None = None,
        subprotocols: tuple[str, ...] = (),
        query: str = "",
        keys: TokenKeys = TokenKeys(),  # noqa: B008 -- a default as FastAPI has it
        **more: Any,
    ) -> Any:
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        scope = {
            "type": "websocket",
            "path": "/",
            "headers": raw,
            "query_string": query.encode(),
            "subprotocols": list(subprotocols),
            **more,
        }

        async def nothing(*_: Any) -> Any: ...

        return SimpleNamespace(
            scope=scope,
            headers=Headers(scope=scope),
            websocket=WebSocket(scope, nothing, nothing),
            plan=SimpleNamespace(token_keys=keys),
        )

    return make


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """``make_app(*routes, app=…, **arguments of add_consumers)``. Nothing of any socket may be left when it ends."""
    made: list[Consumers] = []

    def make(*routes: Any, app: FastAPI | None = None, **arguments: Any) -> FastAPI:
        app = app or FastAPI()
        consumers = add_consumers(app, routes, **arguments)
        made.append(consumers)
        return app

    yield make
    for consumers in made:
        assert not consumers.connections
        assert not consumers.hub._channels
        assert not list(consumers.hub.topics())
        assert not len(consumers.expiries)
        assert not len(consumers.deadlines)
