"""A handshake answered with HTTP, where the server can: ASGI's extension ``websocket.http.response``.

Specification: https://asgi.readthedocs.io/en/latest/extensions.html#websocket-denial-response
"""

import asyncio
from collections.abc import Mapping

from .types import Scope, Send

#: Turns of the event loop in which a refused socket closes. Uvicorn logs an error for each refusal if the application
#: returns before (https://github.com/Kludex/uvicorn/pull/3138).
REFUSAL_TURNS = 5


def can_deny(scope: Scope) -> bool:
    return "websocket.http.response" in (scope.get("extensions") or {})


async def deny(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Answer with this status, these headers and a body of JSON."""
    pairs = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    pairs += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "websocket.http.response.start", "status": status, "headers": pairs})
    await send({"type": "websocket.http.response.body", "body": body})
    for _ in range(REFUSAL_TURNS):
        await asyncio.sleep(0)
