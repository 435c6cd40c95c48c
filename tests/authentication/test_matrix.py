"""Every way to authenticate, with every kind of credential, before and after the socket is accepted.

And no credential, no payload in any line of any log, whatever its level.
"""

import base64
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import jwt
import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from itsdangerous import TimestampSigner
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware

from fastapi_consumers import GroupConsumer, JSONConsumer, NotAuthenticated, action, path
from fastapi_consumers.authentication import (
    APIKeyAuthentication,
    BaseAuthentication,
    BearerTokenAuthentication,
    Credential,
    DependsAuthentication,
    FirstMessageAuthentication,
    JWTAuthentication,
    SessionAuthentication,
    TokenAuthentication,
)
from fastapi_consumers.permissions import IsAuthenticated
from fastapi_consumers.testing import CallError, WebsocketCommunicator

KINDS = ("good", "bad", "expired", "revoked", "malformed")
SECRET = "s3cret-signing-key-of-thirty-two-bytes"
PAYLOAD = "s3cret-payload"
#: Counted from the import, which may be minutes before a test.
SOON = time.time() + 3600
PAST = time.time() - 3600

#: What a lookup finds for each kind of token.
FOUND: dict[str, Any] = {
    "s3cret-good": ("ann", Credential(SOON, "id-good")),
    "s3cret-fresh": ("ann", Credential(SOON + 3600, "id-fresh")),
    "s3cret-expired": ("ann", Credential(PAST, "id-expired")),
}


class ByToken(TokenAuthentication):
    async def get_user(self, token: str, connection: Any) -> Any:
        return FOUND.get(token)


class ByBearer(BearerTokenAuthentication):
    get_user = ByToken.get_user


class ByJWT(JWTAuthentication):
    async def get_user_for(self, claims: Any, connection: Any) -> Any:
        return None if claims.get("jti") == "id-revoked" else claims["sub"]


class BySession(SessionAuthentication):
    async def get_user(self, session: Any, connection: Any) -> Any:
        return FOUND.get(session.get("token"))


class ByKey(APIKeyAuthentication):
    async def get_user(self, name: str, connection: Any) -> Any:
        return FOUND.get(f"s3cret-{name}")


def by_dependency(token: Annotated[str | None, Depends(OAuth2PasswordBearer("token", auto_error=False))]) -> Any:
    if token is not None and token not in FOUND:
        raise HTTPException(401, "No.")
    return FOUND.get(token or "")


class Backend(AuthenticationBackend):
    async def authenticate(self, conn: Any) -> Any:
        user, auth = FOUND.get(conn.headers.get("x-token", ""), (None, None))
        if user is None:
            if "x-token" in conn.headers:
                raise AuthenticationError("No.")
            return None
        credentials = AuthCredentials(["chat"])
        # Any object with these attributes is a credential.
        credentials.expires_at, credentials.token_id = auth.expires_at, auth.token_id
        return credentials, SimpleUser(user)


class OnlyHTTP(Backend):
    """Leaves sockets to an authentication of theirs, which can say why it refuses."""

    async def authenticate(self, conn: Any) -> Any:
        return None if conn.scope["type"] == "websocket" else await super().authenticate(conn)


class ByBackend(BaseAuthentication):
    async def authenticate(self, connection: Any) -> Any:
        try:
            found = await Backend().authenticate(connection.websocket)
        except AuthenticationError:
            raise NotAuthenticated(code="invalid_token") from None
        return None if found is None else (found[1], found[0])


def tokens(malformed: str) -> dict[str, str]:
    return {kind: f"s3cret-{kind}" for kind in KINDS} | {"malformed": malformed}


def signed(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "exp": SOON, **claims}, SECRET, "HS256")


def session(data: Any) -> str:
    encoded = base64.b64encode(json.dumps(data).encode())
    return TimestampSigner(SECRET).sign(encoded).decode()


@dataclass
class Way:
    """``give`` puts a credential into a handshake; ``codes`` are those that differ from the usual.

    ``closed``: the kinds for which the handshake is closed with 1000, and no word.
    """

    authentications: list[Any]
    credentials: dict[str, str]
    give: Callable[[str], dict[str, Any]]
    codes: dict[str, str] | None = None
    middleware: tuple[Any, dict[str, Any]] | None = None
    takes_tokens: bool = True
    in_message: bool = False
    arguments: dict[str, Any] | None = None
    closed: tuple[str, ...] = ()

    def code(self, kind: str) -> str:
        usual = {"expired": "expired", "none": "not_authenticated"}.get(kind, "invalid_token")
        return (self.codes or {}).get(kind, usual)


JWTS = ByJWT(SECRET, algorithms=["HS256"])
JWT_TOKENS = {
    "good": signed(jti="id-good"),
    "fresh": signed(jti="id-fresh", exp=SOON + 3600),
    "bad": jwt.encode({"sub": "ann", "exp": SOON}, SECRET[::-1], "HS256"),
    "expired": signed(exp=PAST),
    "revoked": signed(jti="id-revoked"),
    "malformed": "s3cret.a.b",
}
UNKNOWN = dict.fromkeys(("bad", "revoked", "malformed"), "not_authenticated")


def bearer(token: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {token}"}}


def encoded(token: str) -> str:
    return base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


WAYS = {
    "header": Way([ByBearer], tokens("s3cret" * 2000), bearer),
    "subprotocol": Way([ByBearer], tokens(""), lambda token: {"subprotocols": ["fc.v1.json", f"bearer.{token}"]}),
    "encoded subprotocol": Way(
        [ByBearer],
        tokens("s3cret-\udcff"),
        lambda token: {
            "subprotocols": ["fc.v1.json", "bearer64." + ("s3cret!" if "\udcff" in token else encoded(token))]
        },
    ),
    "query": Way(
        [ByToken], tokens(""), lambda token: {"query": f"?token={token}"}, arguments={"query_token_key": "token"}
    ),
    "cookie": Way(
        [ByToken],
        tokens('"'),
        lambda token: {"headers": {"Cookie": f"token={token}"}},
        arguments={"cookie_token_key": "token"},
    ),
    "jwt": Way([JWTS], JWT_TOKENS, bearer),
    "session": Way(
        [BySession],
        {kind: session({"token": f"s3cret-{kind}"}) for kind in KINDS} | {"malformed": "s3cret-malformed"},
        lambda cookie: {"headers": {"Cookie": f"session={cookie}"}},
        codes=UNKNOWN,
        middleware=(SessionMiddleware, {"secret_key": SECRET}),
        takes_tokens=False,
    ),
    "key": Way(
        [ByKey({kind: f"s3cret-{kind}" for kind in ("good", "expired", "revoked")})],
        tokens("s3cret" * 1000),
        lambda key: {"headers": {"X-API-Key": key}},
        takes_tokens=False,
    ),
    "dependency": Way(
        [DependsAuthentication(by_dependency)], tokens("s3cret" * 2000), bearer, codes=UNKNOWN, takes_tokens=False
    ),
    "middleware": Way(
        [],
        tokens("s3cret" * 2000),
        lambda token: {"headers": {"X-Token": token}},
        middleware=(AuthenticationMiddleware, {"backend": Backend()}),
        takes_tokens=False,
        # By Starlette, before the consumer hears of it.
        closed=("bad", "revoked", "malformed"),
    ),
    "backend": Way(
        [ByBackend],
        tokens("s3cret" * 2000),
        lambda token: {"headers": {"X-Token": token}},
        middleware=(AuthenticationMiddleware, {"backend": OnlyHTTP()}),
        takes_tokens=False,
    ),
    "first message": Way([FirstMessageAuthentication(ByBearer())], tokens("s3cret" * 2000), bearer, in_message=True),
    "first message of a jwt": Way([FirstMessageAuthentication(JWTS)], JWT_TOKENS, bearer, in_message=True),
}
EACH = [(way, kind) for way in WAYS for kind in (*KINDS, "none")]


@pytest.fixture(autouse=True)
def nothing_in_the_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    secrets = {"s3cret", *JWT_TOKENS.values(), *WAYS["session"].credentials.values()}
    secrets |= {token.rpartition(".")[2] for token in JWT_TOKENS.values()}
    records = [caplog.handler.format(record) for record in caplog.get_records("call")]
    assert not [line for line in records for secret in secrets if len(secret) > 4 and secret in line]


@pytest.fixture
def connect(make_app: Any) -> Callable[..., Any]:
    def make(way: Way, kind: str) -> tuple[FastAPI, WebsocketCommunicator]:
        class Room(GroupConsumer):
            groups = ["room"]
            authentication_classes = way.authentications
            permission_classes = [IsAuthenticated]
            authentication_grace = 0

            @action
            async def echo(self, text: str) -> str:
                return f"{len(text)} of {self.user} by {self.auth.token_id}"

        app = FastAPI()
        if way.middleware is not None:
            app.add_middleware(way.middleware[0], **way.middleware[1])
        make_app(path("/", Room), app=app, **(way.arguments or {}))
        given: dict[str, Any] = {}
        if kind != "none" and not way.in_message:
            given = way.give(way.credentials[kind])
        query = given.pop("query", "")
        return app, WebsocketCommunicator(app, f"/{query}", **given, denial_response=True)

    return make


async def code_of(client: WebsocketCommunicator, name: str, data: Any) -> str:
    with pytest.raises(CallError) as caught:
        await client.call(name, data)
    return caught.value.code


@pytest.mark.parametrize(("name", "kind"), EACH)
async def test_before_accept(connect: Any, name: str, kind: str) -> None:
    way = WAYS[name]
    app, client = connect(way, kind)
    accepted, status = await client.connect()
    if way.in_message:
        assert accepted
        assert app.state.consumers.hub.count("group:room") == 0
        if kind == "none":
            assert await code_of(client, "echo", {"text": PAYLOAD}) == "not_authenticated"
        elif kind != "good":
            assert await code_of(client, "authenticate", {"token": way.credentials[kind]}) == way.code(kind)
            await client.assert_closed(4401)
        else:
            reply = await client.call("authenticate", {"token": way.credentials[kind]})
            assert reply["user"] == "ann"
            assert 2700 < reply["expires_in"] <= 3600
    elif kind in way.closed:
        assert (accepted, status) == (False, 1000)
        assert client.denial is None
        await client.wait()
        return
    elif kind != "good":
        assert (accepted, status) == (False, 401)
        assert json.loads(client.denial.body)["error"]["code"] == way.code(kind)
        assert "www-authenticate" not in str(client.denial.headers) or way.takes_tokens
        await client.wait()
        return
    if kind == "good":
        assert (await client.call("echo", {"text": PAYLOAD})).endswith(" by id-good")
        assert await code_of(client, "echo", {"texts": PAYLOAD}) == "invalid_data"
        await client.send_to(f'{{"action": "echo", "data": {PAYLOAD}}}')
        assert (await client.receive_json_from())["error"]["code"] == "invalid_frame"
    await client.disconnect()


async def opened(connect: Any, way: Way) -> tuple[FastAPI, WebsocketCommunicator]:
    app, client = connect(way, "good")
    assert (await client.connect())[0]
    if way.in_message:
        await client.call("authenticate", {"token": way.credentials["good"]})
    return app, client


@pytest.mark.parametrize("name", WAYS)
async def test_after_accept_it_expires(connect: Any, name: str) -> None:
    app, client = await opened(connect, WAYS[name])
    expiries = app.state.consumers.expiries
    expiries.clock = lambda: SOON - 1
    expiries.look()
    assert await client.call("echo", {"text": PAYLOAD})
    expiries.clock = lambda: SOON + 1
    expiries.look()
    await client.assert_closed(4401)
    assert client.close_reason == "expired"
    await client.disconnect()


@pytest.mark.parametrize("name", WAYS)
async def test_after_accept_it_is_revoked(connect: Any, name: str) -> None:
    app, client = await opened(connect, WAYS[name])
    await app.state.consumers.revoke("id-fresh")
    assert (await client.call("echo", {"text": PAYLOAD})).endswith("by id-good")
    await app.state.consumers.revoke("id-good")
    await client.assert_closed(4401)
    assert client.close_reason == "revoked"
    await client.disconnect()


@pytest.mark.parametrize("kind", ["fresh", *KINDS])
@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.takes_tokens])
async def test_after_accept_it_is_refreshed(connect: Any, name: str, kind: str) -> None:
    way = WAYS[name]
    _, client = await opened(connect, way)
    token = {**way.credentials, "fresh": way.credentials.get("fresh", "s3cret-fresh")}[kind]
    token = token.encode("utf-8", "replace").decode()
    if kind in ("fresh", "good"):
        left = (await client.call("authenticate", {"token": token}))["expires_in"]
        assert left == pytest.approx(7200 if kind == "fresh" else 3600, abs=900)
        assert (await client.call("echo", {"text": PAYLOAD})).endswith(f"by id-{kind}")
    else:
        assert await code_of(client, "authenticate", {"token": token}) == way.code(kind)
        assert (await client.call("echo", {"text": PAYLOAD})).endswith("by id-good")
    await client.disconnect()


@pytest.mark.parametrize("kind", ["fresh", *KINDS])
@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if not way.takes_tokens])
async def test_ways_without_tokens_cannot_be_refreshed(connect: Any, name: str, kind: str) -> None:
    way = WAYS[name]
    _, client = await opened(connect, way)
    token = {**way.credentials, "fresh": "s3cret-fresh"}[kind]
    assert await code_of(client, "authenticate", {"token": token}) == "action_not_found"
    assert (await client.call("echo", {"text": PAYLOAD})).endswith("by id-good")
    await client.disconnect()


@pytest.mark.parametrize(("name", "answers"), [("middleware", [1000] * 4), ("backend", [401, 401, 429, 429])])
async def test_what_the_middleware_refuses_is_not_counted(make_app: Any, name: str, answers: list[int]) -> None:
    way = WAYS[name]

    class Room(JSONConsumer):
        authentication_classes = way.authentications
        connection_throttle_classes = ["2/hour"]

    app = FastAPI()
    assert way.middleware is not None
    app.add_middleware(way.middleware[0], **way.middleware[1])
    make_app(path("/", Room), app=app)
    for answer in answers:
        client = WebsocketCommunicator(app, "/", **way.give("s3cret-bad"), denial_response=True)
        assert await client.connect() == (False, answer)
        await client.wait()


async def test_a_lookup_that_fails_is_logged_without_the_token(make_app: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Careless(BearerTokenAuthentication):
        async def get_user(self, token: str, connection: Any) -> Any:
            known: dict[str, str] = {}
            return known[token]

    class Room(JSONConsumer):
        authentication_classes = [Careless, FirstMessageAuthentication(Careless())]

    app = make_app(path("/", Room))
    client = WebsocketCommunicator(app, "/", **bearer("s3cret-unknown"))
    assert await client.connect() == (False, 1011)
    await client.wait()
    async with WebsocketCommunicator(app, "/") as late:
        assert await code_of(late, "authenticate", {"token": "s3cret-unknown"}) == "internal_error"
        await late.assert_closed(1011)
    assert caplog.text.count("get_user() raised KeyError, whose text holds the token") == 2
