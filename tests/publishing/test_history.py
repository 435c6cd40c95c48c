"""Publishing to groups with history from outside: with the same offsets, size and age as the application itself."""

import asyncio
import json
import logging
import threading
import time
from datetime import timedelta

import pytest
from fastapi import FastAPI

from fastapi_consumers import (
    BrokerUnavailable,
    GroupConsumer,
    ImproperlyConfigured,
    MessageTooBig,
    Position,
    Publisher,
    SyncPublisher,
    add_consumers,
    path,
    publisher,
)
from fastapi_consumers.history import History, RedisHistoryStore, store_of
from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from fastapi_consumers.transports import MemoryTransport
from tests.transports.tools import hurried

SIZE = 5

PROGRAM = """
import asyncio, json, os, sys
from fastapi_consumers import Publisher

async def main():
    async with Publisher(os.environ["URL"], broker_timeout=20, history_url=os.environ.get("HISTORY_URL")) as publish:
        found = [await publish.broadcast("log.a", "said", number) for number in range(3)]
        found += [await publish.broadcast("log.a", "said", "once", idempotency_key="k") for _ in range(2)]
        assert await publish.broadcast("plain.a", "said", "without") is None
        json.dump(found, sys.stdout)

asyncio.run(main())
"""

SYNC_PROGRAM = """
import json, os, sys
from fastapi_consumers import SyncPublisher

with SyncPublisher(os.environ["URL"], broker_timeout=20, history_url=os.environ.get("HISTORY_URL")) as publish:
    found = [publish.broadcast("log.a", "said", number) for number in range(3)]
    found += [publish.broadcast("log.a", "said", "once", idempotency_key="k") for _ in range(2)]
    assert publish.broadcast("plain.a", "said", "without") is None
    json.dump(found, sys.stdout)
"""


class Log(GroupConsumer):
    groups = ["log.{name}"]
    history = History(size=SIZE, ttl=timedelta(hours=1))


class Plain(GroupConsumer):
    groups = ["plain.{name}"]


def make(url, history_url=None, *, size=SIZE):
    class Sized(Log):
        history = History(size=size, ttl=timedelta(hours=1))

    app = FastAPI()
    add_consumers(app, [path("/log/{name}", Sized), path("/plain/{name}", Plain)], url=url, history_url=history_url)
    return app


@pytest.fixture(params=["its server", "sqlite"])
def history_url(request, tmp_path):
    return None if request.param == "its server" else f"sqlite:///{tmp_path / 'history.db'}"


@pytest.fixture
async def app(url, history_url):
    app = make(url.partition("&")[0], history_url)
    async with lifespan(app):
        yield app


def coming_back(position):
    return f"/log/a?recover={position[0]}:{position[1]}"


@pytest.mark.parametrize("program", [PROGRAM, SYNC_PROGRAM], ids=["Publisher", "SyncPublisher"])
async def test_events_of_another_process_have_offsets_arrive_once_and_are_recovered(app, history_url, run, program):
    environment = {"HISTORY_URL": history_url} if history_url else {}
    async with WebsocketCommunicator(app, "/log/a") as ann, WebsocketCommunicator(app, "/plain/a") as bob:
        joined = await ann.receive_json_from()
        result = await asyncio.to_thread(run, "-c", program, **environment)
        assert (result.returncode, result.stderr) == (0, "")
        epoch = joined["epoch"]
        assert json.loads(result.stdout) == [[epoch, 1], [epoch, 2], [epoch, 3], [epoch, 4], [epoch, 4]]
        found = [await ann.receive_json_from(timeout=20) for _ in range(4)]
        assert [(event["data"], event["offset"]) for event in found] == [(0, 1), (1, 2), (2, 3), ("once", 4)]
        await bob.assert_event("said", "without")
        assert await ann.receive_nothing(0.05)
    # Ann was away meanwhile, and had the first event.
    async with WebsocketCommunicator(app, coming_back((epoch, 1))) as ann:
        assert (await ann.receive_json_from())["recovered"] is True
        assert [(await ann.receive_json_from())["data"] for _ in range(3)] == [1, 2, "once"]
        assert await app.state.consumers.broadcast("log.a", "said", "inside") == Position(epoch, 5)
        assert (await ann.receive_json_from())["offset"] == 5


async def test_size_and_age_are_those_of_the_application(app, url, history_url):
    async with Publisher(url, history_url=history_url) as publish:
        for number in range(SIZE + 2):
            last = await publish.broadcast("log.a", "said", number)
    found = await app.state.consumers.history("log.a").read()
    assert [event.data for event in found.events] == list(range(2, SIZE + 2))
    assert (found.epoch, found.top) == last
    async with WebsocketCommunicator(app, coming_back((last.epoch, 1))) as client:
        assert (await client.receive_json_from())["recovered"] is False


async def test_the_age_goes_to_the_server_with_the_event(broker, url):
    url = url.partition("&")[0]
    async with lifespan(make(url)), Publisher(url) as publish:
        await publish.broadcast("log.a", "said")
        key = f"{url.partition('prefix=')[2]}history:{{log.a}}:events"
        assert 3_590_000 < broker.admin("PTTL", key) <= 3_600_000


async def test_an_append_and_its_publish_are_one_round_trip(url, monkeypatch):
    url = url.partition("&")[0]
    async with lifespan(make(url)), Publisher(url) as publish:
        await publish.broadcast("log.a", "said")
        client = publish._transport.client
        commands = []
        original = client._run

        async def counted(key, call):
            commands.append(key)
            return await original(key, call)

        monkeypatch.setattr(client, "_run", counted)
        await publish.broadcast("log.a", "said")
        assert len(commands) == 1


async def test_an_idempotency_key_needs_a_history(app, url, history_url):
    async with Publisher(url, history_url=history_url) as publish:
        with pytest.raises(ValueError, match="has no history"):
            await publish.broadcast("plain.a", "said", idempotency_key="k")
        with pytest.raises(ValueError, match="printable"):
            await publish.broadcast("log.a", "said", idempotency_key="")
    with SyncPublisher(url, history_url=history_url) as publish:
        with pytest.raises(ValueError, match="has no history"):
            publish.broadcast("plain.a", "said", idempotency_key="k")


async def test_messages_to_event_methods_and_users_are_not_kept(app, url, history_url):
    async with Publisher(url, history_url=history_url) as publish:
        await publish.group_send("log.a", {"type": "x"})
        await publish.send("said", user=1)
        await publish.disconnect(group="log.a")
    assert (await app.state.consumers.history("log.a").read()).top == 0


# Settings that change


async def test_what_a_newer_application_says_is_known_once_the_settings_are_older_than_their_bound(url, monkeypatch):
    url = url.partition("&")[0]
    async with Publisher(url) as publish:
        assert await publish.broadcast("log.a", "said") is None
        async with lifespan(make(url, size=2)):
            assert await publish.broadcast("log.a", "said") is None
            monkeypatch.setattr(publisher, "MAX_AGE", -1.0)
            assert (await publish.broadcast("log.a", "said")).offset == 1
            assert await publish.broadcast("plain.a", "said") is None


async def test_the_settings_are_looked_up_once_for_many_tasks(app, url, history_url, monkeypatch):
    loads = []
    original = RedisHistoryStore.load_templates

    async def counted(self):
        loads.append(self)
        return await original(self)

    monkeypatch.setattr(RedisHistoryStore, "load_templates", counted)
    async with Publisher(url) as publish:
        await asyncio.gather(*[publish.broadcast("log.a", "said") for _ in range(20)])
    assert len(loads) == 1


async def test_settings_that_cannot_be_looked_up_again_go_on_counting(own_broker, broker, url, monkeypatch, caplog):
    url = url.partition("&")[0]
    async with lifespan(make(url, own_broker.url)):
        async with Publisher(url, history_url=own_broker.url) as publish:
            await publish.broadcast("plain.a", "said")
            own_broker.kill()
            monkeypatch.setattr(publisher, "MAX_AGE", -publisher.RETRY - 1.0)
            with caplog.at_level(logging.WARNING):
                assert await publish.broadcast("plain.a", "said") is None
            assert "looked up again" in caplog.text
            with pytest.raises(BrokerUnavailable):
                await publish.broadcast("log.a", "said")
            own_broker.start()
            assert (await publish.broadcast("log.a", "said")).offset == 1


# When it cannot be done


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_what_is_kept_is_delivered_though_the_broker_is_away(own_broker, tmp_path, how, monkeypatch):
    history_url = f"sqlite:///{tmp_path / 'history.db'}"
    app = make(own_broker.url, history_url)
    async with lifespan(app):
        async with (
            WebsocketCommunicator(app, "/log/a") as ann,
            Publisher(own_broker.url, history_url=history_url) as publish,
        ):
            await ann.receive_json_from()
            assert (await publish.broadcast("log.a", "said", 1)).offset == 1
            await ann.assert_event("said", 1)
            getattr(own_broker, how)()
            began = time.monotonic()
            with hurried(publish, 3):
                assert (await publish.broadcast("log.a", "said", 2, idempotency_key="k")).offset == 2
                assert time.monotonic() - began < 20
                with pytest.raises(BrokerUnavailable):
                    await publish.broadcast("plain.a", "said")
                assert (await publish.broadcast("log.a", "said", 2, idempotency_key="k")).offset == 2
            own_broker.start() if how == "kill" else own_broker.thaw()
            await app.state.consumers.hub.streams.check()
            await app.state.consumers.hub.streams.check()
            event = await ann.receive_json_from(timeout=20)
            assert (event["data"], event["offset"]) == (2, 2)


async def test_what_is_not_kept_raises_in_time(own_broker):
    async with lifespan(make(own_broker.url)):
        async with Publisher(own_broker.url) as publish:
            await publish.broadcast("log.a", "said")
            own_broker.freeze()
            began = time.monotonic()
            with hurried(publish), pytest.raises(BrokerUnavailable):
                await publish.broadcast("log.a", "said")
            assert time.monotonic() - began < 20
            own_broker.thaw()
            assert (await publish.broadcast("log.a", "said")).offset >= 2


async def test_a_store_that_never_answers_is_named(url):
    class Stuck(RedisHistoryStore):
        async def load_templates(self):
            await asyncio.Event().wait()

    publish = Publisher(url, history_url=Stuck(url), broker_timeout=3)
    with pytest.raises(BrokerUnavailable) as caught:
        await publish.broadcast("log.a", "said")
    [note] = caught.value.__notes__
    assert note.startswith("RedisHistoryStore(")
    await publish.close()


async def test_open_sees_that_the_store_can_be_reached(url):
    async with Publisher(url, history_url="redis://127.0.0.1:1") as publish:
        with pytest.raises(BrokerUnavailable):
            await publish.open()


@pytest.mark.parametrize("kind", [Publisher, SyncPublisher])
def test_a_store_of_one_process_is_refused(kind):
    with pytest.raises(ImproperlyConfigured, match="history-not-shared"):
        kind("redis://localhost", history_url="memory://")


async def test_a_transport_without_a_place_for_history_has_none_by_itself(tmp_path):
    class Elsewhere(MemoryTransport):
        is_distributed = True

    async with Publisher(transport=Elsewhere()) as publish:
        assert await publish.broadcast("log.a", "said") is None
        with pytest.raises(ValueError, match="has no history"):
            await publish.broadcast("log.a", "said", idempotency_key="k")
    history_url = f"sqlite:///{tmp_path / 'history.db'}"
    store = store_of(history_url)
    await store.open()
    await store.save_templates({"log.{name}": History(size=3)})
    await store.close()
    async with Publisher(transport=Elsewhere(), history_url=history_url) as publish:
        assert (await publish.broadcast("log.a", "said")).offset == 1


def test_it_may_be_used_in_one_event_loop_after_another(url, tmp_path):
    history_url = f"sqlite:///{tmp_path / 'history.db'}"
    offsets = []

    async def use():
        store = store_of(history_url)
        await store.open()
        await store.save_templates({"log.{name}": History(size=3)})
        await store.close()
        async with publish:
            offsets.append((await publish.broadcast("log.a", "said")).offset)

    publish = Publisher(url, history_url=history_url, broker_timeout=20)
    thread = threading.Thread(target=lambda: [asyncio.run(use()) for _ in range(2)])
    thread.start()
    thread.join(20)
    assert offsets == [1, 2]


async def test_what_is_kept_and_too_big_for_the_broker_is_read_back_by_the_members(tmp_path, caplog):
    class Narrow(MemoryTransport):
        is_distributed, is_direct = True, False

        async def publish(self, topic, packet):
            if len(packet) > 1000:
                raise MessageTooBig
            await super().publish(topic, packet)

    app = FastAPI()
    store = store_of(f"sqlite:///{tmp_path / 'history.db'}")
    consumers = add_consumers(
        app, [path("/log/{name}", Log)], transport=Narrow(), history_url=store, presence_url="memory://"
    )
    async with lifespan(app), WebsocketCommunicator(app, "/log/a") as ann:
        await ann.receive_json_from()
        assert (await consumers.broadcast("log.a", "said", "x" * 2000)).offset == 1
        await ann.assert_event("said", "x" * 2000, timeout=20)
        assert "kept" in caplog.text
        assert await consumers.broadcast("log.a", "said", 2) is not None
        await ann.assert_event("said", 2)
