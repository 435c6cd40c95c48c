"""Schedules as users see them: on consumer classes, as functions, created at run time; to list and to control."""

import asyncio
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from fastapi_consumers import (
    Consumers,
    GroupConsumer,
    ImproperlyConfigured,
    add_consumers,
    add_routes,
    cron,
    every,
    path,
)
from fastapi_consumers.exceptions import InvalidGroup, NotFound
from fastapi_consumers.history import History
from fastapi_consumers.schedule_stores import Definition, MemoryScheduleStore, RedisScheduleStore
from fastapi_consumers.schedules import RELOAD, ScheduledRun, ScheduleStatus
from fastapi_consumers.testing import WebsocketCommunicator
from fastapi_consumers.testing.clock import Clock
from fastapi_consumers.transports import RedisTransport, Transport
from tests.schedules.conftest import START


class Room(GroupConsumer):
    groups = ["room.{room}"]

    @every("30s")
    @classmethod
    async def tick(cls, group: str, consumers: Consumers, run: ScheduledRun) -> None:
        await consumers.broadcast(group, "tick", [cls.__name__, run.name, run.group])

    @classmethod
    @cron("0 9 * * 1-5", tz="Europe/Berlin")
    async def morning(cls, consumers: Consumers) -> None:
        await consumers.broadcast("room.1", "morning")


def app_of(*routes, **options) -> tuple[FastAPI, Consumers]:
    app = FastAPI()
    return app, add_consumers(app, routes or (path("/room/{room}", Room),), **options)


async def take_part(consumers: Consumers, start: float = START) -> Clock:
    """A clock that the process's schedules go by."""
    await consumers.schedules.list()
    scheduler = consumers.schedules._scheduler
    clock = Clock(start)
    scheduler.deadlines.clock = clock
    for entry in scheduler.entries.values():
        entry.last = 0
        await scheduler.store.save(entry.definition._replace(timing=b"{}"), int(start * 1000))
        await scheduler.store.save(entry.definition, int(start * 1000))
        scheduler._plan(entry)
    return clock


def turn(consumers: Consumers, clock: Clock, seconds: float) -> None:
    clock.advance(seconds)
    consumers.schedules._scheduler.deadlines.look()


async def until(holds: Any) -> Any:
    async with asyncio.timeout(20):
        while True:
            if found := await holds():
                return found
            await asyncio.sleep(0.01)


async def test_a_method_runs_for_each_group_that_has_members():
    app, consumers = app_of()
    async with WebsocketCommunicator(app, "/room/1") as one, WebsocketCommunicator(app, "/room/2") as two:
        clock = await take_part(consumers)
        turn(consumers, clock, 30)
        assert (await one.receive_json_from())["data"] == ["Room", "Room.tick", "room.1"]
        assert (await two.receive_json_from())["group"] == "room.2"
        await two.disconnect()
        turn(consumers, clock, 30)
        assert (await one.receive_json_from())["event"] == "tick"
        status = await until(lambda: _with_runs(consumers, "Room.tick", 3))
    assert (status.kind, status.when, status.errors, status.missed) == ("group", "every 30 s", 0, 0)
    assert status.next_run.timestamp() == START + 90


async def _with_runs(consumers, name, count):
    status = await consumers.schedules.get(name)
    return status if status.runs >= count else None


async def test_a_method_runs_for_its_class_at_the_times_of_cron():
    app, consumers = app_of()
    async with WebsocketCommunicator(app, "/room/1") as one:
        clock = await take_part(consumers)
        status = await consumers.schedules.get("Room.morning")
        # It is a Saturday; Berlin is an hour ahead in winter.
        assert status.next_run.isoformat() == "2026-11-23T08:00:00+00:00"
        turn(consumers, clock, (status.next_run.timestamp() - START))
        events = {(await one.receive_json_from())["event"] for _ in range(2)}
        assert events == {"tick", "morning"}


async def test_each_class_has_schedules_of_its_own():
    class Base(GroupConsumer, abstract=True):
        @every("30s")
        @classmethod
        async def tick(cls, group: str, consumers: Consumers) -> None:
            await consumers.broadcast(group, "tick", cls.__name__)

    class Red(Base):
        groups = ["red.{room}"]

    class Blue(Base):
        groups = ["blue.{room}"]

    class Silent(Base):
        groups = ["silent.{room}"]
        tick = None

    app, consumers = app_of(path("/red/{room}", Red), path("/blue/{room}", Blue), path("/silent/{room}", Silent))
    async with WebsocketCommunicator(app, "/red/1") as red, WebsocketCommunicator(app, "/blue/1") as blue:
        names = [status.name.rpartition(">.")[2] for status in await consumers.schedules.list()]
        assert names == ["Blue.tick", "Red.tick"]
        clock = await take_part(consumers)
        turn(consumers, clock, 30)
        assert (await red.receive_json_from())["data"] == "Red"
        assert (await blue.receive_json_from())["data"] == "Blue"


async def test_functions_run_as_well_also_those_that_come_later():
    _, consumers = app_of()
    ran: list[Any] = []

    @consumers.schedule(every("5m", name="clean-up"))
    async def clean_up(consumers: Consumers, run: ScheduledRun) -> None:
        ran.append((consumers, run.name))

    async with consumers:
        clock = await take_part(consumers)

        @consumers.schedule(every("5m"))
        async def later() -> None:
            ran.append("later")

        name = later.__qualname__
        await until(lambda: _found(consumers, name))
        assert (await consumers.schedules.get(name)).kind == "function"
        turn(consumers, clock, 300)
        await until(lambda: _with_runs(consumers, name, 1))
        await until(lambda: _with_runs(consumers, "clean-up", 1))
    assert sorted(map(str, ran)) == sorted(map(str, [(consumers, "clean-up"), "later"]))


async def _found(consumers, name):
    return [status for status in await consumers.schedules.list() if status.name == name]


async def test_an_event_is_created_listed_and_deleted():
    app, consumers = app_of()
    schedules = consumers.schedules
    async with WebsocketCommunicator(app, "/room/1") as one:
        clock = await take_part(consumers)
        made = await schedules.create("stand-up", every("10s"), group="room.1", event="said", data={"text": "up!"})
        assert (made.kind, made.when, made.is_here, made.group, made.event, made.data) == (
            "event", "every 10 s", True, "room.1", "said", {"text": "up!"},
        )  # fmt: skip
        assert (made.last_run, made.last_outcome, made.running, made.runs) == (None, None, (), 0)
        turn(consumers, clock, 10)
        event = await one.receive_json_from()
        assert (event["event"], event["group"], event["data"]) == ("said", "room.1", {"text": "up!"})
        status = await until(lambda: _with_runs(consumers, "stand-up", 1))
        assert (status.last_outcome, status.last_error) == ("ok", None)
        assert status.last_duration >= 0
        assert [each.name for each in await schedules.list()] == ["Room.morning", "Room.tick", "stand-up"]
        with pytest.raises(ImproperlyConfigured, match="schedule-name-taken"):
            await schedules.create("stand-up", every("10s"), group="room.1", event="other")
        other = await schedules.create("stand-up", every("20s"), group="room.1", event="other", replace=True)
        assert (other.event, other.runs, other.when) == ("other", 1, "every 20 s")
        await schedules.delete("stand-up")
        turn(consumers, clock, 19)
        assert await one.receive_nothing()
        for call in (schedules.get, schedules.delete, schedules.pause, schedules.resume, schedules.run_now):
            with pytest.raises(NotFound):
                await call("stand-up")
        with pytest.raises(ValueError, match="is in the code"):
            await schedules.delete("Room.tick")


async def test_an_event_in_a_group_with_history_is_kept_once():
    class Kept(GroupConsumer):
        groups = ["kept.{room}"]
        history = History(size=10)

    _, consumers = app_of(path("/kept/{room}", Kept))
    async with consumers:
        clock = await take_part(consumers)
        await consumers.schedules.create("news", every("10s"), group="kept.1", event="news")
        scheduler = consumers.schedules._scheduler
        run = ScheduledRun("news", datetime.fromtimestamp(START, UTC), None, 1, 0, False)
        for _ in range(2):  # As if a process had died before it could say that it had sent it.
            await scheduler.entries["news"].scheduled.call(consumers, run)
        turn(consumers, clock, 10)
        await until(lambda: _with_runs(consumers, "news", 1))
        assert len((await consumers.history("kept.1").read()).events) == 2


async def test_what_is_paused_does_not_run_until_it_is_resumed():
    app, consumers = app_of()
    async with WebsocketCommunicator(app, "/room/1") as one:
        clock = await take_part(consumers)
        paused = await consumers.schedules.pause("Room.tick")
        assert (paused.paused, paused.next_run) == (True, None)
        turn(consumers, clock, 60)
        assert await one.receive_nothing()
        await consumers.schedules.run_now("Room.tick")
        assert (await one.receive_json_from())["event"] == "tick"
        resumed = await consumers.schedules.resume("Room.tick")
        assert resumed.paused is False
        turn(consumers, clock, 30)
        assert (await one.receive_json_from())["event"] == "tick"
        assert (await consumers.schedules.get("Room.tick")).missed == 0


async def test_run_now_for_one_group():
    app, consumers = app_of()
    async with WebsocketCommunicator(app, "/room/1") as one, WebsocketCommunicator(app, "/room/2") as two:
        await consumers.schedules.run_now("Room.tick", group="room.2")
        assert (await two.receive_json_from())["data"] == ["Room", "Room.tick", "room.2"]
        assert await one.receive_nothing()


async def test_what_runs_is_seen():
    _, consumers = app_of()
    begun, end = asyncio.Event(), asyncio.Event()

    @consumers.schedule(every("1h", name="long"))
    async def long() -> None:
        begun.set()
        await end.wait()

    async with consumers:
        await consumers.schedules.run_now("long")
        await begun.wait()
        [running] = (await consumers.schedules.get("long")).running
        assert running.group is None
        assert running.process == consumers.schedules._scheduler.process
        assert running.since.tzinfo is not None
        end.set()
        status = await until(lambda: _with_runs(consumers, "long", 1))
        assert status.running == ()


async def test_an_endpoint_answers_with_it_as_it_is():
    app, consumers = app_of()

    @app.get("/schedules")
    async def schedules() -> list[ScheduleStatus]:
        return await consumers.schedules.list()

    transport = httpx.ASGITransport(app=app)
    async with consumers, httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        found = (await client.get("/schedules")).json()
    assert [each["name"] for each in found] == ["Room.morning", "Room.tick"]
    assert found[1]["next_run"].endswith("Z")
    assert (found[1]["paused"], found[1]["running"], found[1]["missed"]) == (False, [], 0)


async def test_nothing_begins_before_the_application_is_up_and_nothing_is_left_after_it():
    order: list[str] = []

    @asynccontextmanager
    async def lifespan(app):
        assert consumers.is_open
        assert consumers.schedules._scheduler is None
        yield
        order.append("down")

    app = FastAPI(lifespan=lifespan)
    consumers = add_consumers(app, [path("/room/{room}", Room)])

    @consumers.schedule(every("1h", name="long"))
    async def long() -> None:
        order.append("run")
        await asyncio.sleep(0.05)
        order.append("ran")

    async with app.router.lifespan_context(app):
        assert consumers.schedules._scheduler is not None
        await consumers.schedules.run_now("long")
        await until(lambda: asyncio.sleep(0, bool(order)))
    assert order == ["run", "ran", "down"]
    assert consumers.schedules._scheduler is None
    tasks = {task.get_name() for task in asyncio.all_tasks()}
    assert not [name for name in tasks if "schedule" in name]


async def test_routes_of_routers_take_part():
    app, consumers = app_of(path("/other", type(GroupConsumer)("Other", (GroupConsumer,), {"groups": ["o"]})))
    router = APIRouter()
    add_routes(router, [path("/room/{room}", Room)])
    app.include_router(router)
    async with app.router.lifespan_context(app):
        assert [status.name for status in await consumers.schedules.list()] == ["Room.morning", "Room.tick"]


async def test_an_application_without_schedules_opens_nothing():
    class Broken(MemoryScheduleStore):
        async def open(self) -> None:
            raise AssertionError

    class Plain(GroupConsumer):
        groups = ["plain"]

    app, consumers = app_of(path("/plain", Plain))
    consumers.schedules.store = Broken()
    async with WebsocketCommunicator(app, "/plain"):
        assert consumers.schedules._scheduler is None
    with pytest.raises(AssertionError):
        await consumers.schedules.list()
    await consumers.close()


async def test_an_application_is_opened_again():
    app, consumers = app_of()
    for _ in range(2):
        async with WebsocketCommunicator(app, "/room/1") as one:
            await consumers.schedules.run_now("Room.tick")
            assert (await one.receive_json_from())["event"] == "tick"
        await consumers.close()


# -- several processes -------------------------------------------------------------------------------------------------


@pytest.fixture
async def two(broker):
    """Two applications over one server, as two processes have them."""
    url = f"{broker.url}?prefix=t{secrets.token_hex(4)}:"
    made = [app_of(url=url), app_of(url=url, schedules_url=url)]
    async with AsyncExitStack() as stack:
        for app, _ in made:
            await stack.enter_async_context(app.router.lifespan_context(app))
        yield [consumers for _, consumers in made]


async def test_what_one_process_created_all_run_and_see(two):
    one, other = two
    await one.schedules.create("news", every("1h"), group="room.1", event="news")
    status = await until(lambda: _here(other, "news"))
    assert status.event == "news"
    await other.schedules.create("news", every("2h"), group="room.1", event="news", replace=True)
    await until(lambda: asyncio.sleep(0, "7200" in repr(one.schedules._scheduler.entries["news"].definition.timing)))
    assert (await one.schedules.get("news")).when == "every 7200 s"
    assert (await other.schedules.pause("Room.tick")).paused
    assert (await one.schedules.get("Room.tick")).paused
    await other.schedules.delete("news")
    await until(lambda: asyncio.sleep(0, "news" not in one.schedules._scheduler.entries))


async def _here(consumers, name):
    found = await _found(consumers, name)
    return found[0] if found and found[0].is_here else None


async def test_a_process_asks_another_to_run_what_only_that_has(two):
    one, other = two
    ran = asyncio.Event()

    @one.schedule(every("1h", name="own"))
    async def own() -> None:
        ran.set()

    await until(lambda: _found(other, "own"))
    assert (await other.schedules.get("own")).is_here is False
    await other.schedules.run_now("own")
    await asyncio.wait_for(ran.wait(), 20)
    assert (await until(lambda: _with_runs(other, "own", 1))).runs == 1


async def test_what_others_created_is_found_although_the_news_was_lost(two, monkeypatch):
    one, other = two

    async def lost(**message: Any) -> None: ...

    monkeypatch.setattr(one.schedules, "_tell", lost)
    await one.schedules.create("news", every("1h"), group="room.1", event="news")
    assert (await other.schedules.get("news")).is_here is False
    scheduler = other.schedules._scheduler
    now = scheduler.deadlines.clock()
    scheduler.deadlines.clock = lambda: now + 1.3 * RELOAD
    scheduler.deadlines.look()
    await until(lambda: _here(other, "news"))


async def test_what_a_later_version_keeps_is_shown_and_left_alone(two):
    one, _ = two
    unknown = Definition("later", "event", b'{"phase":"full moon"}', "room.1", "news")
    await one.schedules.store.save(unknown, 0)
    await one.schedules._reload()
    status = await one.schedules.get("later")
    assert (status.when, status.next_run, status.is_here) == ('{"phase":"full moon"}', None, False)
    await one.schedules.delete("later")


async def test_what_was_created_and_paused_outlives_all_processes(broker):
    url = f"{broker.url}?prefix=t{secrets.token_hex(4)}:"
    app, consumers = app_of(url=url)
    async with app.router.lifespan_context(app):
        await consumers.schedules.create("news", cron("0 9 * * *", tz="Europe/Berlin"), group="room.1", event="news")
        await consumers.schedules.pause("news")
        await consumers.schedules.pause("Room.tick")
    app, consumers = app_of(url=url)
    async with app.router.lifespan_context(app):
        statuses = {status.name: status for status in await consumers.schedules.list()}
    assert {name: (each.paused, each.is_here) for name, each in statuses.items()} == {
        "Room.morning": (False, True),
        "Room.tick": (True, True),
        "news": (True, True),
    }
    assert statuses["news"].when == "cron '0 9 * * *' in Europe/Berlin"


async def test_they_are_kept_where_history_is(tmp_path):
    app, consumers = app_of(history_url=f"sqlite:///{tmp_path}/chat.db")
    async with app.router.lifespan_context(app):
        await consumers.schedules.create("news", every("1h"), group="room.1", event="news")
    app, consumers = app_of(history_url=f"sqlite:///{tmp_path}/chat.db")
    async with app.router.lifespan_context(app):
        assert (await consumers.schedules.get("news")).is_here


async def test_a_store_that_is_away_at_the_start_says_so():
    app, _ = app_of(schedules_url="redis://127.0.0.1:1")
    with pytest.raises(Exception, match="broker is not available"):
        async with app.router.lifespan_context(app):
            pass


# -- mistakes ----------------------------------------------------------------------------------------------------------


def codes_of(caught) -> list[str]:
    return [problem.code for problem in caught.value.problems]


class Shared(Transport):
    """It reaches many processes, and keeps nothing."""

    is_distributed = True

    async def open(self, deliver: Any) -> None: ...
    async def close(self) -> None: ...
    async def publish(self, topic: str, data: bytes) -> None: ...
    async def subscribe(self, topic: str) -> None: ...
    async def unsubscribe(self, topic: str) -> None: ...


async def test_processes_that_share_nothing_cannot_run_something_once():
    with pytest.raises(ImproperlyConfigured) as caught:
        app_of(transport=Shared())
    assert codes_of(caught) == ["no-schedule-store"]
    _, consumers = app_of(path("/x", type(GroupConsumer)("X", (GroupConsumer,), {})), transport=Shared())
    with pytest.raises(ImproperlyConfigured) as caught:
        await consumers.schedules.list()
    assert codes_of(caught) == ["no-schedule-store"]
    await consumers.close()
    _, consumers = app_of(transport=Shared(), schedules_url="memory://")
    assert isinstance(consumers.schedules.store, MemoryScheduleStore)
    _, consumers = app_of(transport=RedisTransport("redis://localhost"))
    assert isinstance(consumers.schedules.store, RedisScheduleStore)


def test_a_url_that_cannot_be_meant_is_refused():
    with pytest.raises(ImproperlyConfigured) as caught:
        app_of(schedules_url="ftp://x")
    assert codes_of(caught) == ["bad-schedules-url"]


def test_two_schedules_of_one_name_are_refused():
    other = type(GroupConsumer)("Room", (Room,), {"__qualname__": "Room", "groups": ["other"]})
    with pytest.raises(ImproperlyConfigured) as caught:
        app_of(path("/room/{room}", Room), path("/other", other))
    assert codes_of(caught) == ["schedule-name-taken"]
    _, consumers = app_of()
    with pytest.raises(ImproperlyConfigured, match="schedule-name-taken"):
        consumers.schedule(every("1m", name="Room.tick"))(_nothing)


async def _nothing() -> None: ...


def test_functions_are_checked_as_methods_are():
    _, consumers = app_of()

    async def needs_group(group: str) -> None: ...
    def blocks() -> None: ...

    for when, function, code in (
        (every("x"), _nothing, "bad-interval"),
        (every("1m"), needs_group, "schedule-parameter"),
        (every("1m"), blocks, "schedule-not-async"),
        ("1m", _nothing, "bad-schedule"),
    ):
        with pytest.raises(ImproperlyConfigured) as caught:
            consumers.schedule(when)(function)
        assert codes_of(caught) == [code]


async def test_what_cannot_be_created_is_refused():
    _, consumers = app_of()
    good: dict[str, Any] = {"name": "news", "when": every("1m"), "group": "room.1", "event": "news"}
    for change, code in (
        ({"when": every("x")}, "bad-interval"),
        ({"when": cron("x")}, "bad-cron"),
        ({"when": "1m"}, "bad-schedule"),
        ({"when": every("1m", timeout=5)}, "bad-schedule"),
        ({"name": ""}, "bad-schedule-name"),
        ({"name": "x" * 129}, "bad-schedule-name"),
        ({"event": ""}, "bad-schedule-event"),
        ({"data": "x" * 70_000}, "bad-schedule-event"),
        ({"name": "Room.tick"}, "schedule-name-taken"),
        ({"name": "Room.tick", "replace": True}, "schedule-name-taken"),
    ):
        with pytest.raises(ImproperlyConfigured) as caught:
            await consumers.schedules.create(**{**good, **change})
        assert codes_of(caught) == [code]
    with pytest.raises(InvalidGroup):
        await consumers.schedules.create(**{**good, "group": ""})
    with pytest.raises(ValueError, match="serialize"):
        await consumers.schedules.create(**{**good, "data": object()})
    await consumers.close()


async def test_once_the_process_drains_what_runs_comes_to_its_end_and_nothing_begins():
    begun, gate, runs, ended = asyncio.Event(), asyncio.Event(), [], []
    _, consumers = app_of()

    @consumers.schedule(every("30s"))
    async def slow() -> None:
        runs.append(1)
        begun.set()
        await gate.wait()
        ended.append("slow")

    async with consumers:
        clock = await take_part(consumers)
        scheduler = consumers.schedules._scheduler
        turn(consumers, clock, 31)
        async with asyncio.timeout(20):
            await begun.wait()
            draining = asyncio.create_task(consumers.drain())
            for _turn in range(20):
                await asyncio.sleep(0)
            assert consumers.schedules._scheduler is None
            assert ended == []
            gate.set()
            await draining
        assert ended == ["slow"]
        clock.advance(100)
        scheduler.deadlines.look()
        for _turn in range(20):
            await asyncio.sleep(0)
        assert runs == [1]
