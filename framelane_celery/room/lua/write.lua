-- Create or save one record: everything is checked, then everything is written, or nothing is.
-- KEYS: the record. ARGV: prefix, what is ordered (JSON, see RedisRoom._write_of; what has no value is not in it), then
-- name and value of each text.
-- Answers a word, or the row that is there already.
local record, order = KEYS[1], cjson.decode(ARGV[2])
local id, nonce, claim = order.id, order.nonce, order.claim or {}
local now, NOW, TODAY

local have = redis.call('HMGET', record, 'version', 'lane', 'write')
-- Our own write, sent again by the client because its answer was lost: it is done.
if have[3] == nonce then return 'saved' end
if not order.expected then
  if have[1] then
    return redis.call('HMGET', record, 'until', 'step', 'version', 'due_at', 'call', 'request', 'state')
  end
else
  if order.token then
    local lead = redis.call('HMGET', P .. 'lead', 'owner', 'token')
    if not lead[1] or lead[2] ~= order.token then return 'not_leader' end
  end
  if have[1] ~= order.expected then return 'conflict' end
  now, NOW, TODAY = clock()
end
for _, mark in ipairs(order.marks or {}) do -- (ZMSCORE would need Redis 6.2.)
  local revoked_at = redis.call('ZSCORE', P .. 'revokes', mark)
  if revoked_at and tonumber(revoked_at) >= now - tonumber(order.revoke_s) then return 'revoked' end
end

if claim.what == 'slot' then
  local bucket, window_s = claim.bucket, tonumber(claim.window_s)
  local hold = redis.call('HGET', P .. 'holds', claim.account)
  if hold and cjson.decode(hold).released_at == cjson.null then return 'held' end
  local slots, brake = P .. 'slots:' .. bucket, redis.call('GET', P .. 'brake:' .. bucket)
  if brake and tonumber(brake) > now then return 'no_slot' end
  if not claim.from_queue and redis.call('ZCOUNT', P .. 'lane:slot:' .. bucket, '-inf', NOW) > 0 then return 'no_slot' end
  redis.call('ZREMRANGEBYSCORE', slots, '-inf', string.format('%.6f', now - window_s))
  if redis.call('ZCARD', slots) >= tonumber(claim.per_minute) then return 'no_slot' end
  redis.call('ZADD', slots, NOW, nonce)
  redis.call('EXPIRE', slots, math.ceil(window_s) + 1)
elseif claim.what == 'spend' then
  local spent = P .. 'spent:' .. claim.account .. ':' .. TODAY
  local submissions_max, minutes_max = tonumber(claim.submissions_per_day), tonumber(claim.minutes_per_day)
  local before = redis.call('HMGET', spent, 'submissions', 'minutes')
  local submissions, minutes = tonumber(before[1] or 0) + 1, tonumber(before[2] or 0) + tonumber(claim.minutes)
  -- Ten times 0.1 is a little more or less than 1.0. In rules.py too.
  if submissions_max and submissions > submissions_max then return 'over_budget' end
  if minutes_max and minutes > minutes_max + 1e-6 then return 'over_budget' end
  redis.call('HSET', spent, 'submissions', submissions, 'minutes', string.format('%.17g', minutes))
  redis.call('EXPIRE', spent, claim.life_s)
end

if order.dropped then redis.call('HDEL', record, unpack(order.dropped)) end
local columns = order.columns
for at = 3, #ARGV do columns[#columns + 1] = ARGV[at] end
redis.call('HSET', record, 'write', nonce, unpack(columns))

local lane = order.lane
if have[2] and have[2] ~= lane then redis.call('ZREM', P .. 'lane:' .. have[2], id) end
if lane then redis.call('ZADD', P .. 'lane:' .. lane, order.due_at, id) end
if order.is_open then redis.call('ZADD', P .. 'open', order.created_at, id) else redis.call('ZREM', P .. 'open', id) end
if order.job_before then redis.call('HDEL', P .. 'jobs', order.job_before) end
if order.job_after then redis.call('HSET', P .. 'jobs', order.job_after, id) end
if order.life_s then redis.call('EXPIRE', record, order.life_s) elseif have[1] then redis.call('PERSIST', record) end
return 'saved'
