"""Who is at the other end."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.authentication import SimpleUser, UnauthenticatedUser

from fastapi_consumers.identity import ANONYMOUS, AnonymousUser, client_address, is_authenticated, user_id


@dataclass
class Named:
    name: str


class Opaque:
    pass


def test_the_anonymous_user_is_nobody_but_is_an_object() -> None:
    assert ANONYMOUS.is_authenticated is False
    assert ANONYMOUS.is_anonymous is True
    assert ANONYMOUS.id is None
    assert ANONYMOUS.username == ""
    assert bool(ANONYMOUS) is True
    assert repr(ANONYMOUS) == "AnonymousUser()"


def test_the_shared_anonymous_user_cannot_be_given_state() -> None:
    with pytest.raises(AttributeError):
        ANONYMOUS.id = 5


@pytest.mark.parametrize(
    ("user", "known"),
    [
        (None, False),
        (ANONYMOUS, False),
        (AnonymousUser(), False),
        (UnauthenticatedUser(), False),
        (SimpleUser("ann"), True),
        (Opaque(), True),
        ("ann", True),
        ({"sub": "ann"}, True),
        (SimpleNamespace(is_authenticated=False), False),
        (SimpleNamespace(is_authenticated=None), False),
        (SimpleNamespace(is_authenticated=1), True),
        (SimpleNamespace(is_authenticated=lambda: False), False),
        (SimpleNamespace(is_authenticated=lambda: True), True),
    ],
)
def test_a_user_is_authenticated_unless_it_says_otherwise(user: Any, known: bool) -> None:
    assert is_authenticated(user) is known


def test_an_attribute_error_inside_is_authenticated_does_not_let_the_user_in() -> None:
    class Broken:
        @property
        def is_authenticated(self) -> bool:
            return bool(self.session)

    with pytest.raises(AttributeError, match="session"):
        is_authenticated(Broken())


def test_an_async_is_authenticated_is_an_error_and_not_true() -> None:
    class Async:
        async def is_authenticated(self) -> bool:
            return False

    class Later:
        def __await__(self) -> Any:
            raise NotImplementedError

    with pytest.raises(TypeError, match=r"Async\.is_authenticated is async"):
        is_authenticated(Async())
    with pytest.raises(TypeError, match="is async"):
        is_authenticated(SimpleNamespace(is_authenticated=Later()))


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, None),
        (ANONYMOUS, None),
        (SimpleNamespace(id=7, is_authenticated=False), None),
        (SimpleNamespace(id=7, pk=8, username="ann"), 7),
        (SimpleNamespace(id=0), 0),
        (SimpleNamespace(id=None, pk=8), 8),
        (SimpleNamespace(id="", pk=None, username="ann"), "ann"),
        (SimpleUser("ann"), "ann"),
        ("ann", "ann"),
        (5, "5"),
        (Named("ann"), "Named(name='ann')"),
        ({"id": 3, "sub": "ann"}, 3),
        ({"sub": "ann", "exp": 1}, "ann"),
        ({"exp": 1}, None),
    ],
)
def test_a_user_is_known_by_the_first_thing_that_tells_it_from_others(user: Any, expected: Any) -> None:
    assert user_id(user) == expected


def test_a_user_that_only_its_place_in_memory_tells_from_others_has_no_id() -> None:
    assert user_id(Opaque()) is None


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("203.0.113.9", 5000), "203.0.113.9"),
        (["203.0.113.9", 5000], "203.0.113.9"),
        (("testclient", 5000), "testclient"),
        (("2001:db8:1:2:3:4:5:6", 5000), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5000), "fe80::/64"),
        (("::ffff:203.0.113.9", 5000), "203.0.113.9"),
        (("no:address", 5000), "no:address"),
        (("", 0), ""),
        (None, ""),
    ],
)
def test_the_address_of_a_client(client: Any, address: str) -> None:
    assert client_address({"client": client}) == address


def test_a_scope_without_a_client_has_an_empty_address() -> None:
    assert client_address({}) == ""


def test_neighbours_in_one_ipv6_network_count_as_one_and_those_beyond_do_not() -> None:
    first, second, other = (
        client_address({"client": (host, 1)}) for host in ("2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1")
    )
    assert first == second != other
