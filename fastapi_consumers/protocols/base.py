"""What turns frames into messages and messages into frames. The only place where an envelope is built or parsed."""

from abc import ABC, abstractmethod
from typing import Any

from ..actions import ANYTHING, Returns
from ..messages import Event, Frame, Notice, Reply, Request
from ..types import RequestId


class Reader(ABC):
    """Frames to requests, for one class of consumer. It never raises for what a client sends.

    What cannot be read comes back as a request with an ``error``: an ``InvalidFrame`` if it was no request at all.
    """

    #: Whether requests come as text frames or as binary ones; a frame of the other kind closes with 1003.
    takes_text: bool = True

    @abstractmethod
    def read(self, frame: str | bytes) -> Request:
        """The request in one text or binary frame."""

    @abstractmethod
    def read_content(self, content: Any) -> Request:
        """The request in an already decoded frame."""


class Framer(ABC):
    """Messages to frames. Members that share a framer are sent the very same frame.

    A framer may raise what its serializer raises for data that cannot be serialised.
    """

    @abstractmethod
    def reply(self, reply: Reply, returns: Returns = ANYTHING) -> Frame:
        """The frame of a reply; ``returns`` serialises its data."""

    def ok(self, action: str, request_id: RequestId | None, data: Any, returns: Returns) -> Frame:
        """The frame of the reply to a request that went well. ``action`` is the name of an action that exists."""
        return self.reply(Reply(action, request_id, "ok", data), returns)

    @abstractmethod
    def event(self, event: Event) -> Frame:
        """The frame of an event."""

    @abstractmethod
    def notice(self, notice: Notice) -> Frame:
        """The frame of a notice."""
