-- Fills a cached record, unless a newer one is there, and gives the refill lease back.
-- KEYS: the record's, the lease's. ARGV: the record (empty: remove it), its life in ms, the
-- lease's token (empty: none is held). Answers 1 when the record was written.
-- The asof stands in bytes 5 to 12, see codec.py. Numbers are compared, not strings: Lua compares
-- strings by the server's locale.
local function asof(record)
  if type(record) ~= 'string' or #record < 12 then
    return -1
  end
  return struct.unpack('>I8', string.sub(record, 5, 12))
end

local written = 0
if ARGV[1] == '' then
  redis.call('DEL', KEYS[1])
elseif asof(redis.pcall('GETRANGE', KEYS[1], 0, 11)) <= asof(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  written = 1
end
if ARGV[3] ~= '' and redis.call('GET', KEYS[2]) == ARGV[3] then
  redis.call('DEL', KEYS[2])
end
return written
