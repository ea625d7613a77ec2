-- SQS is a hash of what SQS knows of a queue and RestMQ does not: `created` and `modified` in ms, a:<name> for each
-- attribute, t:<name> for each tag, whose value has a = before it. SQS knows every queue that had a message, too.
local function exists() return call('EXISTS', SQS, NUMBER) > 0 end

-- The columns that describe the queue: fields of SQS, settings, policy, number of messages ready, leased, delayed, dead.
local function describe()
  -- include: _length
  return {call('HGETALL', SQS), call('HGETALL', SETTINGS), call('GET', POLICY) or '', length(), call('ZCARD', LEASED),
    call('ZCARD', DELAYED), call('ZCARD', DEAD)}
end
