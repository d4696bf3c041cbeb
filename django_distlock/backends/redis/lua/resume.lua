-- KEYS: the pauses. ARGV: what the keys of the paused locks begin with. Return 1 if they were paused.
local pauses = KEYS[1]
-- include pausing.lua
remove_ended()
local resumed = redis.call('HDEL', pauses, ARGV[1])
remove_ended()
return resumed
