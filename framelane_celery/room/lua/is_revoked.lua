-- KEYS: revokes. ARGV: prefix, life_s, the marks. (ZMSCORE would need Redis 6.2.)
for i = 3, #ARGV do
  local written_at = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if written_at and tonumber(written_at) >= now - tonumber(ARGV[2]) then return 1 end
end
return 0
