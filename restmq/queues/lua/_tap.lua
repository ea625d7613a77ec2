-- Copies of messages for taps, which watch what is put into a queue. TAPPED exists while any daemon has a tap on the
-- queue (tap.lua). The copies have a channel and a flow control of their own, by the rules of _flow.lua, with two
-- differences: the window is large and does not change, and while it is used up, messages are not held back, but are not
-- copied. Numbers of messages have no holes, so the daemons notice that (delivery/taps.py).
local TAP_WINDOW = 16777216

-- Returns copy(key, value, record), for the messages of the queue with this stored name and channel.
local function copying(queue, channel)
  local CHANNEL, FLOW = channel .. ':TAP', queue .. ':tapflow'
  local HELD, BESIDE = queue .. ':tapheld', queue .. ':tapbeside'
  -- include anew: _announce
  FIRST_WINDOW = TAP_WINDOW
  local is_open = call('EXISTS', HELD) == 0
  return function(key, value, record)
    is_open = is_open and announce(key, value, record, key .. ':tapped') and count_sent(#value + #record + OVERHEAD)
  end
end
