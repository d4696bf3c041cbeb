-- ARGV: the cursor of SCAN, the pattern of the keys, how many keys to look at. Return the next cursor,
-- and the keys that were found as one text, each with a line break after it.
local found = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
return {found[1], table.concat(found[2], '\n')}
