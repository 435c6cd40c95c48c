"""What a permission is asked about when an event is on its way to a member."""

from collections.abc import Callable
from typing import Any


class Delivery:
    """One event of a group, as ``has_delivery_permission`` sees it. All members that are asked about share it.

    Attributes:
        event: the event's name; empty for a frame that a ``RelayConsumer`` passes on.
        group: the group that it was sent to.
        offset: its place, in a group with history.
    """

    __slots__ = ("_data", "_load", "event", "group", "offset")

    def __init__(self, event: str, group: str, load: Callable[[], Any], offset: int | None = None) -> None:
        self.event = event
        self.group = group
        self.offset = offset
        self._load: Callable[[], Any] | None = load
        self._data: Any = None

    @property
    def data(self) -> Any:
        """The event's data as JSON has it, decoded at first use; text or bytes of a relayed frame. Do not change it."""
        if self._load is not None:
            self._data, self._load = self._load(), None
        return self._data

    def __repr__(self) -> str:
        return f"Delivery(event={self.event!r}, group={self.group!r}, offset={self.offset!r})"
