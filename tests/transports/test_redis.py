"""The transport over Redis and Valkey, on a real server that is killed, frozen, and refuses."""

import asyncio
import logging
import random
import socket
import time

import pytest
from fastapi import FastAPI

from fastapi_consumers import (
    BrokerUnavailable,
    GroupConsumer,
    ImproperlyConfigured,
    SyncPublisher,
    action,
    add_consumers,
    path,
)
from fastapi_consumers.authentication import BaseAuthentication, BearerTokenAuthentication, Credential
from fastapi_consumers.redis_client import RedisClient, safe_url
from fastapi_consumers.testing import CallError, WebsocketCommunicator, lifespan
from fastapi_consumers.transports import RedisTransport, arrivals
from fastapi_consumers.transports.redis import link as module
from fastapi_consumers.transports.redis.link import Link
from tests.transports.tools import (
    Received,
    fails_to_open,
    hurried,
    opened,
    own_tasks,
    refuses_in_time,
    two_server_processes_share_a_room,
    until,
    until_end,
    works,
)


@pytest.fixture
def make_peer(broker, prefix):
    """Of one app, as in several processes."""
    return lambda: RedisTransport(f"{broker.url}?prefix={prefix}", broker_timeout=20)


# Subscribing


async def test_a_process_has_one_subscription_per_topic_and_leaves_none_behind(make_peer, broker, prefix):
    transport = make_peer()
    async with opened(transport):
        await asyncio.gather(*[transport.subscribe("t") for _ in range(20)])
        assert broker.admin("PUBSUB", "NUMSUB", f"{prefix}t") == [f"{prefix}t", 1]
        await transport.unsubscribe("t")
        await until(lambda: broker.subscribed(prefix) == {f"{prefix}!"})
    await until(lambda: not broker.subscribed(prefix))


async def test_a_thousand_topics_at_once_take_a_few_commands_and_all_deliver(make_peer, broker):
    transport = make_peer()
    async with opened(transport) as [received]:
        commands = broker.admin("INFO", "commandstats")["cmdstat_subscribe"]["calls"]
        names = [f"t{number}" for number in range(1000)]
        await asyncio.gather(*[transport.subscribe(name) for name in names])
        assert broker.admin("INFO", "commandstats")["cmdstat_subscribe"]["calls"] - commands < 10
        await asyncio.gather(*[transport.publish(name, name.encode()) for name in names])
        found = {await received.next() for _ in names}
        assert found == {(name, name.encode()) for name in names}


async def test_a_topic_that_is_left_and_subscribed_over_and_over_ends_in_what_was_said_last(make_peer, broker):
    transport = make_peer()
    async with opened(transport) as [received]:
        for _ in range(50):
            await transport.subscribe("t")
            await transport.unsubscribe("t")
        joins = []
        for _ in range(50):
            joins.append(asyncio.create_task(transport.subscribe("t")))
            await asyncio.sleep(0)
            await transport.unsubscribe("t")
        await asyncio.gather(*joins)
        await transport.subscribe("t")
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")


async def test_a_subscribe_that_is_cancelled_is_none(make_peer, broker, prefix):
    transport = make_peer()
    async with opened(transport):
        task = asyncio.create_task(transport.subscribe("t"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transport.subscribe("other")
        await until(lambda: broker.subscribed(prefix) == {f"{prefix}!", f"{prefix}other"})


async def test_what_was_published_before_a_topic_was_left_is_not_delivered_after(make_peer):
    transport, received, gate = make_peer(), Received(), asyncio.Event()

    async def deliver(topic, packet):
        await received.deliver(topic, packet)
        await gate.wait()

    await transport.open(deliver)
    await transport.subscribe("t")
    for packet in (b"1", b"2", b"3"):
        await transport.publish("t", packet)
    assert await received.next() == ("t", b"1")
    await until(lambda: transport.packets_in == 3)
    await transport.unsubscribe("t")
    await transport.subscribe("t")
    gate.set()
    await transport.publish("t", b"4")
    assert await received.next() == ("t", b"4")
    await transport.close()


async def test_two_prefixes_of_one_server_do_not_hear_each_other(broker, prefix):
    one = RedisTransport(f"{broker.url}?prefix={prefix}a:")
    two = RedisTransport(broker.url, prefix=f"{prefix}b:")
    async with opened(one, two) as [in_one, in_two]:
        for each in (one, two):
            await each.subscribe("t")
            await each.subscribe("end")
        await one.publish("t", b"x")
        assert await until_end(one, in_one) == [("t", b"x")]
        assert await until_end(two, in_two) == []


# Delivering


async def test_two_processes_hear_two_publishers_in_one_and_the_same_order(make_peer):
    one, two = make_peer(), make_peer()
    async with opened(one, two) as both:
        await one.subscribe("t")
        await two.subscribe("t")

        async def publish(transport, name):
            for number in range(100):
                await transport.publish("t", f"{name}{number}".encode())

        await asyncio.gather(publish(one, "a"), publish(two, "b"))
        first, second = [[await received.next() for _ in range(200)] for received in both]
        assert first == second
        for name in (b"a", b"b"):
            own = [packet for _, packet in first if packet.startswith(name)]
            assert own == [name + str(number).encode() for number in range(100)]


async def test_a_delivery_that_raises_is_logged_and_the_next_one_comes(make_peer, caplog):
    transport, received = make_peer(), Received()

    async def deliver(topic, packet):
        if packet == b"bad":
            raise LookupError("a bug in the hub")
        await received.deliver(topic, packet)

    await transport.open(deliver)
    await transport.subscribe("t")
    await transport.publish("t", b"bad")
    await transport.publish("t", b"good")
    assert await received.next() == ("t", b"good")
    assert "a bug in the hub" in caplog.text
    assert transport.failed_deliveries == 1
    await transport.close()


async def test_while_deliveries_are_slow_little_is_read_and_nothing_is_lost(make_peer, monkeypatch):
    monkeypatch.setattr(arrivals, "MAX_ARRIVALS", 4)
    transport, received, gate = make_peer(), Received(), asyncio.Event()

    async def deliver(topic, packet):
        await gate.wait()
        if packet == b"0":
            await transport.subscribe("u")  # Its confirmation is read although the queue is full.
        await received.deliver(topic, packet)

    await transport.open(deliver)
    await transport.subscribe("t")
    for number in range(30):
        await transport.publish("t", str(number).encode())
    await until(lambda: len(transport.arrivals) >= 4)
    await transport.publish("other", b"")
    assert len(transport.arrivals) == 4
    assert transport.packets_in == 5
    gate.set()
    assert [await received.next() for _ in range(30)] == [("t", str(number).encode()) for number in range(30)]
    await transport.close()


async def test_packets_are_counted_and_no_task_is_made_for_them(make_peer):
    transport = make_peer()
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        tasks = len(asyncio.all_tasks())
        for number in range(50):
            await transport.publish("t", b"x")
            await received.next()
            assert len(asyncio.all_tasks()) == tasks, number
        assert (transport.packets_out, transport.packets_in) == (50, 50)


# Losing the server


async def test_a_killed_connection_is_replaced_and_told_of_before_anything_later(make_broker):
    broker = make_broker()
    transport, log = RedisTransport(broker.url), []
    lost, tasks = [], []

    async def gap(topics):
        log.append(("gap", sorted(topics)))

    async def deliver(topic, packet):
        log.append((topic, packet))

    def leave():
        lost.append(transport.is_healthy)
        tasks.append(asyncio.create_task(transport.unsubscribe("left")))

    transport.on_gap, transport.on_lost = gap, leave
    await transport.open(deliver)
    for topic in ("t", "u", "left"):
        await transport.subscribe(topic)
    await transport.publish("t", b"1")
    await until(lambda: log)
    assert broker.kill_subscribers() == 1
    await until(lambda: transport.reconnects == 1)
    await tasks[0]
    await transport.publish("t", b"2")
    await until(lambda: len(log) == 3)
    assert log == [("t", b"1"), ("gap", ["t", "u"]), ("t", b"2")]
    assert lost == [False]
    assert (transport.lost_connections, transport.reconnects) == (1, 1)
    await transport.close()


async def test_hooks_that_raise_do_no_harm(own_broker, caplog):
    transport = RedisTransport(own_broker.url)

    async def gap(topics):
        raise LookupError("in on_gap")

    def lost():
        raise LookupError("in on_lost")

    transport.on_gap, transport.on_lost = gap, lost
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        own_broker.kill_subscribers()
        await until(lambda: transport.reconnects == 1)
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")
    assert "in on_gap" in caplog.text
    assert "in on_lost" in caplog.text


async def test_a_server_that_dies_and_comes_back_is_served_again_without_help(own_broker):
    transport, gaps = RedisTransport(own_broker.url), []

    async def gap(topics):
        gaps.append(set(topics))

    transport.on_gap = gap
    async with opened(transport) as [received]:
        names = {f"t{number}" for number in range(200)}
        await asyncio.gather(*[transport.subscribe(name) for name in names])
        own_broker.kill()
        await until(lambda: not transport.is_healthy)
        with hurried(transport):
            for _ in range(3):
                with pytest.raises(BrokerUnavailable):
                    await transport.publish("t0", b"lost")
            with pytest.raises(BrokerUnavailable):
                await transport.subscribe("while down")
        await transport.unsubscribe("t1")
        await asyncio.to_thread(own_broker.start)
        await until(lambda: transport.is_healthy)
        await transport.publish("t0", b"back")
        assert await received.next() == ("t0", b"back")
        assert gaps == [names - {"t1"}]
        expected = {"fc:!"} | {f"fc:{name}" for name in names - {"t1"}}
        assert own_broker.subscribed() == expected


async def test_who_subscribes_while_the_connection_is_lost_is_subscribed_by_the_next_one(own_broker):
    transport = RedisTransport(own_broker.url, broker_timeout=10)
    async with opened(transport) as [received]:
        own_broker.kill()
        await until(lambda: not transport.is_healthy)
        joining = asyncio.create_task(transport.subscribe("t"))
        await asyncio.to_thread(own_broker.start)
        await joining
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")


async def test_a_connection_that_is_lost_over_and_over_is_always_replaced(own_broker):
    transport, gaps = RedisTransport(own_broker.url), []

    async def gap(topics):
        gaps.extend(topics)

    transport.on_gap = gap
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        for number in range(1, 11):
            # Whatever it is at: connecting, subscribing, reading.
            await until(lambda: own_broker.kill_subscribers() > 0)
            if random.random() < 0.5:
                await until(lambda number=number: transport.reconnects >= number)
        await until(lambda: transport.is_healthy and transport.lost_connections == transport.reconnects)
        await until(lambda: own_broker.admin("PUBSUB", "NUMSUB", "fc:t")[1] == 1)
        await until(lambda: transport.is_healthy)
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")
        assert gaps


async def test_a_server_that_hangs_is_noticed_and_used_again_when_it_answers(own_broker, monkeypatch):
    monkeypatch.setattr(module, "PING_INTERVAL", 0.1)
    transport = RedisTransport(own_broker.url, broker_timeout=2)
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        own_broker.freeze()
        await refuses_in_time(transport)
        await until(lambda: not transport.is_healthy)
        own_broker.thaw()
        await until(lambda: transport.is_healthy)
        await transport.subscribe("u")
        await transport.publish("u", b"x")
        while (item := await received.next()) != ("u", b"x"):
            assert item == ("t", b"lost")  # The server had it all the time: an error does not mean that it is lost.


async def test_an_idle_connection_is_kept(own_broker, monkeypatch):
    monkeypatch.setattr(module, "PING_INTERVAL", 0.01)
    transport = RedisTransport(own_broker.url)
    async with opened(transport):
        pings = own_broker.admin("INFO", "commandstats").get("cmdstat_ping", {"calls": 0})["calls"]
        await until(lambda: own_broker.admin("INFO", "commandstats")["cmdstat_ping"]["calls"] >= pings + 20)
        assert transport.lost_connections == 0


async def test_closing_is_prompt_and_leaves_no_task_even_while_reconnecting(own_broker, monkeypatch):
    for name in ("MAX_BACKOFF", "BACKOFF"):
        monkeypatch.setattr(f"fastapi_consumers.transports.broker.{name}", 100)
    transport = RedisTransport(own_broker.url, broker_timeout=60)
    await transport.open(Received().deliver)
    await transport.subscribe("t")
    assert own_tasks()
    own_broker.kill()
    await until(lambda: not transport.is_healthy)
    joining = asyncio.create_task(transport.subscribe("u"))
    await asyncio.sleep(0)
    began = time.monotonic()
    await transport.close()
    assert time.monotonic() - began < 20
    assert not own_tasks()
    with pytest.raises(BrokerUnavailable):
        await joining
    for use in (transport.subscribe("t"), transport.publish("t", b"x")):
        with pytest.raises(BrokerUnavailable):
            await use
    await transport.unsubscribe("t")


async def stubborn(*arguments):
    """Swallows a cancellation, as `wait_for` of Python 3.11 may."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(60)


async def test_neither_closing_nor_reconnecting_waits_for_a_task_that_swallows_its_cancellation(
    own_broker, monkeypatch
):
    monkeypatch.setattr(Link, "_write", stubborn)
    transport = RedisTransport(own_broker.url)
    await transport.open(Received().deliver)
    await until(lambda: len(own_broker.subscribed()) == 1)
    own_broker.kill_subscribers()
    await until(lambda: transport.reconnects == 1)
    monkeypatch.setattr(Link, "connect", stubborn)
    own_broker.kill_subscribers()
    await until(lambda: not transport.is_healthy)
    async with asyncio.timeout(20):
        await transport.close()
    assert not own_tasks()


async def test_a_server_that_lets_in_and_then_never_confirms_is_tried_again(own_broker, monkeypatch):
    transport = RedisTransport(own_broker.url, broker_timeout=2)
    await transport.open(Received().deliver)
    take, tries = Link._take, []

    def forgetful(self, frame, heard):
        tries.append(frame[0])
        return None if len(tries) < 3 else take(self, frame, heard)

    monkeypatch.setattr(Link, "_take", forgetful)
    own_broker.kill_subscribers()
    await until(lambda: transport.reconnects == 1)
    assert len(tries) == 3
    await transport.close()


async def test_closing_while_the_server_hangs_takes_no_longer_than_the_timeout(own_broker):
    transport = RedisTransport(own_broker.url, broker_timeout=2)
    await transport.open(Received().deliver)
    own_broker.freeze()
    began = time.monotonic()
    await transport.close()
    assert time.monotonic() - began < 20
    assert not own_tasks()
    own_broker.thaw()


async def test_a_user_who_may_not_subscribe_any_more_is_told_and_the_connection_stays(own_broker):
    own_broker.admin("ACL", "SETUSER", "app", "on", ">secret", "+@all", "&fc:*")
    transport = RedisTransport(f"redis://app:secret@127.0.0.1:{own_broker.port}")
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        other = RedisTransport(transport.client, prefix="forbidden:")
        with pytest.raises(ImproperlyConfigured, match="broker-refused"):
            await other.open(received.deliver)
        await other.close()
        transport._prefix = "forbidden:"
        with pytest.raises(BrokerUnavailable) as caught:
            await transport.subscribe("u")
        assert "permission" in str(caught.value.__cause__)
        with pytest.raises(BrokerUnavailable):
            await transport.publish("t", b"x")
        transport._prefix = "fc:"
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")
        assert transport.lost_connections == 0


# Starting


async def test_a_server_that_is_not_there_is_told_with_what_was_tried_and_how_to_mend_it():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # Bound and not listening: connections are refused.
        url = f"redis://me:hunter2@127.0.0.1:{unused.getsockname()[1]}/0"
        began = time.monotonic()
        text = await fails_to_open(RedisTransport(url, broker_timeout=60), BrokerUnavailable)
        assert time.monotonic() - began < 20
    assert "tried:    redis://***@127.0.0.1:" in text
    assert "fix:      start it, or mend the URL" in text
    assert "hunter2" not in text


async def test_a_server_that_never_answers_is_given_up_in_time():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        text = await fails_to_open(RedisTransport(url, broker_timeout=0.3), BrokerUnavailable)
        assert time.monotonic() - began < 20
    assert "within 0.3 s" in text


async def test_a_wrong_password_is_told_without_the_password(own_broker, caplog):
    caplog.set_level(logging.DEBUG)
    own_broker.admin("ACL", "SETUSER", "app", "on", ">right-secret", "+@all", "&*", "~*")
    wrong = RedisTransport(f"redis://app:wrong-secret@127.0.0.1:{own_broker.port}")
    text = await fails_to_open(wrong, ImproperlyConfigured)
    assert "broker-refused" in text
    assert "user and password" in text
    right = RedisTransport(f"redis://app:right-secret@127.0.0.1:{own_broker.port}")
    async with opened(right) as [received]:
        await right.subscribe("t")
        own_broker.kill_subscribers()
        await until(lambda: right.reconnects == 1)
        await right.publish("t", b"x")
        assert await received.next() == ("t", b"x")
    assert "lost the connection to redis://***@" in caplog.text
    assert "secret" not in text + caplog.text + repr(wrong) + repr(right.client)


async def test_a_server_without_hello_is_taken(own_broker):
    own_broker.admin("ACL", "SETUSER", "default", "-hello")
    transport = RedisTransport(own_broker.url)
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")


def test_it_can_be_opened_in_one_event_loop_after_another(broker, prefix):
    transport = RedisTransport(broker.url, prefix=prefix)

    async def use(*, close):
        received = Received()
        await transport.open(received.deliver)
        await transport.subscribe("t")
        await transport.publish("t", b"x")
        assert await received.next() == ("t", b"x")
        if close:
            await transport.close()

    for _ in range(2):
        asyncio.run(use(close=True))


# Ways to reach a server


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}/3", "valkey://localhost:{port}", "unix://{socket}?db=2"])
async def test_each_kind_of_url_works(broker, prefix, url):
    await works(RedisTransport(url.format(port=broker.port, socket=broker.socket), prefix=prefix))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@localhost", "redis://***@localhost"),
        ("rediss://secret@h:1/2?db=1&prefix=a:&password=secret&x=secret", None),
        ("rediss://[::1]:1?ssl_ca_certs=/a/b.pem", "rediss://[::1]:1?ssl_ca_certs=/a/b.pem"),
        ("unix:///run/valkey.sock?db=1", "unix:///run/valkey.sock?db=1"),
        (
            "redis+sentinel://u:secret@one,two:1,[::1]:2/3?service=m&sentinel_password=secret",
            "redis+sentinel://***@one,two:1,[::1]:2/3?service=m&sentinel_password=***",
        ),
        ("valkeys+cluster://:secret@one:1,two", "valkeys+cluster://***@one:1,two"),
        ("redis+cluster://:12,3/secret@host,other", None),
        ("redis+cluster://:se,cr@secret@one,two", None),
        ("unix://u:secret@/run/valkey.sock", None),
        ("redis://:12/secret@host", None),
        ("redis://:se/secret@host", None),
        ("redis://:12#secret@host", None),
        ("redis://:12?secret@host", None),
        ("redis://:secret@[host", None),
        ("secret", None),
        (None, None),
        (b"redis://secret", None),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, expected):
    shown = safe_url(url)
    assert "secret" not in shown
    assert expected is None or shown == expected


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:secret@one",
        "redis+sentinel://:secret@one?service=",
        "redis+sentinel://:secret@one/mymaster",
        "redis+sentinel://:secret@one?service=a&master_name=b",
        "redis+sentinel://:secret@one,?service=a",
        "redis+sentinel://:secret@one,two:port?service=a",
        "redis+cluster://:secret@one/1",
        "redis+cluster://:secret@one?service=a",
        "redis+nonsense://:secret@one",
        "unix+sentinel:///path?service=a",
        "redis://:secret@one:1,two:2",
        "redis://:secret@one?sentinel_password=secret",
        "redis://one?host=secret",
        "http://localhost",
        "localhost:6379",
        "unix://",
        "redis://localhost/name",
        "redis://:12/secret@host",
        "redis://:se/secret@host",
        "redis://:12#secret@host",
        "redis://host?nonsense=secret",
        "redis://host?decode_responses=true",
        "redis://host?max_connections=many",
        "redis://host?max_connections=0",
        "rediss://host?ssl_cert_reqs=nonsense",
        None,
        b"redis://localhost",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_without_its_secrets(url):
    with pytest.raises(ImproperlyConfigured) as caught:
        RedisTransport(url)
    assert [problem.code for problem in caught.value.problems] == ["bad-url"]
    assert "secret" not in str(caught.value)


# The client


async def test_a_client_is_shared_and_closed_by_the_last_one(broker, prefix):
    client = RedisClient(broker.url)
    one, two = RedisTransport(client, prefix=prefix), RedisTransport(client, prefix=prefix)
    async with opened(one, two) as [in_one, _]:
        await one.subscribe("t")
        await two.close()
        await two.close()
        await one.publish("t", b"x")
        assert await in_one.next() == ("t", b"x")
    with pytest.raises(BrokerUnavailable):
        await client.execute("PING")


async def test_a_client_has_no_more_connections_than_it_may_and_who_finds_none_waits(broker, prefix):
    client = RedisClient(f"{broker.url}?max_connections=2&client_name={prefix.rstrip(':')}")
    await client.open()
    name = f"name={prefix.rstrip(':')}"
    pings = [asyncio.create_task(client.execute("PING")) for _ in range(200)]
    await asyncio.gather(*pings)
    clients = broker.admin("CLIENT", "LIST")
    assert clients.count(name) == 2
    began = time.monotonic()
    with hurried(client):
        blocked = [asyncio.create_task(client.execute("BLPOP", f"{prefix}none", 0)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BrokerUnavailable):
            await client.execute("PING")
        await asyncio.gather(*blocked, return_exceptions=True)
    assert time.monotonic() - began < 20
    assert await client.execute("PING")
    await client.close()


APPEND = "redis.call('RPUSH', KEYS[1], ARGV[1]) return {redis.call('LLEN', KEYS[1]), ARGV[2]}"


async def test_a_script_is_sent_once_and_again_to_a_server_that_has_forgotten_it(own_broker):
    client = RedisClient(own_broker.url)
    await client.open()

    def calls(command):
        return own_broker.admin("INFO", "commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]

    for number in range(1, 4):
        assert await client.run_script(APPEND, ["list"], [b"\x00\xff", number]) == [number, str(number).encode()]
    assert (calls("evalsha"), calls("eval")) == (3, 1)
    own_broker.admin("SCRIPT", "FLUSH")
    assert await client.run_script(APPEND, ["list"], ["x", ""]) == [4, b""]
    assert (calls("evalsha"), calls("eval")) == (4, 2)
    assert await client.run_script("return 'no keys'", []) == b"no keys"
    assert await client.execute("LRANGE", "list", 0, 0) == [b"\x00\xff"]
    await client.close()


async def test_a_script_that_fails_or_hangs_is_a_broker_that_is_unavailable(own_broker):
    client = RedisClient(own_broker.url)
    await client.open()
    with pytest.raises(BrokerUnavailable) as caught:
        await client.run_script("return redis.call('NONSENSE')", [])
    assert "NONSENSE" in str(caught.value.__cause__) or "nknown" in str(caught.value.__cause__)
    began = time.monotonic()
    with hurried(client), pytest.raises(BrokerUnavailable):
        await client.run_script("while true do end", [])
    assert time.monotonic() - began < 20
    await client.close()
    own_broker.admin("SCRIPT", "KILL")
    with pytest.raises(BrokerUnavailable):
        await client.run_script("return 1", [])


# Applications


class HeaderAuthentication(BaseAuthentication):
    async def authenticate(self, connection):
        name = connection.headers.get("x-user")
        return (name, None) if name else None


class Room(GroupConsumer):
    groups = ["room.{room}"]
    authentication_classes = [HeaderAuthentication]

    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)


def make_app(url):
    app = FastAPI()
    add_consumers(app, [path("/{room}", Room)], url=url)
    return app


@pytest.fixture
async def apps(broker, prefix):
    url = f"{broker.url}?prefix={prefix}"
    apps = make_app(url), make_app(url)
    async with lifespan(apps[0]), lifespan(apps[1]):
        yield apps


async def test_a_broadcast_in_one_process_reaches_the_members_in_another(apps):
    here, there = apps
    async with (
        WebsocketCommunicator(here, "/a") as alice,
        WebsocketCommunicator(there, "/a") as bob,
        WebsocketCommunicator(there, "/b") as carol,
    ):
        await bob.send_json_to({"action": "say", "data": {"text": "hi"}})
        for member in (alice, bob):
            await member.assert_event("said", "hi", "room.a")
        await here.state.consumers.broadcast("room.b", "said", "to b")
        await carol.assert_event("said", "to b", "room.b")


async def test_users_and_channels_are_reached_and_disconnected_from_another_process(apps):
    here, there = apps
    async with WebsocketCommunicator(there, "/a", headers={"x-user": "ann"}) as ann:
        async with WebsocketCommunicator(there, "/a", headers={"x-user": "ben"}) as ben:
            consumers = here.state.consumers
            await consumers.send("note", 1, user="ann")
            await ann.assert_event("note", 1)
            [channel] = [c for c, m in there.state.consumers.hub._channels.items() if f"user:{'ben'}" in m.topics]
            await consumers.send("note", 2, channel=channel)
            await ben.assert_event("note", 2)
            await consumers.disconnect(user="ann", code=4409)
            assert (await ann.receive_output())["code"] == 4409
            await consumers.disconnect(group="room.a")
            assert (await ben.receive_output())["code"] == 4409


class ByName(BearerTokenAuthentication):
    async def get_user(self, token, connection):
        return token, Credential(token_id=f"id of {token}")


async def test_a_token_is_revoked_in_all_processes_and_by_other_programs(broker, prefix):
    class Private(Room):
        authentication_classes = [ByName]

    url = f"{broker.url}?prefix={prefix}"
    here, there = FastAPI(), FastAPI()
    for app in (here, there):
        add_consumers(app, [path("/{room}", Private)], url=url)

    def client(app, name):
        return WebsocketCommunicator(app, "/a", headers={"Authorization": f"Bearer {name}"})

    async with lifespan(here), lifespan(there):
        async with client(here, "ann") as near, client(there, "ann") as far, client(there, "ben") as ben:
            await here.state.consumers.revoke("id of ann")
            for revoked in (near, far):
                output = await revoked.receive_output()
                assert (output["type"], output["code"], output["reason"]) == ("websocket.close", 4401, "revoked")
            assert await ben.receive_nothing(0.05)
            with SyncPublisher(url) as publish:
                await asyncio.to_thread(publish.revoke, "id of ben")
            assert (await ben.receive_output())["code"] == 4401


async def test_an_outage_is_told_to_clients_and_their_sockets_live_on(own_broker):
    here, there = make_app(own_broker.url), make_app(own_broker.url)
    async with lifespan(here), lifespan(there):
        async with WebsocketCommunicator(here, "/a") as alice, WebsocketCommunicator(there, "/a") as bob:
            own_broker.kill()
            with pytest.raises(CallError) as caught:
                await alice.call("say", {"text": "lost"})
            assert caught.value.code == "broker_unavailable"
            await asyncio.to_thread(own_broker.start)
            transports = [app.state.consumers.hub.transport for app in (here, there)]
            await until(lambda: all(transport.reconnects == 1 and transport.is_healthy for transport in transports))
            await alice.send_json_to({"action": "say", "data": {"text": "back"}})
            for member in (alice, bob):
                await member.assert_event("said", "back", "room.a")


async def test_an_app_whose_broker_is_not_there_does_not_start(caplog):
    app = make_app("redis://me:hunter2@127.0.0.1:1")
    with pytest.raises(BrokerUnavailable) as caught:
        async with lifespan(app):
            pytest.fail("it started")
    assert "redis://***@127.0.0.1:1" in caught.value.__notes__[0]
    assert "hunter2" not in str(caught.value) + "".join(caught.value.__notes__)


async def test_an_app_that_is_given_a_wrong_url_says_so_without_its_secrets():
    for url in ("redis+sentinel://:secret@one", "redis://:12/secret@one", "amqp://:secret@one"):
        with pytest.raises(ImproperlyConfigured) as caught:
            make_app(url)
        assert [problem.code for problem in caught.value.problems] == ["bad-url"]
        assert "secret" not in str(caught.value)


async def test_two_server_processes_share_a_room(broker, prefix, tmp_path):
    await two_server_processes_share_a_room(f"{broker.url}?prefix={prefix}", tmp_path)
