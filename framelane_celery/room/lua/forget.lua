-- KEYS: the record. ARGV: prefix, id, the version that it must still have.
local have = redis.call('HMGET', KEYS[1], 'version', 'lane')
if have[1] ~= ARGV[3] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', P .. 'open', ARGV[2])
if have[2] then redis.call('ZREM', P .. 'lane:' .. have[2], ARGV[2]) end
return 1
