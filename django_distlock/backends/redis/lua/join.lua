-- ARGV: the waiter, as it stands in the queue. Return how long the lock lasts, in milliseconds; below
-- 0 nobody knows.
-- include lock.lua
-- include queue.lua
local _, _, owner = string.match(ARGV[1], WAITER)
if not has(owner) then -- nor offered it just now
  redis.call('ZADD', queue, 'NX', digits(microseconds()), ARGV[1])
end
keep_queue()
if redis.call('EXISTS', lock) == 0 then
  hand_over()
end
return redis.call('PTTL', lock)
