"""The process is told to stop while sockets are open and actions run."""

import asyncio
import json
import signal

import pytest

from tests.server.client import Closed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_stops_tears_everything_down_and_says_nothing(start_server, number):
    server = start_server()
    clients = [await server.connect(f"/target/stop/{index % 4}") for index in range(20)]
    for client in clients[::2]:
        await client.send_json(action="sleep", request_id=1, data={"seconds": 60})
    clients[1].write(b"\x81")
    await server.until(lambda state: state["counts"].get("sleep began", 0) == 10)
    server.signal(number)
    async with asyncio.timeout(20):
        codes = [(await client.closed()).code for client in clients]
    assert set(codes) == {1012}
    for client in clients:
        await client.reset()
    await asyncio.to_thread(server.wait)
    (served,) = [line for line in server.log().splitlines() if line.startswith("served ")]
    counts = json.loads(served.removeprefix("served "))
    assert counts["connect"] == counts["disconnect"] == counts["join"] == counts["leave"] == 20
    assert counts["sleep cancelled"] == 10


async def test_a_server_stops_although_a_client_does_not_read(start_server):
    server = start_server(timeout_graceful_shutdown=3, expected=("Cancel", "graceful"))
    stalled = await server.connect("/patient/stop/1", receive_buffer=4096)
    await server.http("POST", "/broadcast/stop/1?name=tick&count=1000&size=4000")
    server.signal(signal.SIGTERM)
    await asyncio.to_thread(server.wait)
    (served,) = [line for line in server.log().splitlines() if line.startswith("served ")]
    counts = json.loads(served.removeprefix("served "))
    assert counts["connect"] == counts["disconnect"] == counts["leave"] == 1
    with pytest.raises(Closed):
        while True:
            await stalled.receive()
    await stalled.reset()


async def test_uvicorns_older_implementation_on_asyncios_own_loop_serves_as_well(start_server):
    # It is deprecated, and says so.
    server = start_server(ws="websockets", loop="asyncio", expected=("DeprecationWarning", "  "))
    one, two = await server.connect("/target/other/1"), await server.connect("/target/other/1")
    await one.send_json(action="say", request_id=1, data={"text": "hi"})
    assert (await one.receive_json())["type"] == "event"
    assert (await one.receive_json())["request_id"] == 1
    assert (await two.receive_json())["data"] == "hi"
    await one.send_json(action="sleep", request_id=2, data={"seconds": 60})
    await one.send_json(action="cancel", request_id=3, data={"request_id": 2})
    answers = {(await one.receive_json())["request_id"] for _ in range(2)}
    assert answers == {2, 3}
    await two.send("x" * 20_000)
    assert (await two.closed()).code == 1009
    await one.send_json(action="sleep", data={"seconds": 60})
    await asyncio.sleep(0.2)
    await one.reset()
    await two.reset()
    await server.empty()
