-- The last broadcast messages, for consumers that reconnect. HISTORY is a list of keys, the oldest first.
-- HISTORY_VALUES is a hash: for each key the expiry, a blank and the value, and under the key and RECORD its record, if
-- it came with headers. The settings history and history_bytes
-- limit number and size. The field `bytes` of the hash is the size at the last count plus all that was added since.
-- Only when that exceeds the limit, entries are counted again; so a message costs no more than one addition.
local HISTORY_BYTES_DEFAULT, KEPT_PART, RECORD = 67108864, 7 / 8, ' record'

local function drop_oldest()
  local key = call('LPOP', HISTORY)
  call('HDEL', HISTORY_VALUES, key, key .. RECORD)
end
