"""Telling a consumer's hooks that it has joined or left a group."""

from typing import TYPE_CHECKING

from ..stepping import settled

if TYPE_CHECKING:
    from .base import Consumer


async def announce(consumer: "Consumer", name: str, group: str) -> None:
    """Call the method and the registered functions for ``"join"`` or ``"leave"``."""
    options = type(consumer)._meta
    if name == "join":
        presence = consumer._connection.plan.presence
        if presence is not None:
            await consumer.consumers.membership.enter(group, consumer._connection.member, presence, consumer)
        consumer._groups[group] = True
    else:
        consumer._left = group
    try:
        method = f"on_{name}"
        if method in options.overridden:
            await settled(getattr(consumer, method)(group))
        for handler in options.handlers.get(name, ()):
            await settled(handler(consumer, group))
    finally:
        consumer._left = None
