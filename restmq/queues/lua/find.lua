-- Finds one message in any state and does not change it.
-- ARGV: queue, clock, the message's key.
-- Returns {'ready', 'delayed', 'leased', 'dead' or 'unknown'; end of the delay or lease, or time of death, in ms since
-- 1970, or 0; value; looks; record of deliveries or ''; expiry in ms since 1970 or -1}, or nothing if the queue does not hold such a message.
-- 'unknown': the queue has more than twice SEARCHED_MAX messages, and this one is neither in its place by number nor
-- near an end.
-- include: _prelude
-- include: _value
-- include: _search
-- include: _died
local key = ARGV[3]
local value = value_of(key)
local expires_ms = call('PEXPIRETIME', key)
if not value or (expires_ms > 0 and expires_ms <= now_ms()) then return {} end

local function found(state, at_ms)
  local looks, record = call('GET', key .. ':refcount') or '0', call('HGET', DELIVERIES, key) or ''
  return {state, at_ms or '0', value, looks, record, string.format('%.0f', expires_ms)}
end

local leased, delayed, dead = call('ZSCORE', LEASED, key), call('ZSCORE', DELAYED, key), call('ZSCORE', DEAD, key)
if leased and tonumber(leased) > now_ms() then return found('leased', leased) end
if delayed and tonumber(delayed) > now_ms() then return found('delayed', delayed) end
if dead then return found('dead', died_ms(dead)) end
local is_ready = leased or delayed or search(key)
if is_ready == nil then return found('unknown') end
return is_ready and found('ready') or {}
