-- ARGV: owner, and for how many milliseconds to keep the lock from others. Return 0 if this owner
-- doesn't hold it, 1 if it was released, 2 if it was also offered to the next waiter.
-- include lock.lua
local start = '{"owner":"' .. ARGV[1] .. '"'
local held = redis.call('GET', lock)
if not held or string.sub(held, 1, #start) ~= start then
  return 0
end
if ARGV[2] == '0' and redis.call('EXISTS', queue) == 0 then
  redis.call('DEL', lock)
  return 1
end
-- include queue.lua
clear_offer()
if ARGV[2] ~= '0' then
  redis.call('SET', lock, '{"owner":""' .. string.sub(held, #start + 1), 'PX', ARGV[2])
elseif hand_over() then
  return 2
else
  redis.call('DEL', lock)
end
return 1
