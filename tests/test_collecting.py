"""Every mistake of a class: all in one error when the class is made, each with a stable code and a text for people."""

import functools
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Body, Depends, File, Form, Header, Request
from pydantic import BaseModel

from fastapi_consumers import (
    Consumer,
    ConsumerError,
    CursorPagination,
    GroupConsumer,
    ImproperlyConfigured,
    InvalidPage,
    JSONConsumer,
    NotFound,
    PersonConsumer,
    RelayConsumer,
    action,
    event,
)
from fastapi_consumers.attributes import OPTION_NAMES
from fastapi_consumers.permissions import IsAuthenticated
from fastapi_consumers.presence import Presence
from fastapi_consumers.serializers import ResponseSerializer

#: Where an object lies, which is another place in each process that collects tests.
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Say(BaseModel):
    text: str


class Opaque:
    """Nothing that pydantic knows."""


def mistakes_of(make: Callable[[], Any]) -> list[str]:
    """The codes of the mistakes that making a class reports."""
    with pytest.raises(ImproperlyConfigured) as caught:
        make()
    return [problem.code for problem in caught.value.problems]


def with_method(function: Any, name: str = "say") -> Callable[[], Any]:
    return lambda: type(GroupConsumer)("Room", (GroupConsumer,), {name: function})


def with_attribute(**attributes: Any) -> Callable[[], Any]:
    return lambda: type(GroupConsumer)("Room", (GroupConsumer,), attributes)


def text_of(error: Any) -> str:
    """The text without line numbers, addresses, and what pydantic and FastAPI say in their own words."""
    text = re.sub(r"line \d+", "line N", ADDRESS.sub("", str(error)))
    text = re.sub(r"(pydantic cannot \w+:|cannot be used: Invalid args).*", r"\1 …", text)
    return re.sub(r"\[Depends\(.*\)\]", "[Depends(…)]", text)


def test_all_mistakes_of_a_class_are_told_together() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:

        class Room(GroupConsumer):
            groups = ["room.{room.name}"]
            permission_classes = [Say]
            max_message_size = -1
            permision_classes = []

            @action
            async def say(self, text) -> None: ...

            @action("say")
            async def shout(self, text: str) -> None: ...

            @action
            async def close(self) -> None: ...

            @action
            async def move(self, x: int) -> None: ...

            @action
            async def move(self, y: int) -> None: ...  # noqa: F811 -- the mistake that is tested

            @action
            @staticmethod
            async def ping(text: str) -> None: ...

    assert text_of(caught.value) == EXPECTED
    assert {problem.code for problem in caught.value.problems} == set(re.findall(r"\[([\w-]+)\]", EXPECTED))


EXPECTED = """\
test_all_mistakes_of_a_class_are_told_together.<locals>.Room (tests.test_collecting, line N) has 9 mistakes:

1. [action-defined-twice] test_all_mistakes_of_a_class_are_told_together.<locals>.Room.move, line N
   found:    a second marked method named 'move' in one class body; the one on line N is lost
   expected: one method of each name
   fix:      rename one of them

2. [unknown-option] test_all_mistakes_of_a_class_are_told_together.<locals>.Room.permision_classes
   found:    the attribute 'permision_classes', which no consumer has
   expected: an option, or a name that cannot be taken for one
   fix:      did you mean 'permission_classes'?

3. [action-shadows-attribute] test_all_mistakes_of_a_class_are_told_together.<locals>.Room.close, line N
   found:    an action whose method is named 'close', which means something else on a consumer
   expected: a method name of its own; the name that others call it by may be anything
   fix:      write `@action("close")` on a method with another name, for example `close_action`

4. [decorator-order] test_all_mistakes_of_a_class_are_told_together.<locals>.Room.ping, line N
   found:    @action together with @staticmethod
   expected: a plain method: it is called with the consumer
   fix:      remove @staticmethod, and take self as the first parameter

5. [action-name-taken] test_all_mistakes_of_a_class_are_told_together.<locals>.Room.shout, line N
   found:    the wire name 'say', which test_all_mistakes_of_a_class_are_told_together.<locals>.Room.say, line N has too
   expected: one action per wire name
   fix:      give one of them another name, or set `say = None` to remove an inherited one

6. [action-parameter-without-annotation] test_all_mistakes_of_a_class_are_told_together.<locals>.Room.say, line N
   found:    the parameter 'text' without an annotation
   expected: a type for every payload parameter, so that data can be validated
   fix:      annotate it, for example `text: str`

7. [bad-groups] test_all_mistakes_of_a_class_are_told_together.<locals>.Room.groups
   found:    'room.{room.name}'
   expected: text with plain path parameters, such as "chat.{room}"
   fix:      mend the template: {room.name} is not the plain name of a path parameter

8. [bad-permission-classes] test_all_mistakes_of_a_class_are_told_together.<locals>.Room.permission_classes
   found:    permission_classes with <class 'tests.test_collecting.Say'>
   expected: classes or instances of BasePermission, expressions of them, True, False or callables
   fix:      <class 'tests.test_collecting.Say'> is no permission; expected a class that derives from \
BasePermission, an instance or an expression of them, True, False, or a callable of (consumer, action=None). Derive \
every class in it from fastapi_consumers.permissions.BasePermission.

9. [bad-max-message-size] test_all_mistakes_of_a_class_are_told_together.<locals>.Room.max_message_size
   found:    -1
   expected: a whole number above 0
   fix:      mend `max_message_size`"""


async def no_consumer() -> None: ...
async def keyword_consumer(*, self: Any) -> None: ...
async def value_first(text: str) -> None: ...
async def model_first(data: Say) -> None: ...
async def unannotated(self, text) -> None: ...
async def star(self: Any, *texts: str) -> None: ...
async def double_star(self: Any, **texts: str) -> None: ...
async def positional_only(self: Any, text: str, /) -> None: ...
async def data_and_field(self: Any, data: Say, to: str) -> None: ...
async def body(self: Any, say: Annotated[Say, Body()]) -> None: ...
async def form(self: Any, text: Annotated[str, Form()]) -> None: ...
async def file(self: Any, file: bytes = File()) -> None: ...
async def request(self: Any, request: Request) -> None: ...
async def tasks(self: Any, tasks: BackgroundTasks) -> None: ...
async def not_a_type(self: Any, text: "3 + None") -> None: ...
async def unknown_type(self: Any, thing: Opaque) -> None: ...
async def unknown_whole(self: Any, data: Opaque) -> None: ...
async def unknown_return(self: Any) -> Opaque: ...
async def header_of_object(self: Any, thing: Annotated[Opaque, Header()]) -> None: ...


async def takes_request(request: Request) -> None: ...
async def takes_body(say: Say) -> None: ...
async def takes_takes_request(inner: Annotated[None, Depends(takes_request)]) -> None: ...
async def depends_on_request(self: Any, x: Annotated[None, Depends(takes_takes_request)]) -> None: ...
async def depends_on_body(self: Any, x: Annotated[None, Depends(takes_body)]) -> None: ...


BAD_SIGNATURES: list[tuple[Any, str]] = [
    (no_consumer, "action-without-self"),
    (keyword_consumer, "action-without-self"),
    (value_first, "action-without-self"),
    (model_first, "action-without-self"),
    (unannotated, "action-parameter-without-annotation"),
    (star, "action-variadic-parameter"),
    (double_star, "action-variadic-parameter"),
    (positional_only, "action-positional-only-parameter"),
    (data_and_field, "action-data-and-fields"),
    (body, "action-body-parameter"),
    (form, "action-body-parameter"),
    (file, "action-body-parameter"),
    (request, "action-http-parameter"),
    (tasks, "action-http-parameter"),
    (not_a_type, "action-annotation"),
    (unknown_type, "action-payload-type"),
    (unknown_whole, "action-payload-type"),
    (unknown_return, "action-return-type"),
    (header_of_object, "action-dependency"),
    (depends_on_request, "action-dependency"),
    (depends_on_body, "action-dependency"),
]


@pytest.mark.parametrize(
    ("function", "code"), BAD_SIGNATURES, ids=[function.__name__ for function, _ in BAD_SIGNATURES]
)
def test_a_signature_that_cannot_be_an_actions_is_refused(function: Any, code: str) -> None:
    assert mistakes_of(with_method(action("say")(function))) == [code]


def test_several_mistakes_of_one_signature_are_told_together() -> None:
    async def say(self, text, *args: int, **kwargs: int) -> None: ...

    assert mistakes_of(with_method(action(say))) == [
        "action-parameter-without-annotation",
        "action-variadic-parameter",
        "action-variadic-parameter",
    ]


RESERVED = [
    "close", "send", "connect", "action", "history", "presence", "broadcast", "join", "on_join", "groups", "user",
    "permission_classes", "throttle_classes", "max_connections", "receive_json", "as_asgi", "websocket", "scope",
]  # fmt: skip


@pytest.mark.parametrize("name", RESERVED)
def test_a_method_name_that_means_something_else_is_no_actions(name: str) -> None:
    async def function(self: Any) -> None: ...

    assert mistakes_of(with_method(action(function), name)) == ["action-shadows-attribute"]


@pytest.mark.parametrize("name", OPTION_NAMES)
def test_a_method_without_a_mark_is_no_option(name: str) -> None:
    def function(self: Any) -> None: ...

    assert mistakes_of(with_method(function, name)) == [f"bad-{name.replace('_', '-')}"]


@pytest.mark.parametrize("name", ["close", "send", "connect", "history", "presence", "on_join"])
def test_a_method_name_that_means_something_else_is_no_event_methods(name: str) -> None:
    async def function(self: Any, message: Any) -> None: ...

    assert mistakes_of(with_method(event("x")(function), name)) == ["event-shadows-attribute"]


def test_a_mixin_behind_the_framework_cannot_have_an_action_of_a_taken_name_either() -> None:
    class Mixin:
        @action
        async def send(self) -> None: ...

    assert mistakes_of(lambda: type(GroupConsumer)("Room", (GroupConsumer, Mixin), {})) == ["action-shadows-attribute"]


def test_any_wire_name_may_be_given_to_a_method_of_another_name() -> None:
    class Room(GroupConsumer):
        @action("close")
        async def close_room(self) -> None: ...

        @action("history")
        async def show(self) -> None: ...

    assert {name: a.method for name, a in Room._meta.actions.items()} == {"close": "close_room", "history": "show"}


def test_the_names_of_verbs_that_a_class_does_not_have_are_free() -> None:
    class Room(JSONConsumer):
        @action
        async def join(self) -> None: ...

    assert list(Room._meta.actions) == ["join"]


@pytest.mark.parametrize("wrap", [staticmethod, classmethod, property], ids=lambda wrap: wrap.__name__)
@pytest.mark.parametrize("decorator", [action("x"), event("x")], ids=["action", "event"])
@pytest.mark.parametrize("outside", [True, False], ids=["over", "under"])
def test_wrong_decorator_order_is_told(wrap: Any, decorator: Any, outside: bool) -> None:
    async def function(self: Any) -> None: ...

    made = decorator(wrap(function)) if outside else wrap(decorator(function))
    assert mistakes_of(with_method(made)) == ["decorator-order"]


def test_one_method_is_not_both_action_and_event() -> None:
    async def say(self: Any, text: str) -> None: ...

    assert mistakes_of(with_method(action(event("say")(say)))) == ["action-and-event"]


def test_two_methods_for_one_message_type_are_refused() -> None:
    async def a(self: Any, message: Any) -> None: ...
    async def b(self: Any, message: Any) -> None: ...

    assert mistakes_of(with_attribute(a=event("x")(a), b=event("x")(b))) == ["event-type-taken"]


def test_an_override_without_a_mark_is_refused() -> None:
    class Base(GroupConsumer):
        @action
        async def say(self) -> None: ...

        @event("x")
        async def heard(self, message: Any) -> None: ...

    async def say(self: Any) -> None: ...

    def sub(**attributes: Any) -> Callable[[], Any]:
        return lambda: type(Base)("Sub", (Base,), attributes)

    assert mistakes_of(sub(say=say)) == ["override-without-mark"]
    assert mistakes_of(sub(heard=say)) == ["override-without-mark"]
    assert mistakes_of(sub(say="not even a method")) == ["override-without-mark"]


def test_an_unmarked_method_in_between_does_not_matter_where_the_nearest_one_is_marked() -> None:
    class Base(GroupConsumer):
        @action
        async def say(self) -> None: ...

    class Mixin:
        async def say(self) -> None: ...

    class Room(Mixin, Base):
        @action
        async def say(self) -> None: ...

    assert Room._meta.actions["say"].owner.endswith("Room")


@pytest.mark.parametrize("name", ["encode_json", "decode_json"])
def test_a_codec_of_ones_own_is_a_class_method(name: str) -> None:
    def function(first: Any, content: Any) -> Any: ...

    assert mistakes_of(with_method(function, name)) == ["codec-not-classmethod"]
    with_method(classmethod(function), name)()
    with_method(staticmethod(function), name)()


@pytest.mark.parametrize("name", ["connect", "receive", "receive_json", "disconnect"])
def test_a_hook_that_is_awaited_is_no_plain_function(name: str) -> None:
    def function(self, *args): ...  # type: ignore[no-untyped-def]

    def says_so(self: Any, *args: Any) -> None: ...

    async def waits(self: Any, *args: Any) -> None: ...

    @functools.wraps(waits)
    def wrapper(self: Any, *args: Any) -> Any:
        return waits(self, *args)

    def returns_one(self: Any, *args: Any) -> Awaitable[None]:
        return waits(self, *args)

    assert mistakes_of(with_method(function, name)) == ["hook-not-async"]
    assert mistakes_of(with_method(says_so, name)) == ["hook-not-async"]
    for fine in (waits, wrapper, returns_one, lambda self, *args: waits(self, *args)):
        with_method(fine, name)()


def test_what_may_be_a_plain_function() -> None:
    class Room(GroupConsumer):
        def on_join(self, group: str) -> None: ...  # type: ignore[override]

        def on_leave(self, group: str) -> None: ...  # type: ignore[override]

        @event
        def poked(self, message: dict[str, Any]) -> None: ...

    assert {"on_join", "on_leave"} <= Room._meta.overridden


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"permission_classes": [Say]}, "bad-permission-classes"),
    ({"permission_classes": ["admin"]}, "bad-permission-classes"),
    ({"permission_classes": IsAuthenticated}, "bad-permission-classes"),
    ({"permission_classes": [lambda: True]}, "bad-permission-classes"),
    ({"authentication_classes": [IsAuthenticated]}, "bad-authentication-classes"),
    ({"authentication_classes": [lambda connection: None]}, "bad-authentication-classes"),
    ({"throttle_classes": ["often"]}, "bad-throttle-classes"),
    ({"throttle_classes": "20/second"}, "bad-throttle-classes"),
    ({"throttle_classes": [Say]}, "bad-throttle-classes"),
    ({"connection_throttle_classes": [3]}, "bad-connection-throttle-classes"),
    ({"groups": "room"}, "bad-groups"),
    ({"groups": [3]}, "bad-groups"),
    ({"groups": [""]}, "bad-groups"),
    ({"groups": ["a.{}"]}, "bad-groups"),
    ({"groups": ["a.{room!r}"]}, "bad-groups"),
    ({"groups": ["a.{room:>9}"]}, "bad-groups"),
    ({"groups": ["a.{room"]}, "bad-groups"),
    ({"groups": ["a.{x}{y}"]}, "bad-groups"),
    ({"groups": ["a.{x}-{y}"]}, "bad-groups"),
    ({"groups": ["a\n{x}"]}, "bad-groups"),
    ({"groups": ["a" * 300]}, "bad-groups"),
    ({"dependencies": [takes_body]}, "bad-dependencies"),
    ({"dependencies": [Depends(takes_request)]}, "bad-dependencies"),
    ({"request_serializer_class": dict}, "bad-request-serializer-class"),
    ({"request_serializer_class": Say}, "bad-request-serializer-class"),
    ({"response_serializer_class": Say}, "bad-response-serializer-class"),
    ({"exception_handlers": [ValueError]}, "bad-exception-handlers"),
    ({"exception_handlers": {404: print}}, "bad-exception-handlers"),
    ({"exception_handlers": {ValueError: "text"}}, "bad-exception-handlers"),
    ({"allowed_origins": "https://example.com"}, "bad-allowed-origins"),
    ({"allowed_origins": [3]}, "bad-allowed-origins"),
    ({"accept_refused": "yes"}, "bad-accept-refused"),
    ({"max_message_size": 0}, "bad-max-message-size"),
    ({"max_message_size": 1.5}, "bad-max-message-size"),
    ({"max_connections": True}, "bad-max-connections"),
    ({"max_outbox": "256"}, "bad-max-outbox"),
    ({"inbox_timeout": -1}, "bad-inbox-timeout"),
    ({"inbox_timeout": float("inf")}, "bad-inbox-timeout"),
    ({"write_timeout": float("nan")}, "bad-write-timeout"),
    ({"write_timeout": True}, "bad-write-timeout"),
    ({"permission_class": []}, "unknown-option"),
    ({"throtle_classes": []}, "unknown-option"),
    ({"max_mesage_size": 3}, "unknown-option"),
    ({"inbox_timout": 3}, "unknown-option"),
    ({"dependancies": []}, "unknown-option"),
    ({"allowed_origin": []}, "unknown-option"),
]


@pytest.mark.parametrize(
    ("attributes", "code"), BAD_OPTIONS, ids=[ADDRESS.sub("", repr(attributes)) for attributes, _ in BAD_OPTIONS]
)
def test_a_wrong_option_is_refused(attributes: dict[str, Any], code: str) -> None:
    assert mistakes_of(with_attribute(**attributes)) == [code]


def test_each_wrong_entry_of_a_list_is_told() -> None:
    assert mistakes_of(with_attribute(permission_classes=[Say, IsAuthenticated, "x"])) == ["bad-permission-classes"] * 2


def test_a_policy_that_cannot_be_made_is_a_mistake_like_others() -> None:
    class Broken(IsAuthenticated):
        def __init__(self) -> None:
            raise KeyError("setting")

    with pytest.raises(ImproperlyConfigured, match=r"\[bad-permission-classes\][\s\S]*setting"):
        with_attribute(permission_classes=[Broken])()


def test_a_policy_class_is_made_once() -> None:
    made: list[Any] = []

    class Counted(IsAuthenticated):
        def __init__(self) -> None:
            made.append(self)

    with_attribute(permission_classes=[Counted])()
    assert len(made) == 1


@pytest.mark.parametrize("attributes", [{"group": 1}, {"timeout": 3}, {"max_players": 4}, {"model_class": Say}, {}])
def test_attributes_of_ones_own_are_no_misspelt_options(attributes: dict[str, Any]) -> None:
    with_attribute(**attributes)()


class NoSuchPage(InvalidPage):
    """Another one of the same code."""


BAD_ACTION_OPTIONS: list[dict[str, Any]] = [
    {"timeout": 0},
    {"timeout": -1},
    {"timeout": "5"},
    {"timeout": float("inf")},
    {"timeout": True},
    {"concurrent": "yes"},
    {"enabled": None},
    {"deprecated": 1},
    {"permission_classes": IsAuthenticated},
    {"throttle_classes": "2/minute"},
    {"errors": NotFound},
    {"errors": "not_found"},
    {"errors": [404]},
    {"errors": [ValueError]},
    {"errors": [NotFound()]},
    {"errors": [ConsumerError]},
    {"errors": [InvalidPage, NoSuchPage]},
]


@pytest.mark.parametrize("options", BAD_ACTION_OPTIONS, ids=repr)
def test_wrong_options_of_an_action_are_told_with_the_other_mistakes(options: dict[str, Any]) -> None:
    async def say(self: Any) -> None: ...

    assert mistakes_of(with_attribute(say=action(**options)(say), max_outbox=0)) == ["action-option", "bad-max-outbox"]


@pytest.mark.parametrize("name", ["", "x" * 129, 5, b"say"])
def test_a_wire_name_is_a_short_text(name: Any) -> None:
    async def say(self: Any) -> None: ...

    assert mistakes_of(with_method(action(name)(say))) == ["action-option"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"permission_classes": [Say]}, "bad-permission-classes"),
        ({"throttle_classes": ["often"]}, "bad-throttle-classes"),
    ],
)
def test_policies_of_an_action_are_checked(options: dict[str, Any], code: str) -> None:
    async def say(self: Any) -> None: ...

    assert mistakes_of(with_method(action(**options)(say))) == [code]


def test_the_errors_of_an_action_are_kept_for_functions_too() -> None:
    class Room(JSONConsumer):
        @action(errors=[NotFound, InvalidPage])
        async def say(self) -> None: ...

    @Room.action("shout", errors=(NotFound,))
    async def shout(consumer: Any) -> None: ...

    assert Room._meta.actions["say"].errors == (NotFound, InvalidPage)
    assert Room._meta.actions["shout"].errors == (NotFound,)
    with pytest.raises(ImproperlyConfigured, match="errors with 5"):
        Room.action("whisper", errors=[5])(shout)  # type: ignore[list-item]


@pytest.mark.parametrize("base", [Consumer, RelayConsumer])
def test_actions_need_a_consumer_whose_frames_are_requests(base: Any) -> None:
    async def say(self: Any) -> None: ...

    assert mistakes_of(lambda: type(base)("Room", (base,), {"say": action(say)})) == ["actions-out-of-reach"]


@pytest.mark.parametrize("decorator", [action, event])
@pytest.mark.parametrize("thing", [Say, object(), 3])
def test_only_functions_are_marked(decorator: Any, thing: Any) -> None:
    with pytest.raises(TypeError, match="marks a function"):
        decorator("x")(thing)


def test_options_that_are_right_are_kept() -> None:
    class Answer(ResponseSerializer):
        status: str

    class Room(PersonConsumer):
        groups = ["room.{room}", "all"]
        permission_classes = [IsAuthenticated, True]
        throttle_classes = ["5/second"]
        response_serializer_class = Answer
        accept_refused = True
        allowed_origins = ["https://example.com"]

    meta = Room._meta
    assert [template.text for template in meta.groups] == ["room.{room}", "all"]
    assert len(meta.permissions or ()) == 1
    assert meta.authentications is None
    assert meta.response_serializer_class is Answer
    assert meta.limits == {"max_connections": 2}
    assert (meta.accept_refused, meta.allowed_origins) == (True, ("https://example.com",))


def each_mistake() -> Iterator[tuple[str, Callable[[], Any]]]:
    """One class for each mistake that the tests above know of, and what is wrong with it."""
    for function, _ in BAD_SIGNATURES:
        yield f"signature: {function.__name__}", with_method(action("say")(function))
    for attributes, _ in BAD_OPTIONS:
        yield f"option: {text_of(attributes)}", with_attribute(**attributes)

    for options in BAD_ACTION_OPTIONS:
        yield f"@action option: {options}", with_method(action(**options)(method()))
    for policies in ({"permission_classes": [Say]}, {"throttle_classes": ["often"]}):
        yield f"@action policies: {policies}", with_method(action(**policies)(method()))
    yield "a wire name that is none", with_method(action("")(method()))
    for name in RESERVED:
        yield f"an action named {name}", with_method(action(method()), name)
    yield "an event method named close", with_method(event("x")(method()), "close")
    for wrap in (staticmethod, classmethod, property):
        yield f"@action around {wrap.__name__}", with_method(wrap(action("x")(method())))
        yield f"@event around {wrap.__name__}", with_method(wrap(event("x")(method())))
    yield "action and event", with_method(action(event("say")(method())))
    yield "two actions of one name", with_attribute(say=action("say")(method()), shout=action("say")(method()))
    yield "two methods for one type", with_attribute(a=event("x")(method()), b=event("x")(method()))
    yield "a codec that is no class method", with_method(method(), "encode_json")
    yield "a hook that is not async", with_method(plain, "connect")

    class Base(GroupConsumer):
        shout = action("shout")(method())
        listen = event("x")(method())

    for name in ("shout", "listen"):
        yield f"an override of {name} without a mark", partial(type(Base), "Sub", (Base,), {name: method()})
    yield "actions out of reach", partial(type(Consumer), "Room", (Consumer,), {"say": action("say")(method())})
    presence = Presence(key=lambda consumer: "x")
    yield "presence out of reach", partial(type(JSONConsumer), "Room", (JSONConsumer,), {"presence": presence})
    paged = action("say", pagination_class=CursorPagination)(method())
    yield "a pagination without parameters", partial(type(JSONConsumer), "Room", (JSONConsumer,), {"say": paged})


def method() -> Any:
    """Another one each time, since a mark stays on its function."""

    async def say(self: Any) -> None: ...

    return say


def plain(self: Any) -> None: ...


SNAPSHOT = Path(__file__).with_name("mistakes.txt")


def test_the_text_of_every_mistake() -> None:
    """``UPDATE_SNAPSHOTS=1 pytest tests/test_collecting.py`` writes the file anew; look at what has changed."""
    texts: list[str] = []
    for title, make in each_mistake():
        with pytest.raises(ImproperlyConfigured) as caught:
            make()
        _, _, mistakes = text_of(caught.value).partition("\n\n")
        texts.append(f"# {title}\n{mistakes}\n")
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text("\n".join(texts), encoding="utf-8")
    assert "\n".join(texts) == SNAPSHOT.read_text(encoding="utf-8")
