"""Looking on at what a group is told, without being one of its connections."""

import time
from collections.abc import Callable
from typing import Any

from ..addressing import GROUP
from ..backlog import Droppable
from ..codecs import encode_json
from ..fanning import Member
from ..groups import check_group
from ..hub import Hub
from ..messages import Frame
from ..protocols import JSON_FRAMER

#: Messages a second that are shown; the others are counted. And characters of one that are shown.
MAX_RATE, MAX_SHOWN = 20, 1000


class Watch:
    """One group that somebody watches.

    It counts for nothing: not as a connection, not for presence, not against ``max_connections``. What closes the
    group's sockets does not close it.

    Args:
        tell: called with what is shown: ``kind`` (``text``, ``bytes``, ``message`` or ``close``), ``text``, ``size`` in
            bytes, ``at`` in seconds since 1970.
    """

    def __init__(
        self, hub: Hub, group: str, tell: Callable[[dict[str, Any]], None], now: Callable[[], float] = time.time
    ) -> None:
        self.group = check_group(group)
        self._hub = hub
        self._tell = tell
        self._now = now
        self._second, self._told = 0, 0
        self._skipped = 0
        self._member = Member(hub.new_channel(), self._push, self._message, self._close, 1)
        self._member.framer, self._member.is_onlooker = JSON_FRAMER, True

    async def open(self) -> None:
        """Raises what subscribing raises."""
        await self._hub.join(GROUP + self.group, self._member)

    async def close(self) -> None:
        await self._hub.leave_all(self._member)
        self._member.detach()

    def skipped(self) -> int:
        """How many were not shown since this was asked last."""
        skipped, self._skipped = self._skipped, 0
        return skipped

    def _push(self, frame: Frame, droppable: Droppable | None) -> None:
        if frame.is_text:
            self._show("text", frame.payload)
        else:
            self._show("bytes", frame.payload, frame.payload[: MAX_SHOWN // 4].hex(" "))

    def _message(self, message: dict[str, Any]) -> None:
        self._show("message", encode_json(message))

    def _close(self, code: int, reason: str) -> None:
        self._show("close", encode_json({"code": code, "reason": reason}))

    def _show(self, kind: str, payload: bytes, text: str | None = None) -> None:
        now = self._now()
        if int(now) != self._second:
            self._second, self._told = int(now), 0
        if self._told >= MAX_RATE:
            self._skipped += 1
            return
        self._told += 1
        if text is None:
            text = payload[: 4 * MAX_SHOWN].decode(errors="replace")[:MAX_SHOWN]
        self._tell({"group": self.group, "kind": kind, "text": text, "size": len(payload), "at": round(now, 3)})
