-- The length of a lease whose client names none. The setting cannot be 0; the attribute of SQS can.
-- include: _setting
lease_ms = setting('lease') * 1000
if lease_ms == 0 then lease_ms = call('HGET', SQS, 'a:VisibilityTimeout') == '0' and 1 or tonumber(ARGV[7]) end
