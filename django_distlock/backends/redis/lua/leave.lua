-- ARGV: the waiter, which leaves the queue; a lock that it was offered goes to the next one.
-- include lock.lua
-- include queue.lua
local _, _, owner = string.match(ARGV[1], WAITER)
redis.call('ZREM', queue, ARGV[1])
if is_held_by(owner) then
  clear_offer()
  if not hand_over() then
    redis.call('DEL', lock)
  end
end
return 0
