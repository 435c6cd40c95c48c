"""Publishing from a program that has an event loop."""

import asyncio
import threading
import time

import pytest
from broadcaster import Broadcast

from fastapi_consumers import (
    BrokerUnavailable,
    ImproperlyConfigured,
    InvalidGroup,
    MessageTooBig,
    Publisher,
    SyncPublisher,
    publisher,
)
from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from fastapi_consumers.transports import MemoryTransport, RedisTransport
from tests.transports.tools import hurried

SCRIPT = """
import asyncio, os
from fastapi_consumers import Publisher

async def main():
    async with Publisher(os.environ["URL"], broker_timeout=20) as publish:
        await publish.broadcast("room.a", "said", {"text": "hi"})
        await publish.send("note", 1, user="ann")
        await publish.send("note", 2, channel=os.environ["CHANNEL"])
        await publish.group_send("room.a", {"type": "room.call", "number": 3})
        await publish.broadcast("room.a", "said", "to others", exclude=os.environ["CHANNEL"])
        await publish.revoke("nobody's")
        await publish.disconnect(user="ann", code=4000, reason="bye")

asyncio.run(main())
"""


async def everything_arrives(client):
    await client.assert_event("said", {"text": "hi"}, group="room.a")
    await client.assert_event("note", 1)
    await client.assert_event("note", 2)
    await client.assert_event("called", 3)
    await client.assert_closed(4000)
    assert client.close_reason == "bye"


async def test_another_process_reaches_the_sockets_of_an_app_by_group_user_and_channel(ann, run, connections):
    result = await asyncio.to_thread(run, "-c", SCRIPT, CHANNEL=ann.channel)
    assert (result.returncode, result.stderr) == (0, "")
    await everything_arrives(ann)
    assert connections() == 0


async def test_another_process_reaches_them_through_postgresql(postgres_url, make_app, run):
    url = f"{postgres_url}?prefix=publisher:"
    app = make_app(url=url)
    async with lifespan(app), WebsocketCommunicator(app, "/a", headers={"x-user": "ann"}) as client:
        channel = (await client.receive_json_from())["data"]
        result = await asyncio.to_thread(run, "-c", SCRIPT, CHANNEL=channel, URL=url)
        assert (result.returncode, result.stderr) == (0, "")
        await everything_arrives(client)


async def test_what_the_broker_cannot_carry_is_refused(postgres_url):
    async with Publisher(postgres_url) as publish:
        with pytest.raises(MessageTooBig):
            await publish.broadcast("room.a", "said", "x" * 10_000)


async def test_it_connects_when_it_publishes_with_one_connection_and_subscribes_to_nothing(url, broker, connections):
    async with Publisher(url) as publish:
        assert connections() == 0
        for number in range(5):
            await publish.broadcast("room.a", "said", number)
            assert connections() == 1
        assert broker.subscribed(url.rpartition("=")[2]) == set()
    assert connections() == 0
    await publish.close()


async def test_open_connects_at_once_and_tells_what_is_wrong(url, connections, own_broker):
    async with Publisher(url) as publish:
        await publish.open()
        assert connections() == 1
    own_broker.admin("CONFIG", "SET", "requirepass", "secret")
    with pytest.raises(ImproperlyConfigured, match="broker-refused"):
        await Publisher(own_broker.url).open()


async def test_many_tasks_may_use_it_and_it_is_opened_once(url, ann, monkeypatch):
    opened = []
    original = RedisTransport.open_for_publishing

    async def counted(self):
        opened.append(self)
        await asyncio.sleep(0)
        await original(self)

    monkeypatch.setattr(RedisTransport, "open_for_publishing", counted)
    async with Publisher(url) as publish:
        await asyncio.gather(*[publish.broadcast("room.a", "said", number) for number in range(50)])
    assert len(opened) == 1
    found = [(await ann.receive_json_from())["data"] for _ in range(50)]
    assert sorted(found) == list(range(50))


async def test_one_call_after_another_arrives_in_that_order(url, ann):
    async with Publisher(url) as publish:
        for number in range(100):
            await publish.broadcast("room.a", "said", number)
    assert [(await ann.receive_json_from())["data"] for _ in range(100)] == list(range(100))


def test_it_may_be_used_in_one_event_loop_after_another(url, connections):
    publish = Publisher(url)

    async def use():
        async with publish:
            await publish.broadcast("room.a", "said")
            assert connections() == 1

    def twice():
        asyncio.run(use())
        asyncio.run(use())

    thread = threading.Thread(target=twice)
    thread.start()
    thread.join(20)
    assert connections() == 0


async def test_a_second_event_loop_at_the_same_time_is_refused(url):
    async with Publisher(url) as publish:
        await publish.open()

        def elsewhere():
            with pytest.raises(RuntimeError, match="in use in another event loop"):
                asyncio.run(publish.broadcast("room.a", "said"))

        await asyncio.to_thread(elsewhere)
        await publish.broadcast("room.a", "said")


# When it cannot be done


async def test_a_broker_that_is_not_there_is_told_in_time_and_used_once_it_is(own_broker, make_app):
    publish = Publisher(own_broker.url)
    own_broker.kill()
    began = time.monotonic()
    with hurried(publish), pytest.raises(BrokerUnavailable) as caught:
        await publish.broadcast("room.a", "said")
    assert time.monotonic() - began < 20
    assert "redis://127.0.0.1" in "".join(caught.value.__notes__)
    own_broker.start()
    app = make_app(url=own_broker.url)
    async with lifespan(app), WebsocketCommunicator(app, "/a") as client, publish:
        await publish.broadcast("room.a", "said", "back")
        await client.assert_event("channel")
        await client.assert_event("said", "back")


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_broker_that_hangs_is_told_in_time(own_broker, is_open):
    async with Publisher(own_broker.url) as publish:
        if is_open:
            await publish.open()
        own_broker.freeze()
        began = time.monotonic()
        with hurried(publish), pytest.raises(BrokerUnavailable):
            await publish.broadcast("room.a", "said")
        assert time.monotonic() - began < 20
        own_broker.thaw()
        await publish.broadcast("room.a", "said")


async def test_a_transport_that_never_answers_is_told_in_time():
    class Stuck(RedisTransport):
        async def publish(self, topic, packet):
            await asyncio.Event().wait()

        async def open_for_publishing(self):
            return None

    publish = Publisher(transport=Stuck("redis://:secret@127.0.0.1:1"), broker_timeout=0.05)
    with pytest.raises(BrokerUnavailable) as caught:
        await publish.send("said", user=1)
    assert caught.value.__notes__ == ["RedisTransport('redis://***@127.0.0.1:1') did not answer within 0.05 s"]


async def test_after_a_failed_call_the_next_one_connects_anew(own_broker):
    async with Publisher(own_broker.url) as publish:
        await publish.broadcast("room.a", "said")
        own_broker.kill()
        with pytest.raises(BrokerUnavailable):
            await publish.broadcast("room.a", "said")
        own_broker.start()
        await publish.broadcast("room.a", "said")


async def test_a_connection_that_was_cut_off_while_nobody_published_is_not_used(own_broker, monkeypatch):
    monkeypatch.setattr(publisher, "MAX_IDLE", 0.0)
    async with Publisher(own_broker.url) as publish:
        await publish.broadcast("room.a", "said")
        own_broker.kill()
        own_broker.start()
        await publish.broadcast("room.a", "said")


async def test_what_is_open_is_not_closed_under_a_call_that_uses_it(ann, url, monkeypatch):
    monkeypatch.setattr(publisher, "MAX_IDLE", -1.0)
    async with Publisher(url) as publish:
        await asyncio.gather(*[publish.broadcast("room.a", "said", number) for number in range(100)])
    found = [(await ann.receive_json_from())["data"] for _ in range(100)]
    assert sorted(found) == list(range(100))


@pytest.mark.parametrize("kind", [Publisher, SyncPublisher])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({}, "one-transport"),
        ({"url": "redis://localhost", "transport": MemoryTransport()}, "one-transport"),
        ({"url": "memory://"}, "publisher-reaches-nobody"),
        ({"transport": MemoryTransport()}, "publisher-reaches-nobody"),
        ({"transport": "redis://localhost"}, "bad-transport"),
        ({"broadcast": "redis://localhost"}, "bad-broadcast"),
        ({"url": "http://:secret@localhost"}, "bad-url"),
        ({"url": "redis://:12/secret@localhost"}, "bad-url"),
        ({"url": "redis://localhost", "broker_timeout": 0}, "bad-broker-timeout"),
        ({"broadcast": Broadcast("memory://"), "broker_timeout": None}, "bad-broker-timeout"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_made(kind, arguments, code):
    with pytest.raises(ImproperlyConfigured) as caught:
        kind(**arguments)
    assert [problem.code for problem in caught.value.problems] == [code]
    assert "secret" not in str(caught.value)


async def test_bad_input_is_refused_before_anything_is_connected():
    publish = Publisher("redis://127.0.0.1:1")
    with pytest.raises(InvalidGroup):
        await publish.broadcast("", "said")
    with pytest.raises(ValueError, match="Unable to serialize"):
        await publish.broadcast("room.a", "said", object())
    with pytest.raises(TypeError, match="name one receiver"):
        await publish.disconnect(user=1, group="room.a")
    with pytest.raises(ValueError, match='"type"'):
        await publish.group_send("room.a", {})
    await publish.send("said", channel="nobody")


async def test_a_broadcast_of_ones_own(make_app):
    broadcast = Broadcast("memory://")
    app = make_app(broadcast=broadcast)
    async with lifespan(app), WebsocketCommunicator(app, "/a") as client, Publisher(broadcast=broadcast) as publish:
        await client.assert_event("channel")
        await publish.broadcast("room.a", "said", "hi")
        await client.assert_event("said", "hi")


async def test_a_transport_of_ones_own(ann, url):
    async with Publisher(transport=RedisTransport(url)) as publish:
        await publish.broadcast("room.a", "said", "hi")
        await ann.assert_event("said", "hi")


def test_it_is_shown_without_its_secrets():
    assert repr(Publisher("redis://:secret@localhost")) == "Publisher(RedisTransport('redis://***@localhost'))"
    assert repr(SyncPublisher("redis://:secret@localhost")) == "SyncPublisher(RedisTransport('redis://***@localhost'))"
