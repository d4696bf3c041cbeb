-- The keys of a lock: its value exists while it is held; the last token that was granted outlives it;
-- the queue has the waiters in the order in which they joined. The pauses are those of all locks; in
-- a cluster there are none, since their key has another slot.
local lock, last, queue, pauses = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local DAY = 86400

local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- A double is exact for a time until the year 2255, but tostring() shows fewer digits.
local function digits(number)
  return string.format('%.0f', number)
end

-- Without a ttl, in milliseconds, the lock lasts until it is released. The time of the last renewal is
-- the end less the ttl.
local function write(owner, token, at, ttl, holder)
  if ttl == '' then
    redis.call('SET', lock, '{"owner":"' .. owner .. '","token":' .. token
      .. ',"acquired_at":' .. at .. ',"holder":' .. holder .. '}')
  else
    redis.call('SET', lock, '{"owner":"' .. owner .. '","token":' .. token
      .. ',"acquired_at":' .. at .. ',"ttl":' .. ttl .. ',"holder":' .. holder .. '}', 'PX', ttl)
  end
end

-- Grant the lock; return token and time. Tokens rise even if the last one is lost, since they follow
-- the clock; and even if the clock steps back, by the + 1.
local function grant(owner, ttl, holder)
  local number = microseconds()
  local at = digits(number)
  local token = at
  local previous = redis.call('GET', last)
  if previous and tonumber(previous) >= number then
    token = digits(previous + 1)
  end
  write(owner, token, at, ttl, holder)
  redis.call('SET', last, token, 'EX', DAY)
  return {token, at}
end
