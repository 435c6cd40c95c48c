"""The actions that the framework brings along, for consumers that have none of the same name themselves."""

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import create_model

from .actions import Action, compile_action
from .exceptions import NotFound, PermissionDenied, Problem
from .marks import ActionMark
from .pagination import CursorPagination, PageParams, pagination_for_streams
from .texts import gettext_lazy as _
from .types import RequestId


def nothing_to_cancel() -> NotFound:
    """The answer to a ``cancel`` that comes too late, or names no request."""
    return NotFound(_("No request with this id is running or waiting."))


async def _cancel(consumer: Any, request_id: RequestId) -> None:
    """Cancel the request of this id; it ends with the error ``cancelled``. Handled ahead of requests that wait."""
    if not consumer.connection.dispatcher.cancel(request_id):
        raise nothing_to_cancel()


async def _history(consumer: Any, data: Any) -> Any:
    """Events of the past of a group that the consumer is in, the newest first."""
    group = data.group if data.group is not None else consumer._default_group()
    if group not in consumer.group_names:
        raise PermissionDenied(_("Only a member of this group can read its history."), code="not_a_member")
    paginator = pagination_for_streams(consumer.connection.plan.pagination, CursorPagination)
    return await paginator.paginate(consumer._visible(consumer.consumers.history(group)), data)


@functools.cache
def history_action(params: type[PageParams]) -> Action:
    """``history`` with the parameters of a pagination class, and the ``group``."""
    model = create_model("HistoryParams", __base__=params, group=(str | None, None))

    async def history(consumer: Any, data: Any) -> Any:
        return await _history(consumer, data)

    history.__doc__ = _history.__doc__
    history.__annotations__["data"] = model
    return _builtin("history", history)


async def _presence(consumer: Any, group: str | None = None) -> dict[str, Any]:
    """Who is in a group that the consumer is in."""
    if group is not None and group not in consumer.group_names:
        raise PermissionDenied(_("Only a member of this group is told who is in it."), code="not_a_member")
    found: dict[str, Any] = await consumer.get_presence(group)
    return found


async def _authenticate(consumer: Any, token: str) -> dict[str, Any]:
    """Refresh the connection's credential with a new one of the same user."""
    refreshed: dict[str, Any] = await consumer.connection.dispatcher.refresh(token)
    return refreshed


def _builtin(name: str, function: Any) -> Action:
    problems: list[Problem] = []
    action = compile_action(
        function, ActionMark(name=name), method=name, owner="Consumer", where=name, localns={}, problems=problems
    )
    assert action is not None, problems
    return action


#: By wire name.
BUILTINS: Mapping[str, Action] = {"cancel": _builtin("cancel", _cancel)}
#: Those of classes with ``presence``.
PRESENCE_BUILTINS: Mapping[str, Action] = {"presence": _builtin("presence", _presence)}
#: Those of classes with authentications that take tokens.
TOKEN_BUILTINS: Mapping[str, Action] = {"authenticate": _builtin("authenticate", _authenticate)}
