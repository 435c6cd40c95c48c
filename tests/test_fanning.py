import json

import pytest

from fastapi_consumers import fanning
from fastapi_consumers.backlog import Droppable
from fastapi_consumers.fanning import Fanning, Held, Member, gap_frame, tell
from fastapi_consumers.messages import Notice
from fastapi_consumers.packets import BadPacket, Packet
from fastapi_consumers.protocols import JSON_FRAMER, MSGPACK_FRAMER


class Recorder(Member):
    def __init__(self, channel, framer=JSON_FRAMER):
        self.frames = []
        self.messages = []
        self.closed = []
        super().__init__(channel, self._push, self.messages.append, lambda *args: self.closed.append(args), 10)
        self.framer = framer

    def _push(self, frame, droppable):
        self.frames.append((frame, droppable))


@pytest.fixture
def members():
    return [Recorder(name) for name in "abc"]


def said(offset=None, late=None, **options):
    return Fanning(Packet("event", b"1", "said", **options), "room", offset, late)


def test_a_frame_is_made_once_for_each_framer(members):
    members.append(Recorder("d", MSGPACK_FRAMER))
    members.append(Recorder("e"))
    said(7).hand_over(members)
    frames = [member.frames[0][0] for member in members]
    assert frames[0] is frames[1] is frames[2] is frames[4]
    assert not frames[3].is_text
    assert json.loads(frames[0].payload)["offset"] == 7


def test_a_frame_is_made_once_even_if_members_come_in_chunks(members):
    fanning = said()
    fanning.hand_over(members[:1])
    fanning.hand_over(members[1:])
    assert len({id(member.frames[0][0]) for member in members}) == 1


def test_who_has_no_framer_gets_no_events_but_everything_else(members):
    raw = Recorder("raw", None)
    for packet in (Packet("event", b"1", "said"), Packet("text", b"hi"), Packet("message", b'{"type":"x"}')):
        Fanning(packet, "room").hand_over([raw])
    Fanning(Packet("close", b'[4409,"away"]')).hand_over([raw])
    assert [frame.payload for frame, _ in raw.frames] == [b"hi"]
    assert raw.messages == [{"type": "x"}]
    assert raw.closed == [(4409, "away")]


def test_the_excluded_channel_gets_nothing(members):
    said(exclude="b").hand_over(members)
    assert [len(member.frames) for member in members] == [1, 0, 1]


def test_events_may_be_dropped_and_only_with_an_offset_the_client_is_told(members):
    said(key="k").hand_over(members[:1])
    said(3).hand_over(members[1:])
    [(_, plain)], [(_, kept)] = members[0].frames, members[1].frames
    assert plain == Droppable("room", "k", None)
    assert kept.gap() == gap_frame(JSON_FRAMER, "room")


def test_a_member_that_has_not_been_told_where_it_joined_gets_nothing_yet(members):
    held = Held()
    late = {"b": held}
    for offset in (4, 5, None):
        said(offset, late).hand_over(members)
    Fanning(Packet("text", b"hi"), "room", late=late).hand_over(members)
    assert [len(member.frames) for member in members] == [4, 0, 4]
    assert [offset for offset, _ in held.frames] == [4, 5, None, None]
    assert [frame for _, frame in held.frames] == [frame for frame, _ in members[0].frames]


@pytest.mark.parametrize("offset", [3, None])
def test_what_a_held_member_is_left_out_of_leaves_a_mark(members, offset):
    held = Held()
    said(offset, {"b": held}, exclude="b").hand_over(members)
    assert held.frames == [(offset, None)]
    assert [len(member.frames) for member in members] == [1, 0, 1]


def test_what_cannot_be_encoded_for_a_held_member_leaves_a_mark_too(members, caplog):
    class Broken(type(JSON_FRAMER)):
        def event(self, event):
            raise ValueError

    held = Held()
    members[1].framer = Broken()
    said(3, {"b": held}).hand_over(members)
    assert held.frames == [(3, None)]
    assert [len(member.frames) for member in members] == [1, 0, 1]
    assert "could not be encoded" in caplog.text


def test_a_member_that_has_had_some_already_gets_those_after_and_is_then_like_the_others(members):
    late = {"b": 5}
    for offset in (4, 5, None, 6, 7):
        said(offset, late).hand_over(members)
    assert [json.loads(frame.payload).get("offset") for frame, _ in members[1].frames] == [None, 6, 7]
    assert late == {}


def test_the_excluded_member_that_has_had_some_already_still_has(members):
    late = {"b": 5}
    said(5, late, exclude="b").hand_over(members)
    assert late == {"b": 5}
    said(6, late, exclude="b").hand_over(members)
    said(7, late).hand_over(members)
    assert len(members[1].frames) == 1
    assert late == {}


def test_what_is_held_is_bounded(monkeypatch):
    monkeypatch.setattr(fanning, "MAX_HELD", 2)
    held = Held()
    for offset in (1, 2):
        held.add(offset, None)
    held.clear()
    assert (len(held.frames), held.overflowed) == (2, False)
    held.add(3, None)
    assert (len(held.frames), held.overflowed) == (2, True)
    held.clear()
    assert (held.frames, held.overflowed) == ([], False)


def test_notices_go_to_those_who_have_been_told_where_they_joined(members):
    members.append(Recorder("raw", None))
    tell(members, Notice("gap", {"group": "room"}), {"a": Held(), "b": 3})
    assert [len(member.frames) for member in members] == [0, 1, 1, 0]
    assert members[1].frames[0][1] is None
    tell(members, Notice("gap", {"group": "room"}))
    assert [len(member.frames) for member in members] == [1, 2, 2, 0]


@pytest.mark.parametrize(
    "packet",
    [
        Packet("message", b"[]"),
        Packet("message", b'{"type":1}'),
        Packet("message", b"{"),
        Packet("close", b"[1]"),
        Packet("close", b'["a","b"]'),
        Packet("text", b"\xff"),
    ],
)
def test_a_packet_whose_data_is_not_of_its_kind_reaches_nobody(packet):
    with pytest.raises(BadPacket):
        Fanning(packet, "room")


def test_notices_of_presence_may_be_dropped_and_wait_for_who_is_joining():
    pushed = []
    members = [Member(name, lambda frame, note: pushed.append(note), None, None, 1) for name in ("a", "b")]
    for member in members:
        member.framer = JSON_FRAMER
    late = {"b": Held()}
    tell(members, Notice("presence", {"group": "g", "count": 1}), late)
    assert pushed == [Droppable("g")]
    ((offset, frame),) = late["b"].frames
    assert offset is None
    assert json.loads(frame.payload) == {"type": "presence", "group": "g", "count": 1}
    tell(members, Notice("gap", {"group": "g"}), late)
    assert pushed == [Droppable("g"), None]
    assert len(late["b"].frames) == 1
