-- Messages as scripts return them, one list per column: keys, values, looks or deliveries, expiries in ms since 1970 or
-- 0, receipts, records of deliveries. A column that has only defaults is an empty list.
local function as_columns(keys, values, counts, expiries, receipts, records)
  local function unless_all(default, cells)
    local differs = false
    for i = 1, #keys do
      local cell = cells[i] or default
      differs = differs or cell ~= default
      cells[i] = cell
    end
    return differs and cells or {}
  end
  expiries = unless_all(0, expiries)
  for i, expires_ms in ipairs(expiries) do expiries[i] = string.format('%.0f', expires_ms) end
  return {keys, values, unless_all('0', counts), expiries, receipts, unless_all('', records)}
end
