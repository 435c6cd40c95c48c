"""What the admin API answers when something is wrong: an error as consumers send it, and as its document says."""

import json

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator
from starlette.responses import PlainTextResponse

from fastapi_consumers import GroupConsumer, add_consumers, path
from fastapi_consumers.admin import admin_router
from fastapi_consumers.testing import lifespan
from fastapi_consumers.transports import MemoryTransport
from tests.admin.conftest import KEY, make_app, require_key

HALF = "\ud83d"
BODIES = {
    "/events": {"group": "log.a", "event": "x", "data": 1},
    "/disconnect": {"user": "ann", "reason": "x"},
    "/throttles/reset": {"user": "ann"},
    "/schedules": {"name": "tea", "every": "1h", "group": "log.a", "event": "x"},
    "/schedules/tea/run": {},
    "/log-level": {"level": "INFO"},
}


def with_field(where, field, text):
    """The body as JSON text, since some of what is sent no encoder makes."""
    fields = {name: json.dumps(value) for name, value in BODIES[where].items()} | {field: text}
    if where == "/disconnect" and field in ("channel", "group"):
        del fields["user"]
    if field == "cron":
        del fields["every"]
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}"


async def send(house, where, content, method="POST"):
    headers = {**KEY, "content-type": "application/json"}
    return await house.client.request(method, f"/admin{where}", headers=headers, content=content)


def error_of(answer, status=422, code="invalid_data"):
    assert (answer.status_code, answer.json().keys()) == (status, {"error"}), answer.text
    error = answer.json()["error"]
    assert (error["code"], type(error["message"])) == (code, str)
    return error


TEXTS = [
    *[("/events", name) for name in ("group", "event", "data", "idempotency_key", "coalesce_key", "other")],
    *[("/disconnect", name) for name in ("user", "channel", "group", "reason")],
    *[("/throttles/reset", name) for name in ("user", "address")],
    *[("/schedules", name) for name in ("name", "group", "event", "data", "every", "cron", "tz")],
    ("/schedules/tea/run", "group"),
    ("/log-level", "logger"),
]


@pytest.mark.parametrize(("where", "field"), TEXTS)
@pytest.mark.parametrize("wrong", [r'"\ud83d"', '{"a": [1e309]}', "1e309", "NaN"])
async def test_the_field_that_is_wrong_is_named_and_what_was_sent_is_not_repeated(house, where, field, wrong):
    answer = await send(house, where, with_field(where, field, wrong), "PUT" if where == "/log-level" else "POST")
    details = error_of(answer)["details"]
    assert [each["loc"][:2] for each in details] == [["body", field]]
    assert {name for each in details for name in each} == {"loc", "type", "message"}


@pytest.mark.parametrize("where", ["/events", "/schedules"])
@pytest.mark.parametrize(
    ("data", "word"),
    [
        (r'{"a": ["\ud800"]}', "surrogate"),
        (r'{"\ud800": 1}', "surrogate"),
        ('{"a": [NaN]}', "finite"),
        ("-Infinity", "finite"),
        ("1e400", "finite"),
        ("[" * 201 + "1" + "]" * 201, "nested"),
        ("[" * 500 + "]" * 500, "nested"),
    ],
)
async def test_data_that_no_client_could_send_is_refused(house, where, data, word):
    [detail] = error_of(await send(house, where, with_field(where, "data", data)))["details"]
    assert (detail["loc"], word in detail["message"]) == (["body", "data"], True)
    assert (await house.get("/schedules"))["results"] == []


async def test_data_as_deep_as_a_frame_may_be_is_taken(house):
    data = "[" * 200 + "1" + "]" * 200
    assert (await send(house, "/events", with_field("/events", "data", data))).status_code == 200


@pytest.mark.parametrize("content", ["{", "[]", '"x"', b"\xff\xfe", "[" * 100_000, r'{"\ud800": 1}'])
@pytest.mark.parametrize("where", ["/events", "/schedules"])
async def test_what_is_no_body_at_all(house, where, content):
    answer = await send(house, where, content)
    assert answer.status_code in (400, 422)
    assert answer.json().keys() == {"error"}


class Declared(GroupConsumer):
    groups = ["declared"]
    events = {"said": int}


async def test_data_that_a_class_declares_otherwise_is_what_is_blamed():
    app = FastAPI()
    add_consumers(app, [path("/declared", Declared)])
    app.include_router(admin_router(dependencies=[Depends(require_key)]))
    async with lifespan(app), client_of(app) as client:
        told = {"group": "declared", "event": "said", "data": "much"}
        [detail] = error_of(await client.post("/admin/events", json=told, headers=KEY))["details"]
    assert detail["loc"] == ["body", "data"]


async def test_an_idempotency_key_that_is_of_no_use_is_what_is_blamed(house):
    for told in ({"group": "room.a", "idempotency_key": "k"}, {"group": "log.a", "idempotency_key": "a\nb"}):
        answer = await house.client.post("/admin/events", json={"event": "x", **told}, headers=KEY)
        [detail] = error_of(answer)["details"]
        assert detail["loc"] == ["body", "idempotency_key"]


# -- the same shape everywhere -------------------------------------------------------------------------------------


def client_of(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


def operations():
    """Method, path as it is asked for, and what the document says of it."""
    found = []
    for where, item in make_app().openapi()["paths"].items():
        for method, operation in item.items():
            found.append((method.upper(), where.replace("{group}", "room.a").replace("{name}", "tea"), operation))
    assert len(found) >= 20
    return found


def check(answer, operation, document):
    """A body is what the document says of its status."""
    content = operation["responses"][str(answer.status_code)]["content"]["application/json"]
    schema = {**content["schema"], "components": document["components"]}
    assert schema["$ref"] == "#/components/schemas/ErrorAnswer"
    Draft202012Validator(schema).validate(answer.json())
    # It would let everything pass, were it of optional fields only.
    assert not Draft202012Validator(schema).is_valid({"detail": "x"})


@pytest.mark.parametrize(("method", "where", "operation"), operations())
async def test_errors_are_what_the_document_says(house, method, where, operation):
    document = house.app.openapi()
    json_body = {"json": {}} if method in ("POST", "PUT") else {}
    seen = []
    for headers, asked in (
        ({}, where),
        ({"x-key": "wrong"}, where),
        (KEY, where),
        (KEY, f"{where}%0A"),
        (KEY, f"{where}?limit=0&cursor=%20"),
        (KEY, where.replace("room.a", "x" * 256).replace("tea", "x" * 129)),
        (KEY, where.replace("room.a", "a%07b").replace("tea", "a%07b")),
    ):
        answer = await house.client.request(method, asked, headers=headers, **json_body)
        seen.append(answer.status_code)
        if answer.status_code >= 400:
            check(answer, operation, document)
    assert seen[:2] == [401, 403]
    assert ("/tea" not in where and "/room.a" not in where) or 404 in seen[2:]
    assert "HTTPValidationError" not in json.dumps(document)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (
            HTTPException(401, headers={"WWW-Authenticate": "Basic", "x-more": "yes", "vary": "cookie"}),
            "not_authenticated",
        ),
        (HTTPException(401, "Who?"), "not_authenticated"),
        (HTTPException(403, {"why": "so"}), "permission_denied"),
        (HTTPException(404), "not_found"),
        (HTTPException(418, "Teapot"), "http_error"),
        (HTTPException(429, headers={"retry-after": "7"}), "throttled"),
        (HTTPException(503), "http_error"),
        (RequestValidationError([{"loc": ("header", "x"), "msg": "no", "type": "t", "input": HALF}]), "invalid_data"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("settled", [False, True])
async def test_what_fastapi_raises_keeps_its_status_and_headers(raised, code, settled):
    seen = []

    async def opens():
        try:
            yield
        except Exception as error:
            seen.append(error)
            raise

    async def refuses(_=Depends(opens)):
        raise raised

    app = FastAPI()
    if settled:  # The application answers its own errors otherwise, here none of them.
        for key in (HTTPException, RequestValidationError, getattr(raised, "status_code", 422)):
            app.add_exception_handler(key, lambda request, error: PlainTextResponse("mine", 499))
    add_consumers(app, add_exception_handlers=False)
    app.include_router(admin_router(dependencies=[Depends(refuses)]))
    async with client_of(app) as client:
        answer = await client.get("/admin/settings")
    error_of(answer, getattr(raised, "status_code", 422), code)
    assert seen == [raised], "a dependency that opens something learns that it failed"
    operation = app.openapi()["paths"]["/admin/settings"]["get"]
    if str(answer.status_code) in operation["responses"]:
        check(answer, operation, app.openapi())
    for name, value in (getattr(raised, "headers", None) or {}).items():
        assert value in answer.headers[name]
    assert answer.headers["content-type"] == "application/json"


async def test_a_redirect_to_a_login_is_no_error():
    async def refuses():
        raise HTTPException(303, headers={"location": "/login"})

    app = FastAPI()
    add_consumers(app)
    app.include_router(admin_router(dependencies=[Depends(refuses)]))
    async with client_of(app) as client:
        for where in ("/admin", "/admin/settings"):
            answer = await client.get(where)
            assert (answer.status_code, answer.headers["location"]) == (303, "/login")


async def test_an_error_of_ours_needs_no_handler_of_the_application():
    app = FastAPI()
    add_consumers(app, add_exception_handlers=False)
    app.include_router(admin_router(dependencies=[Depends(require_key)]))
    async with client_of(app) as client:
        error_of(await client.get("/admin/settings"), 401, "not_authenticated")


async def test_a_parameter_of_a_dependency_may_be_wrong_at_every_route():
    async def wants(x_level: int = Header()):
        pass

    app = FastAPI()
    add_consumers(app)
    app.include_router(admin_router(dependencies=[Depends(wants)]))
    document = app.openapi()
    async with client_of(app) as client:
        for where in ("/admin/settings", "/admin/numbers", "/admin/log-level"):
            answer = await client.get(where)
            assert error_of(answer)["details"][0]["loc"] == ["header", "x-level"]
            check(answer, document["paths"][where]["get"], document)


# -- paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["%0A", "%0D", "%0D%0A", "%0A%0A", "%00", "%E2%80%A8"])
async def test_a_name_is_never_taken_for_another(house, ending):
    await house.consumers.broadcast("log.x", "line", 1)
    await house.ask("POST", "/schedules", 201, json=BODIES["/schedules"])
    for method, where in (
        ("DELETE", "/history/log.x"),
        ("GET", "/history/log.x"),
        ("GET", "/groups/log.x"),
        ("GET", "/presence/log.x"),
        ("GET", "/schedules/tea"),
        ("DELETE", "/schedules/tea"),
        ("POST", "/schedules/tea/run"),
        ("POST", "/schedules/tea/pause"),
        ("POST", "/schedules/tea/resume"),
    ):
        answer = await house.client.request(method, f"/admin{where}{ending}", headers=KEY)
        assert 400 <= answer.status_code < 500, (method, where, answer.text)
        if "/tea/" in where:
            wrong = where.replace("tea", f"tea{ending}")
            answer = await house.client.request(method, f"/admin{wrong}", headers=KEY)
            assert 400 <= answer.status_code < 500, (method, wrong, answer.text)
    assert len((await house.get("/history/log.x"))["results"]) == 1
    assert (await house.get("/schedules/tea"))["paused"] is False


def test_all_that_takes_a_path_parameter_is_known_here():
    router = admin_router(dependencies=[Depends(require_key)])
    found = {route.path for route in router.routes if isinstance(route, APIRoute) and "{" in route.path}
    schedule = "/admin/schedules/{name:path}"
    assert found == {
        "/admin/static/{name}",
        *[f"/admin/{each}/{{group:path}}" for each in ("groups", "presence", "history")],
        *[f"{schedule}{each}" for each in ("", "/run", "/pause", "/resume")],
    }


class Far(MemoryTransport):
    """One that reaches other processes and keeps nothing."""

    is_distributed = True


async def test_what_there_is_no_place_for_is_not_found():
    app = FastAPI()
    add_consumers(app, transport=Far())
    app.include_router(admin_router(dependencies=[Depends(require_key)]))
    async with client_of(app) as client:
        for method, where, body in (
            ("GET", "/presence/room.a", None),
            ("GET", "/presence/room.a?count_only=1", None),
            ("GET", "/schedules", None),
            ("POST", "/schedules", BODIES["/schedules"]),
            ("GET", "/schedules/tea", None),
            ("DELETE", "/schedules/tea", None),
            ("POST", "/schedules/tea/run", {}),
            ("POST", "/schedules/tea/pause", None),
            ("POST", "/schedules/tea/resume", None),
        ):
            answer = await client.request(method, f"/admin{where}", headers=KEY, json=body)
            error_of(answer, 404, "not_found")
