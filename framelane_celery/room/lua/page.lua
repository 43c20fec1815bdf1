-- A page of records: 'due', what is due in a lane; or 'open', what comes after the last id of the page before, in the
-- open list or in a lane.
-- KEYS: the sorted set. ARGV: prefix, 'due' or 'open', limit, the last id and its score ('' at first), whether rows
-- go without their texts (1 or 0): such a row is one string of lines, since it is the number of strings that takes time.
-- Answers the clock, the last id of the page ('' if it is empty), its score, and id and row of each record.
-- Ids whose record has vanished are taken out.
local set, what, limit, last, score, lean = KEYS[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6] == '1'
local _, NOW = clock()
local ids
if what == 'due' then
  ids = redis.call('ZRANGEBYSCORE', set, '-inf', NOW, 'LIMIT', 0, limit)
else
  local from = 0
  if last ~= '' then
    -- The last one may be gone or moved: then once more all that have the score it had; the caller knows them.
    local stays = redis.call('ZSCORE', set, last) == score
    from = stays and redis.call('ZRANK', set, last) + 1 or redis.call('ZCOUNT', set, '-inf', '(' .. score)
  end
  ids = redis.call('ZRANGE', set, from, from + limit - 1)
end
local answer = { NOW, '', '' }
if #ids > 0 then
  answer[2], answer[3] = ids[#ids], redis.call('ZSCORE', set, ids[#ids])
end
for _, id in ipairs(ids) do
  local record = P .. 'record:' .. id
  -- pcall: a key that is no hash is a foreign record, not the end of the page.
  local row
  if lean then
    row = redis.pcall('HMGET', record, 'until', 'step', 'version', 'due_at', 'state')
  else
    row = redis.pcall('HMGET', record, 'until', 'step', 'version', 'due_at', 'call', 'request', 'state')
  end
  if row.err then
    row = {}
  elseif not (row[3] or redis.call('EXISTS', record) == 1) then
    redis.call('ZREM', set, id)
    row = nil
  end
  if row then
    if lean then
      for i = 1, 5 do row[i] = row[i] or '' end
      row = table.concat(row, '\n')
    end
    answer[#answer + 1] = id
    answer[#answer + 1] = row
  end
end
return answer
