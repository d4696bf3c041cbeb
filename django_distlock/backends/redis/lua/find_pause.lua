-- The pauses are a hash: each has what the keys of the paused locks begin with, and a description.
local ENDS = '^{"until":(%d+)'

-- Return the pause that holds this lock's grants back, if there is one: of several, the last to end.
local function find_pause()
  local found, latest = nil, 0
  local all = pauses and redis.call('HGETALL', pauses) or {}
  for index = 1, #all, 2 do
    local start, pause = all[index], all[index + 1]
    if string.sub(lock, 1, #start) == start then
      local ends = tonumber(string.match(pause, ENDS)) or math.huge
      if ends > latest and ends > microseconds() then
        found, latest = pause, ends
      end
    end
  end
  return found
end
