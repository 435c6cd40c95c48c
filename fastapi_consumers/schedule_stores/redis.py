"""Schedules in Redis or Valkey, for all processes that have the same server.

All keys share one ``{hash tag}``, so that a cluster keeps them on one node:

- ``names``, a set: the schedules;
- ``s:NAME``, a hash: definition, pause, baseline, counts, the last run;
- ``u:NAME:GROUP``, a hash: a unit, see ``deciding``; a group's expires by itself;
- ``r:NAME``, a sorted set: what is running, by when its lease runs out.

Leases are milliseconds of the server's clock.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from ..exceptions import BrokerUnavailable
from ..redis_client import RedisClient
from .base import ATTEMPTS, Answer, Claim, Definition, Held, Kept, Result, Running, ScheduleStore
from .scripts import CLAIM, FINISH, LOAD, MISSED, PAUSE, RENEW, SAVE


class RedisScheduleStore(ScheduleStore):
    """Keeps schedules on one Redis or Valkey server, or on one node of a cluster.

    They survive it if it is told to save its data: a server that lost its data has no schedules that were created at
    run time, and nothing is paused.

    Args:
        url: see :mod:`fastapi_consumers.redis_client`; or a client that is shared with others.
        timeout: seconds that each call may take, where ``url`` is no client.
        clock: seconds since 1970, the same for all processes; by default the server's own time.
    """

    is_distributed = True

    def __init__(
        self, url: str | RedisClient, *, timeout: float = 1.0, clock: Callable[[], float] | None = None
    ) -> None:
        self.client = url if isinstance(url, RedisClient) else RedisClient(url, timeout=timeout)
        self._clock = clock
        self._is_open = False
        self._prefix = f"{self.client.prefix}{{schedules}}:"

    def __repr__(self) -> str:
        return f"RedisScheduleStore({self.client.url!r})"

    async def open(self) -> None:
        """Connect, once. Raises as ``RedisClient.check`` does if the server does not answer, or runs no scripts."""
        await self.close()
        await self.client.open()
        self._is_open = True
        try:
            await self._script(RENEW, [], [1])
        except BrokerUnavailable as error:
            raise self.client.startup_error(error.__cause__ or error) from error

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            await self.client.close()

    async def save(self, definition: Definition, now: int, *, replace: bool = True) -> bool:
        # Named first: one that is named and not there is nothing, one that is there and not named would be hidden.
        await self.client.execute("SADD", self._names, definition.name)
        fields = {**definition._asdict(), "timing": None, "data": json.loads(definition.data)}
        args = [json.dumps(fields), definition.timing, now, int(replace)]
        return bool(await self._script(SAVE, [self._schedule(definition.name)], args))

    async def load(self, name: str | None = None) -> list[Kept]:
        names = (
            [name]
            if name is not None
            else sorted(map(bytes.decode, await self.client.execute("SMEMBERS", self._names)))
        )
        found = [await self._load(each) for each in names]
        return [kept for kept in found if kept is not None]

    async def _load(self, name: str) -> Kept | None:
        keys = [self._schedule(name), self._running(name), self._unit(name, "")]
        answer, running, unfinished, left = await self._script(LOAD, keys)
        fields = _pairs(answer)
        if "definition" not in fields:
            return None
        definition = json.loads(fields["definition"])
        definition = {**definition, "timing": fields["timing"], "data": json.dumps(definition["data"]).encode()}
        runs = [json.loads(member) for member in running]
        counts = {count: int(fields.get(count, 0)) for count in ("runs", "errors", "missed", "lost", "last_run")}
        texts = {text: fields.get(text, b"").decode() for text in ("last_outcome", "last_error", "last_process")}
        known: dict[str, Any] = {**counts, **texts}
        return Kept(
            Definition(**definition),
            paused=fields.get("paused") == b"1",
            baseline=int(fields["baseline"]),
            last_seconds=int(fields.get("last_ms", 0)) / 1000,
            running=tuple(Running(group, process, int(since)) for group, process, since in runs),
            unfinished=int(unfinished),
            left=int(left) / 1000,
            **known,
        )

    async def delete(self, name: str) -> bool:
        keys = (self._schedule(name), self._running(name), self._unit(name, ""))
        gone = await self.client.execute("DEL", *keys)
        await self.client.execute("SREM", self._names, name)
        return bool(gone)

    async def set_paused(self, name: str, paused: bool, now: int) -> bool:
        return bool(await self._script(PAUSE, [self._schedule(name)], [int(paused), now]))

    async def add_missed(self, name: str, count: int) -> None:
        await self.client.run_script(MISSED, [self._schedule(name)], [count])

    async def claim(self, claim: Claim, groups: Sequence[str]) -> list[Answer]:
        keys = [self._schedule(claim.name), self._running(claim.name)]
        keys += [self._unit(claim.name, group) for group in groups]
        args: list[Any] = [claim.tick, claim.process, claim.token, _ms(claim.lease), _ms(claim.keep)]
        args += [int(claim.only_lost), int(claim.take_over), claim.manual, ATTEMPTS, *groups]
        found = await self._script(CLAIM, keys, args)
        return [
            Answer(found[i].decode(), int(found[i + 1]), int(found[i + 2]), int(found[i + 3]) / 1000)
            for i in range(0, len(found), 4)
        ]

    async def renew(self, held: Sequence[Held], lease: float) -> list[bool]:
        keys = [key for name, group, _ in held for key in (self._unit(name, group), self._running(name))]
        return [bool(found) for found in await self._script(RENEW, keys, [_ms(lease), *(each.token for each in held)])]

    async def finish(self, held: Held, result: Result) -> bool:
        keys = [self._schedule(held.name), self._running(held.name), self._unit(held.name, held.group)]
        is_failure = result.outcome in ("error", "timeout")
        args = [held.token, result.outcome, result.error, round(result.seconds * 1000), int(is_failure)]
        return bool(await self._script(FINISH, keys, [*args, int(result.give_back)]))

    async def _script(self, script: str, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
        now = "" if self._clock is None else int(self._clock() * 1000)
        return await self.client.run_script(script, keys, [now, *args])

    @property
    def _names(self) -> str:
        return self._prefix + "names"

    def _schedule(self, name: str) -> str:
        return f"{self._prefix}s:{quote(name, safe='')}"

    def _running(self, name: str) -> str:
        return f"{self._prefix}r:{quote(name, safe='')}"

    def _unit(self, name: str, group: str) -> str:
        return f"{self._prefix}u:{quote(name, safe='')}:{group}"


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _pairs(answer: list[bytes] | dict[bytes, bytes]) -> dict[str, bytes]:
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    return {name.decode(): value for name, value in pairs}
