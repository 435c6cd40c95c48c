"""The admin API over HTTP, in one process: what it tells, what it does, whom it lets in."""

import asyncio
import contextlib
import functools
import logging
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from fastapi_consumers import GroupConsumer, ImproperlyConfigured, action, add_consumers, path
from fastapi_consumers.admin import admin_router
from fastapi_consumers.admin.describing import routes_of, settings_of
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.permissions import AllowAny, IsAuthenticated
from fastapi_consumers.testing import WebsocketCommunicator, lifespan
from fastapi_consumers.throttling import RateLimit
from tests.admin.conftest import KEY, Room, Secretive, User, make_app, require_key

ALONE = {"errors": {}, "missing": [], "silent": 0}


def endpoints():
    """Method and path of each HTTP route of the router."""
    router = admin_router(dependencies=[Depends(require_key)])
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    assert len(routes) >= 14
    return [(method, route.path) for route in routes for method in sorted(route.methods)]


# -- who may come in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "where"), endpoints())
async def test_no_route_can_be_reached_without_access(house, method, where):
    url = where.replace("{group:path}", "room.a").replace("{name}", "page.js").replace("{name:path}", "tea")
    body = {"json": {}} if method in ("POST", "PUT") else {}
    assert (await house.client.request(method, url, **body)).status_code == 401
    assert (await house.client.request(method, url, headers={"x-key": "wrong"}, **body)).status_code == 403
    assert (await house.client.request(method, url, headers=KEY, **body)).status_code not in (401, 403)


@pytest.mark.parametrize(("method", "where"), [pair for pair in endpoints() if pair[0] != "GET"])
async def test_pages_of_other_origins_cannot_change_anything(house, method, where):
    url = where.replace("{group:path}", "log.a").replace("{name:path}", "tea")
    answer = await house.client.request(method, url, headers={**KEY, "origin": "https://evil.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    own = await house.client.request(method, url, headers={**KEY, "origin": "http://testserver"})
    assert own.status_code != 403


async def takes_socket(websocket: WebSocket) -> None: ...


async def takes_body(data: dict) -> None: ...


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "admin-without-access"),
        ({"dependencies": []}, "admin-without-access"),
        ({"dependencies": None}, "admin-without-access"),
        ({"dependencies": "x"}, "admin-without-access"),
        ({"dependencies": [require_key]}, "bad-dependencies"),
        ({"dependencies": [Depends()]}, "bad-dependencies"),
        ({"dependencies": [Depends(takes_socket)]}, "bad-dependencies"),
        ({"dependencies": [Depends(takes_body)]}, "bad-dependencies"),
        ({"dependencies": [Depends(require_key)], "timeout": 0}, "bad-timeout"),
        ({"dependencies": [Depends(require_key)], "timeout": "1"}, "bad-timeout"),
    ],
)
def test_a_router_without_access_is_refused(options, code):
    with pytest.raises(ImproperlyConfigured) as caught:
        admin_router(**options)
    assert [problem.code for problem in caught.value.problems] == [code]


async def test_security_schemes_of_fastapi_will_do():
    app = FastAPI()
    add_consumers(app)
    app.include_router(admin_router(dependencies=[Depends(HTTPBearer())]), prefix="/ops")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/ops/admin/settings")).status_code in (401, 403)
        answer = await client.get("/ops/admin/settings", headers={"authorization": "Bearer x"})
    assert answer.json()["transport"] == "MemoryTransport"


def test_the_document_has_a_model_for_every_answer():
    document = make_app().openapi()
    found = {(method, where): each for where, item in document["paths"].items() for method, each in item.items()}
    assert {(method.lower(), where.replace(":path", "")) for method, where in endpoints()} >= set(found)
    for (method, where), each in found.items():
        success = each["responses"].get("200")
        if success is not None:
            assert "$ref" in success["content"]["application/json"]["schema"], (method, where)
        assert each["responses"]["401"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorAnswer")
        assert each["tags"] == ["admin"]


# -- what it tells -------------------------------------------------------------------------------------------------


async def test_routes_show_what_is_in_force(house):
    room, log = (await house.get("/routes"))["results"][:2]
    assert (room["path"], room["name"], room["consumer"], room["groups"]) == (
        "/room/{room}", "room", "Room", ["room.{room}"],
    )  # fmt: skip
    actions = {each["name"]: each for each in room["actions"]}
    assert {"say", "old", "cancel", "presence"} <= set(actions)
    assert actions["say"]["throttles"] == ["UserRateThrottle('1/hour')"]
    assert (actions["old"]["method"], actions["old"]["deprecated"], actions["old"]["timeout"]) == ("older", True, 5)
    assert room["presence"] == "Presence(ttl=60, grace=10)"
    assert room["limits"]["max_inbox"] == 128
    assert log["history"].startswith("History(size=10")


async def test_what_others_wrote_is_told_by_its_name_alone(house):
    def has_key(key, consumer, action=None):
        return True

    class Vault(GroupConsumer):
        groups = ["vault"]
        permission_classes = [(IsAuthenticated & ~Secretive) | AllowAny, functools.partial(has_key, "hush")]

    app = FastAPI()
    add_consumers(app, [path("/vault", Vault)], permission_classes=[Secretive])
    [vault] = routes_of(app, app.state.consumers)
    assert vault.permissions == ["((IsAuthenticated & ~Secretive) | AllowAny)", "a callable"]
    assert settings_of(app.state.consumers).permissions == ["Secretive"]


async def test_settings_hold_no_secrets():
    app = FastAPI()
    add_consumers(
        app,
        url="redis://somebody:pa55w0rd@localhost:6379/0",
        schedules_url="redis://somebody:pa55w0rd@localhost:6380/1",
        allowed_origins=["https://example.com"],
        query_token_key="token",
        max_connection_rate="100/second; 2/1.5 hours",
        max_connections_per_process=500,
        drain_timeout=25,
        statistics=True,
    )
    app.include_router(admin_router(dependencies=[Depends(require_key)]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/admin/settings", headers=KEY)
    assert "pa55w0rd" not in answer.text
    found = answer.json()
    assert "localhost:6379" in found["transport"]
    assert found["is_distributed"] is True
    assert found["history"].startswith("RedisHistoryStore")
    assert found["allowed_origins"] == ["https://example.com"]
    assert found["limits"]["max_outbox"] == 256
    assert found["schedules"].startswith("RedisScheduleStore")
    assert (found["query_token_key"], found["cookie_token_key"]) == ("token", None)
    assert (found["max_connections_per_process"], found["max_connection_rate"]) == (500, ["100/1 s", "2/5400 s"])
    assert (found["drain_timeout"], found["statistics"], found["observers"]) == (25, True, ["AccessLog"])


async def test_processes(house):
    await house.enter("/room/a")
    [process] = (found := await house.get("/processes"))["results"]
    assert found["processes"] == {"answered": [process["process"]], **ALONE}
    assert process["consumers"] == {"Room": 1}
    assert (process["health"]["healthy"], process["health"]["connections"]) == (True, 1)
    assert datetime.fromisoformat(process["opened_at"]) <= datetime.now(UTC)
    assert process["uptime"] >= 0


async def paged(house, where, **params):
    """All results of a list, two on a page, and its total."""
    found, cursor = [], {}
    for _ in range(20):
        page = await house.get(where, limit=2, **params, **cursor)
        assert len(page["results"]) == 2 or page["next"] is None
        found += page["results"]
        if page["next"] is None:
            return found, page["total"]
        cursor = {"cursor": page["next"]}
    raise AssertionError("there is no end of it")


async def test_routes_are_paged_and_searched(house):
    everything = (await house.get("/routes"))["results"]
    assert await paged(house, "/routes") == (everything, len(everything))
    assert len(everything) == 3
    for search, expected in (("ROOM", ["room"]), ("log.{", ["Log"]), ("/admin/socket", ["dashboard"]), ("x", [])):
        found = await house.get("/routes", search=search)
        assert ([each["name"] for each in found["results"]], found["total"]) == (expected, len(expected)), search
        assert found["next"] is None
    other = (await house.get("/processes", limit=1, search=""))["next"]
    for bad in ("x", other or "AAAA"):
        assert (await house.get("/routes", 422, cursor=bad))["error"]["code"] == "invalid_cursor"
        assert (await house.get("/processes", 422, cursor=bad))["error"]["code"] == "invalid_cursor"


async def test_processes_are_paged_and_searched(house, monkeypatch):
    [own] = (await house.get("/processes"))["results"]
    ask = house.consumers.asking.ask

    async def of_five(*arguments, **options):
        found = await ask(*arguments, **options)
        [(name, answer)] = found.answers.items()
        answers = {f"{name[:-1]}{number}": {**answer, "host": f"host{number}"} for number in (3, 1, 4, 0, 2)}
        return found._replace(answers=answers)

    monkeypatch.setattr(house.consumers.asking, "ask", of_five)
    found, total = await paged(house, "/processes")
    assert [each["process"][-1] for each in found] == list("01234")
    assert total == 5
    for search, expected in (
        ("HOST3", "3"),
        (own["process"][:-1], "01234"),
        (str(own["pid"]), "01234"),
        ("nobody", ""),
    ):
        answer = await house.get("/processes", search=search)
        assert ("".join(each["process"][-1] for each in answer["results"]), answer["total"]) == (
            expected,
            len(expected),
        )
        assert len(answer["processes"]["answered"]) == 5


async def test_numbers_only_rise_where_they_should(house):
    socket = await house.enter("/room/a")
    await socket.call("say", {"text": "x"}, timeout=20)
    before = await house.get("/numbers")
    assert (before["connections"], before["groups"], before["processes"]) == (1, 1, 1)
    assert before["sent"] >= 2
    await socket.disconnect(timeout=20)
    after = await house.get("/numbers")
    assert (after["connections"], after["groups"]) == (0, 0)
    assert after["sent"] >= before["sent"]


async def test_connections_are_listed_filtered_and_paged(house):
    for number in range(5):
        await house.enter(f"/room/{'ab'[number % 2]}?name=user{number}", client=(f"10.0.0.{number}", 1))
    await house.enter("/log/x", client=("192.0.2.7", 1))
    everyone = await house.get("/connections")
    assert (everyone["total"], len(everyone["results"]), everyone["next"]) == (6, 6, None)
    newest = everyone["results"][0]
    assert (newest["consumer"], newest["path"], newest["user"], newest["address"], newest["groups"]) == (
        "Log", "/log/x", None, "192.0.2.7", ["log.x"],
    )  # fmt: skip
    assert newest["channel"].startswith(newest["process"])
    assert (newest["group_count"], newest["queued"], newest["dropped"]) == (1, 0, 0)

    seen, cursor = [], {}
    for _ in range(3):
        page = await house.get("/connections", limit=2, order="oldest", **cursor)
        seen += [each["channel"] for each in page["results"]]
        cursor = {"cursor": page["next"]}
    assert page["next"] is None
    assert seen == [each["channel"] for each in reversed(everyone["results"])]

    for filters, expected in (
        ({"group": "room.a"}, 3),
        ({"user": "user1"}, 1),
        ({"address": "10.0.0.3"}, 1),
        ({"consumer": "Log"}, 1),
        ({"channel": newest["channel"]}, 1),
        ({"search": "USER"}, 5),
        ({"search": "room.b"}, 2),
        ({"search": "nobody"}, 0),
        ({"group": "room.a", "user": "user1"}, 0),
    ):
        found = await house.get("/connections", **filters)
        assert (found["total"], len(found["results"])) == (expected, expected), filters


@pytest.mark.parametrize("order", ["newest", "queued", "sent", "dropped"])
async def test_every_order_pages_through_all(house, order):
    for number in range(4):
        await house.enter(f"/room/{number}")
    first = await house.get("/connections", limit=3, order=order)
    second = await house.get("/connections", limit=3, order=order, cursor=first["next"])
    assert len({each["channel"] for each in first["results"] + second["results"]}) == 4
    assert second["next"] is None


async def test_groups_by_name_and_by_size(house):
    for name in "aabbbcd":
        await house.enter(f"/room/{name}")
    first = await house.get("/groups", limit=3)
    assert [(each["name"], each["connections"]) for each in first["results"]] == [
        ("room.a", 2), ("room.b", 3), ("room.c", 1),
    ]  # fmt: skip
    assert first["total"] == 4
    second = await house.get("/groups", limit=3, cursor=first["next"])
    assert ([each["name"] for each in second["results"]], second["next"]) == (["room.d"], None)
    largest = await house.get("/groups", limit=2, order="size")
    assert [each["name"] for each in largest["results"]] == ["room.b", "room.a"]
    assert [each["name"] for each in (await house.get("/groups", search="OM.C"))["results"]] == ["room.c"]


@pytest.mark.parametrize(
    ("where", "params"),
    [
        ("/connections", {"cursor": "nonsense"}),
        ("/groups", {"cursor": "nonsense"}),
        ("/connections", {"limit": 1000}),
        ("/connections", {"order": "sideways"}),
    ],
)
async def test_what_cannot_be_asked_for(house, where, params):
    await house.get(where, 422, **params)


async def test_a_cursor_is_good_for_its_own_list(house):
    for number in range(3):
        await house.enter(f"/room/{number}")
    cursor = (await house.get("/groups", limit=1))["next"]
    assert (await house.get("/connections", 422, cursor=cursor))["error"]["code"] == "invalid_cursor"
    cursor = (await house.get("/connections", limit=1))["next"]
    assert (await house.get("/connections", 422, cursor=cursor, order="sent"))["error"]["code"] == "invalid_cursor"


async def test_one_group(house):
    await house.enter("/log/x")
    await house.consumers.broadcast("log.x", "line", 1)
    found = await house.get("/groups/log.x")
    assert (found["connections"], found["position"]["offset"]) == (1, 1)
    empty = await house.get("/groups/room.nobody/with/slashes")
    assert (empty["name"], empty["connections"], empty["history"]) == ("room.nobody/with/slashes", 0, None)
    assert (await house.get("/groups/a%07b", 400))["error"]["code"] == "invalid_group"


async def test_presence(house):
    await house.enter("/room/a?name=ann")
    for _ in range(1000):
        found = await house.get("/presence/room.a")
        if found["count"]:
            break
        await asyncio.sleep(0.01)
    assert (found["count"], list(found["members"])) == (1, ["ann"])
    assert (await house.get("/presence/room.a", count_only=True))["members"] == {}


async def test_presence_is_paged_and_searched(house):
    everybody = ["ann", "bea", "ben", "cyd", "dan"]
    for name in everybody:
        await house.enter(f"/room/a?name={name}")
    for _ in range(1000):
        if (await house.get("/presence/room.a", count_only=True))["count"] == 5:
            break
        await asyncio.sleep(0.01)
    pages, cursor = [], {}
    while cursor is not None:
        found = await house.get("/presence/room.a", limit=2, **cursor)
        assert found["count"] == 5
        pages.append(list(found["members"]))
        cursor = {"cursor": found["next"]} if found["next"] is not None else None
    assert pages == [["ann", "bea"], ["ben", "cyd"], ["dan"]]
    found = await house.get("/presence/room.a", search="BE")
    assert (list(found["members"]), found["next"]) == (["bea", "ben"], None)
    other = (await house.get("/groups", limit=1, order="name"))["next"]
    for bad in ("x", other or "AAAA"):
        await house.get("/presence/room.a", 422, cursor=bad)


# -- what is counted for it ----------------------------------------------------------------------------------------

COUNTED = ("last_seen", "received", "received_bytes", "sent_bytes")


async def counted(app, enter, where, **options):
    """What is known of a connection that asked once, in the API and in the settings."""
    socket = await enter(app, where)
    await socket.call("say", {"text": "x"}, timeout=20)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        [found] = (await client.get(options.get("at", "/admin") + "/connections", headers=KEY)).json()["results"]
        settings = (await client.get(options.get("at", "/admin") + "/settings", headers=KEY)).json()
    return [found[name] is not None for name in COUNTED], settings["statistics"]


@pytest.mark.parametrize("serves", [lifespan, None])
@pytest.mark.parametrize(
    ("options", "expected"), [({}, True), ({"statistics": True}, True), ({"statistics": False}, False)]
)
async def test_connections_are_counted_unless_somebody_said_not_to(communicator, serves, options, expected):
    app = make_app(**options)
    async with serves(app) if serves else contextlib.nullcontext():
        assert await counted(app, communicator, "/room/a") == ([expected] * 4, expected)


@pytest.mark.parametrize("order", ["router first", "within another", "under a mount"])
async def test_wherever_the_router_is_connections_are_counted(communicator, order):
    app, at = FastAPI(), "/admin"
    router = admin_router(dependencies=[Depends(require_key)])
    if order == "router first":
        app.include_router(router)
    elif order == "within another":
        outer, at = APIRouter(prefix="/ops"), "/v1/ops/admin"
        outer.include_router(router)
        app.include_router(outer, prefix="/v1")
    else:
        at = "/ops/admin"
        app.mount("/ops", router)
    add_consumers(app, [path("/room/{room}", Room)])
    async with lifespan(app):
        assert await counted(app, communicator, "/room/a", at=at) == ([True] * 4, True)


async def test_without_the_router_nothing_is_counted(communicator):
    app, inner = FastAPI(), make_app()
    add_consumers(app, [path("/room/{room}", Room)])
    app.mount("/inner", inner)
    async with lifespan(app):
        await communicator(app, "/room/a")
        assert not app.state.consumers.observing.counts, "the router in another application shows nothing of this one"
        await communicator(app, "/inner/room/a")
        assert inner.state.consumers.observing.counts


# -- what it does --------------------------------------------------------------------------------------------------


async def test_history_is_read_page_by_page_and_purged(house):
    for number in range(5):
        await house.consumers.broadcast("log.x", "line", {"number": number})
    first = await house.get("/history/log.x", limit=3)
    assert [each["data"]["number"] for each in first["results"]] == [4, 3, 2]
    second = await house.get("/history/log.x", limit=3, before=first["next"])
    assert ([each["data"]["number"] for each in second["results"]], second["next"]) == ([1, 0], None)
    await house.ask("DELETE", "/history/log.x", 204)
    assert (await house.get("/history/log.x"))["results"] == []
    assert (await house.get("/history/room.a", 404))["error"]["code"] == "not_found"


async def test_an_event_is_sent_to_a_group(house):
    socket = await house.enter("/log/x")
    await socket.receive_json_from(20)
    told = {"group": "log.x", "event": "line", "data": {"a": [1]}, "idempotency_key": "k"}
    first, again = [await house.ask("POST", "/events", json=told) for _ in range(2)]
    assert first == again
    assert (event := await socket.receive_json_from(20))["data"] == {"a": [1]}
    assert event["offset"] == first["position"]["offset"] == 1
    assert await house.ask("POST", "/events", json={"group": "room.a", "event": "x"}) == {"position": None}
    for wrong, status in (
        ({"group": "", "event": "x"}, 422),
        ({"group": "a\nb", "event": "x"}, 400),
        ({"group": "x" * 256, "event": "x"}, 422),
        ({"group": "room.a", "event": "x", "idempotency_key": "k"}, 422),
        ({"group": "room.a", "event": "x", "more": 1}, 422),
    ):
        await house.ask("POST", "/events", status, json=wrong)


@pytest.mark.parametrize("by", ["channel", "user", "group"])
async def test_connections_are_closed(house, by):
    socket = await house.enter("/room/a?name=ann")
    other = await house.enter("/room/b?name=bob")
    [found] = (await house.get("/connections", user="ann"))["results"]
    value = {"channel": found["channel"], "user": "ann", "group": "room.a"}[by]
    told = await house.ask("POST", "/disconnect", 202, json={by: value, "reason": "you know why"})
    assert (told["connections"], len(told["processes"]["answered"])) == (1, 1)
    while True:
        closed = await socket.receive_output(20)
        if closed["type"] == "websocket.close":
            break
    assert (closed["code"], closed["reason"]) == (4409, "you know why")
    assert (await other.call("presence", timeout=20))["count"] >= 0
    nobody = found["channel"].partition("!")[0] + "!999999" if by == "channel" else "nobody"
    assert (await house.ask("POST", "/disconnect", 202, json={by: nobody}))["connections"] == 0
    for wrong in (
        *({}, {"user": "a", "group": "b"}, {"user": "a", "code": 999}, {"user": "a", "code": 1006}),
        *({"channel": each} for each in ("nope", "", "!", "a!", "!1", "a\n!1", "x" * 255 + "!1")),
    ):
        await house.ask("POST", "/disconnect", 422, json=wrong)
    await house.ask("POST", "/disconnect", 400, json={"group": "a\nb"})


async def test_the_level_of_our_loggers_and_of_no_other(house):
    logger, ours = logging.getLogger("fastapi_consumers"), logging.getLogger("fastapi_consumers.hub")
    before, before_ours = logger.level, ours.level
    try:
        found = await house.ask("PUT", "/log-level", json={"level": "DEBUG"})
        [levels] = found["levels"].values()
        assert (levels["fastapi_consumers"], logger.level) == ("DEBUG", logging.DEBUG)
        await house.ask("PUT", "/log-level", json={"logger": "fastapi_consumers.hub", "level": "ERROR"})
        [levels] = (await house.get("/log-level"))["levels"].values()
        assert levels["fastapi_consumers.hub"] == "ERROR"
        names = set(logging.root.manager.loggerDict)
        for name, status in (("uvicorn", 422), ("root", 422), ("", 422), ("fastapi_consumers.made_up", 404)):
            await house.ask("PUT", "/log-level", status, json={"logger": name, "level": "DEBUG"})
        await house.ask("PUT", "/log-level", 422, json={"level": "LOUD"})
        assert set(logging.root.manager.loggerDict) == names
    finally:
        logger.setLevel(before)
        ours.setLevel(before_ours)


@pytest.mark.parametrize("named", [True, False])
async def test_throttles_are_reset(house, named):
    where, whom = ("/room/a?name=7", {"user": "7"}) if named else ("/room/a", {"address": "192.0.2.7"})
    socket = await house.enter(where, client=("192.0.2.7", 1))
    await socket.call("say", {"text": "x"}, timeout=20)

    async def answer():
        await socket.send_json_to({"action": "say", "request_id": 2, "data": {"text": "y"}})
        while (found := await socket.receive_json_from(20)).get("request_id") != 2:
            pass
        return found

    assert (await answer())["error"]["code"] == "throttled"
    assert (await house.ask("POST", "/throttles/reset", json={"user": "8"}))["reset"] == 0
    assert (await house.ask("POST", "/throttles/reset", json=whom))["reset"] == 1
    assert (await answer())["status"] == "ok"
    await house.ask("POST", "/throttles/reset", 422, json={})


@pytest.mark.parametrize(
    ("ident", "told", "others"),
    [
        (7, "7", ["07", "7.0", "9" * 255]),
        (UUID("6f1c2a34-0000-4000-8000-00000000beef"), "6f1c2a34-0000-4000-8000-00000000beef", ["6f1c2a34"]),
    ],
)
async def test_throttles_of_users_whose_ids_are_no_text_are_reset(ident, told, others):
    class Known(BaseAuthentication):
        async def authenticate(self, connection):
            return User(ident), None

    class Desk(GroupConsumer):
        groups = ["desk"]
        authentication_classes = [Known]

        @action(throttle_classes=["1/hour"])
        async def ring(self) -> None: ...

    app = FastAPI()
    add_consumers(app, [path("/", Desk)])
    app.include_router(admin_router(dependencies=[Depends(require_key)]))
    admin = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test/admin", headers=KEY)

    async def reset(user):
        return (await admin.post("/throttles/reset", json={"user": user})).json()["reset"]

    async with lifespan(app), admin, WebsocketCommunicator(app, "/") as socket:
        await socket.call("ring", timeout=20)
        assert [await reset(other) for other in others] == [0] * len(others)
        assert await reset(told) == 1
        await socket.call("ring", timeout=20)


async def test_limits_of_http_endpoints_are_reset(house):
    limit = RateLimit("1/hour")

    @house.app.get("/report", dependencies=[Depends(limit)])
    async def report() -> None: ...

    async def status():
        return (await house.client.get("http://test/report")).status_code

    assert [await status(), await status()] == [200, 429]
    assert (await house.ask("POST", "/throttles/reset", json={"address": "192.0.2.1"}))["reset"] == 0
    assert (await house.ask("POST", "/throttles/reset", json={"address": "127.0.0.1"}))["reset"] == 1
    assert [await status(), await status()] == [200, 429]


async def test_it_works_before_anything_is_open():
    app = FastAPI()
    add_consumers(app)
    app.include_router(admin_router(dependencies=[Depends(require_key)]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/admin/connections", headers=KEY)).json()["total"] == 0
    await app.state.consumers.close()


# -- schedules -----------------------------------------------------------------------------------------------------


async def test_schedules_are_created_listed_paused_run_and_deleted(house):
    socket = await house.enter("/log/x")
    await socket.receive_json_from(20)
    told = {"name": "tea/time", "every": "1h", "group": "log.x", "event": "tea", "data": [1]}
    made = await house.ask("POST", "/schedules", 201, json=told)
    assert (made["name"], made["kind"], made["group"], made["paused"]) == ("tea/time", "event", "log.x", False)
    await house.ask("POST", "/schedules", 201, json={**told, "name": "coffee"})
    first = await house.get("/schedules", limit=1)
    assert ([each["name"] for each in first["results"]], first["total"]) == (["coffee"], 2)
    second = await house.get("/schedules", limit=1, cursor=first["next"])
    assert ([each["name"] for each in second["results"]], second["next"]) == (["tea/time"], None)
    assert (await house.get("/schedules", search="COF"))["total"] == 1
    assert (await house.ask("POST", "/schedules/tea/time/pause"))["paused"] is True
    assert (await house.get("/schedules/tea/time"))["next_run"] is None
    assert (await house.ask("POST", "/schedules/tea/time/resume"))["paused"] is False
    await house.ask("POST", "/schedules/tea/time/run", 202)
    assert (await socket.receive_json_from(20))["event"] == "tea"
    await house.ask("DELETE", "/schedules/tea/time", 204)
    for method, where in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/run")):
        await house.ask(method, f"/schedules/tea/time{where}", 404)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"every": None}, 422),
        ({"cron": "* * * * *"}, 422),
        ({"every": "soon"}, 422),
        ({"group": "a\nb"}, 400),
        ({"name": ""}, 422),
        ({"more": 1}, 422),
    ],
)
async def test_what_cannot_be_a_schedule(house, change, status):
    told = {"name": "tea", "every": "1h", "group": "log.x", "event": "tea", **change}
    await house.ask("POST", "/schedules", status, json=told)
    assert (await house.get("/schedules"))["total"] == 0


async def test_a_name_is_taken_only_once(house):
    told = {"name": "tea", "every": "1h", "group": "log.x", "event": "tea"}
    await house.ask("POST", "/schedules", 201, json=told)
    answer = await house.ask("POST", "/schedules", 422, json=told)
    assert answer["error"]["details"][0]["type"] == "schedule-name-taken"
    assert (await house.ask("POST", "/schedules", 201, json={**told, "every": "2h", "replace": True}))[
        "when"
    ] == "every 7200 s"
