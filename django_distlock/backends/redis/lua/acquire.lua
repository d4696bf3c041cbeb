-- ARGV: owner, ttl, holder. Return token and time of the grant. If another owner has the lock, return
-- it described; if a pause holds grants back, 'paused', the pause and the time.
-- include lock.lua
local asking, ttl, holder = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', lock, queue, pauses or lock) == 0 then
  return grant(asking, ttl, holder)
end
local held, start = redis.call('GET', lock), '{"owner":"' .. asking .. '"'
-- include described.lua
if held and string.sub(held, 1, #start) ~= start then
  return described(held)
end
-- include queue.lua
local pause = (not held or is_offered()) and find_pause()
if pause then
  if held then -- an offer from before the pause
    clear_offer()
    redis.call('DEL', lock)
  end
  return {'paused', pause, digits(microseconds())}
elseif not held then
  local next = hand_over(asking)
  if next and next ~= asking then
    return described(redis.call('GET', lock))
  end
  return grant(asking, ttl, holder)
end
local _, token = head(held)
local at = digits(microseconds())
write(asking, token, at, ttl, holder)
clear_offer()
return {token, at}
