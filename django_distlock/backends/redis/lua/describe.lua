-- Return what people may know of a held lock, and how many wait for it; nothing if it is free.
-- include lock.lua
-- include described.lua
local value = redis.call('GET', lock)
if not value then
  return false
end
local found = described(value)
if not found.err then
  found[5] = redis.call('ZCOUNT', queue, '(0', '+inf')
end
return found
