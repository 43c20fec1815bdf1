-- KEYS: revokes. ARGV: prefix, life_s, the marks.
local now, NOW = clock()
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], NOW, ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.6f', now - tonumber(ARGV[2])))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
