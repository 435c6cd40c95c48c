"""What carries opaque bytes between processes. The comments here are the contract of every implementation."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping

#: Called with the topic and the packet of every message that arrives, one after another. It does not raise.
Deliver = Callable[[str, bytes], Awaitable[None]]
#: Called with topics whose packets may have been lost.
OnGap = Callable[[Collection[str]], Awaitable[None]]
#: Called when packets may be getting lost.
OnLost = Callable[[], None]


class Transport(ABC):
    """Publish and subscribe for bytes.

    - Packets of one topic are delivered to every subscribed process in the same order.
    - Each packet is delivered at most once to a process, and to none that was not subscribed when it was published.
    - Nothing is stored. ``subscribe`` has taken effect when it returns.
    - ``publish`` raises :class:`~fastapi_consumers.exceptions.BrokerUnavailable` if the packet cannot be handed on.
    - Where a broker is asked, ``publish`` and ``subscribe`` end within a time that the constructor's ``broker_timeout``
      sets, in seconds.
    """

    #: Whether publishing reaches other processes.
    is_distributed: bool = False
    #: Whether ``publish`` does nothing but hand the packet back, at once, if its topic is subscribed: then whoever
    #: opened it may do that without it, without making bytes of it, and without subscribing.
    is_direct: bool = False

    #: Largest packet that it carries, in bytes; ``None`` if no limit is known.
    max_packet: int | None = None
    #: Whether ``count_subscribers`` can tell.
    counts_subscribers: bool = False

    async def count_subscribers(self, topic: str) -> int | None:
        """How many processes are subscribed to a topic at this moment; ``None`` if there is no way to know."""
        return None

    def channel_of(self, topic: str) -> bytes | None:
        """What the topic is called at the server, for a store there that publishes by itself; ``None`` if none can."""
        return None

    #: Set by whoever opens the transport, before ``open``. A transport that can tell that packets may have been lost
    #: awaits it with the topics concerned, those that are still subscribed, once they are received again: after all
    #: that was delivered before the loss, and before anything that was published after. What it raises is logged.
    on_gap: OnGap | None = None
    #: Set likewise. Called as soon as such a loss is known to begin, and again only after all has been well: from then
    #: on ``is_healthy`` is false, and ``on_gap`` follows when packets are received again, if any topic is concerned.
    on_lost: OnLost | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether packets are published and received, as far as is known without asking. Takes no time."""
        return True

    @property
    def counters(self) -> Mapping[str, int]:
        """What is counted since the transport was made, for metrics, by names of its own. None goes down."""
        return {}

    @abstractmethod
    async def open(self, deliver: Deliver) -> None:
        """Connect. Called before anything else, and again after ``close`` to start anew, in another event loop too."""

    async def open_for_publishing(self) -> None:
        """Connect to publish and nothing else: no call of ``subscribe`` follows, and ``close`` ends it as usual.

        For programs that only publish. One that can do without a connection to receive on overrides this.
        """
        await self.open(_nowhere)

    def check(self) -> None:
        """Called once the application has started. Raises ``ImproperlyConfigured`` if it has done what breaks this."""
        return None

    @abstractmethod
    async def close(self) -> None:
        """Release everything. Safe if ``open`` failed, and twice. Nothing is delivered after it."""

    @abstractmethod
    async def publish(self, topic: str, packet: bytes) -> None:
        """Hand on one packet."""

    @abstractmethod
    async def subscribe(self, topic: str) -> None:
        """Receive the topic's packets from now on. Called at most once per topic until it is unsubscribed.

        Raises :class:`~fastapi_consumers.exceptions.BrokerUnavailable` if that is not possible; then, or if it is
        cancelled, the topic is not subscribed.
        """

    @abstractmethod
    async def unsubscribe(self, topic: str) -> None:
        """Receive no more of the topic's packets. Nothing happens if it is not subscribed."""


async def _nowhere(topic: str, packet: bytes) -> None:
    return None
