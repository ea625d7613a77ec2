-- The last broadcast messages, for consumers that reconnect. HISTORY is a list of keys, the oldest first.
-- HISTORY_VALUES is a hash: for each key the expiry, a blank and the value. The settings history and history_bytes
-- limit number and size. The field `bytes` of the hash is the size at the last count plus all that was added since.
-- Only when that exceeds the limit, entries are counted again; so a message costs no more than one addition.
local HISTORY_BYTES_DEFAULT, KEPT_PART = 67108864, 7 / 8
