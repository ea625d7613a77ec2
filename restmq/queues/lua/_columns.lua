-- Appends messages to an answer, unless there are none: a number that says which columns follow, then the columns, with a
-- cell for each message. `messages` has keys, values and, if any expires, expiries in ms since 1970 or 0 (2 is added to
-- the number). There may also be numbers of looks, or of deliveries if it is not 1 for all (1), receipts (4), and records
-- of deliveries (8). A cell may be false. The columns are in no tables of their own, because Redis answers a table slowly
-- (see store/scripts.py).
local function append_column(answer, column, size)
  local last = #answer
  for i = 1, size do answer[last + i] = column[i] end
end

local function append_messages(answer, messages, counts, receipts, records)
  local size, expiries = #messages.keys, messages.expiries
  if size == 0 then return answer end
  answer[#answer + 1] = (counts and 1 or 0) + (expiries and 2 or 0) + (receipts and 4 or 0) + (records and 8 or 0)
  append_column(answer, messages.keys, size)
  append_column(answer, messages.values, size)
  if counts then append_column(answer, counts, size) end
  if expiries then append_column(answer, expiries, size) end
  if receipts then append_column(answer, receipts, size) end
  if records then append_column(answer, records, size) end
  return answer
end
