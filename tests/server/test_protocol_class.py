"""Real servers with the protocol class of ``fastapi_consumers.contrib.uvicorn``."""

import asyncio
import json
import signal
import struct
from pathlib import Path

import pytest

from tests.server.client import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame
from tests.server.conftest import serving

OURS = "fastapi_consumers.contrib.uvicorn:WebSocketProtocol"
MAX_SIZE = 32 * 1024
#: Seconds for what takes none on a machine that is not busy.
PATIENCE = 20


@pytest.fixture(scope="module")
def module_server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server") / "log", {"ws": OURS, "ws_max_size": MAX_SIZE}) as server:
        yield server


@pytest.fixture
async def server(module_server):
    yield module_server
    await module_server.drop_clients()
    await module_server.empty()
    assert not (complaints := module_server.complaints()), "\n".join(complaints[:20])


def echo(number, text="x"):
    return json.dumps({"action": "echo", "request_id": number, "data": {"text": text}}).encode()


async def test_it_is_what_serves_and_frames_take_the_lane(server):
    client = await server.connect("/target/class/1")
    await client.send(echo(1).decode())
    async with asyncio.timeout(PATIENCE):
        assert (await client.receive_json())["data"] == "x"
        assert (await server.state())["lanes"] == [True]


BROKEN = {
    "too big a frame": (frame(TEXT, b"x" * (MAX_SIZE + 1))[:8], 1009),
    "too big in fragments": (frame(TEXT, b"x" * MAX_SIZE, fin=False) + frame(CONT, b"x"), 1009),
    "not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "not UTF-8 in fragments": (frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"("), 1007),
    "reserved bit": (frame(TEXT, b"x", rsv=4), 1002),
    "unmasked": (frame(TEXT, b"x", masked=False), 1002),
    "continuation of nothing": (frame(CONT, b"x"), 1002),
    "unknown opcode": (frame(3), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "message within a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
    "close of one byte": (frame(CLOSE, b"x"), 1002),
    "forbidden close code": (frame(CLOSE, struct.pack("!H", 1005)), 1002),
    "close code and reason": (frame(CLOSE, struct.pack("!H", 4321) + b"bye"), 4321),
    "empty close": (frame(CLOSE), 1005),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_breaks_the_rules_is_closed_with_its_code_once_what_came_before_is_answered(server, what):
    data, code = BROKEN[what]
    client = await server.connect("/target/class/2")
    async with asyncio.timeout(PATIENCE):
        # In one piece: what comes before a broken frame counts.
        client.write(frame(TEXT, echo(1)))
        assert (await client.receive_json())["request_id"] == 1
        client.write(data)
        assert (await client.closed()).code == code


async def test_fragments_with_pings_between_them_are_one_message(server):
    client = await server.connect("/target/class/3")
    content = echo(1, "äöü" * 300)
    parts = [content[at : at + 7] for at in range(0, len(content), 7)]
    data = b"".join(
        frame(TEXT if not number else CONT, part, fin=number == len(parts) - 1) + frame(PING, b"%d" % number)
        for number, part in enumerate(parts)
    )
    async with asyncio.timeout(PATIENCE):
        for at in range(0, len(data), 500):
            client.write(data[at : at + 500])
        assert (await client.receive_json())["data"] == "äöü" * 300
        client.write(frame(TEXT, echo(2)))
        assert (await client.receive_json())["request_id"] == 2
    assert client.pongs == len(parts)


async def test_pings_are_answered_while_an_action_runs(server):
    client = await server.connect("/target/class/4")
    async with asyncio.timeout(PATIENCE):
        await client.send_json(action="sleep", request_id=1, data={"seconds": 60})
        await server.until(lambda state: state["counts"].get("sleep began"))
        client.write(frame(TEXT, echo(2)) * 3 + frame(PING, b"there?"))
        assert await client.receive_frame() == (PONG, b"there?", True)
        # And a goodbye is seen: the action is cancelled.
        await client.close()
        await server.until(lambda state: state["counts"].get("sleep cancelled"))


async def test_a_flood_that_nobody_takes_is_kept_out_of_memory(start_server):
    server = start_server(ws=OURS, expected=("Exception in ASGI application",))
    status = Path(f"/proc/{(await server.state())['pid']}/status")

    def memory():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    client = await server.connect("/control")
    before = memory()
    client.write(frame(TEXT, b"8"))
    flood = frame(BINARY, b"x") * 10_000
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            while True:
                client.write(flood)
                # Once the kernel takes no more, for a second, nor will it later.
                await asyncio.wait_for(client.writer.drain(), 1)
    # The kernel's buffers hold some 400 000 of these; as events they would take more than 100 MB.
    assert memory() - before < 20_000_000
    await client.reset()


async def test_a_slow_client_gets_all_in_order(server):
    client = await server.connect("/patient/class/5", receive_buffer=4096)
    async with asyncio.timeout(PATIENCE):
        await client.send_json(action="burst", request_id=1, data={"count": 600, "size": 20_000})
        await client.send(echo(2).decode())
        # Until the server waits.
        await server.until(lambda state: any(waiting for waiting, _, _ in state["outboxes"].values()))
        received = [await client.receive_json() for _ in range(602)]
    assert [message["data"][0] for message in received[:600]] == list(range(600))
    assert [message["request_id"] for message in received[600:]] == [1, 2]


async def test_a_client_that_has_ended_its_half_is_answered_and_torn_down(server):
    client = await server.connect("/target/class/6")
    async with asyncio.timeout(PATIENCE):
        client.write(frame(TEXT, echo(1)))
        assert (await client.receive_json())["request_id"] == 1
        client.writer.write_eof()
        assert (await client.closed()).code == 1006
        await server.until(lambda state: not state["connections"])


async def test_a_loop_by_hand_may_take_its_time_with_a_client_that_lives_and_not_with_one_that_does_not(start_server):
    """Under uvicorn's own class the first one is closed too: ``test_keepalive``."""
    # The control's own loop raises when its socket is gone.
    server = start_server(
        ws=OURS, ws_ping_interval=0.5, ws_ping_timeout=1.5, ws_max_queue=2, expected=("Exception in ASGI application",)
    )
    async with asyncio.timeout(30):
        alive, dead = [await server.connect("/control") for _ in range(2)]
        dead.answers_pings = False
        # More than may wait, so that reading is paused and pongs lie behind it.
        alive.write(frame(TEXT, b"3") + frame(TEXT, b"0") * 5)
        dead.write(frame(TEXT, b"0"))
        closed, _ = await asyncio.gather(dead.closed(), alive.receive())
        assert (closed.code, closed.reason) == (1011, "keepalive ping timeout")
        assert [await alive.receive() for _ in range(5)] == ["slept"] * 5
        alive.write(frame(TEXT, b"0"))
        assert await alive.receive() == "slept"


async def test_a_server_that_stops_says_so(start_server):
    server = start_server(ws=OURS, expected=("Exception in ASGI application",))
    by_hand = await server.connect("/control")
    consumer = await server.connect("/target/class/7")
    server.signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        assert (await consumer.receive_json())["type"] == "closing"
        for client in (consumer, by_hand):
            assert (await client.closed()).code == 1012
