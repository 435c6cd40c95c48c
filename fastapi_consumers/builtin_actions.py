"""The actions that the framework brings along, for consumers that have none of the same name themselves."""

from collections.abc import Mapping
from typing import Any

from .actions import Action, compile_action
from .exceptions import NotFound, Problem
from .marks import ActionMark
from .types import RequestId


def nothing_to_cancel() -> NotFound:
    """The answer to a ``cancel`` that comes too late, or names no request."""
    return NotFound("No request with this id is running or waiting.")


async def _cancel(consumer: Any, request_id: RequestId) -> None:
    """Cancel the request of this id; it ends with the error ``cancelled``. Handled ahead of requests that wait."""
    if not consumer.connection.dispatcher.cancel(request_id):
        raise nothing_to_cancel()


def _builtin(name: str, function: Any) -> Action:
    problems: list[Problem] = []
    action = compile_action(
        function, ActionMark(name=name), method=name, owner="Consumer", where=name, localns={}, problems=problems
    )
    assert action is not None, problems
    return action


#: By wire name.
BUILTINS: Mapping[str, Action] = {"cancel": _builtin("cancel", _cancel)}
