"""A client that stops reading, under each of the policies that drop events."""

import asyncio
from pathlib import Path

import pytest

from tests.server.test_slow import SIZE, read_all

DROPPING = ["drop_oldest", "drop_newest", "coalesce"]
COUNT = 1500
WAITING = 64


def resident(pid):
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


async def everything(client):
    """All that is still on its way, and the answer to one more request."""
    await client.send_json(action="echo", request_id="last", data={"text": "last"})
    events, replies = [], []
    while "last" not in replies:
        message = await client.receive_json()
        if message["type"] == "event":
            assert len(message["data"][-1]) == SIZE
            events.append(message["data"][0])
        else:
            replies.append(message["request_id"])
    return events, replies


@pytest.mark.parametrize("direct", [True, False], ids=["lane", "send"])
@pytest.mark.parametrize("policy", DROPPING)
async def test_the_others_get_everything_and_it_gets_what_the_policy_leaves(start_server, policy, direct):
    server = start_server(ws_per_message_deflate=False, ws="auto" if direct else "websockets", expected=("arn",))
    path = f"/{policy}/drop/1"
    stalled = await server.connect(path, receive_buffer=4096)
    others = [await server.connect(path) for _ in range(3)]
    assert (await server.state())["lanes"] == [direct] * 4
    for episode in (1, 2):
        before = resident((await server.state())["pid"])
        reading = [asyncio.create_task(read_all(other, "tick", COUNT)) for other in others]
        # In pieces that are not more than the others' outboxes hold.
        for start in range(0, COUNT, 50):
            await server.http("POST", f"/broadcast/drop/1?name=tick&count=50&size={SIZE}&start={start}")
            if start == 1000:
                # It asks, and does not read the answers.
                for request in range(5):
                    await stalled.send_json(action="echo", request_id=request, data={"text": "hi"})
        async with asyncio.timeout(20):
            assert await asyncio.gather(*reading) == [list(range(COUNT))] * 3
        state = await server.state()
        waiting, _, dropped = max(state["outboxes"].values())
        assert 0 < waiting <= WAITING
        assert state["overflows"] == {policy: dropped}
        assert state["counts"][f"overflow {policy}"] == episode
        assert resident(state["pid"]) - before < COUNT * SIZE / 2
        async with asyncio.timeout(20):
            events, replies = await everything(stalled)
        assert replies == [*range(5), "last"]
        assert events == sorted(set(events))
        assert 0 < len(events) < COUNT
        if policy == "drop_newest":
            first = next(number for number, event in enumerate(events) if number != event)
            assert first >= WAITING - 1
        else:
            # Its outbox held the newest ones; the five answers took the room of others.
            assert events[-(WAITING - 6) :] == list(range(COUNT - WAITING + 6, COUNT))
        # All has been written, so that this episode is over.
        await server.until(lambda state: not max(waiting for waiting, _, _ in state["outboxes"].values()))
    await stalled.close()
    for other in others:
        await other.close()


async def test_coalesce_keeps_the_last_word_of_each_key(server):
    stalled = await server.connect("/coalesce/drop/2", receive_buffer=4096)
    player = await server.connect("/coalesce/drop/2")
    async with asyncio.timeout(30):
        for to in range(1000):
            await player.send_json(action="move", request_id=to, data={"player": f"p{to % 7}", "to": to})
            assert (await player.receive_json())["status"] == "ok"
        events, _ = await everything(stalled)
    # Nothing was dropped, for there is never more than one of a key; and of each the last one came.
    assert events == sorted(set(events))
    assert events[-7:] == list(range(993, 1000))
    state = await server.state()
    assert sum(dropped for _, _, dropped in state["outboxes"].values()) == 0
    assert "overflow coalesce" not in state["counts"]


async def test_a_stalled_client_may_go_at_any_time(server):
    for policy in DROPPING:
        stalled = await server.connect(f"/{policy}/drop/3", receive_buffer=4096)
        await server.http("POST", f"/broadcast/drop/3?name=tick&count=500&size={SIZE}")
        assert (await server.state())["connections"] == 1
        await stalled.reset()
        await server.until(lambda state: not state["connections"])


async def test_it_can_be_disconnected_while_it_is_stalled(server):
    stalled = await server.connect("/drop_oldest/drop/4", receive_buffer=4096)
    await server.http("POST", f"/broadcast/drop/4?name=tick&count=500&size={SIZE}")
    await server.http("POST", "/disconnect/drop/4")
    # It reads again while the close waits for what is before it.
    async with asyncio.timeout(20):
        closed = await stalled.closed()
    assert (closed.code, closed.reason) == (4409, "disconnected")
    await server.until(lambda state: not state["connections"])


async def test_one_that_does_not_answer_pings_either_is_given_up(start_server):
    # Uvicorn's keepalive closes it, but cannot tell the application so: what it wrote before is not taken.
    server = start_server(ws_per_message_deflate=False, ws_ping_interval=0.2, ws_ping_timeout=0.2)
    stalled = await server.connect("/drop_oldest/drop/5", receive_buffer=4096)
    await server.http("POST", f"/broadcast/drop/5?name=tick&count={COUNT}&size={SIZE}")
    async with asyncio.timeout(20):
        while (await server.state())["connections"]:
            await server.http("POST", f"/broadcast/drop/5?name=tick&count=1&size={SIZE}")
            await asyncio.sleep(0.05)
    state = await server.empty()
    assert state["overflows"]["disconnect"] == 1
    assert state["counts"]["overflow disconnect"] == 1
    await stalled.reset()
