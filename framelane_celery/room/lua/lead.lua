-- Become or stay the one active watcher. KEYS: the lead. ARGV: prefix, owner, ttl_s. Answers the token, or nil.
local now = clock()
local lead = redis.call('HMGET', KEYS[1], 'owner', 'token', 'until')
local owner, token, ends_at = lead[1], lead[2], tonumber(lead[3] or 0)
if owner and owner ~= ARGV[2] and ends_at > now then return nil end
if owner ~= ARGV[2] then
  -- Never a token that was given out before, even if a fail-over has lost the last one: not below the clock.
  token = string.format('%.0f', math.max(tonumber(token or 0) + 1, math.floor(now * 1000)))
end
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'token', token, 'until', string.format('%.6f', now + tonumber(ARGV[3])))
return token
