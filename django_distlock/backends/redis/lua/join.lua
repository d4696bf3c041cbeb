-- ARGV: the waiter, as it stands in the queue. Return in how many milliseconds the lock expires;
-- below 0 if that is not known.
-- include lock.lua
-- include queue.lua
local _, _, owner = string.match(ARGV[1], WAITER)
if not is_held_by(owner) then -- it has not been offered the lock just now
  redis.call('ZADD', queue, 'NX', digits(microseconds()), ARGV[1])
end
extend_queue()
if redis.call('EXISTS', lock) == 0 then
  hand_over()
end
return redis.call('PTTL', lock)
