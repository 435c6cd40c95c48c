"""What runs on each event loop for tests: the apps behind communicators, and the apps' lifespans.

One state for each loop, so that loops do not know of each other. A loop that was closed is forgotten with all that was
left on it.
"""

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from .communicator import WebsocketCommunicator
    from .lifespans import Lifespan


class LoopState:
    """``communicators`` whose app runs, oldest first; ``lifespans`` by the ``id`` of their app, held by them."""

    def __init__(self) -> None:
        self.communicators: dict[WebsocketCommunicator, None] = {}
        self.lifespans: dict[int, Lifespan] = {}


_states: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopState] = WeakKeyDictionary()


def states() -> dict[asyncio.AbstractEventLoop, LoopState]:
    """The states of all loops that are not closed."""
    # A weak key is not enough: tasks that a loop was closed over refer to it, and the state refers to them.
    for loop in [loop for loop in _states if loop.is_closed()]:
        del _states[loop]
    return dict(_states)


def current() -> LoopState:
    """The state of the running loop."""
    states()
    return _states.setdefault(asyncio.get_running_loop(), LoopState())
