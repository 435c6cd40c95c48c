"""In a cluster, with sharded publish and subscribe: real nodes, whose slots move and that are killed."""

import asyncio
import time

import pytest
from fastapi import FastAPI
from redis.crc import key_slot

from fastapi_consumers import BrokerUnavailable, GroupConsumer, ImproperlyConfigured, action, add_consumers, path
from fastapi_consumers.history import History
from fastapi_consumers.redis_client import RedisClient
from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from fastapi_consumers.transports import RedisTransport
from fastapi_consumers.transports.redis import transport as transport_module
from tests.conftest import PATIENCE
from tests.transports.test_sentinel import COUNT, publish_until_it_works
from tests.transports.tools import fails_to_open, hurried, opened, own_tasks, until, works

NAMES = [f"t{number}" for number in range(60)]


class Told:
    """A transport whose hooks are logged, and packets with them."""

    def __init__(self, cluster, prefix):
        self.transport = RedisTransport(cluster.url, prefix=prefix)
        self.log, self.lost = [], 0
        self.transport.on_gap, self.transport.on_lost = self.gap, self.on_lost

    async def gap(self, topics):
        self.log += [("gap", topic) for topic in topics]

    async def deliver(self, topic, packet):
        self.log.append((topic, packet))

    def on_lost(self):
        assert not self.transport.is_healthy
        self.lost += 1

    @property
    def gaps(self):
        return {topic for kind, topic in self.log if kind == "gap"}

    async def __aenter__(self):
        await self.transport.open(self.deliver)
        await asyncio.gather(*[self.transport.subscribe(name) for name in NAMES])
        return self

    async def __aexit__(self, *exc):
        await self.transport.close()
        assert not own_tasks()

    async def all_are_heard(self):
        """Each once, from a publisher that has its own view of the cluster."""
        self.log.clear()
        for name in NAMES:
            await publish_until_it_works(self.transport, name, b"x")
        await until(lambda: len(self.log) >= len(NAMES))
        assert sorted(self.log) == sorted((name, b"x") for name in NAMES)


def owned(cluster, prefix, node):
    return {name for name in NAMES if cluster.owner_of(prefix + name) is node}


@pytest.mark.parametrize("scheme", ["redis+cluster", "valkey+cluster"])
async def test_each_way_to_write_the_url_works(cluster, prefix, scheme):
    await works(RedisTransport(cluster.url.replace("redis+cluster", scheme), prefix=prefix))


async def test_one_node_that_answers_is_enough(cluster, prefix):
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.nodes[2].port}"
    await works(RedisTransport(url, prefix=prefix))


async def test_each_topic_is_subscribed_at_the_node_that_has_its_slot_and_nowhere_else(cluster, prefix):
    async with Told(cluster, prefix) as told:
        clients = 0
        for node in cluster.nodes:
            found = {name for name in node.admin("PUBSUB", "SHARDCHANNELS") if name.startswith(prefix)}
            expected = {prefix + name for name in owned(cluster, prefix, node)}
            assert len(expected) > 5
            assert found - {f"{prefix}!"} == expected
            assert node.admin("PUBSUB", "CHANNELS") == []
            counts = node.admin("PUBSUB", "SHARDNUMSUB", *sorted(expected))
            assert counts[1::2] == [1] * len(expected)
            clients += len([line for line in node.admin("CLIENT", "LIST").splitlines() if " ssub=0 " not in line])
        assert clients == 3
        await told.all_are_heard()
        assert told.lost == 0


async def test_the_loss_of_one_nodes_connection_is_told_for_its_topics_alone(cluster, prefix):
    async with Told(cluster, prefix) as told:
        node = cluster.nodes[1]
        mine = owned(cluster, prefix, node)
        assert node.kill_subscribers() == 1
        await until(lambda: told.gaps == mine)
        await until(lambda: told.transport.is_healthy)
        await told.all_are_heard()
        assert told.lost == 1
        assert (told.transport.lost_connections, told.transport.reconnects) == (1, 1)


async def test_a_slot_that_moves_takes_its_topic_along_and_that_topic_alone_is_told_of(make_cluster, prefix):
    cluster = make_cluster()
    async with Told(cluster, prefix) as told:
        moving = prefix + NAMES[0]
        slot = key_slot(moving.encode())
        concerned = {name for name in NAMES if key_slot((prefix + name).encode()) == slot}
        source = cluster.owner_of(moving)
        target = next(node for node in cluster.nodes if node is not source)
        await asyncio.to_thread(cluster.move, moving, target)
        await until(lambda: told.gaps == concerned)
        await until(lambda: told.transport.is_healthy)
        assert moving in target.admin("PUBSUB", "SHARDCHANNELS")
        assert moving not in source.admin("PUBSUB", "SHARDCHANNELS")
        await told.all_are_heard()
        assert told.transport.lost_connections == 0
        # And back, while others come and go.
        told.log.clear()
        moved = asyncio.create_task(asyncio.to_thread(cluster.move, moving, source))
        while not moved.done():
            await told.transport.subscribe("passing")
            await told.transport.unsubscribe("passing")
        await until(lambda: told.gaps == concerned)
        await told.all_are_heard()


async def test_hearsay_moves_no_topic_that_a_node_serves_unless_it_goes_on(cluster, prefix, monkeypatch):
    """While a slot moves, nodes that are asked may tell what was."""
    async with Told(cluster, prefix) as told:
        transport, slot = told.transport, key_slot(f"{prefix}{NAMES[0]}".encode())
        right = transport.client.node_of(f"{prefix}{NAMES[0]}")
        wrong = next(link.node for link in transport._links.values() if link.node != right)
        concerned = {name for name in NAMES if key_slot((prefix + name).encode()) == slot}
        transport.client._servers.moved(slot, wrong)
        transport._assign_all()
        assert transport._topics[NAMES[0]].link.node == right
        await told.all_are_heard()
        monkeypatch.setattr(transport_module, "DOUBT", 0.0)
        transport.client._servers.moved(slot, wrong)
        transport._assign_all()
        transport._assign_all()
        await until(lambda: told.gaps == concerned)  # It was not there, and has come back.
        assert transport._topics[NAMES[0]].link.node == right
        await told.all_are_heard()


async def test_who_does_not_know_yet_that_a_slot_has_moved_is_sent_on(make_cluster, prefix):
    """A publisher, a subscriber and a script, each of which asks the node that had it."""
    cluster = make_cluster()
    publisher, subscriber = (RedisTransport(cluster.url, prefix=prefix) for _ in range(2))
    async with opened(publisher, subscriber) as [_, received]:
        names = NAMES[:3]
        was = {name: cluster.owner_of(prefix + name) for name in names}
        for name in names:
            at = cluster.nodes.index(was[name])
            await asyncio.to_thread(cluster.move, prefix + name, cluster.nodes[(at + 1) % 3])
        for name in names:
            assert publisher.client.node_of(prefix + name).port == was[name].port
            await subscriber.subscribe(name)
            await publisher.publish(name, b"x")
            assert await received.next() == (name, b"x")
            assert publisher.client.node_of(prefix + name).port != was[name].port
        # Once more, and now for a script.
        key = f"{{{prefix}{names[0]}}}n"
        await asyncio.to_thread(cluster.move, prefix + names[0], was[names[0]])
        assert await publisher.client.run_script(COUNT, [key], ["x"]) == [1, b"x"]


async def test_a_key_that_is_on_its_way_is_asked_for_where_it_goes(make_cluster, prefix):
    cluster, key = make_cluster(), f"{prefix}k"
    source = cluster.owner_of(key)
    target = next(node for node in cluster.nodes if node is not source)
    client = RedisClient(cluster.url)
    await client.open()
    await client.execute("SET", key, "old")
    slot = key_slot(key.encode())
    target.admin("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source))
    source.admin("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(target))
    assert await client.execute("GET", key) == b"old"
    source.admin("MIGRATE", "127.0.0.1", target.port, key, 0, 1000)
    assert await client.execute("GET", key) == b"old"
    assert await client.execute("INCR", f"{{{key}}}n") == 1
    assert await client.run_script(COUNT, [f"{{{key}}}n"], ["x"]) == [2, b"x"]
    # The source still has the slot: it is asked first, each time.
    assert client.node_of(key).port == source.port
    await client.close()


async def test_commands_and_scripts_go_to_the_node_of_their_key(cluster, prefix):
    client = RedisClient(cluster.url)
    await client.open()
    for number in range(20):
        key = f"{prefix}{number}"
        assert await client.execute("SET", key, number) in (True, b"OK")
        assert await client.run_script(COUNT, [key], ["x"]) == [number + 1, b"x"]
        assert cluster.owner_of(key).admin("EXISTS", key) == 1
        assert await client.execute("OBJECT", "REFCOUNT", key, key=key) == 1
    two = [f"{prefix}{{a}}:1", f"{prefix}{{a}}:2"]
    assert await client.run_script("return #KEYS", two) == 2
    with pytest.raises(BrokerUnavailable) as caught:
        await client.run_script("return #KEYS", [f"{prefix}1", f"{prefix}2"])
    assert "slot" in str(caught.value.__cause__)
    assert await client.run_script("return 'no keys'", []) == b"no keys"
    assert await client.execute("PING")
    await client.close()


async def test_a_node_that_dies_is_replaced_by_its_replica_and_the_others_go_on(make_cluster, prefix):
    cluster = make_cluster(has_replica=True)
    async with Told(cluster, prefix) as told:
        dead, replica = cluster.nodes[0], cluster.nodes[3]
        mine = owned(cluster, prefix, dead)
        other = next(name for name in NAMES if name not in mine)
        dead.kill()
        await until(lambda: told.lost == 1)
        name = min(mine)
        began = time.monotonic()
        with hurried(told.transport), pytest.raises(BrokerUnavailable):
            await told.transport.publish(name, b"lost")
        assert time.monotonic() - began < 20
        await told.transport.publish(other, b"meanwhile")
        await until(lambda: (other, b"meanwhile") in told.log)
        await until(lambda: told.transport.is_healthy, 30)
        await until(lambda: told.gaps == mine)
        assert {name for name in mine if cluster.owner_of(prefix + name) is replica} == mine
        await told.all_are_heard()
        assert told.lost == 1


async def test_a_node_that_dies_and_comes_back_is_served_again(make_cluster, prefix):
    cluster = make_cluster(**{"cluster-require-full-coverage": "no"})
    async with Told(cluster, prefix) as told:
        node = cluster.nodes[2]
        mine = owned(cluster, prefix, node)
        node.kill()
        await until(lambda: told.lost == 1)
        with pytest.raises(BrokerUnavailable):
            await told.transport.publish(min(mine), b"lost")
        await told.transport.unsubscribe(min(mine))
        await asyncio.to_thread(node.start)
        await until(lambda: told.transport.is_healthy, 20)
        await until(lambda: told.gaps == mine - {min(mine)})
        await told.transport.subscribe(min(mine))
        await told.all_are_heard()


async def test_a_failover_by_hand_moves_the_topics_to_the_new_master(make_cluster, prefix):
    cluster = make_cluster(has_replica=True)
    async with Told(cluster, prefix) as told:
        mine = owned(cluster, prefix, cluster.nodes[0])
        cluster.nodes[3].admin("CLUSTER", "FAILOVER")
        await until(lambda: cluster.nodes[3].admin("ROLE")[0] == "master")
        await until(lambda: told.gaps == mine)
        await until(lambda: told.transport.is_healthy)
        await told.all_are_heard()


class Kept(GroupConsumer):
    groups = ["room.{room}"]
    history = History(size=100)

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)


async def test_groups_with_history_reach_other_processes_and_can_be_read(cluster, prefix):
    def make_app():
        app = FastAPI()
        add_consumers(app, [path("/{room}", Kept)], url=f"{cluster.url}?prefix={prefix}")
        return app

    here, there = make_app(), make_app()
    async with lifespan(here), lifespan(there):
        for room in "abcdef":  # On several nodes.
            async with (
                WebsocketCommunicator(here, f"/{room}") as alice,
                WebsocketCommunicator(there, f"/{room}") as bob,
            ):
                for each in (alice, bob):
                    assert (await each.receive_json_from())["type"] == "joined"
                await alice.send_json_to({"action": "say", "data": {"text": "hi"}})
                for each in (alice, bob):
                    found = await each.receive_json_from()
                    assert (found["data"], found["offset"]) == ("hi", 1)
        stores = [app.state.consumers.hub.appender.store for app in (here, there)]
        found = [await store.positions([f"room.{room}" for room in "abcdef"]) for store in stores]
        assert found[0] == found[1]
        assert {position.offset for position in found[0].values()} == {1}
        assert len(found[0]) == 6


async def test_a_user_needs_no_more_than_is_documented(cluster, prefix):
    commands = ["+spublish", "+ssubscribe", "+sunsubscribe", "+ping", "+cluster|slots"]
    for node in cluster.nodes:
        node.admin("ACL", "SETUSER", prefix, "on", ">secret", f"&{prefix}*", *commands)
    name = prefix.replace(":", "%3A")
    transport = RedisTransport(cluster.url.replace("://", f"://{name}:secret@"), prefix=prefix)
    await works(transport)
    for node in cluster.nodes:
        node.admin("ACL", "SETUSER", prefix, "-ssubscribe")
    assert "ssubscribe" in await fails_to_open(transport, ImproperlyConfigured)
    for node in cluster.nodes:
        node.admin("ACL", "DELUSER", prefix)


async def test_a_url_for_a_cluster_that_names_a_server_is_told(broker):
    text = await fails_to_open(RedisTransport(f"redis+cluster://127.0.0.1:{broker.port}"), ImproperlyConfigured)
    assert "broker-not-cluster" in text
    assert "redis://" in text


async def test_a_url_for_a_server_that_names_a_node_of_a_cluster_is_told_the_right_scheme(cluster):
    text = await fails_to_open(RedisTransport(f"redis://127.0.0.1:{cluster.nodes[0].port}"), ImproperlyConfigured)
    assert "broker-cluster" in text
    assert "redis+cluster://host:6379" in text


async def test_nodes_that_are_not_there_are_told_within_the_time():
    began = time.monotonic()
    text = await fails_to_open(RedisTransport("redis+cluster://:hunter2@127.0.0.1:1,127.0.0.1:2"), BrokerUnavailable)
    assert time.monotonic() - began < PATIENCE
    assert "tried:    redis+cluster://***@127.0.0.1:1,127.0.0.1:2" in text
    assert "hunter2" not in text
