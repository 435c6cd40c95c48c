"""Sessions, shared secrets and FastAPI's dependencies."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from fastapi import Body, Depends, FastAPI, HTTPException, Request, Security, WebSocket
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPAuthorizationCredentials,
    HTTPBasic,
    HTTPBasicCredentials,
    HTTPBearer,
    OAuth2PasswordBearer,
    SecurityScopes,
)
from starlette.requests import HTTPConnection

from fastapi_consumers import JSONConsumer, NotAuthenticated, action, path
from fastapi_consumers.authentication import (
    APIKeyAuthentication,
    Credential,
    DependsAuthentication,
    SessionAuthentication,
)
from fastapi_consumers.permissions import IsAuthenticated
from fastapi_consumers.testing import WebsocketCommunicator

Handshake = Callable[..., Any]


# Sessions


class Sessions(SessionAuthentication):
    async def get_user(self, session: Any, connection: Any) -> Any:
        name = session.get("name")
        return (name, Credential(token_id=session["id"])) if name == "ann" else name


async def test_a_session_says_who_it_is(handshake: Handshake) -> None:
    user, auth = await Sessions().authenticate(handshake(session={"name": "ann", "id": "s-1"}))
    assert (user, auth.token_id) == ("ann", "s-1")
    assert await Sessions().authenticate(handshake(session={"name": "ben"})) == ("ben", None)
    assert await Sessions().authenticate(handshake(session={})) is None


async def test_without_the_middleware_there_is_no_session(handshake: Handshake) -> None:
    with pytest.raises(RuntimeError, match=r"Sessions found no session.*SessionMiddleware"):
        await Sessions().authenticate(handshake())


# Shared secrets

KEYS = APIKeyAuthentication({"billing": "s3cret", "mail": "other"})


async def test_a_key_is_known_by_its_name(handshake: Handshake) -> None:
    user, auth = await KEYS.authenticate(handshake({"X-API-Key": "other"}))
    assert (user.id, auth.token_id) == ("mail", "mail")
    assert await KEYS.authenticate(handshake({"Authorization": "Bearer other"})) is None
    named = APIKeyAuthentication({"billing": "s3cret"}, header="X-Billing")
    assert (await named.authenticate(handshake({"x-billing": "s3cret"})))[0].id == "billing"


@pytest.mark.parametrize("key", ["", "s3cre", "s3cret ", "S3CRET", "billing", "ä", "x" * 2000])
async def test_any_other_key_is_refused(handshake: Handshake, key: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        await KEYS.authenticate(handshake({"X-API-Key": key}))
    assert caught.value.code == "invalid_token"


async def test_get_user_may_say_who_it_is_and_refuse(handshake: Handshake) -> None:
    class Own(APIKeyAuthentication):
        def get_user(self, name: str, connection: Any) -> Any:
            return (f"service {name}", None) if name == "mail" else None

    own = Own({"billing": "s3cret", "mail": "other"})
    assert await own.authenticate(handshake({"X-API-Key": "other"})) == ("service mail", None)
    with pytest.raises(NotAuthenticated):
        await own.authenticate(handshake({"X-API-Key": "s3cret"}))


def test_keys_are_compared_by_their_hashes_and_not_kept() -> None:
    assert "s3cret" not in str(vars(KEYS))
    assert repr(KEYS) == "APIKeyAuthentication()"


@pytest.mark.parametrize("keys", [{}, {"a": ""}, {"a": None}, {"a": "x" * 1025}])
def test_keys_that_are_none(keys: Any) -> None:
    with pytest.raises(ValueError, match="key"):
        APIKeyAuthentication(keys)


# FastAPI's dependencies

USERS = {"t-ann": "ann"}


def user_of(token: str | None) -> str | None:
    if token is not None and token not in USERS:
        raise HTTPException(401, "Unknown.", {"WWW-Authenticate": "Custom"})
    return USERS.get(token or "")


def by_oauth(token: Annotated[str | None, Depends(OAuth2PasswordBearer("token", auto_error=False))]) -> str | None:
    return user_of(token)


def by_bearer(
    found: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> str | None:
    return user_of(found.credentials if found else None)


def by_basic(found: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]) -> str | None:
    return user_of(found.password if found else None)


async def by_header(key: Annotated[str | None, Depends(APIKeyHeader(name="X-Key", auto_error=False))]) -> str | None:
    return user_of(key)


async def by_cookie(key: Annotated[str | None, Depends(APIKeyCookie(name="key", auto_error=False))]) -> str | None:
    return user_of(key)


async def by_query(key: Annotated[str | None, Depends(APIKeyQuery(name="key", auto_error=False))]) -> str | None:
    return user_of(key)


async def by_request(request: Request) -> str | None:
    assert (request.method, request.url.path) == ("GET", "/")
    return user_of(request.headers.get("x-key"))


async def by_websocket(websocket: WebSocket) -> str | None:
    return user_of(websocket.headers.get("x-key"))


async def by_connection(connection: HTTPConnection) -> str | None:
    return user_of(connection.headers.get("x-key"))


WAYS: dict[Any, Callable[[str], dict[str, Any]]] = {
    by_oauth: lambda token: {"headers": {"Authorization": f"Bearer {token}"}},
    by_bearer: lambda token: {"headers": {"Authorization": f"Bearer {token}"}},
    by_basic: lambda token: {"headers": {"Authorization": _basic("ann", token)}},
    by_header: lambda token: {"headers": {"X-Key": token}},
    by_cookie: lambda token: {"headers": {"Cookie": f"key={token}"}},
    by_query: lambda token: {"query": f"key={token}"},
    by_request: lambda token: {"headers": {"X-Key": token}},
    by_websocket: lambda token: {"headers": {"X-Key": token}},
    by_connection: lambda token: {"headers": {"X-Key": token}},
}


def _basic(name: str, password: str) -> str:
    import base64

    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.mark.parametrize("dependency", WAYS, ids=lambda dependency: dependency.__name__)
async def test_a_dependency_of_http_endpoints_finds_the_user(handshake: Handshake, dependency: Any) -> None:
    authentication, give = DependsAuthentication(dependency), WAYS[dependency]
    assert await authentication.authenticate(handshake(**give("t-ann"))) == ("ann", None)
    assert await authentication.authenticate(handshake()) is None
    with pytest.raises(HTTPException, match="Unknown"):
        await authentication.authenticate(handshake(**give("t-bad")))


@pytest.mark.parametrize("dependency", WAYS, ids=lambda dependency: dependency.__name__)
async def test_it_does_so_through_a_socket(make_app: Any, dependency: Any) -> None:
    class Room(JSONConsumer):
        authentication_classes = [DependsAuthentication(dependency)]
        permission_classes = [IsAuthenticated]

        @action
        async def who(self) -> str:
            return str(self.user)

    app = make_app(path("/", Room))

    def client(token: str | None) -> WebsocketCommunicator:
        given = WAYS[dependency](token) if token is not None else {}
        url = f"/?{given.pop('query')}" if "query" in given else "/"
        return WebsocketCommunicator(app, url, **given, denial_response=True)

    async with client("t-ann") as ann:
        assert await ann.call("who") == "ann"
    for token, code, challenge in (("t-bad", "not_authenticated", b"Custom"), (None, "not_authenticated", None)):
        refused = client(token)
        assert await refused.connect() == (False, 401)
        error = json.loads(refused.denial.body)["error"]
        assert (error["code"], error["message"] == "Unknown.") == (code, token is not None)
        assert dict(refused.denial.headers).get(b"www-authenticate") == challenge
        await refused.wait()


SCHEMES = [HTTPBearer(), HTTPBasic(), APIKeyHeader(name="X-Key"), APIKeyCookie(name="key"), APIKeyQuery(name="key")]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: type(scheme).__name__)
async def test_a_scheme_that_refuses_by_itself_does_so_through_a_socket(make_app: Any, scheme: Any) -> None:
    def user(found: Annotated[Any, Security(scheme)]) -> str:
        raise AssertionError("There is nothing to find.")

    class Room(JSONConsumer):
        authentication_classes = [DependsAuthentication(user)]

    client = WebsocketCommunicator(make_app(path("/", Room)), "/", denial_response=True)
    accepted, status = await client.connect()
    assert not accepted
    # Until 0.122 FastAPI answers 403 for most of them.
    assert status in (401, 403)
    assert (b"www-authenticate" in dict(client.denial.headers)) is (status == 401)
    await client.wait()


async def test_depends_itself_may_be_given_and_scopes_are_passed_on(handshake: Handshake) -> None:
    def scoped(scopes: SecurityScopes) -> Any:
        return "ann", tuple(scopes.scopes)

    def outer(found: Annotated[Any, Security(scoped, scopes=["chat"])]) -> Any:
        return found

    assert await DependsAuthentication(Depends(outer)).authenticate(handshake()) == ("ann", ("chat",))
    assert repr(DependsAuthentication(by_oauth)) == "DependsAuthentication(by_oauth)"


async def test_overrides_of_the_app_hold_and_what_was_opened_is_closed(handshake: Handshake) -> None:
    seen = []

    async def database() -> AsyncIterator[str]:
        seen.append("open")
        yield "real"
        seen.append("closed")

    def user(database: Annotated[str, Depends(database)]) -> str:
        return f"ann of {database}"

    app = FastAPI()
    authentication = DependsAuthentication(user)
    assert await authentication.authenticate(handshake(app=app)) == ("ann of real", None)
    assert seen == ["open", "closed"]
    app.dependency_overrides[database] = lambda: "fake"
    assert await authentication.authenticate(handshake(app=app)) == ("ann of fake", None)


@pytest.mark.parametrize(
    "scheme", [OAuth2PasswordBearer("token"), HTTPBearer(), APIKeyHeader(name="X-Key"), Depends(APIKeyCookie(name="k"))]
)
def test_a_bare_scheme_verifies_nothing_and_is_refused(scheme: Any) -> None:
    with pytest.raises(TypeError, match="does not verify it"):
        DependsAuthentication(scheme)


def test_a_body_and_a_mixture_of_kinds_are_refused_at_once() -> None:
    def body(name: Annotated[str, Body()]) -> str:
        return name

    def both(first: Annotated[Any, Depends(by_request)], second: Annotated[Any, Depends(by_websocket)]) -> None: ...

    with pytest.raises(TypeError, match="body"):
        DependsAuthentication(body)
    with pytest.raises(TypeError, match=r"both a Request and a WebSocket: by_request .*by_websocket"):
        DependsAuthentication(both)
    with pytest.raises(TypeError, match="is no dependency"):
        DependsAuthentication("ann")
