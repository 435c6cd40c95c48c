import pytest

from fastapi_consumers import GroupConsumer
from fastapi_consumers.exceptions import ImproperlyConfigured
from fastapi_consumers.histories import Histories
from fastapi_consumers.history import History

SMALL, LARGE = History(size=5), History(size=500, ttl=60)


def consumer(*templates, history=SMALL):
    return type("Room", (GroupConsumer,), {"groups": list(templates), "history": history, "__module__": __name__})


def histories(*classes):
    found = Histories()
    for cls in classes:
        found.add(cls._meta)
    return found


def test_a_group_has_the_history_of_the_template_that_it_matches():
    found = histories(consumer("chat.{room}"), consumer("log", history=LARGE))
    assert found.of("chat.lobby") is SMALL
    assert found.of("chat.") is SMALL
    assert found.of("chat.%2E%2E") is SMALL
    assert found.of("log") is LARGE
    assert found.templates == {"chat.{room}": SMALL, "log": LARGE}


@pytest.mark.parametrize("group", ["chat", "chat.lobby.1", "chat.lo bby", "xchat.lobby", "chat.lobby\n", "logs", ""])
def test_other_groups_have_none(group):
    assert histories(consumer("chat.{room}"), consumer("log")).of(group) is None


def test_a_class_without_history_says_nothing_of_its_groups():
    found = histories(consumer("chat.{room}", history=None))
    assert found.of("chat.lobby") is None
    assert found.templates == {}


def test_two_classes_may_say_the_same_of_one_template():
    found = histories(consumer("a.{x}", history=History(5, ttl=60)), consumer("a.{x}", history=History(5, ttl=60.0)))
    assert found.of("a.b") == History(5, ttl=60)


@pytest.mark.parametrize("other", [History(6), History(5, ttl=1)])
def test_two_classes_that_disagree_about_one_template_are_refused(other):
    with pytest.raises(ImproperlyConfigured) as caught:
        histories(consumer("a.{x}"), consumer("b", "a.{x}", history=other))
    [problem] = caught.value.problems
    assert problem.code == "history-conflict"
    assert "'a.{x}'" in str(caught.value)
    assert repr(other) in str(caught.value)


def test_a_template_is_never_unlearnt_and_goes_before_what_a_member_says():
    found = histories(consumer("chat.{room}"))
    found.learn("chat.lobby", LARGE)
    assert found.of("chat.lobby") is SMALL


def test_templates_that_are_added_later_count_for_groups_that_were_asked_for_before():
    found = Histories()
    assert found.of("chat.lobby") is None
    found.learn("x", SMALL)
    assert found.of("chat.lobby") is None
    found.add(consumer("chat.{room}")._meta)
    assert found.of("chat.lobby") is SMALL
