-- ARGV: owner, and for how many milliseconds nobody gets it. Return 1 if it was this owner's, 2 if
-- another one was offered it, 0 if it was another's.
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
forget_offer()
if ARGV[2] ~= '0' then
  redis.call('SET', lock, '{"owner":""' .. string.sub(held, #start + 1), 'PX', ARGV[2])
elseif hand_over() then
  return 2
else
  redis.call('DEL', lock)
end
return 1
