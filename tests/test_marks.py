"""Decorators that only mark."""

from datetime import timedelta
from typing import Any

import pytest

from fastapi_consumers import action, event
from fastapi_consumers.marks import ACTION_MARK, EVENT_MARK, ActionMark


def test_a_marked_function_is_the_same_function() -> None:
    async def one(self: Any) -> None: ...
    async def two(self: Any, message: Any) -> None: ...

    assert action(one) is one
    assert event(two) is two
    assert getattr(one, ACTION_MARK) == ActionMark()
    assert getattr(two, EVENT_MARK) == "two"


def test_options_are_kept() -> None:
    async def one(self: Any) -> None: ...

    action("wire", concurrent=True, timeout=timedelta(seconds=2), throttle_classes=["1/second"])(one)
    mark = ActionMark("wire", throttle_classes=("1/second",), concurrent=True, timeout=2.0)
    assert getattr(one, ACTION_MARK) == mark
    assert mark.mistakes == ()


@pytest.mark.parametrize("kind", ["", 5, b"x"])
def test_an_event_is_named_by_text(kind: Any) -> None:
    with pytest.raises(TypeError, match="message's type"):
        event(kind)


def test_an_event_may_have_a_name_of_its_own() -> None:
    async def one(self: Any, message: Any) -> None: ...

    assert getattr(event("chat.message")(one), EVENT_MARK) == "chat.message"
    assert getattr(event()(one), EVENT_MARK) == "one"
