"""The log: what stands in it, of what level, and that nothing secret or hostile comes into it."""

import asyncio
import json
import logging
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect

from fastapi_consumers import GroupConsumer, action, add_consumers, path
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.exceptions import NotAuthenticated
from fastapi_consumers.testing import HandshakeRefused, WebsocketCommunicator
from tests.contrib.conftest import Serve, serve

__all__ = ["serve"]

SECRET = "s3cr3t"


class Named(BaseAuthentication):
    async def authenticate(self, connection: Any) -> tuple[Any, Any] | None:
        name = connection.headers.get("x-user")
        if name == "nobody":
            raise NotAuthenticated
        return (name, SECRET) if name else None


class Room(GroupConsumer):
    groups = ["room.{room}"]
    authentication_classes = [Named]

    @action
    async def echo(self, text: str) -> str:
        return text

    @action
    async def fall(self) -> None:
        raise LookupError("a bug")

    @action
    async def end(self) -> None:
        await self.close(4321, "over and out")


class Records(logging.Handler):
    """All that the package logs, of all levels."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self.changed = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.changed.set()

    def access(self) -> list[Any]:
        return [record for record in self.records if record.name == "fastapi_consumers.access"]

    async def until(self, count: int) -> list[Any]:
        async with asyncio.timeout(30):
            while len(self.access()) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.access()


@pytest.fixture
def records() -> Any:
    handler, logger = Records(), logging.getLogger("fastapi_consumers")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def room_app(**options: Any) -> FastAPI:
    app = FastAPI()
    add_consumers(app, [path("/{room}", Room)], **options)
    return app


async def test_a_connection_has_one_line_when_it_has_ended(serve: Serve, records: Records) -> None:
    port = await serve(room_app(statistics=True))
    url = f"ws://127.0.0.1:{port}/lobby?token={SECRET}"
    async with connect(url, compression=None, additional_headers={"x-user": "ann", "cookie": SECRET}) as client:
        await client.send('{"action":"echo","request_id":1,"data":{"text":"hi"}}')
        answer = str(await client.recv())
        assert records.access() == []
    (record,) = await records.until(1)
    assert record.levelno == logging.INFO
    assert (record.address, record.user, record.path, record.consumer) == ("127.0.0.1", "ann", "/lobby", "Room")
    assert (record.outcome, record.close_code, record.closed_by) == ("closed", 1000, "client")
    assert (record.messages_in, record.bytes_in) == (1, 53)
    assert (record.messages_out, record.bytes_out) == (1, len(answer))
    assert record.duration > 0
    assert record.getMessage().startswith('127.0.0.1 ann "/lobby" Room closed 1000 by client - ')
    assert record.getMessage().endswith(f"s in 1/53 out 1/{len(answer)}")
    assert SECRET not in str(vars(record))


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("end", ("closed", 4321, "server", "over and out")), ("fall", ("closed", 1000, "client", ""))],
)
async def test_the_line_says_who_closed_and_why(records: Records, name: str, outcome: tuple[Any, ...]) -> None:
    async with WebsocketCommunicator(room_app(), "/lobby") as client:
        await client.send_json_to({"action": name, "request_id": 1})
        if name == "end":
            await records.until(1)
        else:
            await client.receive_json_from()
    (record,) = await records.until(1)
    assert (record.outcome, record.close_code, record.closed_by, record.close_reason) == outcome
    assert (record.messages_in, record.bytes_out) == (None, None)
    assert " in -/- out " in record.getMessage()


async def test_a_refused_handshake_has_a_line_too(records: Records) -> None:
    with pytest.raises(HandshakeRefused):
        async with WebsocketCommunicator(room_app(), "/lobby", headers={"x-user": "nobody"}):
            pass
    (record,) = records.access()
    assert (record.outcome, record.close_reason, record.user) == ("refused", "not_authenticated", None)


async def test_who_is_refused_before_all_else_is_named_by_the_address_behind_the_proxy(records: Records) -> None:
    app = room_app(trusted_proxies=["127.0.0.0/8"], max_connections_per_process=1)
    there = {"client": ("127.0.0.1", 1), "headers": {"x-forwarded-for": "192.0.2.7"}}
    async with WebsocketCommunicator(app, "/lobby", **there):
        with pytest.raises(HandshakeRefused):
            await WebsocketCommunicator(app, "/lobby", **there).__aenter__()
    assert [record.address for record in await records.until(2)] == ["192.0.2.7", "192.0.2.7"]


async def test_actions_have_lines_if_that_is_asked_for(records: Records) -> None:
    async with WebsocketCommunicator(room_app(access_log="actions"), "/lobby") as client:
        await client.send_json_to({"action": "echo", "request_id": "r1", "data": {"text": SECRET}})
        await client.receive_json_from()
        await client.send_json_to({"action": "fall"})
        await client.receive_json_from()
        echo, fall = await records.until(2)
    assert (echo.levelno, echo.action, echo.outcome, echo.request_id) == (logging.INFO, "echo", "ok", "r1")
    assert (fall.levelno, fall.action, fall.outcome) == (logging.WARNING, "fall", "internal_error")
    assert echo.duration >= 0
    (connection,) = {echo.connection, fall.connection}
    # The record of the bug itself has the same connection, so that they can be put together.
    (bug,) = [record for record in records.records if record.name == "fastapi_consumers.explaining"]
    assert vars(bug)["connection"] == connection
    assert bug.levelno == logging.ERROR


async def test_it_can_be_switched_off(records: Records) -> None:
    async with WebsocketCommunicator(room_app(access_log=False), "/lobby"):
        pass
    assert records.access() == []


HOSTILE = 'evil\n127.0.0.1 root "/" Room closed\r\x1b[2J\u202e\u2028' + "x" * 300


async def test_what_a_hostile_client_chooses_stays_on_its_line_and_is_short(records: Records) -> None:
    texts = [
        {"action": HOSTILE, "request_id": HOSTILE[:250]},
        {"action": "echo", "request_id": HOSTILE[:250], "data": {"text": SECRET}},
        {"action": "echo", "request_id": "x" * 5000, "data": {"text": 1, SECRET: SECRET}},
        {"action": ["fall"], "request_id": {SECRET: 1}},
        {"action": "fall", "request_id": HOSTILE[:250], "data": {SECRET: SECRET}},
    ]
    headers = {
        "x-user": HOSTILE.encode("latin-1", "ignore").decode("latin-1"),
        "cookie": f"session={SECRET}",
        "authorization": f"Bearer {SECRET}",
    }
    hostile = f"/a%0Ab%22%20Room%1B[2J{'y' * 100}?token={SECRET}"
    async with WebsocketCommunicator(room_app(access_log="actions"), hostile, headers=headers) as client:
        for content in texts:
            await client.send_to(json.dumps(content))
            await client.receive_from()
        await client.send_to(SECRET)
        await client.receive_from()
    await records.until(len(texts) + 1)
    assert len(records.records) > len(texts)
    for record in records.records:
        message = record.getMessage()
        assert message.isprintable(), message
        assert len(message) < 1200
        shown = {name: value for name, value in vars(record).items() if name not in ("exc_info", "exc_text")}
        assert SECRET not in str(shown), shown
        for value in shown.values():
            if isinstance(value, str):
                assert value.isprintable(), value
                assert len(value) < 1200
    for record in records.access():
        # Fields are apart by spaces, and none is made of what a client wrote.
        assert "root" not in record.getMessage().split()
