"""Declared events: what a class says of them is kept, wherever they are sent from."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from fastapi_consumers import (
    GroupConsumer,
    ImproperlyConfigured,
    JSONConsumer,
    action,
    add_consumers,
    event_model,
    path,
)
from fastapi_consumers.declared_events import DeclaredEvents
from fastapi_consumers.event_models import InvalidEvent, event_models_of
from fastapi_consumers.testing import CallError, WebsocketCommunicator


@event_model("said")
class Said(BaseModel):
    """Somebody said something."""

    text: str = Field(serialization_alias="words")
    at: datetime = datetime(2026, 1, 2, tzinfo=UTC)


@event_model("moved")
@dataclasses.dataclass
class Moved:
    x: int
    y: int = 0


@event_model("left")
class Left(TypedDict):
    name: str


class Room(GroupConsumer):
    groups = ["room.{room}"]
    events = [Said, Moved, Left]

    @action("broadcast")
    async def tell_all(self, event: str, value: Any = None) -> None:
        await self.broadcast(event, value)

    @action("send")
    async def tell_me(self, event: str, value: Any = None) -> None:
        await self.send_event(event, value)

    @action("elsewhere")
    async def tell_others(self, group: str, event: str, value: Any = None) -> None:
        await self.broadcast(event, value, group=group)


class Lobby(Room):
    """Another class of groups, one of which both templates name."""

    groups = ["room.lobby"]
    events = {"said": str, "counted": int | None}


class Open(GroupConsumer):
    groups = ["open.{room}"]

    @action("broadcast")
    async def tell_all(self, event: str, value: Any = None) -> None:
        await self.broadcast(event, value)


@pytest.fixture
def app() -> Any:
    app = FastAPI()
    add_consumers(app, [path("/room/{room}", Room), path("/lobby", Lobby), path("/open/{room}", Open)])
    return app


# -- what is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["broadcast", "send"])
async def test_what_is_declared_is_sent_as_its_type_has_it(app: Any, name: str) -> None:
    async with WebsocketCommunicator(app, "/room/a") as client:
        for event, data, sent in [
            ("said", {"text": "hi"}, {"words": "hi", "at": "2026-01-02T00:00:00Z"}),
            ("moved", {"x": "3"}, {"x": 3, "y": 0}),
            ("left", {"name": "ann"}, {"name": "ann"}),
            ("else", {"anything": [1]}, {"anything": [1]}),
        ]:
            await client.send_json_to({"action": name, "data": {"event": event, "value": data}})
            message = await client.receive_json_from()
            assert (message["event"], message["data"]) == (event, sent)


@pytest.mark.parametrize("name", ["broadcast", "send"])
async def test_what_does_not_fit_is_not_sent_and_the_log_says_why(app: Any, name: str, caplog: Any) -> None:
    async with WebsocketCommunicator(app, "/room/a") as client:
        with pytest.raises(CallError) as raised:
            await client.call(name, {"event": "said", "value": {"text": "a secret", "at": "never"}})
        # The client has done nothing wrong, and is told nothing.
        assert raised.value.code == "internal_error"
        assert "never" not in str(raised.value)
        assert await client.receive_nothing(0.01)
    assert "The event 'said', as Room declares it, cannot have this data: at: Input should be a valid" in caplog.text
    assert "a secret" not in caplog.text


async def test_who_broadcasts_from_outside_is_held_to_it_too(app: Any) -> None:
    consumers = app.state.consumers
    async with WebsocketCommunicator(app, "/room/a") as client, WebsocketCommunicator(app, "/lobby") as lobby:
        await consumers.broadcast("room.a", "said", Said(text="hi"))
        assert (await client.receive_json_from())["data"]["words"] == "hi"
        with pytest.raises(InvalidEvent, match=r"'moved', as Room declares it.*x: Field required"):
            await consumers.broadcast("room.a", "moved", {})
        with pytest.raises(InvalidEvent, match="the data: "):
            await consumers.broadcast("room.a", "moved")
        # The template with the most fixed text counts, the other where that says nothing.
        await consumers.broadcast("room.lobby", "said", "hi")
        await consumers.broadcast("room.lobby", "counted")
        await consumers.broadcast("room.lobby", "left", {"name": "ann"})
        assert [(await lobby.receive_json_from())["data"] for _ in range(3)] == ["hi", None, {"name": "ann"}]
        with pytest.raises(InvalidEvent, match="as Lobby declares it"):
            await consumers.broadcast("room.lobby", "said", {"text": "hi"})


async def test_a_consumer_is_held_to_what_another_class_declares_of_its_group(app: Any) -> None:
    async with WebsocketCommunicator(app, "/room/a") as client, WebsocketCommunicator(app, "/lobby") as lobby:
        with pytest.raises(CallError, match="internal"):
            await client.call("elsewhere", {"group": "room.lobby", "event": "counted", "value": "many"})
        await client.call("elsewhere", {"group": "room.lobby", "event": "counted", "value": 3})
        assert (await lobby.receive_json_from())["data"] == 3


async def test_groups_of_classes_that_declare_nothing_take_anything(app: Any) -> None:
    async with WebsocketCommunicator(app, "/open/a") as client:
        await client.send_json_to({"action": "broadcast", "data": {"event": "said", "value": 1}})
        assert (await client.receive_json_from())["data"] == 1
    found = DeclaredEvents()
    found.add(Open._meta)
    assert not found


async def test_an_event_with_many_mistakes_tells_of_the_first_five() -> None:
    model = event_models_of({"many": list[int]})["many"]
    with pytest.raises(InvalidEvent, match=r"4: .*; and 2 more\.$"):
        model.encode(["x"] * 7, "Room")


# -- what is declared --------------------------------------------------------------------------------------------------


def test_a_class_shows_what_it_declares_and_a_subclass_replaces_it() -> None:
    assert list(Room._meta.event_models) == ["said", "moved", "left"]
    assert "declared events:      said: Said" in Room._meta.describe()
    assert list(Lobby._meta.event_models) == ["said", "counted"]


@pytest.mark.parametrize("entries", [[BaseModel], [3], "said", 3, {"": int}, {1: int}, [Said, Said]])
def test_what_declares_no_event_is_refused(entries: Any) -> None:
    with pytest.raises(ImproperlyConfigured) as raised:
        type("Wrong", (JSONConsumer,), {"events": entries})
    assert [problem.code for problem in raised.value.problems] == ["bad-events"]


def test_a_mark_is_not_inherited() -> None:
    class Whispered(Said):
        to: str

    with pytest.raises(ImproperlyConfigured, match="has no name: write @event_model"):
        type("Wrong", (JSONConsumer,), {"events": [Whispered]})


@pytest.mark.parametrize("name", ["", "x" * 129, None])
def test_names_of_events_are_text(name: Any) -> None:
    with pytest.raises(ValueError, match="an event's name is text"):
        event_model(name)


def test_only_classes_are_marked() -> None:
    mark: Any = event_model("said")
    with pytest.raises(TypeError, match="marks a class"):
        mark(lambda: None)


def test_an_action_cannot_be_called_events_in_python() -> None:
    with pytest.raises(ImproperlyConfigured, match="action-shadows-attribute"):

        class Wrong(JSONConsumer):
            @action
            async def events(self) -> None: ...  # type: ignore[assignment]


def test_two_classes_that_disagree_about_an_event_of_one_template_are_refused() -> None:
    class Other(GroupConsumer):
        groups = ["room.{room}"]
        events = {"said": int}

    found = DeclaredEvents()
    found.add(Room._meta)
    found.add(Room._meta)
    with pytest.raises(ImproperlyConfigured, match="event-conflict"):
        found.add(Other._meta)


def test_a_type_that_pydantic_does_not_know_is_refused_when_it_is_routed() -> None:
    class Wrong(GroupConsumer):
        events = {"said": pytest}

    with pytest.raises(ImproperlyConfigured, match="event-type"):
        add_consumers(FastAPI(), [path("/", Wrong)])


def test_what_a_class_says_of_itself_is_the_description() -> None:
    models = event_models_of({"a": Said, "b": Moved, "c": int, "d": list[int]})
    assert [model.description for model in models.values()] == ["Somebody said something.", "", "", ""]
