-- ARGV: the waiter, who wants the lock no more, not even if it was offered meanwhile.
-- include lock.lua
-- include queue.lua
local _, _, owner = string.match(ARGV[1], WAITER)
redis.call('ZREM', queue, ARGV[1])
if has(owner) then
  forget_offer()
  if not hand_over() then
    redis.call('DEL', lock)
  end
end
return 0
