"""From the API's words to topics and packets."""

import pytest

from fastapi_consumers.addressing import (
    Addressed,
    close_for,
    event_for,
    event_for_group,
    for_channel,
    message_for_group,
)
from fastapi_consumers.exceptions import InvalidGroup
from fastapi_consumers.identity import ANONYMOUS
from fastapi_consumers.packets import Packet


class Ann:
    id = 7


def test_groups_users_and_channels_have_topics_of_their_own():
    event = Packet("event", b"1", "said")
    assert event_for_group("a", "said", 1) == Addressed("group:a", event)
    assert event_for_group("a", "said", 1, exclude="p!1") == Addressed("group:a", event._replace(exclude="p!1"))
    assert event_for("said", 1, user="a") == Addressed("user:a", event)
    assert event_for("said", 1, channel="p!1") == Addressed("process:p", event._replace(only="p!1"))
    assert close_for(group="a", code=4000, reason="x") == Addressed("group:a", Packet("close", b'[4000,"x"]'))
    everywhere_else = Addressed("user:a", Packet("close", b'[4409,"replaced"]', exclude="p!1"))
    assert close_for(user="a", exclude="p!1", reason="replaced") == everywhere_else
    assert message_for_group("a", {"type": "t"}) == Addressed("group:a", Packet("message", b'{"type":"t"}'))


@pytest.mark.parametrize("user", [7, "7", Ann(), {"sub": 7}])
def test_a_user_is_named_by_an_object_or_by_its_id(user):
    addressed = event_for("said", user=user)
    assert addressed is not None
    assert addressed.topic == "user:7"


def test_what_cannot_be_a_channel_is_nobody():
    assert for_channel("process", Packet("event")) is None
    assert event_for("said", channel="process") is None
    assert close_for(channel="") is None


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: event_for_group("", "said"), InvalidGroup, "empty name"),
        (lambda: event_for_group("a\n", "said"), InvalidGroup, "not printable"),
        (lambda: event_for_group("a", b"said"), TypeError, "an event is named by text; found a value of type bytes"),
        (lambda: event_for_group("a", "said", object()), ValueError, "Unable to serialize unknown type"),
        (lambda: event_for("said"), TypeError, r"name one receiver, user=… or channel=… \(found none\)"),
        (lambda: event_for("said", user=1, channel="p!1"), TypeError, "found user and channel"),
        (lambda: event_for("said", user=ANONYMOUS), ValueError, "has no id"),
        (lambda: event_for("said", channel=7), TypeError, "a channel is named by text"),
        (lambda: close_for(), TypeError, "or group=…"),
        (lambda: close_for(group="a", code=999), ValueError, "999"),
        (lambda: message_for_group("a", {"text": 1}), ValueError, '"type" of text'),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
