-- Give records of a lane another due time, each that still has its version. KEYS: the lane.
-- ARGV: prefix, token, then id, version and due time of each.
local lead = redis.call('HMGET', P .. 'lead', 'owner', 'token')
if not lead[1] or lead[2] ~= ARGV[2] then return 0 end
for i = 3, #ARGV, 3 do
  local record = P .. 'record:' .. ARGV[i]
  if redis.call('HGET', record, 'version') == ARGV[i + 1] and redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('HSET', record, 'due_at', ARGV[i + 2])
    redis.call('ZADD', KEYS[1], ARGV[i + 2], ARGV[i])
  end
end
return 1
