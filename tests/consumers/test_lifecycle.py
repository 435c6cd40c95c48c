"""From handshake to teardown: the order of the hooks, and teardown that runs whatever any of them raises."""

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest
from fastapi import Depends

from fastapi_consumers import GroupConsumer, action, event, path
from fastapi_consumers.permissions import BasePermission
from fastapi_consumers.testing import SocketClosed, WebsocketCommunicator


class Hooked(GroupConsumer, abstract=True):
    """Writes down each hook in ``log``, and raises in those named by the query ``raise``."""

    groups = ["one", "two"]
    log: list[str]

    def note(self, step, *, raising=None):
        self.log.append(step)
        if (raising or step) in self.websocket.query_params.getlist("raise"):
            raise RuntimeError(f"raised in {step}")

    async def connect(self):
        self.note("connect")
        await self.accept()

    @asynccontextmanager
    async def lifespan(self):
        self.note("enter")
        try:
            yield
        finally:
            self.note("exit")

    async def on_join(self, group):
        self.note(f"join {group}")

    async def on_leave(self, group):
        self.note(f"leave {group}")

    async def disconnect(self, code):
        self.note(f"disconnect {code}", raising="disconnect")

    @action
    async def ping(self) -> str:
        return "pong"


@pytest.fixture
def log():
    return []


@pytest.fixture
def app(make_app, log):
    async def session():
        log.append("open")
        yield
        log.append("close")

    class Room(Hooked):
        dependencies = [Depends(session)]

    Room.log = log
    return make_app(path("/", Room))


FULL = [
    "open",
    "connect",
    "enter",
    "join one",
    "join two",
    "leave one",
    "leave two",
    "exit",
    "disconnect 1000",
    "close",
]


async def test_the_hooks_run_in_this_order_and_are_undone_in_reverse(app, log, nothing_left):
    async with WebsocketCommunicator(app, "/") as client:
        assert await client.call("ping") == "pong"
        assert log == FULL[:5]
    assert log == FULL
    assert nothing_left(app)


async def test_an_exception_in_connect_refuses_and_disconnect_is_called(app, log, caplog, nothing_left):
    client = WebsocketCommunicator(app, "/?raise=connect")
    assert await client.connect() == (False, 1011)
    await client.wait()
    assert log == ["open", "connect", "disconnect 1011", "close"]
    assert "raised in connect" in caplog.text
    assert nothing_left(app)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("enter", ["open", "connect", "enter", "disconnect 1011", "close"]),
        (
            "join one",
            ["open", "connect", "enter", "join one", "leave one", "exit", "disconnect 1011", "close"],
        ),
        (
            "join two",
            [
                "open",
                "connect",
                "enter",
                "join one",
                "join two",
                "leave one",
                "leave two",
                "exit",
                "disconnect 1011",
                "close",
            ],
        ),
    ],
)
async def test_an_exception_while_entering_closes_with_1011_and_undoes_what_was_done(
    app, log, caplog, nothing_left, step, expected
):
    async with WebsocketCommunicator(app, f"/?raise={step.replace(' ', '%20')}") as client:
        frame = await client.receive_json_from()
        assert (frame["type"], frame["error"]["code"]) == ("error", "internal_error")
        await client.assert_closed(1011)
        await client.wait()
        assert nothing_left(app)
    assert log == expected
    assert f"raised in {step}" in caplog.text


@pytest.mark.parametrize("step", ["leave one", "leave two", "exit", "disconnect"])
async def test_an_exception_during_teardown_does_not_prevent_the_other_steps(app, log, caplog, nothing_left, step):
    async with WebsocketCommunicator(app, f"/?raise={step.replace(' ', '%20')}"):
        pass
    assert log == FULL
    assert f"raised in {step}" in caplog.text
    assert nothing_left(app)


async def test_all_of_teardown_may_fail_and_still_all_of_it_runs(app, log, caplog, nothing_left):
    async with WebsocketCommunicator(app, "/?raise=leave%20one&raise=leave%20two&raise=exit&raise=disconnect"):
        pass
    assert log == FULL
    assert nothing_left(app)


async def test_a_cancelled_task_tears_down(app, log, nothing_left):
    client = WebsocketCommunicator(app, "/")
    await client.connect()
    await client.cancel()
    assert log == [*FULL[:8], "disconnect 1001", "close"]
    assert nothing_left(app)


async def test_a_task_cancelled_while_an_action_runs_tears_down(make_app, nothing_left):
    started, ended = asyncio.Event(), []

    class Busy(GroupConsumer):
        groups = ["all"]

        @action
        async def wait(self) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("action")

        async def disconnect(self, code):
            ended.append("disconnect")

    app = make_app(path("/", Busy))
    client = WebsocketCommunicator(app, "/")
    await client.connect()
    await client.send_json_to({"action": "wait"})
    await started.wait()
    await client.cancel()
    assert ended == ["action", "disconnect"]
    assert nothing_left(app)


async def test_a_task_cancelled_in_connect_tears_down(make_app, nothing_left):
    started, ended = asyncio.Event(), []

    class Slow(GroupConsumer):
        groups = ["all"]

        async def connect(self):
            started.set()
            await asyncio.Event().wait()

        async def disconnect(self, code):
            ended.append(code)

    app = make_app(path("/", Slow))
    client = WebsocketCommunicator(app, "/")
    connecting = asyncio.create_task(client.connect())
    await started.wait()
    await client.cancel()
    with pytest.raises(RuntimeError, match=r"without having accepted|refused|cancel"):
        if (await connecting) == (False, 1001):
            raise RuntimeError("refused")
    assert ended == [1001]
    assert nothing_left(app)


async def test_a_client_that_goes_during_connect_stops_it_and_tears_down(make_app, nothing_left):
    started, ended = asyncio.Event(), []

    class Slow(GroupConsumer):
        groups = ["all"]

        async def connect(self):
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("connect")

        async def disconnect(self, code):
            ended.append(code)

    app = make_app(path("/", Slow))
    client = WebsocketCommunicator(app, "/")
    connecting = asyncio.create_task(client.connect())
    await started.wait()
    await client.disconnect(1006)
    with pytest.raises(SocketClosed):
        await connecting
    assert ended == ["connect", 1006]
    assert nothing_left(app)


async def test_what_is_refused_before_connect_gets_no_hooks_and_leaves_nothing(make_app, log, nothing_left):
    class Never(BasePermission):
        def has_permission(self, consumer, action=None):
            return False

    class Refused(Hooked):
        permission_classes = [Never]

    Refused.log = log
    app = make_app(path("/", Refused))
    client = WebsocketCommunicator(app, "/")
    assert await client.connect() == (False, 4403)
    await client.wait()
    assert log == []
    assert nothing_left(app)


async def test_close_in_connect_has_no_membership_to_announce(make_app, log, nothing_left):
    class Closing(Hooked):
        async def connect(self):
            self.log.append("connect")
            await self.close(4001)

    Closing.log = log
    app = make_app(path("/", Closing))
    client = WebsocketCommunicator(app, "/")
    assert await client.connect() == (False, 4001)
    await client.wait()
    assert log == ["connect", "disconnect 4001"]
    assert nothing_left(app)


async def test_join_and_leave_at_run_time_call_their_hooks_once(make_app, log):
    class Moving(Hooked):
        groups = []

        @action
        async def go(self) -> None:
            await self.join("a")
            await self.join("a")
            await self.join("b")
            await self.leave("a")
            await self.leave("a")

    Moving.log = log
    async with WebsocketCommunicator(make_app(path("/", Moving)), "/") as client:
        await client.call("go")
        assert log == ["connect", "enter", "join a", "join b", "leave a"]
    assert log[5:] == ["leave b", "exit", "disconnect 1000"]


async def test_joining_in_on_join_announces_once_and_nobody_can_join_any_more_in_on_leave(make_app, nothing_left):
    log = []

    class Nested(GroupConsumer):
        groups = ["a"]

        async def on_join(self, group):
            log.append(f"join {group}")
            if group == "a":
                await self.join("b")

        async def on_leave(self, group):
            log.append(f"leave {group}")
            await self.leave("b")
            await self.join("late")

    app = make_app(path("/", Nested))
    async with WebsocketCommunicator(app, "/"):
        pass
    assert log == ["join a", "join b", "leave a", "leave b"]
    assert nothing_left(app)


async def test_a_consumer_that_refused_in_connect_handles_no_messages(make_app):
    log = []

    class Closing(GroupConsumer):
        groups = ["g"]

        @event
        async def note(self, message):
            log.append(message)

        async def connect(self):
            await self.channel_layer.group_send("g", {"type": "note"})
            await self.close()

    client = WebsocketCommunicator(make_app(path("/", Closing)), "/")
    assert await client.connect() == (False, 4403)
    await client.wait()
    assert log == []


async def test_on_leave_may_still_broadcast_to_those_who_stay(make_app):
    class Polite(GroupConsumer):
        groups = ["room"]

        async def on_join(self, group):
            await self.broadcast("came", exclude_self=True)

        async def on_leave(self, group):
            await self.broadcast("went", group=group)

    app = make_app(path("/", Polite))
    async with WebsocketCommunicator(app, "/") as ann:
        async with WebsocketCommunicator(app, "/"):
            await ann.assert_event("came")
        await ann.assert_event("went", group="room")
        assert await ann.receive_nothing(0)


async def test_a_lifespan_may_be_a_bare_async_generator(make_app, log):
    class Bare(Hooked):
        async def lifespan(self):
            self.note("enter")
            yield
            self.note("exit")

    Bare.log = log
    async with WebsocketCommunicator(make_app(path("/", Bare)), "/"):
        pass
    assert log == ["connect", "enter", "join one", "join two", "leave one", "leave two", "exit", "disconnect 1000"]


async def test_events_before_the_lifespan_ended_its_entry_are_not_lost(make_app):
    go = asyncio.Event()

    class Slow(GroupConsumer):
        groups = ["room"]

        @asynccontextmanager
        async def lifespan(self):
            await go.wait()
            yield

        @action
        async def ping(self) -> str:
            return "pong"

    app = make_app(path("/", Slow))
    async with WebsocketCommunicator(app, "/") as client:
        await app.state.consumers.broadcast("room", "news")
        await client.send_json_to({"action": "ping", "request_id": 1})
        await client.assert_event("news")
        go.set()
        assert (await client.receive_json_from())["data"] == "pong"


async def test_stopping_the_app_closes_sockets_with_1012_and_tears_down(log, caplog):
    from fastapi import FastAPI

    from fastapi_consumers import add_consumers
    from fastapi_consumers.testing import lifespan

    class Room(Hooked):
        pass

    Room.log = log
    app = FastAPI()
    consumers = add_consumers(app, [path("/", Room)])
    async with lifespan(app):
        client = WebsocketCommunicator(app, "/")
        await client.connect()
        hub = consumers.hub
    await client.assert_closed(1012)
    await client.wait()
    assert log[-1] == "disconnect 1012"
    assert not hub._channels
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
