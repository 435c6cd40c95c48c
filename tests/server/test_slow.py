"""One member that does not read, among others that do."""

import asyncio
import contextlib
import json

import pytest

from tests.server.client import Closed

SIZE = 4000


def numbers(texts, name):
    return [json.loads(text)["data"][0] for text in texts if json.loads(text).get("event") == name]


async def read_all(client, name, count):
    found = []
    while len(found) < count:
        message = await client.receive_json()
        if message["type"] == "event" and message["event"] == name:
            found.append(message["data"][0])
    return found


async def test_a_client_that_does_not_read_is_disconnected_and_the_others_get_everything(server):
    stalled = await server.connect("/target/slow/1", receive_buffer=4096)
    others = [await server.connect("/target/slow/1") for _ in range(3)]
    count = 1000
    reading = [asyncio.create_task(read_all(other, "tick", count)) for other in others]
    _, _ = await server.http("POST", f"/broadcast/slow/1?name=tick&count={count}&size={SIZE}")
    async with asyncio.timeout(20):
        assert await asyncio.gather(*reading) == [list(range(count))] * 3
    state = await server.until(lambda state: state["connections"] == 3)
    assert state["counts"]["code 1013"] >= 1
    # It was given what fitted into the buffers between it and the server, in order, and then nothing.
    received = []
    with pytest.raises(Closed):
        while True:
            received.append(await stalled.receive())
    assert numbers(received, "tick") == list(range(len(received)))
    assert len(received) < count
    for client in (stalled, *others):
        await client.reset()


async def test_what_waits_for_a_client_that_does_not_read_is_bounded(server):
    stalled = await server.connect("/target/slow/2", receive_buffer=4096)
    most = 0

    async def watch():
        nonlocal most
        while True:
            outboxes = (await server.state())["outboxes"]
            most = max([most, *(waiting for waiting, _, _ in outboxes.values())])

    watching = asyncio.create_task(watch())
    await server.http("POST", f"/broadcast/slow/2?name=tick&count=2000&size={SIZE}")
    await server.until(lambda state: state["connections"] == 0)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    assert most <= 256
    await stalled.reset()


async def test_a_client_that_reads_again_in_time_has_lost_nothing(server):
    slow = await server.connect("/patient/slow/3", receive_buffer=4096)
    count = 1500
    await server.http("POST", f"/broadcast/slow/3?name=tick&count={count}&size={SIZE}")
    state = await server.state()
    ((waiting, sent, dropped),) = state["outboxes"].values()
    # Some of it waits, and nothing was dropped.
    assert waiting > 0
    assert dropped == 0
    assert sent + waiting in (count, count - 1)
    async with asyncio.timeout(20):
        assert await read_all(slow, "tick", count) == list(range(count))
    # From here on nothing is between it and the socket again.
    await server.until(lambda state: [waiting for waiting, _, _ in state["outboxes"].values()] == [0])
    await slow.send_json(action="echo", request_id=1, data={"text": "well again"})
    assert (await slow.receive_json())["data"] == "well again"
    await slow.close()


async def test_a_message_that_is_not_taken_within_write_timeout_ends_the_connection(server):
    stalled = await server.connect("/target/slow/4", receive_buffer=4096)
    # A few large ones: neither the number nor the size of what waits is too much.
    await server.http("POST", "/broadcast/slow/4?name=tick&count=1&size=4000000")
    await server.http("POST", "/broadcast/slow/4?name=tick&count=1&size=10")
    before = (await server.state())["connections"]
    assert before == 1
    await server.until(lambda state: state["connections"] == 0)
    await stalled.reset()


async def test_a_client_that_is_too_slow_and_still_reads_is_told_why(server):
    slow = await server.connect("/target/slow/5", receive_buffer=4096)
    # More than may wait, in one go; then it reads at once.
    posting = asyncio.create_task(server.http("POST", f"/broadcast/slow/5?name=tick&count=2000&size={SIZE}"))
    await server.until(lambda state: state["counts"].get("leave", 0) == state["counts"].get("join", 0))
    closed = await slow.closed()
    assert (closed.code, closed.reason) == (1013, "slow_consumer")
    await posting
    await slow.reset()


async def test_two_publishers_and_many_members_see_one_order(server):
    members = [await server.connect("/patient/order/1") for _ in range(600)]
    count = 30
    reading = []
    for member in members:

        async def read(member=member):
            found = []
            while len(found) < 2 * count:
                message = await member.receive_json()
                if message["type"] == "event":
                    found.append((message["event"], message["data"]))
            return found

        reading.append(asyncio.create_task(read()))
    # One publishes from within, one over HTTP.
    for member in members[:2]:
        await member.send_json(action="burst", data={"count": count // 2})
    await server.http("POST", f"/broadcast/order/1?name=tick&count={count}")
    async with asyncio.timeout(30):
        found = await asyncio.gather(*reading)
    assert all(each == found[0] for each in found)
    assert [data[0] for name, data in found[0] if name == "tick"] == list(range(count))
    for member in members:
        await member.reset()
