-- Describes a queue to SQS.
-- ARGV: queue, clock.
-- Returns {state; the columns of `describe`, if there is such a queue}.
-- include: _prelude
-- include: _sqs
-- include: _overdue
if overdue() then return {PROMOTE_FIRST} end
if not exists() then return {DONE} end
return {DONE, unpack(describe())}
