"""JSON Web Tokens: what is accepted, and all that is not."""

import base64
import builtins
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fastapi_consumers import NotAuthenticated
from fastapi_consumers.authentication import Credential, JWTAuthentication, lifetime_of

Handshake = Callable[..., Any]
SECRET = "0123456789abcdef0123456789abcdef"
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = (
    PRIVATE.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


def token(key: Any = SECRET, algorithm: str = "HS256", headers: Any = None, **claims: Any) -> str:
    return pyjwt.encode({"sub": "ann", "exp": time.time() + 3600, **claims}, key, algorithm, headers)


def raw(header: Any, payload: Any, key: str = SECRET) -> str:
    """Signed with HS256, whatever header and payload say; text is taken as it is."""
    parts = [
        base64.urlsafe_b64encode((part if isinstance(part, str) else json.dumps(part)).encode()).rstrip(b"=")
        for part in (header, payload)
    ]
    signed = b".".join(parts)
    signature = base64.urlsafe_b64encode(hmac.digest(key.encode(), signed, hashlib.sha256)).rstrip(b"=")
    return (signed + b"." + signature).decode()


async def check(authentication: JWTAuthentication, text: str) -> Any:
    return await authentication.authenticate_token(text, None)


async def code_of(authentication: JWTAuthentication, text: str) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        await check(authentication, text)
    # Nothing of what the library found, or of the token, is in what the client and the log see.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.code


HS = JWTAuthentication(SECRET, algorithms=["HS256"])


async def test_a_good_token_is_a_user_and_a_credential() -> None:
    exp = int(time.time()) + 60
    user, auth = await check(HS, token(exp=exp, jti="t-1", role="owner"))
    assert user["sub"] == "ann"
    assert auth == Credential(exp, "t-1", {"sub": "ann", "exp": exp, "jti": "t-1", "role": "owner"})
    assert lifetime_of(auth) == (exp, "t-1")


async def test_it_is_found_where_tokens_are(handshake: Handshake) -> None:
    found = await HS.authenticate(handshake({"Authorization": f"Bearer {token()}"}))
    assert found is not None
    assert found[0]["sub"] == "ann"
    assert await HS.authenticate(handshake()) is None


async def test_public_keys() -> None:
    for key in (PUBLIC_PEM, PUBLIC_PEM.encode(), PRIVATE.public_key()):
        assert (await check(JWTAuthentication(key, algorithms=["RS256", "PS256"]), token(PRIVATE, "RS256")))[0]["sub"]
    curve = ec.generate_private_key(ec.SECP256R1())
    assert (await check(JWTAuthentication(curve.public_key(), algorithms=["ES256"]), token(curve, "ES256")))[0]["sub"]
    jwk = pyjwt.PyJWK({"kty": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("=")}, "HS256")
    assert (await check(JWTAuthentication(jwk, algorithms=["HS256"]), token()))[0]["sub"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_finds_the_key_by_the_header(is_async: bool) -> None:
    keys = {"old": SECRET, "new": SECRET[::-1]}

    def find(header: Any) -> Any:
        return keys.get(header.get("kid"))

    async def find_later(header: Any) -> Any:
        return find(header)

    authentication = JWTAuthentication(find_later if is_async else find, algorithms=["HS256"])
    for kid, key in keys.items():
        assert (await check(authentication, token(key, headers={"kid": kid})))[0]["sub"] == "ann"
    assert await code_of(authentication, token(SECRET, headers={"kid": "new"})) == "invalid_token"
    assert await code_of(authentication, token(SECRET, headers={"kid": "none"})) == "invalid_token"
    assert await code_of(authentication, token()) == "invalid_token"
    assert await code_of(authentication, "no token at all") == "invalid_token"


async def test_a_function_is_not_asked_for_other_algorithms_and_a_key_of_its_that_does_not_fit_is_an_error() -> None:
    asked = []
    authentication = JWTAuthentication(lambda header: asked.append(header) or "short", algorithms=["HS256"])
    assert await code_of(authentication, token(SECRET * 2, "HS512")) == "invalid_token"
    assert asked == []
    # It is the server's mistake: the client is not told that its token is wrong, and the log says what is.
    with pytest.raises(ValueError, match="too short for HS256"):
        await check(authentication, token())


@pytest.mark.parametrize("seconds", [-1, 0, -3600])
async def test_expired(seconds: float) -> None:
    assert await code_of(HS, token(exp=int(time.time()) + seconds)) == "expired"


async def test_leeway_makes_both_ends_later() -> None:
    exp = int(time.time()) - 5
    _, auth = await check(JWTAuthentication(SECRET, algorithms=["HS256"], leeway=10), token(exp=exp))
    assert auth.expires_at == exp + 10
    lifetime_of(auth)


ES_KEY = ec.generate_private_key(ec.SECP256R1())

BAD = {
    "wrong key": token(SECRET[::-1]),
    "changed payload": ".".join(
        part if index != 1 else base64.urlsafe_b64encode(b'{"sub":"eve","exp":9999999999}').decode().rstrip("=")
        for index, part in enumerate(token().split("."))
    ),
    "no signature": token().rpartition(".")[0] + ".",
    "alg none": pyjwt.encode({"sub": "ann", "exp": time.time() + 3600}, None, "none"),
    "alg None, signed": raw({"alg": "None"}, {"sub": "ann", "exp": 9999999999}),
    "alg nOnE, signed": raw({"alg": "nOnE"}, {"sub": "ann", "exp": 9999999999}),
    "another alg of the family": token(SECRET * 2, "HS512"),
    "another family": token(PRIVATE, "RS256"),
    "unknown alg": raw({"alg": "HS257"}, {"sub": "ann", "exp": 9999999999}),
    "no alg": raw({"typ": "JWT"}, {"sub": "ann", "exp": 9999999999}),
    "alg is no text": raw({"alg": ["HS256"]}, {"sub": "ann", "exp": 9999999999}),
    "critical extension": raw({"alg": "HS256", "crit": ["x"], "x": 1}, {"sub": "ann", "exp": 9999999999}),
    "header is a list": raw([], {"sub": "ann", "exp": 9999999999}),
    "payload is a list": raw({"alg": "HS256"}, []),
    "payload is no JSON": raw({"alg": "HS256"}, "{"),
    "payload is deep": raw({"alg": "HS256"}, "[" * 5000),
    "header is deep": raw("[" * 5000, {}),
    "no exp": raw({"alg": "HS256"}, {"sub": "ann"}),
    "exp is text": raw({"alg": "HS256"}, {"sub": "ann", "exp": "tomorrow"}),
    "exp is a number as text": raw({"alg": "HS256"}, {"sub": "ann", "exp": "9999999999"}),
    "exp is a list": raw({"alg": "HS256"}, {"sub": "ann", "exp": [9999999999]}),
    "exp is null": raw({"alg": "HS256"}, {"sub": "ann", "exp": None}),
    "exp is NaN": raw({"alg": "HS256"}, '{"sub": "ann", "exp": NaN}'),
    "exp is infinite": raw({"alg": "HS256"}, '{"sub": "ann", "exp": 1e999}'),
    "exp is huge": raw({"alg": "HS256"}, '{"sub": "ann", "exp": 1' + "0" * 400 + "}"),
    "not yet": token(nbf=time.time() + 3600),
    "issued tomorrow": token(iat=time.time() + 86400),
    "an audience that nobody asked for": token(aud="other"),
    "jti is a number": raw({"alg": "HS256"}, {"sub": "ann", "exp": 9999999999, "jti": 7}),
    "jti is empty": raw({"alg": "HS256"}, {"sub": "ann", "exp": 9999999999, "jti": ""}),
    "jti is long": raw({"alg": "HS256"}, {"sub": "ann", "exp": 9999999999, "jti": "x" * 2000}),
    "sub is a number": raw({"alg": "HS256"}, {"sub": 7, "exp": 9999999999}),
    "huge": token(pad="x" * 10_000),
    "empty": "",
    "dots": "..",
    "many dots": "." * 8000,
    "text": "not a token",
    "not ASCII": "ä.ö.ü",
    "surrogate": "\ud800.a.b",
    "null bytes": "\0.\0.\0",
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_tokens_are_refused_and_say_nothing(name: str) -> None:
    assert await code_of(HS, BAD[name]) == "invalid_token"
    assert await code_of(JWTAuthentication(lambda header: SECRET, algorithms=["HS256"]), BAD[name]) == "invalid_token"


async def test_an_end_that_is_no_number_never_makes_a_token_last() -> None:
    assert await code_of(HS, raw({"alg": "HS256"}, {"sub": "ann", "exp": True})) == "expired"


async def test_a_public_key_is_never_a_secret() -> None:
    """The confusion of algorithms: a token signed with the text of the public key, which everybody knows."""
    forged = raw({"alg": "HS256"}, {"sub": "eve", "exp": 9999999999}, PUBLIC_PEM)
    assert await code_of(JWTAuthentication(PUBLIC_PEM, algorithms=["RS256"]), forged) == "invalid_token"
    with pytest.raises(ValueError, match="could be taken for a secret"):
        JWTAuthentication(PUBLIC_PEM, algorithms=["RS256", "HS256"])
    with pytest.raises(ValueError, match="does not fit HS256"):
        JWTAuthentication(PUBLIC_PEM, algorithms=["HS256"])


async def test_audience_and_issuer() -> None:
    chat = JWTAuthentication(SECRET, algorithms=["HS256"], audience="chat", issuer="https://id")
    assert (await check(chat, token(aud="chat", iss="https://id")))[0]["sub"] == "ann"
    assert (await check(chat, token(aud=["mail", "chat"], iss="https://id")))[0]["sub"] == "ann"
    wrong: list[dict[str, Any]] = [
        {},
        {"aud": "chat"},
        {"iss": "https://id"},
        {"aud": "mail", "iss": "https://id"},
        {"aud": "cha", "iss": "https://id"},
        {"aud": "chat", "iss": "https://i"},
        {"aud": "chat", "iss": ["https://id"]},
    ]
    for claims in wrong:
        text = raw({"alg": "HS256"}, {"sub": "ann", "exp": 9999999999, **claims})
        assert await code_of(chat, text) == "invalid_token"


async def test_other_claims_may_be_required_and_exp_need_not_be() -> None:
    assert await code_of(JWTAuthentication(SECRET, algorithms=["HS256"], require=["exp", "jti"]), token()) == (
        "invalid_token"
    )
    _, auth = await check(
        JWTAuthentication(SECRET, algorithms=["HS256"], require=()), pyjwt.encode({"sub": "ann"}, SECRET, "HS256")
    )
    assert lifetime_of(auth) == (None, None)


async def test_the_claims_name_the_user() -> None:
    class Own(JWTAuthentication):
        def get_user_for(self, claims: Any, connection: Any) -> Any:
            return {"ann": "User Ann", "ben": ("User Ben", "own auth")}.get(claims["sub"])

    own = Own(SECRET, algorithms=["HS256"])
    user, auth = await check(own, token(jti="t"))
    assert (user, auth.token_id) == ("User Ann", "t")
    assert await check(own, token(sub="ben")) == ("User Ben", "own auth")
    assert await code_of(own, token(sub="eve")) == "invalid_token"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"algorithms": []}, ValueError, "expected a list of names"),
        ({"algorithms": "HS256"}, ValueError, "expected a list of names"),
        ({"algorithms": ["none"]}, ValueError, "verifies nothing"),
        ({"algorithms": ["HS256", "HS257"]}, ValueError, "no algorithm that PyJWT knows"),
        ({"algorithms": ["HS512"]}, ValueError, "too short for HS512"),
        ({"algorithms": ["HS256", "HS512"]}, ValueError, "too short for HS512"),
        ({"algorithms": ["HS256"], "key": "short"}, ValueError, "too short for HS256"),
        ({"algorithms": ["HS256"], "key": ""}, ValueError, "does not fit HS256"),
        ({"algorithms": ["HS256"], "key": None}, TypeError, "[Kk]ey|string"),
        ({"algorithms": ["RS256"]}, ValueError, "RS256|[Kk]ey"),
        ({}, TypeError, "algorithms"),
    ],
)
def test_what_would_verify_nothing_cannot_be_made(arguments: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        JWTAuthentication(**{"key": SECRET, **arguments})
    assert SECRET not in str(caught.value)


def test_the_secret_is_not_shown() -> None:
    assert repr(HS) == "JWTAuthentication(algorithms=['HS256'])"


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "jwt":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"fastapi-consumers\[jwt\]"):
        JWTAuthentication(SECRET, algorithms=["HS256"])
