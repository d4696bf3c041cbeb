-- Return the time in microseconds, and in how many milliseconds the lock expires, counted from the
-- millisecond of that time: otherwise the end would vary by one from look to look.
local function time_left()
  local left, time
  repeat
    time = microseconds()
    left = redis.call('PTTL', lock)
  until math.floor(time / 1000) == math.floor(microseconds() / 1000)
  return time, left
end

-- Return what people may know of the lock with this value: it without its owner, whether it is kept
-- from others after its release (1), in how many milliseconds it expires, and the time.
local function described(value)
  local owner, rest = string.match(value, '^{"owner":"([^"]*)",(.*)$')
  if not owner then
    return redis.error_reply('ERR ' .. lock .. ' contains something other than a lock')
  end
  local time, left = time_left()
  return {'{' .. rest, owner == '' and 1 or 0, left, digits(time)}
end
