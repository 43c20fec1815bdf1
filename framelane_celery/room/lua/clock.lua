-- Goes in front of every script. `P` is the namespace's prefix, KEYS[1] starts with it.
local P = ARGV[1]

-- The room's clock is the server's: as a number, as text, and the UTC day, counted from 1970.
local function clock()
  local told = redis.call('TIME')
  local now = tonumber(told[1]) + tonumber(told[2]) / 1000000
  return now, string.format('%.6f', now), string.format('%.0f', math.floor(now / 86400))
end
