-- Write, or with '' drop, an account's hold if it is still what the caller has read ('' for none).
-- KEYS: holds. ARGV: prefix, account, the text that it read, the new text.
local account, before, after = ARGV[2], ARGV[3], ARGV[4]
local have = redis.call('HGET', KEYS[1], account) or ''
-- What is there already is our own write, sent again by the client because its answer was lost.
if have == after then return 1 end
if have ~= before then return 0 end
if after == '' then redis.call('HDEL', KEYS[1], account) else redis.call('HSET', KEYS[1], account, after) end
return 1
