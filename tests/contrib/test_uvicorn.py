"""The protocol class for uvicorn, beside uvicorn's own. Real servers with it are in ``tests/server``."""

import asyncio
import functools
import importlib.util
import logging
import struct
import sys
import tracemalloc

import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

import fastapi_consumers.contrib.uvicorn.base
from fastapi_consumers.contrib.uvicorn import WebSocketProtocol
from fastapi_consumers.contrib.uvicorn.base import check_base
from fastapi_consumers.contrib.uvicorn.turns import Turn
from fastapi_consumers.lanes import find_lane
from tests.server.client import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame, handshake

DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate"}
#: Bytes of the largest message that the protocols of these tests take.
MAX_SIZE = 300


class Transport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.written = b""
        self.closing = self.paused = False
        self.pauses = self.writes = 0

    def get_extra_info(self, name, default=None):
        return default

    def write(self, data):
        assert not self.closing
        self.written += data
        self.writes += 1

    def pause_reading(self):
        self.paused = True
        self.pauses += 1

    def resume_reading(self):
        self.paused = False

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True


async def idle(scope, receive, send):
    raise AssertionError("tests speak for the application")


@functools.cache
def configured(**options):
    config = uvicorn.Config(idle, **{"ws_max_size": MAX_SIZE, "ws_ping_interval": None, "log_config": None, **options})
    config.load()
    return config


class Served:
    """A protocol with the application's end in the hands of the test: nothing is received but by ``take``."""

    def __init__(self, cls=WebSocketProtocol, *, headers=None, state=None, **options):
        self.loop = asyncio.get_running_loop()
        self.transport = Transport()
        self.protocol = cls(configured(**options), state or ServerState(), {}, self.loop)
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(handshake("/", headers))
        assert self.take() == [{"type": "websocket.connect"}]
        for task in self.protocol.tasks:
            # Before its first step: tests speak for the application.
            task.remove_done_callback(self.protocol.on_task_complete)
            task.cancel()

    async def accept(self):
        await self.protocol.send({"type": "websocket.accept"})
        self.transport.written = b""
        return self

    def feed(self, data):
        """What a transport does: nothing once it closes."""
        if not self.transport.closing:
            self.protocol.data_received(data)

    def take(self, count=None):
        """What the application receives without waiting."""
        taken = []
        while count is None or len(taken) < count:
            receiving = self.protocol.receive()
            try:
                receiving.send(None)
            except StopIteration as stop:
                taken.append(stop.value)
            else:
                receiving.close()
                break
        return taken


async def served(cls=WebSocketProtocol, **options):
    return await Served(cls, **options).accept()


def text(payload="x"):
    return {"type": "websocket.receive", "text": payload}


def run(scenario):
    """Run a scenario on a loop of its own, as Hypothesis runs each example."""
    logging.getLogger("uvicorn.error").disabled = True
    try:
        return asyncio.run(scenario)
    finally:
        logging.getLogger("uvicorn.error").disabled = False


# -- the same as uvicorn's, however it comes ---------------------------------------------------------------------------

payloads = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=8).map(str.encode),
    st.sampled_from([125, 126, 127, MAX_SIZE, MAX_SIZE + 1, 66_000]).map(lambda size: b"x" * size),
    st.sampled_from([b"\xff", b"\xc3", b"\xed\xa0\x80", b"ok \xce\xba\xe1\xbd", "κόσμε".encode()]),
)
closes = st.one_of(
    st.just(b""),
    st.just(b"\x03"),
    st.tuples(st.sampled_from([1000, 1001, 1004, 1005, 1006, 1011, 2999, 3000, 4999, 5000, 0]), payloads).map(
        lambda pair: struct.pack("!H", pair[0]) + pair[1][:123]
    ),
)
ordinary = st.builds(frame, st.sampled_from([TEXT, BINARY]), payloads)
frames = st.one_of(
    ordinary,
    ordinary,
    st.builds(frame, st.sampled_from([PING, PONG]), payloads),
    st.builds(frame, st.sampled_from([TEXT, BINARY, CONT]), payloads, fin=st.booleans()),
    st.builds(frame, st.just(CLOSE), closes),
    st.builds(frame, st.integers(0, 15), payloads, fin=st.booleans(), rsv=st.integers(0, 7), masked=st.booleans()),
    st.binary(min_size=1, max_size=20),
)
#: A message in fragments, with pings between them.
fragmented = st.builds(
    lambda opcode, parts: b"".join(
        frame(opcode if not number else CONT, part, fin=number == len(parts) - 1) + frame(PING, b"%d" % number)
        for number, part in enumerate(parts)
    ),
    st.sampled_from([TEXT, BINARY]),
    st.lists(st.binary(max_size=5), min_size=1, max_size=4),
)


async def outcome(cls, chunks, take_every):
    """What the application is given, and what the client, in the end."""
    side = await served(cls)
    events = []
    for number, chunk in enumerate(chunks):
        side.feed(chunk)
        if not number % take_every:
            events += side.take()
        while side.transport.paused and not side.transport.closing:
            taken = side.take()
            assert taken
            events += taken
    return [*events, *side.take()], side.transport.written, side.transport.closing


def split(data, sizes):
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    return [chunk for chunk in [*chunks, data[at:]] if chunk]


@settings(max_examples=60)
@given(
    st.lists(st.one_of(frames, fragmented), max_size=8),
    st.integers(0, 12),
    st.lists(st.one_of(st.integers(1, 20), st.integers(1, 400)), max_size=60),
    st.integers(1, 5),
)
@example([frame(TEXT, b"a"), frame(TEXT, b"\xff"), frame(PING, b"b"), frame(TEXT, b"c")], 0, [], 1)
@example([frame(TEXT, b"a", fin=False), frame(TEXT, b"b")], 0, [], 1)
@example([frame(TEXT, b"a"), frame(CLOSE, struct.pack("!H", 1000)), frame(TEXT, b"b")], 0, [], 1)
@example([frame(CONT, b"a")], 0, [3], 1)
@example([frame(BINARY, b"x" * 66_000)], 65_990, [5, 5], 1)
@example([frame(TEXT, b"a")] * 40, 0, [], 5)
def test_any_frames_however_split_mean_what_they_mean_to_uvicorn(parts, missing, sizes, take_every):
    data = b"".join(parts)
    data = data[: max(0, len(data) - missing)]
    # A byte at a time, since uvicorn's class drops the messages that came in one piece with an error.
    expected = run(outcome(WebSocketsSansIOProtocol, [data[at : at + 1] for at in range(len(data))], 1))
    assert run(outcome(WebSocketProtocol, split(data, sizes), take_every)) == expected


async def test_whole_frames_do_not_take_the_librarys_way(monkeypatch):
    side = await served()
    seen = []
    monkeypatch.setattr(side.protocol.conn, "receive_data", seen.append)
    side.feed(frame(TEXT, "tä".encode()) + frame(BINARY, b"b" * 126) + frame(TEXT))
    assert side.take() == [text("tä"), {"type": "websocket.receive", "bytes": b"b" * 126}, text("")]
    assert (seen, side.transport.pauses) == ([], 0)


async def test_after_fragments_and_pings_the_short_way_is_taken_again(monkeypatch):
    side = await served()
    seen = []
    receive_data = side.protocol.conn.receive_data
    monkeypatch.setattr(side.protocol.conn, "receive_data", lambda data: seen.append(data) or receive_data(data))
    unusual = [frame(TEXT, b"a", fin=False), frame(PING, b"p"), frame(CONT, b"b")]
    side.feed(frame(TEXT, b"1") + b"".join(unusual) + frame(TEXT, b"2"))
    assert side.take() == [text("1"), text("ab"), text("2")]
    assert seen == unusual


@pytest.mark.parametrize("way", ["compressed", "debugging"])
async def test_frames_that_are_extended_or_shown_in_the_log_are_the_librarys(way, monkeypatch, caplog):
    if way == "debugging":
        caplog.set_level(logging.DEBUG, "uvicorn.error")
    side = await served(headers=DEFLATE if way == "compressed" else None)
    seen = []
    monkeypatch.setattr(side.protocol.conn, "receive_data", seen.append)
    data = frame(TEXT, b"1")
    side.feed(data)
    assert seen == [data]


# -- how much waits ----------------------------------------------------------------------------------------------------


async def test_messages_that_wait_are_bounded_in_number_and_come_in_order():
    side = await served(ws_max_queue=4)
    side.feed(b"".join(frame(TEXT, b"%d" % number) for number in range(10)))
    assert side.transport.paused
    assert side.take(3) == [text("0"), text("1"), text("2")]
    assert side.transport.paused
    assert len(side.protocol.queue.events) == 1
    # What the transport had read already waits its turn.
    side.protocol.data_received(frame(TEXT, b"10"))
    assert side.take(1) == [text("3")]
    assert side.transport.paused
    assert len(side.protocol.queue.events) == 4
    assert side.take() == [text(str(number)) for number in range(4, 11)]
    assert (side.transport.paused, side.transport.pauses) == (False, 1)
    side.feed(frame(TEXT, b"11"))
    assert side.take() == [text("11")]


@pytest.mark.parametrize("headers", [None, DEFLATE], ids=["plain", "compressed"])
async def test_messages_that_wait_are_bounded_in_bytes(headers):
    side = await served(ws_max_size=1 << 20, headers=headers)
    big = "x" * 40_000
    if headers is None:
        data = [frame(TEXT, big.encode()) for _ in range(5)]
    else:
        deflate = PerMessageDeflate(False, False, 12, 12)
        message = Frame(Opcode.TEXT, big.encode())
        data = [message.serialize(mask=True, extensions=[deflate]) for _ in range(5)]
    side.feed(b"".join(data))
    assert (len(side.protocol.queue.events), side.transport.paused) == (2, True)
    assert side.take(2) == [text(big)] * 2
    assert (len(side.protocol.queue.events), side.transport.paused) == (2, True)
    assert side.take() == [text(big)] * 3
    assert not side.transport.paused
    # One that is larger than all that may wait comes too.
    side.feed(frame(BINARY, b"y" * 100_000))
    assert side.transport.paused
    assert side.take() == [{"type": "websocket.receive", "bytes": b"y" * 100_000}]
    assert not side.transport.paused


async def test_reading_is_not_paused_for_each_message():
    side = await served()
    for _ in range(100):
        side.feed(frame(TEXT, b"x"))
        assert side.take() == [text()]
    assert side.transport.pauses == 0


async def test_a_flood_takes_no_more_memory_than_one_read_of_the_transport():
    side = await served()
    chunk = frame(TEXT, b"x") * 5_000
    tracemalloc.start()
    try:
        side.feed(chunk)
        memory, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Events of all of them would take some 1.5 MB.
    assert memory < 100_000


async def test_fragments_that_hold_little_take_no_more_memory_than_what_they_hold():
    side = await served()
    side.feed(frame(BINARY, b"a", fin=False) + frame(CONT, fin=False) * 500 + frame(CONT, b"b", fin=False))
    assert side.protocol.frames == [b"ab"]
    side.feed(frame(CONT, b"c"))
    (event,) = side.take()
    assert event == {"type": "websocket.receive", "bytes": b"abc"}
    assert type(event["bytes"]) is bytes


async def test_while_a_client_takes_nothing_only_its_last_ping_is_kept_to_be_answered():
    side = await served()
    side.protocol.pause_writing()
    for number in range(100):
        side.feed(frame(PING, b"%d" % number))
    assert side.transport.written == b""
    side.protocol.resume_writing()
    assert side.transport.written == frame(PONG, b"99", masked=False)
    # And none once the socket is closing.
    side.protocol.pause_writing()
    side.feed(frame(PING, b"late"))
    side.transport.written = b""
    side.protocol.shutdown()
    side.protocol.resume_writing()
    assert side.transport.written == frame(CLOSE, struct.pack("!H", 1012), masked=False)


async def test_what_a_client_sends_before_it_is_accepted_waits():
    side = Served()
    side.feed(frame(TEXT, b"1"))
    side.feed(frame(TEXT, b"2")[:3])
    assert side.take() == []
    await side.accept()
    assert side.take() == [text("1")]
    side = Served()
    side.feed(frame(BINARY, b"x" * 70_000))
    assert side.transport.paused


async def test_messages_behind_the_apps_close_are_dropped_and_the_answer_to_it_is_found():
    side = await served(ws_max_queue=2)
    side.feed(frame(TEXT, b"x") * 5 + frame(CLOSE, struct.pack("!H", 4000)))
    assert side.transport.paused
    await side.protocol.send({"type": "websocket.close", "code": 4000})
    assert (side.transport.paused, side.transport.closing) == (False, True)
    assert side.take() == [text(), text(), {"type": "websocket.disconnect", "code": 4000, "reason": ""}]


async def test_a_connection_that_is_lost_ends_with_what_waited(monkeypatch):
    side = await served(ws_max_queue=2)
    side.feed(frame(TEXT, b"x") * 5)
    side.transport.closing = True
    side.protocol.connection_lost(None)
    assert side.take() == [text(), text(), {"type": "websocket.disconnect", "code": 1005}]
    with pytest.raises(ClientDisconnected):
        await side.protocol.send({"type": "websocket.send", "text": "x"})


# -- receive and send --------------------------------------------------------------------------------------------------


async def test_each_of_several_who_receive_gets_one_message():
    side = await served()
    receiving = [asyncio.create_task(side.protocol.receive()) for _ in range(3)]
    await asyncio.sleep(0)
    side.feed(frame(TEXT, b"1"))
    side.feed(frame(TEXT, b"2"))
    # One is cancelled when it has been woken, but has not taken anything.
    receiving[0].cancel()
    found = await asyncio.wait_for(asyncio.gather(*receiving[1:]), 10)
    assert sorted(event["text"] for event in found) == ["1", "2"]
    assert receiving[0].cancelled()
    waiting = asyncio.create_task(side.protocol.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    side.feed(frame(TEXT, b"3"))
    assert side.take() == [text("3")]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("kind", ["text", "bytes"])
async def test_what_is_sent_is_what_uvicorn_sends(kind, size):
    content = "x" * size if kind == "text" else b"x" * size
    written = []
    for cls in (WebSocketsSansIOProtocol, WebSocketProtocol):
        side = await served(cls)
        await side.protocol.send({"type": "websocket.send", kind: content})
        written.append(side.transport.written)
    assert written[0] == written[1] == frame(TEXT if kind == "text" else BINARY, b"x" * size, masked=False)


async def test_a_send_waits_for_a_slow_client_and_fails_once_it_has_closed():
    side = await served()
    side.protocol.pause_writing()
    sending = asyncio.create_task(side.protocol.send({"type": "websocket.send", "text": "x"}))
    await asyncio.sleep(0)
    assert side.transport.written == b""
    side.protocol.resume_writing()
    await asyncio.wait_for(sending, 10)
    assert side.transport.written == frame(TEXT, b"x", masked=False)
    side.feed(frame(CLOSE, struct.pack("!H", 1001)))
    with pytest.raises(ClientDisconnected):
        await side.protocol.send({"type": "websocket.send", "text": "x"})


async def test_nothing_may_be_sent_after_the_close():
    side = await served()
    await side.protocol.send({"type": "websocket.close"})
    with pytest.raises(RuntimeError, match=r"after sending 'websocket\.close'"):
        await side.protocol.send({"type": "websocket.send", "text": "x"})


# -- writes of one turn of the loop -----------------------------------------------------------------------------------


def sent(content):
    return {"type": "websocket.send", "text": content}


class Pair:
    """Two connections of one server, whose messages come in the same turn."""

    def __init__(self, state, first, second):
        self.state, self.first, self.second = state, first, second

    async def run(self, of_first, of_second):
        """Have these run, in this order, as what an application does with a message."""

        async def application(side, work):
            assert await side.protocol.receive() == text()
            await work()

        tasks = [
            asyncio.create_task(application(side, work))
            for side, work in ((self.first, of_first), (self.second, of_second))
        ]
        await asyncio.sleep(0)
        for side in (self.first, self.second):
            side.feed(frame(TEXT, b"x"))
        await asyncio.wait_for(asyncio.gather(*tasks), 10)


@pytest.fixture
async def pair():
    state = ServerState()
    return Pair(state, await served(state=state), await served(state=state))


async def nothing(): ...


async def test_answers_of_one_turn_are_written_together_and_each_connections_at_once(pair):
    first, second = pair.first, pair.second
    before = first.transport.writes

    async def of_first():
        for number in range(3):
            await first.protocol.send(sent(str(number)))
        first.feed(frame(PING, b"p"))
        assert first.transport.written == b""

    async def of_second():
        await second.protocol.send(sent("last"))
        assert second.transport.written == frame(TEXT, b"last", masked=False)
        texts = b"".join(frame(TEXT, b"%d" % number, masked=False) for number in range(3))
        assert first.transport.written == texts + frame(PONG, b"p", masked=False)

    await pair.run(of_first, of_second)
    assert first.transport.writes - before == 1
    # With nobody else to wait for, there is no wait.
    await first.protocol.send(sent("alone"))
    assert first.transport.written.endswith(frame(TEXT, b"alone", masked=False))


async def test_answers_do_not_wait_for_those_who_have_none(pair):
    await pair.run(lambda: pair.first.protocol.send(sent("1")), nothing)
    await asyncio.sleep(0)
    assert pair.first.transport.written == frame(TEXT, b"1", masked=False)


@pytest.mark.parametrize("why", ["much", "late"])
async def test_an_answer_waits_neither_long_nor_when_it_is_large(pair, why, monkeypatch):
    content = "x" * 70_000 if why == "much" else "x"
    if why == "late":
        times = iter([1.0])
        monkeypatch.setattr("fastapi_consumers.gathering.perf_counter", lambda: next(times, 1.002))

    async def of_first():
        await pair.first.protocol.send(sent(content))
        if why == "late":
            other = await served(state=pair.state)
            await other.protocol.send(sent("x"))
        assert pair.first.transport.written == frame(TEXT, content.encode(), masked=False)

    await pair.run(of_first, nothing)


async def test_who_writes_past_it_writes_behind_what_waits(pair):
    first = pair.first
    one, two = (frame(TEXT, content, masked=False) for content in (b"1", b"2"))

    async def of_first():
        await first.protocol.send(sent("1"))
        assert first.transport.written == b""
        lane, _ = find_lane(first.protocol.send)
        assert first.transport.written == one
        lane.transport.write(two)
        # What the server sends now waits for nobody, or what is written past it would come first.
        await first.protocol.send(sent("1"))
        lane.transport.write(two)
        assert first.transport.written == one + two + one + two
        await first.protocol.send({"type": "websocket.close", "code": 4000})

    await pair.run(of_first, nothing)
    await asyncio.sleep(0)
    assert first.transport.written == (one + two) * 2 + frame(CLOSE, struct.pack("!H", 4000), masked=False)


class Aside:
    """What an outbox is to the turn."""

    def __init__(self, log):
        self.log = log

    def release(self):
        self.log.append(self)


async def test_outboxes_are_written_when_the_last_one_of_the_turn_has_run():
    log, turn = [], Turn()
    first, second, third = Aside(log), Aside(log), Aside(log)
    assert not turn.takes(first, False)
    turn.woken = 2
    assert turn.takes(first, False)
    turn.woken = 1
    assert turn.takes(second, False)
    assert log == []
    turn.woken = 0
    assert not turn.takes(third, False)
    assert log == [first, second]
    # Whose events wait for the end of the turn anyway waits alone, too.
    assert turn.takes(third, True)
    await asyncio.sleep(0)
    assert log == [first, second, third]


async def test_an_outbox_that_comes_late_waits_for_nobody(monkeypatch):
    times = iter([1.0])
    monkeypatch.setattr("fastapi_consumers.gathering.perf_counter", lambda: next(times, 1.002))
    log, turn = [], Turn()
    turn.woken = 3
    first, second = Aside(log), Aside(log)
    assert turn.takes(first, False)
    # The first was told to write, the second writes by itself.
    assert not turn.takes(second, False)
    assert log == [first]
    await asyncio.sleep(0)
    assert log == [first]


async def test_the_last_one_of_a_turn_writes_at_once_although_it_has_waited(pair):
    first = pair.first

    async def of_first():
        await first.protocol.send(sent("1"))
        assert first.transport.written == b""
        first.protocol._turn.woken = 0
        await first.protocol.send(sent("2"))
        assert first.transport.written == frame(TEXT, b"1", masked=False) + frame(TEXT, b"2", masked=False)

    await pair.run(of_first, nothing)


async def test_a_close_comes_after_what_waits(pair):
    first = pair.first

    async def of_first():
        await first.protocol.send(sent("1"))
        await first.protocol.send({"type": "websocket.close", "code": 4000})
        first.feed(frame(CLOSE, struct.pack("!H", 4000)))
        assert first.transport.closing

    await pair.run(of_first, nothing)
    close = frame(CLOSE, struct.pack("!H", 4000), masked=False)
    assert first.transport.written == frame(TEXT, b"1", masked=False) + close


@pytest.mark.parametrize("how", ["lost", "aborted"])
async def test_what_waits_for_a_connection_that_is_gone_is_dropped(pair, how):
    first = pair.first
    first.transport.abort = functools.partial(setattr, first.transport, "closing", True)

    async def of_first():
        await first.protocol.send(sent("1"))
        if how == "lost":
            first.transport.closing = True
            first.protocol.connection_lost(OSError())
        else:
            first.protocol.transport.abort()

    await pair.run(of_first, lambda: pair.second.protocol.send(sent("2")))
    assert first.transport.written == b""
    assert pair.second.transport.written == frame(TEXT, b"2", masked=False)


async def test_a_transport_that_raises_is_reported_and_keeps_nobody_else_from_being_written(pair):
    reported = []
    pair.first.loop.set_exception_handler(lambda loop, context: reported.append(context["message"]))

    async def of_first():
        await pair.first.protocol.send(sent("1"))
        pair.first.transport.closing = True  # so that the next write fails

    await pair.run(of_first, lambda: pair.second.protocol.send(sent("2")))
    assert reported == ["writing to a WebSocket failed"]
    assert pair.second.transport.written == frame(TEXT, b"2", masked=False)


async def test_one_who_was_woken_and_is_cancelled_keeps_nobody_waiting(pair):
    receiving = asyncio.create_task(pair.second.protocol.receive())
    await asyncio.sleep(0)
    pair.second.feed(frame(TEXT, b"x"))
    receiving.cancel()
    await asyncio.wait([receiving])
    assert pair.second.take() == [text()]
    await pair.first.protocol.send(sent("1"))
    assert pair.first.transport.written == frame(TEXT, b"1", masked=False)


# -- pings of the server's own -----------------------------------------------------------------------------------------


class Clock:
    """A loop whose time the test turns."""

    def __init__(self, loop):
        self.now = 0.0
        self.timers = []
        self.create_future = loop.create_future

    def time(self):
        return self.now

    def call_later(self, delay, callback):
        timer = asyncio.TimerHandle(self.now + delay, callback, (), asyncio.get_running_loop())
        self.timers.append(timer)
        return timer

    def turn(self, seconds):
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when() <= end and not timer.cancelled()]:
            timer = min(due, key=asyncio.TimerHandle.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when())
            timer._run()
        self.now = end


async def pinged(cls=WebSocketProtocol):
    """A connection whose client has been sent a ping, which it is to answer within 10 s."""
    side = Served(cls, ws_ping_interval=20.0, ws_ping_timeout=10.0, ws_max_queue=4)
    side.clock = side.protocol.loop = Clock(side.loop)
    await side.accept()
    side.clock.turn(20)
    assert side.transport.written[:2] == b"\x89\x04"
    return side, frame(PONG, side.transport.written[2:])


def was_given_up(side):
    return side.transport.closing and side.transport.written.endswith(b"\x03\xf3keepalive ping timeout")


@pytest.mark.parametrize("cls", [WebSocketsSansIOProtocol, WebSocketProtocol])
async def test_who_does_not_answer_pings_is_closed_and_who_does_is_asked_again(cls):
    side, pong = await pinged(cls)
    side.clock.turn(9)
    side.feed(pong)
    side.clock.turn(11)
    assert side.transport.written.count(b"\x89\x04") == 2
    side.clock.turn(9.5)
    assert not side.transport.closing
    side.clock.turn(1)
    assert was_given_up(side)


async def test_nobody_is_closed_for_a_pong_that_the_application_did_not_let_in():
    side, pong = await pinged()
    side.feed(frame(TEXT, b"x") * 6)
    assert side.transport.paused
    side.clock.turn(300)
    assert not side.transport.closing
    assert len(side.take()) == 6
    side.feed(pong)
    side.clock.turn(20)
    assert side.transport.written.count(b"\x89\x04") == 2
    side.clock.turn(10)
    assert was_given_up(side)


async def test_only_the_time_in_which_nothing_was_read_does_not_count():
    side, _ = await pinged()
    side.clock.turn(4)
    side.feed(frame(TEXT, b"x") * 6)
    side.clock.turn(3)
    side.take()
    side.clock.turn(5.5)
    assert not side.transport.closing
    side.clock.turn(1)
    assert was_given_up(side)


async def test_a_client_that_keeps_the_application_waiting_is_closed():
    side, _ = await pinged()
    side.feed(frame(TEXT, b"x") * 6)
    side.protocol.pause_writing()
    side.clock.turn(10)
    assert was_given_up(side)


# -- what it is built on -----------------------------------------------------------------------------------------------


def test_it_refuses_an_older_uvicorn_when_it_is_imported(monkeypatch):
    monkeypatch.setattr(uvicorn, "__version__", "0.52.4")
    spec = importlib.util.spec_from_file_location(
        "fastapi_consumers.contrib.uvicorn.again", fastapi_consumers.contrib.uvicorn.base.__file__
    )
    with pytest.raises(ImportError, match=r"of uvicorn 0\.53 and newer; this is uvicorn 0\.52\.4, which is older\."):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_it_refuses_a_uvicorn_whose_class_has_changed(monkeypatch):
    check_base(WebSocketsSansIOProtocol, "1.0.0rc1")

    class Renamed(WebSocketsSansIOProtocol):
        keepalive_timeout = None

        def __init__(self):
            self.queue = self.reader = None

    with pytest.raises(ImportError, match=r"whose Renamed has no keepalive_timeout, config, .*writable\. Leave"):
        check_base(Renamed, "0.60.0")
    with pytest.raises(ImportError, match="whose object has no handle_cont, "):
        check_base(object, "0.60.0")


def test_it_says_what_to_install_where_there_is_no_such_class(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn.protocols.websockets.websockets_sansio_impl", None)
    spec = importlib.util.spec_from_file_location(
        "fastapi_consumers.contrib.uvicorn.again", fastapi_consumers.contrib.uvicorn.base.__file__
    )
    with pytest.raises(ImportError, match=r"needs uvicorn 0\.53 or newer and websockets: pip install"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
