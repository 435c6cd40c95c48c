"""The transport over broadcaster and PostgreSQL, on a real server that is restarted, and terminates connections."""

import asyncio
import logging
import os
import random
import signal
import time
import uuid
from contextlib import AsyncExitStack

import asyncpg
import pytest
from broadcaster import Broadcast
from fastapi import FastAPI

from fastapi_consumers import (
    BrokerUnavailable,
    GroupConsumer,
    ImproperlyConfigured,
    MessageTooBig,
    action,
    add_consumers,
    path,
)
from fastapi_consumers.testing import CallError, WebsocketCommunicator, lifespan
from fastapi_consumers.transports.broadcaster import BroadcasterTransport
from fastapi_consumers.transports.urls import transport_of
from tests.conftest import Postgres
from tests.transports import test_contract
from tests.transports.tools import opened, refuses_in_time, two_server_processes_share_a_room, until, until_end

# The contract, on this transport: its tests and fixtures, with `make_transport` as it is below; but for tests of Redis.
globals().update(
    {
        name: value
        for name, value in vars(test_contract).items()
        if name.startswith("test_") and all(mark.args[0] != "backend" for mark in getattr(value, "pytestmark", []))
    }
)
globals().update({name: getattr(test_contract, name) for name in ("received", "transport")})

#: The largest packet that PostgreSQL carries, in bytes.
MOST = 5997


@pytest.fixture
def prefix():
    return f"{uuid.uuid4().hex[:8]}:"


@pytest.fixture
def make_transport(postgres_url):
    """Of an app of its own each."""
    return lambda: transport_of(f"{postgres_url}?prefix={uuid.uuid4().hex[:8]}:")


@pytest.fixture
def backend(make_transport):
    return test_contract.Backend(make_transport)


@pytest.fixture
def make_peer(postgres_url, prefix):
    """Of one app, as in several processes."""
    return lambda: transport_of(f"{postgres_url}?prefix={prefix}", broker_timeout=20)


@pytest.fixture(scope="module")
def mortal(postgres_binaries):
    server = Postgres(postgres_binaries)
    yield server
    server.remove()


@pytest.fixture
def own_postgres(mortal):
    """A server that the test may kill."""
    yield mortal
    if not (mortal.folder / "data" / "postmaster.pid").exists():
        mortal.start()


async def ask(url, query, *arguments):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


#: Those that have asked for notifications; or, while they are idle, told others of something.
LISTENERS = "pid <> pg_backend_pid() AND (query LIKE 'LISTEN%' OR query LIKE '%pg_notify%' OR query LIKE 'UNLISTEN%')"


async def terminate_listeners(url):
    return await ask(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {LISTENERS}")


def watch(transport):
    """What the transport tells of losses: the topics of each gap, and how many losses there were."""
    gaps, losses = [], []

    async def on_gap(topics):
        gaps.append(sorted(topics))

    transport.on_gap = on_gap
    transport.on_lost = lambda: losses.append(time.monotonic())
    return gaps, losses


# Messages


@pytest.mark.parametrize(
    "packet",
    [b"", b"text", bytes(range(256)), b"x" * MOST, random.Random(7).randbytes(MOST)],
    ids=["empty", "text", "every byte", "as long as may be", "random"],
)
async def test_any_bytes_arrive_as_they_were_sent(transport, received, packet):
    await transport.subscribe("t")
    await transport.publish("t", packet)
    assert await until_end(transport, received) == [("t", packet)]


async def test_a_packet_that_is_too_big_is_refused_and_does_no_harm(transport, received):
    await transport.subscribe("t")
    with pytest.raises(MessageTooBig, match=f"{MOST + 1} bytes, of at most {MOST}") as caught:
        await transport.publish("t", b"x" * (MOST + 1))
    assert caught.value.code == "message_too_big"
    assert await until_end(transport, received) == []
    assert transport.is_healthy


async def test_the_longest_names_of_groups_are_told_apart(transport, received):
    names = ["g" * 255 + end for end in ("", "x", "y")] + ["ä" * 255, "𝄞" * 255]
    for name in names:
        await transport.subscribe(name)
    for name in names:
        await transport.publish(name, name.encode())
    assert sorted(await until_end(transport, received)) == sorted((name, name.encode()) for name in names)


async def test_publishing_and_subscribing_at_the_same_time_do_not_collide_and_all_see_one_order(make_peer):
    one, two = make_peer(), make_peer()
    async with opened(one, two) as [in_one, in_two]:
        await one.subscribe("t")
        await two.subscribe("t")
        names = [f"t{number}" for number in range(50)]
        await asyncio.gather(
            *[one.subscribe(name) for name in names],
            *[transport.publish("t", f"{number}".encode()) for number in range(200) for transport in (one, two)],
            *[two.subscribe(name) for name in names],
        )
        orders = [[(await received.next())[1] for _ in range(400)] for received in (in_one, in_two)]
        assert orders[0] == orders[1]
        assert sorted(orders[0]) == sorted(f"{number}".encode() for number in range(200) for _ in range(2))
        await asyncio.gather(*[one.publish(name, b"x") for name in names])
        for received in (in_one, in_two):
            assert {(await received.next())[0] for _ in names} == set(names)


async def test_a_thousand_topics_are_left_at_the_server_too(postgres_url, prefix):
    transport = transport_of(f"{postgres_url}?prefix={prefix}", broker_timeout=20)
    async with opened(transport):
        names = [f"t{number}" for number in range(1000)]
        await asyncio.gather(*[transport.subscribe(name) for name in names])
        await asyncio.gather(*[transport.unsubscribe(name) for name in names])
        await until(lambda: len(transport._link._tasks) == 1)


# Losses


async def test_a_connection_that_is_terminated_is_made_again_and_the_gap_is_told_before_anything_later(own_postgres):
    transport = transport_of(own_postgres.url)
    gaps, losses = watch(transport)
    async with opened(transport) as [received]:
        names = [f"t{number}" for number in range(100)]
        for name in names:
            await transport.subscribe(name)
        await terminate_listeners(own_postgres.url)
        await until(lambda: transport.reconnects == 1)
        assert transport.is_healthy
        await until(lambda: gaps == [sorted(names)])
        assert len(losses) == transport.lost_connections == 1
        for name in names:
            await transport.publish(name, b"x")
        assert {await received.next() for _ in names} == {(name, b"x") for name in names}


async def test_a_server_that_is_restarted_is_found_again_without_help(own_postgres, caplog):
    caplog.set_level(logging.INFO)
    transport = transport_of(own_postgres.url)
    gaps, _ = watch(transport)
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        await asyncio.to_thread(own_postgres.kill)
        await until(lambda: not transport.is_healthy)
        await refuses_in_time(transport)
        await asyncio.to_thread(own_postgres.start)
        await until(lambda: transport.is_healthy)
        await until(lambda: gaps == [["t"]])
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")
    assert "word" not in caplog.text


async def test_who_subscribes_while_the_server_restarts_has_only_to_wait(own_postgres):
    transport = transport_of(own_postgres.url, broker_timeout=10)
    async with opened(transport) as [received]:
        await asyncio.to_thread(own_postgres.kill)
        await until(lambda: not transport.is_healthy)
        subscribing = asyncio.create_task(transport.subscribe("t"))
        await asyncio.to_thread(own_postgres.start)
        await subscribing
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")


async def test_a_server_that_hangs_is_lost_and_nobody_waits_for_longer_than_the_timeout(own_postgres):
    transport = transport_of(own_postgres.url, broker_timeout=2)
    gaps, _ = watch(transport)
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        [[pid]] = await ask(own_postgres.url, f"SELECT pid FROM pg_stat_activity WHERE {LISTENERS}")
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            results = await asyncio.gather(
                *[transport.publish("t", b"x") for _ in range(20)],
                *[transport.subscribe(f"t{number}") for number in range(20)],
                return_exceptions=True,
            )
            assert time.monotonic() - began < 20
            assert {type(result) for result in results} == {BrokerUnavailable}
            await until(lambda: transport.reconnects == 1)
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: gaps == [["t"]])
        await transport.subscribe("end")
        await transport.publish("t", b"later")
        found = await until_end(transport, received)
        # What hung may be carried out all the same, once, whenever its process of the server goes on.
        assert found.count(("t", b"later")) == 1
        assert found.count(("t", b"x")) == len(found) - 1 <= 1


# A Broadcast of the user's


async def test_a_broadcast_that_was_given_is_connected_again_on_its_own_when_we_connected_it(own_postgres):
    transport = BroadcasterTransport(Broadcast(own_postgres.url))
    gaps, _ = watch(transport)
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        await terminate_listeners(own_postgres.url)
        await until(lambda: transport.reconnects == 1)
        await until(lambda: gaps == [["t"]])
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")


async def test_a_broadcast_of_the_users_that_is_lost_is_told_and_used_again_once_the_user_connects_it(
    own_postgres, caplog
):
    broadcast = Broadcast(own_postgres.url)
    transport = BroadcasterTransport(broadcast)
    gaps, losses = watch(transport)
    await broadcast.connect()
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        await terminate_listeners(own_postgres.url)
        await until(lambda: losses)
        assert not transport.is_healthy
        await until(lambda: gaps == [["t"]])
        assert "whoever connected it has to connect it again" in caplog.text
        with pytest.raises(BrokerUnavailable):
            await transport.publish("t", b"lost")
        await broadcast.disconnect()
        await broadcast.connect()
        await until(lambda: transport.is_healthy)
        await until(lambda: gaps == [["t"], ["t"]])
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")
    async with broadcast.subscribe("own") as subscriber:
        await broadcast.publish("own", "still connected")
        assert (await subscriber.get()).message == "still connected"
    await broadcast.disconnect()


# The start


async def refused(url, kind):
    with pytest.raises(kind) as caught:
        async with opened(transport_of(url)):
            pass
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert "pa:ss" not in text
    assert "pa%3Ass" not in text
    assert "secret" not in text
    return text


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("pa%3Ass", "secret", "broker-refused"),
        ("/postgres", "/nowhere", "broker-refused"),
        ("/postgres", "/postgres?sslmode=secret", "bad-url"),
    ],
)
async def test_a_server_that_refuses_is_a_mistake_that_is_named(postgres_url, old, new, code):
    assert f"[{code}]" in await refused(postgres_url.replace(old, new), ImproperlyConfigured)


async def test_a_server_that_is_not_there_is_unavailable_and_the_notes_tell_what_was_tried():
    text = await refused("postgresql://fc:secret@127.0.0.1:1/db", BrokerUnavailable)
    assert "tried:    postgresql://***@127.0.0.1:1/db" in text


# Apps


class Room(GroupConsumer):
    groups = ["room.{name}"]

    @action
    async def say(self, text: str) -> int:
        await self.broadcast("said", text)
        return os.getpid()


def make_app(url):
    app = FastAPI()
    add_consumers(app, [path("/room/{name}", Room)], url=url)
    return app


async def test_a_chat_over_two_apps(postgres_url, prefix):
    url = f"{postgres_url}?prefix={prefix}"
    one, two = make_app(url), make_app(url)
    async with (
        lifespan(one),
        lifespan(two),
        WebsocketCommunicator(one, "/room/a") as alice,
        WebsocketCommunicator(two, "/room/a") as bob,
        WebsocketCommunicator(two, "/room/b") as carol,
    ):
        await alice.call("say", {"text": "hi"})
        await bob.call("say", {"text": "hello"})
        for client in (alice, bob):
            await client.assert_event("said", "hi", "room.a")
            await client.assert_event("said", "hello", "room.a")
        with pytest.raises(CallError) as caught:
            await alice.call("say", {"text": "x" * 7000})
        assert caught.value.code == "message_too_big"
        await one.state.consumers.broadcast("room.b", "announced", 1)
        await carol.assert_event("announced", 1, "room.b")


async def test_many_who_join_one_group_at_once_all_hear(postgres_url, prefix):
    app = make_app(f"{postgres_url}?prefix={prefix}")
    async with lifespan(app), AsyncExitStack() as stack:
        clients = [WebsocketCommunicator(app, "/room/a") for _ in range(20)]
        await asyncio.gather(*[stack.enter_async_context(client) for client in clients])
        await clients[0].call("say", {"text": "hi"})
        for client in clients:
            await client.assert_event("said", "hi", "room.a")


async def test_two_server_processes_share_a_room(postgres_url, prefix, tmp_path):
    await two_server_processes_share_a_room(f"{postgres_url}?prefix={prefix}", tmp_path)
