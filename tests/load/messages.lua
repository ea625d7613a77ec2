-- Load with wrk: each connection puts a message in, takes one out, and so on.
--
--   wrk -t2 -c64 -d10s --latency -s tests/load/messages.lua http://127.0.0.1:8888/q/load-wrk
--
-- A queue of its own, please. What wrk calls "Non-2xx or 3xx responses" are failures; 204 (nothing there) is none.
local put, take
local turn = 0

function init()
  local form = {["Content-Type"] = "application/x-www-form-urlencoded"}
  put = wrk.format("POST", nil, form, "value=" .. string.rep("x", 64))
  take = wrk.format("GET")
end

function request()
  turn = turn + 1
  return turn % 2 == 1 and put or take
end
