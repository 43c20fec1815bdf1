-- Add to counts. KEYS: the counts. ARGV: prefix, then key and number of each.
for i = 2, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
