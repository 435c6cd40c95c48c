"""The errors that clients are told of: their codes are a promise, and the docstring is their table."""

import copy
import gettext
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from fastapi_consumers import exceptions
from fastapi_consumers.exceptions import (
    BrokerUnavailable,
    ConsumerError,
    GroupFull,
    HistoryUnavailable,
    HTTPError,
    ImproperlyConfigured,
    InvalidData,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    Problem,
    Throttled,
)
from fastapi_consumers.http_errors import http_error

#: Indentation, name, and for errors of clients code and close code.
ROW = re.compile(r"^ {4}([│├└─ ]*)(\w+)(?: +\"(\w+)\" +(\d+))?", re.MULTILINE)

PUBLIC = {
    name: value
    for name, value in vars(exceptions).items()
    if isinstance(value, type) and issubclass(value, Exception) and not name.startswith("_")
}
ERRORS = [value for value in PUBLIC.values() if issubclass(value, ConsumerError)]


def made(kind: type[ConsumerError], **options: Any) -> ConsumerError:
    return HTTPError(402, **options) if kind is HTTPError else kind(**options)


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    tree = (exceptions.__doc__ or "").partition("::")[2].partition("Every")[0]
    retryable = {line.split()[-4] for line in tree.splitlines() if line.endswith("retryable")}
    assert retryable == {kind.__name__ for kind in ERRORS if kind.retryable}
    rows = ROW.findall(tree)
    assert len(rows) == len(PUBLIC) + 1  # and Exception itself
    assert {name for _, name, _, _ in rows} == {*PUBLIC, "Exception"}
    parents: list[str] = []
    for lead, name, code, close_code in rows:
        depth = len(lead) // 4
        parents = [*parents[:depth], name]
        if depth == 0:
            continue
        kind = PUBLIC[name]
        public = [base.__name__ for base in kind.__mro__[1:] if not base.__name__.startswith("_")]
        assert public[0] == parents[depth - 1], name
        if issubclass(kind, ConsumerError):
            assert (kind.default_code, str(int(kind.default_close_code))) == (code, close_code), name


def test_codes_are_stable_and_unique() -> None:
    codes = [kind.default_code for kind in ERRORS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_can_be_raised_with_or_without_closing(kind: type[ConsumerError]) -> None:
    error = made(kind)
    assert not error.close
    assert error.close_code == kind.default_close_code
    assert made(kind, close=True).close
    closing = made(kind, close_code=4999)
    assert (closing.close, closing.close_code) == (True, 4999)
    assert 400 <= kind.http_status <= 599


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_a_code_and_a_message_to_replace(kind: type[ConsumerError]) -> None:
    extra: dict[str, Any] = {"status": 402} if kind is HTTPError else {}
    if kind.retryable:
        extra["retryable"] = True
    assert made(kind).body() == {"code": kind.default_code, "message": kind.default_message} | extra
    body = made(kind, code="mine", message="text", details=[1]).body()
    assert (body["code"], body["message"], body["details"]) == ("mine", "text", [1])
    assert str(made(kind, message="text")) == "text"


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_can_be_copied_and_sent_to_other_processes(kind: type[ConsumerError]) -> None:
    error = made(kind, message="text", details={"a": 1}, close=True)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert twin.body() == error.body()
        assert (twin.close, twin.close_code) == (True, error.close_code)


def test_the_root_takes_code_and_message_in_this_order() -> None:
    error = ConsumerError("not_ready", "Wait.")
    assert error.body() == {"code": "not_ready", "message": "Wait."}
    assert repr(error) == "ConsumerError(code='not_ready', message='Wait.', close=False)"


def test_details_are_left_out_only_where_there_are_none() -> None:
    assert "details" not in InvalidData().body()
    assert InvalidData(details=[]).body()["details"] == []


def test_a_throttled_client_is_told_when_to_come_again() -> None:
    assert Throttled(1.23456).body()["retry_after"] == 1.235
    assert Throttled(0).body()["retry_after"] == 0
    assert "retry_after" not in Throttled().body()


@pytest.mark.parametrize(
    ("status", "kind"), [(401, NotAuthenticated), (403, PermissionDenied), (404, NotFound), (422, InvalidData)]
)
def test_http_errors_become_the_matching_ones(status: int, kind: type[ConsumerError]) -> None:
    error = http_error(status, "text")
    assert type(error) is kind
    assert (error.message, error.details) == ("text", None)
    error = http_error(status, [{"a": 1}])
    assert (error.message, error.details) == (kind.default_message, [{"a": 1}])


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-1"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "nan"}, None),
        ({"X": "3"}, None),
        (None, None),
    ],
)
def test_429_keeps_its_header(headers: Any, seconds: float | None) -> None:
    error = http_error(429, "slow", headers)
    assert isinstance(error, Throttled)
    assert error.retry_after == seconds


def test_other_http_errors_keep_their_status() -> None:
    assert http_error(402, "pay").body() == {"code": "http_error", "message": "pay", "status": 402}


RETRYABLE = {"Throttled", "GroupFull", "BrokerUnavailable", "HistoryUnavailable"}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_says_whether_the_same_request_may_succeed_later(kind: type[ConsumerError]) -> None:
    assert kind.retryable is (kind.__name__ in RETRYABLE)
    assert made(kind).body().get("retryable") == (True if kind.retryable else None)
    for said in (True, False):
        error = made(kind, retryable=said)
        assert error.retryable is said
        assert ("retryable" in error.body()) is said
        assert copy.copy(error).body() == pickle.loads(pickle.dumps(error)).body() == error.body()


def test_whoever_makes_an_error_class_says_it_once() -> None:
    class Busy(ConsumerError):
        default_code = "busy"
        retryable = True

    assert Busy().body() == {"code": "busy", "message": ConsumerError.default_message, "retryable": True}
    assert Busy(retryable=False).body() == {"code": "busy", "message": ConsumerError.default_message}
    assert ConsumerError("busy", "Wait.", retryable=True).body()["retryable"] is True


@pytest.mark.parametrize(
    ("status", "retryable"), [(402, False), (408, True), (425, True), (429, True), (500, False), (503, True)]
)
def test_an_http_error_is_retryable_by_its_status(status: int, retryable: bool) -> None:
    assert http_error(status, "text").retryable is retryable
    assert HTTPError(status, retryable=not retryable).retryable is not retryable


def test_mistakes_are_told_in_one_text() -> None:
    problem = Problem("a-code", "Room.say, line 3", "this", "that", "do so")
    error = ImproperlyConfigured("Room (app, line 1)", [problem])
    assert error.problems == (problem,)
    assert str(error) == (
        "Room (app, line 1) has 1 mistake:\n\n1. [a-code] Room.say, line 3\n"
        "   found:    this\n   expected: that\n   fix:      do so"
    )
    assert "has 2 mistakes:" in str(ImproperlyConfigured("Room", [problem, problem]))


def test_an_error_class_with_a_code_of_its_own_takes_the_message_first():
    class SoldOut(ConsumerError):
        default_code = "sold_out"
        default_message = "Nothing is left."

    assert (SoldOut("Come back tomorrow.").code, SoldOut("Come back tomorrow.").message) == (
        "sold_out",
        "Come back tomorrow.",
    )
    assert SoldOut().message == "Nothing is left."
    assert (SoldOut("other", "Another one.").code, ConsumerError("plain").code) == ("other", "plain")


def test_a_code_without_a_message_is_a_code() -> None:
    error = PermissionDenied(code="banned")
    assert (error.code, error.message) == ("banned", PermissionDenied.default_message)
    assert (PermissionDenied("Banned.").code, PermissionDenied("Banned.").message) == ("permission_denied", "Banned.")


def test_some_errors_have_headers_where_they_are_told_over_http() -> None:
    assert ConsumerError("any").http_headers() == {}
    assert Throttled(2.1).http_headers() == {"retry-after": "3"}
    assert Throttled().http_headers() == NotAuthenticated().http_headers() == {}
    assert NotAuthenticated(challenge="Bearer").http_headers() == {"www-authenticate": "Bearer"}
    kept = http_error(401, "Who?", {"WWW-Authenticate": "Basic"})
    assert isinstance(kept, NotAuthenticated)
    assert (kept.message, kept.challenge) == ("Who?", "Basic")
    assert http_error(401, "Who?").http_headers() == {}
    assert GroupFull().http_headers() == {"retry-after": "5"}
    assert BrokerUnavailable().http_headers() == HistoryUnavailable().http_headers() == {"retry-after": "1"}
    assert http_error(503, "Soon.", {"Retry-After": "7"}).http_headers() == {"retry-after": "7"}
    assert http_error(503, "Soon.").http_headers() == {}


def test_an_error_of_ones_own_may_say_when_to_come_again() -> None:
    class Closed(ConsumerError):
        default_code = "closed_for_lunch"
        http_status = 503
        http_retry_after = 0.2

    assert Closed().http_headers() == {"retry-after": "1"}
    assert "retry_after" not in Closed().body()


DOCS = Path(__file__).resolve().parent.parent / "docs" / "errors.md"
DOCUMENTED = re.compile(r"^\| ([│├└ ]*)`(\w+)` \| `(\w+)` \| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def test_the_table_in_the_documentation_is_the_real_one() -> None:
    rows = DOCUMENTED.findall(DOCS.read_text(encoding="utf-8"))
    assert {name for _, name, *_ in rows} == {kind.__name__ for kind in ERRORS}
    assert len(rows) == len(ERRORS)
    parents: list[str] = []
    for lead, name, code, close_code, status, retry, message in rows:
        kind = PUBLIC[name]
        assert issubclass(kind, ConsumerError)
        assert (code, close_code) == (kind.default_code, str(int(kind.default_close_code))), name
        assert message == kind.default_message, name
        if kind is HTTPError:
            assert (status, retry) == ("its own", "by its status")
        else:
            assert (status, retry) == (str(kind.http_status), "yes" if kind.retryable else "no"), name
        depth = len(lead) // 2
        parents = [*parents[:depth], name]
        bases = [base.__name__ for base in kind.__mro__[1:] if not base.__name__.startswith("_")]
        assert bases[0] == (parents[depth - 1] if depth else "Exception")


LANGUAGES = sorted(path.name for path in (Path(exceptions.__file__).parent / "locale").iterdir() if path.is_dir())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_is_translated(language: str) -> None:
    found = gettext.translation("fastapi_consumers", Path(exceptions.__file__).parent / "locale", [language])
    untranslated = [
        kind.__name__ for kind in ERRORS if found.gettext(str(kind.default_message)) == kind.default_message
    ]
    assert untranslated == []
