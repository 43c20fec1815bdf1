-- KEYS: the account's counters, without the day. ARGV: prefix.
return redis.call('HMGET', KEYS[1] .. ':' .. TODAY, 'submissions', 'minutes')
