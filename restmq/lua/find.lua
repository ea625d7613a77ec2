-- Looks at one message, wherever it is, without touching it.
-- ARGV: queue, clock, the message's key.
-- Returns {'ready', 'delayed', 'leased' or 'dead'; when that ends or, if dead, began, in ms since 1970, or 0; value;
-- looks; record of deliveries or ''}, or nothing if there is no such message.
-- include: _prelude
-- include: _lease
local key = ARGV[3]
local value = call('GET', key)
local expires_ms = call('PEXPIRETIME', key)
if not value or (expires_ms > 0 and expires_ms <= now_ms()) then return {} end
local function found(state, at_ms)
  return {state, at_ms or '0', value, call('GET', key .. ':refcount') or '0', call('HGET', DELIVERIES, key) or ''}
end
local leased, delayed, dead = call('ZSCORE', LEASED, key), call('ZSCORE', DELAYED, key), call('ZSCORE', DEAD, key)
if leased and tonumber(leased) > now_ms() then return found('leased', leased) end
if delayed and tonumber(delayed) > now_ms() then return found('delayed', delayed) end
if dead then return found('dead', dead) end
return found('ready')
