"""What is typed, as frames; what may be completed; what a target is."""

import json

import pytest

from fastapi_consumers.cli.connect.catalog import ActionInfo, AppActions, Catalog
from fastapi_consumers.cli.connect.lines import LineError, frame_of
from fastapi_consumers.cli.connect.pairing import Positions, Requests
from fastapi_consumers.cli.connect.target import Target
from fastapi_consumers.cli.connect.text import styled, visible
from fastapi_consumers.cli.connect.views import lines_of
from fastapi_consumers.messages import Position


@pytest.mark.parametrize(
    ("line", "data"),
    [
        ("say text=hi", {"text": "hi"}),
        ('say text="hi there"  loud=true n=1.5 none=null', {"text": "hi there", "loud": True, "n": 1.5, "none": None}),
        ("say text=5 zip=007 word=trueish", {"text": 5, "zip": "007", "word": "trueish"}),
        ('say list=[1, 2] map={"a": 1}', {"list": [1, 2], "map": {"a": 1}}),
        ("say url=http://x/?a=b empty= last=1", {"url": "http://x/?a=b", "empty": "", "last": 1}),
        ("say n=NaN m=Infinity big=1e999", {"n": "NaN", "m": "Infinity", "big": "1e999"}),
        ('say {"text": "hi"}', {"text": "hi"}),
        ("say [1]", [1]),
        ("say null", None),
        ('say "a=b"', "a=b"),
    ],
)
def test_a_line_is_an_action_and_its_data(line, data):
    assert json.loads(frame_of(line, 7)) == {"action": "say", "request_id": 7, "data": data}


def test_an_action_alone_has_no_data_and_a_frame_is_left_as_it_is():
    assert json.loads(frame_of(" look ", 1)) == {"action": "look", "request_id": 1}
    assert frame_of('{"action":  "say"}', 1) == '{"action":  "say"}'


@pytest.mark.parametrize("line", ["", "say hi there", 'say text="hi', "say a=1 b", "say {", "say NaN", "say a=[1"])
def test_a_line_that_cannot_be_meant_is_refused(line):
    with pytest.raises(LineError):
        frame_of(line, 1)


ACTIONS = (ActionInfo("say", ("text", "loud"), "Tell."), ActionInfo("stop"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["say ", "seen", "stop"]),
        ("s", ["say ", "seen", "stop"]),
        ("sa", ["say "]),
        ("say ", ["text=", "loud="]),
        ("say t", ["text="]),
        ("say text=1 ", ["loud="]),
        ('say text="a l', []),
        ('say {"t', []),
        ("stop ", []),
        ("other ", []),
        ("/q", ["/quit"]),
    ],
)
def test_what_may_stand_next_is_suggested(text, expected):
    assert [each.text for each in Catalog(ACTIONS, {"seen", "say"}).suggest(text)] == expected


async def test_an_application_tells_its_actions_where_a_url_leads():
    found = {action.name: action for action in await AppActions("tests.cli.app:app", "/room/1").actions()}
    assert found["say"] == ("say", ("text", "loud"), "Tell everybody.")
    assert set(found["history"].fields) == {"cursor", "limit", "group"}
    assert {"cancel", "presence", "authenticate", "sum_up"} <= set(found)
    assert {action.name for action in await AppActions("tests.cli.app:app", "/members").actions()} == {
        "authenticate", "cancel"}  # fmt: skip
    assert "say" in {action.name for action in await AppActions("tests.cli.app:app", "/behind/a/proxy").actions()}


def test_answers_are_paired_with_requests_once():
    now = [0.0]
    requests = Requests(lambda: now[0])
    for frame in ('{"action":"a","request_id":1}', '{"action":"b","request_id":"1"}', '{"action":"c"}', "x", "[]"):
        requests.sent(frame)
    requests.sent('{"action":"a","request_id":true}')
    assert len(requests) == 2
    now[0] = 2.0
    assert requests.answered({"type": "reply", "request_id": 1, "status": "partial"}) == ("a", 2.0)
    assert requests.answered({"type": "reply", "request_id": 1, "status": "ok"}) == ("a", 2.0)
    assert requests.answered({"type": "reply", "request_id": 1, "status": "ok"}) is None
    assert requests.forget() == 1
    assert len(requests) == 0


def test_positions_take_the_place_of_what_the_url_asked_to_recover():
    positions = Positions()
    target = Target("ws://u:p@x:1/a%20b?recover=a:1&token=t%26&recover.b=c:2")
    assert target.url_from(positions.of) == target.url
    positions.learn({"type": "event", "group": "other", "offset": 9})
    positions.learn({"type": "joined", "group": "a b", "epoch": "e", "offset": 3})
    positions.learn({"type": "event", "group": "a b", "offset": 4})
    assert positions.of == {"a b": Position("e", 4)}
    assert target.url_from(positions.of) == "ws://u:p@x:1/a%20b?token=t%26&recover.a%20b=e:4"
    assert (target.shown, target.path) == ("ws://x:1/a%20b", "/a%20b")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "gap", "group": "g"}, ["gap in g: events may have been missed"]),
        ({"type": "presence", "group": "g", "count": 3}, ["presence g: 3"]),
        ({"type": "presence", "group": "g", "joins": {"a\x1b": {}}, "leaves": {"b": {}}}, ["presence g: +a\\x1b -b"]),
        ({"type": "joined", "group": "g", "epoch": "e", "offset": 1}, ["joined g at e:1"]),
        ({"type": "event", "event": "e\x9b", "data": "\x9b"}, ['e\\x9b "\\x9b"']),
        ({"type": "closing", "code": 1012}, ['{"type": "closing", "code": 1012}']),
        ({"type": []}, ['{"type": []}']),
        (
            {
                "type": "reply",
                "action": None,
                "status": "error",
                "error": {"code": "c", "message": "m", "retry_after": 2},
            },
            ["? error c: m", "    try again after 2 s"],
        ),
        (
            {"type": "error", "error": {"code": "c", "message": "m", "details": {"a": 1}}},
            ["error c: m", '    {"a": 1}'],
        ),
        ({"type": "error", "error": None}, ["error None: "]),
    ],
)
def test_messages_are_lines(message, expected):
    assert ["".join(text for _, text in line) for line in lines_of(message, None)] == expected


def test_colours_are_only_where_they_are_wanted():
    pieces = [("error", "no"), ("", " way")]
    assert styled(pieces, False) == "no way"
    assert styled(pieces, True) == "\x1b[31mno\x1b[0m way"
    assert visible("a\u202eb\nc") == "a\\u202eb\\nc"
