"""Where actions, events and handlers come from: inheritance, function style, annotations that resolve later."""

import gc
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fastapi_consumers import (
    Consumer,
    GroupConsumer,
    ImproperlyConfigured,
    JSONConsumer,
    PersonConsumer,
    action,
    event,
    path,
)
from fastapi_consumers.metaclass import resolve
from fastapi_consumers.permissions import AllowAny, IsAuthenticated


def owners(cls: type[Consumer]) -> dict[str, str]:
    """Wire name to the class that the action comes from."""
    return {name: found.owner.rpartition(".")[2] for name, found in cls._meta.actions.items()}


class Base(GroupConsumer, abstract=True):
    @action
    async def say(self) -> str:
        return "base"

    @action("shout")
    async def cry(self) -> None: ...

    @event("chat.message")
    async def heard(self, message: Any) -> None: ...


# -- inheritance -------------------------------------------------------------------------------------------------------


def test_actions_and_events_are_inherited() -> None:
    class Room(Base):
        @action
        async def ping(self) -> None: ...

    assert owners(Room) == {"say": "Base", "shout": "Base", "ping": "Room"}
    assert Room._meta.events == {"chat.message": "heard"}
    assert not Room._meta.abstract
    assert Base._meta.abstract


def test_an_inherited_action_is_the_same_object() -> None:
    class Room(Base): ...

    assert Room._meta.actions["say"] is Base._meta.actions["say"]


def test_a_marked_override_replaces() -> None:
    class Room(Base):
        @action
        async def say(self, text: str) -> str:
            return text

    assert owners(Room) == {"shout": "Base", "say": "Room"}
    assert Room._meta.actions["say"].payload.kind == "fields"
    assert Base._meta.actions["say"].payload.kind == "none"


def test_an_override_may_have_another_wire_name() -> None:
    class Room(Base):
        @action("cry")
        async def cry(self) -> None: ...

        @event("chat.other")
        async def heard(self, message: Any) -> None: ...

    assert owners(Room) == {"say": "Base", "cry": "Room"}
    assert Room._meta.events == {"chat.other": "heard"}


def test_none_removes() -> None:
    class Room(Base):
        say = None
        heard = None

    assert owners(Room) == {"shout": "Base"}
    assert Room._meta.events == {}


def test_what_was_removed_can_come_back() -> None:
    class Quiet(Base):
        say = None

    class Loud(Quiet):
        @action
        async def say(self) -> None: ...

    assert owners(Loud)["say"] == "Loud"


def test_plain_mixins_bring_actions() -> None:
    class Mixin:
        @action
        async def ping(self) -> None: ...

        @event("x")
        async def x(self, message: Any) -> None: ...

    class Room(Mixin, Base): ...

    assert owners(Room) == {"say": "Base", "shout": "Base", "ping": "Mixin"}
    assert Room._meta.events == {"chat.message": "heard", "x": "x"}


def test_a_mixin_brings_options() -> None:
    class Strict:
        permission_classes = [IsAuthenticated]
        inbox_timeout = timedelta(seconds=3)

    class Room(Strict, Base): ...

    assert Room._meta.permissions is not None
    assert len(Room._meta.permissions) == 1
    assert Room._meta.limits == {"inbox_timeout": 3.0}


def test_in_a_diamond_the_resolution_order_decides() -> None:
    class Left(Base):
        @action
        async def say(self) -> str:
            return "left"

    class Right(Base):
        @action
        async def say(self) -> str:
            return "right"

        @action
        async def ping(self) -> None: ...

    class Both(Left, Right): ...

    class Other(Right, Left): ...

    assert owners(Both) == {"shout": "Base", "ping": "Right", "say": "Left"}
    assert owners(Other)["say"] == "Right"


def test_one_function_under_two_names_is_two_actions() -> None:
    class Room(GroupConsumer):
        @action
        async def say(self) -> None: ...

        tell = say

    class Sub(Room): ...

    assert owners(Sub) == {"say": "Room", "tell": "Room"}


def test_the_nearest_class_that_sets_an_option_decides() -> None:
    class Room(Base):
        groups = ["a"]
        permission_classes = [IsAuthenticated]

    class Open(Room):
        permission_classes = []
        max_connections = 7

    class Default(Room):
        permission_classes = None

    assert Open._meta.permissions == ()
    assert Default._meta.permissions is None
    assert Open._meta.groups == Room._meta.groups
    assert Open._meta.limits == {"max_connections": 7}


def test_what_actions_add_is_kept_apart() -> None:
    class Room(GroupConsumer):
        permission_classes = [IsAuthenticated]

        @action(permission_classes=[lambda consumer: True], throttle_classes=["1/second"])
        async def say(self) -> None: ...

        @action(permission_classes=[AllowAny])
        async def ping(self) -> None: ...

    assert list(Room._meta.action_permissions) == ["say"]
    assert list(Room._meta.action_throttles) == ["say"]


def test_an_abstract_class_is_not_abstracts_parent_for_good() -> None:
    class Middle(Base, abstract=True): ...

    class Room(Middle): ...

    assert Middle._meta.abstract
    assert not Room._meta.abstract
    with pytest.raises(ImproperlyConfigured, match="abstract"):
        path("/x", Middle)


def test_overridden_hooks_are_known() -> None:
    class Room(Base):
        async def receive_json(self, content: Any) -> None: ...

        async def on_join(self, group: str) -> None: ...

    assert Room._meta.overridden == {"receive_json", "on_join"}
    assert PersonConsumer._meta.overridden == frozenset()


def test_methods_may_be_called_like_what_is_done_with_classes() -> None:
    class Room(GroupConsumer):
        @action
        async def resolve(self) -> None: ...

        @action
        async def refresh(self) -> None: ...

        @action
        async def register(self) -> None: ...

    @Room.action("ping")
    async def ping(consumer: Room) -> None: ...

    assert path("/x", Room).consumer_class is Room
    assert list(Room._meta.actions) == ["resolve", "refresh", "register", "ping"]


def test_as_asgi_overrides_attributes_and_leaves_the_class() -> None:
    class Room(Base):
        groups = ["a"]

    app = Room.as_asgi(max_connections=3, groups=["b"])
    assert app.consumer_class is not Room
    assert issubclass(app.consumer_class, Room)
    assert app.consumer_class._meta.limits == {"max_connections": 3}
    assert [template.text for template in app.consumer_class._meta.groups] == ["b"]
    assert app.consumer_class._meta.actions["say"] is Room._meta.actions["say"]
    assert [template.text for template in Room._meta.groups] == ["a"]
    assert Room._meta.limits == {}
    with pytest.raises(ImproperlyConfigured, match="bad-max-connections"):
        Room.as_asgi(max_connections=0)


def test_the_place_of_a_class_is_known() -> None:
    class Room(Base): ...

    assert Path(Room._meta.file).name == "test_metaclass.py"
    source = Path(__file__).read_text().splitlines()
    assert source[Room._meta.line - 1].strip() == "class Room(Base): ..."


# -- function style ----------------------------------------------------------------------------------------------------


@pytest.fixture
def family() -> tuple[type[GroupConsumer], type[GroupConsumer], type[GroupConsumer]]:
    class Parent(GroupConsumer): ...

    class Child(Parent): ...

    class Grandchild(Child): ...

    return Parent, Child, Grandchild


Family = tuple[type[GroupConsumer], type[GroupConsumer], type[GroupConsumer]]


async def ping(consumer: GroupConsumer) -> str:
    return "pong"


async def pong(consumer: GroupConsumer) -> str:
    return "ping"


def test_a_registered_function_reaches_subclasses_that_exist_and_that_come(family: Family) -> None:
    parent, child, grandchild = family
    parent.action("ping")(ping)

    class Later(child):
        pass

    for cls in (parent, child, grandchild, Later):
        assert cls._meta.actions["ping"] is parent._meta.actions["ping"]
        assert cls._meta.actions["ping"].function is ping


def test_a_function_registered_on_a_subclass_stays_there(family: Family) -> None:
    parent, child, grandchild = family
    child.action("ping")(ping)
    assert [len(cls._meta.actions) for cls in (parent, child, grandchild)] == [0, 1, 1]


def test_the_functions_name_is_the_wire_name_if_none_is_given(family: Family) -> None:
    family[0].action()(ping)
    assert list(family[2]._meta.actions) == ["ping"]


def test_a_function_is_registered_with_parentheses(family: Family) -> None:
    with pytest.raises(TypeError, match="parentheses"):
        family[0].action(ping)


def test_the_nearer_registration_replaces(family: Family) -> None:
    parent, child, _ = family
    child.action("ping")(pong)
    parent.action("ping")(ping)
    functions = [cls._meta.actions["ping"].function for cls in family]
    assert functions == [ping, pong, pong]


def test_a_method_of_a_subclass_replaces_what_its_base_registered(family: Family) -> None:
    parent, _, _ = family

    class Room(parent):
        @action
        async def ping(self) -> None: ...

    parent.action("ping")(ping)
    assert owners(Room) == {"ping": "Room"}


def test_none_removes_what_a_base_registered(family: Family) -> None:
    parent, _, _ = family
    parent.action("ping")(ping)

    class Quiet(parent):
        ping = None

    assert Quiet._meta.actions == {}


def test_two_functions_of_one_wire_name_on_one_class_are_refused(family: Family) -> None:
    parent = family[0]
    parent.action("ping")(ping)
    with pytest.raises(ImproperlyConfigured, match="action-name-taken"):
        parent.action("ping")(pong)
    assert parent._meta.actions["ping"].function is ping


def test_a_registration_that_is_wrong_changes_nothing_anywhere(family: Family) -> None:
    parent, _, grandchild = family

    async def wrong(consumer: Any, *texts: str) -> None: ...

    before = [cls._meta for cls in family]
    with pytest.raises(ImproperlyConfigured, match="action-variadic-parameter"):
        parent.action("wrong")(wrong)
    assert [cls._meta for cls in family] == before
    parent.action("ping")(ping)
    assert list(grandchild._meta.actions) == ["ping"]


def test_a_registration_that_one_subclass_cannot_take_reaches_none_of_them() -> None:
    class Parent(Consumer):
        _has_actions = True  # as in JSONConsumer
        action = JSONConsumer.action

    class Good(Parent): ...

    class Mute(Parent):
        _has_actions = False

    before = [cls._meta for cls in (Parent, Good, Mute)]
    with pytest.raises(ImproperlyConfigured, match="actions-out-of-reach"):
        Parent.action("ping")(ping)
    assert [cls._meta for cls in (Parent, Good, Mute)] == before
    assert Parent._meta.actions == Good._meta.actions == {}


def test_a_class_that_could_not_be_made_is_no_subclass(family: Family) -> None:
    parent = family[0]
    with pytest.raises(ImproperlyConfigured) as caught:
        type(parent)("Broken", (parent,), {"max_outbox": 0})
    # The exception keeps the class alive.
    parent.action("ping")(ping)
    assert list(parent._meta.actions) == ["ping"]
    del caught
    gc.collect()


def test_handlers_are_called_bases_first(family: Family) -> None:
    parent, child, grandchild = family

    @child.on_event("join")
    async def second(consumer: Any, group: str) -> None: ...

    def first(consumer: Any, group: str) -> None: ...

    parent.add_event_handler("join", first)
    parent.add_event_handler("leave", first)
    assert grandchild._meta.handlers == {"join": (first, second), "leave": (first,)}
    assert parent._meta.handlers == {"join": (first,), "leave": (first,)}


def test_only_join_and_leave_are_listened_to(family: Family) -> None:
    with pytest.raises(ValueError, match="'join', 'leave'"):
        family[0].on_event("connect")(ping)
    with pytest.raises(TypeError, match="function of"):
        family[0].add_event_handler("join", "ping")


# -- annotations that resolve later ------------------------------------------------------------------------------------


@pytest.fixture
def module_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Any]]:
    """Run source text as a module of its own."""
    names: list[str] = []

    def make(source: str) -> Any:
        name = f"made_for_{request.node.name.replace('[', '_').replace(']', '')}_{len(names)}"
        module = types.ModuleType(name)
        sys.modules[name] = module
        names.append(name)
        exec(compile(textwrap.dedent(source), f"{name}.py", "exec"), module.__dict__)
        return module

    yield make
    for name in names:
        del sys.modules[name]


HEAD = """
from __future__ import annotations
from typing import TYPE_CHECKING, Annotated
from fastapi import Depends
from pydantic import BaseModel
from fastapi_consumers import GroupConsumer, action, path
"""


def test_future_annotations_resolve_at_once_where_the_names_exist(module_of: Callable[[str], Any]) -> None:
    module = module_of(
        HEAD
        + """
class Say(BaseModel):
    text: str

class Room(GroupConsumer):
    @action
    async def say(self, data: Say) -> Say: ...
"""
    )
    assert module.Room._meta.unresolved == ()
    assert module.Room._meta.actions["say"].payload.annotation is module.Say


LATER = """
class Room(GroupConsumer):
    @action
    async def say(self, data: Say) -> Say: ...

    @action
    async def ping(self) -> None: ...

class Sub(Room): ...
class Say(BaseModel):
    text: Text
Text = str
"""


def test_names_that_the_module_defines_later_resolve_at_first_use(module_of: Callable[[str], Any]) -> None:
    module = module_of(HEAD + LATER)
    assert list(module.Room._meta.actions) == ["ping"]
    assert [where.partition(",")[0] for where, _ in module.Room._meta.unresolved] == ["Room.say"]
    path("/x", module.Room)
    assert module.Room._meta.unresolved == ()
    assert list(module.Room._meta.actions) == ["say", "ping"]
    assert resolve(module.Sub).actions["say"] is module.Room._meta.actions["say"]


def test_resolving_again_changes_nothing(module_of: Callable[[str], Any]) -> None:
    module = module_of(HEAD + LATER)
    assert resolve(module.Room) is resolve(module.Room)


def test_a_subclass_resolves_though_its_base_was_never_used(module_of: Callable[[str], Any]) -> None:
    module = module_of(HEAD + LATER)
    assert list(resolve(module.Sub).actions) == ["say", "ping"]


@pytest.mark.parametrize(
    "source",
    [
        "async def say(self, data: Missing) -> None: ...",
        "async def say(self) -> Missing: ...",
        "async def say(self, data: list['Missing']) -> None: ...",
        "async def say(self, x: int, y: Missing = 1) -> None: ...",
        "async def say(self, x: Annotated[Missing, Depends(print)]) -> None: ...",
        "async def say(self, x: typing.Missing) -> None: ...",
    ],
)
def test_a_name_that_never_comes_is_an_error_at_first_use(module_of: Callable[[str], Any], source: str) -> None:
    module = module_of(
        HEAD
        + f"""
import typing
if TYPE_CHECKING:
    from somewhere import Missing

class Room(GroupConsumer):
    @action
    {source}
"""
    )
    with pytest.raises(ImproperlyConfigured) as caught:
        path("/x", module.Room)
    (problem,) = caught.value.problems
    assert problem.code == "annotation-unresolved"
    assert "Missing" in problem.found
    assert "TYPE_CHECKING" in problem.fix


def test_mistakes_that_show_only_later_are_told_later(module_of: Callable[[str], Any]) -> None:
    module = module_of(
        HEAD
        + """
class Room(GroupConsumer):
    @action
    async def say(self, data: Later) -> None: ...
class Later: ...
"""
    )
    with pytest.raises(ImproperlyConfigured, match="action-payload-type"):
        resolve(module.Room)


def test_a_model_that_waits_for_a_name_itself(module_of: Callable[[str], Any]) -> None:
    module = module_of(
        HEAD
        + """
class Say(BaseModel):
    text: Text

class Room(GroupConsumer):
    @action
    async def say(self, data: Say) -> None: ...
Text = str
"""
    )
    assert len(module.Room._meta.unresolved) == 1
    assert resolve(module.Room).actions["say"].payload.validate({"text": "hi"}, as_json=True).text == "hi"


FUNCTION = """
def make():
    class Say(BaseModel):
        text: str

    class Room(GroupConsumer):
        @action
        async def say(self, data: Say) -> None: ...

        class Inner(GroupConsumer):
            @action
            async def say(self, data: Say) -> None: ...

    return Room

def make_early():
    class Room(GroupConsumer):
        @action
        async def say(self, data: Say) -> None: ...

    class Say(BaseModel):
        text: str

    path("/x", Room)
    return Room

def register():
    class Say(BaseModel):
        text: str

    class Room(GroupConsumer): ...
    class Sub(Room): ...

    @Room.action("say")
    async def say(consumer: Room, data: Say) -> None: ...

    return Sub
"""


@pytest.mark.parametrize("function", ["make", "make_early", "register"])
def test_names_local_to_a_function(module_of: Callable[[str], Any], function: str) -> None:
    made = getattr(module_of(HEAD + FUNCTION), function)()
    found = [made, made.Inner] if function == "make" else [made]
    for cls in found:
        assert cls._meta.unresolved == ()
        assert cls._meta.actions["say"].payload.annotation.__name__ == "Say"


def test_a_subclass_made_elsewhere_has_the_actions_of_a_local_class(module_of: Callable[[str], Any]) -> None:
    room = module_of(HEAD + FUNCTION).make()

    class Sub(room):
        pass

    assert Sub._meta.actions["say"] is room._meta.actions["say"]


def test_local_names_do_not_reach_into_functions_of_other_modules(module_of: Callable[[str], Any]) -> None:
    other = module_of(
        HEAD
        + """
class Say(BaseModel):
    text: str

class Mixin:
    @action
    async def say(self, data: Say) -> None: ...
"""
    )

    class Say(BaseModel):
        another: int

    class Room(other.Mixin, GroupConsumer):
        pass

    assert Room._meta.actions["say"].payload.annotation is other.Say


def test_types_are_still_meant_after_a_method_of_their_name(module_of: Callable[[str], Any]) -> None:
    module = module_of(
        HEAD
        + """
class Room(GroupConsumer):
    @action
    async def list(self) -> list[str]: ...

    @action
    async def str(self, text: str, *, others: list[int]) -> None: ...
"""
    )
    assert list(resolve(module.Room).actions) == ["list", "str"]


def test_types_of_the_class_itself_can_be_named(module_of: Callable[[str], Any]) -> None:
    module = module_of(
        HEAD
        + """
class Room(GroupConsumer):
    class Say(BaseModel):
        text: str

    @action
    async def say(self, data: Say, ) -> None: ...

    @action
    async def who(self, room: Room) -> None: ...
"""
    )
    assert resolve(module.Room).actions["say"].payload.annotation is module.Room.Say
    assert module.Room._meta.actions["who"].injected == (("room", None),)


def test_no_local_names_are_kept_once_all_is_resolved(module_of: Callable[[str], Any]) -> None:
    module = module_of(HEAD + FUNCTION)
    assert module.make()._locals == ()
    assert module.make_early()._locals == ()
