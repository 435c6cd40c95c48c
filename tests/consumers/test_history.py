"""Groups with history as clients see them: positions, recovery, reading back, and what cannot be had any more."""

import asyncio
import logging
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI

from fastapi_consumers import ConsumerError, GroupConsumer, Position, RelayConsumer, action, add_consumers, path
from fastapi_consumers.exceptions import BrokerUnavailable, ImproperlyConfigured
from fastapi_consumers.history import History, MemoryHistoryStore
from fastapi_consumers.pagination import CursorPagination, PageNumberPagination
from fastapi_consumers.testing import Clock, FaultyTransport, WebsocketCommunicator
from fastapi_consumers.transports import MemoryTransport


class Room(GroupConsumer):
    groups = ["room.{room}"]
    history = History(size=10, ttl=60)

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)

    @action
    async def say_once(self, text: str, key: str) -> Position | None:
        return await self.broadcast("said", text, idempotency_key=key)

    @action
    async def whisper(self, text: str) -> None:
        await self.broadcast("said", text, exclude_self=True)

    @action
    async def read(self, after: int | None = None, before: int | None = None, limit: int = 100) -> list[int]:
        return [event.offset for event in (await self.read_history(after=after, before=before, limit=limit)).events]


class World:
    """An app with one room, the faults of its transport, the time of its store."""

    def __init__(self, make_app, *classes, **options):
        self.clock = Clock(1_700_000_000.0)
        self.store = MemoryHistoryStore(time=self.clock)
        self.transport = FaultyTransport(MemoryTransport())
        routes = [path(f"/{cls.__name__.lower()}/{{room}}", cls) for cls in classes]
        self.app = make_app(*routes, transport=self.transport, history_url=self.store, **options)

    @property
    def consumers(self):
        return self.app.state.consumers

    def client(self, query=None, where="room/a"):
        return WebsocketCommunicator(self.app, f"/{where}" + (f"?{urlencode(query)}" if query else ""))

    async def say(self, *texts):
        for text in texts:
            await self.consumers.broadcast("room.a", "said", text)


@pytest.fixture
def world(make_app):
    return World(make_app, Room)


async def frames(client, count):
    return [told(await client.receive_json_from()) for _ in range(count)]


def told(frame):
    if frame["type"] == "event":
        return frame.get("offset"), frame["data"]
    if frame["type"] == "joined":
        return ("joined", frame["offset"], *([frame["recovered"]] if "recovered" in frame else []))
    return frame


async def position_of(client):
    frame = await client.receive_json_from()
    assert frame["type"] == "joined"
    return f"{frame['epoch']}:{frame['offset']}"


# -- positions and recovery --------------------------------------------------------------------------------------------


async def test_the_first_frame_says_where_the_client_joined_and_events_have_offsets(world):
    async with world.client() as alice:
        frame = await alice.receive_json_from()
        assert frame == {"type": "joined", "group": "room.a", "epoch": frame["epoch"], "offset": 0}
        await alice.send_json_to({"action": "say", "data": {"text": "hi"}})
        assert await alice.receive_json_from() == {
            "type": "event",
            "event": "said",
            "group": "room.a",
            "data": "hi",
            "offset": 1,
        }
        async with world.client() as bob:
            assert await frames(bob, 1) == [("joined", 1)]


async def test_a_client_that_comes_back_gets_what_it_missed_once_in_order_and_then_what_follows(world):
    async with world.client() as alice:
        epoch = (await position_of(alice)).partition(":")[0]
        await world.say("one", "two")
        assert await frames(alice, 2) == [(1, "one"), (2, "two")]
    await world.say("three", "four")
    async with world.client({"recover": f"{epoch}:2"}) as alice:
        assert await frames(alice, 3) == [("joined", 2, True), (3, "three"), (4, "four")]
        await world.say("five")
        assert await frames(alice, 1) == [(5, "five")]
        await alice.receive_nothing()


async def test_who_missed_nothing_is_recovered(world):
    async with world.client() as alice:
        position = await position_of(alice)
    async with world.client({"recover": position}) as alice:
        assert await frames(alice, 1) == [("joined", 0, True)]


@pytest.mark.parametrize(
    "recover",
    [
        *("", "x", "x:1", ":", "{epoch}", "{epoch}:", "{epoch}:3", "{epoch}:-1", "{epoch}:99999999999999999999"),
        *("{other}:0", "{epoch}:1:2", "{epoch}: 1", "{epoch}:\u0661", "{epoch}:9007199254740992", "\x00"),
    ],
)
async def test_what_cannot_be_recovered_never_refuses_the_handshake(world, recover):
    async with world.client() as alice:
        epoch = (await position_of(alice)).partition(":")[0]
    async with world.client(where="room/b") as bob:
        other = (await position_of(bob)).partition(":")[0]
    await world.say("one", "two")
    async with world.client({"recover": recover.replace("{epoch}", epoch).replace("{other}", other)}) as alice:
        assert await frames(alice, 1) == [("joined", 2, False)]
        await world.say("three")
        assert await frames(alice, 1) == [(3, "three")]


async def test_what_is_older_than_the_history_keeps_cannot_be_recovered(world):
    async with world.client() as alice:
        position = await position_of(alice)
    await world.say(*map(str, range(10)))
    async with world.client({"recover": position}) as alice:
        assert (await frames(alice, 1)) == [("joined", 0, True)]
    await world.say("more")
    async with world.client({"recover": position}) as alice:
        assert await frames(alice, 1) == [("joined", 11, False)]
    epoch = position.partition(":")[0]
    world.clock.advance(61)
    async with world.client({"recover": f"{epoch}:8"}) as alice:
        assert await frames(alice, 1) == [("joined", 11, False)]
    async with world.client({"recover": f"{epoch}:11"}) as alice:
        assert await frames(alice, 1) == [("joined", 11, True)]


async def test_what_was_purged_cannot_be_recovered(world):
    async with world.client() as alice:
        position = await position_of(alice)
    await world.say("one")
    await world.consumers.history("room.a").purge()
    async with world.client({"recover": position}) as alice:
        frame = await alice.receive_json_from()
        assert (frame["offset"], frame["recovered"]) == (0, False)
        assert frame["epoch"] != position.partition(":")[0]


@pytest.mark.parametrize("limits", [{"max_recovery": 2}, {"max_recovery_bytes": 100}])
async def test_more_than_may_be_recovered_is_not(make_app, limits):
    world = World(make_app, type("Room", (Room,), {**limits, "__module__": __name__}))
    async with world.client() as alice:
        position = await position_of(alice)
    await world.say("one", "two")
    async with world.client({"recover": position}) as alice:
        assert await frames(alice, 3) == [("joined", 0, True), (1, "one"), (2, "two")]
    await world.say("three", "four")
    async with world.client({"recover": position}) as alice:
        assert await frames(alice, 1) == [("joined", 4, False)]


async def test_more_than_the_outbox_holds_may_be_recovered(make_app):
    class Long(GroupConsumer):
        groups = ["room.{room}"]
        history = History(size=1000)
        max_outbox = 4

    world = World(make_app, Long)
    async with world.client(where="long/a") as alice:
        position = await position_of(alice)
    await world.say(*range(500))
    async with world.client({"recover": position}, "long/a") as alice:
        assert await frames(alice, 501) == [("joined", 0, True), *((number + 1, number) for number in range(500))]


async def test_each_of_several_groups_is_recovered_by_itself(make_app):
    class Two(GroupConsumer):
        groups = ["left", "right"]
        history = History()

    world = World(make_app, Two)
    async with world.client(where="two/a") as alice:
        left, right = await position_of(alice), await position_of(alice)
    await world.consumers.broadcast("left", "said", "l")
    await world.consumers.broadcast("right", "said", "r")
    async with world.client({"recover.left": left, "recover": right}, "two/a") as alice:
        assert await frames(alice, 3) == [("joined", 0, True), (1, "l"), ("joined", 1)]
    async with world.client({"recover.left": right, "recover.right": right}, "two/a") as alice:
        assert await frames(alice, 3) == [("joined", 1, False), ("joined", 0, True), (1, "r")]


async def test_messagepack_clients_are_recovered_too(world):
    async with world.client() as alice:
        position = await position_of(alice)
    await world.say("one")
    client = WebsocketCommunicator(world.app, f"/room/a?recover={position}", subprotocols=["fc.v1.msgpack"])
    async with client:
        assert isinstance(await client.receive_from(), bytes)
        assert isinstance(await client.receive_from(), bytes)


async def test_a_member_joins_and_recovers_at_run_time(make_app):
    class Wanderer(GroupConsumer):
        history = History()

        @action
        async def enter(self, group: str, recover: Position | None = None) -> bool:
            return await self.join(group, recover)

        @action
        async def exit(self, group: str) -> bool:
            return await self.leave(group)

    world = World(make_app, Wanderer)
    async with world.client(where="wanderer/a") as alice:

        async def call(name, **data):
            await alice.send_json_to({"action": name, "request_id": 1, "data": data})

        await call("enter", group="x")
        epoch = (await position_of(alice)).partition(":")[0]
        assert (await alice.receive_json_from())["data"] is True
        # What a member came with counts for everybody who broadcasts.
        assert await world.consumers.broadcast("x", "said", "one") == Position(epoch, 1)
        assert await frames(alice, 1) == [(1, "one")]
        await call("exit", group="x")
        await alice.receive_json_from()
        # Nobody is there, and whoever comes back may ask for it.
        assert await world.consumers.broadcast("x", "said", "two") == Position(epoch, 2)
        await call("enter", group="x", recover=[epoch, 0])
        assert await frames(alice, 3) == [("joined", 0, True), (1, "one"), (2, "two")]
        assert (await alice.receive_json_from())["data"] is True
        await call("exit", group="x")
        await alice.receive_json_from()
        for offset in (-1, 3, 2**70):
            await call("enter", group="x", recover=[epoch, offset])
            assert await frames(alice, 1) == [("joined", 2, False)]
            await alice.receive_json_from()
            await call("exit", group="x")
            await alice.receive_json_from()
        await call("enter", group="x", recover="x:1")
        assert (await alice.receive_json_from())["error"]["code"] == "invalid_data"


@pytest.mark.parametrize("recover", ["x:1", ("x", 1), Position("x", None), Position(None, 1), Position("x", True), 5])
async def test_what_is_no_position_is_a_mistake_of_the_program(make_app, recover):
    failures = []

    class Wanderer(GroupConsumer):
        history = History()

        async def connect(self):
            with pytest.raises(TypeError, match="expected a Position") as caught:
                await self.join("x", recover)
            failures.append(caught.value)
            assert self.group_names == ()
            await self.accept()

    world = World(make_app, Wanderer)
    async with world.client(where="wanderer/a"):
        assert len(failures) == 1


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_lost_doubled_and_late_packets_reach_a_client_once_and_in_order(world):
    async with world.client() as alice:
        await position_of(alice)
        world.transport.drop(2)
        await world.say("one", "two", "three")
        world.transport.duplicate()
        world.transport.reorder()
        await world.say("four", "five", "six")
        world.transport.delay()
        await world.say("seven", "eight")
        await world.transport.release()
        texts = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
        assert await frames(alice, 8) == [*enumerate(texts, 1)]
        await alice.receive_nothing()


async def test_a_lost_connection_to_the_broker_is_healed(world):
    async with world.client() as alice:
        await position_of(alice)
        world.transport.die()
        with pytest.raises(BrokerUnavailable):
            await world.consumers.hub.transport.publish("group:room.a", b"")
        # Kept, and delivered once the broker is back.
        assert (await world.consumers.broadcast("room.a", "said", "one")).offset == 1
        await world.transport.revive()
        assert await frames(alice, 1) == [(1, "one")]


async def test_what_is_gone_for_good_is_a_gap(world):
    async with world.client() as alice:
        await position_of(alice)
        world.transport.drop(12)
        await world.say(*map(str, range(12)))
        await world.say("last")
        assert await alice.receive_json_from() == {"type": "gap", "group": "room.a"}
        assert await frames(alice, 1) == [(4, "3")]


async def test_a_purge_is_told_as_a_gap_and_a_new_position(world):
    async with world.client() as alice:
        position = await position_of(alice)
        await world.say("one")
        await world.consumers.history("room.a").purge()
        await world.say("new")
        assert await frames(alice, 1) == [(1, "one")]
        assert await alice.receive_json_from() == {"type": "gap", "group": "room.a"}
        frame = await alice.receive_json_from()
        assert (frame["type"], frame["offset"]) == ("joined", 0)
        assert frame["epoch"] != position.partition(":")[0]
        assert await frames(alice, 1) == [(1, "new")]


async def test_a_client_too_slow_for_its_group_is_told_what_it_lost(make_app):
    class Dropping(GroupConsumer):
        groups = ["room.{room}"]
        history = History()
        overflow = "drop_oldest"
        max_outbox = 2

        async def connect(self):
            # Nothing leaves before it is accepted.
            for number in range(5):
                await self.broadcast("said", number)
            await asyncio.sleep(0)
            await self.accept()

    world = World(make_app, Dropping)
    async with world.client(where="dropping/a") as alice:
        found = await frames(alice, 3)
        assert found[0] == ("joined", 0)
        assert found[1] == {"type": "gap", "group": "room.a"}
        assert found[2] == (5, 4)


async def test_a_handshake_is_refused_while_the_store_is_away(world):
    async def away(*args):
        raise BrokerUnavailable

    position, world.store.position = world.store.position, away
    assert await world.client().connect() == (False, 1013)
    world.store.position = position
    async with world.client() as alice:
        assert await frames(alice, 1) == [("joined", 0)]


async def test_an_event_that_cannot_be_kept_is_an_error_and_reaches_nobody(world):
    async def away(*args, **kwargs):
        raise BrokerUnavailable

    async with world.client() as alice:
        await position_of(alice)
        world.store.append = away
        await alice.send_json_to({"action": "say", "request_id": 1, "data": {"text": "hi"}})
        assert (await alice.receive_json_from())["error"]["code"] == "broker_unavailable"
        await alice.receive_nothing()


async def test_who_leaves_while_it_joins_is_no_member(make_app):
    class Wanderer(GroupConsumer):
        history = History()

        @action(concurrent=True)
        async def enter(self) -> bool:
            return await self.join("x")

        @action(concurrent=True)
        async def exit(self) -> bool:
            return await self.leave("x")

        @action(concurrent=True)
        async def where(self) -> list[str]:
            return list(self.group_names)

    world = World(make_app, Wanderer)
    position, asked, gate = world.store.position, asyncio.Event(), asyncio.Event()

    async def slow(*args):
        asked.set()
        await gate.wait()
        return await position(*args)

    world.store.position = slow
    async with world.client(where="wanderer/a") as alice:
        await alice.send_json_to({"action": "enter", "request_id": 1})
        await asyncio.wait_for(asked.wait(), 20)
        await alice.send_json_to({"action": "exit", "request_id": 2})
        assert (await alice.receive_json_from())["data"] is True
        gate.set()
        assert (await alice.receive_json_from())["data"] is False
        await alice.send_json_to({"action": "where", "request_id": 3})
        assert (await alice.receive_json_from())["data"] == []


# -- publishing --------------------------------------------------------------------------------------------------------


async def test_broadcast_returns_the_position_and_none_without_history(world):
    async with world.client() as alice:
        epoch = (await position_of(alice)).partition(":")[0]
        assert await world.consumers.broadcast("room.a", "said") == Position(epoch, 1)
    assert await world.consumers.broadcast("elsewhere", "said") is None


async def test_an_idempotency_key_is_kept_once(world):
    async with world.client() as alice:
        epoch = (await position_of(alice)).partition(":")[0]
        request = {"action": "say_once", "request_id": 1, "data": {"text": "hi", "key": "k"}}
        await alice.send_json_to(request)
        assert await frames(alice, 1) == [(1, "hi")]
        assert (await alice.receive_json_from())["data"] == [epoch, 1]
        await alice.send_json_to(request)
        assert (await alice.receive_json_from())["data"] == [epoch, 1]
        await alice.receive_nothing()


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", 5])
async def test_a_bad_idempotency_key_is_a_clear_error(world, key):
    async with world.client():
        with pytest.raises(ValueError, match="idempotency key"):
            await world.consumers.broadcast("room.a", "said", idempotency_key=key)


async def test_an_idempotency_key_needs_a_history(world):
    with pytest.raises(ValueError, match="no history"):
        await world.consumers.broadcast("elsewhere", "said", idempotency_key="k")


async def test_who_is_left_out_gets_its_event_neither_live_nor_by_healing(world):
    async with world.client() as alice, world.client() as bob:
        await position_of(alice)
        await position_of(bob)
        for _ in range(2):
            await alice.send_json_to({"action": "whisper", "request_id": 1, "data": {"text": "psst"}})
            assert (await alice.receive_json_from())["type"] == "reply"
            world.transport.drop()
        await world.say("lost")
        await world.say("loud")
        assert await frames(bob, 4) == [(1, "psst"), (2, "psst"), (3, "lost"), (4, "loud")]
        assert await frames(alice, 2) == [(3, "lost"), (4, "loud")]


# -- classes without history -------------------------------------------------------------------------------------------


async def test_a_class_without_history_in_a_group_with_one_gets_the_events_and_no_position(make_app):
    class Plain(GroupConsumer):
        groups = ["room.{room}"]

        @action
        async def say(self, text: str) -> None:
            await self.broadcast("said", text)

    world = World(make_app, Room, Plain)
    async with world.client(where="plain/a") as plain, world.client() as alice:
        await position_of(alice)
        await plain.send_json_to({"action": "say", "data": {"text": "hi"}})
        assert await frames(plain, 1) == [(1, "hi")]
        assert await frames(alice, 1) == [(1, "hi")]
        await plain.send_json_to({"action": "history", "request_id": 1})
        assert (await plain.receive_json_from())["error"]["code"] == "action_not_found"
    async with world.client({"recover": "x:1"}, "plain/a") as plain:
        await plain.receive_nothing()


async def test_a_relay_sends_frames_as_they_are_beside_events_with_offsets(make_app):
    class Relay(RelayConsumer):
        groups = ["room.{room}"]
        history = History()

    world = World(make_app, Relay)
    async with world.client(where="relay/a") as alice:
        await position_of(alice)
        await alice.send_to(text_data="raw")
        assert await alice.receive_from() == "raw"
        await world.say("kept")
        assert await frames(alice, 1) == [(1, "kept")]


# -- reading back ------------------------------------------------------------------------------------------------------


async def ask(client, **data):
    await client.send_json_to({"action": "history", "request_id": 1, "data": data})
    reply = await client.receive_json_from()
    return reply["data"] if reply["status"] == "ok" else reply["error"]


async def test_the_history_action_pages_backwards_from_the_newest(world):
    async with world.client() as alice:
        epoch = (await position_of(alice)).partition(":")[0]
        await world.say(*"abcde")
        await frames(alice, 5)
        page = await ask(alice, limit=2)
        assert [(entry["event"], entry["data"], entry["offset"]) for entry in page["results"]] == [
            ("said", "e", 5),
            ("said", "d", 4),
        ]
        assert (page["epoch"], page["previous"]) == (epoch, None)
        assert page["results"][0]["at"].startswith("2023-11-14T22:13:20")
        await world.say("f")
        await frames(alice, 1)
        page = await ask(alice, limit=2, cursor=page["next"])
        assert [entry["offset"] for entry in page["results"]] == [3, 2]
        last = await ask(alice, limit=2, cursor=page["next"], group="room.a")
        assert ([entry["offset"] for entry in last["results"]], last["next"]) == ([1], None)


@pytest.mark.parametrize("limit", [0, -1, "2", 1.5, True, None, [], 2**70])
async def test_a_bad_limit_is_invalid_data_and_a_large_one_is_bounded(world, limit):
    async with world.client() as alice:
        await position_of(alice)
        await world.say("one")
        await frames(alice, 1)
        answer = await ask(alice, limit=limit)
        if limit is None or limit == 2**70:
            assert len(answer["results"]) == 1
        else:
            assert answer["code"] == "invalid_data"


@pytest.mark.parametrize("cursor", ["", "x", "!", "e30", "\ud83d\ude00", "x" * 5000, 5])
async def test_a_bad_cursor_is_a_clear_error(world, cursor):
    async with world.client() as alice:
        await position_of(alice)
        assert (await ask(alice, cursor=cursor))["code"] in ("invalid_cursor", "invalid_data")


async def test_a_cursor_of_another_epoch_or_group_is_refused(make_app):
    class Two(GroupConsumer):
        groups = ["left", "right"]
        history = History()

    world = World(make_app, Two)
    async with world.client(where="two/a") as alice:
        await frames(alice, 2)
        for group in ("left", "right"):
            for _ in range(3):
                await world.consumers.broadcast(group, "said")
        await frames(alice, 6)
        cursor = (await ask(alice, group="left", limit=1))["next"]
        assert len((await ask(alice, group="left", cursor=cursor))["results"]) == 2
        assert (await ask(alice, group="right", cursor=cursor))["code"] == "invalid_cursor"
        await world.consumers.history("left").purge()
        assert (await ask(alice, group="left", cursor=cursor))["code"] == "invalid_cursor"
        # Which of the two is meant, has to be said.
        assert (await ask(alice))["code"] == "invalid_group"


async def test_only_members_read_a_group_s_history(world):
    async with world.client() as alice, world.client(where="room/b") as bob:
        await position_of(alice)
        await position_of(bob)
        assert (await ask(bob, group="room.a"))["code"] == "not_a_member"
        assert (await ask(bob, group="nowhere"))["code"] == "not_a_member"
        assert (await ask(bob, group=5))["code"] == "invalid_data"


async def test_a_page_number_pagination_gives_its_sizes_to_the_history(make_app):
    class Sized(Room):
        pagination_class = PageNumberPagination(page_size=2, max_page_size=3)

    world = World(make_app, Sized)
    async with world.client(where="sized/a") as alice:
        await position_of(alice)
        await world.say(*"abcde")
        await frames(alice, 5)
        assert len((await ask(alice))["results"]) == 2
        assert len((await ask(alice, limit=50))["results"]) == 3


async def test_a_page_may_be_larger_than_one_read(make_app):
    """The last one of a page says whether there are more, even where a read returns no more than it may."""

    class Large(Room):
        history = History(size=5000)
        pagination_class = CursorPagination(page_size=1000, max_page_size=1500)

    world = World(make_app, Large)
    async with world.client(where="large/a") as alice:
        await position_of(alice)
    await world.say(*range(2100))
    async with world.client(where="large/a") as alice:
        await position_of(alice)
        page = await ask(alice)
        assert (len(page["results"]), page["results"][-1]["offset"]) == (1000, 1101)
        assert page["next"] is not None
        page = await ask(alice, cursor=page["next"], limit=1500)
        assert (len(page["results"]), page["results"][-1]["offset"], page["next"]) == (1100, 1, None)


async def test_an_event_that_cannot_be_read_hides_no_others(world, caplog):
    async with world.client() as alice:
        await position_of(alice)
        await world.say("one")
        await world.store.append("room.a", b"damaged", Room.history)
        await world.say("three")
        await alice.receive_nothing(0.05)
        await frames(alice, 3)
        page = await ask(alice, limit=2)
        assert [entry["offset"] for entry in page["results"]] == [3, 1]
        assert page["next"] is None


@pytest.mark.parametrize(
    ("bounds", "offsets"),
    [
        ({}, [1, 2, 3]),
        ({"after": 1}, [2, 3]),
        ({"before": 3}, [1, 2]),
        ({"after": 1, "before": 3}, [2]),
        ({"after": 2, "before": 2}, []),
        ({"after": -(2**70), "before": 2**70}, [1, 2, 3]),
        ({"limit": 2**70}, [1, 2, 3]),
        ({"limit": 1}, [1]),
    ],
)
async def test_a_consumer_reads_between_any_bounds(world, bounds, offsets):
    async with world.client() as alice:
        await position_of(alice)
        await world.say(*"abc")
        await frames(alice, 3)
        await alice.send_json_to({"action": "read", "request_id": 1, "data": bounds})
        assert (await alice.receive_json_from())["data"] == offsets


async def test_the_history_of_a_group_without_one_is_not_found(world):
    with pytest.raises(ConsumerError, match="no history"):
        world.consumers.history("elsewhere")


# -- settings ----------------------------------------------------------------------------------------------------------


async def test_two_classes_that_disagree_about_a_group_are_refused():
    class Other(GroupConsumer):
        groups = ["room.{room}"]
        history = History(size=3)

    with pytest.raises(ImproperlyConfigured, match="history-conflict"):
        add_consumers(FastAPI(), [path("/a/{room}", Room), path("/b/{room}", Other)])


async def test_what_stays_of_many_clients_is_nothing(world, caplog):
    caplog.set_level(logging.WARNING)
    position = None
    for _ in range(20):
        async with world.client({"recover": position} if position else None) as alice:
            position = await position_of(alice)
            await world.say("hi")
            assert (await alice.receive_json_from())["type"] == "event"
    streams = world.consumers.hub.streams
    assert (streams._streams, streams._tasks, streams._checking) == ({}, set(), None)
    assert not caplog.records
