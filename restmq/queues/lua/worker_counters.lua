-- Stores one worker's record in the hash of its server, and returns the records of all workers if that is wanted.
-- KEYS: the hash (see restmq/store/keys.py).
-- ARGV: the worker's serial number, its record as JSON with an object `counts` of lists of numbers, maximum number of
-- records, seconds until the hash expires, 1 to return the records.
-- Returns {serial number, record, …} in no order; serial number 0 stands for the sum of merged records.
--
-- A record replaces the one before it, so writing twice does no harm. If there are more records than the maximum, those
-- with the lowest serial numbers, which belong to workers that ended long ago, are merged into the sum. A record with a
-- merged serial number is rejected, as it is counted already.
-- allow-oom
local call = redis.call
local hash, serial, record, most, ttl_seconds = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local SUM, MERGED_UNTIL = '0', 'merged_until'

local function serials()
  local found = {}
  for _, name in ipairs(call('HKEYS', hash)) do
    local number = tonumber(name)
    if number and number > 0 then found[#found + 1] = number end
  end
  table.sort(found)
  return found
end

local function counts_of(name)
  local found = call('HGET', hash, name)
  return found and cjson.decode(found).counts or {}
end

local function merge(lowest)
  local sum = counts_of(SUM)
  for name, numbers in pairs(counts_of(lowest)) do
    sum[name] = sum[name] or {}
    for i, number in ipairs(numbers) do sum[name][i] = (sum[name][i] or 0) + number end
  end
  call('HSET', hash, SUM, cjson.encode({counts = sum}), MERGED_UNTIL, lowest)
  call('HDEL', hash, lowest)
end

if serial > tonumber(call('HGET', hash, MERGED_UNTIL) or 0) then
  call('HSET', hash, serial, record)
  if call('HLEN', hash) > most then
    local found = serials()
    for i = 1, #found - most do merge(found[i]) end
  end
end
call('EXPIRE', hash, ttl_seconds)
if ARGV[5] ~= '1' then return {} end
local answer, flat = {}, call('HGETALL', hash)
for i = 1, #flat, 2 do
  if tonumber(flat[i]) then answer[#answer + 1], answer[#answer + 2] = flat[i], flat[i + 1] end
end
return answer
