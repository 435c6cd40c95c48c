"""Lists of permissions: which of them are asked what, and asking them."""

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

from ..exceptions import ConsumerError
from .composition import AllowAny, And, BasePermission, _Expression, at_once, permission_of
from .conditions import UNKNOWN, About, Verdict
from .delivery import Delivery


def compile_permissions(entries: object) -> tuple[BasePermission, ...]:
    """The permissions of a whole list, in its order, without those that allow everybody.

    An empty tuple means that there is nothing to check.

    Raises:
        TypeError: an entry is no permission, or ``entries`` is no list.
    """
    if isinstance(entries, (str, bytes, type, BasePermission)) or not isinstance(entries, Iterable):
        raise TypeError(
            f"found {entries!r}; expected a list of permissions. Put it into a list: "
            f"[{entries.__qualname__ if isinstance(entries, type) else repr(entries)}]."
        )
    return tuple([permission for permission in map(permission_of, entries) if type(permission) is not AllowAny])


def asked_at_all(permissions: Sequence[BasePermission]) -> tuple[BasePermission, ...]:
    """Those that have something to say at connect and before actions."""
    return tuple([permission for permission in permissions if permission._is_general])


def asked_about(permissions: Sequence[BasePermission], method: str) -> tuple[BasePermission, ...]:
    """Those that define ``method``. Operands of ``&`` count as entries of the list, which they mean the same as."""
    found: list[BasePermission] = []
    for permission in permissions:
        if isinstance(permission, And):
            found += asked_about(permission.operands, method)
        elif method in permission._answers:
            found.append(permission)
    return tuple(found)


def depends_on_action(permissions: Sequence[BasePermission]) -> bool:
    """Whether what these say about a group or an object depends on the action: operands are asked for both."""
    return any(isinstance(permission, _Expression) for permission in permissions)


async def check_permissions(permissions: Sequence[BasePermission], consumer: Any, action: Any = None) -> None:
    """Ask every permission in order, each once, until one refuses. Awaits only what is async.

    Raises:
        ConsumerError: the refusal of the first that refused.
    """
    waiting = ask_permissions(permissions, consumer, action)
    if waiting is not None:
        await waiting


def ask_permissions(permissions: Sequence[BasePermission], consumer: Any, action: Any = None) -> Awaitable[None] | None:
    """The same as far as it goes at once: ``None`` if all allow it, otherwise the rest, to be awaited."""
    for index, permission in enumerate(permissions):
        verdict = permission._verdict(consumer, action, True, None)
        if verdict is not None and verdict is not UNKNOWN:
            if isinstance(verdict, ConsumerError):
                raise verdict
            return _ask_on(verdict, permissions[index + 1 :], consumer, action)
    return None


async def _ask_on(pending: Awaitable[Verdict], rest: Sequence[BasePermission], consumer: Any, action: Any) -> None:
    verdict = await pending
    if isinstance(verdict, ConsumerError):
        raise verdict
    if rest:
        await check_permissions(rest, consumer, action)


async def check_about(permissions: Sequence[BasePermission], consumer: Any, about: About, action: Any = None) -> None:
    """The same about a group or an object, of permissions that :func:`asked_about` has found.

    Their ``has_permission`` is not asked again, unless they are operands of ``|`` and ``~``.
    """
    for permission in permissions:
        verdict = permission._verdict_alone(consumer, action, True, about)
        if verdict is not None and verdict is not UNKNOWN:
            if not isinstance(verdict, ConsumerError):
                verdict = await verdict
            if isinstance(verdict, ConsumerError):
                raise verdict


def is_delivered(permissions: Sequence[BasePermission], consumer: Any, delivery: Delivery) -> bool:
    """Whether all of them let the consumer's client have this event.

    A ``ConsumerError`` that one raises is a no. Raises what else they raise, and ``TypeError`` for one that is async.
    """
    about = About("has_delivery_permission", delivery)
    try:
        for permission in permissions:
            verdict = at_once(permission._verdict_alone(consumer, None, False, about), permission)
            if isinstance(verdict, ConsumerError):
                return False
    except ConsumerError:
        return False
    return True
