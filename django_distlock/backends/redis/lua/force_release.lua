-- ARGV: the token that was seen. Return whether it is no more.
-- include lock.lua
-- include queue.lua
local _, token = head(redis.call('GET', lock))
if token ~= ARGV[1] then
  return 0
end
forget_offer()
if not hand_over() then
  redis.call('DEL', lock)
end
return 1
