-- include: _dead
-- include: _record
-- include: _number
-- Dead letters that move to another queue. Without a user's request, a message that was forwarded HOPS_MAX times, e.g.
-- between queues that name each other, rests: it stays among the dead letters of its queue.
local MOVED_MAX, HOPS_MAX = 500, 5

local function until_score(by_user) return by_user and '+inf' or '(' .. string.format('%.0f', RESTING_MS) end

-- The keys of the first letters, or the one that is wanted, if it is there.
local function letters_to_move(by_user, wanted)
  if wanted ~= '' then return call('ZSCORE', DEAD, wanted) and {wanted} or {} end
  return call('ZRANGEBYSCORE', DEAD, '-inf', until_score(by_user), 'LIMIT', 0, MOVED_MAX)
end

local function count_to_move(by_user) return call('ZCOUNT', DEAD, '-inf', until_score(by_user)) end

local function hops_of(record) return (record.origin and record.origin.hops or 0) + 1 end

local function must_rest(record, by_user) return hops_of(record) > HOPS_MAX and not by_user end

-- The record of a letter in the other queue. `key` is the letter's key as clients know it. As SQS has it, the deliveries
-- are counted across all queues (`received`), a message of a group has a new time, and its id is its deduplication id.
local function moved_record(key, record, by_user)
  local origin = {key = key, count = record.count, first = record.first, last = record.last, reason = record.reason,
    failed = record.failed, hops = not by_user and hops_of(record) or nil}
  record.received = not by_user and (record.received or 0) + record.count or nil
  record = undelivered(record)
  record.order, record.origin = nil, origin
  if record.group then
    record.number, record.dedup = record.number or number_of(key), record.id or record.dedup
    record.sent = now_ms()
  end
  return record
end
