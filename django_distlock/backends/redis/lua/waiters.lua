-- Return the queue without the owners: of each waiter the time at which it joined, and the holder.
-- include lock.lua
-- include queue.lua
local waiters = {}
local all = redis.call('ZRANGE', queue, 0, -1, 'WITHSCORES')
for index = 1, #all, 2 do
  local _, _, _, holder = string.match(all[index], WAITER)
  if holder then -- it is not the mark of an offer
    table.insert(waiters, digits(all[index + 1]))
    table.insert(waiters, holder)
  end
end
return waiters
