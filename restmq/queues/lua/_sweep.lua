-- include: _forget
-- sweep(): drops expired messages among the first SWEPT ones, because they pile up in a queue without consumers. Returns
-- whether there were any.
-- It is called once per 100 new messages (add.lua) and covers more than those. So only messages that expire behind SWEPT
-- living ones pile up.
local SWEPT = 1000

local function sweep()
  local now = now_ms()
  if call('ZCOUNT', EXPIRING, '-inf', now) == 0 then return false end
  local keys = call('LRANGE', READY, -SWEPT, -1)
  if #keys == 0 then return false end
  local expiries, living, expired = call('ZMSCORE', EXPIRING, unpack(keys)), {}, {}
  for i, key in ipairs(keys) do
    local lives = not expiries[i] or tonumber(expiries[i]) > now
    local kind = lives and living or expired
    kind[#kind + 1] = key
  end
  if #expired == 0 then return false end
  call('LTRIM', READY, 0, -1 - SWEPT)
  if #living > 0 then call('RPUSH', READY, unpack(living)) end
  forget(expired)
  call('HINCRBY', TOTALS, 'expired', #expired)
  return true
end
