-- The counts of today and of the day before, one after the other. KEYS: the counts, without the day. ARGV: prefix.
local now, _, TODAY = clock()
local answer = redis.call('HGETALL', KEYS[1] .. ':' .. TODAY)
local before = redis.call('HGETALL', KEYS[1] .. ':' .. string.format('%.0f', math.floor(now / 86400) - 1))
for _, part in ipairs(before) do answer[#answer + 1] = part end
return answer
