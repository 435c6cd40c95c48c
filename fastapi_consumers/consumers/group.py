"""Consumers that talk to groups."""

from typing import Any, ClassVar

from ..addressing import GROUP, check_event
from ..exceptions import InvalidFrame, InvalidGroup
from ..groups import check_group
from ..history import History, HistorySlice
from ..messages import Position
from ..packets import Packet
from ..permitting import join_if_permitted, sift
from ..presence import Presence
from ..recoveries import is_position
from ..texts import gettext_lazy as _
from .announcing import announce
from .json import JSONConsumer


class GroupConsumer(JSONConsumer, abstract=True):
    """A consumer that is a member of groups, and broadcasts to them."""

    _is_framework_class = True

    #: How much of its groups' past is kept, so that clients can read it, and come back without a loss.
    history: ClassVar[History | None]
    #: Shows the members of its groups who is there.
    presence: ClassVar[Presence | None]

    async def broadcast(
        self,
        event: str,
        data: Any = None,
        *,
        group: str | None = None,
        exclude_self: bool = False,
        idempotency_key: str | None = None,
        coalesce_key: str | None = None,
    ) -> Position | None:
        """Send an event to all members of a group, this consumer included.

        Args:
            data: anything that pydantic can serialise to JSON.
            group: may be left out where the consumer is in exactly one.
            exclude_self: leave this consumer out.
            idempotency_key: in a group with history: if it had an event with this key lately, nothing is sent again.
            coalesce_key: for clients that do not keep up, under ``overflow = "coalesce"``: this event takes the place
                of the one of the same key that still waits.

        Returns where the event is, in a group with history. Raises ``InvalidGroup`` if the group is not named and not
        clear, and as :meth:`Consumers.broadcast` does.
        """
        models = self._meta.event_models
        if models and (model := models.get(check_event(event))) is not None:
            data = model.encode(data, self._meta.name)
        return await self.consumers.broadcast(
            self._default_group() if group is None else group,
            event,
            data,
            exclude=self.channel_name if exclude_self else None,
            idempotency_key=idempotency_key,
            coalesce_key=coalesce_key,
        )

    def _default_group(self) -> str:
        if self._left is not None:
            return self._left
        if len(self._groups) != 1:
            raise InvalidGroup(
                _(
                    "{consumer} is in {count} groups: name one with group=… (found: {groups}).",
                    consumer=type(self).__name__,
                    count=len(self._groups),
                    groups=", ".join(self._groups) or _("none"),
                )
            )
        return next(iter(self._groups))

    async def join(self, group: str, recover: Position | None = None) -> bool:
        """Become a member of a group; ``False`` if it is one already.

        In a group with history the client is told its position, and with ``recover``, the last position that it has,
        what it missed since.

        In ``connect()``, before the socket is accepted, ``on_join`` waits until it is.

        Raises what a permission that defines ``has_group_permission`` refuses with, ``InvalidGroup``, ``TooManyGroups``
        beyond ``max_groups``, ``GroupFull`` beyond ``max_connections``, ``BrokerUnavailable``, and ``TypeError`` if
        ``recover`` is no position. One that is of no use raises nothing.
        """
        if recover is not None and not is_position(recover):
            raise TypeError(f"recover is {recover!r}; expected a Position of an epoch and a whole number.")
        if not await join_if_permitted(self, group, lambda: self._join(group, recover)):
            return False
        if self._connection.is_accepted:
            try:
                await announce(self, "join", group)
            except BaseException:
                # Half a member is none: it may try again.
                await self._leave(group)
                self._groups.pop(group, None)
                raise
        return True

    async def leave(self, group: str) -> bool:
        """Be no member of a group any more; ``False`` if it was none."""
        return await self._discard(group)

    async def read_history(
        self,
        group: str | None = None,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> HistorySlice:
        """Events of the past: those with ``after < offset < before``, the first ``limit`` of them in that order.

        Those are left out that ``has_delivery_permission`` keeps from this consumer's client, so that there may be
        fewer. Raises ``NotFound`` for a group without history, otherwise as :meth:`GroupHistory.read` does.
        """
        group = self._default_group() if group is None else group
        history = self.consumers.history(group)
        found = await history.read(after=after, before=before, limit=limit, newest_first=newest_first)
        return sift(self, group, found)

    async def get_connection_count(self, group: str | None = None) -> int:
        """How many connections are in a group, as ``Consumers.get_connection_count`` has it."""
        return await self.consumers.get_connection_count(self._default_group() if group is None else group)

    async def get_presence(self, group: str | None = None) -> dict[str, Any]:
        """Who is in a group: ``{"count": …, "members": {key: {"metas": [{"ref": …, …}, …]}}}``.

        ``count`` is how many keys there are. With ``count_only`` there is nothing else. Raises ``BrokerUnavailable``.
        """
        presence = self._connection.plan.presence
        return await self.consumers.get_presence(
            self._default_group() if group is None else group,
            count_only=presence is not None and presence.count_only,
        )


class PersonConsumer(GroupConsumer, abstract=True):
    """A group for two: a third connection is refused with 1013 before it is accepted."""

    _is_framework_class = True

    max_connections = 2


class RelayConsumer(GroupConsumer, abstract=True):
    """No actions: what a client sends, text or bytes, goes to its groups exactly as it is, to the sender too."""

    _is_framework_class = True
    _has_actions = False

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            packet = Packet("bytes", bytes_data or b"") if text_data is None else Packet("text", text_data.encode())
        except UnicodeEncodeError:
            raise InvalidFrame(_("The text holds half of a surrogate pair.")) from None
        for group in self.group_names:
            await self.consumers.hub.publish(GROUP + check_group(group), packet)
