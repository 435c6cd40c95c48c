"""Frames that are written straight to the server's transport, read by a client that was written by others."""

import asyncio
import json
import subprocess
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect

from tests.server.client import TEXT, frame

LOOPS = ["uvloop", "asyncio"]
SERVERS = ["websockets-sansio", "wsproto", "fastapi_consumers.contrib.uvicorn:WebSocketProtocol"]
EVENTS, REQUESTS = 60, 30
#: Around each border between two ways to write a frame's length, and more than what a server takes at once.
SIZES = [0, 1, 60, 126, 4000, 65_500, 70_000, 300_000]


async def talk(client, number):
    """Ask and listen at the same time. The numbers of the events and the texts of the replies, in their order."""
    events, replies = [], []

    async def ask():
        for request in range(REQUESTS):
            content = {"action": "echo", "request_id": request, "data": {"text": f"ü{number}-{request}"}}
            await client.send(json.dumps(content))

    asking = asyncio.create_task(ask())
    while len(events) < EVENTS or len(replies) < REQUESTS:
        message = json.loads(await client.recv())
        if message["type"] == "event":
            position, padding = message["data"]
            assert padding == "x" * SIZES[position % len(SIZES)]
            events.append(position)
        else:
            assert message["status"] == "ok"
            replies.append(message["data"])
    await asking
    return events, replies


def url_of(server):
    return f"{'ws' if server.tls is None else 'wss'}://127.0.0.1:{server.port}"


async def fan_out(server, path="/patient/lanes/1", **options):
    """Several clients that talk while events are fanned out to them. Whether each of them had a lane."""
    async with asyncio.timeout(40), AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                connect(f"{url_of(server)}{path}", max_size=None, max_queue=None, proxy=None, ssl=server.tls, **options)
            )
            for _ in range(4)
        ]
        talks = [asyncio.create_task(talk(client, number)) for number, client in enumerate(clients)]
        publisher = clients[0]
        for number in range(EVENTS):
            data = {"number": number, "size": SIZES[number % len(SIZES)]}
            await publisher.send(json.dumps({"action": "tick", "data": data}))
        for number, (events, replies) in enumerate(await asyncio.gather(*talks)):
            assert events == list(range(EVENTS))
            assert replies == [f"ü{number}-{request}" for request in range(REQUESTS)]
        # What a sender broadcasts in memory, and its reply, come in this order.
        await publisher.send(json.dumps({"action": "burst", "request_id": 1, "data": {"count": 20, "size": 100}}))
        found = [json.loads(await publisher.recv()) for _ in range(21)]
        assert [message.get("data") and message["data"][0] for message in found] == [*range(20), None]
        # Pings are the server's still, between the frames.
        await (await publisher.ping())
        return (await server.state())["lanes"]


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize("ws", SERVERS)
@pytest.mark.parametrize("loop", LOOPS)
async def test_a_fan_out_arrives_whole_and_in_order_with_replies(start_server, loop, ws, deflate):
    server = start_server(loop=loop, ws=ws, ws_per_message_deflate=deflate)
    lanes = await fan_out(server, compression="deflate" if deflate else None)
    assert lanes == [not deflate] * 4


async def test_a_client_that_asks_for_no_compression_has_a_lane_beside_those_that_do(start_server):
    server = start_server(ws="websockets-sansio")
    url = f"{url_of(server)}/patient/lanes/2"
    async with connect(url, proxy=None) as packed, connect(url, compression=None, proxy=None) as plain:
        assert sorted((await server.state())["lanes"]) == [False, True]
        await server.http("POST", "/broadcast/lanes/2?name=tick&count=10&size=1000")
        for client in (packed, plain):
            found = [json.loads(await client.recv())["data"][0] for _ in range(10)]
            assert found == list(range(10))


async def test_without_a_lane_the_older_websockets_server_works_as_well(start_server):
    server = start_server(ws="websockets", ws_per_message_deflate=False, expected=("Deprecat", "warnings.warn("))
    assert await fan_out(server, compression=None) == [False] * 4


@pytest.mark.parametrize("ws", SERVERS)
async def test_a_middleware_that_wraps_send_sees_every_frame(start_server, ws):
    server = start_server(ws=ws, ws_per_message_deflate=False)
    # It is mounted: what it wraps is Starlette's wrapper, whose name it takes over.
    await fan_out(server, path="/seen/lanes/3", compression=None)
    counts = (await server.state())["counts"]
    assert counts["seen"] == 4 * (EVENTS + REQUESTS + 20) + 1


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}


@pytest.mark.parametrize("ws", SERVERS)
async def test_a_client_that_has_ended_its_half_is_torn_down_and_the_others_hear_all(start_server, ws):
    server = start_server(ws=ws, ws_per_message_deflate=False)
    async with asyncio.timeout(40):
        client = await server.connect("/patient/lanes/half")
        client.write(frame(TEXT, json.dumps({"action": "echo", "request_id": 1, "data": {"text": "x"}}).encode()))
        assert (await client.receive_json())["request_id"] == 1
        assert (await server.state())["lanes"] == [True]
        client.writer.write_eof()
        assert (await client.closed()).code in (1005, 1006)
        await server.until(lambda state: not state["connections"])
    await fan_out(server)


@pytest.mark.parametrize("loop", LOOPS)
async def test_frames_are_written_through_tls(start_server, certificate, loop):
    server = start_server(loop=loop, ws_per_message_deflate=False, **certificate)
    assert await fan_out(server, compression=None) == [True] * 4
