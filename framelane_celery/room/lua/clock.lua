-- Goes in front of every script: the room's clock is the server's. `P` is the namespace's prefix, KEYS[1] starts with it.
local P = ARGV[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local NOW = string.format('%.6f', now)
-- The UTC day, counted from 1970.
local TODAY = string.format('%.0f', math.floor(now / 86400))
