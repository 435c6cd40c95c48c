import asyncio
import time
from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_consumers.backlog import OVERFLOWS, Droppable
from fastapi_consumers.lanes import Lane
from fastapi_consumers.measured import CountingOutbox
from fastapi_consumers.messages import text_frame
from fastapi_consumers.outbox import MAX_ASIDE, Outbox, OutboxBounds


class Socket:
    """A server's ``send``, which waits while it is not writable."""

    def __init__(self):
        self.texts = []
        self.writable = True
        self.failure = None
        self.cancelled = 0
        self._waiting = deque()

    async def send(self, message):
        if not self.writable:
            gate = asyncio.get_running_loop().create_future()
            self._waiting.append(gate)
            try:
                await gate
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.failure is not None:
            raise self.failure
        self.texts.append(message["text"])

    def let_through(self, count=None):
        """Everything from now on, or as many as that."""
        if count is None:
            self.writable = True
        for _ in range(len(self._waiting) if count is None else count):
            gate = self._waiting.popleft()
            if not gate.done():
                gate.set_result(None)


class Told:
    """The owner of an outbox."""

    def __init__(self):
        self.overflows = 0
        self.drops = 0
        self.lost = []

    def on_overflow(self):
        self.overflows += 1

    def on_dropped(self):
        self.drops += 1

    def on_lost(self, error):
        self.lost.append(error)


class Turn:
    """A turn of the event loop, in which answers are gathered if they may be."""

    def __init__(self, *, may_gather=False):
        self.is_due = False
        self.may_gather = may_gather
        self.gathered = []

    def gathers(self, outbox, is_due):
        if self.may_gather:
            self.gathered.append(outbox)
        return self.may_gather

    def end(self):
        gathered, self.gathered = self.gathered, []
        for outbox in gathered:
            outbox.release()


def make(
    socket,
    *,
    kind=Outbox,
    opened=True,
    max_messages=3,
    max_bytes=1000,
    write_timeout=60.0,
    overflow="disconnect",
    lane=None,
    **options,
):
    told = Told()
    outbox = kind(socket.send, told, OutboxBounds(overflow, max_messages, max_bytes, write_timeout), **options)
    if opened:
        outbox.open(lane)
    return outbox, told


def push(outbox, *texts, droppable=None):
    for text in texts:
        outbox.push(text_frame(str(text)), droppable)


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def tasks():
    return len(asyncio.all_tasks())


async def test_a_frame_is_sent_before_push_returns_and_costs_no_task():
    socket, before = Socket(), tasks()
    outbox, _ = make(socket)
    push(outbox, "a", "b")
    assert socket.texts == ["a", "b"]
    assert (outbox.sent, outbox.dropped, outbox.waiting, outbox.is_idle) == (2, 0, 0, True)
    assert tasks() == before


async def test_while_a_send_waits_frames_queue_and_leave_in_order():
    socket, before = Socket(), tasks()
    outbox, _ = make(socket)
    socket.writable = False
    push(outbox, 1, 2, 3)
    assert (socket.texts, outbox.waiting, outbox.is_idle) == ([], 2, False)
    await turns()
    socket.let_through()
    # The one that waits is not overtaken although the socket is writable again.
    push(outbox, 4)
    await outbox.flush()
    await turns()
    assert socket.texts == ["1", "2", "3", "4"]
    assert outbox.is_idle
    assert tasks() == before
    push(outbox, 5)
    assert socket.texts[-1] == "5"


async def test_before_open_frames_are_held_and_then_leave_in_order():
    socket = Socket()
    outbox, _ = make(socket, opened=False)
    push(outbox, 1, 2)
    await outbox.flush()
    assert (socket.texts, outbox.waiting) == ([], 2)
    outbox.open()
    assert socket.texts == ["1", "2"]
    outbox.open()
    assert socket.texts == ["1", "2"]


async def test_opening_towards_a_slow_socket_keeps_the_order():
    socket = Socket()
    outbox, _ = make(socket, opened=False)
    push(outbox, 1, 2, 3)
    socket.writable = False
    outbox.open()
    push(outbox, 4)
    await turns()
    socket.let_through()
    await outbox.flush()
    assert socket.texts == ["1", "2", "3", "4"]


async def test_too_many_before_open_overflow():
    outbox, told = make(Socket(), opened=False)
    push(outbox, 1, 2, 3, 4)
    assert (told.overflows, outbox.dropped, outbox.waiting, outbox.is_dead) == (1, 4, 0, True)
    outbox.open()
    assert not outbox.is_idle


async def test_more_messages_than_may_wait_overflow_once_and_everything_is_dropped():
    socket = Socket()
    outbox, told = make(socket)
    socket.writable = False
    push(outbox, 1, 2, 3, 4)
    assert (told.overflows, outbox.waiting) == (0, 3)
    push(outbox, 5, 6)
    assert (told.overflows, outbox.waiting, outbox.dropped, outbox.is_dead) == (1, 0, 6, True)
    socket.let_through()
    await turns()
    assert (socket.texts, outbox.sent, told.lost) == ([], 0, [])


async def test_more_bytes_than_may_wait_overflow():
    socket = Socket()
    outbox, told = make(socket, max_messages=100, max_bytes=10)
    socket.writable = False
    push(outbox, "in flight", "x" * 6, "y" * 4)
    assert told.overflows == 0
    push(outbox, "z")
    assert told.overflows == 1


async def test_bytes_that_were_written_make_room_again():
    socket = Socket()
    outbox, told = make(socket, max_bytes=10)
    socket.writable = False
    push(outbox, "in flight", "x" * 6, "y" * 4)
    await turns()
    socket.let_through(1)
    await turns()
    assert outbox.waiting == 1
    push(outbox, "z" * 6)
    assert (told.overflows, outbox.waiting) == (0, 2)
    outbox.abort()


async def test_a_message_larger_than_all_that_may_wait_goes_out_to_a_healthy_socket():
    socket = Socket()
    outbox, told = make(socket, max_bytes=10)
    push(outbox, "x" * 100)
    assert (len(socket.texts), told.overflows) == (1, 0)


async def test_a_message_that_takes_too_long_to_be_written_overflows():
    socket = Socket()
    outbox, told = make(socket, write_timeout=0.01)
    socket.writable = False
    push(outbox, 1, 2)
    await outbox.flush()
    assert (told.overflows, outbox.dropped, socket.cancelled, outbox.is_dead) == (1, 2, 1, True)


async def test_each_message_has_its_own_time(monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    socket = Socket()
    outbox, told = make(socket, write_timeout=2000)
    socket.writable = False
    push(outbox, 1, 2, 3)
    for _ in range(3):
        await turns()
        now += 800
        await turns()
        socket.let_through(1)
    await outbox.flush()
    assert (socket.texts, told.overflows) == (["1", "2", "3"], 0)


@pytest.mark.parametrize("failure", [OSError("gone"), TimeoutError("ETIMEDOUT"), RuntimeError("closed")])
async def test_a_lost_peer_is_told_once_and_everything_is_dropped(failure):
    socket = Socket()
    socket.failure = failure
    outbox, told = make(socket)
    push(outbox, 1, 2)
    assert told.lost == [failure]
    assert (outbox.dropped, outbox.sent, outbox.is_dead, outbox.is_idle, told.overflows) == (2, 0, True, False, 0)


@pytest.mark.parametrize("failure", [OSError("gone"), TimeoutError("ETIMEDOUT"), RuntimeError("closed")])
async def test_a_peer_that_is_lost_while_a_send_waits(failure):
    socket = Socket()
    outbox, told = make(socket)
    socket.writable = False
    push(outbox, 1, 2)
    waiter = asyncio.create_task(outbox.flush())
    await turns()
    socket.failure = failure
    socket.let_through()
    await waiter
    assert (told.lost, told.overflows, outbox.dropped) == ([failure], 0, 2)


async def test_push_does_not_raise_where_send_itself_raises():
    def send(message):
        raise OSError("at once")

    told = Told()
    outbox = Outbox(send, told, OutboxBounds("disconnect", 1, 1, 1))
    outbox.open()
    push(outbox, 1)
    assert [str(error) for error in told.lost] == ["at once"]


async def test_a_server_that_was_cancelled_is_lost_and_does_not_cancel_who_publishes():
    socket = Socket()
    socket.failure = asyncio.CancelledError()
    outbox, told = make(socket)
    push(outbox, 1)
    assert told.lost == [socket.failure]


async def test_an_interrupt_by_the_keyboard_comes_out():
    socket = Socket()
    socket.failure = KeyboardInterrupt()
    outbox, _ = make(socket)
    with pytest.raises(KeyboardInterrupt):
        push(outbox, 1)
    assert outbox.is_dead


class Awaitable:
    """No coroutine: an iterator without send() or throw()."""

    def __init__(self, rounds, done):
        self.rounds, self.done = rounds, done

    def __await__(self):
        class Steps:
            def __init__(self, rounds, done):
                self.rounds, self.done = rounds, done

            def __iter__(self):
                return self

            def __next__(self):
                if self.rounds:
                    self.rounds -= 1
                    return None
                self.done()
                raise StopIteration

        return Steps(self.rounds, self.done)


@pytest.mark.parametrize("rounds", [0, 3])
async def test_send_may_return_an_awaitable_that_is_no_coroutine(rounds):
    sent = []

    def send(message):
        return Awaitable(rounds, lambda: sent.append(message["text"]))

    outbox = Outbox(send, Told(), OutboxBounds("disconnect", 9, 99, 1))
    outbox.open()
    push(outbox, 1, 2)
    assert sent == (["1", "2"] if rounds == 0 else [])
    await outbox.flush()
    assert sent == ["1", "2"]


async def test_send_may_return_a_future():
    futures = []

    def send(message):
        futures.append(asyncio.get_running_loop().create_future())
        return futures[-1]

    outbox = Outbox(send, Told(), OutboxBounds("disconnect", 9, 99, 1))
    outbox.open()
    push(outbox, 1, 2)
    await turns()
    assert len(futures) == 1
    futures[0].set_result(None)
    await turns()
    futures[1].set_result(None)
    await outbox.flush()
    assert outbox.sent == 2


async def test_flush_waits_for_what_was_pushed_before_and_not_for_what_came_after():
    socket = Socket()
    outbox, _ = make(socket, max_messages=99)
    socket.writable = False
    push(outbox, 1, 2)
    flushed = asyncio.create_task(outbox.flush())
    await turns()
    push(outbox, 3, 4)
    socket.let_through(1)
    await turns()
    assert not flushed.done()
    socket.let_through(1)
    await turns()
    assert flushed.done()
    assert (socket.texts, outbox.waiting) == (["1", "2"], 1)
    outbox.abort()


async def test_several_may_flush():
    socket = Socket()
    outbox, _ = make(socket)
    socket.writable = False
    done = []

    async def send(text):
        push(outbox, text)
        await outbox.flush()
        done.append(text)

    senders = [asyncio.create_task(send(number)) for number in range(3)]
    await turns()
    for number in range(3):
        socket.let_through(1)
        await turns()
        assert done == list(range(number + 1))
    assert all(sender.done() for sender in senders)


async def test_cancelling_who_flushes_does_not_touch_what_is_written():
    socket = Socket()
    outbox, _ = make(socket)
    socket.writable = False
    push(outbox, 1)
    waiter = asyncio.create_task(outbox.flush())
    other = asyncio.create_task(outbox.flush())
    await turns()
    waiter.cancel()
    await asyncio.wait([waiter])
    assert waiter.cancelled()
    socket.let_through()
    await other
    assert (socket.texts, socket.cancelled) == (["1"], 0)


async def test_abort_drops_what_waits_and_what_is_written_and_wakes_who_flushes():
    socket, before = Socket(), tasks()
    outbox, told = make(socket)
    socket.writable = False
    push(outbox, 1, 2)
    waiter = asyncio.create_task(outbox.flush())
    await turns()
    outbox.abort()
    await waiter
    await turns()
    push(outbox, 3)
    outbox.abort()
    assert (outbox.dropped, outbox.sent, socket.cancelled, socket.texts) == (3, 0, 1, [])
    assert (told.overflows, told.lost) == (0, [])
    assert tasks() == before


async def test_abort_before_the_writer_had_its_first_turn():
    socket, before = Socket(), tasks()
    outbox, _ = make(socket)
    socket.writable = False
    push(outbox, 1)
    outbox.abort()
    await outbox.flush()
    await turns()
    assert (outbox.dropped, socket.texts, tasks()) == (1, [], before)


async def test_abort_before_open():
    socket = Socket()
    outbox, _ = make(socket, opened=False)
    push(outbox, 1)
    outbox.abort()
    outbox.open()
    push(outbox, 2)
    assert (socket.texts, outbox.dropped) == ([], 2)


async def test_once_sealed_it_writes_what_waits_and_takes_no_more():
    socket = Socket()
    outbox, told = make(socket)
    socket.writable = False
    push(outbox, 1, 2)
    outbox.seal()
    push(outbox, 3)
    await turns()
    socket.let_through()
    await outbox.flush()
    push(outbox, 4)
    assert (socket.texts, outbox.dropped, outbox.is_dead, told.overflows) == (["1", "2"], 2, False, 0)


async def test_sealed_before_open():
    socket = Socket()
    outbox, _ = make(socket, opened=False)
    push(outbox, 1)
    outbox.seal()
    outbox.open()
    assert (socket.texts, outbox.dropped) == ([], 1)


@pytest.mark.parametrize("end", [Outbox.abort, Outbox.seal])
async def test_flush_gives_others_a_turn_where_nothing_can_be_sent_any_more(end):
    outbox, _ = make(Socket())
    end(outbox)

    async def endless():
        while True:
            push(outbox, "x")
            await outbox.flush()

    task = asyncio.create_task(endless())
    await turns()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_writer_that_somebody_else_cancels_ends_the_outbox():
    socket, mine = Socket(), asyncio.all_tasks()
    outbox, _ = make(socket)
    socket.writable = False
    push(outbox, 1, 2)
    await turns()
    (writer,) = asyncio.all_tasks() - mine
    writer.cancel()
    await asyncio.wait([writer])
    assert (outbox.is_dead, outbox.dropped) == (True, 2)
    await outbox.flush()


Step = st.sampled_from(
    [
        "push",
        "event",
        "event",
        "events",
        "block",
        "block",
        "let one through",
        "unblock",
        "turn",
        "fail",
        "closing",
        "abort",
        "flush",
        "seal",
    ]
)


@given(st.lists(Step, max_size=40), st.sampled_from(OVERFLOWS), st.sampled_from(["send", "lane", "gathering"]))
@example(["block", "push", "event", "event", "push", "event", "push"], "drop_newest", "send")
def test_nothing_is_lost_unseen_duplicated_or_reordered(steps, overflow, way):
    async def run():
        socket, turn = Socket(), Turn(may_gather=way == "gathering")
        wire = Wire(socket, fills_late=way == "gathering")
        lane = None if way == "send" else wire.lane
        outbox, told = make(socket, max_messages=2, overflow=overflow, lane=lane, turn=turn)
        pushed, notices, replies, flushing = 0, 0, set(), []

        def notice():
            nonlocal notices
            notices += 1
            return text_frame("gap")

        def told_of():
            return notices - (outbox._backlog.merged if outbox._backlog is not None else 0)

        for step in steps:
            match step:
                case "push":
                    pushed += 1
                    push(outbox, pushed)
                    replies.add(pushed)
                case "event":
                    pushed += 1
                    push(outbox, pushed, droppable=Droppable("g", None, notice))
                case "events":
                    frames = [text_frame(str(pushed + 1)), text_frame(str(pushed + 2))]
                    pushed += 2
                    entries = [(frame, Droppable("g", None, notice)) for frame in frames]
                    outbox.deliver_all(entries, b"".join(frame.wire for frame in frames))
                case "block":
                    socket.writable = False
                case "let one through":
                    socket.let_through(min(1, len(socket._waiting)))
                case "unblock":
                    socket.let_through()
                case "turn":
                    turn.end()
                    await turns(2)
                case "fail":
                    socket.failure = wire.failure = OSError()
                case "closing":
                    wire.closing = True
                case "abort":
                    outbox.abort()
                case "seal":
                    outbox.seal()
                case "flush":
                    flushing.append(asyncio.create_task(outbox.flush()))
            in_flight = 0 if outbox._task is None else 1
            assert outbox.sent + outbox.dropped + outbox.waiting + in_flight == pushed + told_of()
            assert told.overflows + len(told.lost) <= 1
            assert outbox.waiting <= 2 + 3
        turn.end()
        socket.let_through()
        await turns(pushed * 2 + 5)
        assert all(task.done() for task in flushing)
        assert outbox.sent + outbox.dropped == pushed + told_of()
        assert len(socket.texts) == outbox.sent
        sent = [int(text) for text in socket.texts if text != "gap"]
        assert sent == sorted(set(sent))
        if overflow == "disconnect":
            # Nothing is missing but at the end.
            assert sent == list(range(1, outbox.sent + 1))
        else:
            # What is missing before the end was told of, and no reply is missing.
            end = sent[-1] if sent else 0
            assert replies & set(range(end)) <= set(sent)
            assert notices or sent == list(range(1, end + 1))

    asyncio.run(run())


# -- a lane ------------------------------------------------------------------------------------------------------------


def texts_of(data):
    """The texts of these frames, one after another, each of less than 126 bytes."""
    while data:
        end = 2 + data[1]
        yield data[2:end].decode()
        data = data[end:]


class Wire:
    """A server's transport, in front of which ``socket.send`` stands: what either writes is in ``socket.texts``."""

    def __init__(self, socket, *, fills_late=False):
        self.socket = socket
        self.closing = False
        self.failure = None
        self.direct = []
        #: Whether it may have become full since what is written was put aside.
        self.fills_late = fills_late

    @property
    def lane(self):
        return Lane(self, self)

    def is_set(self):
        return self.socket.writable

    def is_closing(self):
        return self.closing

    def write(self, data):
        assert self.socket.writable or self.fills_late
        assert not self.closing
        if self.failure is not None:
            raise self.failure
        texts = list(texts_of(data))
        self.direct.append(texts[0] if len(texts) == 1 else texts)
        self.socket.texts += texts


async def test_with_a_lane_a_frame_is_written_before_push_returns_and_send_is_not_called():
    socket, before = Socket(), tasks()
    wire = Wire(socket)
    outbox, _ = make(socket, lane=wire.lane)
    push(outbox, "a", "b")
    assert wire.direct == ["a", "b"]
    assert (outbox.sent, outbox.dropped, outbox.waiting, outbox.is_idle) == (2, 0, 0, True)
    assert tasks() == before


async def test_what_was_held_back_leaves_before_the_lane_is_used():
    socket = Socket()
    wire = Wire(socket)
    outbox, _ = make(socket, opened=False)
    push(outbox, 1, 2)
    outbox.open(wire.lane)
    push(outbox, 3)
    assert (socket.texts, wire.direct) == (["1", "2", "3"], [["1", "2"], "3"])
    assert (outbox.sent, outbox.dropped) == (3, 0)


async def test_what_was_held_back_goes_in_writes_that_a_server_takes_at_once(monkeypatch):
    monkeypatch.setattr("fastapi_consumers.outbox.TOGETHER", 7)
    socket = Socket()
    wire = Wire(socket)
    outbox, _ = make(socket, kind=CountingOutbox, opened=False, max_messages=9)
    push(outbox, *range(7))
    outbox.open(wire.lane)
    # Each has a head of two bytes.
    assert wire.direct == [["0", "1", "2"], ["3", "4", "5"], "6"]
    assert (outbox.sent, outbox.sent_bytes, outbox.is_idle) == (7, 7, True)


async def test_what_was_held_back_waits_once_the_server_is_full(monkeypatch):
    monkeypatch.setattr("fastapi_consumers.outbox.TOGETHER", 7)
    socket = Socket()
    wire = Wire(socket)
    write = wire.write

    def fills(data):
        write(data)
        socket.writable = False

    wire.write = fills
    outbox, _ = make(socket, opened=False, max_messages=9)
    push(outbox, *range(5))
    outbox.open(wire.lane)
    assert (socket.texts, outbox.waiting) == (["0", "1", "2"], 1)
    push(outbox, 5)
    socket.let_through()
    await turns(10)
    assert socket.texts == ["0", "1", "2", "3", "4", "5"]
    assert (outbox.sent, outbox.dropped, outbox.is_idle) == (6, 0, True)


async def test_what_was_held_back_for_a_transport_that_fails_is_lost_and_counted():
    socket = Socket()
    wire = Wire(socket)
    wire.failure = OSError("gone")
    outbox, told = make(socket, opened=False)
    push(outbox, 1, 2)
    outbox.open(wire.lane)
    assert (told.lost, outbox.dropped, outbox.is_dead, outbox.waiting) == ([wire.failure], 2, True, 0)


async def test_while_the_lane_is_not_writable_send_waits_and_nothing_overtakes_it():
    socket = Socket()
    wire = Wire(socket)
    outbox, _ = make(socket, lane=wire.lane)
    push(outbox, 1)
    socket.writable = False
    push(outbox, 2, 3)
    await turns()
    assert (socket.texts, outbox.waiting) == (["1"], 1)
    # It is writable again before those that wait have been written.
    socket.let_through()
    push(outbox, 4)
    assert socket.texts == ["1"]
    await outbox.flush()
    await turns()
    push(outbox, 5)
    assert socket.texts == ["1", "2", "3", "4", "5"]
    assert wire.direct == ["1", "5"]
    assert (outbox.sent, outbox.dropped, outbox.waiting) == (5, 0, 0)


async def test_on_a_lane_that_is_closing_send_says_what_is_the_matter():
    socket = Socket()
    wire = Wire(socket)
    outbox, told = make(socket, lane=wire.lane)
    push(outbox, 1)
    wire.closing = True
    socket.failure = OSError("gone")
    push(outbox, 2, 3)
    assert (told.lost, outbox.sent, outbox.dropped) == ([socket.failure], 1, 2)


@pytest.mark.parametrize("failure", [OSError("gone"), RuntimeError("unable to perform operation"), TypeError("bytes?")])
async def test_a_lane_that_cannot_be_written_to_is_lost_and_push_does_not_raise(failure):
    socket = Socket()
    wire = Wire(socket)
    outbox, told = make(socket, lane=wire.lane)
    wire.failure = failure
    push(outbox, 1, 2)
    assert (told.lost, outbox.sent, outbox.dropped, outbox.is_dead) == ([failure], 0, 2, True)


async def test_a_sealed_or_aborted_outbox_writes_nothing_to_its_lane():
    for end in ("seal", "abort"):
        socket = Socket()
        wire = Wire(socket)
        outbox, told = make(socket, lane=wire.lane)
        getattr(outbox, end)()
        push(outbox, 1)
        await outbox.flush()
        assert (socket.texts, outbox.dropped, told.lost) == ([], 1, [])


async def test_send_gets_a_message_of_its_own_whoever_else_has_the_frame():
    async def send(message):
        message["text"] += "!"
        texts.append(message["text"])

    texts, frame = [], text_frame("a")
    for _ in range(2):
        outbox = Outbox(send, Told(), OutboxBounds("disconnect", 1, 1, 1))
        outbox.open()
        outbox.push(frame)
    assert texts == ["a!", "a!"]


# -- other policies than to disconnect ---------------------------------------------------------------------------------

EVENT = Droppable("g", None, lambda: text_frame("gap"))
DROPPING = ["drop_oldest", "drop_newest", "coalesce"]


async def stalled(overflow, **options):
    socket = Socket()
    outbox, told = make(socket, overflow=overflow, **options)
    socket.writable = False
    push(outbox, 0, droppable=EVENT)
    await turns()
    return socket, outbox, told


async def released(socket, outbox):
    socket.let_through()
    await outbox.flush()
    await turns()
    assert (outbox.waiting, outbox.is_idle) == (0, True)
    return socket.texts


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [
        ("drop_oldest", ["0", "gap", "3", "4", "5"]),
        ("drop_newest", ["0", "1", "2", "3", "gap"]),
        ("coalesce", ["0", "gap", "3", "4", "5"]),
    ],
)
async def test_events_without_room_are_dropped_counted_and_told_of(overflow, expected):
    socket, outbox, told = await stalled(overflow)
    push(outbox, 1, 2, 3, 4, 5, droppable=EVENT)
    assert (outbox.dropped, told.drops, told.overflows, outbox.waiting) == (2, 2, 0, 4)
    assert await released(socket, outbox) == expected
    # Six were pushed, and one notice was made.
    assert outbox.sent + outbox.dropped == 6 + 1


async def test_coalesce_keeps_the_newest_of_a_key():
    socket, outbox, told = await stalled("coalesce")
    for number in range(1, 10):
        push(outbox, number, droppable=Droppable("g", "xy"[number % 2]))
    assert (outbox.coalesced, outbox.dropped, told.drops) == (7, 0, 0)
    assert await released(socket, outbox) == ["0", "8", "9"]


@pytest.mark.parametrize("overflow", DROPPING)
async def test_replies_are_kept(overflow):
    socket, outbox, told = await stalled(overflow)
    push(outbox, "r1")
    push(outbox, 1, 2, 3, droppable=EVENT)
    push(outbox, "r2", "r3")
    assert (told.drops, told.overflows) == (3, 0)
    assert [text for text in await released(socket, outbox) if text != "gap"] == ["0", "r1", "r2", "r3"]


@pytest.mark.parametrize("overflow", DROPPING)
async def test_more_replies_than_may_wait_end_the_connection_all_the_same(overflow):
    _, outbox, told = await stalled(overflow)
    push(outbox, 1, 2, 3, droppable=EVENT)
    push(outbox, "r1", "r2", "r3", "r4")
    assert (told.overflows, outbox.is_dead, outbox.waiting) == (1, True, 0)
    # Five that waited or were dropped before, one notice, the one in flight, the one too many.
    assert outbox.dropped == 8 + 1
    push(outbox, "r5")
    assert (told.overflows, told.drops) == (1, 3)


@pytest.mark.parametrize("overflow", DROPPING)
async def test_who_is_slow_for_long_is_not_disconnected(overflow):
    socket, outbox, told = await stalled(overflow, write_timeout=0.01)
    push(outbox, 1, droppable=EVENT)
    await asyncio.sleep(0.05)
    assert (told.overflows, outbox.is_dead) == (0, False)
    assert await released(socket, outbox) == ["0", "1"]


@pytest.mark.parametrize("overflow", DROPPING)
async def test_who_is_so_slow_that_the_server_gives_up_is_disconnected(overflow):
    socket = Socket()
    wire = Wire(socket)
    outbox, told = make(socket, overflow=overflow, lane=wire.lane)
    socket.writable = False
    push(outbox, 0, 1, 2, 3, droppable=EVENT)
    wire.closing = True
    assert (told.overflows, outbox.is_dead) == (0, False)
    push(outbox, 4, droppable=EVENT)
    assert (told.overflows, told.drops, outbox.is_dead, outbox.waiting) == (1, 1, True, 0)


async def test_on_drained_is_called_once_when_all_has_been_written():
    socket, outbox, _ = await stalled("drop_oldest")
    calls = []
    outbox.on_drained = lambda: calls.append(list(socket.texts))
    push(outbox, 1, 2, 3, 4, droppable=EVENT)
    socket.let_through(1)
    await turns()
    assert calls == []
    await released(socket, outbox)
    assert calls == [["0", "gap", "2", "3", "4"]]
    push(outbox, 5, droppable=EVENT)
    assert len(calls) == 1


async def test_on_drained_is_called_for_what_was_held_back_too():
    calls = []
    outbox, told = make(Socket(), opened=False, overflow="drop_oldest")
    outbox.on_drained = lambda: calls.append("drained")
    push(outbox, 1, 2, 3, 4, droppable=EVENT)
    assert (told.drops, calls) == (1, [])
    outbox.open()
    assert calls == ["drained"]


@pytest.mark.parametrize("overflow", DROPPING)
async def test_whoever_flushes_is_freed_although_events_were_dropped(overflow):
    socket, outbox, _ = await stalled(overflow)
    push(outbox, 1, 2, droppable=EVENT)
    waiter = asyncio.create_task(outbox.flush())
    await turns()
    push(outbox, *range(3, 10), droppable=EVENT)
    assert not waiter.done()
    await released(socket, outbox)
    await waiter


# -- several at once, and what waits elsewhere -------------------------------------------------------------------------


def several(*texts, droppable=None):
    frames = [text_frame(str(text)) for text in texts]
    return [(frame, droppable) for frame in frames], b"".join(frame.wire for frame in frames)


@pytest.mark.parametrize("kind", [Outbox, CountingOutbox])
async def test_several_frames_take_one_write_where_there_is_a_lane(kind):
    socket = Socket()
    wire = Wire(socket)
    outbox, _ = make(socket, kind=kind, lane=wire.lane)
    outbox.deliver_all(*several("ä", "bc"))
    assert wire.direct == [["ä", "bc"]]
    assert outbox.sent == 2
    assert outbox.sent_bytes == (4 if kind is CountingOutbox else None)


async def test_several_frames_go_one_by_one_where_there_is_none():
    socket = Socket()
    outbox, _ = make(socket, kind=CountingOutbox)
    outbox.deliver_all(*several(1, 2))
    assert (socket.texts, outbox.sent, outbox.sent_bytes) == (["1", "2"], 2, 2)


async def test_several_frames_for_a_socket_that_is_full_wait_under_its_rules():
    socket = Socket()
    wire = Wire(socket)
    outbox, told = make(socket, lane=wire.lane, overflow="coalesce", max_messages=2)
    socket.writable = False
    outbox.deliver_all(*several(1, 2, 3, 4, droppable=Droppable("g", "key")))
    # The first one waits at the server, and of those with one key the newest waits here.
    assert (wire.direct, outbox.waiting, outbox.coalesced, told.drops) == ([], 1, 2, 0)
    socket.let_through()
    await turns()
    assert socket.texts == ["1", "4"]
    assert outbox.is_idle


async def test_several_frames_for_a_transport_that_fails_are_lost_and_told_of_once():
    socket = Socket()
    wire = Wire(socket)
    wire.failure = OSError("gone")
    outbox, told = make(socket, lane=wire.lane)
    outbox.deliver_all(*several(1, 2))
    assert (told.lost, outbox.dropped, outbox.is_dead) == ([wire.failure], 2, True)


async def test_what_waits_elsewhere_is_fetched_before_a_push_and_before_the_end():
    def catch_up():
        turn.is_due = False
        outbox.deliver(text_frame("event"))

    turn, socket = Turn(), Socket()
    outbox, told = make(socket, turn=turn)
    told.catch_up = catch_up
    push(outbox, 1)
    turn.is_due = True
    push(outbox, 2)
    turn.is_due = True
    outbox.seal()
    push(outbox, 3)
    assert socket.texts == ["1", "event", "2", "event"]


# -- put aside until the turn ends -------------------------------------------------------------------------------------


def gathering(socket, **options):
    turn, wire = Turn(may_gather=True), Wire(socket)
    outbox, told = make(socket, lane=wire.lane, turn=turn, **options)
    return outbox, told, turn, wire


async def test_what_one_client_is_sent_in_a_turn_is_one_write_at_its_end():
    outbox, _, turn, wire = gathering(Socket())
    push(outbox, "answer")
    outbox.deliver(text_frame("event"))
    outbox.deliver_all(*several("two", "more"))
    push(outbox, "another answer")
    assert (wire.direct, outbox.sent, outbox.is_idle) == ([], 5, True)
    await outbox.flush()
    turn.end()
    assert wire.direct == [["answer", "event", "two", "more", "another answer"]]
    outbox.deliver(text_frame("later"))
    assert wire.direct[1:] == ["later"]
    turn.end()
    assert outbox.sent == 6


async def test_events_that_go_before_an_answer_go_along_with_it():
    outbox, told, turn, wire = gathering(Socket())

    def catch_up():
        turn.is_due = False
        outbox.deliver(text_frame("event"))

    told.catch_up = catch_up
    turn.is_due = True
    push(outbox, "answer")
    assert wire.direct == []
    turn.end()
    assert wire.direct == [["event", "answer"]]


async def test_only_so_much_is_put_aside():
    outbox, _, turn, wire = gathering(Socket())
    push(outbox, *range(MAX_ASIDE))
    assert wire.direct == [[str(number) for number in range(MAX_ASIDE)]]
    large = "x" * 125
    wire.direct.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastapi_consumers.outbox.LARGE", 100)
        push(outbox, "small", large)
        assert wire.direct == [["small", large]]
        push(outbox, large)
        assert wire.direct[1:] == [large]
    turn.end()
    assert (len(wire.direct), outbox.sent) == (2, MAX_ASIDE + 3)


async def test_nothing_is_put_aside_for_a_client_that_takes_nothing():
    socket = Socket()
    outbox, told, turn, wire = gathering(socket, max_messages=3, max_bytes=10_000)
    socket.writable = False
    push(outbox, *["x" * 100] * 5)
    assert (wire.direct, turn.gathered, outbox.waiting, told.overflows) == ([], [], 0, 1)
    outbox, told, turn, wire = gathering(socket, max_messages=3, max_bytes=10_000)
    push(outbox, *["x" * 100] * 3)
    assert (wire.direct, outbox.waiting, outbox.is_idle) == ([], 2, False)
    await turns()
    outbox.abort()


async def test_what_was_put_aside_goes_before_the_end_and_before_what_the_server_has_to_send():
    socket = Socket()
    outbox, _, turn, wire = gathering(socket)
    push(outbox, 1)
    socket.writable, wire.fills_late = False, True
    turn.may_gather = False
    push(outbox, 2, 3)
    assert (socket.texts, outbox.waiting) == (["1"], 1)
    socket.let_through()
    await turns()
    turn.may_gather = True
    push(outbox, 4)
    outbox.seal()
    assert socket.texts == ["1", "2", "3", "4"]
    turn.end()
    assert (outbox.sent, outbox.dropped) == (4, 0)


@pytest.mark.parametrize("what", ["closing", "fails", "aborted"])
async def test_what_was_put_aside_for_a_socket_that_is_gone_is_lost_and_counted(what):
    outbox, told, turn, wire = gathering(Socket())
    push(outbox, 1, 2)
    if what == "aborted":
        outbox.abort()
    else:
        wire.closing, wire.failure = what == "closing", OSError("gone")
    turn.end()
    turn.end()
    assert (outbox.sent, outbox.dropped, outbox.is_dead, wire.direct) == (0, 2, True, [])
    errors = {"closing": [ConnectionResetError], "fails": [OSError], "aborted": []}
    assert [type(error) for error in told.lost] == errors[what]


async def test_bytes_that_were_put_aside_are_counted():
    outbox, _, turn, _ = gathering(Socket(), kind=CountingOutbox)
    push(outbox, "ä", "bc")
    outbox.deliver_all(*several("d", "e"))
    turn.end()
    assert (outbox.sent, outbox.sent_bytes) == (4, 6)
    push(outbox, "lost")
    outbox.abort()
    assert (outbox.sent, outbox.sent_bytes, outbox.dropped) == (4, 6, 1)
