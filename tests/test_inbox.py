import asyncio
import logging

import pytest

from fastapi_consumers.inbox import Disconnected, Inbox, InboxBounds, TooBig, Watch


class Server:
    """A server's ``receive``: what it is given, or an exception that it raises."""

    def __init__(self):
        self._queue = asyncio.Queue()
        self.received = 0
        self.receivers = 0

    def put(self, *messages):
        for message in messages:
            if isinstance(message, str):
                message = {"type": "websocket.receive", "text": message}
            elif isinstance(message, bytes):
                message = {"type": "websocket.receive", "bytes": message}
            elif isinstance(message, int):
                message = {"type": "websocket.disconnect", "code": message}
            self._queue.put_nowait(message)

    async def receive(self):
        self.receivers += 1
        assert self.receivers == 1, "two receive at once"
        try:
            message = await self._queue.get()
        finally:
            self.receivers -= 1
        if isinstance(message, Exception):
            raise message
        self.received += 1
        return message


class Told:
    """The owner of an inbox. Frames in ``takes`` are dealt with at once; an exception there is what looking raises."""

    def __init__(self, takes):
        self.gone = []
        self.stuck = []
        self.peeked = []
        self.takes = takes

    def peek(self, frame):
        self.peeked.append(frame)
        if isinstance(self.takes, Exception):
            raise self.takes
        return None if frame in self.takes else frame

    def on_gone(self, code):
        self.gone.append(code)

    def shut(self, code):
        self.stuck.append(code)


def make(server, watch=None, *, takes=(), **limits):
    told = Told(takes)
    limits = {"max_size": 100, "max_messages": 3, "timeout": 60.0, **limits}
    return Inbox(server.receive, watch or Watch(60), told, InboxBounds(**limits)), told


async def turns(count=6):
    for _ in range(count):
        await asyncio.sleep(0)


# -- straight from the server ------------------------------------------------------------------------------------------


async def test_frames_come_straight_from_the_server_without_a_task():
    server, before = Server(), asyncio.all_tasks()
    inbox, told = make(server)
    server.put("a", b"b", "")
    assert [await inbox.get() for _ in range(3)] == ["a", b"b", ""]
    assert asyncio.all_tasks() == before
    assert told.peeked == []


async def test_a_message_of_empty_bytes_is_empty_bytes():
    server = Server()
    inbox, _ = make(server)
    server.put({"type": "websocket.receive", "bytes": None, "text": None}, {"type": "websocket.receive", "bytes": b""})
    assert [await inbox.get(), await inbox.get()] == [b"", b""]


@pytest.mark.parametrize(("code", "seen"), [(1001, 1001), (1005, 1005), (0, 1000)])
async def test_the_disconnect_is_raised_again_and_again_with_its_code(code, seen):
    server = Server()
    inbox, _ = make(server)
    server.put(code)
    for _ in range(2):
        with pytest.raises(Disconnected) as raised:
            await inbox.get()
        assert raised.value.code == seen
    assert inbox.gone == seen
    assert server.received == 1


async def test_a_disconnect_without_a_code_counts_as_normal():
    server = Server()
    inbox, _ = make(server)
    server.put({"type": "websocket.disconnect"})
    with pytest.raises(Disconnected):
        await inbox.get()
    assert inbox.gone == 1000


@pytest.mark.parametrize(
    ("frame", "fits"),
    [
        ("x" * 10, True),
        ("x" * 11, False),
        ("é" * 5, True),
        ("é" * 5 + "x", False),
        ("€€€x", True),
        ("€€€€", False),
        ("😀😀", True),
        ("😀😀x€", False),
        ("\ud800" * 3, True),
        ("\ud800" * 4, False),
        (b"x" * 10, True),
        (b"x" * 11, False),
        ("x", True),
    ],
)
async def test_a_frame_is_measured_in_bytes(frame, fits):
    server = Server()
    inbox, _ = make(server, max_size=10)
    server.put(frame)
    if fits:
        assert await inbox.get() == frame
    else:
        with pytest.raises(TooBig):
            await inbox.get()


async def test_what_receive_raises_comes_out_of_get():
    server = Server()
    inbox, _ = make(server)
    server.put(RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        await inbox.get()


# -- the pump ----------------------------------------------------------------------------------------------------------


async def test_the_pump_receives_while_something_runs_and_loses_and_reorders_nothing():
    server = Server()
    inbox, told = make(server, max_messages=10)
    inbox.begin()
    inbox.start_pump()
    inbox.start_pump()
    server.put("1", "2")
    await turns()
    assert (server.received, inbox.waiting, inbox.is_pumping, told.peeked) == (2, 2, True, ["1", "2"])
    inbox.end()
    assert [await inbox.get(), await inbox.get()] == ["1", "2"]
    # The pump still has the server's receive(): it hands over one more, and ends.
    waiter = asyncio.create_task(inbox.get())
    await turns()
    server.put("3", "4")
    assert await waiter == "3"
    assert not inbox.is_pumping
    assert await inbox.get() == "4"
    assert told.peeked == ["1", "2"]


async def test_frames_that_come_in_the_very_turn_of_the_hand_over_stay_in_order():
    server = Server()
    inbox, _ = make(server, max_messages=100)
    seen = []
    for number in range(0, 60, 3):
        inbox.begin()
        inbox.start_pump()
        await turns(number % 5)
        server.put(str(number))
        await turns(number % 3)
        inbox.end()
        getting = asyncio.create_task(inbox.get())
        await turns(number % 4)
        server.put(str(number + 1), str(number + 2))
        seen += [await getting, await inbox.get(), await inbox.get()]
    assert seen == [str(number) for number in range(60)]


async def test_a_frame_that_was_dealt_with_is_not_queued():
    server = Server()
    inbox, _ = make(server, takes=("cancel",))
    inbox.start_pump()
    server.put("cancel", "a", "cancel", "b")
    await turns()
    assert [await inbox.get(), await inbox.get()] == ["a", "b"]
    await inbox.close()


async def test_nobody_peeks_once_somebody_waits_for_the_frame():
    server = Server()
    inbox, told = make(server, takes=("cancel",))
    inbox.start_pump()
    waiter = asyncio.create_task(inbox.get())
    await turns()
    server.put("cancel")
    assert await waiter == "cancel"
    assert told.peeked == []


async def test_a_full_inbox_stops_receiving_until_there_is_room():
    server = Server()
    inbox, told = make(server)
    inbox.start_pump()
    server.put(*"123456")
    await turns()
    # Three wait, the fourth is held, the others are still with the server.
    assert (inbox.waiting, server.received) == (3, 4)
    assert [await inbox.get() for _ in range(6)] == list("123456")
    assert told.stuck == []
    await inbox.close()


async def test_a_full_inbox_that_stays_so_is_stuck():
    server = Server()
    inbox, told = make(server, timeout=0.01)
    inbox.start_pump()
    server.put(*"12345")
    await asyncio.wait([inbox._pump])
    assert told.stuck == [4429]
    await turns()
    assert (server.received, inbox.is_pumping) == (4, False)


async def test_a_disconnect_while_something_runs_is_told_with_its_code():
    server = Server()
    inbox, told = make(server)
    inbox.start_pump()
    server.put("late", 1001)
    await turns()
    assert (told.gone, inbox.gone, inbox.is_pumping) == ([1001], 1001, False)
    inbox.start_pump()
    assert not inbox.is_pumping
    assert await inbox.get() == "late"
    with pytest.raises(Disconnected):
        await inbox.get()


async def test_a_disconnect_wakes_who_waits():
    server = Server()
    inbox, told = make(server)
    inbox.start_pump()
    waiter = asyncio.create_task(inbox.get())
    await turns()
    server.put(1006)
    with pytest.raises(Disconnected):
        await waiter
    assert told.gone == [1006]


async def test_too_big_a_frame_while_something_runs_is_told():
    server = Server()
    inbox, told = make(server, max_size=5)
    inbox.start_pump()
    server.put("x" * 6)
    await turns()
    assert (told.stuck, inbox.is_pumping) == ([1009], False)


@pytest.mark.parametrize("breaks", ["receive", "peek", "message"])
async def test_what_fails_in_the_pump_is_logged_and_ends_the_connection(breaks, caplog):
    server = Server()
    inbox, told = make(server, takes=RuntimeError("peek failed") if breaks == "peek" else ())
    inbox.start_pump()
    server.put({"receive": RuntimeError("receive failed"), "peek": "x", "message": {"no": "type"}}[breaks])
    await turns()
    assert told.stuck == [1011]
    assert not inbox.is_pumping
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info


async def test_cancelling_who_waits_for_the_pump_loses_nothing():
    server = Server()
    inbox, _ = make(server)
    inbox.start_pump()
    waiter = asyncio.create_task(inbox.get())
    await turns()
    waiter.cancel()
    await asyncio.wait([waiter])
    server.put("kept")
    await turns()
    assert await inbox.get() == "kept"
    await inbox.close()


@pytest.mark.parametrize("state", ["idle", "receiving", "full"])
async def test_close_ends_the_pump(state):
    server, before = Server(), asyncio.all_tasks()
    inbox, told = make(server)
    inbox.begin()
    if state != "idle":
        inbox.start_pump()
        await turns()
    if state == "full":
        server.put(*"12345")
        await turns()
    await inbox.close()
    await inbox.close()
    assert asyncio.all_tasks() == before
    assert (told.gone, told.stuck, inbox.is_pumping) == ([], [], False)


async def test_the_pump_itself_may_close_the_inbox():
    server = Server()
    inbox, told = make(server)
    closed = []

    async def close():
        await inbox.close()
        closed.append(True)

    told.on_gone = lambda code: closed.append(asyncio.ensure_future(close()))
    inbox.start_pump()
    server.put(1000)
    await turns()
    assert closed[-1] is True


# -- the watch ---------------------------------------------------------------------------------------------------------


class Clock:
    """Turns a ``Watch`` by hand."""

    def __init__(self, watch):
        self.watch = watch

    def tick(self):
        timer = self.watch._timer
        if timer is None:
            return False
        timer.cancel()
        self.watch._look()
        return True


@pytest.fixture
def watch():
    return Watch(3600)


@pytest.fixture
def clock(watch):
    return Clock(watch)


async def test_the_pump_starts_at_the_second_look(watch, clock):
    inbox, _ = make(Server(), watch)
    inbox.begin()
    clock.tick()
    assert not inbox.is_pumping
    clock.tick()
    assert inbox.is_pumping
    # Nothing is left to look for.
    assert not clock.tick()
    inbox.end()
    await inbox.close()


async def test_many_short_actions_never_start_a_pump(watch, clock):
    inbox, _ = make(Server(), watch)
    for _ in range(10):
        inbox.begin()
        clock.tick()
        inbox.end()
        inbox.begin()
        clock.tick()
        assert not inbox.is_pumping
        inbox.end()
    while clock.tick():
        pass
    assert not inbox.is_pumping


async def test_an_action_that_ended_between_two_looks_starts_no_pump(watch, clock):
    inbox, _ = make(Server(), watch)
    inbox.begin()
    clock.tick()
    inbox.end()
    clock.tick()
    assert not inbox.is_pumping
    assert not clock.tick()


async def test_one_timer_serves_all_connections(watch, clock):
    inboxes = [make(Server(), watch)[0] for _ in range(20)]
    for inbox in inboxes:
        inbox.begin()
    timer = watch._timer
    assert timer is not None
    clock.tick()
    late, _ = make(Server(), watch)
    late.begin()
    clock.tick()
    assert all(inbox.is_pumping for inbox in inboxes)
    assert not late.is_pumping
    clock.tick()
    assert late.is_pumping
    for inbox in (*inboxes, late):
        inbox.end()
        await inbox.close()
    assert not watch._busy


async def test_an_idle_watch_has_no_timer_and_a_new_action_starts_it_again(watch, clock):
    inbox, _ = make(Server(), watch)
    assert watch._timer is None
    inbox.begin()
    inbox.end()
    clock.tick()
    assert watch._timer is None
    inbox.begin()
    assert watch._timer is not None
    inbox.end()
    watch.close()
    watch.close()
    assert watch._timer is None


async def test_a_closed_inbox_is_not_watched(watch, clock):
    inbox, _ = make(Server(), watch)
    inbox.begin()
    clock.tick()
    await inbox.close()
    clock.tick()
    assert not inbox.is_pumping
    assert not watch._busy
    assert not watch._seen


async def test_who_has_gone_needs_no_pump(watch, clock):
    server = Server()
    inbox, _ = make(server, watch)
    server.put(1000)
    with pytest.raises(Disconnected):
        await inbox.get()
    inbox.begin()
    clock.tick()
    clock.tick()
    assert not inbox.is_pumping
    inbox.end()


async def test_by_itself_it_looks_after_its_interval():
    server, gone = Server(), asyncio.Event()
    inbox, told = make(server, Watch(0.005))
    told.on_gone = lambda code: gone.set()
    server.put(1000)
    inbox.begin()
    await gone.wait()
    inbox.end()
