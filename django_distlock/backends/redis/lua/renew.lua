-- KEYS: locks. ARGV: for each its owner and the ttl. Return the time, and for each 1 if this owner
-- still holds it.
local time = redis.call('TIME')
local renewed = {}
for index, key in ipairs(KEYS) do
  local owner, ttl = ARGV[2 * index - 1], ARGV[2 * index]
  local start = '{"owner":"' .. owner .. '"'
  renewed[index] = 0
  if redis.call('GETRANGE', key, 0, #start - 1) == start then
    renewed[index] = 1
    if ttl == '' then
      redis.call('PERSIST', key)
    else
      redis.call('PEXPIRE', key, ttl)
    end
  end
end
return {string.format('%.0f', time[1] * 1000000 + time[2]), renewed}
