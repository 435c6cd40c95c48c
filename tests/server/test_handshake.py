"""Refusals over real HTTP, subprotocols, compression, and what ends a handshake half way."""

import asyncio
import json

import ormsgpack
import pytest
import websockets

from tests.server.client import BINARY, Client, Refusal, frame, handshake


@pytest.mark.parametrize(
    ("why", "status", "code", "retry_after"),
    [
        ("401", 401, "not_authenticated", None),
        ("403", 403, "permission_denied", None),
        ("429", 429, "throttled", "8"),
        ("503", 503, "broker_unavailable", "1"),
        ("full", 503, "group_full", "5"),
    ],
)
async def test_a_refusal_is_an_http_response_that_says_why(server, why, status, code, retry_after):
    with pytest.raises(Refusal) as refused:
        await server.connect(f"/refused/{why}")
    assert refused.value.status == status
    assert refused.value.headers.get("retry-after") == retry_after
    assert refused.value.headers["content-type"] == "application/json"
    body = json.loads(refused.value.body)
    assert body["error"]["code"] == code
    assert body["error"].get("retry_after") == (7.2 if status == 429 else None)


async def refused_before_accept(server, path):
    """No consumer was asked: the server answered with HTTP."""
    before = (await server.state())["counts"].get("connect", 0)
    with pytest.raises(Refusal) as refused:
        await server.connect(path)
    assert (await server.state())["counts"].get("connect", 0) == before
    answer = refused.value
    return answer.status, json.loads(answer.body)["error"], int(answer.headers["retry-after"])


@pytest.mark.parametrize(
    ("path", "code"), [("/fast/", "too_many_connections"), ("/seldom", "throttled")], ids=["process", "client"]
)
async def test_who_comes_too_fast_is_told_when_to_come_again(server, path, code):
    await (await server.connect(path)).close()
    status, error, seconds = await refused_before_accept(server, path)
    assert (status, error["code"], error["retryable"]) == (429, code, True)
    assert 0 < error["retry_after"] <= seconds < error["retry_after"] + 1
    # One comes in a day: no test is as slow as to be let in.
    assert 80_000 < seconds <= 86_400


async def test_a_process_that_is_full_says_when_to_come_again_and_has_room_when_one_has_left(server):
    only = await server.connect("/single/")
    status, error, seconds = await refused_before_accept(server, "/single/")
    assert (status, error["code"], error["retryable"], seconds) == (503, "too_many_connections", True, 5)
    assert "retry_after" not in error
    await only.close()
    await server.until(lambda state: not state["single"])
    await (await server.connect("/single/")).close()


async def test_limits_that_cannot_be_checked_refuse_where_they_are_closed(server):
    server.expected = ("rate limits cannot be counted at redis://127.0.0.1:1",)
    status, error, seconds = await refused_before_accept(server, "/closed/")
    assert (status, error["code"], error["retryable"], seconds) == (503, "limiter_unavailable", True, 1)


@pytest.mark.parametrize(("why", "code"), [("401", 4401), ("403", 4403), ("429", 4429), ("503", 1013), ("full", 1013)])
async def test_with_accept_refused_a_browser_is_told_why_and_closed(server, why, code):
    async with await server.connect(f"/words/{why}") as client:
        notice = await client.receive_json()
        assert notice["type"] == "error"
        closed = await client.closed()
        assert (closed.code, closed.reason) == (code, notice["error"]["code"])


async def test_a_third_one_in_a_group_for_two_is_refused_and_may_come_when_one_has_left(server):
    first, second = await server.connect("/two"), await server.connect("/two")
    with pytest.raises(Refusal) as refused:
        await server.connect("/two")
    assert refused.value.status == 503
    await first.close()
    await server.until(lambda state: state["connections"] == 1)
    third = await server.connect("/two")
    await third.close()
    await second.close()


async def test_a_path_that_no_route_has_is_refused(server):
    with pytest.raises(Refusal) as refused:
        await server.connect("/nowhere")
    assert refused.value.status in (403, 404)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        (["fc.v1.json"], "fc.v1.json"),
        (["fc.v1.msgpack"], "fc.v1.msgpack"),
        (["other", "fc.v1.msgpack", "fc.v1.json"], "fc.v1.msgpack"),
        (["other"], None),
    ],
)
async def test_the_subprotocol_is_negotiated_with_a_client_of_the_library(server, offered, chosen):
    url = f"ws://127.0.0.1:{server.port}/target/sub/1"
    async with websockets.connect(url, subprotocols=offered, compression=None, proxy=None) as client:
        assert client.subprotocol == chosen
        request = {"action": "anything", "request_id": 1, "data": {"list": [1, 2.5, None, "é"]}}
        if chosen == "fc.v1.msgpack":
            await client.send(ormsgpack.packb(request))
            answer = ormsgpack.unpackb(await client.recv())
        else:
            await client.send(json.dumps(request))
            answer = json.loads(await client.recv())
        assert answer == {
            "type": "reply",
            "action": "anything",
            "request_id": 1,
            "status": "ok",
            "data": {"list": [1, 2.5, None, "é"]},
        }


async def test_members_of_both_encodings_hear_each_other(server):
    packed = await server.connect("/target/both/1", {"Sec-WebSocket-Protocol": "fc.v1.msgpack"})
    plain = await server.connect("/target/both/1", {"Sec-WebSocket-Protocol": "fc.v1.json"})
    packed.write(frame(BINARY, ormsgpack.packb({"action": "say", "data": {"text": "é"}})))
    event = {"type": "event", "event": "said", "group": "both.1", "data": "é"}
    assert await plain.receive_json() == event
    assert ormsgpack.unpackb(await packed.receive()) == event
    await packed.close()
    await plain.close()


async def test_compressed_frames_go_both_ways(server):
    url = f"ws://127.0.0.1:{server.port}/target/deflate/1"
    async with websockets.connect(url, compression="deflate", proxy=None) as client:
        assert client.protocol.extensions, "the server took no compression"
        for number in range(50):
            text = f"{number} " + "many times the same " * (number * 10)
            await client.send(json.dumps({"action": "echo", "request_id": number, "data": {"text": text}}))
            assert json.loads(await client.recv())["data"] == text


async def test_a_compressed_frame_is_measured_as_it_is_unpacked(server):
    url = f"ws://127.0.0.1:{server.port}/target/deflate/2"
    async with websockets.connect(url, compression="deflate", proxy=None) as client:
        await client.send(json.dumps({"action": "echo", "data": {"text": "x" * 20_000}}))
        with pytest.raises(websockets.ConnectionClosed):
            await client.recv()
        assert client.close_code == 1009


async def test_a_relay_hands_on_text_and_bytes_exactly(server):
    one, two = await server.connect("/relay"), await server.connect("/relay")
    for data in ("text é 😀", "", b"\x00\xff", b"", '{"action":"echo"}'):
        await one.send(data)
        assert await one.receive() == data
        assert await two.receive() == data
    await one.close()
    await two.close()


async def test_a_client_that_resets_in_the_middle_of_the_handshake_leaves_nothing_and_no_complaint(server):
    for number in range(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(handshake("/target/early/2"))
        await asyncio.sleep(0.0005 * (number % 5))
        await Client(reader, writer).reset()
    await server.empty()
