local OFFER = 500 -- milliseconds in which who is offered the lock has to take it
local OUTLIVES = 10000 -- milliseconds for which a queue outlives the last sign of its processes
local HEAD = '^{"owner":"([^"]*)","token":(%d+)'
local WAITER = '^(%S+) (%S+) (%S+) (.*)$'

local function head(value)
  if value then
    return string.match(value, HEAD)
  end
end

local function has(owner)
  local start = '{"owner":"' .. owner .. '"'
  return redis.call('GETRANGE', lock, 0, #start - 1) == start
end

local function keep_queue()
  redis.call('PEXPIRE', queue, OUTLIVES)
end

-- While a lock is offered, the channel of that process is the first in the queue.
local function note_offer(channel)
  redis.call('ZADD', queue, 0, channel)
  keep_queue()
end

-- Who was offered the lock didn't let that pass: he took it, has given it back, or was made to.
local function forget_offer()
  redis.call('ZREMRANGEBYSCORE', queue, 0, 0)
end

local function drop(channel)
  for _, waiter in ipairs(redis.call('ZRANGE', queue, 0, -1)) do
    if string.match(waiter, '^%S+') == channel then
      redis.call('ZREM', queue, waiter)
    end
  end
end

-- Tell a process that one of its waiters is offered the lock; false if it doesn't listen, or if the
-- user who asks here may tell it nothing.
local function tell(channel, number)
  local heard = redis.pcall('PUBLISH', channel, number)
  return type(heard) == 'number' and heard > 0
end

-- Offer the lock, which is nobody's, to the first waiter whose process is alive: it listens, and
-- has not let an earlier offer pass. The owner who asks needs no offer. Return who gets it.
local function hand_over(asking)
  while true do
    local first = redis.call('ZPOPMIN', queue)[1]
    if not first then
      return nil
    end
    local channel, number, owner, holder = string.match(first, WAITER)
    if not channel then
      drop(first)
    elseif owner == asking then
      return owner
    elseif tell(channel, number) then
      grant(owner, OFFER, holder)
      note_offer(channel)
      return owner
    else
      drop(channel)
    end
  end
end
