"""The address of a client behind proxies, and what clients write into the header themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_consumers.proxies import MAX_HOPS, TrustedProxies

PROXIES = TrustedProxies(["10.0.0.0/8", "fd00::/8", "127.0.0.1"])


def address(*headers: str | bytes, peer: str | None = "10.0.0.1", proxies: TrustedProxies = PROXIES) -> str | None:
    lines = [(b"x-forwarded-for", line if isinstance(line, bytes) else line.encode()) for line in headers]
    return proxies.address_of({"client": None if peer is None else (peer, 1), "headers": lines})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["203.0.113.1"], "203.0.113.1"),
        (["203.0.113.1, 10.2.3.4, 10.0.0.9"], "203.0.113.1"),
        # What the client wrote is before what the first proxy added.
        (["192.0.2.1, 203.0.113.1"], "203.0.113.1"),
        (["10.0.0.5, 203.0.113.1, 10.0.0.9"], "203.0.113.1"),
        (["127.0.0.1, 203.0.113.1"], "203.0.113.1"),
        # Several headers are one list, in their order.
        (["192.0.2.1", "203.0.113.1"], "203.0.113.1"),
        (["203.0.113.1", "10.0.0.9"], "203.0.113.1"),
        (["203.0.113.1:4711"], "203.0.113.1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["::ffff:203.0.113.1"], "203.0.113.1"),
        (["203.0.113.1, fd00::1"], "203.0.113.1"),
        # All of them are proxies: the one that is farthest away asked.
        (["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["unknown"], "10.0.0.1"),
        (["203.0.113.1, unknown, 10.0.0.9"], "10.0.0.9"),
        (["203.0.113.1,"], "10.0.0.1"),
        (["203.0.113.1, 999.1.1.1"], "10.0.0.1"),
        (["_hidden, 10.0.0.9"], "10.0.0.9"),
        ([b"\xff\xfe"], "10.0.0.1"),
        (["٣.٣.٣.٣"], "10.0.0.1"),
    ],
)
def test_the_header_is_read_from_its_end_as_far_as_it_is_trusted(headers, expected):
    assert address(*headers) == expected


@pytest.mark.parametrize("peer", ["203.0.113.9", "2001:db8::9", "testclient", None])
def test_nobody_else_is_believed(peer):
    assert address("192.0.2.1", peer=peer) == peer


def test_a_peer_of_a_dual_stack_socket_is_the_proxy_that_it_is():
    assert address("203.0.113.1", peer="::ffff:10.0.0.1") == "203.0.113.1"


def test_a_long_list_is_not_read_to_its_beginning():
    assert address("192.0.2.1, " + "10.0.0.9, " * (10 * MAX_HOPS) + "10.0.0.8") == "10.0.0.9"


@given(st.binary(max_size=80))
def test_whatever_a_client_writes_it_stays_whom_the_proxy_saw(junk):
    assert address(junk + b", 203.0.113.1") == "203.0.113.1"
    assert address(junk, b"203.0.113.1, 10.0.0.9") == "203.0.113.1"


@pytest.mark.parametrize("networks", ["10.0.0.0/8", ["10.0.0.1/8"], ["proxy.example.com"], [""]])
def test_what_is_no_network_is_an_error(networks):
    with pytest.raises(ValueError, match=r"10\.0\.0|proxy|''"):
        TrustedProxies(networks)
