"""What records say in attributes: of which group, connection or run they are."""

import logging
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_consumers import GroupConsumer, action, add_consumers, path
from fastapi_consumers.history import History
from fastapi_consumers.permissions import BasePermission
from fastapi_consumers.testing import WebsocketCommunicator

WAIT = 20


class Broken(BasePermission):
    def has_delivery_permission(self, consumer: Any, delivery: Any) -> bool:
        raise RuntimeError("broken")


class Kept(GroupConsumer):
    groups = ["kept"]
    history = History(size=10)
    permission_classes = [Broken]

    @action
    async def past(self) -> int:
        return len((await self.read_history("kept")).events)


def extras(caplog, text):
    """Group and connection of each record that says so."""
    found = [record for record in caplog.records if text in record.getMessage()]
    return [(getattr(record, "group", None), getattr(record, "connection", None)) for record in found]


async def test_a_delivery_permission_that_fails_is_told_with_the_group(caplog):
    app = FastAPI()
    consumers = add_consumers(app, [path("/kept", Kept)])
    async with WebsocketCommunicator(app, "/kept") as ann, WebsocketCommunicator(app, "/kept"):
        for number in range(2):
            await consumers.broadcast("kept", "said", number)
        assert await ann.call("past", timeout=WAIT) == 0
    live = extras(caplog, "it is withheld")
    assert {group for group, _ in live} == {"kept"}
    assert all("!" in connection for _, connection in live)
    assert extras(caplog, "for 2 members") == [("kept", None)] * 2
    assert extras(caplog, "the event is withheld") == extras(caplog, "on 2 events of the history") == [("kept", None)]

    caplog.clear()
    epoch = (await consumers.history("kept").read(limit=1)).epoch
    async with WebsocketCommunicator(app, f"/kept?recover={epoch}:0") as client:
        assert (await client.receive_json_from(WAIT))["recovered"] is True
        [connection] = consumers.connections
        assert extras(caplog, "on event") == [("kept", connection.channel_name)] * 2


async def test_a_notice_of_the_drain_that_fails_is_told_with_the_connection(caplog):
    def fail(self: Any, notice: Any) -> Any:
        raise RuntimeError(notice.type)

    app = FastAPI()
    consumers = add_consumers(app, [path("/kept", Kept)])
    caplog.set_level(logging.ERROR)
    async with WebsocketCommunicator(app, "/kept"):
        [connection] = consumers.connections
        name = connection.channel_name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(connection.member.framer), "notice", fail)
            await consumers.drain(0)
    [(_, told)] = extras(caplog, "the notice of the close could not be encoded by Kept")
    assert told == name
    [record] = [each for each in caplog.records if "notice of the close" in each.getMessage()]
    assert (record.user, record.address) == (None, "testclient")
