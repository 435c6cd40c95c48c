"""A process is taken out of service: what its clients are told, what still comes to its end, and what does not."""

import asyncio
import json
import time

import pytest
from fastapi import FastAPI

from fastapi_consumers import (
    Consumer,
    GroupConsumer,
    ImproperlyConfigured,
    RelayConsumer,
    action,
    add_consumers,
    event,
    path,
)
from fastapi_consumers.testing import FaultyTransport, WebsocketCommunicator
from fastapi_consumers.transports import MemoryTransport

PATIENCE = 20


class Room(GroupConsumer):
    groups = ["room"]

    async def work(self):
        self.consumers.working += 1
        self.consumers.someone_works.set()
        await self.consumers.gate.wait()

    @action
    async def slow(self) -> str:
        await self.work()
        return "done"

    @action(concurrent=True)
    async def beside(self) -> str:
        await self.work()
        return "done beside"

    @action
    async def ping(self) -> str:
        return "pong"


class Told(GroupConsumer):
    """It has event methods, which take turns with its actions."""

    groups = ["told"]

    @event("news")
    async def news(self, message):
        self.consumers.someone_works.set()
        await self.consumers.gate.wait()
        await self.send_event("heard", message["text"])


class Raw(Consumer):
    """A protocol of its own."""


class Relay(RelayConsumer):
    groups = ["relay"]


class Unspeakable(GroupConsumer):
    groups = ["unspeakable"]

    @classmethod
    def encode_json(cls, content):
        raise ValueError("on purpose")


class Slow(GroupConsumer):
    """Its handshake waits."""

    groups = ["slow"]

    async def connect(self):
        self.consumers.someone_works.set()
        await self.consumers.gate.wait()
        await self.accept()


class Elsewhere(MemoryTransport):
    """As if there were other processes, so that closes are spread."""

    is_distributed = True


def app_of(**options):
    app = FastAPI()
    routes = [path("/room", Room), path("/told", Told), path("/raw", Raw), path("/relay", Relay)]
    routes += [path("/x", Unspeakable), path("/slow", Slow)]
    consumers = add_consumers(app, routes, **options)
    consumers.gate, consumers.someone_works, consumers.working = asyncio.Event(), asyncio.Event(), 0
    return app


@pytest.fixture
async def app():
    return app_of(drain_timeout=PATIENCE)


def closing(frame):
    assert {**frame, "after": 0} == {"type": "closing", "code": 1012, "reconnect": True, "after": 0}
    assert 0 <= frame["after"] <= 4
    return frame


async def until(holds):
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.005)


async def read(client):
    return await client.receive_json_from(timeout=PATIENCE)


async def test_members_are_told_and_closed_and_nobody_is_let_in_any_more(app):
    consumers = app.state.consumers
    async with WebsocketCommunicator(app, "/room") as ann, WebsocketCommunicator(app, "/room") as bob:
        assert consumers.health()["draining"] is False
        await consumers.drain()
        for client in (ann, bob):
            closing(await read(client))
            assert await client.assert_closed(1012) == 1012
            assert client.close_reason == "service_restart"
        assert consumers.health()["draining"] is True
        assert not consumers.connections
        assert not consumers.hub.topics()
        late = WebsocketCommunicator(app, "/room", denial_response=True)
        assert (await late.connect())[0] is False
        denial = late.denial
        assert denial.status == 503
        assert 1 <= int(dict(denial.headers)[b"retry-after"]) <= 4
        assert json.loads(denial.body)["error"]["code"] == "service_restart"


async def test_an_action_that_runs_is_answered_before_its_socket_closes(app):
    consumers = app.state.consumers
    async with WebsocketCommunicator(app, "/room") as client, WebsocketCommunicator(app, "/room") as other:
        await client.send_json_to({"action": "slow", "request_id": 1})
        await consumers.someone_works.wait()
        drain = asyncio.create_task(consumers.drain())
        closing(await read(client))
        await other.assert_closed(1012, timeout=PATIENCE)
        assert len(consumers.connections) == 1
        consumers.gate.set()
        assert (await read(client))["data"] == "done"
        await client.assert_closed(1012, timeout=PATIENCE)
        await drain


async def test_what_waits_its_turn_and_what_runs_beside_it_is_answered_too(app):
    consumers = app.state.consumers
    async with WebsocketCommunicator(app, "/room") as client:
        await client.send_json_to({"action": "beside", "request_id": 0})
        await client.send_json_to({"action": "slow", "request_id": 1})
        for number in (2, 3):
            await client.send_json_to({"action": "ping", "request_id": number})
        (connection,) = consumers.connections
        await until(lambda: connection.inbox.waiting == 2)
        drain = asyncio.create_task(consumers.drain())
        closing(await read(client))
        consumers.gate.set()
        answers = [await read(client) for _ in range(4)]
        assert {answer["request_id"]: answer["data"] for answer in answers} == {
            0: "done beside",
            1: "done",
            2: "pong",
            3: "pong",
        }
        await client.assert_closed(1012, timeout=PATIENCE)
        await drain


async def test_an_event_method_that_runs_comes_to_its_end(app):
    consumers = app.state.consumers
    async with WebsocketCommunicator(app, "/told") as client:
        await consumers.layer.group_send("told", {"type": "news", "text": "rain"})
        await consumers.someone_works.wait()
        drain = asyncio.create_task(consumers.drain())
        closing(await read(client))
        consumers.gate.set()
        assert (await read(client))["data"] == "rain"
        await client.assert_closed(1012, timeout=PATIENCE)
        await drain


async def test_what_does_not_end_in_time_is_cancelled(app):
    consumers = app.state.consumers
    async with WebsocketCommunicator(app, "/room") as client, WebsocketCommunicator(app, "/room") as other:
        await client.send_json_to({"action": "slow", "request_id": 1})
        await other.send_json_to({"action": "beside", "request_id": 1})
        await until(lambda: consumers.working == 2)
        await consumers.drain(timeout=0.5)
        for each in (client, other):
            closing(await read(each))
            await each.assert_closed(1012, timeout=PATIENCE)


async def test_a_client_that_does_not_read_does_not_hold_up_the_drain(app):
    consumers = app.state.consumers
    stalled = WebsocketCommunicator(app, "/room", max_unread=0)
    async with WebsocketCommunicator(app, "/room") as other:
        assert (await stalled.connect())[0]
        for number in range(10):
            await consumers.broadcast("room", "tick", number)
        async with asyncio.timeout(PATIENCE):  # The stalled one's write_timeout alone is 10 seconds.
            began = asyncio.get_running_loop().time()
            await consumers.drain(timeout=0.5)
            assert asyncio.get_running_loop().time() - began < 9
        assert len(consumers.connections) == 1
        await other.receive_json_from()
    await stalled.disconnect()


async def test_a_client_that_goes_meanwhile_is_not_waited_for(app):
    consumers = app.state.consumers
    async with WebsocketCommunicator(app, "/room") as client:
        await client.send_json_to({"action": "slow", "request_id": 1})
        await consumers.someone_works.wait()
        drain = asyncio.create_task(consumers.drain())
        closing(await read(client))
        await client.disconnect(1001)
        async with asyncio.timeout(PATIENCE / 2):
            await drain


async def test_a_handshake_that_is_under_way_is_finished_and_then_closed(app):
    consumers = app.state.consumers
    client = WebsocketCommunicator(app, "/slow")
    connecting = asyncio.create_task(client.connect(timeout=PATIENCE))
    await consumers.someone_works.wait()
    drain = asyncio.create_task(consumers.drain())
    await asyncio.sleep(0)
    consumers.gate.set()
    assert await connecting == (True, None)
    closing(await read(client))
    await client.assert_closed(1012, timeout=PATIENCE)
    await drain


async def test_who_speaks_a_protocol_of_their_own_is_closed_without_a_notice(app, caplog):
    consumers = app.state.consumers
    clients = [WebsocketCommunicator(app, url) for url in ("/raw", "/relay", "/x")]
    async with consumers:
        for client in clients:
            await client.connect()
        await consumers.drain()
        for client in clients:
            assert (await client.receive_output())["type"] == "websocket.close"
    assert "could not be encoded by Unspeakable" in caplog.text


async def test_there_is_one_drain_however_often_it_is_asked_for(app):
    consumers = app.state.consumers
    async with WebsocketCommunicator(app, "/room") as client:
        await client.send_json_to({"action": "slow", "request_id": 1})
        await consumers.someone_works.wait()
        drains = [asyncio.create_task(consumers.drain()) for _ in range(3)]
        closing(await read(client))
        drains.pop().cancel()  # Who stops waiting does not stop the others.
        consumers.gate.set()
        assert (await read(client))["data"] == "done"
        await client.assert_closed(1012, timeout=PATIENCE)
        await asyncio.gather(*drains)
        await consumers.drain()


async def test_where_there_are_other_processes_closes_are_spread_and_the_rest_is_served_meanwhile():
    app = app_of(transport=Elsewhere(), drain_timeout=60)
    consumers = app.state.consumers
    async with consumers:
        clients = [WebsocketCommunicator(app, "/room") for _ in range(40)]
        for client in clients:
            await client.connect()
        drain = asyncio.create_task(consumers.drain())
        await until(lambda: len(consumers.connections) < 40)
        left = [client for client in clients if client.close_code is None]
        answers = await asyncio.gather(*[client.call("ping") for client in left], return_exceptions=True)
        # One or the other may have been sent away before it was answered.
        assert "pong" in answers
    await drain
    for client in clients:
        await client.assert_closed(1012)


async def test_it_goes_on_while_the_broker_is_away():
    transport = FaultyTransport(MemoryTransport())
    app = app_of(transport=transport, drain_timeout=PATIENCE)
    async with WebsocketCommunicator(app, "/room") as client:
        transport.die()
        await app.state.consumers.drain()
        closing(await read(client))
        await client.assert_closed(1012)
        assert not app.state.consumers.connections


async def test_two_apps_in_one_process_drain_apart(app):
    other = app_of()
    async with WebsocketCommunicator(app, "/room") as ann, WebsocketCommunicator(other, "/room") as bob:
        await app.state.consumers.drain()
        closing(await read(ann))
        assert await bob.call("ping") == "pong"
        assert other.state.consumers.health()["draining"] is False


async def test_what_is_closed_and_opened_again_lets_sockets_in_again(app):
    consumers = app.state.consumers
    async with consumers:
        await consumers.drain()
        assert consumers.health()["draining"] is True
    async with consumers:
        assert consumers.health()["draining"] is False
        client = WebsocketCommunicator(app, "/room")
        assert (await client.connect())[0]


async def test_closing_stops_a_drain_that_goes_on(app):
    consumers = app.state.consumers
    async with consumers:
        client = WebsocketCommunicator(app, "/room")
        await client.connect()
        await client.send_json_to({"action": "slow", "request_id": 1})
        await consumers.someone_works.wait()
        drain = asyncio.create_task(consumers.drain())
        closing(await read(client))
    async with asyncio.timeout(PATIENCE / 2):
        await drain
    await client.assert_closed(1012)


@pytest.mark.parametrize("timeout", [-1, float("inf"), float("nan"), "5", True, None])
def test_a_drain_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(FastAPI(), drain_timeout=timeout)
    assert [problem.code for problem in caught.value.problems] == ["bad-drain-timeout"]
