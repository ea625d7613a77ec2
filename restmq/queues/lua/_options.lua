-- Options of an add. ARGV[3] is the number of arguments behind it that are names and values of options, in turn; most adds
-- have none. ttl_ms, delay_ms: 0 for none. whole: given for all or nothing. fingerprint, and fingerprint_ms, its lifetime.
-- record: that of each message (see _record), or ''. expires: seconds after which queues without this setting end (see
-- _idle), or 0. The values follow.
local options, first_value = {}, 4 + ARGV[3]
for i = 4, first_value - 1, 2 do options[ARGV[i]] = ARGV[i + 1] end
local record, count = options.record or '', #ARGV - first_value + 1

local ttl_ms, delay_ms = tonumber(options.ttl_ms or 0), tonumber(options.delay_ms or 0)
local expires_ms, due_ms = ttl_ms > 0 and now_ms() + ttl_ms or 0, delay_ms > 0 and now_ms() + delay_ms or 0
