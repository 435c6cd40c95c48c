"""What a connection is asked for besides requests: may it join a group, touch an object, be given an event.

Lists of permissions are sorted by what they answer when the plan is made. What no class asks about costs nothing here:
there is no filter on its members, and joins go straight on.
"""

import logging
import operator
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from .addressing import GROUP
from .connection import Connection
from .groups import check_group
from .history import GroupHistory, HistoryEvent, HistorySlice
from .localization import told_to
from .messages import Notice
from .permissions import About, Delivery, check_about
from .plan import ActionPlan
from .protocols import JSON_FRAMER
from .redaction import without_input

logger = logging.getLogger(__name__)

#: The consumer whose action runs, and the plan of that action, where permissions want to know.
_ACTING: ContextVar[tuple[Any, ActionPlan] | None] = ContextVar("acting", default=None)


@contextmanager
def acting(consumer: Any, plan: ActionPlan | None) -> Iterator[None]:
    """What is asked within is asked for this action, whose own permissions have a say too, or for none."""
    token = _ACTING.set((consumer, plan) if plan is not None else None)
    try:
        yield
    finally:
        _ACTING.reset(token)


def _action_of(consumer: Any) -> ActionPlan | None:
    found = _ACTING.get()
    # It may be another consumer's action that adds this one to a group.
    return found[1] if found is not None and found[0] is consumer else None


# -- objects -----------------------------------------------------------------------------------------------------------


async def check_object(consumer: Any, obj: Any) -> None:
    """Raises the refusal of the first permission that does not let the client have this object."""
    running = _action_of(consumer)
    permissions = running.objects if running is not None else consumer._connection.plan.objects
    if permissions:
        action = running.action if running is not None else None
        await check_about(permissions, consumer, About("has_object_permission", obj), action)


# -- groups ------------------------------------------------------------------------------------------------------------


async def check_group_of(consumer: Any, group: str) -> None:
    """Raises the refusal of the first permission that does not let the client join, and ``InvalidGroup``."""
    running = _action_of(consumer)
    permissions = running.groups if running is not None else consumer._connection.plan.groups
    if permissions:
        action = running.action if running is not None else None
        await check_about(permissions, consumer, About("has_group_permission", check_group(group)), action)


async def join_if_permitted(consumer: Any, group: str, join: Callable[[], Awaitable[bool]]) -> bool:
    """Join unless a permission refuses; ``False`` for a member, about whom nothing is asked.

    Who is a member at the end may be one by the credential that the connection has then: with a new one, that came
    while this was going on, it is asked again. Raises the refusal; then it is no member.
    """
    connection: Connection = consumer._connection
    if GROUP + check_group(group) in connection.member.topics:
        return False
    credential = _credential(connection)
    await consumer.check_group_permissions(group)
    if not await join():
        return False
    while GROUP + group in connection.member.topics:
        former, credential = credential, _credential(connection)
        if all(map(operator.is_, former, credential)):
            return True
        try:
            await consumer.check_group_permissions(group)
        except BaseException:
            await consumer._leave(group)
            consumer._groups.pop(group, None)
            raise
    return False


def _credential(connection: Connection) -> tuple[Any, ...]:
    """Of which something is another object once the connection's user or credential has changed."""
    return connection.user, connection.auth, connection.lifetime


async def check_groups_again(consumer: Any) -> None:
    """The credential is another one: leave the groups that it does not allow.

    Raises the refusal of a group of the handshake: with this credential there would have been no connection.
    """
    connection: Connection = consumer._connection
    for topic in tuple(connection.member.topics):
        if not topic.startswith(GROUP):
            continue
        group = topic[len(GROUP) :]
        try:
            with acting(consumer, None):
                await consumer.check_group_permissions(group)
        except Exception as failure:
            if group in connection.handshake_groups:
                raise
            error = await connection.dispatcher.explain(failure, f"a permission for the group {group!r}")
            await consumer._discard(group)
            fields = {"group": group, "error": told_to(connection, error).body()}
            framer = connection.member.framer or JSON_FRAMER
            await connection.send_frame(framer.notice(Notice("left", fields)))
            if error.close:
                raise error from None


# -- deliveries --------------------------------------------------------------------------------------------------------


class Withheld:
    """Stands in a listing for an event that its reader may not have, so that places and cursors stay as they are."""

    __slots__ = ("offset",)
    withheld = True

    def __init__(self, offset: int) -> None:
        self.offset = offset


class VisibleHistory:
    """A group's history as one consumer's client may see it, for paginators."""

    def __init__(self, history: GroupHistory, permits: Callable[[Delivery], bool]) -> None:
        self.max_read = history.max_read
        self._history = history
        self._permits = permits

    async def read(self, **bounds: Any) -> Any:
        """As :meth:`GroupHistory.read`, with :class:`Withheld` in the place of what is not for this client."""
        found = await self._history.read(**bounds)
        shown = {event.offset for event in _sifted(self._history.group, found.events, self._permits)}
        events: list[Any] = [event if event.offset in shown else Withheld(event.offset) for event in found.events]
        return found._replace(events=events)


def visible(consumer: Any, source: Any) -> Any:
    """A source of a listing; a group's history without what this consumer's client may not have."""
    permits = consumer._connection.member.permits
    return source if permits is None or not isinstance(source, GroupHistory) else VisibleHistory(source, permits)


def sift(consumer: Any, group: str, found: HistorySlice) -> HistorySlice:
    """The events among these that this consumer's client may have."""
    permits = consumer._connection.member.permits
    return found if permits is None else found._replace(events=_sifted(group, found.events, permits))


def _sifted(group: str, events: list[HistoryEvent], permits: Callable[[Delivery], bool]) -> list[HistoryEvent]:
    shown, failures = [], 0
    for event in events:
        try:
            if permits(Delivery(event.event, group, partial(getattr, event, "data"), event.offset)):
                shown.append(event)
        except Exception as error:
            failures += 1
            if failures == 1:
                text = "a delivery permission failed: the event is withheld"
                logger.error(text, exc_info=without_input(error), extra={"group": group})
    if failures > 1:
        text = "a delivery permission failed on %d events of the history of %r"
        logger.error(text, failures, group, extra={"group": group})
    return shown
