"""More than a connection may have waiting: it is slowed down, or closed with a stated code. Nobody else is touched."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from tests.server.client import CLOSE, PING, TEXT, Closed, Refusal, frame


def request(action, number, /, **data):
    return frame(TEXT, json.dumps({"action": action, "request_id": number, "data": data}).encode())


async def test_thousands_of_requests_without_reading_are_all_answered_in_order(server):
    async with await server.connect("/target/flood/1") as client:
        count = 5000
        for number in range(count):
            client.write(request("echo", number, text="x" * (number % 50)))
        await client.writer.drain()
        for number in range(count):
            answer = await client.receive_json()
            assert (answer["request_id"], answer["data"]) == (number, "x" * (number % 50))
        await client.close()


async def test_thousands_of_requests_behind_an_action_that_takes_its_time_fill_the_inbox_and_lose_nothing(server):
    async with await server.connect("/target/flood/2") as client:
        count = 2000
        client.write(request("sleep", "first", seconds=0.3))
        for number in range(count):
            client.write(request("echo", number, text="x"))
        await client.writer.drain()
        assert (await client.receive_json())["request_id"] == "first"
        for number in range(count):
            assert (await client.receive_json())["request_id"] == number
        await client.close()


async def test_concurrent_actions_answer_each_request_once(server):
    async with await server.connect("/target/flood/3") as client:
        count = 2000
        for number in range(count):
            client.write(request("beside", number, text=str(number)))
        await client.writer.drain()
        answers = [await client.receive_json() for _ in range(count)]
        assert sorted(answer["request_id"] for answer in answers) == list(range(count))
        assert all(answer["data"] == str(answer["request_id"]) for answer in answers)
        await client.close()


async def test_an_inbox_that_stays_full_closes_with_4429(server):
    async with await server.connect("/target/flood/4") as client:
        client.write(request("sleep", 1, seconds=60))
        for number in range(100):
            client.write(request("echo", number, text="x"))
        async with asyncio.timeout(20):
            closed = await client.closed()
        assert (closed.code, closed.reason) == (4429, "too_many_requests")


async def test_bad_frames_in_a_row_close_with_4400_and_a_good_one_between_starts_anew(server):
    async with await server.connect("/target/flood/5") as client:
        for _ in range(3):
            for _ in range(50):
                client.write(frame(TEXT, b"?"))
            client.write(request("echo", 1, text="good"))
        answers = [await client.receive_json() for _ in range(153)]
        assert sum(answer["type"] == "error" for answer in answers) == 150
        for _ in range(51):
            client.write(frame(TEXT, b"?"))
        closed = await client.closed()
        assert (closed.code, closed.reason) == (4400, "bad_frames")


async def test_a_flood_of_pings_is_answered_by_the_server_and_disturbs_no_action(server):
    async with await server.connect("/target/flood/6") as client:
        client.write(request("sleep", 1, seconds=0.3))
        for _ in range(3000):
            client.write(frame(PING, b"x" * 125))
        client.write(request("echo", 2, text="after"))
        assert (await client.receive_json())["data"] == "slept"
        assert (await client.receive_json())["data"] == "after"
        assert client.pongs == 3000
        await client.close()


async def test_a_cancel_reaches_an_action_that_runs_before_all_that_waits(server):
    async with await server.connect("/target/flood/7") as client:
        client.write(request("sleep", 1, seconds=60))
        for number in range(5):
            client.write(request("echo", f"waits {number}", text="x"))
        client.write(request("cancel", 2, request_id=1) + request("cancel", 3, request_id="waits 2"))
        answers = [await client.receive_json() for _ in range(8)]
        by_id = {answer["request_id"]: answer for answer in answers}
        assert by_id[1]["error"]["code"] == by_id["waits 2"]["error"]["code"] == "cancelled"
        assert [by_id[2]["status"], by_id[3]["status"]] == ["ok", "ok"]
        assert [by_id[f"waits {number}"]["status"] for number in (0, 1, 3, 4)] == ["ok"] * 4
        await client.close()


async def test_a_flood_of_cancels_while_an_action_runs_is_answered_one_by_one(server):
    async with await server.connect("/patient/flood/8") as client:
        client.write(request("sleep", "runs", seconds=0.4))
        await client.writer.drain()
        for number in range(1000):
            client.write(request("cancel", number, request_id=f"nothing {number}"))
        await client.writer.drain()
        answers = [await client.receive_json() for _ in range(1001)]
        found = [answer["request_id"] for answer in answers if answer["request_id"] != "runs"]
        assert found == list(range(1000))
        assert all(answer["error"]["code"] == "not_found" for answer in answers if answer["request_id"] != "runs")
        assert sum(answer["request_id"] == "runs" for answer in answers) == 1
        await client.close()


async def test_cancelling_the_same_request_again_and_again_ends_it_once(server):
    async with await server.connect("/target/flood/9") as client:
        client.write(request("sleep", 1, seconds=60))
        for number in range(10, 60):
            client.write(request("cancel", number, request_id=1))
        client.write(request("echo", 99, text="x"))
        answers = [await client.receive_json() for _ in range(52)]
        assert [answer["error"]["code"] for answer in answers if answer["request_id"] == 1] == ["cancelled"]
        assert sorted(answer["request_id"] for answer in answers) == [1, *range(10, 60), 99]
        await client.close()


@pytest.mark.parametrize("ends", ["close", "reset", "drop"])
async def test_when_the_client_goes_its_action_is_cancelled_and_torn_down_at_once(server, ends):
    before = (await server.state())["counts"]
    client = await server.connect("/target/flood/10")
    client.write(request("sleep", 1, seconds=60))
    await server.until(lambda state: state["counts"].get("sleep began", 0) > before.get("sleep began", 0))
    async with asyncio.timeout(20):
        await getattr(client, ends)()
        after = (await server.empty())["counts"]
    assert after["sleep cancelled"] == before.get("sleep cancelled", 0) + 1


@pytest.mark.parametrize("ends", ["close", "reset"])
async def test_a_stream_without_end_stops_when_its_client_goes(server, ends):
    before = (await server.state())["counts"].get("endless ended", 0)
    client = await server.connect("/target/flood/11")
    client.write(request("endless", 1))
    for number in range(1000):
        assert (await client.receive_json())["data"] == number
    async with asyncio.timeout(30):
        await getattr(client, ends)()
        await server.until(lambda state: state["counts"].get("endless ended", 0) == before + 1)


async def test_a_stream_without_end_to_a_client_that_does_not_read_is_ended(server):
    before = (await server.state())["counts"].get("endless ended", 0)
    client = await server.connect("/target/flood/12", receive_buffer=4096)
    client.write(request("endless", 1))
    # write_timeout is a few seconds there.
    await server.until(lambda state: state["counts"].get("endless ended", 0) == before + 1)
    with pytest.raises(Closed):
        async with asyncio.timeout(30):
            while True:
                await client.receive()
    await client.reset()


async def test_many_connections_that_come_and_go_at_once_leave_nothing(server):
    async def brief(number):
        client = await server.connect(f"/target/brief/{number % 5}")
        client.write(request("say", 1, text="hello") + request("sleep", 2, seconds=60) * (number % 2))
        if number % 3:
            await client.receive()
        await (client.reset() if number % 2 else client.close())

    for _ in range(4):
        await asyncio.gather(*[brief(number) for number in range(40)])
    await server.empty()


def memory(pid):
    """The resident memory of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


async def flood_until_closed(client, block):
    """Send as fast as the socket takes it, whatever the server says, until it cuts the connection."""

    async def send():
        with contextlib.suppress(ConnectionError):
            while True:
                client.write(block)
                await client.writer.drain()

    sending = asyncio.create_task(send())
    try:
        closed = await client.closed()
        # It was told; now it is cut off, although it neither stops nor answers.
        await sending
        return closed
    finally:
        sending.cancel()
        await asyncio.wait([sending])


async def test_a_flood_of_one_address_is_refused_throttled_and_cut_off_while_others_are_served(server):
    pid = (await server.state())["pid"]
    before = memory(pid)
    others = [
        await server.connect("/limited/flood/others", {"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(5)
    ]
    dialled = await asyncio.gather(*[server.connect("/limited/flood/flood") for _ in range(50)], return_exceptions=True)
    flooding = [client for client in dialled if not isinstance(client, BaseException)]
    refusals = [refusal for refusal in dialled if isinstance(refusal, Refusal)]
    assert (len(flooding), [refusal.status for refusal in refusals]) == (30, [429] * 20)
    block = b"".join(request("echo", number, text="x" * 64) for number in range(500))
    async with asyncio.timeout(120):
        floods = asyncio.gather(*[flood_until_closed(client, block) for client in flooding])
        asked = 0
        while not floods.done() or asked < 20:
            for other in others:
                await other.send_json(action="echo", request_id=asked, data={"text": "still here"})
                answer = await other.receive_json()
                assert (answer["request_id"], answer.get("data")) == (asked, "still here"), answer
            asked += 1
            await asyncio.sleep(0.05)  # as often as it may
        closed = await floods
    assert {(each.code, each.reason) for each in closed} == {(4429, "too_many_requests")}
    assert memory(pid) - before < 150
    for other in others:
        await other.close()


async def test_who_ignores_a_close_is_cut_off(server):
    client = await server.connect("/limited/flood/cut")
    block = b"".join(request("echo", number, text="x" * 64) for number in range(500))
    async with asyncio.timeout(30):
        assert (await flood_until_closed(client, block)).code == 4429
    await server.empty()


async def test_a_client_that_answers_its_close_sees_the_code(server):
    async with await server.connect("/limited/flood/polite") as client:
        for number in range(160):
            client.write(request("echo", number, text="x"))
        assert (await client.closed()).code == 4429
        client.write(frame(CLOSE, (4429).to_bytes(2)))
        async with asyncio.timeout(30):
            with pytest.raises(Closed):
                await client.receive()
