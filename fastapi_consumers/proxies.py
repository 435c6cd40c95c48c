"""Which address a client has behind proxies: ``X-Forwarded-For``, as far as those who wrote it are trusted.

Each proxy appends the address that it was asked from. So the header is read from its end, over proxies that are
trusted, to the first address that is not one of theirs; what stands before it may have been written by the client.
"""

import ipaddress
from collections.abc import Iterable

from .types import Scope

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Addresses that are looked at; nobody has as many proxies.
MAX_HOPS = 32


class TrustedProxies:
    """The networks of proxies whose word is taken.

    Raises ``ValueError`` for what is no address and no network, such as ``10.0.0.0/8``, ``::1`` or ``192.0.2.7``.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        if isinstance(networks, str):
            raise ValueError(f"found {networks!r}; expected a list: [{networks!r}]")
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def address_of(self, scope: Scope) -> str | None:
        """The address of the client; ``None`` if the server names none and there is nobody to trust."""
        client = scope.get("client")
        found: str | None = client[0] if client else None
        address = _parse(found or "")
        if address is None or not self._trusts(address):
            return found
        lines = [value for name, value in scope.get("headers") or () if name == b"x-forwarded-for"]
        for entry in reversed(b",".join(lines).decode("latin-1").rsplit(",", MAX_HOPS)):
            address = _parse(entry.strip())
            if address is None:
                break  # Written by nobody who can be trusted: the last one who can is the nearest that is known.
            found = str(address)
            if not self._trusts(address):
                break
        return found

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _parse(text: str) -> _Address | None:
    """An address, perhaps with a port as some proxies write it; an IPv4 address mapped into IPv6 is that address."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
