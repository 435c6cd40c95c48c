"""The channel layer: Channels' API over the hub, from inside and outside of consumers."""

from datetime import date

import pytest
from broadcaster import Broadcast
from fastapi import FastAPI

from fastapi_consumers import Consumer, Consumers, InvalidGroup, TooManyGroups, add_consumers, event, path
from fastapi_consumers.testing import WebsocketCommunicator
from fastapi_consumers.transports.broadcaster import BroadcasterTransport


class Listening(Consumer):
    max_groups = 2

    async def connect(self):
        await self.accept()
        await self.send(self.channel_name)

    @event("note")
    async def note(self, message):
        message["seen"] = True
        await self.send(repr(sorted(message.items())))


@pytest.fixture
def app():
    app = FastAPI()
    add_consumers(app, [path("/", Listening)])
    return app


@pytest.fixture
def layer(app):
    return app.state.consumers.layer


async def test_group_add_and_group_discard_decide_who_gets_group_send(app, layer):
    async with WebsocketCommunicator(app, "/") as one, WebsocketCommunicator(app, "/") as two:
        names = [await one.receive_from(), await two.receive_from()]
        for name in names:
            await layer.group_add("g", name)
            await layer.group_add("g", name)  # twice is once
        await layer.group_send("g", {"type": "note", "n": 1})
        for client in (one, two):
            assert await client.receive_from() == "[('n', 1), ('seen', True), ('type', 'note')]"
        await layer.group_discard("g", names[0])
        await layer.group_discard("g", names[0])
        await layer.group_discard("never", names[0])
        await layer.group_send("g", {"type": "note", "n": 2})
        assert "('n', 2)" in await two.receive_from()
        assert await one.receive_nothing(0)


async def test_messages_are_json_and_dates_arrive_as_text(app, layer):
    async with WebsocketCommunicator(app, "/") as client:
        await layer.send(await client.receive_from(), {"type": "note", "day": date(2026, 1, 2)})
        assert "('day', '2026-01-02')" in await client.receive_from()


async def test_each_member_gets_a_message_of_its_own(app, layer):
    async with WebsocketCommunicator(app, "/") as one, WebsocketCommunicator(app, "/") as two:
        for client in (one, two):
            await layer.group_add("g", await client.receive_from())
        await layer.group_send("g", {"type": "note"})
        assert await one.receive_from() == await two.receive_from() == "[('seen', True), ('type', 'note')]"


@pytest.mark.parametrize("message", [{}, {"type": 1}, {"type": None}, "note", None, [("type", "note")]])
async def test_a_message_without_a_type_is_refused(layer, message):
    with pytest.raises(ValueError, match='a dict with a "type" of text'):
        await layer.group_send("g", message)
    with pytest.raises(ValueError, match='a dict with a "type" of text'):
        await layer.send("c!1", message)


async def test_a_message_that_is_no_json_is_refused_before_it_is_sent(layer):
    with pytest.raises(ValueError, match="serialize"):
        await layer.group_send("g", {"type": "note", "it": object()})


async def test_a_group_needs_a_valid_name_and_a_channel_must_be_here(app, layer):
    for call in (layer.group_add("", "c!1"), layer.group_send("", {"type": "x"})):
        with pytest.raises((InvalidGroup, ValueError)):
            await call
    with pytest.raises(ValueError, match="no channel 'c!1' in this process"):
        await layer.group_add("g", "c!1")
    async with WebsocketCommunicator(app, "/") as client:
        name = await client.receive_from()
        with pytest.raises(InvalidGroup):
            await layer.group_add("a\n", name)


async def test_max_groups_holds_for_group_add_too(app, layer):
    async with WebsocketCommunicator(app, "/") as client:
        name = await client.receive_from()
        await layer.group_add("1", name)
        await layer.group_add("2", name)
        with pytest.raises(TooManyGroups):
            await layer.group_add("3", name)


async def test_a_message_to_nobody_is_no_error_also_before_anything_is_open():
    consumers = Consumers(BroadcasterTransport(Broadcast("memory://")))
    await consumers.layer.group_send("g", {"type": "note"})
    await consumers.layer.send("c!1", {"type": "note"})
    await consumers.layer.group_discard("g", "c!1")
    assert consumers.is_open
    await consumers.close()
