"""Who is meant, and what is sent: from the words of the API to a topic and a packet.

Used by whatever publishes, inside an application and outside of one, so that both reach the same connections. Topics
are the names that transports know: each group, user and process has one.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from .codecs import EncodedJSON, encode_json
from .groups import check_group
from .identity import user_id
from .packets import Packet
from .types import CloseCode, check_close_code, close_reason, new_tuple

#: Longest ``coalesce_key``, in characters.
MAX_COALESCE_KEY = 255

GROUP, USER, TOKEN, PROCESS = "group:", "user:", "token:", "process:"
#: What all processes receive: questions to them.
CONTROL = "control:"
#: What processes tell each other of their schedules; nobody else is subscribed to it.
SCHEDULES = "schedules:"


class Addressed(NamedTuple):
    """A packet, and the topic that it is published to."""

    topic: str
    packet: Packet


def check_event(name: Any) -> str:
    """``name`` if an event can have it. Raises ``TypeError`` for what is not text."""
    if not isinstance(name, str):
        raise TypeError(f"an event is named by text; found a value of type {type(name).__name__}")
    return name


def event_for_group(
    group: str, event: str, data: Any = None, *, exclude: str | None = None, coalesce_key: str | None = None
) -> Addressed:
    """An event for all members but ``exclude``, a channel.

    Raises ``InvalidGroup``, ``TypeError`` for an event that is not text, and ``PydanticSerializationError``, which is a
    ``ValueError``, for data that has no JSON.
    """
    return new_tuple(Addressed, (GROUP + check_group(group), _event(event, data, exclude, coalesce_key)))


def event_for(event: str, data: Any = None, *, user: Any = None, channel: str | None = None) -> Addressed | None:
    """An event for all connections of a user, or for one channel; ``None`` for a channel that cannot be one.

    Raises as :func:`event_for_group` does, ``TypeError`` unless just one receiver is named, and ``ValueError`` for an
    anonymous user.
    """
    return _addressed(_event(event, data), user=user, channel=channel)


def close_for(
    *,
    user: Any = None,
    channel: str | None = None,
    group: str | None = None,
    exclude: str | None = None,
    code: int = CloseCode.REPLACED,
    reason: str = "disconnected",
) -> Addressed | None:
    """The close of all sockets of a user, of one channel, or of a group, but for the channel ``exclude``.

    Raises as :func:`event_for` does.
    """
    packet = Packet("close", encode_json([check_close_code(code), close_reason(reason)]), exclude=exclude)
    return _addressed(packet, user=user, channel=channel, group=group)


def revoke_for(token_id: str, *, reason: str = "revoked") -> Addressed:
    """The close with 4401 of all sockets whose credential has this id. Raises ``TypeError`` for an id that is none."""
    packet = Packet("close", encode_json([CloseCode.NOT_AUTHENTICATED, close_reason(reason)]))
    return Addressed(token_topic(token_id), packet)


def token_topic(token_id: str) -> str:
    """Ids of tokens are hashed: they may be long, and names of topics are seen at the broker and in logs."""
    if not isinstance(cast(object, token_id), str) or not token_id:
        raise TypeError(f"a token is named by the text of its id; found a value of type {type(token_id).__name__}")
    return TOKEN + hashlib.sha256(token_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def message_for_group(group: str, message: Mapping[str, Any]) -> Addressed:
    """A channel layer message for all members. Raises ``InvalidGroup``, and ``ValueError`` without a type."""
    return Addressed(GROUP + check_group(group), message_packet(message))


def message_packet(message: Mapping[str, Any]) -> Packet:
    """Raises ``ValueError`` for what is not a dict with a type, or has no JSON."""
    if not isinstance(cast(object, message), Mapping) or not isinstance(message.get("type"), str):
        raise ValueError(f'A channel layer message is a dict with a "type" of text; found {message!r}')
    return Packet("message", encode_json(dict(message)))


def for_channel(channel: str, packet: Packet) -> Addressed | None:
    """A packet for one channel, wherever it is; ``None`` for what cannot be the name of one."""
    if not isinstance(cast(object, channel), str):
        raise TypeError(f"a channel is named by text; found a value of type {type(channel).__name__}")
    process, separator, _ = channel.partition("!")
    return Addressed(PROCESS + process, packet._replace(only=channel)) if separator else None


def _event(event: str, data: Any, exclude: str | None = None, key: str | None = None) -> Packet:
    check_event(event)
    if key is not None and not (isinstance(cast(object, key), str) and len(key) <= MAX_COALESCE_KEY):
        raise ValueError(f"coalesce_key is text of at most {MAX_COALESCE_KEY} characters; found {key!r:.80}")
    encoded = data if type(data) is EncodedJSON else encode_json(data)
    return new_tuple(Packet, ("event", encoded, event, exclude, None, key, None))


def _addressed(packet: Packet, **receivers: Any) -> Addressed | None:
    given = [name for name, value in receivers.items() if value is not None]
    if len(given) != 1:
        names = " or ".join(f"{name}=…" for name in receivers)
        raise TypeError(f"name one receiver, {names} (found {' and '.join(given) or 'none'})")
    name, value = given[0], receivers[given[0]]
    if name == "channel":
        return for_channel(value, packet)
    return Addressed(GROUP + check_group(value) if name == "group" else USER + _user_key(value), packet)


def _user_key(user: Any) -> str:
    """A user, or a user's id, as text."""
    key = user if isinstance(user, str | int) else user_id(user)
    if key is None:
        raise ValueError(f"{user!r} has no id: connections can be reached by user only where their user is known")
    return str(key)
