-- ARGV: the first waiter of a process. Return in how many milliseconds the lock expires, and whether
-- the waiter is in the queue (1), or is offered the lock (2).
-- include lock.lua
-- include queue.lua
if redis.call('EXISTS', lock) == 0 then
  hand_over()
end
extend_queue()
local known = redis.call('ZSCORE', queue, ARGV[1]) and 1 or 0
if known == 0 then
  local _, _, owner = string.match(ARGV[1], WAITER)
  known = is_held_by(owner) and 2 or 0
end
return {redis.call('PTTL', lock), known}
