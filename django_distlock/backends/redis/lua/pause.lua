-- KEYS: the pauses; and two locks that don't exist, so that a cluster, in which this would not keep
-- others from any lock, refuses the script. ARGV: what the keys of the paused locks begin with, for how
-- many milliseconds, and reason and person in JSON. Return the pause.
local pauses, ttl = KEYS[1], ARGV[2]
-- include pausing.lua
local ends = ttl == '' and 'null' or digits(now + ttl * 1000)
local pause = '{"until":' .. ends .. ',"since":' .. digits(now) .. ',' .. string.sub(ARGV[3], 2)
redis.call('HSET', pauses, ARGV[1], pause)
remove_ended()
return pause
