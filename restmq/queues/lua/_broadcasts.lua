local function broadcasts() return call('GET', POLICY) ~= '2' end
