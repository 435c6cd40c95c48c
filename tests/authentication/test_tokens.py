"""Where tokens are found, in which order, and what becomes of bad ones."""

import base64
import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from fastapi_consumers import NotAuthenticated
from fastapi_consumers.authentication import (
    ANONYMOUS,
    BearerTokenAuthentication,
    Credential,
    FirstMessageAuthentication,
    TokenAuthentication,
    TokenKeys,
)

Handshake = Callable[..., Any]
BOTH = TokenKeys("token", "session_token")


class Tokens(TokenAuthentication):
    """Every token is its user's name."""

    async def get_user(self, token: str, connection: Any) -> Any:
        return f"<{token}>"


class Bearers(BearerTokenAuthentication):
    def get_user(self, token: str, connection: Any) -> Any:
        return f"<{token}>"


async def found(authentication: TokenAuthentication, connection: Any) -> Any:
    result = await authentication.authenticate(connection)
    return result if result is None else result[0]


@pytest.mark.parametrize("value", ["Bearer abc", "bearer abc", "BEARER   abc ", " Bearer abc"])
@pytest.mark.parametrize("kind", [Tokens, Bearers])
async def test_the_header(handshake: Handshake, kind: type[TokenAuthentication], value: str) -> None:
    assert await found(kind(), handshake({"Authorization": value})) == "<abc>"


@pytest.mark.parametrize("value", ["Basic YTpi", "abc", "Bearerabc", ""])
async def test_another_scheme_is_no_token(handshake: Handshake, value: str) -> None:
    assert await found(Tokens(), handshake({"Authorization": value})) is None


@pytest.mark.parametrize("kind", [Tokens, Bearers])
@pytest.mark.parametrize("offer", [("bearer.abc",), ("fc.v1.json", "bearer.abc"), ("bearer.abc", "fc.v1.json")])
async def test_a_subprotocol(handshake: Handshake, kind: type[TokenAuthentication], offer: tuple[str, ...]) -> None:
    assert await found(kind(), handshake(subprotocols=offer)) == "<abc>"


@pytest.mark.parametrize("token", ["a/b+c==", "näme", "x y", "a,b", "?" * 50])
async def test_a_subprotocol_holds_any_token_in_base64url(handshake: Handshake, token: str) -> None:
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    assert await found(Tokens(), handshake(subprotocols=("fc.v1.json", f"bearer64.{encoded}"))) == f"<{token}>"


@pytest.mark.parametrize("encoded", ["", "a", "YQ==x", "a+b/", "_w", "äöü"])
async def test_what_is_no_base64url_of_a_text_is_refused(handshake: Handshake, encoded: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        await found(Tokens(), handshake(subprotocols=(f"bearer64.{encoded}",)))
    assert caught.value.code == "invalid_token"


async def test_the_query_and_the_cookie_only_where_they_are_named(handshake: Handshake) -> None:
    query, cookie = {"query": "token=a%2Fb&x=1"}, {"headers": {"Cookie": 'x=1; session_token=abc; y="2"'}}
    assert await found(Tokens(), handshake(**query)) is None
    assert await found(Tokens(), handshake(**cookie)) is None
    assert await found(Tokens(), handshake(**query, keys=BOTH)) == "<a/b>"
    assert await found(Tokens(), handshake(**cookie, keys=BOTH)) == "<abc>"
    assert await found(Tokens(), handshake(**query, keys=TokenKeys("other", "other"))) is None
    assert await found(Bearers(), handshake(**query, **cookie, keys=BOTH)) is None


async def test_the_first_place_that_has_one_counts(handshake: Handshake) -> None:
    everywhere: dict[str, Any] = {
        "headers": {"Authorization": "Bearer 1", "Cookie": "session_token=4"},
        "subprotocols": ("bearer.2",),
        "query": "token=3",
    }
    seen = []
    for key in ("headers", "subprotocols", "query", None):
        seen.append(await found(Tokens(), handshake(**everywhere, keys=BOTH)))
        if key == "headers":
            everywhere["headers"] = {"Cookie": "session_token=4"}
        elif key is not None:
            del everywhere[key]
    assert seen == ["<1>", "<2>", "<3>", "<4>"]


@pytest.mark.parametrize("given", [{"Authorization": "Bearer "}, {"Authorization": "Bearer " + "x" * 8193}])
async def test_empty_and_huge_tokens_are_refused_before_anybody_looks(handshake: Handshake, given: Any) -> None:
    class Looks(Tokens):
        async def get_user(self, token: str, connection: Any) -> Any:
            pytest.fail("it looked")

    with pytest.raises(NotAuthenticated) as caught:
        await found(Looks(), handshake(given))
    assert caught.value.code == "invalid_token"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("ann", ("ann", None)), (("ann", "key"), ("ann", "key")), ((None, "key"), (ANONYMOUS, "key"))],
)
async def test_what_get_user_may_answer(handshake: Handshake, answer: Any, expected: Any) -> None:
    class Answers(Tokens):
        async def get_user(self, token: str, connection: Any) -> Any:
            return answer

    assert await Answers().authenticate(handshake({"Authorization": "Bearer x"})) == expected


@pytest.mark.parametrize("answer", [False, (True, None), ("a", "b", "c")])
async def test_what_it_may_not_answer(handshake: Handshake, answer: Any) -> None:
    class Answers(Tokens):
        async def get_user(self, token: str, connection: Any) -> Any:
            return answer

    with pytest.raises(TypeError, match=r"Answers.get_user\(\) returned"):
        await Answers().authenticate(handshake({"Authorization": "Bearer x"}))


async def test_a_token_that_is_nobodys_is_refused(handshake: Handshake) -> None:
    class Nobody(Tokens):
        async def get_user(self, token: str, connection: Any) -> Any:
            return None

    with pytest.raises(NotAuthenticated) as caught:
        await Nobody().authenticate(handshake({"Authorization": "Bearer x"}))
    assert caught.value.code == "invalid_token"


async def test_an_exception_that_holds_the_token_is_told_without_its_text(
    handshake: Handshake, caplog: pytest.LogCaptureFixture
) -> None:
    class Careless(Tokens):
        async def get_user(self, token: str, connection: Any) -> Any:
            try:
                return {"good": "ann"}[token]
            except KeyError as error:
                raise ValueError("no such user") from error

    # Not written out below, as a traceback shows the lines of the source.
    secret = "-".join(("s3cret", "token"))
    with pytest.raises(RuntimeError, match=r"get_user\(\) raised ValueError") as caught:
        await Careless().authenticate(handshake({"Authorization": f"Bearer {secret}"}))
    logging.getLogger("test").error("failed", exc_info=caught.value)
    assert secret not in caplog.text
    assert "in get_user" in caplog.text

    class Asking(Tokens):
        def __init__(self, write: Callable[[str], str]) -> None:
            self.write = write

        async def get_user(self, token: str, connection: Any) -> Any:
            raise LookupError(self.write(token))

    odd = secret + "\\\u20ac/+='\""
    for write in (repr, ascii, json.dumps, quote, quote_plus, partial(quote, safe=""), "<{}>".format):
        with pytest.raises(RuntimeError, match=r"get_user\(\) raised LookupError"):
            await Asking(write).authenticate_token(odd, handshake({}))

    class Broken(Tokens):
        async def get_user(self, token: str, connection: Any) -> Any:
            raise OSError("the database is gone")

    with pytest.raises(OSError, match="the database is gone"):
        await Broken().authenticate(handshake({"Authorization": "Bearer s3cret-token"}))


# The first message


async def test_the_first_message_is_never_found_in_a_handshake(handshake: Handshake) -> None:
    authentication = FirstMessageAuthentication(Tokens())
    connection = handshake({"Authorization": "Bearer 1"}, ("bearer.2",), "token=3", BOTH)
    assert await authentication.authenticate(connection) is None
    assert await authentication.authenticate_token("abc", connection) == ("<abc>", None)


async def test_a_first_message_is_judged_by_a_class_of_its_own_or_by_another(handshake: Handshake) -> None:
    class Own(FirstMessageAuthentication):
        async def get_user(self, token: str, connection: Any) -> Any:
            return token.upper(), Credential(token_id=token)

    user, auth = await Own().authenticate_token("abc", handshake())
    assert (user, auth.token_id) == ("ABC", "abc")
    with pytest.raises(TypeError, match="does not know whose a token is"):
        FirstMessageAuthentication()
    with pytest.raises(TypeError, match="reads no tokens"):
        FirstMessageAuthentication("abc")
