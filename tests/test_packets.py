"""Packets between processes: what arrives is what was sent, or is refused."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_consumers.packets import (
    KINDS,
    VERSION,
    BadPacket,
    Kind,
    Packet,
    decode_packet,
    encode_packet,
    split_position,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PACKETS = st.builds(Packet, st.sampled_from(sorted(KINDS)), st.binary(), TEXT, st.none() | TEXT, st.none() | TEXT)


@given(PACKETS)
def test_a_packet_arrives_as_it_was_sent(packet: Packet) -> None:
    assert decode_packet(encode_packet(packet)) == packet


@given(PACKETS, st.data())
def test_a_damaged_packet_is_refused_or_read_but_nothing_else(packet: Packet, data: st.DataObject) -> None:
    encoded = bytearray(encode_packet(packet))
    index = data.draw(st.integers(0, len(encoded) - 1))
    encoded[index] = data.draw(st.integers(0, 255))
    for damaged in (bytes(encoded), bytes(encoded[:index])):
        try:
            found = decode_packet(damaged)
        except BadPacket:
            continue
        assert found.kind in KINDS
        assert isinstance(found.name, str)


@given(st.binary() | st.binary().map(lambda tail: VERSION + tail))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        decode_packet(data)
    except BadPacket:
        pass


@pytest.mark.parametrize("data", [b"", b"2[]\n", b"\x00", b'["event","",null,null,null]\nx'])
def test_another_version_is_named(data: bytes) -> None:
    with pytest.raises(BadPacket, match="version 1") as caught:
        decode_packet(data)
    assert ("found version 2" in str(caught.value)) == data.startswith(b"2")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "null",
        "[]",
        '["event","",null]',
        '["event","",null,null,1]',
        '["other","",null,null,null]',
        '[["event"],"",null,null]',
        '[{},"",null,null]',
        '["event",null,null,null]',
        '["event","",1,null]',
        '["event","",null,[]]',
        '{"event":1,"name":2,"exclude":3,"only":4}',
        '"text"',
        '["event","",null,null',
    ],
)
def test_a_damaged_header_is_refused(header: str) -> None:
    with pytest.raises(BadPacket, match="damaged"):
        decode_packet(VERSION + header.encode() + b"\n{}")


def test_a_packet_without_its_separator_is_refused() -> None:
    with pytest.raises(BadPacket, match="damaged"):
        decode_packet(b'1["event","",null,null,null]')


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (decode_packet, b"s3cret"),
        (decode_packet, b"1s3cret"),
        (decode_packet, b"1s3cret\n"),
        (decode_packet, b'1["s3cret"]\n'),
        (split_position, b"@s3cret"),
        (split_position, b"@s3cret:x\n1"),
    ],
)
def test_what_is_wrong_quotes_nothing_of_a_packet_that_others_sent(read: Any, data: bytes) -> None:
    with pytest.raises(BadPacket) as caught:
        read(data)
    assert "s3cret" not in str(caught.value)
    assert str(len(data)) in str(caught.value)


def test_line_feeds_belong_to_the_data() -> None:
    packet: Any = Packet("text", b"\n\na\n", "name\nof", None, None)
    assert decode_packet(encode_packet(packet)) == packet


def test_the_kinds_are_those_of_the_type() -> None:
    assert set(get_args(Kind)) == KINDS


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_without_a_trace_a_packet_is_what_it_was_before_there_were_traces():
    assert encode_packet(Packet("event", b"1", "said", None, None, "k")) == b'1["event","said",null,null,"k"]\n1'


def test_a_trace_travels_with_its_packet():
    packet = Packet("event", b"1", "said", trace=TRACE)
    assert decode_packet(encode_packet(packet)) == packet


def test_a_header_of_an_older_process_has_no_trace():
    assert decode_packet(b'1["event","said",null,null,null]\n1').trace is None


def test_fields_of_a_later_version_are_passed_over():
    packet = decode_packet(b'1["event","said",null,null,null,"%b",{"more":[1]},7]\n1' % TRACE.encode())
    assert packet == Packet("event", b"1", "said", trace=TRACE)
