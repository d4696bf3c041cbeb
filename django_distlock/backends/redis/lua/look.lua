-- ARGV: the first waiter of a process. Return how long the lock lasts, and whether the waiter is
-- there, or offered the lock.
-- include lock.lua
-- include queue.lua
if redis.call('EXISTS', lock) == 0 then
  hand_over()
end
keep_queue()
local known = redis.call('ZSCORE', queue, ARGV[1]) and 1 or 0
if known == 0 then
  local _, _, owner = string.match(ARGV[1], WAITER)
  known = has(owner) and 2 or 0
end
return {redis.call('PTTL', lock), known}
