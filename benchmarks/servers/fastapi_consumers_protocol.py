"""fastapi_consumers with our own WebSocket class for uvicorn.

bench-title: fastapi_consumers, our class for uvicorn
bench-venv: base
bench-dialect: plain
bench-uvicorn: --ws fastapi_consumers.contrib.uvicorn:WebSocketProtocol
"""

from fastapi_consumers_server import app

__all__ = ["app"]
