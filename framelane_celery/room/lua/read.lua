-- One record. KEYS: the record. ARGV: prefix, the names of its fields. Answers the room's clock, and the fields.
local _, NOW = clock()
return {NOW, redis.call('HMGET', KEYS[1], unpack(ARGV, 2))}
