"""Who the client is, and who is asked in which order."""

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.authentication import AuthCredentials, SimpleUser, UnauthenticatedUser

from fastapi_consumers.authentication import (
    ANONYMOUS,
    AnonymousUser,
    BaseAuthentication,
    authenticate_with,
    authentication_of,
    compile_authentications,
    is_authenticated,
)
from fastapi_consumers.exceptions import ConsumerError, NotAuthenticated


class Answers(BaseAuthentication):
    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked = 0

    def authenticate(self, connection: Any) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class AnswersLater(Answers):
    async def authenticate(self, connection: Any) -> Any:
        return super().authenticate(connection)


class Guest:
    is_authenticated = False

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


both = pytest.mark.parametrize("kind", [Answers, AnswersLater])


def connection(**scope: Any) -> Any:
    return SimpleNamespace(scope=scope)


@both
async def test_the_first_that_knows_the_client_wins_and_the_rest_are_not_asked(kind: type[Answers]) -> None:
    first, second, third = kind(None), kind(("ann", "token")), kind(("bob", None))
    assert await authenticate_with((first, second, third), connection(user=SimpleUser("eve"))) == ("ann", "token")
    assert [first.asked, second.asked, third.asked] == [1, 1, 0]


@both
@pytest.mark.parametrize("error", [NotAuthenticated("Expired."), ConsumerError("locked", "Locked.")])
async def test_wrong_credentials_refuse_the_client_and_nobody_else_is_asked(
    kind: type[Answers], error: ConsumerError
) -> None:
    second = kind(("ann", None))
    with pytest.raises(ConsumerError) as caught:
        await authenticate_with((kind(error), second), connection(user=SimpleUser("eve")))
    assert caught.value is error
    assert second.asked == 0


async def test_the_connection_is_what_authentications_are_given() -> None:
    class Query(BaseAuthentication):
        async def authenticate(self, connection: Any) -> tuple[Any, Any] | None:
            return connection.scope["query"], None

    assert await authenticate_with((Query(),), connection(query="ann")) == ("ann", None)


@pytest.mark.parametrize("user", [None, UnauthenticatedUser()])
async def test_an_anonymous_user_of_an_authentication_is_the_anonymous_user(user: Any) -> None:
    found, auth = await authenticate_with((Answers((user, "key")),), connection(user=SimpleUser("eve")))
    assert found is ANONYMOUS
    assert auth == "key"


async def test_an_anonymous_user_that_has_an_id_is_kept() -> None:
    guest = Guest(id="guest-1")
    assert await authenticate_with((Answers((guest, None)),), connection()) == (guest, None)


async def test_without_an_answer_the_user_of_starlettes_middleware_is_taken() -> None:
    ann, credentials = SimpleUser("ann"), AuthCredentials(["chat"])
    scope = connection(user=ann, auth=credentials)
    assert await authenticate_with((), scope) == (ann, credentials)
    assert await authenticate_with((Answers(None),), scope) == (ann, credentials)


async def test_starlettes_unauthenticated_user_is_replaced_as_it_has_no_id() -> None:
    credentials = AuthCredentials()
    assert await authenticate_with((), connection(user=UnauthenticatedUser(), auth=credentials)) == (
        ANONYMOUS,
        credentials,
    )


@pytest.mark.parametrize("scope", [{}, {"user": None}])
async def test_nobody_knows_the_client(scope: dict[str, Any]) -> None:
    user, auth = await authenticate_with((Answers(None), AnswersLater(None)), connection(**scope))
    assert user is ANONYMOUS
    assert auth is None


@both
@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("ann", "str"),
        (("ann",), "a tuple of 1"),
        (("ann", None, None), "a tuple of 3"),
        (["ann", None], "list"),
        (False, "bool"),
        ((True, None), "True as the user"),
    ],
)
async def test_an_answer_of_another_shape_is_an_error_that_says_what_came(
    kind: type[Answers], answer: Any, found: str
) -> None:
    with pytest.raises(TypeError, match=found) as caught:
        await authenticate_with((kind(answer),), connection())
    assert f"{kind.__name__}.authenticate()" in str(caught.value)
    assert "expected" in str(caught.value)


async def test_a_user_that_was_not_awaited_is_an_error_and_not_a_user() -> None:
    async def load() -> str:
        return "ann"

    class Later:
        def __await__(self) -> Any:
            raise NotImplementedError

    for user in (load(), Later()):
        with pytest.raises(TypeError, match="not awaited"):
            await authenticate_with((Answers((user, None)),), connection())


def test_a_list_takes_classes_and_instances() -> None:
    instance = Answers(("ann", None))
    first, second = compile_authentications([AnswersLater, instance])
    assert type(first) is AnswersLater
    assert second is instance
    assert compile_authentications(()) == ()


@pytest.mark.parametrize("entry", [SimpleUser, SimpleUser("ann"), "session", None, lambda connection: None])
def test_what_does_not_derive_from_the_base_is_no_authentication(entry: Any) -> None:
    with pytest.raises(TypeError, match=r"is no authentication.*BaseAuthentication"):
        authentication_of(entry)


def test_a_class_that_cannot_be_made_is_an_error_that_names_it() -> None:
    class Unfinished(BaseAuthentication):
        pass

    class NeedsKey(Answers):
        def __init__(self, key: str) -> None:
            super().__init__()

    with pytest.raises(TypeError, match=r"Unfinished.*authenticate"):
        authentication_of(Unfinished)
    with pytest.raises(TypeError, match=r"NeedsKey.*key"):
        authentication_of(NeedsKey)
    assert isinstance(authentication_of(NeedsKey("k")), NeedsKey)


@pytest.mark.parametrize(("entries", "fix"), [(Answers, r"\[Answers\]"), ("session", r"\['session'\]"), (None, "None")])
def test_something_that_is_no_list_is_an_error_that_shows_the_list(entries: Any, fix: str) -> None:
    with pytest.raises(TypeError, match=f"expected a list of authentications.*{fix}"):
        compile_authentications(entries)


def test_the_anonymous_user_can_be_imported_from_here() -> None:
    assert isinstance(ANONYMOUS, AnonymousUser)
    assert is_authenticated(ANONYMOUS) is False
