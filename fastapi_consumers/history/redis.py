"""History in Redis or Valkey: one script, and so one round trip, appends an event and publishes it."""

import asyncio
import json
import logging
import secrets
from collections.abc import Collection, Mapping
from datetime import timedelta
from urllib.parse import quote

from ..exceptions import BrokerUnavailable
from ..messages import Position
from ..redis_client import RedisClient
from .base import (
    REMEMBERED_FOR,
    REMEMBERED_KEYS,
    Appended,
    Bounds,
    History,
    HistoryStore,
    Slice,
    Stored,
    check_idempotency_key,
    seconds_of,
)
from .scripts import APPEND, POSITION, POSITIONS, PROBE, READ, SAVE

logger = logging.getLogger(__name__)

#: Seconds after which a stream that nobody has used is forgotten: 30 days.
UNUSED = 30 * 86400.0
#: Groups in one round trip.
GROUPS_PER_SCRIPT = 500


class RedisHistoryStore(HistoryStore):
    """Keeps the streams in Redis (6.2 or newer) or Valkey, on a server or a cluster that all processes share.

    Publishing and appending are one step: a packet that arrives can be read already, and packets arrive in the order of
    their offsets. Not so in a cluster, where a channel and a stream may be on different nodes: there ``publishes`` is
    false. ``at`` is the server's time.

    Nothing stays for ever. Events without a ttl are gone when their group was not used for ``unused``: nobody appended,
    read, or asked for its position. So is the epoch, but if the ttl is longer, no sooner than that. What the server
    evicts or loses shows as a gap, or as another epoch.

    Args:
        url: see :mod:`fastapi_consumers.redis_client`; or a client that is shared with others.
        prefix: what keys' names begin with; by default the URL's.
        timeout: seconds that each call may take, where ``url`` is no client.
        unused: in seconds, or as a ``timedelta``.
    """

    is_distributed = True

    def __init__(
        self,
        url: str | RedisClient,
        *,
        prefix: str | None = None,
        timeout: float = 1.0,
        unused: float | timedelta = UNUSED,
    ) -> None:
        self.client = url if isinstance(url, RedisClient) else RedisClient(url, timeout=timeout)
        self._prefix = (prefix if prefix is not None else self.client.prefix) + "history:"
        self._unused = _microseconds(seconds_of(unused, "unused"))

    def __repr__(self) -> str:
        return f"RedisHistoryStore({self.client.url!r})"

    @property
    def publishes(self) -> bool:  # type: ignore[override]  # known once the client is
        return not self.client.is_sharded

    async def open(self) -> None:
        """Raises ``ImproperlyConfigured`` if the server refuses us or is too old, ``BrokerUnavailable`` if it does not
        answer; the notes of the latter tell what was tried.
        """
        await self.client.open()
        try:
            await self.client.run_script(PROBE, [self._prefix + "probe"])
        except BrokerUnavailable as error:
            if error.__cause__ is None:
                raise
            raise self.client.startup_error(error.__cause__) from error.__cause__

    async def close(self) -> None:
        await self.client.close()

    async def append(
        self,
        group: str,
        packet: bytes,
        history: History,
        *,
        idempotency_key: str | None = None,
        channel: bytes | None = None,
    ) -> Appended:
        epoch, offset, is_new = await self.client.run_script(
            APPEND,
            self._keys(group),
            [
                packet,
                history.size,
                _microseconds(history.seconds),
                _new_epoch(),
                self._unused,
                "" if idempotency_key is None else check_idempotency_key(idempotency_key),
                _microseconds(REMEMBERED_FOR),
                REMEMBERED_KEYS,
                b"" if channel is None else channel,
            ],
        )
        return Appended(Position(epoch.decode(), offset), bool(is_new))

    async def position(self, group: str, history: History) -> Position:
        args = [history.size, _microseconds(history.seconds), _new_epoch(), self._unused]
        epoch, offset = await self.client.run_script(POSITION, self._keys(group), args)
        return Position(epoch.decode(), offset)

    async def positions(self, groups: Collection[str]) -> Mapping[str, Position]:
        names = list(groups)
        found: dict[str, Position] = {}
        for start in range(0, len(names), GROUPS_PER_SCRIPT):
            chunk = names[start : start + GROUPS_PER_SCRIPT]
            # The keys of one script share a slot.
            scripts = [[group] for group in chunk] if self.client.is_sharded else [chunk]
            for answers in await asyncio.gather(*map(self._positions, scripts)):
                found.update(answers)
        return found

    async def _positions(self, groups: list[str]) -> dict[str, Position]:
        keys = [key for group in groups for key in self._keys(group)[:2]]
        answer = await self.client.run_script(POSITIONS, keys, [self._unused])
        answers = zip(groups, answer[::2], answer[1::2], strict=True)
        return {group: Position(epoch.decode(), offset) for group, epoch, offset in answers if epoch is not None}

    async def read_within(self, group: str, bounds: Bounds) -> Slice:
        args = [bounds.after, bounds.before, bounds.limit, int(bounds.newest_first), self._unused]
        epoch, top, entries = await self.client.run_script(READ, self._keys(group)[:2], args)
        return Slice(epoch.decode(), top, [_stored(entry_id, packet) for entry_id, (_, packet) in entries])

    async def remove(self, group: str) -> None:
        await self.client.execute("UNLINK", *self._keys(group))

    async def save_templates(self, templates: Mapping[str, History]) -> None:
        if not templates:
            return
        texts = {name: json.dumps([history.size, history.seconds]) for name, history in templates.items()}
        args = [part for pair in texts.items() for part in pair]
        before = await self.client.run_script(SAVE, [self._templates_key], args)
        for (name, text), old in zip(texts.items(), before, strict=True):
            if old and old.decode() != text:
                logger.warning("the history of %r is %r from now on; it was %s", name, templates[name], old.decode())

    async def load_templates(self) -> Mapping[str, History]:
        answer: list[bytes] | dict[bytes, bytes] = await self.client.execute("HGETALL", self._templates_key)
        pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
        found = {}
        for name, text in pairs:
            try:
                size, seconds = json.loads(text)
                found[name.decode()] = History(size, seconds)
            except (TypeError, ValueError):
                logger.warning("skipped the settings of %r, which cannot be read: %r", name, text)
        return found

    @property
    def _templates_key(self) -> str:
        return self._prefix + "templates"

    def _keys(self, group: str) -> list[str]:
        # Encoded, since the hash tag ends at the first brace.
        stem = f"{self._prefix}{{{quote(group, safe='')}}}:"
        return [stem + "meta", stem + "events", stem + "keys", stem + "times"]


def _new_epoch() -> str:
    return secrets.token_urlsafe(6)


def _microseconds(seconds: float | None) -> int:
    return 0 if seconds is None else max(int(seconds * 1_000_000), 1)


def _stored(entry_id: bytes, packet: bytes) -> Stored:
    offset, _, microseconds = entry_id.partition(b"-")
    return Stored(int(offset), packet, int(microseconds) / 1_000_000)
