"""Ways to reach an application's sockets from elsewhere: to send, to close, to count, to read back."""

from abc import ABC, abstractmethod
from typing import Any

from .addressing import Addressed, check_event, close_for, event_for, event_for_group, revoke_for
from .declared_events import DeclaredEvents
from .groups import check_group
from .histories import Histories
from .history import GroupHistory, HistoryStore
from .hub import Hub
from .membership import Membership
from .messages import Position
from .types import CloseCode


class Outreach(ABC):
    """What HTTP endpoints, background tasks and consumers do with sockets that are not their own."""

    histories: Histories
    declared_events: DeclaredEvents
    membership: Membership
    hub: Hub

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the hub is open."""

    @abstractmethod
    async def _ready_hub(self) -> Hub:
        """The hub, opened if it was not."""

    async def broadcast(
        self,
        group: str,
        event: str,
        data: Any = None,
        *,
        exclude: str | None = None,
        idempotency_key: str | None = None,
        coalesce_key: str | None = None,
    ) -> Position | None:
        """Send an event to all members of a group.

        Args:
            data: anything that pydantic can serialise to JSON. It is serialised once.
            exclude: a channel name that is left out.
            idempotency_key: in a group with history: if it had an event with this key in the last minutes, nothing is
                sent, and the earlier one's position is returned.
            coalesce_key: for clients that do not keep up, under ``overflow = "coalesce"``: this event takes the place
                of the one of the same key that still waits.

        Returns where the event is, in a group with history; it is delivered then, whatever happens to the broker.

        Raises ``InvalidGroup``, ``BrokerUnavailable`` if the event cannot be kept or handed on, ``ValueError`` for an
        idempotency key in a group without history, and ``InvalidEvent``, which is a ``ValueError`` too, for data that
        does not fit what a class of the group declares in ``events``.
        """
        if self.declared_events:
            data = self.declared_events.encoded(check_group(group), check_event(event), data)
        addressed = event_for_group(group, event, data, exclude=exclude, coalesce_key=coalesce_key)
        history = self.histories.of(group)
        if history is None:
            if idempotency_key is not None:
                raise ValueError(f"The group {group!r} has no history, which is where idempotency keys are kept.")
            hub = self.hub if self.is_open else await self._ready_hub()
            rest = hub.put(*addressed)
            if rest is not None:
                await rest
            return None
        return await (await self._ready_hub()).append(group, addressed.packet, history, idempotency_key)

    def history(self, group: str) -> GroupHistory:
        """A group's history, to read or to purge. Raises ``InvalidGroup``, and ``NotFound`` for one without history."""
        return GroupHistory(group, self.histories.required(check_group(group)), self._ready_store)

    async def _ready_store(self) -> HistoryStore:
        streams = (await self._ready_hub()).streams
        assert streams is not None
        return streams.store

    async def send(self, event: str, data: Any = None, *, user: Any = None, channel: str | None = None) -> None:
        """Send an event to all connections of a user (an id, or an object with one), or to one channel.

        Nothing happens if there is no such user or channel. Raises ``TypeError`` unless just one of them is named,
        ``ValueError`` for an anonymous user.
        """
        await self._publish(event_for(event, data, user=user, channel=channel))

    async def disconnect(
        self,
        *,
        user: Any = None,
        channel: str | None = None,
        group: str | None = None,
        exclude: str | None = None,
        code: int = CloseCode.REPLACED,
        reason: str = "disconnected",
    ) -> None:
        """Close all sockets of a user, one by its channel, or all of a group. Returns before they are closed.

        ``exclude`` is a channel name that is left out, such as a consumer's own: a user's other devices, for instance.

        Raises as :meth:`send` does.
        """
        addressed = close_for(user=user, channel=channel, group=group, exclude=exclude, code=code, reason=reason)
        await self._publish(addressed)

    async def revoke(self, token_id: str) -> None:
        """Close all sockets whose credential has this ``token_id``, with 4401. Returns before they are closed.

        It is not remembered: that the token opens no other socket is for the authentication to see to. Raises
        ``TypeError`` for what is no id.
        """
        await self._publish(revoke_for(token_id))

    async def _publish(self, addressed: Addressed | None) -> None:
        hub = self.hub if self.is_open else await self._ready_hub()
        if addressed is not None:
            await hub.publish(*addressed)

    async def get_connection_count(self, group: str) -> int:
        """How many connections are in a group, in all processes where they share a Redis or Valkey server.

        Those of this process are counted at this moment, those of others as they were up to a quarter of a second ago;
        what a process had that died is counted for up to 15 seconds. Over a transport that has no ``presence_url`` to
        go with it, this process's alone are counted.

        Raises ``InvalidGroup``, and ``BrokerUnavailable`` if the others' are not to be known.
        """
        if self.membership.is_shared:
            await self._ready_hub()
        return await self.membership.count(group)

    async def get_presence(self, group: str, *, count_only: bool = False) -> dict[str, Any]:
        """Who is in a group: ``{"count": …, "members": {key: {"metas": [{"ref": …, …}, …]}}}``.

        Args:
            count_only: leave the members out, of which there may be many.

        Raises ``InvalidGroup``, ``BrokerUnavailable``, and ``ImproperlyConfigured`` over a transport that has no
        ``presence_url`` to go with it.
        """
        if self.membership.is_shared:
            await self._ready_hub()
        return await self.membership.presence(group, count_only=count_only)
