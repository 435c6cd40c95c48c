"""The consumer behind the page: whom it lets in, what it shows, and that it costs nobody anything."""

import asyncio
import re

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from fastapi_consumers import PermissionDenied, add_consumers, path
from fastapi_consumers.admin import admin_router, dashboard, watching
from fastapi_consumers.admin.viewing import Page, delta, whole
from fastapi_consumers.hub import Hub
from fastapi_consumers.messages import Frame
from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from fastapi_consumers.transports import MemoryTransport
from tests.admin.conftest import KEY, Room, make_app, require_key

WAIT = 20
SOCKET = "/admin/socket"


@pytest.fixture
async def page(house):
    """An open page, which has its first numbers."""

    async def enter():
        socket = await house.enter(SOCKET, headers=KEY)
        await event(socket, "numbers")
        return socket

    return enter


async def event(socket, name):
    while (frame := await socket.receive_json_from(WAIT)).get("event") != name:
        pass
    return frame["data"]


async def call(socket, action, **data):
    return await socket.call(action, data, timeout=WAIT)


# -- who may come in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"x-key": "wrong"}, 403), (KEY, None)])
@pytest.mark.parametrize("included", [{}, {"prefix": "/ops"}])
async def test_the_socket_has_the_dependencies_of_the_router(headers, status, included):
    app = FastAPI()
    # What holds for the application's own sockets opens nothing here.
    add_consumers(app, allowed_origins=["*"], permission_classes=[True], accept_refused=True)
    app.include_router(admin_router(dependencies=[Depends(require_key)]), **included)
    async with lifespan(app):
        socket = WebsocketCommunicator(
            app, f"{included.get('prefix', '')}{SOCKET}", headers=headers, denial_response=True
        )
        connected, _ = await socket.connect(WAIT)
        assert connected is (status is None)
        if status is not None:
            assert socket.denial.status == status
        await socket.disconnect(timeout=WAIT)


async def test_pages_of_other_origins_are_refused_whatever_the_application_allows():
    app = make_app(allowed_origins=["*"])
    async with lifespan(app):
        for origin, expected in (("https://evil.example", False), ("http://testserver", True)):
            socket = WebsocketCommunicator(app, SOCKET, headers={**KEY, "origin": origin})
            connected, _ = await socket.connect(WAIT)
            assert connected is expected, origin
            await socket.disconnect(timeout=WAIT)


async def test_a_security_scheme_that_takes_a_request_stands_before_the_socket_too():
    app = FastAPI()
    add_consumers(app)
    app.include_router(admin_router(dependencies=[Depends(HTTPBearer())]))
    async with lifespan(app):
        for headers, expected in (({}, False), ({"authorization": "Bearer x"}, True)):
            socket = WebsocketCommunicator(app, SOCKET, headers=headers)
            assert (await socket.connect(WAIT))[0] is expected
            await socket.disconnect(timeout=WAIT)


@pytest.mark.parametrize("failure", [HTTPException(401), PermissionDenied(), HTTPException(404)])
async def test_who_may_not_look_any_more_is_closed_and_what_fails_by_itself_closes_nobody(monkeypatch, failure):
    monkeypatch.setattr(dashboard, "RECHECK", 0.01)
    passing = [OSError("the database is away"), HTTPException(503), HTTPException(429)]
    asked, opened = [None, *passing, None, failure], []

    async def require_somebody(connection: HTTPConnection):
        opened.append(connection.headers["x-key"])
        try:
            if (answer := asked.pop(0)) is not None:
                raise answer
            yield
        finally:
            opened.remove(connection.headers["x-key"])

    app = FastAPI()
    add_consumers(app)
    app.include_router(admin_router(dependencies=[Depends(require_somebody)]))
    async with lifespan(app):
        socket = WebsocketCommunicator(app, SOCKET, headers=KEY)
        assert (await socket.connect(WAIT))[0]
        while (output := await socket.receive_output(WAIT))["type"] != "websocket.close":
            pass
        assert output["code"] in (4401, 4403, 1008)
        await socket.wait(WAIT)
    assert (asked, opened) == ([], [])


async def test_the_page_and_its_files(house):
    answer = await house.client.get("/admin", headers=KEY)
    assert answer.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert 'data-base="admin/"' in answer.text
    names = {part.split('"')[0] for part in answer.text.split('="admin/static/')[1:]}
    assert {"main.js", "style.css", "icon.svg"} <= names
    for name in sorted(names):
        found = await house.client.get(f"/admin/static/{name}", headers=KEY)
        assert found.status_code == 200, name
        # Nothing of it comes from anywhere else.
        assert set(re.findall(r"https?://[^\s\"'`]+", found.text)) <= {"http://www.w3.org/2000/svg"}
    again = await house.client.get("/admin/static/main.js", headers={**KEY, "if-none-match": found.headers["etag"]})
    assert again.status_code == 200  # The etag of another file.
    etag = again.headers["etag"]
    again = await house.client.get("/admin/static/main.js", headers={**KEY, "if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("nothing.js", "index.html", "..%2Fpages.py", "__init__.py"):
        assert (await house.client.get(f"/admin/static/{name}", headers=KEY)).status_code == 404, name


# -- what it shows -------------------------------------------------------------------------------------------------


async def test_numbers_come_once_a_second_and_who_comes_later_has_those_of_before(house, page):
    first = await page()
    numbers = await event(first, "numbers")
    assert (numbers["connections"], numbers["processes"], numbers["healthy"]) == (1, 1, True)
    second = await house.enter(SOCKET, headers=KEY)
    assert len(await event(second, "samples")) >= 2
    for socket in (first, second):
        await socket.disconnect(timeout=WAIT)
    third = await house.enter(SOCKET, headers=KEY)
    assert await event(third, "samples") == []


async def test_a_list_is_sent_whole_and_then_what_changes_in_it(house, page, monkeypatch):
    monkeypatch.setattr(dashboard, "REFRESH", 0.02)
    ann, socket = await house.enter("/room/a?name=ann"), await page()
    shown = await call(socket, "view", id="list", kind="connections", search="room")
    assert ([row["user"] for row in shown["rows"]], shown["total"]) == (["ann"], 1)
    await house.enter("/room/b?name=bob")
    while "keys" not in (change := await event(socket, "view")):
        pass  # Numbers of the row that is there may have changed before.
    key, old = change["keys"]
    assert (change["id"], change["total"], change["rows"][key]["user"]) == ("list", 2, "bob")
    assert old == shown["keys"][0]
    await house.consumers.broadcast("room.b", "said", 1)
    while "sent" not in (change := await event(socket, "view")).get("rows", {}).get(key, {}):
        pass
    assert "user" not in change["rows"][key]
    await ann.disconnect(timeout=WAIT)
    while "keys" not in (change := await event(socket, "view")):
        pass
    assert change["keys"] == [key]
    await call(socket, "hide", id="list")


@pytest.mark.parametrize("kind", ["connections", "groups", "processes"])
@pytest.mark.parametrize("order", ["", "size", "sent", "nonsense"])
async def test_every_kind_of_list(house, page, kind, order):
    await house.enter("/room/a?name=ann")
    shown = await call(await page(), "view", id="list", kind=kind, order=order)
    assert len(shown["rows"]) == len(shown["keys"]) >= 1
    assert len(shown["processes"]["answered"]) == 1


def test_of_what_did_not_change_nothing_is_sent():
    before = Page({"a": {"x": 1, "y": 2}, "b": {"x": 3}}, {"total": 2, "next": None})
    assert delta(before, before) == {}
    after = Page({"b": {"x": 3}, "a": {"x": 1}}, {"total": 2, "next": "more"})
    assert delta(before, after) == {"rows": {"a": {"y": None}}, "keys": ["b", "a"], "next": "more"}
    assert whole(after)["rows"] == [{"x": 3}, {"x": 1}]


async def test_lists_are_bounded_in_number(house, page):
    socket = await page()
    for number in range(dashboard.MAX_VIEWS):
        await call(socket, "view", id=str(number), kind="groups")
    await socket.send_json_to({"action": "view", "request_id": 99, "data": {"id": "more", "kind": "groups"}})
    while (frame := await socket.receive_json_from(WAIT)).get("request_id") != 99:
        pass
    assert frame["error"]["code"] == "invalid_data"


async def test_routes_and_settings(page):
    socket = await page()
    assert [each["consumer"] for each in (await call(socket, "routes"))["results"]][:2] == ["Room", "Log"]
    assert (await call(socket, "settings"))["transport"] == "MemoryTransport"
    assert (await call(socket, "log_levels"))["levels"]
    assert (await call(socket, "reset_throttles", user="7"))["reset"] == 0


# -- watching a group ----------------------------------------------------------------------------------------------


async def test_a_group_is_watched_without_being_counted(house, page):
    ann, socket = await house.enter("/room/a?name=ann"), await page()
    found = await call(socket, "watch", group="room.a")
    assert found == {"group": "room.a", "connections": 1, "history": None}
    assert await house.consumers.get_connection_count("room.a") == 1
    assert (await house.get("/groups/room.a"))["connections"] == 1
    await call(socket, "send", group="room.a", event="news", data={"a": 1})
    shown = await event(socket, "watched")
    while '"news"' not in shown["text"]:
        shown = await event(socket, "watched")
    assert shown["text"] == '{"type":"event","event":"news","group":"room.a","data":{"a":1}}'
    await house.consumers.layer.group_send("room.a", {"type": "chat.message", "x": 1})
    # Notices of presence come in between, whenever they are due.
    while (shown := await event(socket, "watched"))["kind"] == "text":
        assert '"presence"' in shown["text"]
    assert shown["kind"] == "message"
    await call(socket, "disconnect", group="room.a")
    assert await ann.assert_closed(timeout=WAIT) == 4409
    while (shown := await event(socket, "watched"))["kind"] == "text":
        assert '"presence"' in shown["text"]
    assert shown["kind"] == "close"
    await call(socket, "unwatch", group="room.a")
    assert list(house.consumers.hub.topics()) == []


async def test_nobody_hears_of_who_watches(house, page):
    socket = await page()
    await call(socket, "watch", group="room.a")
    await house.enter("/room/a?name=ann")
    assert (await house.get("/groups", search="room.a"))["results"] == [{"name": "room.a", "connections": 1}]
    await socket.disconnect(timeout=WAIT)
    await house.enter("/room/a?name=bob")
    assert await house.consumers.get_connection_count("room.a") == 2


async def test_a_place_in_a_full_group_is_not_taken():
    class Pair(Room):
        groups = ["pair"]
        max_connections = 1

    app = FastAPI()
    add_consumers(app, [path("/pair", Pair)])
    app.include_router(admin_router(dependencies=[Depends(require_key)]))
    async with lifespan(app), WebsocketCommunicator(app, SOCKET, headers=KEY) as socket:
        await call(socket, "watch", group="pair")
        async with WebsocketCommunicator(app, "/pair"):
            assert not (await WebsocketCommunicator(app, "/pair").connect(WAIT))[0]


async def test_more_than_can_be_read_is_counted_and_not_shown(house, page, monkeypatch):
    monkeypatch.setattr(watching, "MAX_RATE", 3)
    monkeypatch.setattr(watching.time, "time", lambda: 5.0)
    socket = await page()
    await call(socket, "watch", group="room.a")
    for number in range(10):
        await house.consumers.broadcast("room.a", "said", number)
    assert [(await event(socket, "watched"))["size"] for _ in range(3)] == [57] * 3
    # In one sum, or in several where the machine takes its time.
    counts = []
    while sum(counts) < 7:
        told = await event(socket, "skipped")
        assert told["group"] == "room.a"
        counts.append(told["count"])
    assert sum(counts) == 7


@pytest.mark.parametrize(
    ("payload", "is_text", "shown"),
    [
        (b'{"a": "' + b"x" * 5000, True, '{"a": "' + "x" * 993),
        ("ä".encode() * 900, True, "ä" * 900),
        (b"\xff\xfe", False, "ff fe"),
        (bytes(10_000), False, " ".join(["00"] * 250)),
    ],
)
def test_what_is_shown_is_bounded(payload, is_text, shown):
    told = []
    watch = watching.Watch(Hub(MemoryTransport()), "g", told.append, now=lambda: 5.25)
    watch._push(Frame(payload, is_text), None)
    kind = "text" if is_text else "bytes"
    assert told == [{"group": "g", "kind": kind, "text": shown, "size": len(payload), "at": 5.25}]


async def test_history_and_presence_of_a_group(house, page):
    for number in range(3):
        await house.consumers.broadcast("log.x", "line", number)
    await house.enter("/room/a?name=ann")
    socket = await page()
    assert (await call(socket, "watch", group="log.x"))["history"].startswith("History(")
    past = await call(socket, "history", group="log.x", limit=2)
    assert ([each["data"] for each in past["results"]], past["next"]) == ([2, 1], 2)
    await call(socket, "purge", group="log.x")
    assert (await call(socket, "history", group="log.x"))["results"] == []
    assert (await call(socket, "presence", group="room.a"))["count"] in (0, 1)


async def test_nothing_is_left_when_a_page_closes(house, page):
    before = len(asyncio.all_tasks())
    socket = await page()
    await call(socket, "watch", group="room.a")
    await call(socket, "view", id="list", kind="connections")
    await socket.disconnect(timeout=WAIT)
    assert list(house.consumers.hub.topics()) == []
    for _ in range(100):
        if len(asyncio.all_tasks()) <= before:
            break
        await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) <= before


async def test_schedules_from_the_page(page):
    socket = await page()
    await call(socket, "create_schedule", name="tea", every="1h", group="log.x", event="tea")
    await call(socket, "pause_schedule", name="tea", paused=True)
    [tea] = (await call(socket, "schedules"))["results"]
    assert (tea["name"], tea["paused"]) == ("tea", True)
    await call(socket, "pause_schedule", name="tea", paused=False)
    await call(socket, "run_schedule", name="tea")
    await call(socket, "delete_schedule", name="tea")
    assert (await call(socket, "schedules"))["results"] == []
