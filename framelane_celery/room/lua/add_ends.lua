-- Count ends of jobs. KEYS: the counts, without the day. ARGV: prefix, life_s, then name and number of each.
local _, _, TODAY = clock()
local today = KEYS[1] .. ':' .. TODAY
for i = 3, #ARGV, 2 do redis.call('HINCRBYFLOAT', today, ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', today, ARGV[2])
return 1
