-- KEYS: the brake. ARGV: prefix, for_s. A longer brake that is on stays.
local now = clock()
local ends_at = now + tonumber(ARGV[2])
local on = redis.call('GET', KEYS[1])
if not on or tonumber(on) < ends_at then
  redis.call('SET', KEYS[1], string.format('%.6f', ends_at), 'PX', math.max(1, math.ceil(tonumber(ARGV[2]) * 1000)))
end
return 1
