"""What people read of a class, and the bounds that may be set."""

import re
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Depends

from fastapi_consumers import ConsumerError, GroupConsumer, NotFound, action, event
from fastapi_consumers.options import LIMIT_NAMES, Limits, limit_mistake
from fastapi_consumers.permissions import IsAuthenticated
from fastapi_consumers.serializers import FlatRequest, ResponseSerializer


class Answer(ResponseSerializer):
    status: str


class TooDear(ConsumerError):
    default_code = "too_dear"


async def greet(consumer: Any, group: str) -> None: ...


class Room(GroupConsumer):
    groups = ["room.{room}", "all"]
    authentication_classes = []
    permission_classes = [IsAuthenticated & ~IsAuthenticated]
    throttle_classes = ["5/second"]
    request_serializer_class = FlatRequest
    response_serializer_class = Answer
    exception_handlers = {ValueError: lambda consumer, error: None}
    allowed_origins = ["https://example.com"]
    max_connections = 7
    inbox_timeout = timedelta(minutes=1)

    @action
    async def ping(self) -> None: ...

    @action("say", permission_classes=[IsAuthenticated], concurrent=True, timeout=5)
    async def speak(self, text: str) -> None: ...

    @action(deprecated=True, enabled=False, errors=[NotFound, TooDear])
    def blocking(self) -> None: ...

    @action
    async def tail(self, db: int = Depends(lambda: 1)) -> Any:
        yield 1

    @event("chat.message")
    async def heard(self, message: Any) -> None: ...


Room.add_event_handler("join", greet)


def test_a_class_describes_itself() -> None:
    text = re.sub(r"line \d+", "line N", Room._meta.describe())
    assert (
        text
        == """\
Room (tests.test_options, line N)
  groups:               room.{room}
                        all
  actions:              ping -> Room.ping(), line N
                        say -> Room.speak(), line N [concurrent, timeout 5.0 s, IsAuthenticated]
                        blocking -> Room.blocking(), line N [thread, deprecated, disabled, errors not_found too_dear]
                        tail -> Room.tail(), line N [streams]
  events:               chat.message -> heard()
  on join:              greet
  authentication:       none
  permissions:          (IsAuthenticated & ~IsAuthenticated)
  throttles:            UserRateThrottle('5/second')
  request serializer:   FlatRequest
  response serializer:  Answer
  exception handlers:   ValueError
  allowed origins:      https://example.com
  limits:               inbox_timeout = 60.0
                        max_connections = 7"""
    )


def test_a_class_that_declares_nothing_describes_itself_in_one_line() -> None:
    class Plain(GroupConsumer, abstract=True): ...

    assert re.fullmatch(r"[\w.<>]+Plain \(tests\.test_options, line \d+\) abstract", Plain._meta.describe())


def test_what_waits_for_a_name_is_described() -> None:
    class Waiting(GroupConsumer):
        @action
        async def say(self, data: "Later") -> None: ...  # noqa: F821 -- never defined, or later

    assert "unresolved:" in Waiting._meta.describe()
    assert "name 'Later' is not defined" in Waiting._meta.describe()


def test_options_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Room._meta.abstract = True
    with pytest.raises(TypeError):
        Room._meta.actions["x"] = Room._meta.actions["ping"]


@pytest.mark.parametrize("name", LIMIT_NAMES)
def test_the_defaults_are_valid(name: str) -> None:
    assert limit_mistake(name, getattr(Limits(), name)) is None


@pytest.mark.parametrize(
    "name", [name for name in LIMIT_NAMES if not name.endswith(("_timeout", "_grace")) and name != "overflow"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", [], float("nan"), timedelta(seconds=1)])
def test_counts_are_whole_numbers_above_0(name: str, value: Any) -> None:
    assert limit_mistake(name, value) == "a whole number above 0"


@pytest.mark.parametrize("name", ["inbox_timeout", "write_timeout"])
@pytest.mark.parametrize("value", [0, -0.1, True, "1", None, float("inf"), float("nan"), timedelta()])
def test_durations_are_seconds_above_0(name: str, value: Any) -> None:
    assert limit_mistake(name, value) == "seconds above 0, or a timedelta"


def test_a_grace_may_be_none_at_all() -> None:
    for value in (0, 0.5, timedelta(), timedelta(minutes=1)):
        assert limit_mistake("authentication_grace", value) is None
    for value in (-1, True, "1", None, float("inf"), float("nan")):
        assert limit_mistake("authentication_grace", value) == "seconds, 0 or more, or a timedelta"


@pytest.mark.parametrize("value", [0.1, 3, timedelta(milliseconds=1)])
def test_durations_may_be_numbers_or_timedeltas(value: Any) -> None:
    assert limit_mistake("inbox_timeout", value) is None


def test_overflow_is_one_of_four_policies():
    assert [limit_mistake("overflow", value) for value in ("disconnect", "drop_oldest", "drop_newest", "coalesce")] == (
        [None] * 4
    )
    for value in ("drop", "", None, 1, True, ["disconnect"]):
        assert limit_mistake("overflow", value) == "one of 'disconnect', 'drop_oldest', 'drop_newest', 'coalesce'"


def test_only_connections_and_their_silence_may_be_unlimited() -> None:
    unlimited = ["idle_timeout", "max_connections", "max_connections_per_user", "max_connections_per_address"]
    assert [name for name in LIMIT_NAMES if limit_mistake(name, None) is None] == unlimited


def test_durations_are_kept_in_seconds() -> None:
    assert Limits(write_timeout=timedelta(minutes=1)).write_timeout == 60.0
