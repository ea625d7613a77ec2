-- DEAD has the times of deaths in ms. Dead letters that rest (see forward) have RESTING_MS added.
local RESTING_MS = 2 ^ 42
