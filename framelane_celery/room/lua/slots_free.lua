-- KEYS: slots, brake. ARGV: prefix, per_minute, window_s.
local now = clock()
local brake = redis.call('GET', KEYS[2])
if brake and tonumber(brake) > now then return 0 end
local taken = redis.call('ZCOUNT', KEYS[1], string.format('(%.6f', now - tonumber(ARGV[3])), '+inf')
return math.max(0, tonumber(ARGV[2]) - taken)
