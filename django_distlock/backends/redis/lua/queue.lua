-- include find_pause.lua
local OFFER = 500 -- milliseconds for which a lock is offered to a waiter
local OUTLIVES = 10000 -- milliseconds for which a queue outlives the last sign of life of its processes
local HEAD = '^{"owner":"([^"]*)","token":(%d+)'
local WAITER = '^(%S+) (%S+) (%S+) (.*)$'

local function head(value)
  if value then
    return string.match(value, HEAD)
  end
end

local function is_held_by(owner)
  local start = '{"owner":"' .. owner .. '"'
  return redis.call('GETRANGE', lock, 0, #start - 1) == start
end

local function extend_queue()
  redis.call('PEXPIRE', queue, OUTLIVES)
end

-- While a lock is offered, the channel of the waiter's process is the first in the queue.
local function mark_offer(channel)
  redis.call('ZADD', queue, 0, channel)
  extend_queue()
end

-- The offer was not missed: the waiter took the lock, or it has been released since.
local function clear_offer()
  redis.call('ZREMRANGEBYSCORE', queue, 0, 0)
end

local function is_offered()
  return redis.call('ZCOUNT', queue, 0, 0) > 0
end

local function remove_all(channel)
  for _, waiter in ipairs(redis.call('ZRANGE', queue, 0, -1)) do
    if string.match(waiter, '^%S+') == channel then
      redis.call('ZREM', queue, waiter)
    end
  end
end

-- Notify a process that one of its waiters is offered the lock; return false if it doesn't listen, or
-- if this user may not publish.
local function notify(channel, number)
  local heard = redis.pcall('PUBLISH', channel, number)
  return type(heard) == 'number' and heard > 0
end

-- Offer the free lock to the first waiter whose process is alive: it listens, and has not missed an
-- earlier offer. If that is the owner that is asking, it needs no offer. Return the owner; nothing if
-- there is none, or while a pause holds grants back.
local function hand_over(asking)
  if find_pause() then
    return nil
  end
  while true do
    local first = redis.call('ZPOPMIN', queue)[1]
    if not first then
      return nil
    end
    local channel, number, owner, holder = string.match(first, WAITER)
    if not channel then
      remove_all(first)
    elseif owner == asking then
      return owner
    elseif notify(channel, number) then
      grant(owner, OFFER, holder)
      mark_offer(channel)
      return owner
    else
      remove_all(channel)
    end
  end
end
