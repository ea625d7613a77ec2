-- include: _dead
-- The time of death, from a score in DEAD.
local function died_ms(score)
  local at_ms = tonumber(score)
  return string.format('%.0f', math.floor(at_ms >= RESTING_MS and at_ms - RESTING_MS or at_ms))
end
