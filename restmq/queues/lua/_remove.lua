-- Removes the queue itself, which has no more messages. Returns the number of keys that it had.
local REMEMBERED_SECONDS = 86400

-- include: _moves
-- include: _sources
local function remove()
  local last = math.max(tonumber(call('GET', NUMBER) or 0), tonumber(call('GET', LAST_NUMBER) or 0))
  if last > 0 then call('SET', LAST_NUMBER, string.format('%.0f', last), 'EX', REMEMBERED_SECONDS) end
  call('ZREM', DUE, QUEUE, QUEUE .. MOVE)
  set_dead_letter('')
  call('UNLINK', READY, EXPIRING, RECEIPTS, DELIVERIES, HISTORY, HISTORY_VALUES, TIMES, MARKED, TURNS, IDLE)
  call('UNLINK', SQS, ORDERED, GROUPED, GROUPS, LOCKED, SENT_IDS, SENT_TIMES, MOVES)
  return call('SREM', QUEUE_SET, QUEUE) + call('UNLINK', NUMBER, TOTALS, SETTINGS, POLICY, STATUS)
end
