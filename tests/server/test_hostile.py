"""Thousands of hostile frames against a real server, while others go on with their work."""

import asyncio
import contextlib
import json
import os
import random
import time
from collections import Counter, deque

from tests.server.client import BINARY, TEXT, frame, handshake
from tests.server.hostile import Shooter, endings

#: Another seed each night, if one wants; a failure prints it.
SEED = int(os.environ.get("HOSTILE_SEED", "20261121"))
MAX_SIZE = 16 * 1024
SESSIONS = 270
SHOTS = 42
ABRUPT = ("reset", "reset in a frame", "half closed", "half closed in a frame", "reset while it runs", "too many bad")


class Bystander:
    """A client that does everything right, all the while, and wants its answers and events in order."""

    def __init__(self, server, number):
        self.server, self.number = server, number
        self.answered = self.heard = 0
        self.worst = 0.0
        self.stop = asyncio.Event()

    async def run(self):
        async with await self.server.connect("/target/quiet/room") as client:
            while not self.stop.is_set():
                number = self.answered + 1
                began = time.perf_counter()
                await client.send_json(action="echo", request_id=number, data={"text": f"{self.number}-{number}"})
                if number % 10 == 0:
                    await client.send_json(
                        action="say", request_id=f"say {number}", data={"text": f"{self.number} {number}"}
                    )
                while True:
                    answer = await client.receive_json()
                    if answer["type"] == "event":
                        self.heard += 1
                    elif isinstance(answer["request_id"], str):
                        assert answer["status"] == "ok"
                    else:
                        break
                assert (answer["request_id"], answer["data"]) == (number, f"{self.number}-{number}")
                self.worst = max(self.worst, time.perf_counter() - began)
                self.answered = number
                await asyncio.sleep(0.002)
            await client.close()


class Tally:
    def __init__(self):
        self.sent = Counter()
        self.answered = Counter()
        self.closed = Counter()


async def read(client, msgpack):
    data = await client.receive()
    if msgpack:
        import ormsgpack

        return ormsgpack.unpackb(data)
    return json.loads(data)


async def session(server, number, tally):
    """One connection: a salvo, each answer of which is looked at, then one of many bad ends."""
    seed = SEED * 1_000_003 + number
    msgpack = number % 4 == 3
    shooter, generator = Shooter(seed, msgpack=msgpack), random.Random(seed)
    headers = {"Sec-WebSocket-Protocol": "fc.v1.msgpack"} if msgpack else {}
    client = await server.connect(f"/target/hostile/{number % 7}", headers)
    async with client:
        expected = deque()

        async def answers():
            while expected:
                shot = expected[0]
                answer = await read(client, msgpack)
                assert shot.fits(answer), f"seed {seed}, {shot.kind}: {shot.data[:300]!r} was answered with {answer}"
                expected.popleft()
                tally.answered[answer.get("status", "notice")] += 1

        # Some wait for each answer, others send everything first.
        for shot in shooter.shots(SHOTS):
            client.write(shot.data)
            tally.sent[shot.kind] += 1
            expected.append(shot)
            if generator.random() < (0.05 if number % 2 else 0.5):
                await answers()
        await answers()
        await end(client, number, generator, msgpack, tally)


async def end(client, number, generator, msgpack, tally):
    bad_ends = endings(generator, MAX_SIZE, msgpack=msgpack)
    abrupt = [
        "reset",
        "reset in a frame",
        "half closed",
        "half closed in a frame",
        "reset while it runs",
        "too many bad",
    ]
    choice = (bad_ends + abrupt)[number % (len(bad_ends) + len(abrupt))]
    own = BINARY if msgpack else TEXT
    if isinstance(choice, str):
        match choice:
            case "reset in a frame" | "half closed in a frame":
                client.write(frame(own, b"x" * 1000)[: generator.randrange(1, 900)])
            case "reset while it runs":
                if not msgpack:
                    client.write(frame(TEXT, b'{"action":"sleep","data":{"seconds":30}}'))
                    await asyncio.sleep(0.15 * generator.random())
            case "too many bad":
                for _ in range(60):
                    client.write(frame(own, b"\xc1" if msgpack else b"?"))
                    tally.sent["too many bad"] += 1
                closed = await client.closed()
                assert closed.code == 4400, closed
                tally.closed["too many bad: 4400"] += 1
        if choice.startswith("half closed"):
            client.writer.write_eof()
            closed = await client.closed()
            tally.closed[f"{choice}: {closed.code}"] += 1
        elif choice.startswith("reset"):
            await client.reset()
            tally.closed[choice] += 1
        return
    client.write(choice.data)
    tally.sent[choice.kind] += 1
    closed = await client.closed()
    assert closed.code in choice.codes, (
        f"{choice.kind}: closed with {closed.code} {closed.reason}, not {set(choice.codes)}"
    )
    tally.closed[f"{choice.kind}: {closed.code}"] += 1


async def bad_handshake(server, number, tally):
    """What is no handshake, or ends in the middle of one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    generator = random.Random(SEED + number)
    whole = handshake("/target/hostile/x")
    data = [
        whole[: generator.randrange(len(whole))],
        whole,
        whole.replace(b"Version: 13", b"Version: 99"),
        whole.replace(b"Key: ", b"Key: ?"),
        generator.randbytes(200),
        whole.replace(b"/target/hostile/x", b"/target/%ff%00/\xc3\xa9?a=%zz"),
        whole.replace(
            b"Upgrade: websocket\r\n", b"Upgrade: websocket\r\nSec-WebSocket-Protocol: " + b"x, " * 500 + b"y\r\n"
        ),
        whole + frame(TEXT, b'{"action":"say","data":{"text":"before the answer"}}') * 3,
    ][number % 8]
    writer.write(data)
    tally.sent["handshake"] += 1
    with contextlib.suppress(ConnectionError):
        await writer.drain()
        if number % 3:
            async with asyncio.timeout(0.05):
                with contextlib.suppress(TimeoutError):
                    await reader.read(100)
    writer.transport.abort()
    tally.closed["handshake"] += 1


async def test_hostile_frames_end_nothing_but_themselves_or_their_own_connection(server):
    # Uvicorn says so of what is no HTTP.
    server.expected = ("WARNING uvicorn.error Invalid HTTP request received.",)
    tally, began = Tally(), time.perf_counter()
    bystanders = [Bystander(server, number) for number in range(3)]
    async with asyncio.TaskGroup() as group:
        for bystander in bystanders:
            group.create_task(bystander.run())
        places = asyncio.Semaphore(12)

        async def one(work, number):
            async with places, asyncio.timeout(60):
                await work(server, number, tally)

        async with asyncio.TaskGroup() as attackers:
            for number in range(SESSIONS):
                attackers.create_task(one(session, number))
                if number % 3 == 0:
                    attackers.create_task(one(bad_handshake, number))
        for bystander in bystanders:
            bystander.stop.set()
    state = await server.empty()
    took = time.perf_counter() - began
    sent, answered = tally.sent.total(), tally.answered.total()
    worst = max(bystander.worst for bystander in bystanders)
    print(f"\nseed {SEED}: {sent} frames sent in {took:.1f} s, {answered} answered {dict(tally.answered)}")
    print(f"sent: {dict(tally.sent)}")
    print(f"closed: {dict(sorted(tally.closed.items()))}")
    print(f"bystanders: {[each.answered for each in bystanders]} answers in order, the slowest {worst * 1000:.0f} ms")
    print(f"server: {state['counts']}")
    assert sent > 10_000
    assert answered == SESSIONS * SHOTS
    said = sum(each.answered // 10 for each in bystanders)
    assert all(each.answered > 50 for each in bystanders)
    assert all(each.heard <= said for each in bystanders)
