"""Old events as frames, for members that come back and have missed them. Owned by the streams of a process.

Many come back at once, after a restart or when a network was gone, and have missed much the same: each frame is made
once for all who have the same framer, and kept for a while.
"""

import logging
from collections.abc import Mapping, Sequence

from .fanning import Member, delivery_of, gap_frame
from .history import Stored
from .messages import Event, Frame
from .packets import BadPacket, decode_packet
from .protocols import Framer
from .redaction import without_input
from .stream import Stream

logger = logging.getLogger(__name__)

#: Bytes of frames that are kept, of all streams together.
MAX_FRAME_BYTES = 16 << 20


class Replaying:
    """Makes them.

    Args:
        streams: those of the process, each of which keeps its own frames until it begins anew.
    """

    __slots__ = ("_streams", "kept")

    def __init__(self, streams: Mapping[str, Stream]) -> None:
        self._streams = streams
        #: Bytes of what is kept.
        self.kept = 0

    def frames_for(self, member: Member, stream: Stream, framer: Framer, entries: Sequence[Stored]) -> list[Frame]:
        """Old events for a member, without those that it is not to have."""
        frames: list[Frame] = []
        for entry in entries:
            excluded, frame = self._frame_of(stream, framer, entry)
            if excluded != member.channel and (member.permits is None or _is_for(member, stream, entry)):
                frames.append(frame)
        return frames

    def forget(self) -> None:
        """Keep none of them any longer."""
        for stream in self._streams.values():
            stream.frames.clear()
        self.kept = 0

    def _frame_of(self, stream: Stream, framer: Framer, entry: Stored) -> tuple[str | None, Frame]:
        """The channel that does not get it, and the frame."""
        key = framer, entry.offset
        found = stream.frames.get(key)
        if found is None:
            try:
                packet = decode_packet(entry.packet)
                found = packet.exclude, framer.event(Event(packet.name, packet.data, stream.group, entry.offset))
            except Exception as error:
                why, extra = "event %d of %r in the store cannot be read: %r", {"group": stream.group}
                logger.warning(why, entry.offset, stream.group, error, extra=extra)
                return None, gap_frame(framer, stream.group)
            self.kept += found[1].size
            if self.kept > MAX_FRAME_BYTES:
                self.forget()
            stream.frames[key] = found
        return found


def _is_for(member: Member, stream: Stream, entry: Stored) -> bool:
    """Whether a member whose permissions are to be asked gets an old event."""
    assert member.permits is not None
    try:
        return member.permits(delivery_of(decode_packet(entry.packet), stream.group, entry.offset))
    except BadPacket:
        return True  # It is told that there is a gap.
    except Exception as error:
        why = "a delivery permission failed on event %d of %r: it is withheld"
        extra = {"connection": member.channel, "group": stream.group}
        logger.error(why, entry.offset, stream.group, exc_info=without_input(error), extra=extra)
        return False
