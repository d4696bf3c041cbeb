local ENDS = '^{"until":(%d+)'

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function digits(number)
  return string.format('%.0f', number)
end

-- Remove the pauses that have ended; the key expires with the last one, so that it costs no more.
local function remove_ended()
  local latest = 0
  local all = redis.call('HGETALL', pauses)
  for index = 1, #all, 2 do
    local ends = tonumber(string.match(all[index + 1], ENDS)) or math.huge
    latest = math.max(latest, ends)
    if ends <= now then
      redis.call('HDEL', pauses, all[index])
    end
  end
  if latest == math.huge then
    redis.call('PERSIST', pauses)
  else
    redis.call('PEXPIRE', pauses, digits(math.max(1, math.ceil((latest - now) / 1000))))
  end
end
