"""A WebSocket client that can do wrong: every byte that it sends is the caller's (RFC 6455)."""

import asyncio
import base64
import contextlib
import json
import os
import socket
import struct
from typing import Any, NamedTuple

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class Closed(Exception):
    """The server ended the connection; ``code`` is 1006 if it sent no close frame."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Refusal(Exception):
    """The handshake was answered with something else than 101."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


class Frame(NamedTuple):
    opcode: int
    payload: bytes
    fin: bool = True


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit, size = 0x80 if masked else 0, len(payload)
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += struct.pack("!BH", bit | 126, size)
    else:
        head += struct.pack("!BQ", bit | 127, size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    repeated = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(size)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.pongs = 0
        self.answers_pings = True

    @property
    def socket(self) -> socket.socket:
        return self.writer.get_extra_info("socket")

    # -- out -----------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def send(self, data: str | bytes) -> None:
        self.write(frame(TEXT, data.encode()) if isinstance(data, str) else frame(BINARY, data))
        await self.writer.drain()

    async def send_json(self, **content: Any) -> None:
        await self.send(json.dumps(content))

    # -- in ------------------------------------------------------------------------------------------------------------

    async def receive_frame(self) -> Frame:
        try:
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return Frame(first & 0x0F, await self.reader.readexactly(size), bool(first & 0x80))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Closed(1006) from None

    async def receive(self) -> str | bytes:
        """The next message. Raises ``Closed``."""
        while True:
            received = await self.receive_frame()
            if received.opcode == CLOSE:
                payload = received.payload
                raise Closed(int.from_bytes(payload[:2]) if payload else 1005, payload[2:].decode())
            if received.opcode == PONG:
                self.pongs += 1
            elif received.opcode == PING:
                if self.answers_pings:
                    self.write(frame(PONG, received.payload))
            else:
                assert received.fin, "the server sent a fragment"
                return received.payload.decode() if received.opcode == TEXT else received.payload

    async def receive_json(self) -> Any:
        return json.loads(await self.receive())

    async def closed(self) -> Closed:
        """How the server ends the connection; what it sends before is passed over."""
        while True:
            try:
                await self.receive()
            except Closed as closed:
                return closed

    # -- ends ----------------------------------------------------------------------------------------------------------

    async def close(self, code: int = 1000) -> None:
        """As a client should."""
        try:
            with contextlib.suppress(ConnectionError):
                self.write(frame(CLOSE, code.to_bytes(2)))
                await self.writer.drain()
                await self.closed()
        finally:
            # Whoever is cancelled meanwhile leaves nothing open either.
            self.writer.close()
        await self.drop()

    async def drop(self) -> None:
        """Without a close frame."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def reset(self) -> None:
        """With a TCP reset."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.reset()


def handshake(path: str, headers: dict[str, str] | None = None) -> bytes:
    lines = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    text = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    return text.encode("latin-1")


async def connect(
    port: int, path: str, headers: dict[str, str] | None = None, *, receive_buffer: int | None = None
) -> Client:
    """Open a socket and shake hands. A small receive buffer makes a client that does not read felt early.

    Raises ``Refusal``, and ``Closed`` if the server says nothing.
    """
    raw = socket.socket()
    try:
        raw.setblocking(False)
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(
            sock=raw, limit=2**16 if receive_buffer is None else receive_buffer
        )
    except BaseException:
        raw.close()
        raise
    client = Client(reader, writer)
    try:
        client.write(handshake(path, headers))
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Closed(1006) from None
        status, *lines = head.split("\r\n")[:-2]
        found = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        number = int(status.split(" ")[1])
        if number != 101:
            # A proxy may keep the connection open.
            size = found.get("content-length")
            raise Refusal(number, found, await (reader.readexactly(int(size)) if size else reader.read()))
    except BaseException:
        await client.reset()
        raise
    client.headers = found
    return client
