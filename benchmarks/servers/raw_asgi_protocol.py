"""Lower-level limit with our own WebSocket class for uvicorn.

bench-title: ASGI by hand, our class for uvicorn
bench-venv: base
bench-dialect: plain
bench-redis: no
bench-uvicorn: --ws fastapi_consumers.contrib.uvicorn:WebSocketProtocol
"""

from raw_asgi import app

__all__ = ["app"]
