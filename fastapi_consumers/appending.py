"""Keeping an event and handing it on: what a broadcast to a group with history is, inside of an application or not."""

import logging
from collections.abc import Awaitable, Callable

from .addressing import GROUP
from .exceptions import BrokerUnavailable, MessageTooBig
from .history import History, HistoryStore
from .messages import Position
from .packets import Packet, encode_packet
from .transports import Transport

logger = logging.getLogger(__name__)


class Appender:
    """Appends to one store, and publishes over one transport.

    Args:
        publishes: whether the store hands its packets to the transport's server by itself.
        publish: hands on a packet that the store does not, encoded or not.
    """

    def __init__(
        self,
        store: HistoryStore,
        transport: Transport,
        publishes: bool,
        publish: Callable[[str, Packet, Position, bytes], Awaitable[None]],
    ) -> None:
        self.store = store
        self._transport = transport
        self._publishes = publishes
        self._publish = publish
        #: Events that were kept, but could not be handed on at once.
        self.unpublished = 0

    async def append(
        self, group: str, packet: Packet, history: History, idempotency_key: str | None = None
    ) -> tuple[Position, bool]:
        """Where the event is, and whether it was handed on: if not, all processes read it back by and by.

        Raises ``BrokerUnavailable`` if it could not be kept, ``ValueError`` for an idempotency key that cannot be one.
        """
        topic, encoded = GROUP + group, encode_packet(packet)
        channel = self._transport.channel_of(topic) if self._publishes and self.store.publishes else None
        position, is_new = await self.store.append(
            group, encoded, history, idempotency_key=idempotency_key, channel=channel
        )
        if is_new and channel is None:
            try:
                await self._publish(topic, packet, position, encoded)
            except (BrokerUnavailable, MessageTooBig) as error:
                self.unpublished += 1
                extra = {"group": group}
                logger.warning(
                    "an event of %r is kept, and delivered once it is read back: %s", group, error, extra=extra
                )
                return position, False
        return position, True
