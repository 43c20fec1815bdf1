-- KEYS: the account's counters, without the day. ARGV: prefix.
local _, _, TODAY = clock()
return redis.call('HMGET', KEYS[1] .. ':' .. TODAY, 'submissions', 'minutes')
