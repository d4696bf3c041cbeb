-- ARGV: owner, ttl, holder. Return token and time of the grant, or nothing if another owner has the
-- lock.
-- include lock.lua
local asking, ttl, holder = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', lock, queue) == 0 then
  return grant(asking, ttl, holder)
end
-- include queue.lua
local held = redis.call('GET', lock)
local owner, token = head(held)
if held and not owner then
  return redis.error_reply('ERR ' .. lock .. ' contains something other than a lock')
elseif not owner then
  local next = hand_over(asking)
  if next and next ~= asking then
    return false
  end
  return grant(asking, ttl, holder)
elseif owner ~= asking then
  return false
end
local at = digits(microseconds())
write(asking, token, at, ttl, holder)
clear_offer()
return {token, at}
