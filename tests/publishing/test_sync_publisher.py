"""Publishing from code without an event loop: scripts, threads, forked workers."""

import asyncio
import gc
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastapi_consumers import BrokerUnavailable, InvalidGroup, SyncPublisher
from fastapi_consumers.transports import RedisTransport
from tests.publishing.test_publisher import everything_arrives
from tests.transports.tools import hurried

SCRIPT = """
import os
from fastapi_consumers import SyncPublisher

with SyncPublisher(os.environ["URL"], broker_timeout=20) as publish:
    publish.broadcast("room.a", "said", {"text": "hi"})
    publish.send("note", 1, user="ann")
    publish.send("note", 2, channel=os.environ["CHANNEL"])
    publish.group_send("room.a", {"type": "room.call", "number": 3})
    publish.broadcast("room.a", "said", "to others", exclude=os.environ["CHANNEL"])
    publish.disconnect(user="ann", code=4000, reason="bye")
"""

LEFT_OPEN = """
import os
from fastapi_consumers import SyncPublisher

publish = SyncPublisher(os.environ["URL"], broker_timeout=20)
publish.broadcast("room.a", "said", "left open")
"""

# Forked workers end through os._exit, as those of multiprocessing and Celery, or through sys.exit. The parent publishes
# before, meanwhile and after, and what its children do must not end its connection.
FORKED = """
import gc, os, sys
from fastapi_consumers import SyncPublisher
from redis import Redis

publish = SyncPublisher(os.environ["URL"], broker_timeout=20)
publish.broadcast("room.a", "said", "parent 0")
control = Redis.from_url(os.environ["URL"].partition("?")[0])

def mine():
    name = os.environ["URL"].rpartition("=")[2]
    return sorted(each["id"] for each in control.client_list() if each["name"] == name)

before = mine()
for number in range(4):
    child = os.fork()
    if not child:
        publish.broadcast("room.a", "said", f"child {number}")
        publish.broadcast("room.a", "said", f"child {number} again")
        if number % 2:
            os._exit(0)
        publish.close()
        del publish
        gc.collect()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0, number
    publish.broadcast("room.a", "said", f"parent {number + 1}")
assert mine() == before, "the parent's connection was lost"
control.close()
"""


def own_threads():
    return [thread for thread in threading.enumerate() if thread.name == "fastapi_consumers publisher"]


async def test_another_process_reaches_the_sockets_of_an_app_by_group_user_and_channel(ann, run, connections):
    result = await asyncio.to_thread(run, "-c", SCRIPT, CHANNEL=ann.channel)
    assert (result.returncode, result.stderr) == (0, "")
    await everything_arrives(ann)
    assert connections() == 0


async def test_one_that_nobody_closes_is_closed_when_the_program_exits(ann, run, connections):
    result = await asyncio.to_thread(run, "-c", LEFT_OPEN)
    assert (result.returncode, result.stderr) == (0, "")
    await ann.assert_event("said", "left open")
    assert connections() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_forked_workers_publish_over_connections_of_their_own_and_leave_the_parents_alone(ann, run):
    result = await asyncio.to_thread(run, "-W", "ignore::DeprecationWarning", "-c", FORKED)
    assert (result.returncode, result.stderr) == (0, "")
    expected = ["parent 0"]
    for number in range(4):
        expected += [f"child {number}", f"child {number} again", f"parent {number + 1}"]
    assert [(await ann.receive_json_from())["data"] for _ in expected] == expected


def test_it_starts_nothing_before_it_is_used_and_one_thread_and_connection_then(url, broker, connections):
    with SyncPublisher(url) as publish:
        assert (own_threads(), connections()) == ([], 0)
        for _ in range(3):
            publish.broadcast("room.a", "said")
            assert (len(own_threads()), connections()) == (1, 1)
        assert broker.subscribed(url.rpartition("=")[2]) == set()
    assert (own_threads(), connections()) == ([], 0)


async def test_it_works_in_the_thread_of_an_event_loop_that_runs(url, ann):
    with SyncPublisher(url) as publish:
        publish.open()
        publish.broadcast("room.a", "said", "hi")
    await ann.assert_event("said", "hi")


async def test_many_threads_may_use_one_and_each_ones_order_is_kept(url, ann, connections):
    def work(worker):
        for number in range(25):
            publish.broadcast("room.a", "said", [worker, number])

    with SyncPublisher(url) as publish, ThreadPoolExecutor(8) as pool:
        await asyncio.gather(*[asyncio.get_running_loop().run_in_executor(pool, work, worker) for worker in range(8)])
        assert len(own_threads()) == 1
    found = [(await ann.receive_json_from())["data"] for _ in range(200)]
    for worker in range(8):
        assert [number for who, number in found if who == worker] == list(range(25))


async def test_it_can_be_used_again_after_it_was_closed(url, ann):
    publish = SyncPublisher(url)
    for number in range(2):
        with publish:
            publish.broadcast("room.a", "said", number)
        publish.close()
        assert own_threads() == []
        await ann.assert_event("said", number)


async def test_closing_waits_for_the_calls_of_other_threads(url, ann):
    for number in range(20):
        publish = SyncPublisher(url)
        publish.open()
        begun = threading.Event()

        def work(number=number, publish=publish, begun=begun):
            begun.set()
            publish.broadcast("room.a", "said", number)

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait(5)
        publish.close()
        thread.join(5)
        assert not thread.is_alive()
        await ann.assert_event("said", number)
        publish.close()  # If the call came after the first close, it has opened it again.
        assert own_threads() == []


def test_one_that_nobody_refers_to_is_closed(url, connections):
    publish = SyncPublisher(url)
    publish.broadcast("room.a", "said")
    assert connections() == 1
    del publish
    gc.collect()
    assert (own_threads(), connections()) == ([], 0)


def test_errors_are_raised_in_the_caller_and_in_time(own_broker):
    with SyncPublisher(own_broker.url) as publish:
        with pytest.raises(InvalidGroup):
            publish.broadcast("", "said")
        with pytest.raises(ValueError, match="Unable to serialize"):
            publish.broadcast("room.a", "said", object())
        publish.send("said", user=1)
        own_broker.freeze()
        began = time.monotonic()
        with hurried(publish._publisher), pytest.raises(BrokerUnavailable):
            publish.broadcast("room.a", "said")
        assert time.monotonic() - began < 20
        own_broker.thaw()
        publish.broadcast("room.a", "said")
        own_broker.kill()
        with pytest.raises(BrokerUnavailable):
            publish.disconnect(group="room.a")


class Interrupted(Exception):
    pass


def test_a_call_that_a_signal_interrupts_ends(url):
    cancelled = threading.Event()

    class Waiting(RedisTransport):
        async def publish(self, topic, packet):
            os.kill(os.getpid(), signal.SIGUSR1)
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with SyncPublisher(transport=Waiting(url), broker_timeout=30) as publish:
            with pytest.raises(Interrupted):
                publish.broadcast("room.a", "said")
            assert cancelled.wait(5)
    finally:
        signal.signal(signal.SIGUSR1, before)
