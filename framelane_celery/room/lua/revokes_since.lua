-- KEYS: revokes. ARGV: prefix, the instant, life_s. Answers the clock and the marks.
local now, NOW = clock()
local from = math.max(tonumber(ARGV[2]), now - tonumber(ARGV[3]))
return { NOW, redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%.6f', from), '+inf') }
