"""How the short way to a socket is found. That real servers have one is shown in ``tests/server/test_lanes.py``."""

import asyncio
import functools
import json
import logging
from types import SimpleNamespace

import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from starlette._exception_handler import wrap_app_handling_exceptions
from uvicorn.server import ServerState

from fastapi_consumers import GroupConsumer, action, add_consumers, lanes, path
from fastapi_consumers.lanes import Lane, find_lane, stop_reading
from tests.server.client import CLOSE, TEXT, frame, handshake

CLASSES = {
    "websockets-sansio": "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol",
    "wsproto": "uvicorn.protocols.websockets.wsproto_impl:WSProtocol",
    "ours": "fastapi_consumers.contrib.uvicorn:WebSocketProtocol",
}


class Transport(asyncio.Transport):
    """One that remembers what was written."""

    def __init__(self):
        super().__init__()
        self.written = []
        self.closing = False
        self.more = asyncio.Event()

    def get_extra_info(self, name, default=None):
        return default

    def pause_reading(self): ...

    def resume_reading(self): ...

    def write(self, data):
        self.written.append(data)
        self.more.set()

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True


async def no_app(scope, receive, send):
    raise AssertionError("nothing is served here")


def protocol_of(cls, *, deflate=False):
    """One of uvicorn's protocols as it is after a handshake."""
    config = uvicorn.Config(no_app, ws_per_message_deflate=deflate, log_config=None)
    config.load()
    protocol = cls(config, ServerState(), {}, asyncio.get_running_loop())
    protocol.transport = Transport()
    protocol.handshake_complete = True
    return protocol


@pytest.fixture(params=CLASSES)
def protocol_class(request):
    return uvicorn.importer.import_from_string(CLASSES[request.param])


async def test_the_installed_uvicorn_has_a_lane(protocol_class):
    # If this fails after an upgrade of uvicorn, its classes have changed: see what lanes.py relies upon.
    protocol = protocol_of(protocol_class)
    lane, description = find_lane(protocol.send)
    assert isinstance(lane, Lane), description
    assert description == f"the transport of {protocol_class.__name__}"
    assert (lane.writable.is_set(), lane.transport.is_closing()) == (True, False)
    lane.transport.write(b"frame")
    assert protocol.transport.written == [b"frame"]
    protocol.pause_writing()
    assert not lane.writable.is_set()
    protocol.resume_writing()
    assert lane.writable.is_set()
    protocol.transport.close()
    assert lane.transport.is_closing()


async def test_it_is_as_writable_as_the_protocol_that_lost_its_connection(protocol_class):
    # Uvicorn then frees those who wait in send(): what keeps frames from being written is that it is closing.
    protocol = protocol_of(protocol_class)
    protocol.connections.add(protocol)
    lane, _ = find_lane(protocol.send)
    protocol.pause_writing()
    protocol.connection_lost(None)
    assert (lane.writable.is_set(), lane.transport.is_closing()) == (True, True)


async def test_none_where_uvicorn_may_compress_and_nothing_says_whether_it_does():
    wsproto = uvicorn.importer.import_from_string(CLASSES["wsproto"])
    assert find_lane(protocol_of(wsproto, deflate=True).send) == (None, "the connection is compressed")


async def test_none_where_compression_was_agreed_on():
    sansio = uvicorn.importer.import_from_string(CLASSES["websockets-sansio"])
    protocol = protocol_of(sansio, deflate=True)
    # The client has not asked for it.
    assert find_lane(protocol.send)[0] is not None
    protocol.conn.extensions = [object()]
    assert find_lane(protocol.send) == (None, "the connection is compressed")


async def test_none_to_a_class_that_sends_in_its_own_way(protocol_class):
    class Own(protocol_class):
        async def send(self, message):
            await super().send({**message, "text": "changed"})

    class Same(protocol_class):
        pass

    assert find_lane(protocol_of(Own).send)[0] is None
    assert find_lane(protocol_of(Same).send)[0] is not None


async def test_none_to_a_send_that_was_replaced_by_one_of_the_same_name(protocol_class, monkeypatch):
    # As tools that trace or measure do it.
    original = protocol_class.send

    @functools.wraps(original)
    async def traced(self, message):
        await original(self, message)

    monkeypatch.setattr(protocol_class, "send", traced)
    assert find_lane(protocol_of(protocol_class).send)[0] is None


@pytest.mark.parametrize(
    "change",
    [
        {"writable": asyncio.Lock()},
        {"writable": None},
        {"transport": None},
        {"transport": SimpleNamespace(write=print)},
        {"transport": SimpleNamespace(write=None, is_closing=print)},
    ],
)
async def test_none_to_a_protocol_that_has_changed(protocol_class, change):
    protocol = protocol_of(protocol_class)
    vars(protocol).update(change)
    expected = f"{protocol_class.__name__} is not as it was in the versions that are known"
    assert find_lane(protocol.send) == (None, expected)
    # Nor to one that has lost an attribute.
    for name in change:
        del vars(protocol)[name]
    assert find_lane(protocol.send)[0] is None


async def test_none_to_a_protocol_that_does_not_hear_when_its_socket_takes_no_more(protocol_class, monkeypatch):
    # As in uvicorn 0.50 to 0.52: frames would be written without end to a client that takes none.
    for cls in protocol_class.__mro__[:-1]:
        if "pause_writing" in vars(cls) and cls is not asyncio.BaseProtocol:
            monkeypatch.delattr(cls, "pause_writing")
    lane, why = find_lane(protocol_of(protocol_class).send)
    assert (lane, "does not hear when its socket takes no more" in why) == (None, True)


async def test_none_where_it_cannot_be_known_whether_frames_are_compressed(protocol_class):
    protocol = protocol_of(protocol_class)
    protocol.conn = protocol.config = None
    assert find_lane(protocol.send) == (None, "the connection is compressed")


async def test_none_to_other_sends():
    async def send(message): ...

    class Server:
        async def send(self, message): ...

    for other in (send, Server().send, functools.partial(send), None, print):
        assert find_lane(other)[0] is None


# -- what stands before it ---------------------------------------------------------------------------------------------


class Room(GroupConsumer):
    groups = ["room"]

    @action
    async def echo(self, text: str) -> str:
        return text


class Middleware:
    """It leaves ``send`` as it is."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


class Seeing(Middleware):
    """It sees what is sent."""

    def __init__(self, app, seen=None):
        super().__init__(app)
        self.seen = [] if seen is None else seen

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, self.wrap(send))

    def wrap(self, send):
        async def sender(message):
            self.seen.append(message["type"])
            await send(message)

        return sender


class SeeingUnderAnotherName(Seeing):
    """As tracing does it: the wrapper has the names of what it wraps."""

    def wrap(self, send):
        return functools.wraps(send)(super().wrap(send))


def unmasked(opcode, payload):
    return frame(opcode, payload, masked=False)


def make_app(*, middleware=(), **options):
    app = FastAPI()
    add_consumers(app, [path("/room", Room)], **options)
    for cls, arguments in middleware:
        app.add_middleware(cls, **arguments)
    return app


class Served:
    """One socket to an application, through uvicorn's own protocol, with no network."""

    def __init__(self, cls, app, url="/room"):
        config = uvicorn.Config(app, ws_per_message_deflate=False, log_config=None, ws_ping_interval=None)
        config.load()
        self.transport = Transport()
        self.protocol = cls(config, ServerState(), {}, asyncio.get_running_loop())
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(handshake(url))

    async def until(self, count):
        """Until so many frames have been written; the first is the handshake's answer."""
        async with asyncio.timeout(20):
            while len(self.transport.written) < count:
                self.transport.more.clear()
                await self.transport.more.wait()

    async def echo(self, text):
        """What is written in answer."""
        await self.until(1)
        already = len(self.transport.written)
        content = {"action": "echo", "request_id": 1, "data": {"text": text}}
        self.protocol.data_received(frame(TEXT, json.dumps(content).encode()))
        await self.until(already + 1)
        return self.transport.written[already:]

    async def end(self):
        tasks = tuple(self.protocol.tasks)
        self.protocol.connection_lost(None)
        await asyncio.gather(*tasks)


@pytest.fixture
async def serve(protocol_class):
    served = []

    def start(app, url="/room"):
        served.append(Served(protocol_class, app, url))
        return served[-1]

    yield start
    for each in served:
        await each.end()


def lanes_of(app):
    """Whether each connection of the app has one."""
    return [connection.outbox._transport is not None for connection in app.state.consumers.connections]


REPLY = b'{"type":"reply","action":"echo","request_id":1,"status":"ok","data":"hi"}'


async def test_it_is_found_behind_starlettes_own_wrappers(serve):
    app = make_app(middleware=[(Middleware, {})])
    (written,) = await serve(app).echo("hi")
    assert written == unmasked(TEXT, REPLY)
    assert lanes_of(app) == [True]


async def test_it_is_found_in_an_app_within_apps(serve):
    inner = make_app()
    app = inner
    for _ in range(6):
        outer = FastAPI()
        outer.mount("/in", app)
        app = outer
    (written,) = await serve(app, "/in" * 6 + "/room").echo("hi")
    assert written == unmasked(TEXT, REPLY)
    assert lanes_of(inner) == [True]


async def test_there_is_none_but_all_works_in_an_app_within_too_many(serve):
    inner = make_app()
    app = inner
    for _ in range(20):
        outer = FastAPI()
        outer.mount("/in", app)
        app = outer
    (written,) = await serve(app, "/in" * 20 + "/room").echo("hi")
    assert written == unmasked(TEXT, REPLY)
    assert lanes_of(inner) == [False]


@pytest.mark.parametrize("cls", [Seeing, SeeingUnderAnotherName])
async def test_a_middleware_that_wraps_send_sees_every_message(serve, cls):
    seen = []
    app = make_app(middleware=[(cls, {"seen": seen})])
    (written,) = await serve(app).echo("hi")
    assert written == unmasked(TEXT, REPLY)
    assert seen == ["websocket.accept", "websocket.send"]


@pytest.mark.parametrize("cls", [Seeing, SeeingUnderAnotherName])
async def test_a_middleware_between_two_apps_sees_every_message(serve, cls):
    # What it wraps is Starlette's wrapper then, whose name it may have taken over.
    seen = []
    app = FastAPI()
    app.mount("/in", cls(make_app(), seen))
    (written,) = await serve(app, "/in/room").echo("hi")
    assert written == unmasked(TEXT, REPLY)
    assert seen == ["websocket.accept", "websocket.send"]


async def test_a_middleware_may_change_the_message_it_is_given(serve):
    class Numbering(Seeing):
        def wrap(self, send):
            async def sender(message):
                if message["type"] == "websocket.send":
                    message["text"] += "!"
                await send(message)

            return sender

    app = make_app(middleware=[(Numbering, {})])
    members = [serve(app) for _ in range(3)]
    for member in members:
        await member.until(1)
    await app.state.consumers.broadcast("room", "said", 1)
    for member in members:
        await member.until(2)
        expected = b'{"type":"event","event":"said","group":"room","data":1}!'
        assert member.transport.written[1] == unmasked(TEXT, expected)


async def test_none_for_a_consumer_that_is_served_in_an_endpoint(serve):
    # The endpoint may go on to use its WebSocket, which keeps a state of its own.
    app = FastAPI()
    add_consumers(app)

    @app.websocket("/room")
    async def endpoint(websocket: WebSocket) -> None:
        await Room.serve(websocket)

    (written,) = await serve(app).echo("hi")
    assert written == unmasked(TEXT, REPLY)
    assert lanes_of(app) == [False]


async def test_starlettes_wrapper_is_known_by_its_code():
    # If this fails after an upgrade of Starlette, the function has another name: then frames take send().
    assert None not in (lanes._WRAPPER, lanes._CELL)
    assert lanes._inner(wrap_app_handling_exceptions.__code__, "wrapped_app", "another") is None


async def test_none_where_starlettes_wrapper_is_not_known(serve, monkeypatch):
    monkeypatch.setattr(lanes, "_WRAPPER", None)
    app = make_app()
    (written,) = await serve(app).echo("hi")
    assert written == unmasked(TEXT, REPLY)
    assert lanes_of(app) == [False]


async def test_it_can_be_switched_off(serve):
    app = make_app(direct_writes=False)
    (written,) = await serve(app).echo("hi")
    assert written == unmasked(TEXT, REPLY)
    assert lanes_of(app) == [False]


@pytest.mark.parametrize("direct", [True, False])
async def test_the_log_says_once_which_way_frames_take(serve, caplog, direct):
    caplog.set_level(logging.INFO, "fastapi_consumers")
    app = make_app(direct_writes=direct)
    for _ in range(3):
        await serve(app).echo("hi")
    lines = [record.message for record in caplog.records if record.message.startswith("frames are")]
    name = type(serve(app).protocol).__name__
    expected = (
        f"written straight to the transport of {name}"
        if direct
        else "handed to the server's send(): direct_writes=False"
    )
    assert lines == [f"frames are {expected}"]


async def test_nothing_is_written_to_a_transport_that_is_closing(serve):
    # As when the server stops: it has written a close frame, and anything after that would be wrong.
    app = make_app()
    member = serve(app)
    await member.until(1)
    member.protocol.shutdown()
    assert member.transport.written[1:] == [unmasked(CLOSE, (1012).to_bytes(2))]
    await app.state.consumers.broadcast("room", "said", 1)
    assert len(member.transport.written) == 2


async def test_nothing_is_written_after_the_close_frame(serve):
    app = make_app()
    member = serve(app)
    await member.until(1)
    await app.state.consumers.broadcast("room", "said", 1)
    (connection,) = app.state.consumers.connections
    await connection.close(4000)
    await app.state.consumers.broadcast("room", "said", 2)
    event = unmasked(TEXT, b'{"type":"event","event":"said","group":"room","data":1}')
    assert member.transport.written[1:] == [event, unmasked(CLOSE, (4000).to_bytes(2))]
    assert not member.transport.closing


# -- the end of the way ---------------------------------------------------------------------------------------------


class Socket(Transport):
    def __init__(self):
        super().__init__()
        self.paused = self.aborted = False

    def pause_reading(self):
        self.paused = True

    def abort(self):
        self.aborted = True
        self.more.set()


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("name", CLASSES)
async def test_who_is_cut_off_is_not_read_and_dropped_after_a_moment(name, deflate, monkeypatch):
    monkeypatch.setattr("fastapi_consumers.lanes.PARTING", 0.01)
    protocol = protocol_of(uvicorn.importer.import_from_string(CLASSES[name]), deflate=deflate)
    protocol.transport = socket = Socket()
    stop_reading(protocol.send)
    assert (socket.paused, socket.aborted) == (True, False)
    async with asyncio.timeout(30):
        await socket.more.wait()
    assert socket.aborted


async def test_a_socket_that_closes_already_or_is_unknown_is_let_be(monkeypatch):
    monkeypatch.setattr("fastapi_consumers.lanes.PARTING", 0)
    protocol = protocol_of(uvicorn.importer.import_from_string(CLASSES["websockets-sansio"]))
    protocol.transport = socket = Socket()

    async def send(message): ...

    stop_reading(send)
    socket.closing = True
    stop_reading(protocol.send)
    del protocol.transport
    stop_reading(protocol.send)
    for _ in range(3):
        await asyncio.sleep(0)
    assert (socket.paused, socket.aborted) == (False, False)
