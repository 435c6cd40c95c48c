"""The one place where real time has to pass: an action that lasts longer than uvicorn waits for a pong."""

import asyncio

import pytest

from tests.server.client import Closed


@pytest.fixture
def start(start_server):
    """A server that waits so many seconds for a pong."""
    # The control's own loop raises when its socket is gone.
    expected = ("Exception in ASGI application",)
    return lambda seconds: start_server(ws_ping_interval=0.5, ws_ping_timeout=seconds, expected=expected)


async def test_an_action_that_outlasts_the_keepalive_is_answered_where_a_loop_by_hand_is_closed(start):
    """The client sends while the action runs. Uvicorn stops reading after one unread message, pongs included."""
    server, seconds = start(4), 6
    client = await server.connect("/target/long/1")
    control = await server.connect("/control")

    async def by_hand():
        await control.send(str(seconds))
        # Let it begin, so that the next message is one that nobody reads.
        await asyncio.sleep(0.1)
        await control.send("0")
        with pytest.raises(Closed) as closed:
            await control.receive()
        return closed.value

    async def with_a_pump():
        await client.send_json(action="sleep", request_id=1, data={"seconds": seconds})
        await asyncio.sleep(0.1)
        await client.send_json(action="echo", request_id=2, data={"text": "meanwhile"})
        return [await client.receive_json(), await client.receive_json()]

    async with asyncio.timeout(40):
        closed, answers = await asyncio.gather(by_hand(), with_a_pump())
    assert (closed.code, closed.reason) == (1011, "keepalive ping timeout")
    assert [answer["data"] for answer in answers] == ["slept", "meanwhile"]
    # Neither an idle connection nor one after a long action is closed.
    receiving = asyncio.create_task(client.receive_json())
    await asyncio.sleep(1.2)
    await client.send_json(action="echo", request_id=3, data={"text": "still there"})
    assert (await receiving)["data"] == "still there"
    await client.close()
    await control.reset()
    await server.empty()


async def test_a_client_that_answers_no_ping_is_closed_and_torn_down(start):
    server = start(0.5)
    client = await server.connect("/target/long/2")
    client.answers_pings = False
    await client.send_json(action="sleep", request_id=1, data={"seconds": 60})
    async with asyncio.timeout(20):
        closed = await client.closed()
        counts = (await server.empty())["counts"]
    assert closed.code == 1011
    assert counts["sleep cancelled"] == 1
    await client.reset()
