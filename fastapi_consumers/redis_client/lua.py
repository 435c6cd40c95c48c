"""What scripts of several stores begin with."""

#: ``now``, the time in milliseconds since 1970: ``ARGV[1]``, or the server's where that is empty. ``whole(number)``:
#: its digits, without an exponent.
NOW = """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local function whole(number) return string.format('%.0f', number) end
"""
