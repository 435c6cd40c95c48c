"""The scripts of schedules in Redis. Each is one step, whatever else goes on.

The rules of CLAIM are those of ``deciding``; a test asks both the same.
"""

from ..redis_client import NOW

#: KEYS: schedule. ARGV: now or '', definition, timing, moment, whether to replace. Returns whether it is kept.
SAVE = (
    NOW
    + """
local former = redis.call('HGET', KEYS[1], 'timing')
if former and ARGV[5] == '0' then return 0 end
if former ~= ARGV[3] then redis.call('HSET', KEYS[1], 'timing', ARGV[3], 'baseline', ARGV[4]) end
redis.call('HSET', KEYS[1], 'definition', ARGV[2])
return 1
"""
)

#: KEYS: schedule. ARGV: now or '', whether to pause, moment.
PAUSE = (
    NOW
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if (redis.call('HGET', KEYS[1], 'paused') or '0') ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'paused', ARGV[2])
  if ARGV[2] == '0' then redis.call('HSET', KEYS[1], 'baseline', ARGV[3]) end
end
return 1
"""
)

#: KEYS: schedule. ARGV: count.
MISSED = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HINCRBY', KEYS[1], 'missed', ARGV[1]) end
"""

#: KEYS: schedule, its running, its single unit. ARGV: now or ''. Returns the hash, what runs, and of the single unit
#: what it has not finished and for how many milliseconds it is held.
LOAD = (
    NOW
    + """
local unit = redis.call('HMGET', KEYS[3], 'tick', 'until', 'is_manual')
local unfinished, left = '0', '0'
if unit[2] and unit[2] ~= '0' and unit[3] ~= '1' then
  unfinished = unit[1]
  left = whole(math.max(0, tonumber(unit[2]) - now))
end
local running = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. whole(now), '+inf')
return {redis.call('HGETALL', KEYS[1]), running, unfinished, left}
"""
)

#: KEYS: schedule, its running, units. ARGV: now or '', tick, process, token, lease, keep, only lost, take over, manual,
#: attempts, then the group of each unit. Returns four values for each unit.
CLAIM = (
    NOW
    + """
local tick, process, token, lease = tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local keep, only_lost, take_over, manual = tonumber(ARGV[6]), ARGV[7] == '1', ARGV[8] == '1', ARGV[9]
local schedule = redis.call('HMGET', KEYS[1], 'baseline', 'paused')
local answers = {}
local function answer(state, attempt, previous, left)
  answers[#answers + 1] = state
  answers[#answers + 1] = attempt or 0
  answers[#answers + 1] = whole(previous or 0)
  answers[#answers + 1] = whole(left or 0)
end
local baseline = tonumber(schedule[1])
local whole_answer = not baseline and 'unknown' or (schedule[2] == '1' and manual == '' and 'paused')
for i = 3, #KEYS do
  local key, group = KEYS[i], ARGV[8 + i]
  local unit = redis.call('HMGET', key, 'tick', 'until', 'token', 'process', 'attempt', 'manual', 'is_manual', 'member')
  local last, until_ = tonumber(unit[1] or 0), tonumber(unit[2] or 0)
  local attempt, is_manual = tonumber(unit[5] or 0), unit[7] == '1'
  local is_held = until_ > now
  local previous = math.max(last, baseline or 0)

  local function count_lost()
    if until_ > 1 then
      redis.call('HINCRBY', KEYS[1], 'lost', 1)
      redis.call('HSET', KEYS[1], 'last_outcome', 'lost', 'last_process', unit[4] or '')
      if unit[8] then redis.call('ZREM', KEYS[2], unit[8]) end
    end
  end
  local function grant(number)
    local member = cjson.encode({group, process, whole(now)})
    redis.call('HSET', key, 'until', whole(now + lease), 'token', token, 'process', process, 'attempt', number,
      'is_manual', manual ~= '' and '1' or '0', 'member', member)
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', whole(now - 86400000))
    redis.call('ZADD', KEYS[2], whole(now + lease), member)
    answer('granted', number, previous)
  end

  if whole_answer then
    answer(whole_answer)
  elseif is_held and unit[3] == token then
    answer('granted', attempt, last)
  elseif manual ~= '' then
    if unit[6] == manual then
      answer('done')
    elseif is_held then
      answer('running', 0, 0, until_ - now)
    else
      count_lost()
      redis.call('HSET', key, 'manual', manual)
      grant(1)
    end
  elseif tick == last and last > baseline and until_ > 0 and not is_manual then
    if is_held then
      answer('running', 0, 0, until_ - now)
    else
      count_lost()
      if take_over and attempt < tonumber(ARGV[10]) then
        grant(attempt + 1)
      else
        redis.call('HSET', key, 'until', '0')
        answer('done')
      end
    end
  elseif tick <= previous or only_lost then
    answer('done')
  elseif is_held then
    redis.call('HSET', key, 'tick', whole(tick))
    redis.call('HINCRBY', KEYS[1], 'missed', 1)
    answer('overlap', 0, 0, until_ - now)
  else
    count_lost()
    redis.call('HSET', key, 'tick', whole(tick))
    grant(1)
  end
  if group ~= '' and redis.call('EXISTS', key) == 1 then
    local least = math.max(keep, 2 * lease)
    if redis.call('PTTL', key) < least then redis.call('PEXPIRE', key, whole(least)) end
  end
end
return answers
"""
)

#: KEYS: for each unit its key and its schedule's running. ARGV: now or '', lease, then the tokens. Returns whether each
#: is held.
RENEW = (
    NOW
    + """
local held = {}
for i = 1, #KEYS, 2 do
  local unit = redis.call('HMGET', KEYS[i], 'token', 'until', 'member')
  local is_held = unit[1] == ARGV[2 + (i + 1) / 2] and unit[2] ~= '0'
  held[#held + 1] = is_held and 1 or 0
  if is_held then
    local ends = whole(now + ARGV[2])
    redis.call('HSET', KEYS[i], 'until', ends)
    redis.call('ZADD', KEYS[i + 1], ends, unit[3])
    local left = redis.call('PTTL', KEYS[i])
    if left >= 0 and left < 2 * ARGV[2] then redis.call('PEXPIRE', KEYS[i], whole(2 * ARGV[2])) end
  end
end
return held
"""
)

#: KEYS: schedule, its running, unit. ARGV: now or '', token, outcome, error, milliseconds, whether it failed, whether
#: it is given back. Returns whether it was held.
FINISH = (
    NOW
    + """
local unit = redis.call('HMGET', KEYS[3], 'token', 'until', 'member', 'process', 'is_manual')
if unit[1] ~= ARGV[2] or unit[2] == '0' then return 0 end
local is_free = ARGV[7] == '1' and unit[5] ~= '1'
redis.call('HSET', KEYS[3], 'until', is_free and '1' or '0', 'token', '')
redis.call('ZREM', KEYS[2], unit[3])
if redis.call('EXISTS', KEYS[1]) == 0 then return 1 end
redis.call('HINCRBY', KEYS[1], 'runs', 1)
if ARGV[6] == '1' then redis.call('HINCRBY', KEYS[1], 'errors', 1) end
redis.call('HSET', KEYS[1], 'last_run', whole(now - ARGV[5]), 'last_ms', ARGV[5], 'last_outcome', ARGV[3],
  'last_error', ARGV[4], 'last_process', unit[4])
return 1
"""
)
