import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as Parsed
from websockets.frames import Opcode
from websockets.streams import StreamReader

from fastapi_consumers.messages import Frame, bytes_frame, ready_frame, text_frame

#: Around each border between two ways to write the length (RFC 6455, section 5.2).
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 65537, 200_000]


def parse(wire):
    """The one frame in these bytes, as a client of the websockets library reads it."""
    reader = StreamReader()
    reader.feed_data(wire)
    steps = Parsed.parse(reader.read_exact, mask=False, max_size=None)
    with pytest.raises(StopIteration) as parsed:
        next(steps)
    assert not any(reader.buffer), "more than one frame"
    return parsed.value.value


@pytest.mark.parametrize("size", SIZES)
def test_the_wire_is_one_whole_frame_of_the_payload(size):
    assert parse(text_frame("a" * size).wire) == Parsed(Opcode.TEXT, b"a" * size)
    assert parse(bytes_frame(b"\xff" * size).wire) == Parsed(Opcode.BINARY, b"\xff" * size)


@pytest.mark.parametrize("size", SIZES)
def test_the_wire_is_what_websockets_would_write(size):
    assert bytes_frame(b"x" * size).wire == Parsed(Opcode.BINARY, b"x" * size).serialize(mask=False)


@given(st.text())
def test_a_text_comes_back(text):
    frame = text_frame(text)
    parsed = parse(frame.wire)
    assert (parsed.opcode, bytes(parsed.data).decode(), parsed.fin) == (Opcode.TEXT, text, True)
    assert frame.message == {"type": "websocket.send", "text": text}
    assert frame.size == len(text.encode())


@given(st.binary())
def test_bytes_come_back(data):
    frame = bytes_frame(data)
    assert bytes(parse(frame.wire).data) == data
    assert frame.message == {"type": "websocket.send", "bytes": data}
    assert frame.size == len(data)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [text_frame, lambda text: ready_frame(text.encode())], ids=["asked for", "ready"])
def test_no_payload_is_kept_beside_the_bytes_on_the_wire(make, size):
    frame = make("x" * size)
    assert bytes(parse(frame.wire).data) == b"x" * size
    with pytest.raises(AttributeError):
        object.__getattribute__(frame, "payload")
    assert frame.payload == b"x" * size
    assert frame.message == {"type": "websocket.send", "text": "x" * size}
    assert (frame.size, frame) == (size, text_frame("x" * size))


def test_each_form_is_made_once_and_only_if_it_is_asked_for():
    frame = text_frame("hi")
    with pytest.raises(AttributeError):
        object.__getattribute__(frame, "wire")
    assert frame.wire is frame.wire
    assert frame.message is frame.message


def test_frames_of_one_kind_and_payload_are_equal():
    assert text_frame("a") == Frame(b"a", True) == copy.copy(text_frame("a"))
    assert text_frame("a") != bytes_frame(b"a")
    assert text_frame("a") != text_frame("b")
    assert text_frame("a") != "a"
    assert len({text_frame("a"), text_frame("a"), bytes_frame(b"a")}) == 2


def test_what_was_made_of_it_does_not_matter_for_being_equal():
    used, unused = text_frame("a"), text_frame("a")
    assert used.wire
    assert used.message
    assert used == unused


def test_it_has_no_other_attributes():
    with pytest.raises(AttributeError, match="a Frame has no 'text'"):
        text_frame("a").text
    assert repr(text_frame("a")) == "Frame(b'a', is_text=True)"


def test_half_of_a_surrogate_pair_is_refused():
    with pytest.raises(UnicodeEncodeError):
        text_frame("\ud800")
