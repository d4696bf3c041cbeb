-- Return what people may know of the lock with this value: it without its owner, whether it is kept
-- from others after its release (1), in how many milliseconds it expires, and the time.
local function described(value)
  local owner, rest = string.match(value, '^{"owner":"([^"]*)",(.*)$')
  if not owner then
    return redis.error_reply('ERR ' .. lock .. ' contains something other than a lock')
  end
  local kept = owner == '' and 1 or 0
  return {'{' .. rest, kept, redis.call('PTTL', lock), digits(microseconds())}
end
