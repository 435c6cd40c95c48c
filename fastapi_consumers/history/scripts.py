"""The Lua scripts of history in Redis or Valkey. A script runs alone: nobody sees a half of what it does.

A group has four keys, which share a hash tag and so a slot of a cluster:

- ``…:meta``, a hash: ``epoch``; ``top``, the newest offset; ``at``, its time; ``size`` and ``ttl``, the settings;
- ``…:events``, a stream: the entry ``<offset>-<time>`` has the field ``p``, the packet. With the offset first an entry
  is found by its offset, and its time is there for trimming;
- ``…:keys``, a hash: idempotency key → ``<offset>-<time>``; and ``…:times``, a sorted set: the same keys by time.

Times are the server's, in microseconds since 1970, and do not fall; durations are microseconds too, a ``ttl`` of 0 is
none. Only the ``meta`` key says that there is a stream: whatever else is found without it is of an earlier one.
"""

_COMMON = """
local function text(number) return string.format('%.0f', number) end

local function server_time()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end

local function time_of(entry) return tonumber(string.match(entry[1], '-(%d+)$')) end

local function expire(key, microseconds) redis.call('PEXPIRE', key, text(math.ceil(microseconds / 1000))) end

-- Somebody uses the stream. Where events have a ttl, theirs goes on.
local function touch(meta, events, ttl, unused)
  expire(meta, math.max(ttl, unused))
  if ttl == 0 then expire(events, unused) end
end

-- Drops the events from before `oldest`. Offsets have no holes, so that the first to stay is found by halving.
local function drop(events, top, oldest)
  local first = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
  if not first or time_of(first) >= oldest then return end
  local low, high = tonumber(string.match(first[1], '^(%d+)')), top + 1
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('XRANGE', events, text(middle), '+', 'COUNT', 1)[1]
    if entry and time_of(entry) < oldest then low = middle else high = middle end
  end
  redis.call('XTRIM', events, 'MINID', text(high))
end
"""

#: KEYS: meta, events, keys, times. ARGV: packet, size, ttl, an epoch for a new stream, how long unused keys live,
#: idempotency key or "", how long and how many of these are remembered, channel or "". Returns epoch, offset, is_new.
APPEND = (
    _COMMON
    + """
local size, ttl, key, now = ARGV[2], tonumber(ARGV[3]), ARGV[6], server_time()
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'top', 'at')
local epoch, top = meta[1], tonumber(meta[2] or 0)
if epoch then
  now = math.max(now, tonumber(meta[3]))
else
  epoch = ARGV[4]
  redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
end
local forgotten = now - tonumber(ARGV[7])
if key ~= '' then
  local known = redis.call('HGET', KEYS[3], key)
  if known and time_of({known}) >= forgotten then return {epoch, tonumber(string.match(known, '^(%d+)')), 0} end
end
top = top + 1
local offset = text(top)
local id = offset .. '-' .. text(now)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', size, id, 'p', ARGV[1])
if ttl > 0 then drop(KEYS[2], top, now - ttl) end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'top', offset, 'at', text(now), 'size', size, 'ttl', ARGV[3])
touch(KEYS[1], KEYS[2], ttl, tonumber(ARGV[5]))
if ttl > 0 then expire(KEYS[2], ttl) end
if key ~= '' then
  redis.call('HSET', KEYS[3], key, id)
  redis.call('ZADD', KEYS[4], text(now), key)
  local old = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', '(' .. text(forgotten), 'LIMIT', 0, 100)
  if #old == 0 and redis.call('ZCARD', KEYS[4]) > tonumber(ARGV[8]) then
    old = redis.call('ZRANGE', KEYS[4], 0, 0)
  end
  if #old > 0 then
    redis.call('ZREM', KEYS[4], unpack(old))
    redis.call('HDEL', KEYS[3], unpack(old))
  end
  expire(KEYS[3], ARGV[7])
  expire(KEYS[4], ARGV[7])
end
if ARGV[9] ~= '' then
  redis.call('PUBLISH', ARGV[9], '@' .. epoch .. ':' .. offset .. '\\n' .. ARGV[1])
end
return {epoch, top, 1}
"""
)

#: KEYS: meta, events, keys, times. ARGV: size, ttl, an epoch for a new stream, how long unused keys live.
#: Returns epoch, offset.
POSITION = (
    _COMMON
    + """
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'top', 'size', 'ttl')
local epoch, top, ttl = meta[1], tonumber(meta[2] or 0), tonumber(ARGV[2])
if not epoch then
  epoch = ARGV[3]
  redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'top', 0, 'at', text(server_time()), 'size', ARGV[1], 'ttl', ARGV[2])
elseif meta[3] ~= ARGV[1] or meta[4] ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'size', ARGV[1], 'ttl', ARGV[2])
  if ttl > 0 then expire(KEYS[2], ttl) end
end
touch(KEYS[1], KEYS[2], ttl, tonumber(ARGV[4]))
return {epoch, top}
"""
)

#: KEYS: meta and events of each group. ARGV: how long unused keys live. Returns epoch (or nil), offset of each.
POSITIONS = (
    _COMMON
    + """
local found = {}
for index = 1, #KEYS, 2 do
  local meta = redis.call('HMGET', KEYS[index], 'epoch', 'top', 'ttl')
  found[index], found[index + 1] = meta[1], tonumber(meta[2] or 0)
  if meta[1] then touch(KEYS[index], KEYS[index + 1], tonumber(meta[3]), tonumber(ARGV[1])) end
end
return found
"""
)

#: KEYS: meta, events. ARGV: after, before, limit, "1" for newest first, how long unused keys live.
#: Returns epoch ("" if there is no stream), top, entries.
READ = (
    _COMMON
    + """
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'top', 'at', 'size', 'ttl')
if not meta[1] then return {'', 0, {}} end
local top, ttl = tonumber(meta[2]), tonumber(meta[5])
if ttl > 0 then drop(KEYS[2], top, math.max(server_time(), tonumber(meta[3])) - ttl) end
touch(KEYS[1], KEYS[2], ttl, tonumber(ARGV[5]))
local low, high = math.max(ARGV[1] + 1, top - meta[4] + 1, 1), math.min(ARGV[2] - 1, top)
local entries = {}
if low <= high then
  if ARGV[4] == '1' then
    entries = redis.call('XREVRANGE', KEYS[2], text(high), text(low), 'COUNT', ARGV[3])
  else
    entries = redis.call('XRANGE', KEYS[2], text(low), text(high), 'COUNT', ARGV[3])
  end
end
return {meta[1], top, entries}
"""
)

#: KEYS: a hash. ARGV: field, value, … Sets them, and returns the values of before.
SAVE = """
local before = {}
for index = 1, #ARGV, 2 do
  before[#before + 1] = redis.call('HGET', KEYS[1], ARGV[index]) or ''
  redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1])
end
return before
"""

#: KEYS: one that does not exist. For the startup: whether the server knows what the others need, and allows it.
PROBE = """
redis.call('TIME')
return redis.call('XTRIM', KEYS[1], 'MINID', '1')
"""
