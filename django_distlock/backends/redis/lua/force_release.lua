-- ARGV: the token that the operator saw. Return 1 if it was released.
-- include lock.lua
-- include queue.lua
local _, token = head(redis.call('GET', lock))
if token ~= ARGV[1] then
  return 0
end
clear_offer()
if not hand_over() then
  redis.call('DEL', lock)
end
return 1
