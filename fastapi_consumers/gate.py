"""What stands before an action: throttles, then permissions. Owned by the dispatcher.

Who answers at once is asked without a coroutine: most throttles and permissions do, and all are asked for each message.
"""

import asyncio
from collections.abc import Awaitable, Hashable, Sequence
from typing import Any

from .actions import Action
from .permissions import BasePermission, check_permissions
from .permissions.checking import ask_permissions
from .plan import ActionPlan, Plan
from .throttling import BaseThrottle, Buckets, Refusals
from .throttling.base import ask_throttles


class Gate:
    """Asks for one consumer. Remembers by what it is counted, and how often it was refused.

    Args:
        buckets: where requests are counted.
    """

    __slots__ = ("_buckets", "_consumer", "_keys", "_plan", "_refusals", "_user")

    def __init__(self, consumer: Any, plan: Plan, buckets: Buckets) -> None:
        self._consumer = consumer
        self._plan = plan
        self._buckets = buckets
        self._refusals = Refusals(plan.limits.max_throttled_requests)
        #: By what throttles count it, as long as its user is this one.
        self._keys: dict[int, Hashable] = {}
        self._user: Any = None

    @property
    def is_flooded(self) -> bool:
        """Whether so much has been refused that the socket is to be closed."""
        return self._refusals.is_flood

    def ask(self, plan: ActionPlan | None) -> Awaitable[None] | None:
        """Whether this action may be called now; without one, whether a request that names none may be answered.

        ``None``: it may. Otherwise it is for what is to be awaited to say, which raises the refusal; a permission that
        refuses at once raises at once.
        """
        policies: ActionPlan | Plan = plan if plan is not None else self._plan
        action = plan.action if plan is not None else None
        if policies.counted:
            waiting = self.count(policies.counted, action)
            if waiting is not None:
                return self._ask_later(waiting, policies.permissions, action)
        if not policies.permissions:
            return None
        return ask_permissions(policies.permissions, self._consumer, action)

    async def _ask_later(
        self, waiting: Awaitable[None], permissions: Sequence[BasePermission], action: Action | None
    ) -> None:
        await waiting
        await check_permissions(permissions, self._consumer, action)

    def count(self, throttles: Sequence[BaseThrottle], action: Action | None) -> Awaitable[None] | None:
        """Count a request by these throttles. ``None``: it may pass; otherwise as ``ask``."""
        try:
            if (user := self._consumer.user) is not self._user:
                self._keys.clear()
                self._user = user
            waiting = ask_throttles(throttles, self._consumer, action, self._buckets, self._refusals, self._keys)
        except Exception as error:
            return _refused(error)
        return None if waiting is None else _settled(waiting)


async def _refused(error: Exception) -> None:
    # Those who keep to their limits come first.
    await asyncio.sleep(0)
    raise error


async def _settled(waiting: Awaitable[None]) -> None:
    try:
        await waiting
    except Exception:
        await asyncio.sleep(0)
        raise
