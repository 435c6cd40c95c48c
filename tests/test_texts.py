"""Texts that can be said in another language later."""

import copy
import logging
import pickle

import pytest

from fastapi_consumers.exceptions import NotFound
from fastapi_consumers.texts import LazyText, translate_text
from fastapi_consumers.texts import gettext_lazy as _

GERMAN = {
    "There is no room {name}.": "Es gibt keinen Raum {name}.",
    "a number": "eine Zahl",
    "found {found}": "gefunden: {found}",
    "Closed.": "Zu.",
    "Use {this}.": "Nimm {das}.",
    "": "Project-Id-Version: …",
}


def german(text):
    return GERMAN.get(text, text)


def test_a_text_is_english_wherever_text_is_wanted():
    text = _("There is no room {name}.", name="lobby")
    assert text == "There is no room lobby."
    assert isinstance(text, str)
    assert f"{text}|{text!s}|%s" % text == "There is no room lobby.|There is no room lobby.|There is no room lobby."


def test_its_template_is_translated_and_its_values_are_put_in():
    assert translate_text(_("There is no room {name}.", name="lobby"), german) == "Es gibt keinen Raum lobby."


def test_a_value_that_is_such_a_text_is_translated_and_any_other_is_not():
    assert translate_text(_("found {found}", found=_("a number")), german) == "gefunden: eine Zahl"
    assert translate_text(_("found {found}", found="a number"), german) == "gefunden: a number"


def test_a_value_is_never_a_template():
    text = _("There is no room {name}.", name="{name.__class__}")
    assert translate_text(text, german) == "Es gibt keinen Raum {name.__class__}."


def test_without_values_braces_stay_what_they_are():
    assert _("Use {this}.") == "Use {this}."
    assert translate_text(_("Use {this}."), german) == "Nimm {das}."


@pytest.mark.parametrize("text", ["Closed.", _("Closed.")])
def test_plain_texts_are_looked_up_too(text):
    assert translate_text(text, german) == "Zu."


@pytest.mark.parametrize("text", ["", _("")])
def test_an_empty_text_does_not_become_the_header_of_the_catalog(text):
    assert translate_text(text, german) == ""


def test_a_name_without_a_value_is_noticed_where_the_text_is_made():
    with pytest.raises(KeyError):
        _("There is no room {name}.", nam="lobby")


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda text: pickle.loads(pickle.dumps(text))])
def test_copies_can_be_translated_as_well(twin_of):
    twin = twin_of(_("There is no room {name}.", name="lobby"))
    assert (twin, type(twin)) == ("There is no room lobby.", LazyText)
    assert translate_text(twin, german) == "Es gibt keinen Raum lobby."


def test_logs_have_english(caplog):
    with caplog.at_level(logging.WARNING):
        logging.getLogger(__name__).warning("refused: %s", NotFound(_("There is no room {name}.", name="lobby")))
    assert caplog.messages == ["refused: There is no room lobby."]
