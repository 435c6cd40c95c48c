"""Running a coroutine by hand as far as it goes without waiting.

What ends without waiting costs no task, no future and no wake-up that way, and nobody else runs in between.
"""

import inspect
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Resumed(Generic[T]):
    """A coroutine that was stepped once and waits for something, to be awaited from there by a task."""

    __slots__ = ("_coroutine", "_marked", "_waited_for")

    def __init__(self, coroutine: Coroutine[Any, Any, T], waited_for: Any) -> None:
        self._coroutine = coroutine
        self._waited_for = waited_for
        # A future is marked while it is on its way to the task that will wait for it. There is none yet, and another
        # coroutine may want to wait for the same future meanwhile.
        self._marked = getattr(waited_for, "_asyncio_future_blocking", False)
        if self._marked:
            waited_for._asyncio_future_blocking = False

    def __await__(self) -> Generator[Any, Any, T]:
        waited_for = self._waited_for
        if self._marked:
            waited_for._asyncio_future_blocking = True
        while True:
            try:
                value = yield waited_for
            except BaseException as error:
                try:
                    waited_for = self._coroutine.throw(error)
                except StopIteration as stop:
                    return stop.value  # type: ignore[no-any-return]  # what the coroutine returned
            else:
                try:
                    waited_for = self._coroutine.send(value)
                except StopIteration as stop:
                    return stop.value  # type: ignore[no-any-return]  # what the coroutine returned


async def settled(result: Any) -> Any:
    """What a function of the user's returned, awaited if it was ``async``."""
    return await result if inspect.isawaitable(result) else result


class Waits(RuntimeError):
    """Something waited that may not."""


def run_now(awaitable: Any) -> Any:
    """The result of something that may be ``async`` but ends without waiting. Raises ``Waits`` if it does wait."""
    if not hasattr(awaitable, "__await__"):
        return awaitable
    iterator = awaitable.__await__()
    try:
        next(iterator)
    except StopIteration as stop:
        return stop.value
    iterator.close()
    raise Waits
