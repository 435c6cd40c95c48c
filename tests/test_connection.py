"""Connections through the life of a consumer, against a server whose every step the test decides."""

import asyncio
import json
import logging

import pytest
from fastapi import FastAPI
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from fastapi_consumers import Consumer, GroupConsumer, JSONConsumer, action, add_consumers, event, path
from fastapi_consumers.codecs import decode_msgpack
from fastapi_consumers.exceptions import GroupFull, NotAuthenticated, Throttled


class Socket:
    """A server's side of one socket."""

    def __init__(self, app, url="/", *, subprotocols=(), denial=True):
        self.sent = []
        self._changed = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        #: What ``send`` raises, by the type of the message.
        self.failures = {}
        self._incoming = asyncio.Queue()
        self._incoming.put_nowait({"type": "websocket.connect"})
        self.scope = {
            "type": "websocket",
            "path": url,
            "raw_path": url.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"testserver")],
            "subprotocols": list(subprotocols),
            "scheme": "ws",
            "client": ("192.0.2.1", 1),
            "server": ("testserver", 80),
            "extensions": {"websocket.http.response": {}} if denial else {},
            "state": {},
        }
        self.task = asyncio.create_task(app(self.scope, self._incoming.get, self.send))

    async def send(self, message):
        await self.writable.wait()
        if message["type"] in self.failures:
            raise self.failures[message["type"]]
        self.sent.append(message)
        self._changed.set()

    async def until(self, count):
        """So many frames have been sent."""
        async with asyncio.timeout(30):
            while len(self.texts) < count:
                self._changed.clear()
                await self._changed.wait()

    def put(self, action, number=None, /, **data):
        self.put_text(json.dumps({"action": action, "request_id": number, "data": data}))

    def put_text(self, text):
        self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self, code=1001):
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": code})

    @property
    def kinds(self):
        return [message["type"].removeprefix("websocket.") for message in self.sent]

    @property
    def texts(self):
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]

    @property
    def frames(self):
        return [json.loads(text) for text in self.texts]

    @property
    def close(self):
        closes = [(m["code"], m["reason"]) for m in self.sent if m["type"] == "websocket.close"]
        assert len(closes) <= 1, "closed twice"
        return closes[0] if closes else None

    async def ended(self):
        async with asyncio.timeout(30):
            await asyncio.wait([self.task])
        return None if self.task.cancelled() else self.task.exception()


class Log:
    """What happened to the consumers of a test, in order."""

    def __init__(self):
        self.events = []
        self.changed = asyncio.Event()

    def __call__(self, *happened):
        self.events.append(happened if len(happened) > 1 else happened[0])
        self.changed.set()

    async def until(self, *happened):
        wanted = happened if len(happened) > 1 else happened[0]
        async with asyncio.timeout(30):
            while wanted not in self.events:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def log():
    return Log()


@pytest.fixture
async def start(log):
    """``start(ConsumerClass, **limits)`` gives a function that opens a socket; in the end nothing may be left."""
    lifespans, apps, sockets = [], [], []
    tasks = asyncio.all_tasks()

    async def make(cls, **options):
        app = FastAPI()
        cls.log = log
        add_consumers(app, [path("/", cls)], **options)
        lifespan = app.router.lifespan_context(app)
        await lifespan.__aenter__()
        lifespans.append(lifespan)
        apps.append(app)
        # A look at what takes long each few milliseconds.
        app.state.consumers.watch._interval = 0.005

        def connect(**kwargs):
            sockets.append(Socket(app, **kwargs))
            sockets[-1].consumers = app.state.consumers
            return sockets[-1]

        return connect

    yield make
    for socket in sockets:
        if not socket.task.done():
            socket.writable.set()
            socket.leave()
            await socket.ended()
    for app in apps:
        consumers = app.state.consumers
        assert not consumers.connections
        assert not consumers.hub._channels
        assert not list(consumers.hub.topics())
        assert not consumers.watch._busy
    for lifespan in lifespans:
        await lifespan.__aexit__(None, None, None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - tasks == {asyncio.current_task()} - tasks


class Base(GroupConsumer, abstract=True):
    groups = ["room"]
    log: Log

    async def disconnect(self, code):
        self.log("disconnect", code)

    async def on_leave(self, group):
        self.log("leave", group)

    @action
    async def echo(self, text: str) -> str:
        return text

    @action
    async def wait(self) -> str:
        self.log("waits")
        try:
            await asyncio.Event().wait()
        finally:
            self.log("stopped")
        return "never"

    @action
    async def call(self, name: str) -> str:
        """Whatever the test's class has under this name, so that each test shows what it does."""
        return str(await getattr(self, f"do_{name}")())


TORN_DOWN = ["stopped", ("leave", "room"), ("disconnect", 4000)]


def only(socket):
    (connection,) = socket.consumers.connections
    return connection


async def turns(count=10):
    for _ in range(count):
        await asyncio.sleep(0)


# -- interrupting ------------------------------------------------------------------------------------------------------


async def test_shut_stops_an_action_closes_with_the_code_and_tears_down(start, log):
    class Room(Base):
        pass

    socket = (await start(Room))()
    socket.put("wait", 1)
    await log.until("waits")
    connection = only(socket)
    connection.shut(4000, "enough")
    connection.shut(4001, "too late")
    assert await socket.ended() is None
    assert log.events[1:] == TORN_DOWN
    assert socket.close == (4000, "enough")
    # Not one trace of the interruption is left in the task.
    assert socket.task.cancelling() == 0
    assert not socket.task.cancelled()
    assert socket.frames == []
    connection.shut(4002)
    assert connection.close_code == 4000


async def test_shut_reaches_a_connection_that_waits_for_a_frame(start, log):
    class Room(Base):
        pass

    socket = (await start(Room))()
    await turns()
    only(socket).shut(4000)
    assert await socket.ended() is None
    assert socket.close == (4000, "")
    assert log.events == TORN_DOWN[1:]


async def test_a_cancellation_from_outside_tears_down_and_comes_out(start, log):
    class Room(Base):
        pass

    socket = (await start(Room))()
    socket.put("wait", 1)
    await log.until("waits")
    socket.task.cancel()
    await socket.ended()
    assert socket.task.cancelled()
    assert socket.close == (1001, "going_away")
    assert log.events[1:] == ["stopped", ("leave", "room"), ("disconnect", 1001)]


@pytest.mark.parametrize("first", ["shut", "cancel"])
async def test_a_cancellation_from_outside_is_not_lost_in_an_interruption(start, log, first):
    class Room(Base):
        pass

    socket = (await start(Room))()
    socket.put("wait", 1)
    await log.until("waits")
    connection = only(socket)
    for step in (first, "cancel" if first == "shut" else "shut"):
        if step == "shut":
            connection.shut(4000)
        else:
            socket.task.cancel()
    await socket.ended()
    assert socket.task.cancelled()
    assert socket.close[0] == 4000
    assert log.events[1:] == TORN_DOWN


async def test_an_action_that_goes_on_although_it_was_stopped_leaves_a_clean_task_to_disconnect(start, log):
    class Room(Base):
        async def do_stubborn(self):
            log("waits")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
            return "went on"

        async def disconnect(self, code):
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
            log("disconnect", code, asyncio.current_task().cancelling())

    socket = (await start(Room))()
    socket.put("call", 1, name="stubborn")
    await log.until("waits")
    only(socket).shut(4000)
    assert await socket.ended() is None
    assert log.events[-1] == ("disconnect", 4000, 0)
    assert socket.close[0] == 4000


async def test_what_is_too_much_for_its_own_client_is_stopped_at_its_next_wait(start, log):
    class Room(Base):
        async def do_ticker(self):
            try:
                while True:
                    for _ in range(10):
                        await self.broadcast("tick")
                    await asyncio.sleep(0)
            finally:
                log("stopped")

    socket = (await start(Room, max_outbox=5, write_timeout=0.01))()
    await turns()
    socket.writable.clear()
    socket.put("call", 1, name="ticker")
    assert await socket.ended() is None
    assert log.events == ["stopped", ("leave", "room"), ("disconnect", 1013)]


async def test_a_loop_of_sends_stops_when_the_client_has_gone(start, log):
    class Room(Base):
        async def do_sends(self):
            try:
                while True:
                    await self.send_event("tick")
            finally:
                log("stopped")

    socket = (await start(Room))()
    await turns()
    socket.failures["websocket.send"] = OSError("gone")
    socket.put("call", 1, name="sends")
    await turns()
    socket.leave(1001)
    assert await socket.ended() is None
    assert log.events == ["stopped", ("leave", "room"), ("disconnect", 1001)]


async def test_a_loop_of_sends_stops_when_somebody_else_closes(start, log):
    class Room(Base):
        async def do_sends(self):
            log("sends")
            while True:
                await self.send_event("tick")
                await asyncio.sleep(0)

        @action(concurrent=True)
        async def end(self) -> None:
            await self.close(4000)

    socket = (await start(Room))()
    socket.put("end")
    socket.put("call", 1, name="sends")
    assert await socket.ended() is None
    assert socket.close[0] == 4000


async def test_the_clients_cancel_and_its_leaving_in_one_turn_end_the_connection_once(start, log):
    class Room(Base):
        pass

    socket = (await start(Room))()
    socket.put("wait", 1)
    await log.until("waits")
    connection = only(socket)
    connection.inbox.start_pump()
    await turns()
    socket.put("cancel", 2, request_id=1)
    socket.leave(1001)
    assert await socket.ended() is None
    assert log.events[1:] == ["stopped", ("leave", "room"), ("disconnect", 1001)]
    assert socket.task.cancelling() == 0


# -- closing -----------------------------------------------------------------------------------------------------------


async def test_only_the_first_close_counts(start, log):
    class Room(Base):
        async def do_close(self):
            await self.close(4000, "first")
            await self.close(4001, "second")
            self.connection.shut(4002, "third")
            await self.send_event("late")

        async def disconnect(self, code):
            log("disconnect", code)
            await self.close(4003)
            await self.accept()
            await self.send_event("later still")

    socket = (await start(Room))()
    socket.put("call", 1, name="close")
    assert await socket.ended() is None
    assert socket.close == (4000, "first")
    assert socket.kinds == ["accept", "close"]
    assert log.events[-1] == ("disconnect", 4000)


async def test_who_closes_after_it_was_shut_closes_with_that_code(start, log):
    class Room(Base):
        async def do_close(self):
            self.connection.shut(4000, "kicked")
            await self.close(4001)

    socket = (await start(Room))()
    socket.put("call", 1, name="close")
    assert await socket.ended() is None
    assert socket.close == (4000, "kicked")


async def test_a_close_by_an_action_beside_stops_the_one_that_runs(start, log):
    class Room(Base):
        @action(concurrent=True)
        async def end(self) -> None:
            await asyncio.sleep(0)
            await self.close(4000)

    socket = (await start(Room))()
    socket.put("end")
    socket.put("wait", 1)
    assert await socket.ended() is None
    assert log.events == ["waits", *TORN_DOWN]
    assert socket.close[0] == 4000


async def test_a_close_by_an_event_method_ends_the_connection(start, log):
    class Room(Base):
        @event("end")
        async def end(self, message):
            await self.close(4000)

    socket = (await start(Room))()
    await turns()
    await socket.consumers.layer.group_send("room", {"type": "end"})
    assert await socket.ended() is None
    assert socket.close[0] == 4000
    assert log.events == TORN_DOWN[1:]


async def test_what_waits_is_sent_before_the_close_and_what_comes_after_is_not(start, log):
    class Room(Base):
        async def do_close(self):
            log("closes")
            await self.close(4000)

    socket = (await start(Room))()
    await turns()
    socket.writable.clear()
    hub = socket.consumers
    await hub.broadcast("room", "one")
    await hub.broadcast("room", "two")
    socket.put("call", 1, name="close")
    await log.until("closes")
    await turns()
    await hub.broadcast("room", "three")
    socket.writable.set()
    assert await socket.ended() is None
    assert [frame["event"] for frame in socket.frames] == ["one", "two"]
    assert socket.kinds == ["accept", "send", "send", "close"]


async def test_a_socket_that_takes_no_bytes_is_given_up_after_write_timeout(start, log):
    class Room(Base):
        async def do_close(self):
            await self.close(4000)

    socket = (await start(Room, write_timeout=0.02))()
    await turns()
    socket.writable.clear()
    socket.put("call", 1, name="close")
    assert await socket.ended() is None
    assert socket.kinds == ["accept"]
    assert log.events[-1] == ("disconnect", 4000)


async def test_a_close_that_was_cancelled_is_done_by_teardown(start, log):
    class Room(Base):
        async def do_close(self):
            log("closes")
            await self.close(4000, "end")

    socket = (await start(Room))()
    await turns()
    socket.writable.clear()
    await socket.consumers.broadcast("room", "in its way")
    socket.put("call", 1, name="close")
    await log.until("closes")
    connection = only(socket)
    connection.inbox.start_pump()
    socket.put("cancel", 2, request_id=1)
    await turns()
    assert socket.kinds == ["accept"]
    socket.writable.set()
    assert await socket.ended() is None
    assert socket.close == (4000, "end")
    assert log.events[-1] == ("disconnect", 4000)


async def test_a_slow_client_whose_socket_takes_bytes_again_is_told_1013(start, log):
    class Room(Base):
        pass

    socket = (await start(Room, max_outbox=2))()
    await turns()
    socket.writable.clear()
    for number in range(4):
        await socket.consumers.broadcast("room", "tick", number)
    await asyncio.sleep(0)
    assert only(socket).is_closing
    await turns()
    socket.writable.set()
    assert await socket.ended() is None
    assert socket.close == (1013, "slow_consumer")
    # Nothing of what was dropped came.
    assert socket.frames == []
    assert log.events == [("leave", "room"), ("disconnect", 1013)]


async def test_a_slow_client_whose_socket_stays_full_is_left(start, log, monkeypatch):
    class Room(Base):
        pass

    monkeypatch.setattr("fastapi_consumers.connection.LAST_WORD_TIMEOUT", 0.01)
    socket = (await start(Room, max_outbox=2))()
    await turns()
    socket.writable.clear()
    for number in range(4):
        await socket.consumers.broadcast("room", "tick", number)
    assert await socket.ended() is None
    assert socket.close is None
    assert log.events == [("leave", "room"), ("disconnect", 1013)]


async def test_the_reason_is_cut_to_what_a_close_frame_holds(start):
    class Room(Base):
        pass

    socket = (await start(Room))()
    await turns()
    only(socket).shut(4000, "é" * 100)
    await socket.ended()
    assert len(socket.close[1].encode()) == 122


# -- the handshake -----------------------------------------------------------------------------------------------------


async def test_shut_before_accept_refuses(start, log):
    class Room(Base):
        async def connect(self):
            log("connect")
            await asyncio.Event().wait()

    socket = (await start(Room))()
    await log.until("connect")
    only(socket).shut(4000)
    assert await socket.ended() is None
    assert socket.sent[0]["status"] == 403
    # It never heard of having joined, since it was never accepted.
    assert log.events == ["connect", ("disconnect", 4000)]


async def test_a_client_that_leaves_while_connect_waits_ends_it(start, log):
    class Room(Base):
        async def connect(self):
            log("connect")
            await asyncio.Event().wait()

    socket = (await start(Room))()
    await log.until("connect")
    socket.leave(1006)
    assert await socket.ended() is None
    assert socket.sent == []
    assert log.events == ["connect", ("disconnect", 1006)]


@pytest.mark.parametrize("gone", [OSError("gone"), WebSocketDisconnect(1006)])
async def test_accepting_a_client_that_has_gone_is_no_error(start, log, gone, caplog):
    class Room(Base):
        async def connect(self):
            log("connect")
            await self.accept()
            log("accepted")

    connect = await start(Room)
    socket = connect()
    socket.failures["websocket.accept"] = gone
    assert await socket.ended() is None
    assert socket.sent == []
    assert log.events == ["connect", ("disconnect", 1006)]
    assert not caplog.records


async def test_a_server_that_fails_to_accept_is_an_error(start, log, caplog):
    class Room(Base):
        pass

    socket = (await start(Room))()
    socket.failures["websocket.accept"] = RuntimeError("broken")
    assert await socket.ended() is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert socket.sent[0]["status"] == 500


async def test_events_before_accept_follow_it_in_order(start, log):
    class Room(Base):
        async def connect(self):
            log("connect")
            await go.wait()
            await self.accept()

    go = asyncio.Event()
    socket = (await start(Room))()
    await log.until("connect")
    for number in range(3):
        await socket.consumers.broadcast("room", "tick", number)
    go.set()
    socket.put("echo", 1, text="x")
    await socket.until(4)
    assert [frame.get("data") for frame in socket.frames] == [0, 1, 2, "x"]


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (NotAuthenticated(), 401, 4401, None),
        (GroupFull(), 503, 1013, b"5"),
        (Throttled(2.0), 429, 4429, b"2"),
        (Throttled(2.1), 429, 4429, b"3"),
        (Throttled(0.001), 429, 4429, b"1"),
    ],
)
@pytest.mark.parametrize("denial", [True, False])
async def test_refusing(start, log, error, status, code, retry_after, denial):
    def refuse(consumer, action=None):
        raise error

    class Room(Base):
        permission_classes = [refuse]

    socket = (await start(Room))(denial=denial)
    assert await socket.ended() is None
    assert log.events == []
    if not denial:
        assert socket.sent == [{"type": "websocket.close", "code": code, "reason": error.code}]
        return
    response, body = socket.sent
    headers = dict(response["headers"])
    assert (response["status"], headers.get(b"retry-after")) == (status, retry_after)
    assert int(headers[b"content-length"]) == len(body["body"])
    assert json.loads(body["body"])["error"]["code"] == error.code


@pytest.mark.parametrize("kind", ["websocket.http.response.start", "websocket.http.response.body", "websocket.close"])
async def test_refusing_a_client_that_has_gone_is_no_error(start, kind, caplog):
    class Room(Base):
        permission_classes = [False]

    socket = (await start(Room))(denial=kind != "websocket.close")
    socket.failures[kind] = OSError("gone")
    assert await socket.ended() is None
    assert not caplog.records


async def test_with_accept_refused_the_reason_comes_over_the_socket(start):
    class Room(Base):
        permission_classes = [False]
        accept_refused = True

    socket = (await start(Room))()
    assert await socket.ended() is None
    assert socket.kinds == ["accept", "send", "close"]
    assert socket.frames[0]["error"]["code"] == "permission_denied"
    assert socket.close == (4403, "permission_denied")


@pytest.mark.parametrize("waits", [False, True])
async def test_a_subprotocol_that_connect_accepts_is_spoken_from_then_on(start, waits):
    class Room(Base):
        async def connect(self):
            if waits:
                await asyncio.sleep(0)
            await self.accept("fc.v1.msgpack")

    socket = (await start(Room))(subprotocols=["fc.v1.json", "fc.v1.msgpack"])
    await turns()
    await socket.consumers.broadcast("room", "tick", 1)
    socket.put("echo", 1)
    await turns()
    assert socket.sent[0]["subprotocol"] == "fc.v1.msgpack"
    assert decode_msgpack(socket.sent[1]["bytes"])["event"] == "tick"
    assert socket.close == (1003, "unsupported_data")


async def test_its_end_may_be_waited_for_before_and_after_it(start):
    class Room(Base):
        pass

    connect = await start(Room)
    socket = connect()
    await turns()
    (connection,) = socket.consumers.connections
    ended = connection.ended
    assert (ended.done(), connection.has_ended) == (False, False)
    socket.leave()
    assert await socket.ended() is None
    assert (ended.done(), connection.has_ended) == (True, True)
    # Nobody asked for this one's while it was open.
    socket = connect()
    await turns()
    (connection,) = socket.consumers.connections
    socket.leave()
    assert await socket.ended() is None
    assert connection.ended.done()


async def test_accept_takes_headers_as_mapping_or_pairs_and_counts_once(start):
    class Room(Base):
        async def connect(self):
            await self.accept("fc.v1.json", {"X-A": "1"} if not self.path_params else [(b"x", b"y")])
            await self.accept("other")

    socket = (await start(Room))(subprotocols=["fc.v1.json"])
    await turns()
    assert socket.sent == [{"type": "websocket.accept", "subprotocol": "fc.v1.json", "headers": [(b"X-A", b"1")]}]


# -- a server that fails -----------------------------------------------------------------------------------------------


async def test_a_failing_send_waits_for_the_disconnect_that_says_why(start, log, caplog):
    class Room(Base):
        pass

    socket = (await start(Room))()
    await turns()
    socket.failures["websocket.send"] = OSError("gone")
    await socket.consumers.broadcast("room", "tick")
    await turns()
    assert only(socket).is_lost
    assert not log.events
    socket.leave(1001)
    assert await socket.ended() is None
    assert log.events == [("leave", "room"), ("disconnect", 1001)]
    assert not caplog.records


async def test_a_failing_send_stops_what_works_for_the_client(start, log, caplog):
    class Room(Base):
        pass

    socket = (await start(Room))()
    socket.put("wait", 1)
    await log.until("waits")
    socket.failures["websocket.send"] = RuntimeError("after close")
    await socket.consumers.broadcast("room", "tick")
    assert await socket.ended() is None
    assert log.events[1:] == ["stopped", ("leave", "room"), ("disconnect", 1006)]
    assert socket.close is None
    assert not caplog.records


async def test_a_failing_close_is_no_error(start, log, caplog):
    class Room(Base):
        async def do_close(self):
            await self.close(4000)

    socket = (await start(Room))()
    socket.failures["websocket.close"] = OSError("gone")
    socket.put("call", 1, name="close")
    assert await socket.ended() is None
    assert log.events[-1] == ("disconnect", 4000)
    assert not caplog.records


async def test_a_frame_that_the_server_cannot_send_is_logged_and_closes_with_1011(start, log, caplog):
    class Raw(Consumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.send("a frame")

        async def disconnect(self, code):
            log("disconnect", code)

    socket = (await start(Raw))()
    await turns()
    encode_error = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
    socket.failures["websocket.send"] = encode_error
    socket.put_text("x")
    assert await socket.ended() is None
    assert socket.close == (1011, "internal_error")
    assert log.events == [("disconnect", 1011)]
    (record,) = caplog.records
    assert record.exc_info[1] is encode_error


@pytest.mark.parametrize("while_it_works", [True, False])
async def test_a_failing_receive_is_logged_and_closes_with_1011(start, log, caplog, while_it_works):
    class Room(Base):
        pass

    connect = await start(Room)
    socket = connect()
    if while_it_works:
        socket.put("wait", 1)
        await log.until("waits")
    else:
        await turns()
    # The message has no type.
    socket._incoming.put_nowait({})
    await socket.ended()
    assert socket.close[0] == 1011
    assert log.events[-1] == ("disconnect", 1011)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# -- while an action runs ----------------------------------------------------------------------------------------------


async def test_the_socket_is_read_while_an_action_runs_and_frames_keep_their_order(start, log):
    class Room(Base):
        async def do_pause(self):
            log("waits")
            await go.wait()
            return "paused"

    go = asyncio.Event()
    socket = (await start(Room))()
    socket.put("call", 0, name="pause")
    for number in range(1, 6):
        socket.put("echo", number, text="x")
    await log.until("waits")
    connection = only(socket)
    connection.inbox.start_pump()
    await turns()
    assert connection.inbox.waiting == 5
    go.set()
    await socket.until(6)
    assert [frame["request_id"] for frame in socket.frames] == list(range(6))


async def test_a_client_that_leaves_while_an_action_runs_stops_it(start, log):
    class Room(Base):
        pass

    socket = (await start(Room))()
    socket.put("wait", 1)
    socket.put("echo", 2, text="never run")
    await log.until("waits")
    socket.leave(4999)
    assert await socket.ended() is None
    assert log.events[1:] == ["stopped", ("leave", "room"), ("disconnect", 4999)]
    assert socket.kinds == ["accept"]


@pytest.mark.parametrize(
    ("texts", "close"),
    [(["x" * 101], (1009, "message_too_big")), (["x"] * 4, (4429, "too_many_requests"))],
)
async def test_what_comes_while_an_action_runs_is_bounded(start, log, texts, close):
    class Room(Base):
        max_message_size = 100
        max_inbox = 2
        inbox_timeout = 0.01

    socket = (await start(Room))()
    socket.put("wait", 1)
    await log.until("waits")
    for text in texts:
        socket.put_text(text)
    assert await socket.ended() is None
    assert socket.close == close
    assert log.events[1:] == ["stopped", ("leave", "room"), ("disconnect", close[0])]


async def test_too_big_a_frame_closes_with_1009(start, log):
    class Room(Base):
        max_message_size = 100

    socket = (await start(Room))()
    socket.put_text("x" * 101)
    assert await socket.ended() is None
    assert socket.close == (1009, "message_too_big")


# -- what consumers are given ------------------------------------------------------------------------------------------


async def test_the_websocket_view_sends_through_the_connection_and_cannot_take_frames(start, log):
    class Room(JSONConsumer):
        async def connect(self):
            assert self.websocket.application_state is WebSocketState.CONNECTING
            await self.websocket.accept(headers=[(b"x-a", b"1")])
            assert self.websocket.application_state is WebSocketState.CONNECTED
            log(self.websocket is self.websocket)

        @action
        async def view(self, websocket: WebSocket) -> None:
            with pytest.raises(RuntimeError, match="belongs to a consumer"):
                await websocket.receive()
            assert websocket.headers["host"] == "testserver"
            await websocket.send_text("text")
            await websocket.send_bytes(b"bytes")
            await websocket.close(4000, "view")

    socket = (await start(Room))()
    socket.put("view", 1)
    assert await socket.ended() is None
    assert log.events == [True]
    assert socket.kinds == ["accept", "send", "send", "close"]
    assert socket.sent[0]["headers"] == [(b"x-a", b"1")]
    assert [message.get("text", message.get("bytes")) for message in socket.sent[1:3]] == ["text", b"bytes"]
    assert socket.close == (4000, "view")


async def test_a_view_made_after_accept_shows_an_open_socket(start):
    states = []

    class Room(Base):
        async def do_look(self):
            states.append((self.websocket.client_state, self.websocket.application_state))

    socket = (await start(Room))()
    socket.put("call", 1, name="look")
    await socket.until(1)
    assert states == [(WebSocketState.CONNECTED, WebSocketState.CONNECTED)]


async def test_nothing_late_makes_a_member_of_a_connection_that_has_ended(start, log):
    kept = []

    class Room(Base):
        async def connect(self):
            kept.append(self)
            await self.accept()

        async def disconnect(self, code):
            await self.join("late")
            log("disconnect", code)

    socket = (await start(Room))()
    await turns()
    socket.leave()
    await socket.ended()
    assert await kept[0].join("later") is False
    assert log.events[-1] == ("disconnect", 1001)
