"""When a credential ends, and how it is named."""

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from fastapi_consumers import NotAuthenticated
from fastapi_consumers.authentication import Credential, Lifetime, lifetime_of

NOW = 1_800_000_000.0


def at(auth: Any) -> Lifetime:
    return lifetime_of(auth, lambda: NOW)


@pytest.mark.parametrize("auth", [None, "a token", {"expires_at": 1}, object(), Credential()])
def test_most_credentials_are_good_for_ever_and_have_no_name(auth: Any) -> None:
    assert at(auth) == (None, None)


@pytest.mark.parametrize(
    "expires_at",
    [
        NOW + 60,
        int(NOW) + 60,
        datetime.fromtimestamp(NOW + 60, UTC),
        datetime.fromtimestamp(NOW + 60, timezone(timedelta(hours=9))),
    ],
)
@pytest.mark.parametrize("kind", [Credential, SimpleNamespace])
def test_the_end_and_the_name_are_attributes_of_whatever_object(kind: Any, expires_at: Any) -> None:
    assert at(kind(expires_at=expires_at, token_id="t-1")) == (NOW + 60, "t-1")


@pytest.mark.parametrize(
    "expires_at", [NOW, NOW - 1, 0, -1, -(10**400), float("-inf"), datetime(2020, 1, 1, tzinfo=UTC)]
)
def test_what_has_ended_is_refused(expires_at: Any) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        at(Credential(expires_at))
    assert caught.value.code == "expired"


@pytest.mark.parametrize("expires_at", [float("inf"), 10**400])
def test_what_ends_later_than_any_clock_shows_does_not_end(expires_at: Any) -> None:
    assert at(Credential(expires_at)).expires_at is None


@pytest.mark.parametrize("expires_at", ["2030-01-01", True, float("nan"), datetime(2030, 1, 1), timedelta(hours=1)])
def test_an_end_of_another_type_is_an_error_that_says_what_to_write(expires_at: Any) -> None:
    with pytest.raises(TypeError, match=r"auth.expires_at is .*expected seconds.*Write:"):
        at(SimpleNamespace(expires_at=expires_at))


@pytest.mark.parametrize("token_id", [7, b"t", "", "x" * 1025])
def test_a_name_is_text_of_some_length(token_id: Any) -> None:
    with pytest.raises(TypeError, match=r"auth.token_id is a .*expected text"):
        at(SimpleNamespace(token_id=token_id))


def test_the_claims_are_not_shown() -> None:
    assert "secret" not in repr(Credential(1.0, "t-1", {"email": "secret"}))
