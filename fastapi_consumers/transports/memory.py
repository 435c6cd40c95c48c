"""The transport of one process: a publish is a call."""

from .base import Deliver, Transport


class MemoryTransport(Transport):
    """Delivers within the process, before ``publish`` returns. No server, nothing to lose, nothing shared."""

    def __init__(self) -> None:
        # What is derived from it may want to see every packet.
        self.is_direct = type(self) is MemoryTransport
        self._deliver: Deliver | None = None
        self._topics: set[str] = set()

    async def open(self, deliver: Deliver) -> None:
        self._deliver = deliver

    async def close(self) -> None:
        self._deliver = None
        self._topics.clear()

    async def publish(self, topic: str, packet: bytes) -> None:
        if self._deliver is not None and topic in self._topics:
            await self._deliver(topic, packet)

    async def subscribe(self, topic: str) -> None:
        self._topics.add(topic)

    async def unsubscribe(self, topic: str) -> None:
        self._topics.discard(topic)
