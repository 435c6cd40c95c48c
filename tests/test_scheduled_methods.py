"""What a class may put on a schedule, and what is said of what it may not."""

from collections.abc import Callable
from typing import Any

import pytest

from fastapi_consumers import Consumer, GroupConsumer, ImproperlyConfigured, action, cron, event, every
from fastapi_consumers.marks import SCHEDULE_MARK, ScheduleMark


def mistakes_of(make: Callable[[], Any]) -> list[str]:
    with pytest.raises(ImproperlyConfigured) as caught:
        make()
    return [problem.code for problem in caught.value.problems]


def with_method(value: Any, name: str = "tick", base: Any = GroupConsumer) -> Any:
    return type(GroupConsumer)("Room", (base,), {name: value})


async def tick(cls: Any, consumers: Any) -> None: ...


def test_a_marked_method_is_what_it_was_and_can_be_called():
    calls = []

    class Room(GroupConsumer):
        @every("30s")
        @classmethod
        async def one(cls, group: str) -> None:
            calls.append((cls, group))

        @classmethod
        @cron("0 9 * * 1-5", tz="Europe/Berlin", name="nine o'clock", timeout=60, take_over=False)
        async def two(cls) -> None: ...

    Room.one("a").close()
    assert "schedules:            " in Room._meta.describe()
    assert isinstance(getattr(Room.one.__func__, SCHEDULE_MARK), ScheduleMark)
    names = list(Room._meta.schedules)
    assert [name.rpartition(">.")[2] for name in names] == ["Room.one", "nine o'clock"]
    one, two = Room._meta.schedules.values()
    assert (one.kind, two.kind) == ("group", "class")
    assert repr(two).startswith("cron '0 9 * * 1-5' in Europe/Berlin, line ")
    assert repr(two).endswith("[timeout 60 s, not taken over]")
    assert repr(one).startswith("every 30 s for each group, line ")


def test_they_are_inherited_replaced_and_removed():
    class Base(GroupConsumer, abstract=True):
        @every("30s")
        @classmethod
        async def tick(cls) -> None: ...

        @every("40s")
        @classmethod
        async def tock(cls) -> None: ...

    class Room(Base):
        @every("5s")
        @classmethod
        async def tick(cls, group: str) -> None: ...

        tock = None

    class Mixin:
        @every("7s")
        @classmethod
        async def mixed(cls) -> None: ...

    class Mixed(Mixin, Base): ...

    assert [repr(each).partition(",")[0] for each in Room._meta.schedules.values()] == ["every 5 s for each group"]
    assert [each.cls for each in Mixed._meta.schedules.values()] == [Mixed] * 3
    assert {name.rpartition(">.")[2] for name in Mixed._meta.schedules} == {"Mixed.tick", "Mixed.tock", "Mixed.mixed"}
    assert len(Base._meta.schedules) == 2


def test_variants_of_a_class_have_schedules_of_their_own():
    class Room(GroupConsumer):
        @every("30s")
        @classmethod
        async def tick(cls) -> None: ...

    variant = Room.as_asgi(max_message_size=100).consumer_class
    assert set(variant._meta.schedules).isdisjoint(Room._meta.schedules)


def test_other_consumers_may_have_them_too():
    assert len(with_method(every(5)(classmethod(tick)), base=Consumer)._meta.schedules) == 1


def blocking(cls: Any) -> None: ...
async def generating(cls: Any) -> Any:
    yield 1


async def instance(self: Any) -> None: ...
async def depends(cls: Any, db: Any) -> None: ...
async def splatted(cls: Any, *groups: Any) -> None: ...
async def positional(cls: Any, group: Any, /) -> None: ...
async def defaulted(cls: Any, limit: int = 5) -> None: ...


@pytest.mark.parametrize(
    ("make", "codes"),
    [
        (lambda: every("x")(classmethod(tick)), ["bad-interval"]),
        (lambda: cron("x")(classmethod(tick)), ["bad-cron"]),
        (lambda: cron("0 0 * * *", tz="Mars")(classmethod(tick)), ["unknown-time-zone"]),
        (lambda: every(5, name="")(classmethod(tick)), ["bad-schedule-name"]),
        (lambda: every(5, name="x" * 129)(classmethod(tick)), ["bad-schedule-name"]),
        (lambda: every(5, timeout=0)(classmethod(tick)), ["bad-schedule-timeout"]),
        (lambda: every(5, take_over=1)(classmethod(tick)), ["bad-take-over"]),
        (lambda: every("x", timeout=-1)(classmethod(tick)), ["bad-interval", "bad-schedule-timeout"]),
        (lambda: every(5)(instance), ["schedule-not-classmethod"]),
        (lambda: every(5)(staticmethod(tick)), ["schedule-not-classmethod"]),
        (lambda: every(5)(classmethod(blocking)), ["schedule-not-async"]),
        (lambda: every(5)(classmethod(generating)), ["schedule-not-async"]),
        (lambda: every(5)(classmethod(depends)), ["schedule-parameter"]),
        (lambda: every(5)(classmethod(splatted)), ["schedule-parameter"]),
        (lambda: every(5)(classmethod(positional)), ["schedule-parameter"]),
        (lambda: every(5)(classmethod(defaulted)), []),
    ],
)  # fmt: skip
def test_mistakes(make, codes):
    for function in (tick, blocking, generating, instance, depends, splatted, positional, defaulted):
        vars(function).pop(SCHEDULE_MARK, None)
    if codes:
        assert mistakes_of(lambda: with_method(make())) == codes
    else:
        with_method(make())


def test_a_name_that_means_something_else():
    assert mistakes_of(lambda: with_method(every(5)(classmethod(tick)), "send")) == ["schedule-shadows-attribute"]


@pytest.mark.parametrize("mark", [action, event])
def test_one_method_is_one_thing(mark):
    async def both(self: Any) -> None: ...

    assert "schedule-and-action" in mistakes_of(lambda: with_method(every(5)(mark(both))))


def test_two_in_one_body_and_two_of_one_name():
    def make() -> None:
        class Room(GroupConsumer):
            @every(5)
            @classmethod
            async def tick(cls) -> None: ...

            @every(6)
            @classmethod
            async def tick(cls) -> None: ...  # noqa: F811

    assert mistakes_of(make) == ["action-defined-twice"]

    def make_named() -> None:
        class Room(GroupConsumer):
            @every(5, name="one")
            @classmethod
            async def tick(cls) -> None: ...

            @every(6, name="one")
            @classmethod
            async def tock(cls) -> None: ...

    assert mistakes_of(make_named) == ["schedule-name-taken"]


def test_an_override_says_that_it_is_on_a_schedule():
    class Base(GroupConsumer, abstract=True):
        @every(5)
        @classmethod
        async def tick(cls) -> None: ...

    def make() -> None:
        class Room(Base):
            @classmethod
            async def tick(cls) -> None: ...

    assert mistakes_of(make) == ["override-without-mark"]


def test_what_is_no_function():
    with pytest.raises(TypeError, match="marks a function"):
        every(5)(5)
