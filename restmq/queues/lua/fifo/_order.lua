-- include: _groups
-- Places in the order: see _groups.
local function order_of(key, record) return {number = number_of(key), group = group_of(record)} end

local function sort_by_order(keys, orders)
  table.sort(keys, function(one, other) return orders[one].number < orders[other].number end)
end

-- Puts messages back into their places. `orders` has these and all others whose leases have ended in this script.
local function come_back(keys, orders)
  for _, key in ipairs(keys) do take_place(key, orders[key].group) end
  local groups = {}
  for key, order in pairs(orders) do
    if call('ZSCORE', DEAD, key) then call('ZREM', GROUPED, member_of(order.group, order.number)) end
    groups[order.group] = true
  end
  for group in pairs(groups) do settle(group) end
end
