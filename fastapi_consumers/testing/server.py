"""The server's side of one in-process websocket: scope, state machine, the app's ``receive`` and ``send``.

It does what uvicorn does, without bytes in between: it refuses messages out of turn, tells the app of the end of the
socket exactly once and again whenever it asks, and raises ``OSError`` when the app sends to a client that is gone.

ASGI: https://asgi.readthedocs.io/en/stable/specs/www.html#websocket
"""

import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from types import ModuleType
from typing import Any
from urllib.parse import quote, unquote

from ..types import ASGIApp, CloseCode, Message, Scope
from .errors import Denial

Headers = Mapping[bytes | str, bytes | str] | Mapping[str, str] | Iterable[tuple[bytes | str, bytes | str]]

MSGPACK_SUBPROTOCOL = "fc.v1.msgpack"


class Phase(Enum):
    NEW = "new"
    CONNECTING = "connecting"
    DENYING = "denying"
    OPEN = "open"
    CLOSED = "closed"  # by the app


#: What the app may send in each phase.
EXPECTED = {
    Phase.CONNECTING: ("websocket.accept", "websocket.close", "websocket.http.response.start"),
    Phase.DENYING: ("websocket.http.response.body",),
    Phase.OPEN: ("websocket.send", "websocket.close"),
    Phase.CLOSED: (),
}


class ClientGone(OSError):
    """The app sent to a client that has disconnected."""


class Output:
    """One message that the app sent, and the value of its frame, decoded once."""

    def __init__(self, message: Message, msgpack: bool) -> None:
        self.message = message
        self._msgpack = msgpack

    @property
    def is_close(self) -> bool:
        return bool(self.message["type"] == "websocket.close")

    @property
    def frame(self) -> str | bytes:
        text = self.message.get("text")
        return text if isinstance(text, str) else bytes(self.message["bytes"])

    def decode(self) -> Any:
        """The value of the frame. ``ValueError`` if it is of the wrong kind, or no JSON (MessagePack)."""
        frame = self.frame
        if isinstance(frame, bytes) != self._msgpack:
            expected = "a binary frame of MessagePack" if self._msgpack else "a text frame of JSON"
            raise ValueError(f"expected {expected}, got {'text' if isinstance(frame, str) else 'binary'}: {frame!r}")
        try:
            return ormsgpack().unpackb(frame) if self._msgpack else json.loads(frame)
        except ValueError as error:
            kind = "MessagePack" if self._msgpack else "JSON"
            raise ValueError(f"the frame is not {kind}: {error}: {frame!r}") from None

    def peek(self) -> dict[str, Any]:
        """The frame as an object of the wire protocol; an empty one if it is anything else."""
        try:
            value = self._value
        except AttributeError:
            try:
                value = None if self.is_close else self.decode()
            except ValueError:
                value = None
            self._value: Any = value
        return value if isinstance(value, dict) else {}

    def __repr__(self) -> str:
        text = repr(dict(self.message)) if self.is_close else repr(self.frame)
        return text if len(text) <= 200 else text[:200] + "…"


class Server:
    """Serves one websocket to ``app``. ``changed`` is set whenever anything of it changes."""

    def __init__(self, app: ASGIApp, scope: Scope, max_unread: int | None) -> None:
        self.app = app
        self.scope = scope
        self.phase = Phase.NEW
        self.task: asyncio.Task[None] | None = None
        self.changed = asyncio.Event()
        self.output: deque[Output] = deque()
        self.subprotocol: str | None = None
        self.accept_headers: list[tuple[bytes, bytes]] = []
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self.denial: Denial | None = None
        self.left: int | None = None  # the code that the client disconnected with
        self.app_waits = False
        self.accepted = False  # whatever came after
        self._max_unread = max_unread
        self._input: asyncio.Queue[Message] = asyncio.Queue()
        self._goodbye: Message | None = None

    def start(self, name: str, on_end: Callable[[], object]) -> None:
        self.phase = Phase.CONNECTING
        self._input.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(self._run(), name=name)

        def ended(_: object) -> None:
            self.changed.set()
            on_end()

        self.task.add_done_callback(ended)

    async def _run(self) -> None:
        await self.app(self.scope, self._receive, self._send)

    @property
    def is_open(self) -> bool:
        """The app has accepted and not closed."""
        return self.phase is Phase.OPEN

    @property
    def is_closed(self) -> bool:
        """The app has closed or refused."""
        return self.phase is Phase.CLOSED

    @property
    def decided(self) -> bool:
        """The app has accepted or refused."""
        return self.phase in (Phase.OPEN, Phase.CLOSED)

    @property
    def ended(self) -> bool:
        return self.task is not None and self.task.done()

    @property
    def over(self) -> bool:
        """Nothing more will come out."""
        return self.ended or self.is_closed or self.left is not None

    @property
    def error(self) -> BaseException | None:
        """What the app ended with, unless it is the usual way to end when the socket has."""
        if self.task is None or not self.task.done() or self.task.cancelled():
            return None
        error = self.task.exception()
        if (self.left is not None or self.is_closed) and _says_disconnected(error):
            return None
        return error

    def put(self, message: Message) -> None:
        self._input.put_nowait(message)

    def leave(self, code: int) -> None:
        """The client disconnects. Does nothing if either side has ended the socket."""
        if self.left is None and not self.is_closed:
            self.left = code
            self.put({"type": "websocket.disconnect", "code": code, "reason": ""})
            self.changed.set()

    def take(self, index: int = 0) -> Output:
        output = self.output[index]
        del self.output[index]
        self.changed.set()
        return output

    async def _receive(self) -> Message:
        if self._goodbye is not None:
            await asyncio.sleep(0)  # an app that never stops asking must not stop the loop
            return dict(self._goodbye)
        self.app_waits = True
        try:
            message = await self._input.get()
        finally:
            self.app_waits = False
        if message["type"] == "websocket.disconnect":
            self._goodbye = message
        return dict(message)

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self.left is not None:
            if kind == "websocket.close":
                return
            raise ClientGone(f"the app sent {kind!r} after the client had disconnected with code {self.left}")
        self._check(kind)
        if kind == "websocket.accept":
            self.subprotocol = message.get("subprotocol")
            self.accept_headers = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
            self.phase = Phase.OPEN
            self.accepted = True
        elif kind == "websocket.http.response.start":
            headers = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
            self.denial = Denial(message["status"], headers, b"")
            self.phase = Phase.DENYING
        elif kind == "websocket.http.response.body" and self.denial is not None:
            self.denial = self.denial._replace(body=self.denial.body + message.get("body", b""))
            if not message.get("more_body", False):
                self._closed(CloseCode.ABNORMAL, "")
        elif kind == "websocket.close":
            self.close_code, self.close_reason = int(message.get("code") or 1000), message.get("reason") or ""
            if self.accepted:
                self._append(message)
            # As uvicorn has it: there was no socket that could have been closed with another code.
            self._closed(self.close_code if self.accepted else CloseCode.ABNORMAL, self.close_reason)
        else:
            self._append(message)
            await self._drain()
        self.changed.set()

    def _check(self, kind: str) -> None:
        expected = EXPECTED[self.phase]
        if self.phase is Phase.CONNECTING and "websocket.http.response" not in self.scope.get("extensions", {}):
            expected = expected[:2]
        if kind not in expected:
            wanted = f"expected {' or '.join(expected)}" if expected else "nothing may follow"
            raise RuntimeError(f"the app sent {kind!r} to a socket that is {self.phase.value}; {wanted}")

    def _append(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            text, data = message.get("text"), message.get("bytes")
            if not (isinstance(text, str) if data is None else text is None and isinstance(data, bytes | bytearray)):
                raise TypeError(f"websocket.send takes either text (str) or bytes; the app sent {message!r}")
        self.output.append(Output(message, self.subprotocol == MSGPACK_SUBPROTOCOL))
        self.changed.set()

    async def _drain(self) -> None:
        """Wait while the client has more to read than it may have, as a server's ``send`` does when TCP is full."""
        if self._max_unread is None:
            return
        while len(self.output) > self._max_unread and self.left is None:
            self.changed.clear()
            await self.changed.wait()
        if self.left is not None:
            raise ClientGone(f"the client disconnected with code {self.left} before it had read")

    def _closed(self, code: int, reason: str) -> None:
        self.phase = Phase.CLOSED
        self.put({"type": "websocket.disconnect", "code": int(code), "reason": reason})


def make_scope(
    path: str,
    headers: Headers | None,
    subprotocols: Sequence[str] | None,
    client: tuple[str, int] | None,
    denial_response: bool,
) -> dict[str, Any]:
    """The scope of a handshake for ``path``, as uvicorn makes it."""
    if not path.startswith("/"):
        raise ValueError(f'path must start with "/", as in "/chat/lobby?token=…"; got {path!r}')
    raw_path, _, query = path.partition("?")
    raw_path = quote(raw_path, safe="/%:@!$&'()*+,;=~-._")
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    encoded = [(_latin(name).lower(), _latin(value)) for name, value in pairs]
    names = {name for name, _ in encoded}
    if b"host" not in names:
        encoded.insert(0, (b"host", b"testserver"))
    if subprotocols is None:
        offers = b",".join(value for name, value in encoded if name == b"sec-websocket-protocol").decode("latin-1")
        subprotocols = [offer.strip() for offer in offers.split(",") if offer.strip()]
    elif subprotocols and b"sec-websocket-protocol" not in names:
        encoded.append((b"sec-websocket-protocol", ", ".join(subprotocols).encode("latin-1")))
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "server": ("testserver", 80),
        "client": client,
        "root_path": "",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode("ascii"),
        "query_string": quote(query, safe="%:@!$&'()*+,;=~-._/?[]\"{}|^`\\").encode("ascii"),
        "headers": encoded,
        "subprotocols": list(subprotocols),
        "extensions": {"websocket.http.response": {}} if denial_response else {},
    }


def ormsgpack() -> ModuleType:
    try:
        import ormsgpack as module
    except ImportError:
        raise RuntimeError(
            f"subprotocol {MSGPACK_SUBPROTOCOL} needs ormsgpack: pip install 'fastapi_consumers[msgpack]'"
        ) from None
    return module


def _latin(value: bytes | str) -> bytes:
    return value.encode("latin-1") if isinstance(value, str) else bytes(value)


def _says_disconnected(error: BaseException | None) -> bool:
    # An app that does not use Starlette cannot raise its exception.
    starlette = sys.modules.get("starlette.websockets")
    return isinstance(error, ClientGone) or (starlette is not None and isinstance(error, starlette.WebSocketDisconnect))
