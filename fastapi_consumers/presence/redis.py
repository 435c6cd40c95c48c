"""Presence in Redis or Valkey, for all processes that have the same server.

A group has five keys, of which all share the group's ``{hash tag}``, so that a cluster keeps them together:

- ``e``, a hash: channel to ``[process, key, info, ref]``, packed; the process is empty while the connection is away;
- ``k``, a hash: key to ``[number of connections, channels that are away …]``, packed;
- ``a``, a sorted set: channels that are away, by when they will have left;
- ``p``, a sorted set: processes, by when their lease runs out;
- ``s``, a hash: channel to process, for the seats.

Times are milliseconds of the server's clock, so that no two machines need to agree. Every key expires by itself.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..exceptions import BrokerUnavailable
from ..redis_client import NOW, RedisClient
from .base import Change, Outcome, PresenceStore, Present, Roster

#: Connections as one string, since a client takes long to read many: for each of them the sizes of ref, key and info,
#: with a space after each, and then these.
_PACK = """
local function pack(into, ref, key, info)
  into[#into + 1] = #ref .. ' ' .. #key .. ' ' .. #info .. ' ' .. ref .. key .. info
end
"""

#: ARGV: now or '', process, lease, grace, done, seat, limit, then four lists, each with the number of its elements
#: before it: leave, enter (channel, key, info), free, reseat.
_UPDATE = (
    NOW
    + _PACK
    + """
local entries, keys, away, procs, seats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local process, lease, grace = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local joins, leaves = {}, {}

local position = 7
local function list()
  local count, first = tonumber(ARGV[position + 1]), position + 2
  position = position + 1 + count
  return first, position
end

local function entry_of(channel)
  local packed = redis.call('HGET', entries, channel)
  return packed and cmsgpack.unpack(packed)
end
local function keep(channel, entry) redis.call('HSET', entries, channel, cmsgpack.pack(entry)) end
local function tally_of(key)
  local packed = redis.call('HGET', keys, key)
  return packed and cmsgpack.unpack(packed) or {0}
end
local function keep_tally(key, tally)
  if tally[1] > 0 then
    redis.call('HSET', keys, key, cmsgpack.pack(tally))
  else
    redis.call('HDEL', keys, key)
  end
end
local function come_back(channel, tally)
  redis.call('ZREM', away, channel)
  for i = 2, #tally do
    if tally[i] == channel then return table.remove(tally, i) end
  end
end
local function remove(channel, entry)
  redis.call('HDEL', entries, channel)
  local tally = tally_of(entry[2])
  tally[1] = tally[1] - 1
  if entry[1] == '' then come_back(channel, tally) end
  keep_tally(entry[2], tally)
  pack(leaves, entry[4], entry[2], entry[3])
end

local known = redis.call('ZSCORE', procs, process) and 1 or 0
redis.call('ZADD', procs, whole(now + lease), process)

local dead = redis.call('ZRANGEBYSCORE', procs, '-inf', whole(now))
if #dead > 0 then
  local is_dead = {}
  for _, name in ipairs(dead) do is_dead[name] = true end
  redis.call('ZREMRANGEBYSCORE', procs, '-inf', whole(now))
  local all = redis.call('HGETALL', entries)
  for i = 1, #all, 2 do
    local entry = cmsgpack.unpack(all[i + 1])
    if is_dead[entry[1]] then remove(all[i], entry) end
  end
  all = redis.call('HGETALL', seats)
  for i = 1, #all, 2 do
    if is_dead[all[i + 1]] then redis.call('HDEL', seats, all[i]) end
  end
end
for _, channel in ipairs(redis.call('ZRANGEBYSCORE', away, '-inf', whole(now))) do
  local entry = entry_of(channel)
  if entry then remove(channel, entry) else redis.call('ZREM', away, channel) end
end

local first, last = list()
for i = first, last do
  local channel, entry = ARGV[i], entry_of(ARGV[i])
  if entry and grace <= 0 then
    remove(channel, entry)
  elseif entry and entry[1] ~= '' then
    entry[1] = ''
    keep(channel, entry)
    redis.call('ZADD', away, whole(now + grace), channel)
    local tally = tally_of(entry[2])
    tally[#tally + 1] = channel
    keep_tally(entry[2], tally)
  end
end

first, last = list()
for i = first, last, 3 do
  local channel, key, info = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local entry = entry_of(channel)
  if entry and entry[2] ~= key then
    remove(channel, entry)
    entry = nil
  end
  local tally = tally_of(key)
  local former = entry and channel or tally[2]
  local ref = channel
  if former then
    entry = entry or entry_of(former)
    ref = entry[4]
    if entry[1] == '' then come_back(former, tally) end
    if former ~= channel then redis.call('HDEL', entries, former) end
  else
    tally[1] = tally[1] + 1
    pack(joins, ref, key, info)
  end
  keep_tally(key, tally)
  keep(channel, {process, key, info, ref})
end

first, last = list()
for i = first, last do redis.call('HDEL', seats, ARGV[i]) end
first, last = list()
for i = first, last do redis.call('HSET', seats, ARGV[i], process) end
local seat, seated = ARGV[6], 1
if seat ~= '' then
  if redis.call('HEXISTS', seats, seat) == 1 or redis.call('HLEN', seats) < tonumber(ARGV[7]) then
    redis.call('HSET', seats, seat, process)
  else
    seated = 0
  end
end

if ARGV[5] == '1' or (seated == 0 and known == 0) then redis.call('ZREM', procs, process) end

local longest = 2 * lease + grace
for _, key in ipairs(KEYS) do
  local left = redis.call('PTTL', key)
  if left ~= -2 and left < longest then redis.call('PEXPIRE', key, whole(longest)) end
end
return {known, seated, redis.call('HLEN', keys), table.concat(joins), table.concat(leaves)}
"""
)

#: KEYS: e, k, p. ARGV: now or '', whether to count only.
_READ = (
    NOW
    + _PACK
    + """
local is_dead, any = {}, false
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', whole(now))) do is_dead[name], any = true, true end
if ARGV[2] == '1' and not any then return {redis.call('HLEN', KEYS[2]), ''} end
local members, seen, count = {}, {}, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local entry = cmsgpack.unpack(all[i + 1])
  if not is_dead[entry[1]] then
    if not seen[entry[2]] then seen[entry[2]], count = true, count + 1 end
    if ARGV[2] ~= '1' then pack(members, entry[4], entry[2], entry[3]) end
  end
end
return {count, table.concat(members)}
"""
)

#: KEYS: the process's own counts, the processes. ARGV: now or '', process, lease, then group, count …
_WRITE_COUNTS = (
    NOW
    + """
local known = redis.call('EXISTS', KEYS[1])
local own = KEYS[1]
-- By the time that readers go by: the key itself may outlast it by a moment.
local lease = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not lease or tonumber(lease) <= now then
  redis.call('DEL', own)
  known = 0
end
-- Without a count it exists too: its lease is what it says.
redis.call('HSET', own, '', '0')
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '0' then
    redis.call('HDEL', own, ARGV[i])
  else
    redis.call('HSET', own, ARGV[i], ARGV[i + 1])
  end
end
redis.call('PEXPIRE', own, ARGV[3])
redis.call('ZADD', KEYS[2], whole(now + ARGV[3]), ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', whole(now))
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return known
"""
)

#: KEYS: the processes. ARGV: now or '', group, the process to leave out, what keys of counts begin with. Which keys
#: there are is not known before; but they all share the first one's slot.
_READ_COUNT = (
    NOW
    + """
local count = 0
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. whole(now), '+inf')) do
  if name ~= ARGV[3] then count = count + (redis.call('HGET', ARGV[4] .. name, ARGV[2]) or 0) end
end
return count
"""
)


class RedisPresenceStore(PresenceStore):
    """Keeps presence, seats and counts on one Redis or Valkey server.

    Args:
        url: see :mod:`fastapi_consumers.redis_client`; or a client that is shared with others.
        clock: seconds since some moment, the same for all processes; by default the server's own time.
    """

    is_distributed = True

    def __init__(self, url: str | RedisClient, *, clock: Callable[[], float] | None = None) -> None:
        self.client = url if isinstance(url, RedisClient) else RedisClient(url)
        self._clock = clock
        self._is_open = False

    def __repr__(self) -> str:
        return f"RedisPresenceStore({self.client.url!r})"

    async def open(self) -> None:
        """Connect, once. Raises as ``RedisClient.check`` does if the server does not answer, or runs no scripts."""
        await self.close()
        await self.client.open()
        self._is_open = True
        try:
            await self.client.run_script(_READ, self._keys("", "ekp"), ("", 1))
        except BrokerUnavailable as error:
            raise self.client.startup_error(error.__cause__ or error) from error

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            await self.client.close()

    async def update(self, group: str, process: str, change: Change, *, lease: float, grace: float) -> Outcome:
        args: list[Any] = [self._now(), process, _ms(lease), int(grace * 1000), int(change.done), change.seat or ""]
        args.append(change.limit)
        args += [len(change.leave), *change.leave]
        args.append(3 * len(change.enter))
        for entry in change.enter:
            args += entry
        for channels in (change.free, change.reseat):
            args += [len(channels), *channels]
        known, seated, count, joins, leaves = await self.client.run_script(_UPDATE, self._keys(group, "ekaps"), args)
        return Outcome(_presents(joins), _presents(leaves), count, bool(known), bool(seated))

    async def read(self, group: str, *, count_only: bool = False) -> Roster:
        args = (self._now(), int(count_only))
        count, members = await self.client.run_script(_READ, self._keys(group, "ekp"), args)
        return Roster(count, _presents(members))

    async def write_counts(self, process: str, counts: Mapping[str, int], *, lease: float) -> bool:
        args: list[Any] = [self._now(), process, _ms(lease)]
        for group, count in counts.items():
            args += [group, count]
        keys = [f"{self._counts}{process}", f"{self._counts}!"]
        return bool(await self.client.run_script(_WRITE_COUNTS, keys, args))

    async def read_count(self, group: str, *, without: str) -> int:
        args = [self._now(), group, without, self._counts]
        found: int = await self.client.run_script(_READ_COUNT, [f"{self._counts}!"], args)
        return found

    async def forget_counts(self, process: str) -> None:
        await self.client.execute("DEL", f"{self._counts}{process}")
        await self.client.execute("ZREM", f"{self._counts}!", process)

    def _now(self) -> int | str:
        return "" if self._clock is None else int(self._clock() * 1000)

    def _keys(self, group: str, names: str) -> list[str]:
        # A hash tag ends at the first closing brace, and one that is empty is none.
        tag = "g." + group.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
        return [f"{self.client.prefix}presence:{{{tag}}}:{name}" for name in names]

    @property
    def _counts(self) -> str:
        return f"{self.client.prefix}{{counts}}:"


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _presents(packed: bytes) -> list[Present]:
    presents: list[Present] = []
    position = 0
    while position < len(packed):
        *sizes, _ = packed[position : position + 32].split(b" ", 3)
        ref_size, key_size, info_size = map(int, sizes)
        ref = position + sum(map(len, sizes)) + len(sizes)
        key = ref + ref_size
        info = key + key_size
        position = info + info_size
        presents.append(Present(packed[ref:key].decode(), packed[key:info].decode(), packed[info:position]))
    return presents
