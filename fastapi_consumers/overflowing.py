"""Telling that a client does not keep up: the process's counters and the consumer's hook. Used by the connection."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from .stepping import Waits, run_now

logger = logging.getLogger(__name__)


class Overflowing:
    """What one connection tells of its overflows.

    Args:
        policy: the one in force.
        counter: policy to how many events it dropped, and ``disconnect`` to how many sockets were closed; shared by all
            connections.
        hook: the consumer's ``on_overflow``, where it has one.
    """

    __slots__ = ("_counter", "_hook", "_policy", "_told")

    def __init__(self, policy: str, counter: Counter[str], hook: Callable[[str], Any] | None) -> None:
        self._policy = policy
        self._counter = counter
        self._hook = hook
        self._told = False

    def dropped(self) -> bool:
        """An event was dropped. Whether it is the first one since all was well; then the hook is called."""
        self._counter[self._policy] += 1
        if self._told:
            return False
        self._told = True
        self._tell(self._policy)
        return True

    def disconnected(self) -> None:
        """The socket is closed for it. The hook is told of this too, whatever it was told before."""
        self._counter["disconnect"] += 1
        self._tell("disconnect")

    def over(self) -> None:
        """All that waited has been written."""
        self._told = False

    def _tell(self, policy: str) -> None:
        if self._hook is not None:
            # Not here: this is the middle of a fan-out, and what the hook broadcasts may not overtake that.
            asyncio.get_running_loop().call_soon(_call, self._hook, policy)


def _call(hook: Callable[[str], Any], policy: str) -> None:
    try:
        run_now(hook(policy))
    except Waits:
        logger.error("%s waited for something; start a task for what takes longer", hook.__qualname__)
    except Exception:
        logger.exception("%s failed", hook.__qualname__)
