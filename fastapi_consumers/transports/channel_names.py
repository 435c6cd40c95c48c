"""Names that every broker takes for a channel.

PostgreSQL takes names of up to 63 bytes, Kafka letters, digits, ``.``, ``_`` and ``-``, and it does not tell ``.`` from
``_`` reliably. A name that is made here is one of both kinds, and no two topics have the same one.
"""

import hashlib

MAX_NAME = 63
_LITERAL = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.")


def channel_name(topic: str) -> str:
    """The topic with ``-`` and two hexadecimal digits for other bytes; if that is too long, a hash of it."""
    data = topic.encode()
    name = "".join(chr(byte) if byte in _LITERAL else f"-{byte:02X}" for byte in data)
    # No escape begins with "-h".
    return name if len(name) <= MAX_NAME else f"-h{hashlib.sha256(data).hexdigest()[:60]}"
