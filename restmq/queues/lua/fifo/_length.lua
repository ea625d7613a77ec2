local function length() return call('ZCARD', ORDERED) - call('ZCOUNT', EXPIRING, '-inf', now_ms()) end
