"""Telling that a client does not keep up: the process's counters and the consumer's hook. Used by the connection."""

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
        counter: policy to how often it was applied; shared by all connections.
    """

    __slots__ = ("_counter", "_policy", "_told", "hook")

    def __init__(self, policy: str, counter: Counter[str]) -> None:
        self._policy = policy
        self._counter = counter
        self._told = False
        #: The consumer's ``on_overflow``, where it has one.
        self.hook: Callable[[str], Any] | None = None

    def happened(self) -> bool:
        """The policy was applied once more. Whether it is the first time since all was well."""
        self._counter[self._policy] += 1
        if self._told:
            return False
        self._told = True
        if self.hook is not None:
            self._call(self.hook)
        return True

    def over(self) -> None:
        """All that waited has been written."""
        self._told = False

    def _call(self, hook: Callable[[str], Any]) -> None:
        # It stands in the middle of a fan-out: whatever it does, the other members get theirs.
        try:
            run_now(hook(self._policy))
        except Waits:
            logger.error("%s waited for something; start a task for what takes longer", hook.__qualname__)
        except Exception:
            logger.exception("%s failed", hook.__qualname__)
