"""Behind Sentinel: real sentinels, which make the replica the master when the master is killed."""

import asyncio
import time

import pytest
from fastapi import FastAPI

from fastapi_consumers import BrokerUnavailable, GroupConsumer, ImproperlyConfigured, action, add_consumers, path
from fastapi_consumers.redis_client import RedisClient
from fastapi_consumers.testing import WebsocketCommunicator
from fastapi_consumers.transports import RedisTransport
from tests.conftest import PATIENCE
from tests.transports.conftest import admin
from tests.transports.tools import Received, fails_to_open, hurried, opened, own_tasks, until, works

COUNT = "return {redis.call('INCR', KEYS[1]), ARGV[1]}"


async def publish_until_it_works(transport, topic, packet):
    """Returns how long it took, and asserts that no attempt took longer than it may."""
    began = time.monotonic()
    while True:
        attempt = time.monotonic()
        try:
            await transport.publish(topic, packet)
        except BrokerUnavailable:
            assert time.monotonic() - attempt < transport.client.timeout + 10
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.02)
        else:
            return time.monotonic() - began


@pytest.mark.parametrize("scheme", ["redis+sentinel", "valkey+sentinel"])
@pytest.mark.parametrize("service", ["service", "service_name", "master_name"])
async def test_each_way_to_write_the_url_works(sentinels, prefix, scheme, service):
    url = sentinels.url.replace("redis+sentinel", scheme).replace("service=", f"{service}=")
    await works(RedisTransport(url, prefix=prefix))


async def test_one_sentinel_that_answers_is_enough(sentinels, prefix):
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinels.ports[1]}?service=mymaster"
    await works(RedisTransport(url, prefix=prefix))


async def test_what_the_sentinels_do_not_know_is_told(sentinels):
    url = sentinels.url.replace("mymaster", "other")
    text = await fails_to_open(RedisTransport(url), ImproperlyConfigured)
    assert "broker-no-such-service" in text
    assert "'other'" in text


async def test_a_url_for_sentinels_that_names_a_server_is_told(broker):
    url = f"redis+sentinel://127.0.0.1:{broker.port}?service=mymaster"
    text = await fails_to_open(RedisTransport(url), ImproperlyConfigured)
    assert "broker-not-sentinel" in text
    assert "redis://" in text


async def test_a_url_for_a_server_that_names_a_sentinel_is_told_the_right_scheme(sentinels):
    text = await fails_to_open(RedisTransport(f"redis://127.0.0.1:{sentinels.ports[0]}"), ImproperlyConfigured)
    assert "broker-sentinel" in text
    assert "redis+sentinel://host:26379?service=mymaster" in text


async def test_sentinels_that_are_not_there_are_told_within_the_time(prefix):
    began = time.monotonic()
    url = "redis+sentinel://:hunter2@127.0.0.1:1,127.0.0.1:2?service=mymaster"
    text = await fails_to_open(RedisTransport(url, prefix=prefix), BrokerUnavailable)
    assert time.monotonic() - began < PATIENCE
    assert "tried:    redis+sentinel://***@127.0.0.1:1,127.0.0.1:2?service=mymaster" in text
    assert "hunter2" not in text


async def test_a_server_that_is_not_the_master_is_not_connected_to(sentinels):
    client = RedisClient(sentinels.url)
    await client.open()
    assert await client.execute("PING")
    replica = next(server for server in sentinels.servers if server is not sentinels.master)
    # What sentinels do not know yet, or any more.
    client._servers._master = client._servers._master._replace(port=replica.port)
    with pytest.raises(BrokerUnavailable) as caught:
        await client.execute("PUBLISH", "t", b"x")
    assert "not the master" in str(caught.value.__cause__)
    async with asyncio.timeout(20):
        while True:
            try:
                assert await client.execute("ROLE")
                break
            except BrokerUnavailable:
                await asyncio.sleep(0.02)
    assert client.node_of("t").port == sentinels.master.port
    await client.close()


async def test_scripts_run_on_the_master(sentinels, prefix):
    client = RedisClient(sentinels.url)
    await client.open()
    assert await client.run_script(COUNT, [f"{prefix}n"], ["a"]) == [1, b"a"]
    assert await client.run_script(COUNT, [f"{prefix}n"], ["b"]) == [2, b"b"]
    await client.close()


async def test_a_failover_is_survived(own_sentinels, prefix):
    """The master is killed for good, and one of the sentinels with it."""
    one, two = (RedisTransport(own_sentinels.url, prefix=prefix) for _ in range(2))
    gaps, lost = [], []

    async def gap(topics):
        gaps.append(set(topics))

    one.on_gap, one.on_lost = gap, lambda: lost.append(one.is_healthy)
    names = {f"t{number}" for number in range(100)}
    async with opened(one, two) as [received, _]:
        await asyncio.gather(*[one.subscribe(name) for name in names])
        await two.publish("t1", b"before")
        assert await received.next() == ("t1", b"before")
        old = own_sentinels.master
        own_sentinels.kill_sentinel()
        old.kill()
        await until(lambda: lost == [False])
        with hurried(one), hurried(two):
            with pytest.raises(BrokerUnavailable):
                await two.publish("t1", b"lost")
            with pytest.raises(BrokerUnavailable):
                await one.subscribe("meanwhile")
        await one.unsubscribe("t0")
        await publish_until_it_works(two, "nobody", b"")
        # This sentinel may hear of it later than the one that was asked.
        await until(lambda: own_sentinels.master is not old)
        await until(lambda: one.is_healthy)
        for name in names - {"t0"}:
            await two.publish(name, b"after")
        assert {await received.next() for _ in names - {"t0"}} == {(name, b"after") for name in names - {"t0"}}
        assert gaps == [names - {"t0"}]
        assert lost == [False]
        assert own_sentinels.master.subscribed(prefix) == {f"{prefix}!"} | {
            f"{prefix}{name}" for name in names - {"t0"}
        }
        assert await one.client.run_script(COUNT, ["n"], ["x"]) == [1, b"x"]

        # The old one comes back as what it was, until the sentinels tell it otherwise.
        await asyncio.to_thread(old.start)
        await until(lambda: old.admin("ROLE")[0] == "slave", 30)
        await two.publish("t1", b"once more")
        assert await received.next() == ("t1", b"once more")
        assert old.subscribed(prefix) == set()
    assert not own_tasks()


async def test_a_failover_by_hand_moves_everybody_to_the_new_master(own_sentinels, prefix):
    """Nobody dies: the sentinels tell the old master to close its connections."""
    transport, log = RedisTransport(own_sentinels.url, prefix=prefix), []

    async def gap(topics):
        log.append(("gap", *topics))

    async def deliver(topic, packet):
        log.append((topic, packet))

    transport.on_gap = gap
    await transport.open(deliver)
    await transport.subscribe("t")
    old = own_sentinels.master
    await asyncio.to_thread(admin, own_sentinels.ports[0], "SENTINEL", "FAILOVER", "mymaster")
    await until(lambda: ("gap", "t") in log, 30)
    await until(lambda: old.admin("ROLE")[0] == "slave", 30)
    await until(lambda: transport.is_healthy and own_sentinels.master.subscribed(prefix) != set())
    await publish_until_it_works(transport, "t", b"after")
    await until(lambda: log[-1] == ("t", b"after"))
    assert own_sentinels.master is not old
    assert old.subscribed(prefix) == set()
    await transport.close()


class Room(GroupConsumer):
    groups = ["room"]

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)


async def test_an_application_is_told_to_use_it_by_its_url(sentinels, prefix):
    app = FastAPI()
    add_consumers(app, [path("/ws", Room)], url=f"{sentinels.url}&prefix={prefix}")
    async with WebsocketCommunicator(app, "/ws") as client:
        await client.send_json_to({"action": "say", "data": {"text": "hi"}})
        await client.assert_event("said", "hi", "room")
        assert sentinels.master.subscribed(prefix)


async def test_sentinels_with_a_password_of_their_own(own_sentinels, prefix):
    for port in own_sentinels.ports:
        admin(port, "ACL", "SETUSER", "watcher", "on", ">other", "+@all")
        admin(port, "ACL", "SETUSER", "default", "off")
    own_sentinels.servers[0].admin("ACL", "SETUSER", "app", "on", ">secret", "+@all", "~*", "&*")
    url = own_sentinels.url.replace("://", "://app:secret@")
    text = await fails_to_open(RedisTransport(url, prefix=prefix), ImproperlyConfigured)
    assert "broker-refused" in text
    own = "sentinel_username=watcher&sentinel_password=other"
    transport = RedisTransport(f"{url}&{own}", prefix=prefix)
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")
    assert "secret" not in text + repr(transport)
    assert "other" not in repr(transport)


async def test_closing_while_nobody_answers_is_prompt(own_sentinels, prefix):
    transport = RedisTransport(own_sentinels.url, prefix=prefix)
    await transport.open(Received().deliver)
    await transport.subscribe("t")
    for _ in range(3):
        own_sentinels.kill_sentinel()
    own_sentinels.servers[0].kill()
    own_sentinels.servers[1].kill()
    await until(lambda: not transport.is_healthy)
    began = time.monotonic()
    await transport.close()
    assert time.monotonic() - began < PATIENCE
    assert not own_tasks()
