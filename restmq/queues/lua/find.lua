-- Finds one message in any state and does not change it.
-- ARGV: queue, clock, the message's key.
-- Returns {'ready', 'delayed', 'leased', 'dead' or 'unknown'; end of the delay or lease, or time of death, in ms since
-- 1970, or 0; value; looks; record of deliveries or ''; expiry in ms since 1970 or -1}, or nothing if the queue does not hold such a message.
-- 'unknown': the queue has more than twice SEARCHED_MAX messages, and this one is neither in its place by number nor
-- near an end.
-- include: _prelude
-- include: _value
-- include: _number
-- include: _died
local SEARCHED_MAX = 50000

local key = ARGV[3]
local value = value_of(key)
local expires_ms = call('PEXPIRETIME', key)
if not value or (expires_ms > 0 and expires_ms <= now_ms()) then return {} end

local function found(state, at_ms)
  local looks, record = call('GET', key .. ':refcount') or '0', call('HGET', DELIVERIES, key) or ''
  return {state, at_ms or '0', value, looks, record, string.format('%.0f', expires_ms)}
end

-- Ready messages are in the order of their numbers, except for those that came back or were delayed.
local function in_its_place()
  local number, first, last = number_of(key), 1, call('LLEN', READY)
  while first <= last do
    local middle = math.floor((first + last) / 2)
    local there = call('LINDEX', READY, -middle)
    if there == key then return true end
    if number_of(there) < number then first = middle + 1 else last = middle - 1 end
  end
  return false
end

local function near_an_end()
  return call('LPOS', READY, key, 'RANK', -1, 'MAXLEN', SEARCHED_MAX)
    or call('LPOS', READY, key, 'MAXLEN', SEARCHED_MAX)
end

local leased, delayed, dead = call('ZSCORE', LEASED, key), call('ZSCORE', DELAYED, key), call('ZSCORE', DEAD, key)
if leased and tonumber(leased) > now_ms() then return found('leased', leased) end
if delayed and tonumber(delayed) > now_ms() then return found('delayed', delayed) end
if dead then return found('dead', died_ms(dead)) end
if leased or delayed or in_its_place() or near_an_end() then return found('ready') end
if call('LLEN', READY) > 2 * SEARCHED_MAX then return found('unknown') end
return {}
