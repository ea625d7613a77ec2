local function started() return call('GET', STATUS) ~= '0' end
