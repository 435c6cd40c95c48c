"""Observers: what they are told, in what order, and that nobody pays who has none."""

import asyncio
import json
import logging

import pytest
from fastapi import FastAPI

from fastapi_consumers import GroupConsumer, ImproperlyConfigured, action, add_consumers, event, path
from fastapi_consumers.dispatch import Dispatcher
from fastapi_consumers.exceptions import ConsumerError, NotAuthenticated
from fastapi_consumers.facts import facts_of
from fastapi_consumers.history import History
from fastapi_consumers.hub import Hub
from fastapi_consumers.inbox import Inbox
from fastapi_consumers.observing import BATCH, Observer, Observing
from fastapi_consumers.outbox import Outbox
from fastapi_consumers.testing import HandshakeRefused, WebsocketCommunicator


class Sold(ConsumerError):
    def __init__(self, message: str) -> None:
        super().__init__("sold", message)


class Shop(GroupConsumer):
    groups = ["shop.{name}"]

    @action
    async def buy(self, count: int) -> int:
        if count > 9:
            raise Sold("no more")
        return count

    @action
    async def fall(self) -> None:
        raise RuntimeError("a bug")

    @action(concurrent=True)
    async def wait(self, seconds: float = 60) -> None:
        await asyncio.sleep(seconds)
        raise Sold("gone")

    @action
    async def sleep(self) -> None:
        await asyncio.sleep(60)

    @action
    async def tell(self) -> None:
        await self.channel_layer.group_send("shop.one", {"type": "shop.noted"})

    @event("shop.noted")
    async def noted(self, message: dict) -> None:
        raise Sold("again")


class Recorder(Observer):
    def __init__(self) -> None:
        self.seen: list = []
        self.changed = asyncio.Event()

    def _add(self, *what: object) -> None:
        self.seen.append(what)
        self.changed.set()

    async def until(self, *what: object) -> None:
        async with asyncio.timeout(20):
            while what not in self.seen:
                self.changed.clear()
                await self.changed.wait()

    def connection_opened(self, connection):
        self._add("opened", connection.is_accepted)

    def connection_refused(self, connection):
        self._add("refused", connection.close_reason)

    def connection_closed(self, connection):
        self._add("closed", *(facts_of(connection)[name] for name in ("close_code", "closed_by")))

    def call_started(self, call):
        self._add("started", call.kind, call.name)

    def call_ended(self, call):
        assert call.duration >= 0
        self._add("ended", call.kind, call.name, call.outcome)

    def error_told(self, connection, code):
        self._add("error", code)

    def publishing(self, publication):
        self._add("publishing", publication.topic)

    def published(self, publication):
        self._add("published", publication.failure)

    def delivered(self, topic, packet, members):
        self._add("delivered", topic, packet.kind, members)


def shop(*observers: Observer, **options: object) -> FastAPI:
    app = FastAPI()
    add_consumers(app, [path("/{name}", Shop)], observers=observers, **options)
    return app


async def ask(client: WebsocketCommunicator, action: str | None, **data: object) -> dict:
    await client.send_json_to({"action": action, "request_id": 1, "data": data})
    return await client.receive_json_from()


async def test_a_connection_and_its_actions_are_told_in_order():
    recorder = Recorder()
    async with WebsocketCommunicator(shop(recorder), "/one") as client:
        await ask(client, "buy", count=1)
        await ask(client, "buy", count=10)
        await ask(client, "buy", count="many")
        await ask(client, "steal\n")
    await recorder.until("closed", 1000, "client")
    assert recorder.seen == [
        ("opened", True),
        ("started", "action", "buy"),
        ("ended", "action", "buy", "ok"),
        ("started", "action", "buy"),
        ("error", "sold"),
        ("ended", "action", "buy", "sold"),
        ("started", "action", "buy"),
        ("error", "invalid_data"),
        ("ended", "action", "buy", "invalid_data"),
        ("started", "action", "unknown"),
        ("error", "action_not_found"),
        ("ended", "action", "unknown", "action_not_found"),
        ("closed", 1000, "client"),
    ]


async def test_concurrent_actions_keep_their_own_outcomes_and_interrupted_ones_say_so():
    recorder = Recorder()
    async with WebsocketCommunicator(shop(recorder), "/one") as client:
        await client.send_json_to({"action": "wait", "request_id": 1, "data": {"seconds": 0.05}})
        await client.send_json_to({"action": "wait", "request_id": 2})
        await ask(client, "buy", count=3)
        assert (await client.receive_json_from())["error"]["code"] == "sold"
        await client.send_json_to({"action": "sleep", "request_id": 3})
        await recorder.until("started", "action", "sleep")
    await recorder.until("closed", 1000, "client")
    ended = [what[2:] for what in recorder.seen if what[0] == "ended"]
    assert ended == [("buy", "ok"), ("wait", "sold"), ("sleep", "interrupted"), ("wait", "interrupted")]


async def test_a_cancelled_action_ends_with_the_code_that_its_client_is_told():
    recorder = Recorder()
    async with WebsocketCommunicator(shop(recorder), "/one") as client:
        await client.send_json_to({"action": "wait", "request_id": 7})
        await recorder.until("started", "action", "wait")
        await client.send_json_to({"action": "cancel", "request_id": 8, "data": {"request_id": 7}})
        await recorder.until("ended", "action", "wait", "cancelled")


async def test_event_methods_and_packets_are_told_too():
    recorder = Recorder()
    async with WebsocketCommunicator(shop(recorder), "/one") as client:
        await ask(client, "tell")
        await recorder.until("ended", "event", "shop.noted", "sold")
    assert ("publishing", "group:shop.one") in recorder.seen
    assert ("delivered", "group:shop.one", "message", 1) in recorder.seen
    assert ("published", None) in recorder.seen


async def test_an_action_that_waits_for_the_turn_of_an_event_method_keeps_its_outcome():
    """Both run under one lock, and each failure is the one's that raised it."""
    recorder = Recorder()
    async with WebsocketCommunicator(shop(recorder), "/one") as client:
        await client.send_json_to({"action": "tell"})
        await client.send_json_to({"action": "buy", "request_id": 1, "data": {"count": 4}})
        await recorder.until("ended", "action", "buy", "ok")
        await recorder.until("ended", "event", "shop.noted", "sold")


class Recording(Observer):
    """Wants no more than outcomes and durations."""

    def __init__(self):
        self.seen = []

    def call_recorder(self, plan, kind, name):
        self.seen.append(f"asked for {kind} {name} of {plan.options.name}")
        return lambda outcome, durations: self.seen.extend((name, outcome, each >= 0) for each in durations)


class Picky(Shop):
    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "boom":
            raise Sold("not this")
        await super().receive(text_data, bytes_data)


async def test_who_wants_outcomes_and_durations_alone_is_asked_once_and_told_each():
    recording, app = Recording(), FastAPI()
    add_consumers(app, [path("/{name}", Picky)], observers=[recording])
    async with WebsocketCommunicator(app, "/one") as client:
        await ask(client, "buy", count=1)
        await ask(client, "buy", count=10)
        await client.send_to("boom")
        assert (await client.receive_json_from())["error"]["code"] == "sold"
        # What is told without a request is no action's outcome.
        await ask(client, "buy", count=2)
        await client.send_json_to({"action": "wait", "request_id": 3, "data": {"seconds": 0}})
        await client.receive_json_from()
    app.state.consumers.observing.flush()
    calls = [what for what in recording.seen if isinstance(what, tuple)]
    # What went well comes when it is asked for.
    assert calls == [("buy", "sold", True), ("wait", "sold", True), ("buy", "ok", True), ("buy", "ok", True)]
    assert recording.seen.count("asked for action buy of Picky") == 1


async def test_direct_actions_are_recorded_whatever_becomes_of_them():
    class Plain(GroupConsumer):
        groups = []

        @action
        async def echo(self, text: str) -> str:
            if text == "stop":
                await self.close(4001)
            if text == "bug":
                raise RuntimeError(text)
            if text == "long":
                await asyncio.sleep(60)
            return text

    recording, app = Recording(), FastAPI()
    add_consumers(app, [path("/plain", Plain)], observers=[recording])
    async with WebsocketCommunicator(app, "/plain") as client:
        for text in ("a", "bug", "b"):
            await ask(client, "echo", text=text)
        await client.send_json_to({"action": "echo", "request_id": 5, "data": {"text": "long"}})
        await asyncio.sleep(0)
        await client.send_json_to({"action": "cancel", "request_id": 6, "data": {"request_id": 5}})
        assert {(await client.receive_json_from()).get("status") for _ in range(2)} == {"error", "ok"}
        await ask(client, "echo", text="c")
        await client.send_json_to({"action": "echo", "request_id": 7, "data": {"text": "long"}})
        async with asyncio.timeout(20):
            while not _works(app):  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.01)
    app.state.consumers.observing.flush()
    outcomes = [what[1] for what in recording.seen if isinstance(what, tuple) and what[0] == "echo"]
    assert outcomes == ["internal_error", "cancelled", "interrupted", "ok", "ok", "ok"]


async def test_what_went_well_is_handed_over_many_at_a_time_and_never_piles_up():
    recording, app = Recording(), FastAPI()
    add_consumers(app, [path("/plain/{name}", Picky), path("/archive", Archive)], observers=[recording])
    async with WebsocketCommunicator(app, "/archive") as client:
        await client.receive_json_from()
        for _ in range(2 * BATCH + 3):
            await client.send_json_to({"action": "say", "request_id": 1, "data": {"text": "hi"}})
            assert {(await client.receive_json_from())["type"] for _ in range(2)} == {"event", "reply"}
    told = sum(isinstance(what, tuple) for what in recording.seen)
    assert BATCH <= told <= 2 * BATCH + 3
    app.state.consumers.observing.flush()
    app.state.consumers.observing.flush()
    assert sum(isinstance(what, tuple) for what in recording.seen) == 2 * BATCH + 3


def _works(app):
    (connection,) = app.state.consumers.connections
    return connection.dispatcher._running.current == 7


async def test_a_recorder_that_fails_changes_nothing(caplog):
    class Broken(Observer):
        def call_recorder(self, plan, kind, name):
            return self.record

        def record(self, outcome, durations):
            raise LookupError("of the observer")

    app = FastAPI()
    add_consumers(app, [path("/archive", Archive)], observers=[Broken()])
    async with WebsocketCommunicator(app, "/archive") as client:
        await client.receive_json_from()
        await client.send_json_to({"action": "say", "request_id": 1, "data": {"text": "hi"}})
        assert {(await client.receive_json_from())["type"] for _ in range(2)} == {"event", "reply"}
    app.state.consumers.observing.flush()
    assert "Broken.record failed" in caplog.text


class Closed(Shop):
    def get_groups(self):
        raise NotAuthenticated


async def test_a_refused_handshake_is_told_and_never_as_opened():
    recorder = Recorder()
    app = FastAPI()
    add_consumers(app, [path("/{name}", Closed)], observers=[recorder])
    with pytest.raises(HandshakeRefused):
        async with WebsocketCommunicator(app, "/one"):
            pass
    assert recorder.seen == [("refused", "not_authenticated")]


async def test_an_observer_that_fails_is_logged_and_changes_nothing(caplog):
    class Broken(Observer):
        def call_ended(self, call):
            raise LookupError("of the observer")

    recorder = Recorder()
    async with WebsocketCommunicator(shop(Broken(), recorder), "/one") as client:
        assert (await ask(client, "buy", count=1))["data"] == 1
        assert (await ask(client, "buy", count=2))["data"] == 2
    assert ("ended", "action", "buy", "ok") in recorder.seen
    assert "Broken.call_ended failed" in caplog.text


async def test_without_observers_the_classes_of_the_hot_path_are_the_plain_ones():
    app = shop()
    consumers = app.state.consumers
    async with WebsocketCommunicator(app, "/one"):
        (connection,) = consumers.connections
        kinds = [type(connection.dispatcher), type(connection.inbox), type(connection.outbox), type(consumers.hub)]
        assert kinds == [Dispatcher, Inbox, Outbox, Hub]


async def test_who_observes_connections_alone_leaves_the_hot_path_alone():
    class Doorman(Observer):
        def connection_opened(self, connection):
            pass

    app = shop(Doorman())
    async with WebsocketCommunicator(app, "/one"):
        (connection,) = app.state.consumers.connections
        assert type(connection.dispatcher) is Dispatcher
        assert type(connection.inbox) is Inbox


def test_what_is_told_to_end_nests_in_what_is_told_to_begin():
    order = []

    class Named(Observer):
        def __init__(self, name):
            self.name = name

        def call_started(self, call):
            order.append(f"{self.name}+")

        def call_ended(self, call):
            order.append(f"{self.name}-")

    observing = Observing([Named("a"), Named("b")])
    observing.tell("call_started", None)
    observing.tell("call_ended", None)
    assert order == ["a+", "b+", "b-", "a-"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"observers": [Recorder]}, "bad-observers"),
        ({"observers": Recorder}, "bad-observers"),
        ({"access_log": "all"}, "bad-access-log"),
        ({"statistics": 1}, "bad-statistics"),
    ],
)
def test_what_is_no_observer_is_refused(options, code):
    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(FastAPI(), **options)
    assert [problem.code for problem in caught.value.problems] == [code]


class Archive(GroupConsumer):
    groups = ["archive"]
    history = History(size=10)

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)


async def test_recoveries_gaps_and_losses_of_the_broker_are_told():
    class Recoveries(Observer):
        def __init__(self):
            self.seen = []

        def recovered(self, group, success):
            self.seen.append((group, success))

        def gap(self, group):
            self.seen.append((group, "gap"))

        def broker_lost(self):
            self.seen.append("lost")

        def broker_back(self, after):
            self.seen.append(after >= 0)

    seen = Recoveries()
    app = FastAPI()
    add_consumers(app, [path("/archive", Archive), path("/shop/{name}", Shop)], observers=[seen])
    async with WebsocketCommunicator(app, "/archive") as client:
        joined = await client.receive_json_from()
    position = f"{joined['epoch']}:{joined['offset']}"
    async with WebsocketCommunicator(app, f"/archive?recover={position}") as client:
        assert (await client.receive_json_from())["recovered"] is True
    async with WebsocketCommunicator(app, "/archive?recover=other:3") as client:
        assert (await client.receive_json_from())["recovered"] is False
    async with WebsocketCommunicator(app, "/shop/one") as client:
        transport = app.state.consumers.hub.transport
        transport.on_lost()
        await transport.on_gap(["group:shop.one"])
        assert (await client.receive_json_from())["type"] == "gap"
    assert seen.seen == [("archive", True), ("archive", False), "lost", True, ("shop.one", "gap")]


async def test_an_event_in_a_history_is_told_as_published():
    recorder = Recorder()
    app = FastAPI()
    add_consumers(app, [path("/archive", Archive)], observers=[recorder])
    async with WebsocketCommunicator(app, "/archive") as client:
        await client.send_json_to({"action": "say", "data": {"text": "hi"}})
        await recorder.until("delivered", "group:archive", "event", 1)
        await recorder.until("published", None)
    assert ("publishing", "group:archive") in recorder.seen


async def test_messages_and_bytes_are_counted_if_that_is_asked_for():
    app = shop(statistics=True)
    async with WebsocketCommunicator(app, "/one") as client:
        (connection,) = app.state.consumers.connections
        assert facts_of(connection)["last_seen"] is None
        text = json.dumps({"action": "buy", "request_id": "grün", "data": {"count": 2}}, ensure_ascii=False)
        await client.send_to(text)
        answer = await client.receive_from()
        facts = facts_of(connection)
    assert (facts["messages_in"], facts["bytes_in"]) == (1, len(text.encode()))
    assert (facts["messages_out"], facts["bytes_out"]) == (1, len(str(answer).encode()))
    assert facts["last_seen"] is not None
    assert facts["last_seen"] >= facts["opened_at"]
    assert facts["groups"] == ["shop.one"]
    assert (facts["user"], facts["consumer"], facts["path"]) == (None, "Shop", "/one")
    assert (facts["close_code"], facts["closed_by"]) == (None, None)


async def test_without_that_the_facts_say_that_nobody_counted():
    app = shop()
    async with WebsocketCommunicator(app, "/one") as client:
        await ask(client, "buy", count=1)
        (connection,) = app.state.consumers.connections
        facts = facts_of(connection)
    assert [facts[name] for name in ("messages_in", "bytes_in", "bytes_out", "last_seen")] == [None] * 4
    assert facts["messages_out"] == 1
    ended = facts_of(connection)
    assert (ended["close_code"], ended["closed_by"], ended["groups"]) == (1000, "client", [])


def test_the_hooks_log_nothing_by_themselves(caplog):
    with caplog.at_level(logging.DEBUG):
        Observing([Observer()]).tell("gap", "g")
    assert caplog.records == []
