"""The channel layer: the API of Django Channels, in dicts, as a thin face of the hub."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .addressing import message_for_group, message_packet
from .groups import check_group
from .hub import Hub


class ChannelLayer:
    """``group_add``, ``group_discard``, ``group_send`` and ``send``, with Channels' names and meanings.

    A message is a dict with a ``type``; in each member it calls the method that ``@event`` marked for that type, and
    no other. Messages are JSON: dates and the like arrive as text.
    """

    def __init__(self, ready_hub: Callable[[], Awaitable[Hub]]) -> None:
        #: The hub, opened if nobody has yet.
        self._ready_hub = ready_hub

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel of this process to a group.

        Raises ``InvalidGroup``, ``TooManyGroups``, ``GroupFull`` beyond the ``max_connections`` of the channel's
        consumer, and ``ValueError`` for no such channel.
        """
        hub = await self._ready_hub()
        member = hub.find(channel)
        if member is None or member.consumer is None:
            raise ValueError(f"There is no channel {channel!r} in this process; only its own process can add it.")
        await member.consumer._add(check_group(group))

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel of this process out of a group; nothing happens if it is not in it."""
        hub = await self._ready_hub()
        member = hub.find(channel)
        if member is not None and member.consumer is not None:
            await member.consumer._discard(check_group(group))

    async def group_send(self, group: str, message: Mapping[str, Any]) -> None:
        """Call the event method for ``message["type"]`` in every member. Raises ``ValueError`` without a type."""
        await (await self._ready_hub()).publish(*message_for_group(group, message))

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        """The same for one channel, wherever it is."""
        await (await self._ready_hub()).send(channel, message_packet(message))
