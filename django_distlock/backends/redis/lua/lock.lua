-- What a script can be given of a lock: its value is there as long as it is held; the last token
-- that was granted outlives it; those who wait for it are in the order in which they came.
local lock, last, queue = KEYS[1], KEYS[2], KEYS[3]

local DAY = 86400

local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- A double is exact for a time until the year 2255, but needs to be told to show all of it.
local function digits(number)
  return string.format('%.0f', number)
end

-- Without a ttl, in milliseconds, the lock lasts until it is released.
local function write(owner, token, at, ttl, holder)
  local value = '{"owner":"' .. owner .. '","token":' .. token
    .. ',"acquired_at":' .. at .. ',"holder":' .. holder .. '}'
  if ttl == '' then
    redis.call('SET', lock, value)
  else
    redis.call('SET', lock, value, 'PX', ttl)
  end
end

-- Return token and time. The clock's part of a token outlives the loss of the last one, the + 1 a
-- step of the clock.
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
