-- include: _number
-- include: _record
-- A FIFO queue: the messages of a group are delivered in order, and the group waits while any of them is leased.
--
-- 1. A message keeps its place for good: that of its number. Its group is in its record.
-- 2. GROUPED has all messages that are ready, delayed or leased, sorted by group and number. Its members are the group, a
--    blank and the number; their scores are 0. A group has no blank and no control character, so its messages are those
--    from '<group> ' to '<group>!'.
-- 3. ORDERED has the keys of the messages that are ready, by number. EXPIRING, LEASED, DELAYED and DEAD are those of
--    every queue; a delayed message is not ready, but keeps those behind it in its group waiting.
-- 4. LOCKED has the number of leased messages of each group that has any.
-- 5. GROUPS has the groups that can be served, by the number of their first message: those that are not locked, and whose
--    first message is not delayed. settle() restores this rule for a group.
-- Each step takes O(log n) of the number of messages and groups.
-- A maintainer must call settle() for each group whose first message or lock has changed, when all keys of the messages
-- are as they are to be.
local GROUP_DEFAULT, GROUP_BYTES_MAX = 'default', 128

-- Whether this script has unlocked a group.
local unlocked = false

-- The group of a message: that of SQS, or of the header X-Message-Group.
local function group_of(record)
  local group = record.group or record.headers and record.headers['x-message-group'] or ''
  return group == '' and GROUP_DEFAULT or string.sub(string.gsub(group, '[%z\1-\32\127]', '_'), 1, GROUP_BYTES_MAX)
end

local function member_of(group, number) return string.format('%s %020.0f', group, number) end

local function key_of(number) return string.format('%s:%.0f', QUEUE, number) end

-- The numbers of the first messages of a group.
local function first_numbers(group, count)
  local members = call('ZRANGE', GROUPED, '[' .. group .. ' ', '(' .. group .. '!', 'BYLEX', 'LIMIT', 0, count)
  local numbers = {}
  for i, member in ipairs(members) do numbers[i] = tonumber(string.match(member, '%d+$')) end
  return numbers
end

local function settle(group)
  local first = call('HEXISTS', LOCKED, group) == 0 and first_numbers(group, 1)[1]
  if first and not call('ZSCORE', DELAYED, key_of(first)) then
    call('ZADD', GROUPS, first, group)
  else
    call('ZREM', GROUPS, group)
  end
end

-- Puts a message into its place among those that are ready.
local function take_place(key, group)
  call('ZADD', GROUPED, 0, member_of(group, number_of(key)))
  call('ZADD', ORDERED, number_of(key), key)
end
