-- Hand the lead over; the token stays, so that the next one is larger. KEYS: the lead. ARGV: prefix, owner.
if redis.call('HGET', KEYS[1], 'owner') == ARGV[2] then redis.call('HDEL', KEYS[1], 'owner', 'until') end
return 1
