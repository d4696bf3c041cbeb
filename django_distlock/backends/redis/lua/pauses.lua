-- KEYS: the pauses. Return those in force: for each what the keys of the paused locks begin with, and
-- the pause.
local pauses = KEYS[1]
-- include pausing.lua
remove_ended()
return redis.call('HGETALL', pauses)
