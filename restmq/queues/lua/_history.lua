-- The last broadcast messages, for consumers that reconnect. HISTORY is a list of keys, the oldest first.
-- HISTORY_VALUES is a hash: for each key the expiry, a blank and the value, and under the key and RECORD its record, if
-- it came with headers. The settings history and history_bytes limit number and size. The field `bytes` of the hash is the
-- size at the last count plus all that was added since. Only when that exceeds the limit, entries are counted again; so
-- a message costs no more than one addition.
local HISTORY_BYTES_DEFAULT, KEPT_PART, RECORD, DROPPED_AT_ONCE = 67108864, 7 / 8, ' record', 1000

-- Whether any message has a record. If none has, the hash has a field for each message, and `bytes`.
local function history_has_records() return call('HLEN', HISTORY_VALUES) > call('LLEN', HISTORY) + 1 end

local function drop_oldest(count)
  local may_have_records = count == 1 or history_has_records()
  while count > 0 do
    local fields = call('LPOP', HISTORY, math.min(count, DROPPED_AT_ONCE))
    count = count - #fields
    if may_have_records then
      for i = 1, #fields do fields[#fields + 1] = fields[i] .. RECORD end
    end
    call('HDEL', HISTORY_VALUES, unpack(fields))
  end
end
