"""What is subscribed, and what arrives for it."""

import asyncio
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .link import Link


class Subscription:
    """One topic, from ``subscribe`` to ``unsubscribe``."""

    __slots__ = ("channel", "confirmed", "is_wanted", "link", "topic")

    def __init__(self, topic: str, channel: bytes) -> None:
        self.topic = topic
        self.channel = channel
        self.is_wanted = True
        #: Done once the server has confirmed it, for the first time; or has refused it.
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: Which connection is to receive it; none if nobody is known to serve it.
        self.link: Link | None = None

    @property
    def was_confirmed(self) -> bool:
        """Whether somebody relies on it."""
        return self.confirmed.done() and self.confirmed.exception() is None

    def confirm(self) -> None:
        if not self.confirmed.done():
            self.confirmed.set_result(None)

    def fail(self, failure: Exception) -> None:
        if self.is_wanted and not self.confirmed.done():
            self.confirmed.set_exception(failure)
            # So that it is no fault if nobody waits for it.
            self.confirmed.exception()


class Gap(NamedTuple):
    """Stands in the queue between what arrived before something was lost and what arrived after."""

    subscriptions: list[Subscription]
