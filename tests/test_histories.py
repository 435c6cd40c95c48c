"""Which groups have a history."""

import pytest

from fastapi_consumers import GroupConsumer, ImproperlyConfigured, histories
from fastapi_consumers.histories import Histories
from fastapi_consumers.history import History

ROOM, LOBBY = History(size=100), History(size=5)


class Room(GroupConsumer):
    groups = ["chat.{room}"]
    history = ROOM


class Lobby(GroupConsumer):
    groups = ["chat.lobby"]
    history = LOBBY


@pytest.mark.parametrize("classes", [(Room, Lobby), (Lobby, Room)])
def test_of_several_templates_the_one_with_the_most_fixed_text_counts_in_whatever_order_they_came(classes):
    found = Histories()
    for cls in classes:
        found.add(cls._meta)
    assert (found.of("chat.lobby"), found.of("chat.other"), found.of("else")) == (LOBBY, ROOM, None)
    loaded = Histories()
    loaded.load(dict(reversed(found.templates.items())))
    assert (loaded.of("chat.lobby"), loaded.of("chat.other"), loaded.of("else")) == (LOBBY, ROOM, None)


def test_what_is_loaded_replaces_what_was_known():
    found = Histories()
    found.load({"a.{x}": ROOM})
    assert found.of("a.1") == ROOM
    found.load({"b.{x}": ROOM})
    assert (found.of("a.1"), found.of("b.1")) == (None, ROOM)
    found.load({})
    assert found.of("b.1") is None


def test_what_a_store_keeps_and_is_no_template_is_skipped_and_told(caplog):
    found = Histories()
    found.load({"a.{x": ROOM, "b": LOBBY})
    assert found.templates == {"b": LOBBY}
    assert "'a.{x'" in caplog.text


def test_two_classes_that_disagree_are_both_named():
    class Other(GroupConsumer):
        groups = ["chat.{room}"]
        history = LOBBY

    found = Histories()
    found.add(Room._meta)
    with pytest.raises(ImproperlyConfigured, match=r"(?s)history-conflict.*Other.*Room") as caught:
        found.add(Other._meta)
    assert caught.value.problems[0].code == "history-conflict"


def test_groups_without_a_template_are_learnt_from_members_and_their_number_is_bounded(monkeypatch):
    monkeypatch.setattr(histories, "MAX_LEARNT", 2)
    found = Histories()
    found.add(Room._meta)
    for group in ("one", "two", "two", "three", "chat.x"):
        found.learn(group, LOBBY)
    assert [found.of(group) for group in ("one", "two", "three", "chat.x")] == [None, LOBBY, LOBBY, ROOM]
