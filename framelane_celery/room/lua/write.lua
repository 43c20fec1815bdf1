-- Create or save one record: everything is checked, then everything is written, or nothing is.
-- KEYS: the record. ARGV: see RedisRoom._write, which must agree. Answers a word, or the row that is there already.
local record = KEYS[1]
local id, expected, nonce, token = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local claim, account = ARGV[6], ARGV[7]
local lane, due_at, created_at, is_open = ARGV[12], ARGV[13], ARGV[14], ARGV[15] == '1'
local job_before, job_after, life_s, dropped = ARGV[16], ARGV[17], ARGV[18], tonumber(ARGV[19])
local revoke_s, marks = tonumber(ARGV[20]), tonumber(ARGV[21])

local have = redis.call('HMGET', record, 'version', 'lane', 'write')
-- Our own write, sent again by the client because its answer was lost: it is done.
if have[3] == nonce then return 'saved' end
if token ~= '' then
  local lead = redis.call('HMGET', P .. 'lead', 'owner', 'token')
  if not lead[1] or lead[2] ~= token then return 'not_leader' end
end
if expected == '' then
  if redis.call('EXISTS', record) == 1 then
    return redis.call('HMGET', record, 'until', 'step', 'version', 'due_at', 'call', 'request', 'state')
  end
elseif have[1] ~= expected then
  return 'conflict'
end
for i = 22, 21 + marks do -- (ZMSCORE would need Redis 6.2.)
  local revoked_at = redis.call('ZSCORE', P .. 'revokes', ARGV[i])
  if revoked_at and tonumber(revoked_at) >= now - revoke_s then return 'revoked' end
end

if claim == 'slot' then
  local bucket, per_minute, from_queue, window_s = ARGV[8], tonumber(ARGV[9]), ARGV[10] == '1', tonumber(ARGV[11])
  local hold = redis.call('HGET', P .. 'holds', account)
  if hold and cjson.decode(hold).released_at == cjson.null then return 'held' end
  local slots, brake = P .. 'slots:' .. bucket, redis.call('GET', P .. 'brake:' .. bucket)
  if brake and tonumber(brake) > now then return 'no_slot' end
  if not from_queue and redis.call('ZCOUNT', P .. 'lane:slot:' .. bucket, '-inf', NOW) > 0 then return 'no_slot' end
  redis.call('ZREMRANGEBYSCORE', slots, '-inf', string.format('%.6f', now - window_s))
  if redis.call('ZCARD', slots) >= per_minute then return 'no_slot' end
  redis.call('ZADD', slots, NOW, nonce)
  redis.call('EXPIRE', slots, math.ceil(window_s) + 1)
elseif claim == 'spend' then
  local spent = P .. 'spent:' .. account .. ':' .. TODAY
  local submissions_max, minutes_max = tonumber(ARGV[9]), tonumber(ARGV[10])
  local before = redis.call('HMGET', spent, 'submissions', 'minutes')
  local submissions, minutes = tonumber(before[1] or 0) + 1, tonumber(before[2] or 0) + tonumber(ARGV[8])
  -- Ten times 0.1 is a little more or less than 1.0. In rules.py too.
  if submissions_max and submissions > submissions_max then return 'over_budget' end
  if minutes_max and minutes > minutes_max + 1e-6 then return 'over_budget' end
  redis.call('HSET', spent, 'submissions', submissions, 'minutes', string.format('%.17g', minutes))
  redis.call('EXPIRE', spent, ARGV[11])
end

local first = 22 + marks
for i = first, first + dropped - 1 do redis.call('HDEL', record, ARGV[i]) end
redis.call('HSET', record, 'write', nonce, unpack(ARGV, first + dropped))

if have[2] and have[2] ~= lane then redis.call('ZREM', P .. 'lane:' .. have[2], id) end
if lane ~= '' then redis.call('ZADD', P .. 'lane:' .. lane, due_at, id) end
if is_open then redis.call('ZADD', P .. 'open', created_at, id) else redis.call('ZREM', P .. 'open', id) end
if job_before ~= '' then redis.call('HDEL', P .. 'jobs', job_before) end
if job_after ~= '' then redis.call('HSET', P .. 'jobs', job_after, id) end
if life_s ~= '' then redis.call('EXPIRE', record, life_s) else redis.call('PERSIST', record) end
return 'saved'
