"""The document: valid by AsyncAPI's own schema, and true of what is sent."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from jsonschema import Draft7Validator
from starlette.applications import Starlette

from fastapi_consumers import (
    Consumer,
    CursorPagination,
    GroupConsumer,
    JSONConsumer,
    PageNumberPagination,
    action,
    add_consumers,
    add_routes,
    path,
)
from fastapi_consumers.asyncapi import AsyncAPI, asyncapi_document
from fastapi_consumers.asyncapi.security import with_absolute_urls
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.serializers import ResponseSerializer
from fastapi_consumers.testing import WebsocketCommunicator
from tests.asyncapi.app import app

SCHEMA = json.loads(Path(__file__).with_name("schema").joinpath("3.0.0.json").read_text(encoding="utf-8"))


NOT_JSON = object()


def mistakes(document: Any) -> list[str]:
    """What AsyncAPI's own schema finds wrong, and references that lead nowhere."""
    found: list[str] = []
    for error in Draft7Validator(SCHEMA).iter_errors(document):
        while error.context:
            error = max(error.context, key=lambda inner: len(inner.absolute_path))
        found.append(f"{'/'.join(map(str, error.absolute_path))}: {error.message:.300}")
    return found + [
        f"{reference} leads nowhere" for reference in references(document) if at(document, reference) is None
    ]


def references(value: Any) -> set[str]:
    if isinstance(value, list):
        return {each for item in value for each in references(item)}
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own | {each for item in value.values() for each in references(item)}
    return set()


def at(document: Any, reference: str) -> Any:
    found = document
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found


def payload(document: Any, channel: str, message: str) -> Any:
    return document["channels"][channel]["messages"][message]["payload"]


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(json.dumps(asyncapi_document(app)))


def matching(document: Any, channel: str, frame: Any) -> list[str]:
    """The messages of a channel whose schema a frame fits."""
    return [
        name
        for name, message in document["channels"][channel]["messages"].items()
        if Draft7Validator({"allOf": [message["payload"]], "components": document["components"]}).is_valid(frame)
    ]


@pytest.mark.parametrize(
    "module",
    [
        "examples.chat.app",
        "tests.asyncapi.app",
        "tests.server.app",
        "tests.presence.app",
        "tests.authentication.served",
    ],
)
def test_it_is_valid_for_the_example_and_for_the_apps_of_the_tests(module: str) -> None:
    document = asyncapi_document(importlib.import_module(module).app)
    assert document["channels"]
    assert document["operations"]
    assert mistakes(json.loads(json.dumps(document))) == []


def test_the_schema_finds_mistakes(document: Any) -> None:
    assert mistakes({**document, "info": {}}) != []
    assert mistakes({**document, "operations": {"x": {"action": "receive", "channel": {"$ref": "#/channels/no"}}}}) == [
        "#/channels/no leads nowhere"
    ]


# -- what is said of an application ------------------------------------------------------------------------------------


def test_the_application_is_told_of_as_in_its_openapi_document(document: Any) -> None:
    assert document["info"] == {
        "title": "Tea room",
        "version": "1.4.2",
        "description": "Chat, and more, over WebSockets.",
        "termsOfService": "https://example.com/terms",
        "contact": {"name": "Ann", "url": "https://example.com/ann", "email": "ann@example.com"},
        "license": {"name": "MIT"},
        "tags": [{"name": "chat", "description": "Talking."}],
    }
    settings = AsyncAPI(title="Other", version="2", description="x", servers={"a b": {"host": "h", "protocol": "wss"}})
    changed = asyncapi_document(app, settings)
    assert changed["info"] | {"title": "Other", "version": "2", "description": "x"} == changed["info"]
    assert changed["servers"] == {"a_b": {"host": "h", "protocol": "wss"}}
    assert mistakes(json.loads(json.dumps(changed))) == []


def test_starlette_and_an_app_without_consumers() -> None:
    bare = asyncapi_document(Starlette())
    assert (bare["info"], bare["channels"], bare["operations"]) == (
        {"title": "Application", "version": "0.1.0"},
        {},
        {},
    )
    assert mistakes(bare) == []


def test_a_route_is_a_channel_with_its_parameters_and_its_docstring(document: Any) -> None:
    assert list(document["channels"]) == ["room", "odd", "odd_2", "Relay"]
    room = document["channels"]["room"]
    assert (room["address"], room["title"], room["tags"]) == ("/rooms/{room}", "Room", [{"name": "chat"}])
    assert room["summary"] == "A room where everybody hears everybody."
    assert room["description"].endswith("- come back with `recover`,\n- or ask for the `history`.")
    assert list(room["parameters"]) == ["room"]
    odd = document["channels"]["odd"]
    assert (odd["address"], odd["parameters"]) == ("/odd/{number}", {"number": {"description": "A whole number."}})
    assert list(room["bindings"]["ws"]["query"]["properties"]) == ["recover"]
    assert room["x-groups"] == ["room.{room}"]
    assert room["x-history"] == {"size": 1000, "ttl": 86400.0}


def test_included_routers_and_mounted_apps_are_told_of_with_their_own_settings() -> None:
    class Way(BaseAuthentication):
        def authenticate(self, connection: Any) -> None:
            return None

        def get_security_schemes(self, token_keys: Any) -> Any:
            return {"way in": {"type": "userPassword"}}

    class Inner(JSONConsumer):
        @action
        async def ping(self) -> str:
            return "pong"

    outer, inner, router = FastAPI(), FastAPI(), APIRouter(prefix="/v1")
    add_consumers(inner, [path("/inner", Inner)], authentication_classes=[Way])
    add_routes(router, [path("/outer", Inner, name="a/b", tags=["x", "x"])])
    outer.include_router(router)
    outer.mount("/mounted", inner)
    document = asyncapi_document(outer)
    addresses = {key: channel["address"] for key, channel in document["channels"].items()}
    assert addresses == {"a_b": "/v1/outer", "Inner": "/mounted/inner"}
    assert document["channels"]["a_b"]["tags"] == [{"name": "x"}]
    assert "security" not in document["operations"]["a_b.ping"]
    assert document["operations"]["Inner.ping"]["security"] == [{"$ref": "#/components/securitySchemes/way_in"}]
    assert mistakes(document) == []


# -- actions, events, notices ------------------------------------------------------------------------------------------


def test_actions_are_received_and_answered_and_events_are_sent(document: Any) -> None:
    operations = document["operations"]
    room = [name.removeprefix("room.") for name in operations if name.startswith("room.")]
    assert room == [
        "say", "count", "wave", "shout", "draw", "fail",
        "cancel", "presence", "authenticate", "history", "said.event", "notices",
    ]  # fmt: skip
    say = operations["room.say"]
    assert (say["action"], say["title"], say["channel"]) == ("receive", "say", {"$ref": "#/channels/room"})
    assert (say["summary"], say["description"]) == (
        "Say something to everybody in the `room`.",
        "Returns how many words it had.",
    )
    assert say["messages"] == [{"$ref": "#/channels/room/messages/say.request"}]
    answers = [entry["$ref"].rpartition("/")[2] for entry in say["reply"]["messages"]]
    assert (say["reply"]["channel"], answers) == ({"$ref": "#/channels/room"}, ["say.ok", "say.error"])
    for name in ("say.request", "say.ok", "say.error"):
        correlation = document["channels"]["room"]["messages"][name]["correlationId"]
        assert correlation["location"] == "$message.payload#/request_id"
    assert operations["room.said.event"]["action"] == operations["room.notices"]["action"] == "send"
    assert [entry["$ref"].rpartition("/")[2] for entry in operations["room.count"]["reply"]["messages"]] == [
        "count.partial", "count.ok", "count.error"
    ]  # fmt: skip


def test_what_an_action_is_marked_with_is_told(document: Any) -> None:
    operations = document["operations"]
    assert operations["room.wave"]["x-deprecated"] is True
    assert operations["room.wave"]["tags"] == [{"name": "chat"}, {"name": "deprecated"}]
    assert document["channels"]["room"]["messages"]["wave.request"]["deprecated"] is True
    assert operations["room.shout"]["x-disabled"] is True
    assert operations["room.count"]["x-streams"] is True
    draw = operations["room.draw"]
    assert (draw["x-concurrent"], draw["x-timeout"], draw["x-action"]) == (True, 5.0, "draw")
    assert draw["x-rates"] == ["1000/second", "1000/minute"]
    assert operations["room.cancel"]["x-built-in"] is True
    assert "x-built-in" not in operations["room.say"]


def test_data_has_the_schema_of_the_type_hints(document: Any) -> None:
    schemas = document["components"]["schemas"]
    request = payload(document, "room", "say.request")
    assert request["required"] == ["action", "data"]
    assert request["properties"]["data"] == {"$ref": "#/components/schemas/Say"}
    assert schemas["Say"]["properties"]["text"]["maxLength"] == 100
    assert payload(document, "room", "say.ok")["properties"]["data"] == {"type": "integer"}
    count = payload(document, "room", "count.request")
    assert count["required"] == ["action"]
    data = count["properties"]["data"]
    assert {name: found["default"] for name, found in data["properties"].items()} == {"to": 3, "step": 1}
    assert (data["properties"]["to"]["minimum"], "title" in data) == (1, False)
    # Draft 07 has neither prefixItems nor a discriminator that is an object.
    draw = payload(document, "room", "draw.request")["properties"]["data"]["properties"]
    assert draw["at"]["items"] == [{"type": "integer"}, {"type": "integer"}]
    assert set(draw["shape"]) >= {"oneOf"}
    assert "discriminator" not in draw["shape"]
    assert "data" not in payload(document, "room", "wave.request")["properties"]
    assert payload(document, "room", "wave.ok")["properties"]["data"] == {"type": "null"}
    assert not [name for name in schemas if "Data" in name]


def test_errors_have_the_codes_that_the_action_may_answer_with(document: Any) -> None:
    def codes(action: str) -> set[str]:
        body = payload(document, "room", f"{action}.error")["properties"]["error"]["properties"]
        return {entry["const"] for entry in body["code"]["anyOf"] if "const" in entry}

    always = {"not_authenticated", "permission_denied", "throttled", "internal_error"}
    own = always | {"cancelled", "broker_unavailable", "history_unavailable"}
    assert codes("say") == own | {"invalid_data"}
    assert codes("wave") == own
    assert codes("shout") == own | {"invalid_data", "action_disabled"}
    assert codes("draw") == own | {"invalid_data", "timeout"}
    assert codes("fail") == own | {"http_error", "out_of_tea"}
    assert codes("cancel") == always | {"invalid_data", "not_found"}
    assert codes("presence") == always | {"invalid_data", "broker_unavailable"}
    assert codes("history") == codes("presence") | {"not_found", "history_unavailable", "invalid_cursor"}


def test_an_action_that_pages_may_be_given_a_bad_cursor_or_page() -> None:
    class Shelf(JSONConsumer):
        @action
        async def by_cursor(self, data: CursorPagination.Params) -> None: ...

        @action
        async def by_number(self, data: PageNumberPagination.Params) -> None: ...

    app = FastAPI()
    add_consumers(app, [path("/shelf", Shelf)])
    document = asyncapi_document(app)
    for name, code in (("by_cursor", "invalid_cursor"), ("by_number", "invalid_page")):
        body = payload(document, "Shelf", f"{name}.error")["properties"]["error"]["properties"]
        named = {entry.get("const") for entry in body["code"]["anyOf"]}
        assert named & {"invalid_cursor", "invalid_page"} == {code}


def test_the_errors_that_an_action_names_come_first_with_what_they_mean(document: Any) -> None:
    error = payload(document, "room", "fail.error")["properties"]["error"]
    codes = error["properties"]["code"]["anyOf"]
    assert codes[:2] == [
        {
            "const": "out_of_tea",
            "description": "There is no tea left.",
            "x-close-code": 4410,
            "x-retryable": True,
        },
        {"const": "permission_denied", "description": "This is somebody else's cup.", "x-close-code": 4403},
    ]
    named = [entry["const"] for entry in codes if "const" in entry]
    assert len(named) == len(set(named))
    assert error["properties"]["retryable"]["const"] is True


def test_events_that_no_class_declares_are_of_any_name() -> None:
    class Open(GroupConsumer):
        groups = ["open"]

    class Own(ResponseSerializer):
        @classmethod
        def from_event(cls, event: Any, data: Any) -> Any:
            return {"e": event.event}

    class Shaped(Open):
        events = {"x": int}
        response_serializer_class = Own

    app = FastAPI()
    add_consumers(app, [path("/open", Open), path("/shaped", Shaped)])
    document = asyncapi_document(app)
    assert payload(document, "Open", "event")["properties"]["event"]["type"] == "string"
    assert payload(document, "Shaped", "x.event") == {"description": "As the class's own envelope has it."}
    assert mistakes(document) == []


def test_consumers_without_envelopes_have_frames() -> None:
    class Raw(Consumer):
        pass

    app = FastAPI()
    add_consumers(app, [path("/raw", Raw)])
    document = asyncapi_document(app)
    assert {name: found["action"] for name, found in document["operations"].items()} == {
        "Raw.receive": "receive",
        "Raw.send": "send",
    }
    # No docstring but the framework's own.
    assert "summary" not in document["channels"]["Raw"]
    assert mistakes(document) == []


def test_a_type_that_json_cannot_show_leaves_the_rest() -> None:
    from collections.abc import Callable

    class Odd(JSONConsumer):
        @action
        async def call(self, x: int, function: Callable[[], int] | None = None, marker: Any = NOT_JSON) -> None: ...

    app = FastAPI()
    add_consumers(app, [path("/odd", Odd)])
    data = payload(asyncapi_document(app), "Odd", "call.request")["properties"]["data"]
    assert data["required"] == ["x"]
    assert set(data["properties"]) == {"x", "function", "marker"}


# -- security ----------------------------------------------------------------------------------------------------------


def test_security_schemes_come_from_the_authentication_classes(document: Any) -> None:
    schemes = document["components"]["securitySchemes"]

    def names(operation: str) -> list[str]:
        return [entry["$ref"].rpartition("/")[2] for entry in document["operations"][operation]["security"]]

    assert names("room.say") == ["bearer", "query.token", "cookie.token", "firstMessage"]
    assert names("odd_2.add") == ["header.X-API-Key", "OAuth2PasswordBearer", "APIKeyQuery"]
    assert "security" not in document["operations"]["odd.add"]
    told = {name: {key: found.get(key) for key in ("type", "in", "name")} for name, found in schemes.items()}
    assert told["bearer"]["type"] == "http"
    assert told["query.token"] == {"type": "httpApiKey", "in": "query", "name": "token"}
    assert told["header.X-API-Key"] == {"type": "httpApiKey", "in": "header", "name": "X-API-Key"}
    assert told["APIKeyQuery"] == {"type": "httpApiKey", "in": "query", "name": "key"}
    flow = oauth2(asyncapi_document(app, SERVERS))["flows"]["password"]
    assert flow == {"tokenUrl": "https://example.com/token", "availableScopes": {"chat": "Talk."}}


def oauth2(document: Any) -> Any:
    return document["components"]["securitySchemes"]["OAuth2PasswordBearer"]


SERVERS = AsyncAPI(servers={"production": {"host": "example.com", "protocol": "wss", "pathname": "/api"}})


def test_a_token_url_is_absolute_where_the_server_is_known(document: Any) -> None:
    """AsyncAPI wants it absolute; FastAPI's is most often relative."""
    assert mistakes(asyncapi_document(app, SERVERS)) == []
    assert oauth2(document) == {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of oauth2, from `/token` on this server.",
    }
    staged = AsyncAPI(servers={"any": {"host": "{stage}.example.com", "protocol": "wss"}})
    assert oauth2(asyncapi_document(app, staged))["type"] == "http"
    flows = {"password": {"tokenUrl": "token"}, "implicit": {"authorizationUrl": "https://id.example.com/"}}
    relative = {"components": {"securitySchemes": {"a": {"type": "oauth2", "flows": flows}}}}
    server = {"host": "localhost:8000", "protocol": "ws", "pathname": "/api"}
    resolved = with_absolute_urls(relative, server)["components"]["securitySchemes"]["a"]["flows"]
    assert resolved["password"]["tokenUrl"] == "http://localhost:8000/api/token"
    assert resolved["implicit"] == flows["implicit"]
    assert flows["password"] == {"tokenUrl": "token"}


def test_schemes_that_differ_do_not_share_a_name() -> None:
    class Way(BaseAuthentication):
        def __init__(self, kind: str) -> None:
            self.kind = kind

        def authenticate(self, connection: Any) -> None:
            return None

        def get_security_schemes(self, token_keys: Any) -> Any:
            return {"way": {"type": self.kind}}

    class One(JSONConsumer):
        authentication_classes = [Way("plain"), Way("gssapi"), Way("plain")]

        @action
        async def ping(self) -> None: ...

    app = FastAPI()
    add_consumers(app, [path("/one", One)])
    document = asyncapi_document(app)
    assert document["components"]["securitySchemes"] == {"way": {"type": "plain"}, "way_2": {"type": "gssapi"}}
    assert len(document["operations"]["One.ping"]["security"]) == 2


# -- it is true --------------------------------------------------------------------------------------------------------


async def test_each_frame_is_one_of_the_documented_messages_and_no_other(document: Any) -> None:
    """As AsyncAPI asks: a message is valid against one, and only one, of its channel's messages."""
    requests = [
        {"action": "say", "request_id": 1, "data": {"text": "hi", "mentions": [{"id": 1, "name": "bob"}]}},
        {"action": "count", "request_id": "two", "data": {"to": 2}},
        {"action": "wave", "request_id": 3},
        {"action": "draw", "request_id": 5, "data": {"shape": {"kind": "circle", "radius": 1.5}, "at": [1, 2]}},
        {"action": "fail", "request_id": 6},
        {"action": "presence", "request_id": 8},
        {"action": "history", "request_id": 9, "data": {"limit": 1}},
        {"action": "authenticate", "request_id": 10, "data": {"token": "good-ann"}},
    ]
    seen: set[str] = set()
    headers = {"Authorization": "Bearer good-ann"}
    async with WebsocketCommunicator(app, "/rooms/lobby", headers=headers) as client:
        for request in requests:
            assert matching(document, "room", request) == [f"{request['action']}.request"]
            await client.send_json_to(request)
        # Those that fit nothing, and are answered with an error.
        await client.send_json_to({"action": "shout", "request_id": 11, "data": {"text": "x"}})
        await client.send_json_to({"action": "say", "request_id": 12, "data": {"text": ""}})
        await client.send_json_to({"action": "cancel", "request_id": 13, "data": {"request_id": 99}})
        await client.send_to("no request")
        expected = {
            "say.ok", "said.event", "count.partial", "count.ok", "wave.ok", "draw.ok", "fail.error", "presence.ok",
            "history.ok", "authenticate.ok", "shout.error", "say.error", "cancel.error", "error.notice",
            "joined.notice", "presence.notice",
        }  # fmt: skip
        while seen != expected:
            frame = await client.receive_json_from(timeout=20)
            names = matching(document, "room", frame)
            assert len(names) == 1, (frame, names)
            seen.update(names)


async def test_envelopes_of_ones_own_are_documented_as_they_are(document: Any) -> None:
    async with WebsocketCommunicator(app, "/odd/1") as client:
        request = {"do": "add", "request_id": 1, "x": 1}
        assert matching(document, "odd", request) == ["add.request"]
        assert matching(document, "odd", {"do": "add", "x": "one"}) == []
        await client.send_json_to(request)
        answer = await client.receive_json_from()
        assert (answer["data"], matching(document, "odd", answer)) == (3, ["add.ok"])
        await client.send_json_to({"do": "add", "request_id": 2})
        assert matching(document, "odd", await client.receive_json_from()) == ["add.error"]


@pytest.mark.parametrize(
    ("notice", "frame"),
    [
        ("closing", {"type": "closing", "code": 1012, "reconnect": True, "after": 1.7}),
        ("left", {"type": "left", "group": "room.7", "error": {"code": "permission_denied", "message": "No."}}),
        ("gap", {"type": "gap", "group": "room.7"}),
    ],
)
def test_notices_that_come_seldom_are_documented_too(document: Any, notice: str, frame: Any) -> None:
    """As docs/protocol.md shows them."""
    assert matching(document, "room", frame) == [f"{notice}.notice"]
