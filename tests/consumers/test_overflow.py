"""Clients that do not keep up, as consumers see them."""

import asyncio

import pytest

from fastapi_consumers import GroupConsumer, action, path
from fastapi_consumers.messages import Reply
from fastapi_consumers.testing import WebsocketCommunicator

DROPPING = ["drop_oldest", "drop_newest", "coalesce"]


class Room(GroupConsumer):
    groups = ["room"]
    max_outbox = 4
    told: list

    def __init_subclass__(cls, **options):
        cls.told = []
        super().__init_subclass__(**options)

    def on_overflow(self, policy):
        self.told.append(policy)

    @action
    async def echo(self, text: str) -> str:
        return text

    @action
    async def move(self, player: str, to: int) -> None:
        await self.broadcast("moved", [player, to], coalesce_key=player, exclude_self=True)


def room(**attributes):
    return type("Made", (Room,), attributes)


def slow(app):
    """Its client takes one frame, and then nothing until it is received."""
    return WebsocketCommunicator(app, "/room", max_unread=1)


async def tick(app, *numbers):
    for number in numbers:
        await app.state.consumers.broadcast("room", "tick", number)


async def ticks(client):
    """All that has been sent, and the slow one lets through; the numbers of its events."""
    found = []
    while True:
        for _ in range(100):  # Nothing here waits for anything but the loop.
            await asyncio.sleep(0)
        if await client.receive_nothing(0):
            return found
        found.append((await client.receive_json_from())["data"])


@pytest.mark.parametrize("overflow", DROPPING)
async def test_the_policy_is_carried_out_counted_and_told_of_once(make_app, overflow):
    cls = room(overflow=overflow)
    app = make_app(path("/room", cls))
    async with slow(app) as client, WebsocketCommunicator(app, "/room") as other:
        await tick(app, *range(20))
        # One was received, one is being written, four wait.
        kept = [0, 1, 2, 3, 4, 5] if overflow == "drop_newest" else [0, 1, 16, 17, 18, 19]
        assert await ticks(client) == kept
        assert await ticks(other) == list(range(20))
        assert cls.told == [overflow]
        assert app.state.consumers.overflows == {overflow: 14}
        # All is well again, so that the next time is told of too.
        await tick(app, *range(20))
        for _ in range(5):
            await asyncio.sleep(0)
        assert cls.told == [overflow, overflow]
        assert app.state.consumers.overflows == {overflow: 28}
        assert await ticks(client) == kept


async def test_disconnect_is_told_and_counted_once(make_app):
    cls = room()
    app = make_app(path("/room", cls))
    async with slow(app) as client:
        await tick(app, *range(20))
        await client.wait()
    assert cls.told == ["disconnect"]
    assert app.state.consumers.overflows == {"disconnect": 1}


async def test_replies_get_through_and_too_many_of_them_disconnect(make_app):
    cls = room(overflow="drop_oldest")
    app = make_app(path("/room", cls))
    async with slow(app) as client:
        await tick(app, *range(10))
        (connection,) = app.state.consumers.connections
        for number in range(4):
            connection.outbox.push(connection.member.framer.reply(Reply("echo", number, "ok", number)))
        assert await ticks(client) == [0, 1, 0, 1, 2, 3]
        await tick(app, 0, 1)
        for number in range(5):
            connection.outbox.push(connection.member.framer.reply(Reply("echo", number, "ok", number)))
        await client.wait()
    assert cls.told == ["drop_oldest", "disconnect"]
    assert app.state.consumers.overflows == {"drop_oldest": 8, "disconnect": 1}


async def test_coalesce_leaves_the_newest_of_each_key(make_app):
    cls = room(overflow="coalesce")
    app = make_app(path("/room", cls))
    async with slow(app) as client, WebsocketCommunicator(app, "/room") as player:
        for to in range(10):
            for name in ("ann", "bob"):
                await player.send_json_to({"action": "move", "request_id": to, "data": {"player": name, "to": to}})
                assert (await player.receive_json_from())["status"] == "ok"
        assert await ticks(client) == [["ann", 0], ["bob", 0], ["ann", 9], ["bob", 9]]
        (outbox,) = [each.outbox for each in app.state.consumers.connections if each.outbox.coalesced]
        assert (outbox.coalesced, outbox.dropped) == (16, 0)
    # Nothing was lost that anybody would miss.
    assert cls.told == []
    assert not app.state.consumers.overflows


async def test_the_policy_may_be_the_apps_and_a_mounted_consumers(make_app):
    app = make_app(path("/room", room()), path("/own", room().as_asgi(overflow="drop_newest")), overflow="drop_oldest")
    async with slow(app), WebsocketCommunicator(app, "/own"):
        assert {each.outbox._bounds.overflow for each in app.state.consumers.connections} == {
            "drop_oldest",
            "drop_newest",
        }


async def test_what_the_hook_broadcasts_does_not_overtake_what_is_being_fanned_out(make_app):
    class Loud(Room):
        overflow = "drop_oldest"

        async def on_overflow(self, policy):
            await self.broadcast("tick", policy)

    app = make_app(path("/room", Loud))
    # The members before and behind the slow one see one order.
    async with WebsocketCommunicator(app, "/room") as before, slow(app), WebsocketCommunicator(app, "/room") as behind:
        await tick(app, *range(7))
        expected = [*range(7), "drop_oldest"]
        assert (await ticks(before), await ticks(behind)) == (expected, expected)


@pytest.mark.parametrize("awaits", [False, True])
async def test_a_hook_that_fails_or_waits_costs_nobody_anything(make_app, caplog, awaits):
    class Bad(Room):
        overflow = "drop_oldest"

        async def on_overflow(self, policy):
            if awaits:
                await asyncio.sleep(1)
            raise ValueError("bad")

    app = make_app(path("/room", Bad))
    async with slow(app) as client, WebsocketCommunicator(app, "/room") as other:
        await tick(app, *range(10))
        assert await ticks(other) == list(range(10))
        assert await ticks(client) == [0, 1, 6, 7, 8, 9]
    (record,) = caplog.records
    expected = "waited for something; start a task for what takes longer" if awaits else "failed"
    assert record.message.endswith(f"Bad.on_overflow {expected}")
