-- The number of ready messages. EXPIRING has the expiries of ready messages only: Redis drops an expired value by
-- itself, but its entry is still in the list and must not be counted.
local function length()
  return call('LLEN', READY) - call('ZCOUNT', EXPIRING, '-inf', now_ms())
end
