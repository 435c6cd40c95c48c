"""A WebSocket protocol for uvicorn that spends less on each message: the extra ``server``.

::

    uvicorn app:app --ws fastapi_consumers.contrib.uvicorn:WebSocketProtocol

It is uvicorn's own ``websockets-sansio`` with a shorter way for whole text and binary frames (RFC 6455, section 5.2) on
connections without compression. Everything else is left to uvicorn and to the library ``websockets``, which are given
the very bytes of the frame: handshakes, control frames, fragments, compressed frames, frames that come in pieces, and
all that is wrong. So limits, close codes and texts in the log are theirs. Answers of many connections that come in one
turn of the event loop are written together.
"""

from .protocol import WebSocketProtocol

__all__ = ["WebSocketProtocol"]
