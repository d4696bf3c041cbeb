-- KEYS: locks. ARGV: for each its owner and the ttl. Return the time, and for each 1 if this owner
-- still holds it.
local LONGEST_HEAD = 120 -- bytes of a value after its owner, in which its ttl is

local time = redis.call('TIME')
local renewed = {}
local ttl, written -- most leases of a store have the same
for index, key in ipairs(KEYS) do
  local owner = ARGV[2 * index - 1]
  if ARGV[2 * index] ~= ttl then
    ttl = ARGV[2 * index]
    written = ',"ttl":' .. ttl .. ','
  end
  local start = '{"owner":"' .. owner .. '"'
  local head = redis.call('GETRANGE', key, 0, #start + LONGEST_HEAD)
  renewed[index] = 0
  if string.find(head, start, 1, true) == 1 then
    renewed[index] = 1
    if ttl == '' then
      redis.call('PERSIST', key)
    elseif string.find(head, written, #start, true) then
      redis.call('PEXPIRE', key, ttl)
    else
      -- It is renewed for another time than before.
      local before, holder =
        string.match(redis.call('GET', key), '^(.-"acquired_at":%d+).-,("holder":.*)$')
      redis.call('SET', key, before .. written .. holder, 'PX', ttl)
    end
  end
end
return {string.format('%.0f', time[1] * 1000000 + time[2]), renewed}
